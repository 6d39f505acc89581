/** For how long a request stops the data path: asked for in slices, as the daemon asks for it, with a breath in between. */
import { MessageChannel, receiveMessageOnPort } from 'node:worker_threads';
import type { Engine } from '../src/engine/engine.ts';

const MAX_SLICE_MS = 5;

/** One slice: the answer, and the cursor of the next; -1: that was all. */
export interface Slice {
  readonly result: unknown;
  readonly next: number;
}

export class Stops {
  readonly #engine: Engine;
  readonly #channel = new MessageChannel();
  isTooLong = false;

  constructor(engine: Engine) {
    this.#engine = engine;
  }

  /** Ask slice by slice, a breath in between. */
  measure(what: string, slice: (cursor: number) => Slice): void {
    const { port1, port2 } = this.#channel;
    // What was left behind before is not this command's.
    globalThis.gc?.();
    let longestCpu = 0;
    let longest = 0;
    let slices = 0;
    let total = 0;
    for (let cursor = 0; cursor >= 0; slices++) {
      const cpu = process.cpuUsage();
      const before = performance.now();
      const { result, next } = slice(cursor);
      port1.postMessage(result);
      const passed = performance.now() - before;
      const { user, system } = process.cpuUsage(cpu);
      longest = Math.max(longest, passed);
      // Other threads of V8 may have collected meanwhile: no more than passed can have been ours.
      longestCpu = Math.max(longestCpu, Math.min(passed, (user + system) / 1000));
      total += passed;
      receiveMessageOnPort(port2);
      this.#engine.breathe();
      cursor = next;
    }
    this.isTooLong ||= longestCpu > MAX_SLICE_MS;
    process.stdout.write(
      `${what.padEnd(34)} ${String(slices).padStart(6)} slices   longest ${longestCpu.toFixed(2)} ms (${longest.toFixed(2)} on the clock)   all ${total.toFixed(0)} ms\n`,
    );
  }

  close(): void {
    this.#channel.port1.close();
  }
}
