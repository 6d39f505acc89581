// Named network namespaces, and programs in them: what `ip netns` does, by iproute2 itself.
//
// Creating a named namespace is a mount, not a netlink message, so iproute2 does it. Programs are started through
// `ip netns exec`, which becomes the program by exec(): the pid of the child is the program's own pid.
import { type ChildProcess, execFile, type SpawnOptions, spawn } from 'node:child_process';
import { readdirSync } from 'node:fs';

/** How long a stopped process has between SIGTERM and SIGKILL. */
const STOP_GRACE_MS = 2000;

export interface RunOptions {
  /** Text for the program's standard input. */
  readonly input?: string;
  /** Kills the program (SIGKILL) after that long; default 30 s. */
  readonly timeoutMs?: number;
  readonly env?: NodeJS.ProcessEnv;
}

export interface RunResult {
  /** Exit status; 128 + n when killed by signal n, as a shell says it. */
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a program and waits for its end; any exit status is a result. @throws Error when it cannot be started. */
export function run(argv: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  const [file = '', ...args] = argv;
  const { input = '', timeoutMs = 30_000, env } = options;
  return new Promise((resolve, reject) => {
    const child = execFile(
      file,
      args,
      { timeout: timeoutMs, killSignal: 'SIGKILL', maxBuffer: 256 << 20, ...(env !== undefined && { env }) },
      (error, stdout, stderr) => {
        if (error === null) resolve({ status: 0, stdout, stderr });
        else if (typeof error.code === 'number') resolve({ status: error.code, stdout, stderr });
        else if (error.killed === true || error.signal) resolve({ status: 128 + 9, stdout, stderr });
        else reject(error);
      },
    );
    child.stdin?.on('error', () => {}); // the program may end without reading
    child.stdin?.end(input);
  });
}

/** Like run, but a status other than 0 is an error that quotes what the program said. */
export async function runOk(argv: readonly string[], options: RunOptions = {}): Promise<string> {
  const { status, stdout, stderr } = await run(argv, options);
  if (status === 0) return stdout;
  const said = (stderr.trim() || stdout.trim()).split('\n').slice(0, 3).join('; ');
  throw new Error(`'${argv.join(' ')}' ended with status ${status}: ${said}`);
}

/** The words that run a program inside a namespace; null is the current one. */
export function inNetns(netns: string | null, argv: readonly string[]): string[] {
  return netns === null ? [...argv] : ['ip', 'netns', 'exec', netns, ...argv];
}

export function runIn(netns: string | null, argv: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  return run(inNetns(netns, argv), options);
}

export function runOkIn(netns: string | null, argv: readonly string[], options: RunOptions = {}): Promise<string> {
  return runOk(inNetns(netns, argv), options);
}

/** Starts a program in a namespace and does not wait; stdin closed, stdout and stderr are pipes unless told otherwise. */
export function spawnIn(netns: string | null, argv: readonly string[], options: SpawnOptions = {}): ChildProcess {
  const [file = '', ...args] = inNetns(netns, argv);
  return spawn(file, args, { stdio: ['ignore', 'pipe', 'pipe'], ...options });
}

/** Resolves with the first whole line of the child's stdout that matches; rejects when the child ends before. */
export function waitForLine(child: ChildProcess, pattern: RegExp, timeoutMs = 10_000): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = '';
    const finish = (settle: () => void): void => {
      clearTimeout(timer);
      child.stdout?.off('data', onData);
      child.off('close', onClose);
      child.off('error', reject);
      settle();
    };
    const said = (): string => `${child.spawnargs.join(' ')}; it said: ${text.trim().slice(-500) || 'nothing'}`;
    const look = (lines: readonly string[]): boolean => {
      const line = lines.find((candidate) => pattern.test(candidate));
      if (line !== undefined) finish(() => resolve(line));
      return line !== undefined;
    };
    const onData = (chunk: Buffer): void => {
      text += chunk.toString();
      // What stands behind the last line end may go on.
      look(text.split('\n').slice(0, -1));
    };
    const onClose = (): void => {
      if (!look(text.split('\n'))) finish(() => reject(new Error(`ended before it said ${pattern}: ${said()}`)));
    };
    const timer = setTimeout(() => finish(() => reject(new Error(`did not say ${pattern}: ${said()}`))), timeoutMs);
    child.stdout?.on('data', onData);
    child.once('close', onClose);
    child.once('error', reject);
  });
}

/** SIGTERM, and SIGKILL when that did not help within two seconds; resolves when the child has ended. */
export function stop(child: ChildProcess): Promise<void> {
  return new Promise((resolve) => {
    if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) {
      resolve();
      return;
    }
    const timer = setTimeout(() => child.kill('SIGKILL'), STOP_GRACE_MS);
    child.once('exit', () => {
      clearTimeout(timer);
      resolve();
    });
    child.kill('SIGTERM');
  });
}

// ---------------------------------------------------------------------------------------------------------------------

/** Names under /run/netns, sorted; none when there is no such directory. */
export function listNetns(): string[] {
  try {
    return readdirSync('/run/netns').sort();
  } catch {
    return [];
  }
}

/** A new named namespace with `lo` up. @throws Error when it exists. */
export async function addNetns(name: string): Promise<void> {
  await runOk(['ip', 'netns', 'add', name]);
  await runOk(['ip', '-n', name, 'link', 'set', 'lo', 'up']);
}

/** Kills what runs in the namespace and removes it; no error when there is none. */
export async function delNetns(name: string): Promise<void> {
  if (!listNetns().includes(name)) return;
  await killAllIn(name);
  const { status, stderr } = await run(['ip', 'netns', 'del', name]);
  if (status !== 0 && listNetns().includes(name)) throw new Error(`ip netns del ${name}: ${stderr.trim()}`);
}

/** The processes whose main thread is in that namespace. */
export async function pidsIn(name: string): Promise<number[]> {
  const { stdout } = await run(['ip', 'netns', 'pids', name]);
  return stdout.split('\n').filter(Boolean).map(Number);
}

/** SIGKILL to every process of the namespace, until none is left (never to ourselves). */
export async function killAllIn(name: string): Promise<void> {
  for (let round = 0; round < 50; round++) {
    const pids = (await pidsIn(name)).filter((pid) => pid !== process.pid);
    if (pids.length === 0) return;
    for (const pid of pids) {
      try {
        process.kill(pid, 'SIGKILL');
      } catch {
        // it has ended by itself
      }
    }
  }
}

/** Runs lines of ip(8) (`link set lo up`) in one process, stopping at the first that fails. */
export async function ipBatch(netns: string | null, lines: readonly string[]): Promise<void> {
  if (lines.length === 0) return;
  const where = netns === null ? [] : ['-n', netns];
  const { status, stderr } = await run(['ip', ...where, '-batch', '-'], { input: `${lines.join('\n')}\n` });
  if (status === 0) return;
  const failed = /Command failed -:(\d+)/.exec(stderr)?.[1];
  const line = failed === undefined ? '' : ` at 'ip ${lines[Number(failed) - 1]}'`;
  throw new Error(`ip -batch${netns === null ? '' : ` in ${netns}`}${line}: ${stderr.trim().split('\n')[0]}`);
}

/** Sets sysctls (dotted names; use `/` inside a device's name that has dots) in a namespace. */
export async function setSysctls(
  netns: string | null,
  values: Readonly<Record<string, string | number>>,
): Promise<void> {
  const words = Object.entries(values).map(([name, value]) => `${name}=${value}`);
  if (words.length > 0) await runOkIn(netns, ['sysctl', '-q', '-w', ...words]);
}
