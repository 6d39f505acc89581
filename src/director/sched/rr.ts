import { NO_DEST } from '../destinations.ts';
import { explainChoice, serverName } from './explain.ts';
import type { Scheduler, SchedulerContext, SchedulerDefinition } from './scheduler.ts';

/** @param from the server chosen last; NO_DEST: before the head of the list */
function roundRobin(context: SchedulerContext, service: number, from: number): Scheduler {
  const { services, dests } = context;
  let last = from;
  function next(): number {
    // From behind the last one to the end, then from the head: each server once, the last one at the end.
    for (let d = last === NO_DEST ? NO_DEST : dests.next[last]!; d !== NO_DEST; d = dests.next[d]!) {
      if (dests.isCandidate(d)) return d;
    }
    for (let d = services.first[service]!; d !== NO_DEST; d = dests.next[d]!) {
      if (dests.isCandidate(d)) return d;
      if (d === last) break;
    }
    return NO_DEST;
  }
  return {
    pick() {
      const d = next();
      if (d !== NO_DEST) last = d;
      return d;
    },
    explain() {
      const list: number[] = [];
      for (let d = services.first[service]!; d !== NO_DEST; d = dests.next[d]!) list.push(d);
      const at = list.indexOf(last);
      const chosen = next();
      const how =
        last === NO_DEST ? 'goes round the list, newest server first' : `goes on behind ${serverName(dests, last)}`;
      return explainChoice(context, service, chosen, how, (d) => {
        const turn = ((list.indexOf(d) - at - 1 + list.length) % list.length) + 1;
        return [`turn ${turn}`, d === chosen ? 'its turn' : 'comes later'];
      });
    },
    fork: (its) => roundRobin(its, service, last),
    removed(d) {
      if (d === last) last = dests.previous[d]!;
    },
  };
}

export const rr: SchedulerDefinition = {
  name: 'rr',
  create: (context, service) => roundRobin(context, service, NO_DEST),
};
