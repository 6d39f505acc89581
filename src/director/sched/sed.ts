/**
 * sed: the shortest expected delay, (active connections + 1) / weight (net/netfilter/ipvs/ip_vs_sed.c); among equals the newest server.
 * Inactive connections do not count, so UDP always goes to the greatest weight.
 */
import { NO_DEST } from '../destinations.ts';
import type { SchedulerContext, SchedulerDefinition } from './scheduler.ts';

/** The candidate of the service with the shortest expected delay, or NO_DEST. */
export function shortestDelay({ services, dests }: SchedulerContext, service: number): number {
  let least = NO_DEST;
  let leastJobs = 0;
  for (let d = services.first[service]!; d !== NO_DEST; d = dests.next[d]!) {
    if (!dests.isCandidate(d)) continue;
    const jobs = dests.active[d]! + 1;
    if (least === NO_DEST || leastJobs * dests.weight[d]! > jobs * dests.weight[least]!) {
      least = d;
      leastJobs = jobs;
    }
  }
  return least;
}

export const sed: SchedulerDefinition = {
  name: 'sed',
  create(context, service) {
    return { pick: () => shortestDelay(context, service) };
  },
};
