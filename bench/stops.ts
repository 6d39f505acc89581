/**
 * For how long a request stops the data path: asked for in slices, as the daemon asks for it, with a breath in between. Commands that are measured again count as runs of
 * the same: at the end the median and the worst of their longest stops are told.
 */
import { openSync, readSync } from 'node:fs';
import { MessageChannel, receiveMessageOnPort } from 'node:worker_threads';
import { Slices, TimeBudget } from '../src/base/slices.ts';
import { registerArena } from '../src/device/native.ts';
import { Captures } from '../src/engine/capture.ts';
import { CopyMemory } from '../src/engine/copy-memory.ts';
import type { Engine } from '../src/engine/engine.ts';
import type { EngineRequestName, EngineRequests, RequestMessage, WorkerMessage } from '../src/engine/messages.ts';
import { answer, type RequestContext } from '../src/engine/requests.ts';
import { Traces } from '../src/engine/trace.ts';

const MAX_SLICE_MS = 5;
/** As the worker's: what there is to do beside packets is done for so long between two breaths. */
const WORK_MS = 1;

/** One slice: the answer, and the cursor of the next; -1: that was all. */
export interface Slice {
  readonly result: unknown;
  readonly next: number;
}

/** Asks the engine as the control thread does. */
export type Ask = <N extends EngineRequestName>(
  name: N,
  args: EngineRequests[N]['args'],
) => EngineRequests[N]['result'];

/** Milliseconds: without those in which others had the core, and as they passed on the clock. What other threads of V8 do while this one waits for them does count. */
interface Stop {
  readonly own: number;
  readonly clock: number;
}

const NO_STOP: Stop = { own: 0, clock: 0 };

interface Run {
  slices: number;
  longest: Stop;
  longestBreath: Stop;
  all: number;
}

/** By what was asked. */
export type Runs = Map<string, Run[]>;

export class Stops {
  readonly #engine: Engine;
  readonly #context: RequestContext;
  readonly #channel = new MessageChannel();
  readonly #runs: Runs;
  #run: Run = newRun();
  #nextId = 1;

  /** @param runs of engines before this one, to go on with */
  constructor(engine: Engine, runs: Runs = new Map()) {
    this.#engine = engine;
    this.#runs = runs;
    engine.tracking.budget = new TimeBudget(WORK_MS, () => performance.now());
    this.#context = {
      engine,
      captures: new Captures(engine, () => {}),
      traces: new Traces(engine, () => {}),
      testClock: null,
      keeper: null,
      arena: registerArena(engine.pool.bytes),
      post: () => {},
      copies: new CopyMemory(),
      staged: [],
      stagedIpvs: [],
      isStopping: false,
    };
  }

  /** Ask slice by slice, a breath in between. */
  measure(what: string, slice: (cursor: number) => Slice): void {
    const { port1, port2 } = this.#channel;
    this.#begin();
    for (let cursor = 0; cursor >= 0; ) {
      cursor = this.#piece(() => {
        const { result, next } = slice(cursor);
        port1.postMessage(result);
        return next;
      });
      receiveMessageOnPort(port2);
    }
    this.#end(what);
  }

  /** Whatever requests a command needs, as the control thread sends them and as the worker takes and answers them. */
  command(what: string, send: (ask: Ask) => void): void {
    this.#begin();
    send((name, args) => this.#ask(name, args));
    this.#end(what);
  }

  /** What the data path has left to do by itself: so many breaths. */
  breaths(what: string, count: number, before: () => void): void {
    this.#begin();
    for (let i = 0; i < count; i++) {
      before();
      this.#breathe();
    }
    this.#end(what);
  }

  #begin(): void {
    // What was left behind before is not this command's.
    globalThis.gc?.();
    this.#run = newRun();
  }

  #end(what: string): void {
    const runs = this.#runs.get(what) ?? [];
    this.#runs.set(what, runs);
    runs.push(this.#run);
  }

  #ask<N extends EngineRequestName>(name: N, args: EngineRequests[N]['args']): EngineRequests[N]['result'] {
    const { port1, port2 } = this.#channel;
    port2.postMessage({ id: this.#nextId++, name, args } satisfies RequestMessage<N>);
    let work: Slices<unknown> | null = null;
    const reply = (result: unknown): true => {
      port1.postMessage({ type: 'reply', result });
      return true;
    };
    let isDone = this.#piece(() => {
      const result = answer(this.#context, receiveMessageOnPort(port1)!.message as RequestMessage);
      if (!(result instanceof Slices)) return reply(result);
      work = result as Slices<unknown>;
      return false;
    });
    while (!isDone) {
      isDone = this.#piece(() => {
        const end = performance.now() + WORK_MS;
        do {
          const done = work!.next();
          if (done !== undefined) return reply(done.value);
          if (work!.part !== null) port1.postMessage({ type: 'part', rows: work!.part });
        } while (performance.now() < end);
        return false;
      });
    }
    const rows: unknown[] = [];
    for (;;) {
      const { message } = receiveMessageOnPort(port2) as { readonly message: WorkerMessage };
      if (message.type === 'part') rows.push(...message.rows);
      else if (message.type === 'reply')
        return (rows.length === 0 ? message.result : rows.concat(message.result)) as EngineRequests[N]['result'];
    }
  }

  /** Something that is done between two breaths, and the second of them. */
  #piece<T>(work: () => T): T {
    const { value, stop } = timed(work);
    const run = this.#run;
    run.slices++;
    run.all += stop.clock;
    run.longest = longerOf(run.longest, stop);
    this.#breathe();
    return value;
  }

  #breathe(): void {
    const { stop } = timed(() => this.#engine.breathe());
    this.#run.longestBreath = longerOf(this.#run.longestBreath, stop);
  }

  /** All of it. @returns whether something took too long, by the median of its runs */
  report(): boolean {
    let isTooLong = false;
    process.stdout.write(
      `${'longest stop of each run, ms'.padEnd(52)} median   worst (on the clock)  worst breath   slices     all\n`,
    );
    for (const [what, runs] of this.#runs) {
      const stops = runs.map(({ longest }) => longest.own).sort((a, b) => a - b);
      const median = stops[stops.length >> 1]!;
      const breath = Math.max(...runs.map(({ longestBreath }) => longestBreath.own));
      const clock = Math.max(...runs.map(({ longest }) => longest.clock));
      const { slices, all } = runs.at(-1)!;
      const figures = [number(median, 8), number(stops.at(-1)!, 8), number(clock, 8), number(breath, 14)].join('');
      isTooLong ||= median > MAX_SLICE_MS || breath > MAX_SLICE_MS;
      process.stdout.write(
        `${what.padEnd(50)} ${figures}      ${String(slices).padStart(8)} ${all.toFixed(0).padStart(5)} ms\n`,
      );
    }
    return isTooLong;
  }

  close(): void {
    this.#channel.port1.close();
  }
}

function newRun(): Run {
  return { slices: 0, longest: NO_STOP, longestBreath: NO_STOP, all: 0 };
}

function number(value: number, width: number): string {
  return value.toFixed(2).padStart(width);
}

function longerOf(a: Stop, b: Stop): Stop {
  return { own: Math.max(a.own, b.own), clock: Math.max(a.clock, b.clock) };
}

function timed<T>(work: () => T): { value: T; stop: Stop } {
  const waited = waitedMs();
  const before = performance.now();
  const value = work();
  const clock = performance.now() - before;
  return { value, stop: { own: Math.max(0, clock - (waitedMs() - waited)), clock } };
}

const SCHEDSTAT = openSync('/proc/self/schedstat', 'r');
const text = Buffer.alloc(128);

/** For how long this thread has waited for a core that others had: /proc/PID/schedstat, its second figure, nanoseconds. */
function waitedMs(): number {
  const length = readSync(SCHEDSTAT, text, 0, text.length, 0);
  return Number(text.toString('latin1', 0, length).split(' ')[1]) / 1e6;
}
