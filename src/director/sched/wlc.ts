/**
 * wlc: the fewest connections per weight, an active one counting as 256 inactive (net/netfilter/ipvs/ip_vs_wlc.c); among equals the newest server.
 * Quotients are compared by cross-multiplication, exact as long as overhead · weight stays below 2^53 (weight 65,535 and half a million
 * active connections on one server).
 */
import { NO_DEST } from '../destinations.ts';
import { overhead } from './lc.ts';
import type { Scheduler, SchedulerContext, SchedulerDefinition } from './scheduler.ts';

/** The candidate of the service with the fewest connections per weight, or NO_DEST. */
export function leastLoaded({ services, dests }: SchedulerContext, service: number): number {
  let least = NO_DEST;
  let leastOverhead = 0;
  for (let d = services.first[service]!; d !== NO_DEST; d = dests.next[d]!) {
    if (!dests.isCandidate(d)) continue;
    const its = overhead(dests, d);
    if (least === NO_DEST || leastOverhead * dests.weight[d]! > its * dests.weight[least]!) {
      least = d;
      leastOverhead = its;
    }
  }
  return least;
}

export const wlc: SchedulerDefinition = {
  name: 'wlc',
  create(context, service): Scheduler {
    return { pick: () => leastLoaded(context, service) };
  },
};
