/**
 * nq, never queue: the newest server without an active connection; when all have some, as sed (net/netfilter/ipvs/ip_vs_nq.c).
 * UDP has no active connections, so it always goes to the newest server.
 */
import { NO_DEST } from '../destinations.ts';
import { explainChoice } from './explain.ts';
import type { Scheduler, SchedulerContext, SchedulerDefinition } from './scheduler.ts';
import { explainDelay, shortestDelay } from './sed.ts';

/** The newest candidate without an active connection, or NO_DEST. */
function idle({ services, dests }: SchedulerContext, service: number): number {
  for (let d = services.first[service]!; d !== NO_DEST; d = dests.next[d]!) {
    if (dests.active[d] === 0 && dests.isCandidate(d)) return d;
  }
  return NO_DEST;
}

export const nq: SchedulerDefinition = {
  name: 'nq',
  create(context, service): Scheduler {
    const { dests } = context;
    return {
      pick() {
        const d = idle(context, service);
        return d === NO_DEST ? shortestDelay(context, service) : d;
      },
      explain() {
        const chosen = idle(context, service);
        if (chosen === NO_DEST) {
          return explainDelay(context, service, 'nobody is idle: the shortest expected delay, (active + 1) / weight');
        }
        return explainChoice(context, service, chosen, 'the newest server without active connections', (d) => [
          `${dests.active[d]} active`,
          d === chosen ? 'idle' : dests.active[d] === 0 ? 'idle too, but added earlier' : 'not idle',
        ]);
      },
      fork: (its) => nq.create(its, service),
    };
  },
};
