/** fo, weighted failover: always the greatest weight (net/netfilter/ipvs/ip_vs_fo.c); among equals the newest server. */
import { NO_DEST } from '../destinations.ts';
import type { SchedulerDefinition } from './scheduler.ts';

export const fo: SchedulerDefinition = {
  name: 'fo',
  create({ services, dests }, service) {
    return {
      pick() {
        let best = NO_DEST;
        let greatest = 0;
        for (let d = services.first[service]!; d !== NO_DEST; d = dests.next[d]!) {
          if (dests.weight[d]! > greatest && dests.isCandidate(d)) {
            best = d;
            greatest = dests.weight[d]!;
          }
        }
        return best;
      },
    };
  },
};
