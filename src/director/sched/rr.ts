/**
 * rr: one after the other round the list, weights ignored but for 0 (net/netfilter/ipvs/ip_vs_rr.c).
 *
 * It remembers the server chosen last and goes on behind it. When that one leaves the list its predecessor takes the part, so that nobody is skipped
 * and nobody comes twice.
 */
import { NO_DEST } from '../destinations.ts';
import type { SchedulerDefinition } from './scheduler.ts';

export const rr: SchedulerDefinition = {
  name: 'rr',
  create({ services, dests }, service) {
    /** NO_DEST: before the head of the list. */
    let last = NO_DEST;
    function choose(d: number): number {
      last = d;
      return d;
    }
    return {
      pick() {
        // From behind the last one to the end, then from the head: each server once, the last one at the end.
        for (let d = last === NO_DEST ? NO_DEST : dests.next[last]!; d !== NO_DEST; d = dests.next[d]!) {
          if (dests.isCandidate(d)) return choose(d);
        }
        for (let d = services.first[service]!; d !== NO_DEST; d = dests.next[d]!) {
          if (dests.isCandidate(d)) return choose(d);
          if (d === last) break;
        }
        return NO_DEST;
      },
      removed(d) {
        if (d === last) last = dests.previous[d]!;
      },
    };
  },
};
