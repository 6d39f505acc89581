/**
 * The timer wheel: one tick, O(1), no allocation, no cascade.   @hot
 *
 *   level 0   64 slots of     1 tick      (delays below    63 ticks fire on their tick)
 *   level 1   64 slots of     8 ticks
 *   level n   64 slots of   8^n ticks     n = 0..8
 *
 * A timer stands in the level whose slots are fine enough for its delay and is rounded *up* to a slot's edge; it is never
 * moved down. So a timer may be late by at most an eighth of its delay and is never early, exactly as in the kernel since
 * 4.8 (kernel/time/timer.c, the comment over LVL_CLK_SHIFT), whose lateness users of `ipvsadm -Lc` know.
 *
 * Timers are rows of somebody's table: the owner names them by integer, and keeps what they mean. Whoever restarts timers
 * per packet does not call here per packet: it stores the new deadline in its own row and, when the wheel fires, adds the
 * timer again for what is left.
 */
import { type Allocate, int16Of, int32Of, plainMemory } from './memory.ts';

const LEVELS = 9;
const SLOTS = 64;
const MASK = SLOTS - 1;
const NONE = -1;
/** No bound. */
const MOST = 0x7fffffff;
/** Longest delay, ticks; longer ones are cut to it (about 48 days). */
const LONGEST = (63 << 24) - 1;

/** First delay (ticks) that level n no longer takes: 63 · 8^n. */
function levelEnd(level: number): number {
  return (SLOTS - 1) << (3 * level);
}

export class TimerWheel {
  /** Ring of each slot: head index; each timer knows its slot and neighbours. */
  readonly #head = new Int32Array(LEVELS * SLOTS).fill(NONE);
  readonly #next: Int32Array;
  readonly #prev: Int32Array;
  /** Slot + 1 of a pending timer; 0 while idle (so fresh zero pages need no touching). */
  readonly #slot: Int16Array;
  /** Pending timers of each level, so that empty levels cost no steps. */
  readonly #pending = new Int32Array(LEVELS);
  #now: number;
  /** Level whose slot at #now is not empty yet, as too many were due at once; -1: none. */
  #level = -1;

  /** @param capacity timers are 0 … capacity-1  @param now ticks */
  constructor(capacity: number, now: number, allocate: Allocate = plainMemory) {
    this.#next = int32Of(allocate(capacity * 4), capacity);
    this.#prev = int32Of(allocate(capacity * 4), capacity);
    this.#slot = int16Of(allocate(capacity * 2), capacity);
    this.#now = now;
  }

  isPending(timer: number): boolean {
    return this.#slot[timer] !== 0;
  }

  /**
   * Start, or restart, `timer` so that it fires at tick `expires` or a little later; a past tick fires at the next advance. Of those in one slot the last that came
   * into it fires first, and who is in it already keeps its place (mod_timer).
   */
  add(timer: number, expires: number): void {
    let delay = (expires - this.#now) | 0;
    if (delay < 1) delay = 1;
    if (delay > LONGEST) delay = LONGEST;
    let level = 0;
    while (delay >= levelEnd(level)) level++;
    const shift = 3 * level;
    const edge = level === 0 ? (this.#now + delay) | 0 : (this.#now + delay + (1 << shift)) | 0;
    const slot = level * SLOTS + ((edge >> shift) & MASK);
    if (this.#slot[timer] !== 0) {
      if (this.#slot[timer] === slot + 1) return;
      this.cancel(timer);
    }
    const first = this.#head[slot]!;
    this.#next[timer] = first;
    this.#prev[timer] = NONE;
    if (first !== NONE) this.#prev[first] = timer;
    this.#head[slot] = timer;
    this.#slot[timer] = slot + 1;
    this.#pending[level]!++;
  }

  cancel(timer: number): void {
    const slot = this.#slot[timer]! - 1;
    if (slot < 0) return;
    const next = this.#next[timer]!;
    const prev = this.#prev[timer]!;
    if (prev === NONE) this.#head[slot] = next;
    else this.#next[prev] = next;
    if (next !== NONE) this.#prev[next] = prev;
    this.#slot[timer] = 0;
    this.#pending[slot >> 6]!--;
  }

  /** Did the last `advance` leave something that is due? */
  get isBehind(): boolean {
    return this.#level >= 0;
  }

  /**
   * Move on to tick `now` and fire what is due, in order of slots. `fire` may add and cancel any timer.
   * @param most timers fired at once; the rest waits for the next `advance`, for a million that are due at once would stop whoever waits for their end
   */
  advance(now: number, fire: (timer: number) => void, most = MOST): void {
    let left = most;
    if (this.#level >= 0) {
      left = this.#fire(this.#level, left, fire);
      if (left < 0) return;
    }
    while (((now - this.#now) | 0) > 0) {
      let finest = 0;
      while (finest < LEVELS && this.#pending[finest] === 0) finest++;
      if (finest === LEVELS) {
        this.#now = now;
        return;
      }
      // The next tick at which the finest level in use can fire; nothing can be due before it.
      const t = (((this.#now >> (3 * finest)) + 1) << (3 * finest)) | 0;
      if (((now - t) | 0) < 0) {
        this.#now = now;
        return;
      }
      this.#now = t;
      left = this.#fire(finest, left, fire);
      if (left < 0) return;
    }
  }

  /** What is due at #now, from `level` on. Answers how many more may fire; -1: there are more. */
  #fire(from: number, most: number, fire: (timer: number) => void): number {
    const t = this.#now;
    let left = most;
    for (let level = from; level < LEVELS; level++) {
      const shift = 3 * level;
      if ((t & ((1 << shift) - 1)) !== 0) break;
      const slot = level * SLOTS + ((t >> shift) & MASK);
      // What `fire` adds never lands in the slot that is firing: at an edge the farthest reach is 63 slots.
      for (let timer = this.#head[slot]!; timer !== NONE; timer = this.#head[slot]!) {
        if (left === 0) {
          this.#level = level;
          return -1;
        }
        left--;
        this.cancel(timer);
        fire(timer);
      }
    }
    this.#level = -1;
    return left;
  }
}
