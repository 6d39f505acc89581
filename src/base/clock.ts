/**
 * Time as the data path sees it: *ticks*, 250 a second, an int32 that wraps as the kernel's jiffies do (HZ=250).
 *
 * An int32 is a Smi, so a tick lives in a typed array or a packet field without a heap number. Two ticks are ordered by
 * their difference, never by `<`: a lies before b when `((a - b) | 0) < 0`. Half the range is 99 days, three times the longest timeout that
 * `ipvsadm --set` accepts (31 days).
 */
export const TICKS_PER_SECOND = 250;

/** How long ago `then` was, ticks; unsigned, for what may lie back further than half the range. */
export function elapsed(now: number, then: number): number {
  return (now - then) >>> 0;
}

/** Read once per breath by the engine, which passes the value on; nothing below reads a clock itself. */
export interface Clock {
  /** Ticks, monotonic, wrapping at 2^31. */
  now(): number;
}

/** Seconds (fractions allowed) to whole ticks. */
export function seconds(n: number): number {
  return Math.round(n * TICKS_PER_SECOND);
}

/** Milliseconds to whole ticks, rounded up: a timeout may be late, never early. */
export function milliseconds(n: number): number {
  return Math.ceil((n * TICKS_PER_SECOND) / 1000);
}

/** Of `performance.now()`, which counts from the start of the process or thread, behind the machine's monotonic clock: all lives of a daemon have one time. */
const behindMs = process.hrtime()[0] * 1000 + process.hrtime()[1] / 1e6 - performance.now();

/** The machine's monotonic clock. */
export const systemClock: Clock = {
  now: () => Math.floor(((performance.now() + behindMs) * TICKS_PER_SECOND) / 1000) | 0,
};

/** A clock turned by hand: for tests. */
export class ManualClock implements Clock {
  #now: number;
  constructor(start = 0) {
    this.#now = start;
  }
  now(): number {
    return this.#now;
  }
  advance(ticks: number): void {
    this.#now = (this.#now + ticks) | 0;
  }
}

/**
 * Another clock that can be turned forward besides, and held, but never goes back: the daemon's test mode. ARP and answers take their real time,
 * timeouts take none, and what a test does between two packets is not counted.
 */
export class TurnableClock implements Clock {
  readonly #base: Clock;
  #ahead: number;
  /** Time of the base at which this clock was held; null while it runs. */
  #heldAt: number | null = null;
  /** @param from where it starts, ticks */
  constructor(base: Clock, from = 0) {
    this.#base = base;
    this.#ahead = (from - base.now()) | 0;
  }
  now(): number {
    return ((this.#heldAt ?? this.#base.now()) + this.#ahead) | 0;
  }
  advance(ticks: number): void {
    this.#ahead = (this.#ahead + ticks) | 0;
  }
  hold(): void {
    this.#heldAt ??= this.#base.now();
  }
  release(): void {
    if (this.#heldAt === null) return;
    this.#ahead = (this.#ahead + this.#heldAt - this.#base.now()) | 0;
    this.#heldAt = null;
  }
}

const DAY_MS = 86_400_000;

/** Milliseconds since midnight UT. */
export function timeOfDayMs(): number {
  return Date.now() % DAY_MS;
}

/** Milliseconds since 1970, by the machine's clock. */
export function wallClockMs(): number {
  return Date.now();
}
