/** lc: the fewest connections, an active one counting as 256 inactive (net/netfilter/ipvs/ip_vs_lc.c); among equals the newest server. */
import { type DestTable, NO_DEST } from '../destinations.ts';
import { explainChoice, leastWhy } from './explain.ts';
import type { Scheduler, SchedulerContext, SchedulerDefinition } from './scheduler.ts';

/** ip_vs.h, ip_vs_dest_conn_overhead. */
export function overhead(dests: DestTable, d: number): number {
  return dests.active[d]! * 256 + dests.inactive[d]!;
}

/** `2 × 256 + 5 = 517` */
export function overheadText(dests: DestTable, d: number): string {
  return `${dests.active[d]} × 256 + ${dests.inactive[d]} = ${overhead(dests, d)}`;
}

function leastConnections({ services, dests }: SchedulerContext, service: number): number {
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
}

export const lc: SchedulerDefinition = {
  name: 'lc',
  create(context, service): Scheduler {
    const { dests } = context;
    return {
      pick: () => leastConnections(context, service),
      explain() {
        const chosen = leastConnections(context, service);
        return explainChoice(context, service, chosen, 'the fewest connections, active ones counting 256', (d) => [
          overheadText(dests, d),
          leastWhy(d, chosen, (x) => overhead(dests, x)),
        ]);
      },
      fork: (its) => lc.create(its, service),
    };
  },
};
