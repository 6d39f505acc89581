/**
 * nq, never queue: the newest server without an active connection; when all have some, as sed (net/netfilter/ipvs/ip_vs_nq.c).
 * UDP has no active connections, so it always goes to the newest server.
 */
import { NO_DEST } from '../destinations.ts';
import type { SchedulerDefinition } from './scheduler.ts';
import { shortestDelay } from './sed.ts';

export const nq: SchedulerDefinition = {
  name: 'nq',
  create(context, service) {
    const { services, dests } = context;
    return {
      pick() {
        for (let d = services.first[service]!; d !== NO_DEST; d = dests.next[d]!) {
          if (dests.active[d] === 0 && dests.isCandidate(d)) return d;
        }
        return shortestDelay(context, service);
      },
    };
  },
};
