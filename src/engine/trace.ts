/**
 * The worker's side of `tapvs trace`: the ways of live packets that a filter selects, written down as they pass.
 *
 * While nobody traces there is no tap, no observer and no note. What is recorded is bounded: so many packets per tick, saved up to a burst; those beyond are
 * counted, and the next record says how many were missed; when none follows within a second, one without ways does.
 */
import { TICKS_PER_SECOND } from '../base/clock.ts';
import { Medium } from '../device/device.ts';
import type { TraceRecord, Way } from '../model/way.ts';
import type { Packet } from '../packet/packet.ts';
import { compileFilter, FilterError, type FramePredicate } from '../wire/filter.ts';
import { type Recorded, WayRecorder } from './way-recorder.ts';

/** Packets whose ways are written down: one a tick (4 ms) is 250 a second, and a burst after a rest. */
const PER_TICK = 1;
const BURST = 500;
/** Ticks without a packet after which it is said how many were missed. */
const SILENCE = TICKS_PER_SECOND;
/** A scheduler's candidates are listed for services of at most so many servers. */
const MAX_CANDIDATES = 64;

interface Running {
  readonly id: number;
  /** null: all. */
  readonly device: string | null;
  readonly isSelected: FramePredicate;
  missed: number;
  /** Tick of the last packet that was missed. */
  missedAt: number;
}

export class Traces {
  readonly #recorded: Recorded;
  readonly #recorder: WayRecorder;
  readonly #sink: (records: readonly TraceRecord[]) => void;
  readonly #nowUs: () => number;
  readonly #running = new Map<number, Running>();
  /** Who wants the packet that is under way. */
  #takers: Running[] = [];
  #timeUs = 0;
  #batch: TraceRecord[] = [];
  #budget = BURST;
  #refilled: number;

  /** @param nowUs microseconds since the epoch, for the records */
  constructor(
    recorded: Recorded,
    sink: (records: readonly TraceRecord[]) => void,
    nowUs: () => number = () => (performance.timeOrigin + performance.now()) * 1000,
  ) {
    this.#recorded = recorded;
    this.#sink = sink;
    this.#nowUs = nowUs;
    this.#refilled = recorded.stack.now;
    this.#recorder = new WayRecorder(recorded, {
      wants: (p) => this.#wants(p),
      done: (ways) => this.#done(ways),
      maxCandidates: MAX_CANDIDATES,
    });
  }

  /** Begin a trace. Answers why not, in one line, or null. */
  start(id: number, device: string | undefined, filter: string): string | null {
    let isSelected: FramePredicate;
    try {
      isSelected = compileFilter(filter);
    } catch (error) {
      if (error instanceof FilterError) return error.message;
      throw error;
    }
    if (this.#running.size === 0) this.#recorder.start();
    this.#running.set(id, { id, device: device ?? null, isSelected, missed: 0, missedAt: 0 });
    return null;
  }

  stop(id: number): void {
    if (!this.#running.delete(id) || this.#running.size > 0) return;
    this.#recorder.stop();
    this.#takers = [];
    this.#batch = [];
  }

  /** Post what is ready; the worker calls it after each breath. */
  flush(): void {
    if (this.#running.size === 0) return;
    this.#recorder.finish();
    for (const trace of this.#running.values()) {
      if (trace.missed > 0 && ((this.#recorded.stack.now - trace.missedAt) | 0) >= SILENCE)
        this.#post(trace, this.#nowUs(), []);
    }
    if (this.#batch.length === 0) return;
    const batch = this.#batch;
    this.#batch = [];
    this.#sink(batch);
  }

  #wants(p: Packet): boolean {
    const ifc = this.#recorded.stack.link.interfaces[p.inDevice];
    if (!ifc?.device) return false;
    const isEthernet = ifc.device.medium === Medium.Ethernet;
    const takers: Running[] = [];
    for (const trace of this.#running.values()) {
      if (trace.device !== null && trace.device !== ifc.name) continue;
      if (trace.isSelected(p.view, isEthernet ? p.l2 : p.l3, p.end, isEthernet ? 0 : 1)) takers.push(trace);
    }
    if (takers.length === 0) return false;
    this.#refill();
    if (this.#budget === 0) {
      for (const trace of takers) {
        trace.missed++;
        trace.missedAt = this.#recorded.stack.now;
      }
      return false;
    }
    this.#budget--;
    this.#takers = takers;
    this.#timeUs = this.#nowUs();
    return true;
  }

  #refill(): void {
    const { now } = this.#recorded.stack;
    const ticks = (now - this.#refilled) | 0;
    this.#refilled = now;
    // More ticks than fill the budget make no difference.
    if (ticks > 0) this.#budget = Math.min(BURST, this.#budget + Math.min(ticks, BURST) * PER_TICK);
  }

  #done(ways: readonly Way[]): void {
    for (const trace of this.#takers) {
      if (this.#running.has(trace.id)) this.#post(trace, this.#timeUs, ways);
    }
  }

  #post(trace: Running, timeUs: number, ways: readonly Way[]): void {
    this.#batch.push({ traceId: trace.id, timeUs, missed: trace.missed, ways });
    trace.missed = 0;
  }
}
