/**
 * wlc: the fewest connections per weight, an active one counting as 256 inactive (net/netfilter/ipvs/ip_vs_wlc.c); among equals the newest server.
 * Quotients are compared by cross-multiplication, exact as long as overhead · weight stays below 2^53 (weight 65,535 and half a million
 * active connections on one server).
 */
import { NO_DEST } from '../destinations.ts';
import { decimal, explainChoice, leastWhy } from './explain.ts';
import { overhead, overheadText } from './lc.ts';
import type { Choice, Scheduler, SchedulerContext, SchedulerDefinition } from './scheduler.ts';

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

/** Why `leastLoaded` answers what it does. */
export function explainLeastLoaded(context: SchedulerContext, service: number, how: string): Choice {
  const { dests } = context;
  const chosen = leastLoaded(context, service);
  return explainChoice(context, service, chosen, how, (d) => {
    const weight = dests.weight[d]!;
    const its = weight === 0 ? '' : ` / ${weight} = ${decimal(overhead(dests, d) / weight)}`;
    const sum = overheadText(dests, d);
    return [its === '' ? sum : `(${sum})${its}`, leastWhy(d, chosen, (x) => overhead(dests, x) / dests.weight[x]!)];
  });
}

export const wlc: SchedulerDefinition = {
  name: 'wlc',
  create(context, service): Scheduler {
    return {
      pick: () => leastLoaded(context, service),
      explain: () =>
        explainLeastLoaded(context, service, 'the fewest connections per weight, active ones counting 256'),
      fork: (its) => wlc.create(its, service),
    };
  },
};
