/** The data worker's thread as the main thread starts it: early, so what it says waits until somebody listens (engine-client.ts). */
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { eventfd, eventfdSignal } from '../device/native.ts';
import type { WaitingData, WorkerData, WorkerMessage } from '../engine/messages.ts';

/** In the bundle it lies beside this file; the compiled tree has worker.js, the sources have worker.ts. */
const FILES = ['./worker.cjs', '../engine/worker.js', '../engine/worker.ts'].map(
  (file) => new URL(file, import.meta.url),
);

export interface WorkerSettings extends Pick<WorkerData, 'spin' | 'testClock' | 'keep'> {
  readonly limits: { readonly connections: number; readonly entries: number; readonly packets: number };
}

export interface WorkerListener {
  take(message: WorkerMessage): void;
  /** Told at least once when the thread has ended. */
  die(reason: string): void;
}

export class WorkerThread {
  readonly #worker: Worker;
  readonly #wakeFd: number;
  /** Not 0: requests wait on the port. The worker looks at it in every breath. */
  readonly #signal: Int32Array;
  #listener: WorkerListener | null = null;
  readonly #early: ((listener: WorkerListener) => void)[] = [];
  #onSpoken: () => void = () => {};
  /** Resolves when the thread has its code, is warm if it shall be, and waits for `begin`; rejects when it ends before. */
  readonly loaded: Promise<void>;

  /**
   * The thread loads its code and waits for `begin`.
   * @param ahead its turn comes later: it gets warm meanwhile, and makes its tables if this is not null; `begin` may say something else
   */
  constructor(ahead?: { readonly sizes: Omit<WorkerSettings, 'testClock' | 'keep'> | null; readonly fd: number }) {
    this.#wakeFd = eventfd();
    this.#signal = new Int32Array(new SharedArrayBuffer(4));
    const file = FILES.find((url) => existsSync(fileURLToPath(url))) ?? FILES[1]!;
    const sizes = ahead?.sizes;
    const workerData: WaitingData =
      ahead === undefined ? {} : { ahead: sizes ? { ...limitsOf(sizes), spin: sizes.spin, keepFd: ahead.fd } : null };
    this.#worker = new Worker(file, { workerData, name: 'tapvs-data-0' });
    let loaded: () => void = () => {};
    let ended: (error: Error) => void = () => {};
    this.loaded = new Promise((resolve, reject) => {
      loaded = resolve;
      ended = reject;
    });
    // Whoever does not wait for it hears of it as a listener.
    this.loaded.catch(() => {});
    const tell = (what: (listener: WorkerListener) => void): void => {
      this.#onSpoken();
      if (this.#listener === null) this.#early.push(what);
      else what(this.#listener);
    };
    this.#worker.on('message', (message: WorkerMessage) => {
      if (message.type === 'loaded') loaded();
      else tell((to) => to.take(message));
    });
    this.#worker.on('messageerror', (error) => tell((to) => to.die(`a message could not be read: ${error.message}`)));
    const die = (reason: string): void => {
      ended(new Error(`the data worker: ${reason}`));
      tell((to) => to.die(reason));
    };
    this.#worker.on('error', (error) => die(describe(error)));
    this.#worker.on('exit', (code) => die(`it ended with status ${code}`));
  }

  begin({ limits, ...settings }: WorkerSettings): void {
    const data: WorkerData = {
      ...settings,
      ...limitsOf({ limits }),
      eventfd: this.#wakeFd,
      signal: this.#signal.buffer as SharedArrayBuffer,
    };
    this.#worker.postMessage(data);
  }

  /** From now on; what has been said by now at once. */
  listen(listener: WorkerListener): void {
    this.#listener = listener;
    for (const tell of this.#early.splice(0)) tell(listener);
  }

  /** Resolves with the first thing that the worker says or does after `begin`. */
  async spoken(): Promise<void> {
    if (this.#early.length > 0 || this.#listener !== null) return;
    await new Promise<void>((resolve) => {
      this.#onSpoken = resolve;
    });
  }

  post(message: object): void {
    this.#worker.postMessage(message);
    this.#wake();
  }

  onceEnded(run: () => void): void {
    this.#worker.once('exit', run);
  }

  /** Ends it where it stands. */
  async kill(): Promise<void> {
    const ended = this.#worker.terminate();
    this.#wake(); // out of poll(): native code is not interrupted by terminate
    await ended;
  }

  #wake(): void {
    Atomics.store(this.#signal, 0, 1);
    eventfdSignal(this.#wakeFd);
  }
}

function limitsOf({ limits: { connections, entries, packets } }: Pick<WorkerSettings, 'limits'>) {
  return { maxConnections: connections, maxEntries: entries, maxPackets: packets };
}

function describe(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}
