/**
 * sh: by the client's address (net/netfilter/ipvs/ip_vs_sh.c). 256 buckets are dealt out to the servers in the order of the list, as many in a row as
 * the server's weight says, one at weight 0, until all are dealt. A bucket whose server may not be picked answers NO_DEST.
 *
 * sh-port adds the client's port to the key. sh-fallback goes on from an unusable bucket to the others, each client from a place of its own.
 */
import { SchedulerFlag } from '../../model/ipvs.ts';
import { formatIp4 } from '../../wire/addr.ts';
import { NO_DEST } from '../destinations.ts';
import { explainChoice, serverName, tally } from './explain.ts';
import { hash32 } from './kernel-hash.ts';
import type { Scheduler, SchedulerContext, SchedulerDefinition } from './scheduler.ts';

const BITS = 8;
const SIZE = 1 << BITS;
const { Flag1: FALLBACK, Flag2: PORT } = SchedulerFlag;

/** @param dealt buckets that were dealt out already; null: deal them out now */
function bySource(context: SchedulerContext, service: number, dealt: Int32Array | null): Scheduler {
  const { services, dests } = context;
  const buckets = new Int32Array(SIZE);
  function deal(): void {
    const head = services.first[service]!;
    let d = head;
    let given = 0;
    for (let i = 0; i < SIZE; i++) {
      buckets[i] = d;
      if (d === NO_DEST || ++given < dests.weight[d]!) continue;
      given = 0;
      d = dests.next[d]!;
      if (d === NO_DEST) d = head;
    }
  }
  function hashOf(source: number, ports: number): number {
    const usesPort = (services.schedulerFlags[service]! & PORT) !== 0;
    return hash32(usesPort ? (source + (ports >>> 16)) | 0 : source, BITS);
  }
  function choose(source: number, ports: number): number {
    const hash = hashOf(source, ports);
    let d = buckets[hash]!;
    if (d === NO_DEST || dests.isCandidate(d)) return d;
    if ((services.schedulerFlags[service]! & FALLBACK) === 0) return NO_DEST;
    for (let offset = 0; offset < SIZE; offset++) {
      d = buckets[(offset + hash + hash) & (SIZE - 1)]!;
      if (dests.isCandidate(d)) return d;
    }
    return NO_DEST;
  }
  if (dealt === null) deal();
  else buckets.set(dealt);
  return {
    pick: (source, _destination, ports) => choose(source, ports),
    explain(source, _destination, ports) {
      const bucket = hashOf(source, ports);
      const owner = buckets[bucket]!;
      const chosen = choose(source, ports);
      const port = (services.schedulerFlags[service]! & PORT) === 0 ? '' : `:${ports >>> 16}`;
      let how = `source ${formatIp4(source)}${port} hashes to bucket ${bucket} of ${SIZE}`;
      if (owner !== NO_DEST && chosen !== owner) {
        how += `, whose server ${serverName(dests, owner)} may not be picked; sh-fallback is ${chosen === NO_DEST ? 'off, or finds nobody' : 'on'}`;
      }
      const share = tally(buckets);
      return explainChoice(context, service, chosen, how, (d) => [
        `${share(d)} buckets`,
        d === owner
          ? `bucket ${bucket} is its own`
          : d === chosen
            ? 'the next bucket that may be picked'
            : `bucket ${bucket} is another's`,
      ]);
    },
    fork: (its) => bySource(its, service, buckets),
    added: deal,
    removed: deal,
    changed: deal,
  };
}

export const sh: SchedulerDefinition = {
  name: 'sh',
  create: (context, service) => bySource(context, service, null),
};
