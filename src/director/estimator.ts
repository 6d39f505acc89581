/**
 * Rates from counters with the kernel's arithmetic (net/netfilter/ipvs/ip_vs_est.c, ip_vs_estimation): every two seconds
 *
 *   rate = increase scaled · 1/2 s        est += (rate - est) >> 2
 *
 * Connections and packets are scaled by 2^10, bytes by 2^5. A steady rate is reached as 1 - (3/4)^n after n ticks.
 *
 * Rows take turns: each is visited once in two seconds, a fiftieth of them every 40 ms, so that 200,000 servers make no pause.
 */
import { COLD_SHIFT, COUNTER_SHIFT, type Counters, FIGURES, LAST, RATE } from './accounting.ts';

/** Turns in a period; ticks between two turns (40 ms). */
const TURNS = 50;
const TICKS_PER_TURN = 10;
/** From this figure on they are bytes. */
const FIRST_BYTES = 3;

export class Estimator {
  readonly #counters: Counters;
  #nextTurn: number;
  #turn = 0;

  constructor(counters: Counters, now: number) {
    this.#counters = counters;
    this.#nextTurn = (now + TICKS_PER_TURN) | 0;
  }

  /** Take the turns that are due at tick `now`. @param rows rows 0 … rows-1 are in use or were */
  advance(now: number, rows: number): void {
    // After a jump of the clock (test mode) more than some periods change nothing that a rate would show.
    let bound = TURNS * 200;
    while (((now - this.#nextTurn) | 0) >= 0) {
      if (--bound < 0) {
        this.#nextTurn = (now + TICKS_PER_TURN) | 0;
        return;
      }
      for (let row = this.#turn; row < rows; row += TURNS) this.#estimate(row);
      this.#turn = (this.#turn + 1) % TURNS;
      this.#nextTurn = (this.#nextTurn + TICKS_PER_TURN) | 0;
    }
  }

  /** Let time pass without estimating (run_estimation=0). */
  skip(now: number): void {
    while (((now - this.#nextTurn) | 0) >= 0) this.#nextTurn = (now + TICKS_PER_TURN) | 0;
  }

  #estimate(row: number): void {
    const { live, cold } = this.#counters;
    const from = row << COUNTER_SHIFT;
    const to = row << COLD_SHIFT;
    for (let i = 0; i < FIGURES; i++) {
      const value = live[from + i]!;
      const increase = value - cold[to + LAST + i]!;
      const estimate = cold[to + RATE + i]!;
      if (increase === 0 && estimate === 0) continue;
      const rate = increase * (i < FIRST_BYTES ? 512 : 16);
      cold[to + LAST + i] = value;
      // An arithmetic shift right rounds down.
      cold[to + RATE + i] = estimate + Math.floor((rate - estimate) / 4);
    }
  }
}
