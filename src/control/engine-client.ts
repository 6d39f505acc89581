/**
 * The main thread's end of a data worker: puts requests on its port, wakes it, waits for the answers.
 *
 *   call(name, args) ── postMessage ──► parentPort of the worker
 *                    ── eventfd ──────► its poll(): between two breaths it takes what waits
 *                    ◄─ 'reply' / 'failed' with the same id
 */
import type {
  CaptureRecord,
  CtEvents,
  EngineRequestName,
  EngineRequests,
  KeptReport,
  RequestMessage,
  WorkerMessage,
} from '../engine/messages.ts';
import type { TraceRecord } from '../model/way.ts';
import type { WorkerThread } from './worker-thread.ts';

/** A breath takes microseconds; a request that is not answered by then meets a worker that hangs. */
const REQUEST_TIMEOUT_MS = 10_000;
/** A second, but on an emulated processor most of a minute: until the code is read, compiled and the tables are there. */
const START_TIMEOUT_MS = 120_000;
const SHUTDOWN_TIMEOUT_MS = 2_000;

/** The worker refused a request, or could not answer it. */
export class EngineError extends Error {
  override readonly name = 'EngineError';
}

export interface EngineEvents {
  readonly onLog: (
    level: 'debug' | 'info' | 'warn' | 'error',
    message: string,
    fields: Record<string, unknown>,
  ) => void;
  readonly onCaptured: (records: readonly CaptureRecord[]) => void;
  readonly onConntrackEvents: (events: CtEvents) => void;
  readonly onTraced: (records: readonly TraceRecord[]) => void;
  /** The worker has ended without being asked to. Told once. */
  readonly onDeath: (reason: string) => void;
}

/** What asks an engine: the real client, or a part of it that a caller needs. */
export interface Engine {
  call<N extends EngineRequestName>(
    name: N,
    args: EngineRequests[N]['args'],
    timeoutMs?: number,
  ): Promise<EngineRequests[N]['result']>;
}

interface Waiting {
  readonly resolve: (result: never) => void;
  readonly reject: (error: Error) => void;
  readonly timer: NodeJS.Timeout;
  /** Of a list, as far as it is here. */
  readonly rows: unknown[];
}

export class EngineClient implements Engine {
  readonly #thread: WorkerThread;
  readonly #events: EngineEvents;
  readonly #waiting = new Map<number, Waiting>();
  #ready: { resolve: (kept: KeptReport | undefined) => void; reject: (error: Error) => void } | null = null;
  #nextId = 1;
  #isEnding = false;
  #isDead = false;

  private constructor(thread: WorkerThread, events: EngineEvents) {
    this.#thread = thread;
    this.#events = events;
  }

  /**
   * Resolves when the worker is ready for requests, with what became of the life before.
   * @throws EngineError when it ends before, or takes longer than two minutes
   */
  static async start(
    thread: WorkerThread,
    events: EngineEvents,
  ): Promise<{ client: EngineClient; kept: KeptReport | undefined }> {
    const client = new EngineClient(thread, events);
    let timer: NodeJS.Timeout | undefined;
    try {
      const kept = await new Promise<KeptReport | undefined>((resolve, reject) => {
        client.#ready = { resolve, reject };
        timer = setTimeout(
          () => reject(new EngineError(`the data worker did not start within ${START_TIMEOUT_MS / 1000} s`)),
          START_TIMEOUT_MS,
        );
        thread.listen({ take: (message) => client.#take(message), die: (reason) => client.#die(reason) });
      });
      return { client, kept };
    } catch (error) {
      await client.kill();
      throw error;
    } finally {
      clearTimeout(timer);
      client.#ready = null;
    }
  }

  /** @throws EngineError when the worker fails the request, is gone, or is silent for `timeoutMs` */
  call<N extends EngineRequestName>(
    name: N,
    args: EngineRequests[N]['args'],
    timeoutMs = REQUEST_TIMEOUT_MS,
  ): Promise<EngineRequests[N]['result']> {
    if (this.#isDead) return Promise.reject(new EngineError(`${name}: the data worker has ended`));
    const id = this.#nextId++;
    const message: RequestMessage<N> = { id, name, args };
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#waiting.delete(id);
        reject(new EngineError(`${name}: the data worker has not answered for ${timeoutMs} ms`));
      }, timeoutMs);
      this.#waiting.set(id, { resolve, reject, timer, rows: [] });
      this.#thread.post(message);
    });
  }

  /** Asks the worker to end; after two seconds it is ended. */
  async shutdown(): Promise<void> {
    this.#isEnding = true;
    const ended = new Promise<void>((resolve) => this.#thread.onceEnded(resolve));
    if (this.#isDead) return;
    try {
      await this.call('shutdown', {}, SHUTDOWN_TIMEOUT_MS);
      const late = new Promise<'late'>((resolve) => setTimeout(resolve, SHUTDOWN_TIMEOUT_MS, 'late').unref());
      if ((await Promise.race([ended, late])) === 'late') await this.kill();
    } catch {
      await this.kill();
    }
  }

  /** Ends the worker where it stands. */
  async kill(): Promise<void> {
    this.#isEnding = true;
    await this.#thread.kill();
  }

  #take(message: WorkerMessage): void {
    switch (message.type) {
      case 'ready':
        this.#ready?.resolve(message.kept);
        break;
      case 'part':
        this.#takePart(message.id, message.rows);
        break;
      case 'reply':
        this.#reply(message.id, message.result);
        break;
      case 'failed':
        this.#settle(message.id)?.reject(new EngineError(message.message));
        break;
      case 'captured':
        this.#events.onCaptured(message.records);
        break;
      case 'conntrack-events':
        this.#events.onConntrackEvents(message);
        break;
      case 'traced':
        this.#events.onTraced(message.records);
        break;
      case 'log':
        this.#events.onLog(message.level, message.message, message.fields ?? {});
    }
  }

  #takePart(id: number, some: readonly unknown[]): void {
    const waiting = this.#waiting.get(id);
    if (waiting === undefined) return;
    for (const row of some) waiting.rows.push(row);
    waiting.timer.refresh();
  }

  #reply(id: number, result: unknown): void {
    const waiting = this.#settle(id);
    if (waiting === undefined) return;
    const { rows, resolve } = waiting;
    resolve((rows.length === 0 ? result : rows.concat(result)) as never);
  }

  #settle(id: number): Waiting | undefined {
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    clearTimeout(waiting?.timer);
    return waiting;
  }

  #die(reason: string): void {
    if (this.#isDead) return;
    this.#isDead = true;
    const error = new EngineError(`the data worker has ended: ${reason}`);
    this.#ready?.reject(error);
    for (const id of [...this.#waiting.keys()]) this.#settle(id)?.reject(error);
    if (!this.#isEnding && this.#ready === null) this.#events.onDeath(reason);
  }
}
