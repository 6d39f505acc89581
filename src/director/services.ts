/**
 * Virtual services: rows, and the look-up by (protocol, VIP, port) that each new connection makes.   @hot
 *
 * Columns, a hash of int keys with chains, a free list; capacity is reserved at the start. Per-service things that are objects (the scheduler) are in a
 * plain array beside the columns.
 */
import { hash4 } from '../base/hash.ts';
import { Counters } from './accounting.ts';
import type { Scheduler } from './sched/scheduler.ts';

export const NO_SERVICE = -1;

/** Bits of ServiceTable.flags. */
export const ServiceFlag = { Persistent: 1, OnePacket: 2, Used: 4 } as const;

export class ServiceTable {
  readonly capacity: number;
  /** IpProto; 0 for a firewall mark. */
  readonly protocol: Uint8Array;
  readonly vip: Int32Array;
  readonly port: Uint16Array;
  /** Firewall mark; 0 for services of an address. */
  readonly mark: Int32Array;
  /** ServiceFlag bits. */
  readonly flags: Uint8Array;
  /** As the kernel numbers them: model SchedulerFlag. */
  readonly schedulerFlags: Uint8Array;
  /** Persistence timeout, seconds. */
  readonly timeout: Int32Array;
  /** Persistence netmask. */
  readonly netmask: Int32Array;
  /** Newest destination, NO_DEST when there is none; the list goes on in DestTable.next. */
  readonly first: Int32Array;
  /** How many. */
  readonly destinations: Int32Array;
  readonly schedulers: (Scheduler | null)[] = [];
  readonly schedulerNames: string[] = [];
  /** Tells a service from an earlier one in the same row. */
  readonly serial: Int32Array;
  readonly counters: Counters;
  readonly #next: Int32Array;
  readonly #buckets: Int32Array;
  readonly #mask: number;
  readonly #seed: number;
  #free = 0;
  #fresh = 0;
  #count = 0;
  #serial = 0;

  constructor(capacity: number, seed: number) {
    const buckets = 2 ** Math.ceil(Math.log2(capacity));
    this.capacity = capacity;
    this.protocol = new Uint8Array(capacity);
    this.vip = new Int32Array(capacity);
    this.port = new Uint16Array(capacity);
    this.mark = new Int32Array(capacity);
    this.flags = new Uint8Array(capacity);
    this.schedulerFlags = new Uint8Array(capacity);
    this.timeout = new Int32Array(capacity);
    this.netmask = new Int32Array(capacity);
    this.first = new Int32Array(capacity);
    this.destinations = new Int32Array(capacity);
    this.serial = new Int32Array(capacity);
    this.counters = new Counters(capacity);
    this.#next = new Int32Array(capacity);
    this.#buckets = new Int32Array(buckets);
    this.#mask = buckets - 1;
    this.#seed = seed | 0;
  }

  get count(): number {
    return this.#count;
  }

  /** Rows below this one may be in use. */
  get highWater(): number {
    return this.#fresh;
  }

  isUsed(service: number): boolean {
    return (this.flags[service]! & ServiceFlag.Used) !== 0;
  }

  /** Service of an address, or NO_SERVICE. */
  find(protocol: number, vip: number, port: number): number {
    let s = this.#buckets[hash4(this.#seed, vip, port, protocol, 0) & this.#mask]! - 1;
    while (s >= 0) {
      if (this.vip[s] === vip && this.port[s] === port && this.protocol[s] === protocol && this.mark[s] === 0) return s;
      s = this.#next[s]! - 1;
    }
    return NO_SERVICE;
  }

  // cold: commands
  /** A row for a service that does not exist yet; NO_SERVICE when all are in use. */
  add(protocol: number, vip: number, port: number): number {
    let s: number;
    if (this.#free !== 0) {
      s = this.#free - 1;
      this.#free = this.#next[s]!;
    } else {
      if (this.#fresh === this.capacity) return NO_SERVICE;
      s = this.#fresh++;
    }
    const bucket = hash4(this.#seed, vip, port, protocol, 0) & this.#mask;
    this.protocol[s] = protocol;
    this.vip[s] = vip;
    this.port[s] = port;
    this.mark[s] = 0;
    this.flags[s] = ServiceFlag.Used;
    this.schedulerFlags[s] = 0;
    this.timeout[s] = 0;
    this.netmask[s] = -1;
    this.first[s] = -1;
    this.destinations[s] = 0;
    this.schedulers[s] = null;
    this.schedulerNames[s] = '';
    this.serial[s] = this.#serial = (this.#serial + 1) | 0;
    this.counters.clear(s);
    this.#next[s] = this.#buckets[bucket]!;
    this.#buckets[bucket] = s + 1;
    this.#count++;
    return s;
  }

  /** The row goes; its destinations must have gone before. */
  remove(s: number): void {
    const bucket = hash4(this.#seed, this.vip[s]!, this.port[s]!, this.protocol[s]!, 0) & this.#mask;
    if (this.#buckets[bucket] === s + 1) {
      this.#buckets[bucket] = this.#next[s]!;
    } else {
      let link = this.#buckets[bucket]! - 1;
      while (this.#next[link] !== s + 1) link = this.#next[link]! - 1;
      this.#next[link] = this.#next[s]!;
    }
    this.flags[s] = 0;
    this.schedulers[s] = null;
    this.#next[s] = this.#free;
    this.#free = s + 1;
    this.#count--;
  }
  // hot again
}
