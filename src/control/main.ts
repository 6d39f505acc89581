/** tapvsd's command line, signals and exit codes. The entry that runs it is cli/tapvsd.ts, which also knows how to read the lines of the classic tools. */
import { nativeProblem } from '../device/native.ts';
import { type Arguments, HELP } from './arguments.ts';
import { type Config, ConfigError, type Grammars, loadConfig, parseConfig } from './config.ts';
import type { ControlState } from './control-state.ts';
import { Daemon, StartError } from './daemon.ts';
import { DeviceError } from './devices.ts';
import type { EarlyStart } from './early-start.ts';
import { type Log, openLog } from './log.ts';
import { plan, planText } from './plan.ts';
import { EngineRehearsal } from './rehearsal.ts';
import type { Succession } from './succession.ts';
import { readVersion } from './version.ts';
import type { WorkerThread } from './worker-thread.ts';

/** sysexits(3), as far as systemd.exec(5) names them. */
const Exit = { Ok: 0, Usage: 64, Internal: 70, Again: 75, Permission: 77, Config: 78 } as const;

const DEFAULT_STATE = '/var/lib/tapvs';

/** Runs the program; resolves with its exit status, for `serve` when it has ended. */
export async function main({ args, succession, thread }: EarlyStart, grammars: Grammars): Promise<number> {
  if (args.command === 'help') return say(HELP);
  if (args.command === 'version') return say(`tapvsd ${readVersion()}\n`);
  let config: Config;
  try {
    config = loadConfig(args.config, grammars, new EngineRehearsal());
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    const { length } = error.diagnostics;
    process.stderr.write(
      `${error.message}\ntapvsd: ${length === 1 ? 'one fault' : `${length} faults`} in the configuration\n`,
    );
    return Exit.Config;
  }
  if (args.command === 'check') {
    const { devices, ipvs } = config;
    return say(`${config.file}: good: ${devices.length} devices, ${ipvs.services.size} services\n`);
  }
  if (args.command === 'dry-run')
    return say(
      planText(plan(null, config))
        .map((line) => `${line}\n`)
        .join(''),
    );
  return serve(args, config, grammars, succession, thread);
}

function say(text: string): number {
  process.stdout.write(text);
  return Exit.Ok;
}

// ---------------------------------------------------------------------------------------------------------------------

async function serve(
  args: Arguments,
  config: Config,
  grammars: Grammars,
  succession: Succession,
  thread: WorkerThread | undefined,
): Promise<number> {
  const log = openLog(
    args.logLevel ?? config.log.level,
    config.log.format ?? (process.stdout.isTTY ? 'pretty' : 'json'),
  );
  const problem = nativeProblem();
  if (problem !== null) {
    log.error({}, problem);
    return Exit.Internal;
  }
  let daemon: Daemon | undefined;
  let end: (status: number) => void = () => {};
  const ended = new Promise<number>((resolve) => {
    end = resolve;
  });
  const fail = (text: string): void => {
    log.error({}, `internal error, ending: ${text}`);
    end(Exit.Internal);
  };
  // Unhandled rejections come here, too. Before the daemon is there nobody waits for `ended`.
  process.on('uncaughtException', (error) => {
    fail(stackOf(error));
    if (daemon === undefined) process.exit(Exit.Internal);
  });
  // From the first moment on: the default of SIGHUP is to end the process.
  let wantsReload = false;
  const reload = (): void => {
    wantsReload = true;
    void daemon?.reload().catch((error) => log.error({}, `not reloaded: ${messageOf(error)}`));
  };
  process.on('SIGHUP', reload);
  let signals = 0;
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.on(signal, () => {
      if (++signals > 1) {
        daemon?.abandon();
        process.kill(process.pid, 'SIGKILL');
      }
      log.info({ signal }, 'ending');
      end(Exit.Ok);
    });
  }

  let hasSuccessor = false;
  process.on('SIGUSR2', () => {
    if (++signals > 1) return;
    hasSuccessor = succession.manager.isThere;
    log.info(
      { signal: 'SIGUSR2' },
      hasSuccessor ? 'ending, a successor goes on' : 'ending; nobody keeps connections for a successor',
    );
    end(Exit.Again);
  });

  const options = {
    config,
    reread: () => loadConfig(args.config, grammars, new EngineRehearsal()),
    parseBefore: (texts: ControlState['texts']) => {
      const [[file, text] = ['', '']] = texts;
      return parseConfig(text, file, grammars, undefined, new Map(texts));
    },
    socketPath: args.socket,
    // systemd.exec(5): several are parted by colons.
    stateDirectory: process.env.STATE_DIRECTORY?.split(':')[0] || DEFAULT_STATE,
    testClock: args.testClock,
    version: readVersion(),
    log,
    fixedLevel: args.logLevel !== undefined,
    succession,
    thread,
    onDeath: (reason: string) => fail(`the data worker has ended: ${reason}`),
  };
  try {
    daemon = await Daemon.start(options);
  } catch (error) {
    return reportStart(error, log);
  }
  if (wantsReload) reload();
  const status = await ended;
  try {
    await daemon.stop(hasSuccessor && status === Exit.Again);
  } catch (error) {
    log.error({}, `while ending: ${messageOf(error)}`);
    daemon.abandon();
    return Exit.Internal;
  }
  return status;
}

/** Logs why the start failed, a line for each reason, and chooses the exit status. */
function reportStart(error: unknown, log: Log): number {
  const all = error instanceof StartError ? error.faults : [error];
  // Without its device an address or a route cannot be had either: that need not be said.
  const devices = all.filter((fault) => fault instanceof DeviceError);
  const faults = devices.length > 0 ? devices : all;
  for (const fault of faults) log.error({}, `cannot start: ${messageOf(fault)}`);
  const codes = faults.map((fault) => (fault instanceof Error && 'code' in fault ? String(fault.code) : ''));
  if (codes.some((code) => code === 'EPERM' || code === 'EACCES')) return Exit.Permission;
  // What the engine refuses is wrong in the file; what the kernel refuses (no such bridge yet) may be right a second later.
  const isRefusal = error instanceof StartError && devices.length === 0;
  return isRefusal ? Exit.Config : Exit.Internal;
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function stackOf(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message).replace(/\n\s*/g, ' | ') : String(error);
}
