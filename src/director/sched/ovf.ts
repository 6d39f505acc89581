/**
 * ovf, overflow: the greatest weight that has no more active connections than its weight (net/netfilter/ipvs/ip_vs_ovf.c); among equals the newest
 * server. So a server takes weight + 1 connections before the next one gets any; when all are that full, nobody is picked.
 */
import { NO_DEST } from '../destinations.ts';
import { explainChoice } from './explain.ts';
import type { Scheduler, SchedulerContext, SchedulerDefinition } from './scheduler.ts';

function greatestNotFull({ services, dests }: SchedulerContext, service: number): number {
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
}

export const ovf: SchedulerDefinition = {
  name: 'ovf',
  create(context, service): Scheduler {
    const { dests } = context;
    function why(d: number, chosen: number): string {
      if (d === chosen) return 'the greatest that is not full';
      if (dests.active[d]! > dests.weight[d]!) return 'full: more active connections than its weight';
      return dests.weight[d] === dests.weight[chosen] ? 'as great, but added earlier' : 'a smaller weight';
    }
    return {
      pick: () => greatestNotFull(context, service),
      explain() {
        const chosen = greatestNotFull(context, service);
        return explainChoice(
          context,
          service,
          chosen,
          'the greatest weight that has no more active connections',
          (d) => [`weight ${dests.weight[d]}, ${dests.active[d]} active`, why(d, chosen)],
        );
      },
      fork: (its) => ovf.create(its, service),
    };
  },
};
