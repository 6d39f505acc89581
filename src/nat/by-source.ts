/**
 * Entries by their original source (nf_nat_bysource): so that all connections of a client's port get the same translation, wherever they go, and hosts behind
 * us can be reached by what others know of them (RFC 4787 §4.1, endpoint-independent mapping where possible).   @hot
 */
import { hash4 } from '../base/hash.ts';
import { type Allocate, int32Of, plainMemory } from '../base/memory.ts';
import { CtDir } from '../conntrack/entry.ts';
import { Tuple } from '../conntrack/tuple.ts';
import type { Inheritance } from '../flow/inheritance.ts';
import { isSourceInRange, presentTuple } from './choose.ts';
import type { Entries } from './entries.ts';
import type { NatRange } from './range.ts';

const ORIGINAL = CtDir.Original;
const NONE = 0;

const own = new Tuple();

export class BySource {
  readonly #seed: number;
  /**
   * Entry at the head of each bucket, the newest; 0: none. And the neighbours of each entry: who asks a million others from one port (as scanners do) has all of these
   * connections in one chain, and each of them must end without a walk through it.
   */
  readonly #buckets: Int32Array;
  readonly #next: Int32Array;
  readonly #before: Int32Array;

  /** What a life before has left and is not here yet; null as soon as all is. */
  inheritance: Inheritance | null = null;
  /** Of what this is a copy: its chains are read as they are, for a copy lives for one packet. */
  #live: { readonly table: BySource; readonly entries: Entries } | null = null;

  constructor(capacity: number, seed: number, allocate: Allocate = plainMemory) {
    const buckets = 2 ** Math.ceil(Math.log2(Math.max(capacity, 16)));
    this.#seed = seed;
    this.#buckets = int32Of(allocate(buckets * 4), buckets);
    this.#next = int32Of(allocate((capacity + 1) * 4), capacity + 1);
    this.#before = int32Of(allocate((capacity + 1) * 4), capacity + 1);
  }

  /** The original source of `t`. */
  #bucketOf(t: Tuple, zone: number): number {
    return hash4(this.#seed, t.src, t.ports >>> 16, t.proto, zone) & (this.#buckets.length - 1);
  }

  /**
   * Give `t` the source that another connection of the same original source has been given, if the range allows it (find_appropriate_src).
   * @returns false when there is none; `t` is as it was
   */
  follow(entries: Entries, t: Tuple, zone: number, range: NatRange): boolean {
    const { src, ports, proto } = t;
    if (this.inheritance !== null) this.inheritance.takeBySource(src, ports, proto);
    for (let at = this.#buckets[this.#bucketOf(t, zone)]!; at !== NONE; at = this.#next[at]!) {
      entries.tuple(at, ORIGINAL, own);
      if (own.src !== src || own.ports >>> 16 !== ports >>> 16 || own.proto !== proto) continue;
      if (entries.zone(at) !== zone) continue;
      presentTuple(entries, at, own);
      t.src = own.src;
      t.ports = (own.ports & -0x10000) | (ports & 0xffff);
      if (isSourceInRange(t, range)) return true;
      t.src = src;
      t.ports = ports;
    }
    const live = this.#live;
    return live?.table.follow(live.entries, t, zone, range) ?? false;
  }

  add(entries: Entries, entry: number): void {
    entries.tuple(entry, ORIGINAL, own);
    const bucket = this.#bucketOf(own, entries.zone(entry));
    const first = this.#buckets[bucket]!;
    this.#next[entry] = first;
    this.#before[entry] = NONE;
    if (first !== NONE) this.#before[first] = entry;
    this.#buckets[bucket] = entry;
  }

  /** Nothing happens to one that was not added. */
  remove(entries: Entries, entry: number): void {
    const next = this.#next[entry]!;
    const before = this.#before[entry]!;
    if (before !== NONE) {
      this.#next[before] = next;
    } else {
      entries.tuple(entry, ORIGINAL, own);
      const bucket = this.#bucketOf(own, entries.zone(entry));
      if (this.#buckets[bucket] !== entry) return;
      this.#buckets[bucket] = next;
    }
    if (next !== NONE) this.#before[next] = before;
    this.#next[entry] = NONE;
    this.#before[entry] = NONE;
  }

  // cold: copies
  copyFrom(table: BySource, entries: Entries): void {
    this.#live = { table, entries };
  }
  // hot again
}
