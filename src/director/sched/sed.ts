/**
 * sed: the shortest expected delay, (active connections + 1) / weight (net/netfilter/ipvs/ip_vs_sed.c); among equals the newest server.
 * Inactive connections do not count, so UDP always goes to the greatest weight.
 */
import { NO_DEST } from '../destinations.ts';
import { decimal, explainChoice, leastWhy } from './explain.ts';
import type { Choice, SchedulerContext, SchedulerDefinition } from './scheduler.ts';

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

/** Why `shortestDelay` answers what it does. */
export function explainDelay(context: SchedulerContext, service: number, how: string): Choice {
  const { dests } = context;
  const chosen = shortestDelay(context, service);
  const delay = (d: number) => (dests.active[d]! + 1) / dests.weight[d]!;
  return explainChoice(context, service, chosen, how, (d) => {
    const value = dests.weight[d] === 0 ? '' : ` = ${decimal(delay(d))}`;
    return [`(${dests.active[d]} + 1) / ${dests.weight[d]}${value}`, leastWhy(d, chosen, delay)];
  });
}

export const sed: SchedulerDefinition = {
  name: 'sed',
  create(context, service) {
    return {
      pick: () => shortestDelay(context, service),
      explain: () => explainDelay(context, service, 'the shortest expected delay, (active + 1) / weight'),
      fork: (its) => sed.create(its, service),
    };
  },
};
