/**
 * twos, the better of two random choices (net/netfilter/ipvs/ip_vs_twos.c; Mitzenmacher, Richa, Sitaraman: The Power of Two Random Choices). Each
 * choice falls on a server in proportion to its weight; the first one stands unless the second has fewer connections per weight.
 *
 * As in the kernel the die has one side too many, 0 … total weight, so that the newest server gets one share more, and both choices may be the same.
 */
import { NO_DEST } from '../destinations.ts';
import { overhead } from './lc.ts';
import type { SchedulerContext, SchedulerDefinition } from './scheduler.ts';

const TWO_32 = 2 ** 32;

/** The candidate at which the running sum of weights, from the head of the list, reaches `share`. */
function atShare({ services, dests }: SchedulerContext, service: number, share: number): number {
  let left = share;
  for (let d = services.first[service]!; d !== NO_DEST; d = dests.next[d]!) {
    if (!dests.isCandidate(d)) continue;
    left -= dests.weight[d]!;
    if (left <= 0) return d;
  }
  return NO_DEST;
}

export const twos: SchedulerDefinition = {
  name: 'twos',
  create(context, service) {
    const { services, dests, rng } = context;
    function roll(sides: number): number {
      return Math.floor(((rng.next() >>> 0) / TWO_32) * sides);
    }
    return {
      pick() {
        let total = 0;
        for (let d = services.first[service]!; d !== NO_DEST; d = dests.next[d]!) {
          if (dests.isCandidate(d)) total += dests.weight[d]!;
        }
        if (total === 0) return NO_DEST;
        const one = atShare(context, service, roll(total + 1));
        const two = atShare(context, service, roll(total + 1));
        return dests.weight[two]! * overhead(dests, one) > dests.weight[one]! * overhead(dests, two) ? two : one;
      },
    };
  },
};
