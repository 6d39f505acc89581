/**
 * lblcr, lblc with replication: each destination address has a set of servers (net/netfilter/ipvs/ip_vs_lblcr.c). The least loaded one of the set is
 * picked; when it is crowded (as lblc says), or none is left, the least loaded one of all joins the set. A set that has not changed for
 * lblcr_expiration loses its most loaded member with the next connection.
 */
import { seconds } from '../../base/clock.ts';
import { formatIp4 } from '../../wire/addr.ts';
import { type DestTable, NO_DEST } from '../destinations.ts';
import { AddressCache, doubled, NO_ENTRY } from './address-cache.ts';
import { decimal, explainChoice } from './explain.ts';
import { isCrowded } from './lblc.ts';
import { overhead } from './lc.ts';
import type { Scheduler, SchedulerContext, SchedulerDefinition } from './scheduler.ts';
import { explainLeastLoaded, leastLoaded } from './wlc.ts';

const NO_MEMBER = -1;
const FIRST_MEMBERS = 64;
const MAX_MEMBERS = 262144;

/** Sets of destinations, as chains in a pool: a set is its newest member, NO_MEMBER when it is empty. Members hold their destination. */
class Sets {
  dest: Int32Array = new Int32Array(FIRST_MEMBERS);
  /** The member that joined before. */
  next: Int32Array = new Int32Array(FIRST_MEMBERS);
  readonly #dests: DestTable;
  #free = NO_MEMBER;
  #fresh = 0;

  constructor(dests: DestTable) {
    this.#dests = dests;
  }

  /** Equal sets, whose members are counted in `dests` already. */
  fork(dests: DestTable): Sets {
    const copy = new Sets(dests);
    copy.dest = this.dest.slice();
    copy.next = this.next.slice();
    copy.#free = this.#free;
    copy.#fresh = this.#fresh;
    return copy;
  }

  /** @returns the set with `d` in it; the same number when there was no room */
  add(set: number, d: number): number {
    let member = this.#free;
    if (member !== NO_MEMBER) {
      this.#free = this.next[member]!;
    } else {
      if (this.#fresh === this.dest.length) {
        if (this.#fresh === MAX_MEMBERS) return set;
        this.dest = doubled(this.dest);
        this.next = doubled(this.next);
      }
      member = this.#fresh++;
    }
    this.dest[member] = d;
    this.next[member] = set;
    this.#dests.held[d]!++;
    return member;
  }

  /** @returns the set without `member`, which is in it */
  remove(set: number, member: number): number {
    const next = this.next[member]!;
    this.#dests.held[this.dest[member]!]!--;
    this.next[member] = this.#free;
    this.#free = member;
    if (member === set) return next;
    let before = set;
    while (this.next[before] !== member) before = this.next[before]!;
    this.next[before] = next;
    return set;
  }

  has(set: number, d: number): boolean {
    for (let m = set; m !== NO_MEMBER; m = this.next[m]!) if (this.dest[m] === d) return true;
    return false;
  }

  isSingle(set: number): boolean {
    return set === NO_MEMBER || this.next[set] === NO_MEMBER;
  }

  /** The destination with the fewest connections per weight among those that may be picked, or NO_DEST. */
  least(set: number): number {
    const dests = this.#dests;
    let least = NO_DEST;
    let leastOverhead = 0;
    for (let m = set; m !== NO_MEMBER; m = this.next[m]!) {
      const d = this.dest[m]!;
      if (!dests.isAvailable(d) || !dests.isCandidate(d)) continue;
      const its = overhead(dests, d);
      if (least === NO_DEST || leastOverhead * dests.weight[d]! > its * dests.weight[least]!) {
        least = d;
        leastOverhead = its;
      }
    }
    return least;
  }

  /** The member with the most connections per weight; quiesced ones do not count, removed and overloaded ones do. NO_MEMBER: none. */
  most(set: number): number {
    const dests = this.#dests;
    let most = NO_MEMBER;
    let mostOverhead = 0;
    let mostWeight = 0;
    for (let m = set; m !== NO_MEMBER; m = this.next[m]!) {
      const d = this.dest[m]!;
      const weight = dests.weight[d]!;
      if (weight === 0) continue;
      const its = overhead(dests, d);
      if (most === NO_MEMBER || mostOverhead * weight < its * mostWeight) {
        most = m;
        mostOverhead = its;
        mostWeight = weight;
      }
    }
    return most;
  }
}

interface Remembered {
  readonly sets: Sets;
  readonly cache: AddressCache;
}

/** @param from what is remembered already; null: nothing */
function byReplicatedLocality(context: SchedulerContext, service: number, from: Remembered | null): Scheduler {
  const { dests, sysctls } = context;
  const sets = from === null ? new Sets(dests) : from.sets.fork(dests);
  const release = (set: number) => {
    while (set !== NO_MEMBER) set = sets.remove(set, set);
  };
  /** Values: sets. */
  const cache = from === null ? new AddressCache(context.now, release) : from.cache.fork(release);

  function join(entry: number, d: number): void {
    const set = cache.value[entry]!;
    if (sets.has(set, d)) return;
    cache.value[entry] = sets.add(set, d);
    cache.modified[entry] = context.now;
  }

  function shrink(entry: number): void {
    const set = cache.value[entry]!;
    if (sets.isSingle(set)) return;
    if (((context.now - cache.modified[entry]!) | 0) <= seconds(sysctls.lblcrExpiration)) return;
    const most = sets.most(set);
    if (most === NO_MEMBER) return;
    cache.value[entry] = sets.remove(set, most);
    cache.modified[entry] = context.now;
  }

  /** The least loaded server of the address's set, or NO_DEST when there is none or it is crowded. */
  function kept(entry: number): number {
    if (entry === NO_ENTRY) return NO_DEST;
    const d = sets.least(cache.value[entry]!);
    return d !== NO_DEST && !isCrowded(context, service, d) ? d : NO_DEST;
  }

  return {
    pick(_source, destination) {
      let entry = cache.use(destination, context.now);
      // First the pick, then the loss: it may be the same server.
      const its = kept(entry);
      if (entry !== NO_ENTRY) shrink(entry);
      if (its !== NO_DEST) return its;
      const d = leastLoaded(context, service);
      if (d === NO_DEST) return NO_DEST;
      if (entry === NO_ENTRY) entry = cache.add(destination, NO_MEMBER, context.now);
      if (entry !== NO_ENTRY) join(entry, d);
      return d;
    },
    explain(_source, destination) {
      const entry = cache.find(destination);
      const address = formatIp4(destination);
      const chosen = kept(entry);
      if (chosen !== NO_DEST) {
        const set = cache.value[entry]!;
        const how = `${address} keeps to its set: the fewest connections per weight in it`;
        return explainChoice(context, service, chosen, how, (d) => [
          dests.weight[d] === 0
            ? ''
            : `${overhead(dests, d)} / ${dests.weight[d]} = ${decimal(overhead(dests, d) / dests.weight[d]!)}`,
          d === chosen ? 'the least of the set' : sets.has(set, d) ? 'of the set, but not less' : 'not of the set',
        ]);
      }
      const before = entry === NO_ENTRY ? 'has no set yet' : 'finds its set crowded or empty';
      return explainLeastLoaded(context, service, `${address} ${before}: the fewest connections per weight of all`);
    },
    fork: (its) => byReplicatedLocality(its, service, { sets, cache }),
    collect(now) {
      cache.collect(now, seconds(sysctls.lblcrExpiration));
    },
    close() {
      cache.clear();
    },
  };
}

export const lblcr: SchedulerDefinition = {
  name: 'lblcr',
  create: (context, service) => byReplicatedLocality(context, service, null),
};
