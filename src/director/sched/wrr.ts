/**
 * wrr: rounds of falling demand (net/netfilter/ipvs/ip_vs_wrr.c). With divisor = gcd of the weights, a round serves every server whose weight
 * reaches the current demand; demand falls by the divisor from round to round and starts again from the top after the last one.
 *
 *   weights A 4, B 2:   divisor 2, top 3      demand 3: A    demand 1: A B    …
 *
 * A change of the list starts a new round but keeps the demand as far as it still fits, which decides with whom the next cycle begins.
 */
import { NO_DEST } from '../destinations.ts';
import type { SchedulerDefinition } from './scheduler.ts';

export function gcd(a: number, b: number): number {
  while (b !== 0) {
    const rest = a % b;
    a = b;
    b = rest;
  }
  return a;
}

export const wrr: SchedulerDefinition = {
  name: 'wrr',
  create({ services, dests }, service) {
    /** Where the round stands; NO_DEST: before the head. */
    let current = NO_DEST;
    let divisor = 1;
    let top = 0;
    let demand = 0;

    function measure(): void {
      let greatest = 0;
      let common = 0;
      for (let d = services.first[service]!; d !== NO_DEST; d = dests.next[d]!) {
        const weight = dests.weight[d]!;
        if (weight <= 0) continue;
        common = gcd(common, weight);
        if (weight > greatest) greatest = weight;
      }
      current = NO_DEST;
      divisor = common === 0 ? 1 : common;
      top = greatest - (divisor - 1);
    }

    function onChange(): void {
      measure();
      if (demand > top || demand === 0) demand = top;
      else if (divisor > 1) demand = Math.trunc(demand / divisor) * divisor + 1;
    }

    /** The rest of the round from behind `d`. */
    function firstFrom(d: number): number {
      while (d !== NO_DEST && !(dests.isCandidate(d) && dests.weight[d]! >= demand)) d = dests.next[d]!;
      return d;
    }

    measure();
    demand = top;
    return {
      pick() {
        if (top <= 0) return NO_DEST;
        const head = services.first[service]!;
        let d = firstFrom(current === NO_DEST ? head : dests.next[current]!);
        if (d === NO_DEST) {
          // The greatest weight among those that may be picked says in which of the following rounds somebody will be found.
          let greatest = 0;
          for (let x = head; x !== NO_DEST; x = dests.next[x]!) {
            if (dests.isCandidate(x) && dests.weight[x]! > greatest) greatest = dests.weight[x]!;
          }
          if (greatest === 0) {
            demand = top;
            return NO_DEST;
          }
          demand -= divisor;
          if (demand <= 0) demand = top;
          if (demand > greatest) demand -= Math.ceil((demand - greatest) / divisor) * divisor;
          d = firstFrom(head);
        }
        current = d;
        return d;
      },
      added: onChange,
      removed: onChange,
      changed: onChange,
    };
  },
};
