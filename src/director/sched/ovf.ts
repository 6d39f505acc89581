/**
 * ovf, overflow: the greatest weight that has no more active connections than its weight (net/netfilter/ipvs/ip_vs_ovf.c); among equals the newest
 * server. So a server takes weight + 1 connections before the next one gets any; when all are that full, nobody is picked.
 */
import { NO_DEST } from '../destinations.ts';
import type { SchedulerDefinition } from './scheduler.ts';

export const ovf: SchedulerDefinition = {
  name: 'ovf',
  create({ services, dests }, service) {
    return {
      pick() {
        let best = NO_DEST;
        let greatest = 0;
        for (let d = services.first[service]!; d !== NO_DEST; d = dests.next[d]!) {
          const weight = dests.weight[d]!;
          if (weight > greatest && dests.active[d]! <= weight && dests.isCandidate(d)) {
            best = d;
            greatest = weight;
          }
        }
        return best;
      },
    };
  },
};
