/**
 * Processes of a bench run: short commands that must succeed, long ones that are stopped at the end, and what they cost.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';

/** A command that failed; the message is one line: what, exit code, the first line that it said. */
export class CommandError extends Error {}

export interface RunOptions {
  /** Written to the command's standard input. */
  readonly input?: string;
  /** Killed after so long, milliseconds (default 20,000). */
  readonly timeoutMs?: number;
}

const running = new Set<ChildProcess>();

/** Kills every command that is still under way (Ctrl-C). */
export function killRunning(): void {
  for (const child of running) child.kill('SIGKILL');
}

/** Runs a command to its end and returns its standard output. Throws CommandError. */
export async function run(command: readonly string[], options: RunOptions = {}): Promise<string> {
  const child = spawn(command[0]!, command.slice(1), { stdio: ['pipe', 'pipe', 'pipe'] });
  running.add(child);
  let out = '';
  let err = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    out += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    err += text;
  });
  child.stdin.on('error', () => {}); // a command may exit without reading its input; its exit code tells
  child.stdin.end(options.input ?? '');
  const timer = setTimeout(() => child.kill('SIGKILL'), options.timeoutMs ?? 20_000);
  try {
    const [code, signal] = (await once(child, 'close')) as [number | null, string | null];
    if (code === 0) return out;
    const said = (err || out).trim().split('\n')[0] ?? '';
    throw new CommandError(`${command.slice(0, 6).join(' ')}: ${signal ?? `exit ${code}`}: ${said}`);
  } finally {
    clearTimeout(timer);
    running.delete(child);
  }
}

/** A process that stays up until the end of the bench. */
export interface Daemon {
  readonly name: string;
  readonly pid: number;
  /** Waits for `isReady`, asked whenever the process writes, or every 50 ms. After 30 s it is killed. Throws CommandError. */
  ready(isReady: (output: string) => boolean | Promise<boolean>): Promise<void>;
  /** What it said so far, both streams. */
  output(): string;
  /** SIGTERM, and SIGKILL after 2 s. */
  stop(): Promise<void>;
}

/** Starts a long-running command. */
export function startDaemon(name: string, command: readonly string[], env: Record<string, string> = {}): Daemon {
  const child = spawn(command[0]!, command.slice(1), {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...env },
  });
  let output = '';
  const exited = once(child, 'exit').catch(() => {});
  const keep = (text: string): void => {
    output = (output + text).slice(-16_384);
  };
  child.stdout.setEncoding('utf8').on('data', keep);
  child.stderr.setEncoding('utf8').on('data', keep);
  const hasExited = (): boolean => child.exitCode !== null || child.signalCode !== null;
  return {
    name,
    pid: child.pid ?? -1,
    output: () => output,
    async ready(isReady) {
      const deadline = Date.now() + 30_000;
      while (!(await isReady(output))) {
        if (hasExited() || Date.now() > deadline) {
          const why = hasExited() ? `exit ${child.exitCode ?? child.signalCode}` : 'not ready after 30 s';
          child.kill('SIGKILL');
          throw new CommandError(`${name}: ${why}: ${output.trim().split('\n').slice(-3).join(' | ')}`);
        }
        await new Promise<void>((wake) => {
          const done = (): void => {
            clearTimeout(timer);
            child.stdout.off('data', done);
            wake();
          };
          const timer = setTimeout(done, 50);
          child.stdout.once('data', done);
        });
      }
    },
    async stop() {
      if (hasExited()) return;
      child.kill('SIGTERM');
      const timer = setTimeout(() => child.kill('SIGKILL'), 2000);
      await exited;
      clearTimeout(timer);
    },
  };
}

/** USER_HZ, the unit of /proc/<pid>/stat: 100 on every Linux that Node runs on. */
const TICKS_PER_SECOND = 100;

/** CPU seconds (user and system, all threads) of a process and its children so far; proc(5), fields 14 and 15. */
export function cpuSeconds(pid: number): number {
  let ticks = 0;
  for (const member of familyOf(pid)) {
    try {
      const stat = readFileSync(`/proc/${member}/stat`, 'latin1');
      const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
      ticks += Number(fields[11]) + Number(fields[12]);
    } catch {
      // gone since it was listed
    }
  }
  return ticks / TICKS_PER_SECOND;
}

function familyOf(pid: number): number[] {
  const family = [pid];
  for (let i = 0; i < family.length; i++) {
    try {
      for (const task of readdirSync(`/proc/${family[i]}/task`)) {
        const children = readFileSync(`/proc/${family[i]}/task/${task}/children`, 'latin1').trim();
        if (children) family.push(...children.split(' ').map(Number));
      }
    } catch {
      // gone
    }
  }
  return family;
}
