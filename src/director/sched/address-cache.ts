/**
 * What lblc and lblcr remember: per destination address one value, with the tick of its last use (net/netfilter/ipvs/ip_vs_lblc.c, ip_vs_lblcr.c).
 *
 * 1,024 chains, columns that double as they fill, up to 65,536 addresses; the kernel stops where its memory does. What does not fit is not remembered.
 * Once a minute stale addresses go: above 16,384 of them those unused for 6 minutes, some at a time; every half hour those unused for as long as the
 * sysctl says.
 */
import { seconds } from '../../base/clock.ts';
import { hash32 } from './kernel-hash.ts';

export const NO_ENTRY = -1;

const BITS = 10;
const CHAINS = 1 << BITS;
const FIRST_CAPACITY = 64;
const MAX_CAPACITY = 65536;
/** Above this many, collect early. */
const COMFORTABLE = CHAINS * 16;
const INTERVAL = seconds(60);
const IDLE = seconds(6 * 60);
/** Every how many intervals all chains are looked at. */
const FULL_EVERY = 30;

/** A copy with room for twice as many. */
export function doubled(column: Int32Array): Int32Array {
  const larger = new Int32Array(column.length * 2);
  larger.set(column);
  return larger;
}

export class AddressCache {
  value: Int32Array = new Int32Array(FIRST_CAPACITY);
  /** Tick of the last change of the value; whoever changes it keeps this. */
  modified: Int32Array = new Int32Array(FIRST_CAPACITY);
  #address: Int32Array = new Int32Array(FIRST_CAPACITY);
  #lastUse: Int32Array = new Int32Array(FIRST_CAPACITY);
  /** Entry + 1, also of the free ones. */
  #next: Int32Array = new Int32Array(FIRST_CAPACITY);
  readonly #chains = new Int32Array(CHAINS);
  readonly #release: (value: number) => void;
  #free = 0;
  #fresh = 0;
  #count = 0;
  #collectAt: number;
  #intervals = 1;
  /** The chain that was looked at last. */
  #rover = 0;

  /** @param release is told the value of each entry that goes */
  constructor(now: number, release: (value: number) => void) {
    this.#collectAt = (now + INTERVAL) | 0;
    this.#release = release;
  }

  get count(): number {
    return this.#count;
  }

  /** The entry of an address, or NO_ENTRY. */
  find(address: number): number {
    let e = this.#chains[hash32(address, BITS)]! - 1;
    while (e >= 0 && this.#address[e] !== address) e = this.#next[e]! - 1;
    return e;
  }

  /** The same, and it is thereby used. */
  use(address: number, now: number): number {
    const e = this.find(address);
    if (e !== NO_ENTRY) this.#lastUse[e] = now;
    return e;
  }

  /** An equal one, with a `release` of its own. */
  fork(release: (value: number) => void): AddressCache {
    const copy = new AddressCache(0, release);
    copy.value = this.value.slice();
    copy.modified = this.modified.slice();
    copy.#address = this.#address.slice();
    copy.#lastUse = this.#lastUse.slice();
    copy.#next = this.#next.slice();
    copy.#chains.set(this.#chains);
    copy.#free = this.#free;
    copy.#fresh = this.#fresh;
    copy.#count = this.#count;
    copy.#collectAt = this.#collectAt;
    copy.#intervals = this.#intervals;
    copy.#rover = this.#rover;
    return copy;
  }

  /** Remember an address that is not there. @returns NO_ENTRY when there is no room for it */
  add(address: number, value: number, now: number): number {
    let e: number;
    if (this.#free !== 0) {
      e = this.#free - 1;
      this.#free = this.#next[e]!;
    } else {
      if (this.#fresh === this.value.length) {
        if (this.#fresh === MAX_CAPACITY) return NO_ENTRY;
        this.#grow();
      }
      e = this.#fresh++;
    }
    const chain = hash32(address, BITS);
    this.#address[e] = address;
    this.value[e] = value;
    this.modified[e] = now;
    this.#lastUse[e] = now;
    this.#next[e] = this.#chains[chain]!;
    this.#chains[chain] = e + 1;
    this.#count++;
    return e;
  }

  /** Drop what is stale, if it is time for that. @param expiration ticks */
  collect(now: number, expiration: number): void {
    if (((now - this.#collectAt) | 0) < 0) return;
    this.#collectAt = (now + INTERVAL) | 0;
    if (this.#intervals % FULL_EVERY === 0) {
      this.#intervals = 1;
      this.#sweep(now, expiration, MAX_CAPACITY);
    } else if (this.#count <= COMFORTABLE) {
      this.#intervals++;
    } else {
      const goal = Math.min(Math.trunc(((this.#count - COMFORTABLE) * 4) / 3), COMFORTABLE / 2);
      this.#sweep(now, IDLE, goal);
    }
  }

  /** Forget everything. */
  clear(): void {
    for (let chain = 0; chain < CHAINS; chain++) {
      for (let e = this.#chains[chain]! - 1; e >= 0; e = this.#next[e]! - 1) this.#release(this.value[e]!);
    }
    this.#chains.fill(0);
    this.#free = 0;
    this.#fresh = 0;
    this.#count = 0;
  }

  /** From chain to chain, until `goal` entries that were idle for so long have gone, or all chains were looked at. */
  #sweep(now: number, idle: number, goal: number): void {
    for (let i = 0, gone = 0; i < CHAINS && gone < goal; i++) {
      this.#rover = (this.#rover + 1) & (CHAINS - 1);
      let previous = NO_ENTRY;
      for (let e = this.#chains[this.#rover]! - 1; e >= 0; ) {
        const next = this.#next[e]!;
        if (((now - this.#lastUse[e]!) | 0) < idle) {
          previous = e;
        } else {
          if (previous === NO_ENTRY) this.#chains[this.#rover] = next;
          else this.#next[previous] = next;
          this.#release(this.value[e]!);
          this.#next[e] = this.#free;
          this.#free = e + 1;
          this.#count--;
          gone++;
        }
        e = next - 1;
      }
    }
  }

  #grow(): void {
    this.value = doubled(this.value);
    this.modified = doubled(this.modified);
    this.#address = doubled(this.#address);
    this.#lastUse = doubled(this.#lastUse);
    this.#next = doubled(this.#next);
  }
}
