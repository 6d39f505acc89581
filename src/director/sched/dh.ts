/**
 * dh: by the address that the client asked for (net/netfilter/ipvs/ip_vs_dh.c), for caches behind a firewall mark. 256 buckets are dealt out to the
 * servers in the order of the list, one each in turn, whatever their weight. A bucket whose server may not be picked answers NO_DEST.
 */
import { formatIp4 } from '../../wire/addr.ts';
import { NO_DEST } from '../destinations.ts';
import { explainChoice, tally } from './explain.ts';
import { hash32 } from './kernel-hash.ts';
import type { Scheduler, SchedulerContext, SchedulerDefinition } from './scheduler.ts';

const BITS = 8;
const SIZE = 1 << BITS;

/** @param dealt buckets that were dealt out already; null: deal them out now */
function byDestination(context: SchedulerContext, service: number, dealt: Int32Array | null): Scheduler {
  const { services, dests } = context;
  const buckets = new Int32Array(SIZE);
  function deal(): void {
    const head = services.first[service]!;
    let d = head;
    for (let i = 0; i < SIZE; i++) {
      buckets[i] = d;
      if (d !== NO_DEST) d = dests.next[d]!;
      if (d === NO_DEST) d = head;
    }
  }
  function choose(destination: number): number {
    const d = buckets[hash32(destination, BITS)]!;
    return d !== NO_DEST && dests.isCandidate(d) ? d : NO_DEST;
  }
  if (dealt === null) deal();
  else buckets.set(dealt);
  return {
    pick: (_source, destination) => choose(destination),
    explain(_source, destination) {
      const bucket = hash32(destination, BITS);
      const how = `destination ${formatIp4(destination)} hashes to bucket ${bucket} of ${SIZE}`;
      const share = tally(buckets);
      return explainChoice(context, service, choose(destination), how, (d) => [
        `${share(d)} buckets`,
        buckets[bucket] === d ? `bucket ${bucket} is its own` : `bucket ${bucket} is another's`,
      ]);
    },
    fork: (its) => byDestination(its, service, buckets),
    added: deal,
    removed: deal,
    changed: deal,
  };
}

export const dh: SchedulerDefinition = {
  name: 'dh',
  create: (context, service) => byDestination(context, service, null),
};
