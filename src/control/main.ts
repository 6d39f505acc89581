/** tapvsd's command line, signals and exit codes. The entry that runs it is cli/tapvsd.ts, which also knows how to read ipvsadm's lines. */
import { parseArgs } from 'node:util';
import { nativeProblem } from '../device/native.ts';
import { DEFAULT_SOCKET } from './api.ts';
import { type Config, ConfigError, type LogLevel, loadConfig, type ParseIpvsadm } from './config.ts';
import { Daemon, StartError } from './daemon.ts';
import { DeviceError } from './devices.ts';
import { type Log, openLog } from './log.ts';
import { plan, planText } from './plan.ts';
import { EngineRehearsal } from './rehearsal.ts';
import { ServiceManager } from './service-manager.ts';
import { readVersion } from './version.ts';

/** sysexits(3), as far as systemd.exec(5) names them. */
const Exit = { Ok: 0, Usage: 64, Internal: 70, Permission: 77, Config: 78 } as const;

const DEFAULT_CONFIG = '/etc/tapvs/tapvs.yaml';
const DEFAULT_STATE = '/var/lib/tapvs';
const LEVELS: readonly LogLevel[] = ['debug', 'info', 'warn', 'error', 'silent'];

const HELP = `Usage: tapvsd [--config FILE] [options]      serve until SIGTERM
       tapvsd check [--config FILE]          say what is wrong with the file, exit 78 when anything is
       tapvsd --dry-run [--config FILE]      print what a start would set up

  -c, --config FILE    configuration file (${DEFAULT_CONFIG})
  -s, --socket PATH    control socket ($TAPVS_SOCKET, or ${DEFAULT_SOCKET})
  -l, --log-level L    ${LEVELS.join(', ')} (else the file says)
      --dry-run        print the plan and change nothing
      --test-clock     POST /v1/clock turns the clock forward (for tests)
  -h, --help           this text
  -V, --version        the version

Signals: HUP reads the file again and applies what has changed, established flows live on; a bad file is logged and changes
nothing. TERM and INT end the daemon and remove its devices and socket; a second one ends it at once.
Exit codes: 0 ended as told, 64 usage, 70 internal error, 77 permission missing, 78 bad configuration.
`;

interface Arguments {
  readonly command: 'serve' | 'check' | 'dry-run' | 'help' | 'version';
  readonly config: string;
  readonly socket: string;
  readonly logLevel: LogLevel | undefined;
  readonly testClock: boolean;
}

class UsageError extends Error {}

/** @throws UsageError */
function readArguments(words: readonly string[], env: Readonly<Record<string, string | undefined>>): Arguments {
  const { values, positionals } = parse(words);
  const [command, ...rest] = positionals;
  if ((command !== undefined && command !== 'check') || rest.length > 0) {
    throw new UsageError(`'${[command, ...rest].join(' ')}': the only command is 'check'`);
  }
  const level = values['log-level'];
  const logLevel = LEVELS.find((known) => known === level);
  if (level !== undefined && logLevel === undefined) {
    throw new UsageError(`--log-level: '${level}' is not one of ${LEVELS.join(', ')}`);
  }
  const asked = values.help
    ? 'help'
    : values.version
      ? 'version'
      : (command ?? (values['dry-run'] ? 'dry-run' : 'serve'));
  return {
    command: asked,
    config: values.config ?? DEFAULT_CONFIG,
    socket: values.socket ?? (env.TAPVS_SOCKET || DEFAULT_SOCKET),
    logLevel,
    testClock: values['test-clock'] ?? false,
  };
}

function parse(words: readonly string[]) {
  try {
    return parseArgs({
      args: [...words],
      allowPositionals: true,
      options: {
        config: { type: 'string', short: 'c' },
        socket: { type: 'string', short: 's' },
        'log-level': { type: 'string', short: 'l' },
        'dry-run': { type: 'boolean' },
        'test-clock': { type: 'boolean' },
        help: { type: 'boolean', short: 'h' },
        version: { type: 'boolean', short: 'V' },
      },
    });
  } catch (error) {
    throw new UsageError(messageOf(error).split('. ')[0]);
  }
}

/** Runs the program; resolves with its exit status, for `serve` when it has ended. */
export async function main(words: readonly string[], parseIpvsadm: ParseIpvsadm): Promise<number> {
  let args: Arguments;
  try {
    args = readArguments(words, process.env);
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    process.stderr.write(`tapvsd: ${error.message}; see tapvsd --help\n`);
    return Exit.Usage;
  }
  if (args.command === 'help') return say(HELP);
  if (args.command === 'version') return say(`tapvsd ${readVersion()}\n`);
  let config: Config;
  try {
    config = loadConfig(args.config, parseIpvsadm, new EngineRehearsal());
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
  return serve(args, config, () => loadConfig(args.config, parseIpvsadm, new EngineRehearsal()));
}

function say(text: string): number {
  process.stdout.write(text);
  return Exit.Ok;
}

// ---------------------------------------------------------------------------------------------------------------------

async function serve(args: Arguments, config: Config, reread: () => Config): Promise<number> {
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

  const options = {
    config,
    reread,
    socketPath: args.socket,
    // systemd.exec(5): several are parted by colons.
    stateDirectory: process.env.STATE_DIRECTORY?.split(':')[0] || DEFAULT_STATE,
    testClock: args.testClock,
    version: readVersion(),
    log,
    fixedLevel: args.logLevel !== undefined,
    manager: new ServiceManager(process.env),
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
    await daemon.stop();
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
