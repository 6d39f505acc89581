/** lc: the fewest connections, an active one counting as 256 inactive (net/netfilter/ipvs/ip_vs_lc.c); among equals the newest server. */
import { type DestTable, NO_DEST } from '../destinations.ts';
import type { SchedulerDefinition } from './scheduler.ts';

/** ip_vs.h, ip_vs_dest_conn_overhead. */
export function overhead(dests: DestTable, d: number): number {
  return dests.active[d]! * 256 + dests.inactive[d]!;
}

export const lc: SchedulerDefinition = {
  name: 'lc',
  create({ services, dests }, service) {
    return {
      pick() {
        let least = NO_DEST;
        let leastOverhead = 0;
        for (let d = services.first[service]!; d !== NO_DEST; d = dests.next[d]!) {
          if (!dests.isCandidate(d)) continue;
          const its = overhead(dests, d);
          if (least === NO_DEST || its < leastOverhead) {
            least = d;
            leastOverhead = its;
          }
        }
        return least;
      },
    };
  },
};
