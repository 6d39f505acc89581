/**
 * mh, Maglev hashing: by the client's address, moving few clients when the list changes (net/netfilter/ipvs/ip_vs_mh.c; Eisenbud et al., Maglev, NSDI
 * 2016, §3.4). Each server has its own order of the table's 4,093 places, from a hash of its address and port; the servers take turns, in the order of
 * the list, at taking the next free place of their order, as many in a row as their weight says, until all places are taken.
 *
 * Weights are the last ones above 0, so quiescing a server moves nobody else: its own clients get NO_DEST, unless mh-fallback sends them on.
 * mh-port adds the client's port to the key.
 *
 * The table is built when it is first asked after a change: a batch of commands costs one build, not one per command (50–400 µs each).
 */
import { SchedulerFlag } from '../../model/ipvs.ts';
import { formatIp4 } from '../../wire/addr.ts';
import { NO_DEST } from '../destinations.ts';
import { explainChoice, serverName, tally } from './explain.ts';
import { hsiphash } from './kernel-hash.ts';
import type { Scheduler, SchedulerContext, SchedulerDefinition } from './scheduler.ts';
import { gcd } from './wrr.ts';

/** A prime: the kernel's size for its default of 12 index bits. */
const SIZE = 4093;
const WEIGHT_BITS = 6;
const KEY = 2654435761 | 0;
const SKIP_KEY = 2654446892 | 0;
const { Flag1: FALLBACK, Flag2: PORT } = SchedulerFlag;

/** Scratch of `build`, per server of the list: where it stands in its order, by how much it goes on, places per turn. */
const at = new Int32Array(SIZE);
const skip = new Int32Array(SIZE);
const turns = new Int32Array(SIZE);

function build({ services, dests }: SchedulerContext, service: number, table: Int32Array): void {
  const head = services.first[service]!;
  table.fill(NO_DEST);
  let divisor = 0;
  let greatest = 0;
  for (let d = head; d !== NO_DEST; d = dests.next[d]!) {
    divisor = gcd(dests.lastWeight[d]!, divisor);
    greatest = Math.max(greatest, dests.lastWeight[d]!);
  }
  if (divisor === 0) return;
  // Great weights are cut to 6 bits, or one server's turn would take the whole table.
  const shift = Math.max(0, 32 - Math.clz32(Math.trunc(greatest / divisor)) - WEIGHT_BITS);
  let i = 0;
  for (let d = head; d !== NO_DEST; d = dests.next[d]!, i++) {
    const key = (dests.ip[d]! + dests.port[d]!) | 0;
    const weight = dests.lastWeight[d]!;
    at[i] = hsiphash(key, KEY, SIZE);
    skip[i] = hsiphash(key, SKIP_KEY, SIZE - 1) + 1;
    turns[i] = weight === 0 ? 0 : Math.max(1, Math.trunc(weight / divisor) >> shift);
  }
  for (let taken = 0; taken < SIZE; ) {
    i = 0;
    for (let d = head; d !== NO_DEST && taken < SIZE; d = dests.next[d]!, i++) {
      let place = at[i]!;
      const step = skip[i]!;
      for (let turn = turns[i]!; turn > 0 && taken < SIZE; turn--) {
        while (table[place] !== NO_DEST) {
          place += step;
          if (place >= SIZE) place -= SIZE;
        }
        table[place] = d;
        taken++;
      }
      at[i] = place;
    }
  }
}

interface Built {
  readonly table: Int32Array;
  readonly isStale: boolean;
}

/** @param from a table that was built already; null: none yet */
function maglev(context: SchedulerContext, service: number, from: Built | null): Scheduler {
  const { services, dests } = context;
  const table = new Int32Array(SIZE);
  let isStale = true;
  if (from === null) {
    table.fill(NO_DEST);
  } else {
    table.set(from.table);
    isStale = from.isStale;
  }
  function onChange(): void {
    isStale = true;
  }
  function canBuild(): boolean {
    return services.destinations[service]! <= SIZE;
  }
  function refresh(): void {
    isStale = false;
    if (canBuild()) build(context, service, table);
  }
  function keyOf(source: number, ports: number): number {
    return (services.schedulerFlags[service]! & PORT) === 0 ? source : (source + (ports >>> 16)) | 0;
  }
  function choose(places: Int32Array, key: number): number {
    const hash = hsiphash(key, KEY, SIZE);
    let d = places[hash]!;
    if (d === NO_DEST || dests.isCandidate(d)) return d;
    if ((services.schedulerFlags[service]! & FALLBACK) === 0) return NO_DEST;
    // Not along the table but by further hashes, so that the clients of one server spread over all others.
    for (let i = 0; i < SIZE; i++) {
      d = places[hsiphash((key + ((i + hash) % SIZE)) | 0, KEY, SIZE)]!;
      if (d !== NO_DEST && dests.isCandidate(d)) return d;
    }
    return NO_DEST;
  }
  return {
    pick(source, _destination, ports) {
      if (isStale) refresh();
      return choose(table, keyOf(source, ports));
    },
    explain(source, _destination, ports) {
      let places = table;
      if (isStale && canBuild()) {
        places = new Int32Array(SIZE);
        build(context, service, places);
      }
      const key = keyOf(source, ports);
      const place = hsiphash(key, KEY, SIZE);
      const owner = places[place]!;
      const chosen = choose(places, key);
      const port = (services.schedulerFlags[service]! & PORT) === 0 ? '' : `:${ports >>> 16}`;
      let how = `source ${formatIp4(source)}${port} hashes to place ${place} of ${SIZE}`;
      if (owner !== NO_DEST && chosen !== owner) {
        how += `, whose server ${serverName(dests, owner)} may not be picked; mh-fallback is ${chosen === NO_DEST ? 'off, or finds nobody' : 'on'}`;
      }
      const share = tally(places);
      return explainChoice(context, service, chosen, how, (d) => [
        `${share(d)} places`,
        d === owner
          ? `place ${place} is its own`
          : d === chosen
            ? 'found by the next hash'
            : `place ${place} is another's`,
      ]);
    },
    fork: (its) => maglev(its, service, { table, isStale }),
    added: onChange,
    removed(d) {
      isStale = true;
      // Beyond its limit of servers the table stays as it was, but for those that went.
      if (!canBuild()) for (let i = 0; i < SIZE; i++) if (table[i] === d) table[i] = NO_DEST;
    },
    changed: onChange,
  };
}

export const mh: SchedulerDefinition = {
  name: 'mh',
  maxDestinations: SIZE,
  create: (context, service) => maglev(context, service, null),
};
