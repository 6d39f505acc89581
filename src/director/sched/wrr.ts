import { NO_DEST } from '../destinations.ts';
import { explainChoice, serverName } from './explain.ts';
import type { Scheduler, SchedulerContext, SchedulerDefinition } from './scheduler.ts';

export function gcd(a: number, b: number): number {
  while (b !== 0) {
    const rest = a % b;
    a = b;
    b = rest;
  }
  return a;
}

/** Scratch: the demand after the server that `next` found. */
let nextDemand = 0;

interface Round {
  /** Where the round stands; NO_DEST: before the head. */
  current: number;
  divisor: number;
  top: number;
  demand: number;
}

/** @param from a round that goes on; null: a new one */
function weightedRounds(context: SchedulerContext, service: number, from: Readonly<Round> | null): Scheduler {
  const { services, dests } = context;
  let current = NO_DEST;
  let divisor = 1;
  let top = 0;
  let demand = 0;

  function measure(): void {
    let greatest = 0;
    let common = 0;
    for (let d = services.first[service]!; d !== NO_DEST; d = dests.next[d]!) {
      const weight = dests.weight[d]!;
      if (weight <= 0) continue;
      common = gcd(common, weight);
      if (weight > greatest) greatest = weight;
    }
    current = NO_DEST;
    divisor = common === 0 ? 1 : common;
    top = greatest - (divisor - 1);
  }

  function onChange(): void {
    measure();
    if (demand > top || demand === 0) demand = top;
    else if (divisor > 1) demand = Math.trunc(demand / divisor) * divisor + 1;
  }

  /** The rest of the round of this demand from behind `d`. */
  function firstFrom(d: number, atLeast: number): number {
    while (d !== NO_DEST && !(dests.isCandidate(d) && dests.weight[d]! >= atLeast)) d = dests.next[d]!;
    return d;
  }

  function next(): number {
    nextDemand = demand;
    if (top <= 0) return NO_DEST;
    const head = services.first[service]!;
    const d = firstFrom(current === NO_DEST ? head : dests.next[current]!, demand);
    if (d !== NO_DEST) return d;
    // The greatest weight among those that may be picked says in which of the following rounds somebody will be found.
    let greatest = 0;
    for (let x = head; x !== NO_DEST; x = dests.next[x]!) {
      if (dests.isCandidate(x) && dests.weight[x]! > greatest) greatest = dests.weight[x]!;
    }
    if (greatest === 0) {
      nextDemand = top;
      return NO_DEST;
    }
    nextDemand -= divisor;
    if (nextDemand <= 0) nextDemand = top;
    if (nextDemand > greatest) nextDemand -= Math.ceil((nextDemand - greatest) / divisor) * divisor;
    return firstFrom(head, nextDemand);
  }

  if (from === null) {
    measure();
    demand = top;
  } else {
    ({ current, divisor, top, demand } = from);
  }
  return {
    pick() {
      const d = next();
      demand = nextDemand;
      if (d !== NO_DEST) current = d;
      return d;
    },
    explain() {
      const chosen = next();
      const asked = nextDemand;
      const isSameRound = asked === demand && current !== NO_DEST && chosen !== NO_DEST;
      const behind = isSameRound ? `, goes on behind ${serverName(dests, current)}` : '';
      return explainChoice(context, service, chosen, `a round for weights of ${asked} and more${behind}`, (d) => {
        const figure = `weight ${dests.weight[d]}`;
        if (d === chosen) return [figure, `at least ${asked}, and its turn`];
        return [figure, dests.weight[d]! < asked ? `below ${asked}` : 'another turn of the round'];
      });
    },
    fork: (its) => weightedRounds(its, service, { current, divisor, top, demand }),
    added: onChange,
    removed: onChange,
    changed: onChange,
  };
}

export const wrr: SchedulerDefinition = {
  name: 'wrr',
  create: (context, service) => weightedRounds(context, service, null),
};
