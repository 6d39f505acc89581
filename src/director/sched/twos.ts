/**
 * twos, the better of two random choices (net/netfilter/ipvs/ip_vs_twos.c; Mitzenmacher, Richa, Sitaraman: The Power of Two Random Choices). Each
 * choice falls on a server in proportion to its weight; the first one stands unless the second has fewer connections per weight.
 *
 * As in the kernel the die has one side too many, 0 … total weight, so that the newest server gets one share more, and both choices may be the same.
 */

import type { Rng } from '../../base/rng.ts';
import { NO_DEST } from '../destinations.ts';
import { decimal, explainChoice, serverName } from './explain.ts';
import { overhead } from './lc.ts';
import type { Scheduler, SchedulerContext, SchedulerDefinition } from './scheduler.ts';

const TWO_32 = 2 ** 32;

/** The candidate at which the running sum of weights, from the head of the list, reaches `share`. */
function atShare({ services, dests }: SchedulerContext, service: number, share: number): number {
  let left = share;
  for (let d = services.first[service]!; d !== NO_DEST; d = dests.next[d]!) {
    if (!dests.isCandidate(d)) continue;
    left -= dests.weight[d]!;
    if (left <= 0) return d;
  }
  return NO_DEST;
}

/** Scratch: the two that were drawn last. */
let one = NO_DEST;
let two = NO_DEST;

function roll(rng: Rng, sides: number): number {
  return Math.floor(((rng.next() >>> 0) / TWO_32) * sides);
}

function totalWeight({ services, dests }: SchedulerContext, service: number): number {
  let total = 0;
  for (let d = services.first[service]!; d !== NO_DEST; d = dests.next[d]!) {
    if (dests.isCandidate(d)) total += dests.weight[d]!;
  }
  return total;
}

function betterOfTwo(context: SchedulerContext, service: number, rng: Rng): number {
  const { dests } = context;
  const total = totalWeight(context, service);
  if (total === 0) return NO_DEST;
  one = atShare(context, service, roll(rng, total + 1));
  two = atShare(context, service, roll(rng, total + 1));
  return dests.weight[two]! * overhead(dests, one) > dests.weight[one]! * overhead(dests, two) ? two : one;
}

export const twos: SchedulerDefinition = {
  name: 'twos',
  create(context, service): Scheduler {
    const { dests, rng } = context;
    return {
      pick: () => betterOfTwo(context, service, rng),
      explain() {
        const chosen = betterOfTwo(context, service, rng.fork());
        const how =
          chosen === NO_DEST
            ? 'two draws by weight'
            : `two draws by weight fell on ${serverName(dests, one)} and ${serverName(dests, two)}`;
        const isDrawn = (d: number) => chosen !== NO_DEST && (d === one || d === two);
        return explainChoice(context, service, chosen, how, (d) => [
          dests.weight[d] === 0
            ? ''
            : `${overhead(dests, d)} / ${dests.weight[d]} = ${decimal(overhead(dests, d) / dests.weight[d]!)}`,
          !isDrawn(d)
            ? 'not drawn'
            : d !== chosen
              ? 'drawn, but not better than the other'
              : one === two
                ? 'drawn twice'
                : 'the better one',
        ]);
      },
      fork: (its) => twos.create(its, service),
    };
  },
};
