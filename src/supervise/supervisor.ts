/**
 * One command and its lives.
 *
 *   start ─► runs ─► ended ─► for good (told so, or status 0, 64, 78) ─► done
 *     ▲                │ else: what it gave away is read to the last, and passed to the next life as descriptors 3, 4, …
 *     └── pause? ◄─────┘
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { setPriority, tmpdir } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import * as native from '../device/native.ts';
import { DescriptorStore } from './store.ts';
import { Watch, type WatchData } from './watch.ts';

/** The command says by these that another start would end the same way: usage, configuration. */
const FOR_GOOD: ReadonlySet<number | null> = new Set([0, 64, 78]);
/** A life that is shorter counts as a failed start. */
const YOUNG_MS = 5_000;
/** So many failed starts in a row are tried again at once. */
const FREE_TRIES = 2;
const FIRST_PAUSE_MS = 100;
const LONGEST_PAUSE_MS = 10_000;

/** Packets wait for it, at its start most of all: Nice= of our unit. */
const NICE = -10;

interface Ending {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

export class Supervisor {
  readonly #command: readonly string[];
  readonly #say: (line: string) => void;
  readonly #store = new DescriptorStore();
  readonly #directory = mkdtempSync(join(tmpdir(), 'tapvs-supervise-'));
  readonly #path = join(this.#directory, 'notify');
  readonly #socket: number;
  /** Where our own manager listens, if we have one. */
  readonly #above = process.env.NOTIFY_SOCKET ?? '';
  #child: ChildProcess | null = null;
  #isEnding = false;
  #isRestarting = false;
  #youngDeaths = 0;
  /** Ends the pause before the next start. */
  #hurry: () => void = () => {};

  constructor(command: readonly string[], say: (line: string) => void) {
    this.#command = command;
    this.#say = say;
    this.#socket = native.noticeSocket(this.#path);
  }

  /** Resolves when the command has ended for good. */
  async run(): Promise<Ending> {
    const watch = this.#watch();
    try {
      for (;;) {
        const began = performance.now();
        const ending = await this.#live();
        this.#read();
        if (this.#isEnding || (!this.#isRestarting && FOR_GOOD.has(ending.code))) return ending;
        await this.#pause(ending, performance.now() - began);
        if (this.#isEnding) return ending;
      }
    } finally {
      watch.end();
      this.#store.clear();
      native.close(this.#socket);
      rmSync(this.#directory, { recursive: true, force: true });
    }
  }

  /** End the command for good. */
  end(): void {
    this.#isEnding = true;
    this.pass('SIGTERM');
    this.#hurry();
  }

  restart(): void {
    this.#isRestarting = true;
    this.pass('SIGUSR2');
    this.#hurry();
  }

  pass(signal: NodeJS.Signals): void {
    this.#child?.kill(signal);
  }

  /** One life of the command. */
  #live(): Promise<Ending> {
    const { kept } = this.#store;
    const given =
      kept.length === 0 ? {} : { LISTEN_FDS: `${kept.length}`, LISTEN_FDNAMES: kept.map(({ name }) => name).join(':') };
    const {
      LISTEN_FDS: _fds,
      LISTEN_PID: _pid,
      LISTEN_FDNAMES: _names,
      WATCHDOG_USEC: _watchdog,
      ...env
    } = process.env;
    // Who is started cannot know its pid before, so it is a shell that sets LISTEN_PID and becomes the command. A session of its own: Ctrl-C is ours to pass on.
    const child = spawn('/bin/sh', ['-c', 'export LISTEN_PID=$$; exec "$@"', 'sh', ...this.#command], {
      detached: true,
      env: { ...env, ...given, NOTIFY_SOCKET: this.#path },
      stdio: ['inherit', 'inherit', 'inherit', ...kept.map(({ fd }) => fd)],
    });
    prefer(child.pid);
    this.#child = child;
    this.#store.pid = child.pid ?? 0;
    this.#isRestarting = false;
    return new Promise((resolve, reject) => {
      child.once('error', reject);
      child.once('exit', (code, signal) => {
        this.#child = null;
        resolve({ code, signal });
      });
    });
  }

  async #pause({ code, signal }: Ending, livedMs: number): Promise<void> {
    const isYoung = livedMs < YOUNG_MS && !this.#isRestarting;
    this.#youngDeaths = isYoung ? this.#youngDeaths + 1 : 0;
    const tries = this.#youngDeaths - FREE_TRIES;
    const ms = tries <= 0 ? 0 : Math.min(FIRST_PAUSE_MS * 2 ** (tries - 1), LONGEST_PAUSE_MS);
    const how = this.#isRestarting
      ? 'restart'
      : `ended ${signal === null ? `with status ${code}` : `by ${signal}`} after ${(livedMs / 1000).toFixed(1)} s`;
    this.#say(
      `${this.#command[0]}: ${how}; started again${ms === 0 ? '' : ` in ${ms / 1000} s`}, ${this.#store.kept.length} descriptors are kept`,
    );
    if (ms === 0) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#hurry = () => {
        clearTimeout(timer);
        resolve();
      };
    });
    this.#hurry = () => {};
  }

  /** All that the command has said by now. */
  #read(): void {
    for (
      let notice = native.receiveNotice(this.#socket);
      notice !== null;
      notice = native.receiveNotice(this.#socket)
    ) {
      const lines = this.#store.take(notice);
      if (lines.length === 0 || this.#above === '') continue;
      try {
        native.notify(this.#above, lines.join('\n'));
      } catch {
        // a service manager that went away is no reason to stop
      }
    }
  }

  #watch(): { end(): void } {
    const state = new Int32Array(new SharedArrayBuffer(4));
    const eventfd = native.eventfd();
    const workerData: WatchData = { socket: this.#socket, eventfd, state: state.buffer as SharedArrayBuffer };
    const worker = new Worker(new URL('./watch.js', import.meta.url), { workerData, name: 'tapvs-notices' });
    worker.on('message', () => {
      this.#read();
      Atomics.compareExchange(state, 0, Watch.Read, Watch.Sleep);
      Atomics.notify(state, 0);
    });
    return {
      end: () => {
        Atomics.store(state, 0, Watch.End);
        Atomics.notify(state, 0);
        native.eventfdSignal(eventfd);
      },
    };
  }
}

/** Before it has threads, which begin as their parent is. */
function prefer(pid: number | undefined): void {
  try {
    if (pid !== undefined) setPriority(pid, NICE);
  } catch {
    // without CAP_SYS_NICE it takes its turn
  }
}
