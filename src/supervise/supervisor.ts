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

/** Packets wait for the command, at its start most of all: Nice= of our unit. */
const NICE = -10;

/** So long a process may take until it is ready to go on, ms; then the next one starts when the one before has ended. */
const SPARE_PATIENCE_MS = 10_000;

interface Spare {
  readonly child: ChildProcess;
  readonly path: string;
  /** Has said that it waits for its turn. */
  isReady: boolean;
}

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
  readonly #wantsSpare: boolean;
  /** The command has said that another one of it may be started before it ends. */
  #knowsSpare = false;
  #spare: Spare | null = null;
  #spares = 0;
  /** Ends the wait for a spare. */
  #late: NodeJS.Timeout | undefined;
  #isEnding = false;
  #isRestarting = false;
  #youngDeaths = 0;
  /** A spare is ready, or gone. */
  #onSpare: () => void = () => {};
  /** Ends the pause before the next start. */
  #hurry: () => void = () => {};

  /** @param wantsSpare where the command knows $TAPVS_SPARE (control/spare.ts), the next process is started before it is needed, for a crash, too */
  constructor(command: readonly string[], wantsSpare: boolean, say: (line: string) => void) {
    this.#command = command;
    this.#wantsSpare = wantsSpare;
    this.#say = say;
    this.#socket = native.noticeSocket(this.#path);
    prefer();
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
      this.#dropSpare();
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
    const go = (): void => {
      this.pass('SIGUSR2');
      this.#hurry();
    };
    if (!this.#knowsSpare) return go();
    // The one that waits may be of an older version than what is installed now.
    this.#dropSpare();
    const spare = this.#startSpare();
    clearTimeout(this.#late);
    this.#late = setTimeout(go, SPARE_PATIENCE_MS).unref();
    this.#onSpare = () => {
      if (this.#spare === spare && !spare.isReady) return;
      clearTimeout(this.#late);
      this.#onSpare = () => {};
      go();
    };
  }

  pass(signal: NodeJS.Signals): void {
    this.#child?.kill(signal);
  }

  /** One life of the command. */
  #live(): Promise<Ending> {
    const child = this.#takeSpare() ?? this.#start();
    this.#child = child;
    this.#store.pid = child.pid ?? 0;
    this.#isRestarting = false;
    return new Promise((resolve, reject) => {
      const end = (code: number | null, signal: NodeJS.Signals | null): void => {
        this.#child = null;
        resolve({ code, signal });
      };
      child.once('error', reject);
      if (child.exitCode !== null || child.signalCode !== null) end(child.exitCode, child.signalCode);
      else child.once('exit', end);
    });
  }

  /** The process gets what is kept as descriptors 3, 4, …; a spare gets nothing yet. */
  #start(sparePath = ''): ChildProcess {
    const kept = sparePath === '' ? this.#store.kept : [];
    const names = kept.map(({ name }) => name).join(':');
    const given = kept.length === 0 ? {} : { LISTEN_FDS: `${kept.length}`, LISTEN_FDNAMES: names };
    const spare = sparePath === '' ? {} : { TAPVS_SPARE: sparePath };
    const {
      LISTEN_FDS: _f,
      LISTEN_PID: _p,
      LISTEN_FDNAMES: _n,
      WATCHDOG_USEC: _w,
      TAPVS_SPARE: _s,
      ...env
    } = process.env;
    // Who is started cannot know its pid before, so it is a shell that sets LISTEN_PID and becomes the command. A session of its own: Ctrl-C is ours to pass on.
    const child = spawn('/bin/sh', ['-c', 'export LISTEN_PID=$$; exec "$@"', 'sh', ...this.#command], {
      detached: true,
      env: { ...env, ...given, ...spare, NOTIFY_SOCKET: this.#path },
      stdio: ['inherit', 'inherit', 'inherit', ...kept.map(({ fd }) => fd)],
    });
    return child;
  }

  #startSpare(): Spare {
    const path = join(this.#directory, `spare-${++this.#spares}`);
    const spare: Spare = { child: this.#start(path), path, isReady: false };
    this.#spare = spare;
    spare.child.once('error', () => {});
    spare.child.once('exit', () => {
      if (this.#spare === spare) this.#spare = null;
      this.#onSpare();
    });
    return spare;
  }

  /** The process that waits gets what is kept, and is the command from now on. */
  #takeSpare(): ChildProcess | null {
    const spare = this.#spare;
    this.#spare = null;
    if (spare === null) return null;
    const { kept } = this.#store;
    try {
      if (!spare.isReady) throw new Error('it is not ready');
      native.notify(
        spare.path,
        kept.map(({ name }) => name).join(':'),
        kept.map(({ fd }) => fd),
      );
      return spare.child;
    } catch {
      spare.child.kill('SIGKILL');
      return null;
    }
  }

  #dropSpare(): void {
    this.#spare?.child.kill('SIGKILL');
    this.#spare = null;
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
      if (this.#spare !== null && notice.pid === this.#spare.child.pid && notice.text === 'X_TAPVS_SPARE=1') {
        this.#spare.isReady = true;
        this.#say(`${this.#command[0]}: process ${notice.pid} waits for its turn`);
        this.#onSpare();
        continue;
      }
      const lines = this.#store.take(notice);
      if (lines.includes('X_TAPVS_KNOWS_SPARE=1')) this.#knowsSpare = true;
      if (this.#wantsSpare && this.#knowsSpare && this.#spare === null && lines.includes('READY=1')) this.#startSpare();
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

/** This process, which has to be quick as well, and what it starts. */
function prefer(): void {
  try {
    setPriority(NICE);
  } catch {
    // without CAP_SYS_NICE it takes its turn
  }
}
