/** fo, weighted failover: always the greatest weight (net/netfilter/ipvs/ip_vs_fo.c); among equals the newest server. */
import { NO_DEST } from '../destinations.ts';
import { explainChoice } from './explain.ts';
import type { Scheduler, SchedulerContext, SchedulerDefinition } from './scheduler.ts';

function greatestWeight({ services, dests }: SchedulerContext, service: number): number {
  let best = NO_DEST;
  let greatest = 0;
  for (let d = services.first[service]!; d !== NO_DEST; d = dests.next[d]!) {
    if (dests.weight[d]! > greatest && dests.isCandidate(d)) {
      best = d;
      greatest = dests.weight[d]!;
    }
  }
  return best;
}

export const fo: SchedulerDefinition = {
  name: 'fo',
  create(context, service): Scheduler {
    const { dests } = context;
    return {
      pick: () => greatestWeight(context, service),
      explain() {
        const chosen = greatestWeight(context, service);
        return explainChoice(context, service, chosen, 'the greatest weight', (d) => [
          `weight ${dests.weight[d]}`,
          d === chosen
            ? 'the greatest'
            : dests.weight[d] === dests.weight[chosen]
              ? 'as great, but added earlier'
              : 'less',
        ]);
      },
      fork: (its) => fo.create(its, service),
    };
  },
};
