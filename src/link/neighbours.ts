/**
 * The neighbour table: (interface, IPv4 address) → MAC and state, as the kernel's arp_cache (net/core/neighbour.c).   @hot
 *
 *                    packet             no answer 3 s
 *   (none) ───────────────► INCOMPLETE ───────────────► FAILED
 *                              │ reply                     │ packet: INCOMPLETE again
 *                              ▼
 *   ┌──────────────────── REACHABLE ──── 15…45 s without confirmation ──► STALE
 *   │ reply                    ▲                                            │ packet
 *   PROBE ◄── 5 s ── DELAY ◄───┼────────────────────────────────────────────┘
 *     └─ 3 requests, no answer ► FAILED
 *
 * A neighbour is a row of columns. The way of a packet is one compare in a small direct-mapped cache in front of the hash. There are no timers: a scan of
 * the few hundred rows, every tenth of a second, moves what is due.
 */
import { elapsed, milliseconds, seconds } from '../base/clock.ts';
import { copyRows, copyState } from '../base/copy-state.ts';
import { hash4 } from '../base/hash.ts';
import type { Rng } from '../base/rng.ts';
import { NONE } from '../packet/packet.ts';

/** include/uapi/linux/neighbour.h has them as bits; the order here puts those that have a MAC first. */
export const Nud = {
  Permanent: 0,
  Reachable: 1,
  Stale: 2,
  Delay: 3,
  Probe: 4,
  Incomplete: 5,
  Failed: 6,
  Free: 7,
} as const;
export type Nud = (typeof Nud)[keyof typeof Nud];

/** As iproute2 prints them. */
export const NEIGHBOUR_STATES: readonly string[] = Object.keys(Nud).map((name) => name.toUpperCase());

/** States up to this one have a MAC that is used. */
export const LAST_VALID = Nud.Probe;

/** Rows of a whole table; the sysctl gc_thresh3 is at most this. */
export const NEIGHBOUR_CAPACITY = 65536;
const BUCKETS = 4096;
const CACHE = 1024;
/** How often the states are looked at, ticks; in between, when one of them is due. */
const SCAN_INTERVAL = milliseconds(100);
/** Above gc_thresh2 something idle is given up this often at most; it is also how long a row must be idle for that. */
const SPARE_INTERVAL = seconds(5);

export class NeighbourTable {
  readonly capacity: number;
  readonly ip: Int32Array;
  readonly device: Int32Array;
  readonly macHi: Int32Array;
  readonly macLo: Int32Array;
  readonly state: Uint8Array;
  /** Ticks: last proof that it lives, last packet to it, last change of its MAC, next step of its state. */
  readonly confirmed: Int32Array;
  readonly used: Int32Array;
  readonly updated: Int32Array;
  readonly due: Int32Array;
  readonly probes: Uint8Array;
  /** Packets that wait for the MAC, a list through Packet.next. */
  readonly waitHead: Int32Array;
  readonly waitTail: Int32Array;
  readonly waiting: Int32Array;
  /** Rows ever used are 0 … top-1. */
  top = 0;
  size = 0;
  /** Sum of `waiting`. */
  totalWaiting = 0;
  nextScan = 0;

  // net.ipv4.neigh.default.*, times in ticks
  gcThresh1 = 128;
  gcThresh2 = 512;
  gcThresh3 = 1024;
  baseReachable = seconds(30);
  delayFirstProbe = seconds(5);
  retransmit = seconds(1);
  unicastProbes = 3;
  multicastProbes = 3;
  gcStale = seconds(60);
  queueLimit = 101;

  readonly #bucket = new Int32Array(BUCKETS).fill(NONE);
  readonly #next: Int32Array;
  readonly #cacheIp = new Int32Array(CACHE);
  readonly #cacheDevice = new Int32Array(CACHE).fill(NONE);
  readonly #cacheRow = new Int32Array(CACHE);
  #seed: number;
  readonly #rng: Rng;
  #free = NONE;
  #lastSpared = 0;

  /** @param capacity rows that can ever exist */
  constructor(rng: Rng, capacity = NEIGHBOUR_CAPACITY) {
    this.capacity = capacity;
    this.ip = new Int32Array(capacity);
    this.device = new Int32Array(capacity);
    this.macHi = new Int32Array(capacity);
    this.macLo = new Int32Array(capacity);
    this.state = new Uint8Array(capacity);
    this.confirmed = new Int32Array(capacity);
    this.used = new Int32Array(capacity);
    this.updated = new Int32Array(capacity);
    this.due = new Int32Array(capacity);
    this.probes = new Uint8Array(capacity);
    this.waitHead = new Int32Array(capacity).fill(NONE);
    this.waitTail = new Int32Array(capacity).fill(NONE);
    this.waiting = new Int32Array(capacity);
    this.#next = new Int32Array(capacity);
    this.#rng = rng;
    this.#seed = rng.next();
  }

  /** Row of the neighbour, or NONE. */
  find(device: number, ip: number): number {
    const slot = (ip ^ (ip >>> 10) ^ device) & (CACHE - 1);
    if (this.#cacheIp[slot] === ip && this.#cacheDevice[slot] === device) return this.#cacheRow[slot]!;
    let row = this.#bucket[this.#hash(device, ip)]!;
    while (row !== NONE) {
      if (this.ip[row] === ip && this.device[row] === device) {
        this.#cacheIp[slot] = ip;
        this.#cacheDevice[slot] = device;
        this.#cacheRow[slot] = row;
        return row;
      }
      row = this.#next[row]!;
    }
    return NONE;
  }

  #hash(device: number, ip: number): number {
    return hash4(this.#seed, ip, device, 0, 0) & (BUCKETS - 1);
  }

  /** A new row in state Free, NONE when the table is full and nothing in it can be spared (gc_thresh3). The caller sets the state at once. */
  add(device: number, ip: number, now: number): number {
    if (this.size >= this.gcThresh3) {
      if (!this.#spareOne(now)) return NONE;
    } else if (this.size >= this.gcThresh2 && elapsed(now, this.#lastSpared) > SPARE_INTERVAL) {
      this.#lastSpared = now;
      this.#spareOne(now);
    }
    let row = this.#free;
    if (row !== NONE) this.#free = this.#next[row]!;
    else row = this.top++;
    const bucket = this.#hash(device, ip);
    this.ip[row] = ip;
    this.device[row] = device;
    this.macHi[row] = 0;
    this.macLo[row] = 0;
    this.state[row] = Nud.Free;
    this.confirmed[row] = now;
    this.used[row] = now;
    this.updated[row] = now;
    this.due[row] = now;
    this.probes[row] = 0;
    this.#next[row] = this.#bucket[bucket]!;
    this.#bucket[bucket] = row;
    this.size++;
    return row;
  }

  // cold: copies
  /** Become a copy for which no packet waits. */
  copyFrom(live: NeighbourTable): void {
    copyState<NeighbourTable>(this, live, live.top, live.capacity, ['capacity']);
    copyRows(this.#next, live.#next, live.top, live.capacity);
    this.#bucket.set(live.#bucket);
    this.#cacheDevice.fill(NONE);
    this.#seed = live.#seed;
    this.#free = live.#free;
    this.#lastSpared = live.#lastSpared;
    this.waitHead.fill(NONE, 0, live.top);
    this.waitTail.fill(NONE, 0, live.top);
    this.waiting.fill(0, 0, live.top);
    this.totalWaiting = 0;
  }
  // hot again

  /** Remove a row; its waiting packets must be gone. */
  remove(row: number): void {
    const bucket = this.#hash(this.device[row]!, this.ip[row]!);
    let at = this.#bucket[bucket]!;
    if (at === row) this.#bucket[bucket] = this.#next[row]!;
    else {
      while (this.#next[at] !== row) at = this.#next[at]!;
      this.#next[at] = this.#next[row]!;
    }
    const slot = (this.ip[row]! ^ (this.ip[row]! >>> 10) ^ this.device[row]!) & (CACHE - 1);
    if (this.#cacheRow[slot] === row) this.#cacheDevice[slot] = NONE;
    this.state[row] = Nud.Free;
    this.#next[row] = this.#free;
    this.#free = row;
    this.size--;
  }

  /** How long a confirmation holds: the kernel's random half to one and a half of base_reachable_time (neigh_rand_reach_time). */
  reachableTime(): number {
    return (this.baseReachable >> 1) + ((this.#rng.next() >>> 1) % Math.max(1, this.baseReachable));
  }

  /** Time for the next look at the states? */
  isScanDue(now: number): boolean {
    if (((now - this.nextScan) | 0) < 0) return false;
    this.nextScan = (now + SCAN_INTERVAL) | 0;
    return true;
  }

  /** neigh_forced_gc: give up one row that failed or that nobody has used for 5 s; permanent ones and those with waiting packets stay. */
  #spareOne(now: number): boolean {
    let oldest = NONE;
    for (let row = 0; row < this.top; row++) {
      const state = this.state[row]!;
      if (state === Nud.Failed) {
        this.remove(row);
        return true;
      }
      if (state !== Nud.Stale || elapsed(now, this.used[row]!) < SPARE_INTERVAL) continue;
      if (oldest === NONE || ((this.used[row]! - this.used[oldest]!) | 0) < 0) oldest = row;
    }
    if (oldest === NONE) return false;
    this.remove(oldest);
    return true;
  }
}
