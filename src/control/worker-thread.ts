/** The data worker's thread as the main thread starts it: early, so what it says waits until somebody listens (engine-client.ts). */
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { eventfd, eventfdSignal } from '../device/native.ts';
import type { WorkerData, WorkerMessage } from '../engine/messages.ts';

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
  /** Resolves when the thread has its code and waits for its settings. */
  readonly loaded: Promise<void>;

  /** @param settings without them the thread loads its code and waits for `begin`; only that of the bundle can */
  constructor(settings?: WorkerSettings) {
    this.#wakeFd = eventfd();
    this.#signal = new Int32Array(new SharedArrayBuffer(4));
    const file = FILES.find((url) => existsSync(fileURLToPath(url))) ?? FILES[1]!;
    const workerData = settings === undefined ? { isSpare: true } : this.#dataOf(settings);
    this.#worker = new Worker(file, { workerData, name: 'tapvs-data-0' });
    let loaded: () => void = () => {};
    this.loaded = new Promise((resolve) => {
      loaded = resolve;
    });
    const tell = (what: (listener: WorkerListener) => void): void => {
      if (this.#listener === null) this.#early.push(what);
      else what(this.#listener);
    };
    this.#worker.on('message', (message: WorkerMessage | 'loaded') => {
      if (message === 'loaded') loaded();
      else tell((to) => to.take(message));
    });
    this.#worker.on('messageerror', (error) => tell((to) => to.die(`a message could not be read: ${error.message}`)));
    this.#worker.on('error', (error) => tell((to) => to.die(describe(error))));
    this.#worker.on('exit', (code) => tell((to) => to.die(`it ended with status ${code}`)));
  }

  static get canWait(): boolean {
    return existsSync(fileURLToPath(FILES[0]!));
  }

  begin(settings: WorkerSettings): void {
    this.#worker.postMessage(this.#dataOf(settings));
  }

  #dataOf({ limits, ...settings }: WorkerSettings): WorkerData {
    return {
      ...settings,
      maxConnections: limits.connections,
      maxEntries: limits.entries,
      maxPackets: limits.packets,
      eventfd: this.#wakeFd,
      signal: this.#signal.buffer as SharedArrayBuffer,
    };
  }

  /** From now on; what has been said by now at once. */
  listen(listener: WorkerListener): void {
    this.#listener = listener;
    for (const tell of this.#early.splice(0)) tell(listener);
  }

  /** Resolves with the first thing that the worker says or does. */
  async spoken(): Promise<void> {
    if (this.#early.length > 0 || this.#listener !== null) return;
    await new Promise<void>((resolve) => {
      for (const event of ['message', 'error', 'exit']) this.#worker.once(event, () => resolve());
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

function describe(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}
