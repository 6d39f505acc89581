/**
 * Virtual services: rows, and the look-up by (protocol, VIP, port) that each new connection makes.   @hot
 *
 * Columns, a hash of int keys with chains, a free list; capacity is reserved at the start. Per-service things that are objects (the scheduler) are in a
 * plain array beside the columns.
 */
import { copyRows, copyState } from '../base/copy-state.ts';
import { hash4 } from '../base/hash.ts';
import { type Allocate, Columns } from '../base/memory.ts';
import { IpProto } from '../wire/ipv4.ts';
import { Counters } from './accounting.ts';
import { engineNumber, type PersistenceEngine } from './persistence-engine.ts';
import type { Scheduler } from './sched/scheduler.ts';

export const NO_SERVICE = -1;

const { Tcp: TCP } = IpProto;
export const FTP = 21;
const FTP_DATA = 20;
const FIRST_USER_PORT = 1024;

/** Bits of ServiceTable.flags. */
export const ServiceFlag = { Persistent: 1, OnePacket: 2, Used: 4 } as const;

export class ServiceTable {
  readonly capacity: number;
  /** IpProto; 0 for a firewall mark. */
  readonly protocol: Uint8Array;
  /** Address, or firewall mark. */
  readonly vip: Int32Array;
  readonly port: Uint16Array;
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
  /** Number of the scheduler (sched/index.ts) and of the persistence engine, 0 for none: what is left of them for a later life of the daemon. */
  readonly schedulerNumbers: Uint8Array;
  readonly engineNumbers: Uint8Array;
  readonly schedulerNames: string[] = [];
  /** Persistence engines, null where there is none. */
  readonly engines: (PersistenceEngine | null)[] = [];
  /** The services whose servers' own packets make connections. */
  readonly followers = new Set<number>();
  /** Tells a service from an earlier one in the same row. */
  readonly serial: Int32Array;
  readonly counters: Counters;
  readonly #next: Int32Array;
  #buckets: Int32Array;
  #mask: number;
  #seed: number;
  #free = 0;
  /** One int: rows from there on were never used. */
  readonly #fresh: Int32Array;
  #count = 0;
  #serial = 0;
  /** How many services have a firewall mark, port 21, port 0: while there are none, nobody looks for them. */
  #marks = 0;
  #ftps = 0;
  #anyPorts = 0;

  constructor(capacity: number, seed: number, allocate?: Allocate) {
    const buckets = 2 ** Math.ceil(Math.log2(capacity));
    const columns = new Columns('services', allocate);
    this.capacity = capacity;
    this.protocol = columns.uint8('protocol', capacity);
    this.vip = columns.int32('vip', capacity);
    this.port = columns.uint16('port', capacity);
    this.flags = columns.uint8('flags', capacity);
    this.schedulerFlags = columns.uint8('schedulerFlags', capacity);
    this.schedulerNumbers = columns.uint8('schedulerNumbers', capacity);
    this.engineNumbers = columns.uint8('engineNumbers', capacity);
    this.timeout = columns.int32('timeout', capacity);
    this.netmask = columns.int32('netmask', capacity);
    this.first = columns.int32('first', capacity);
    this.#fresh = columns.int32('fresh', 1);
    this.destinations = new Int32Array(capacity);
    this.serial = new Int32Array(capacity);
    this.counters = new Counters(capacity, columns);
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
    return this.#fresh[0]!;
  }

  isUsed(service: number): boolean {
    return (this.flags[service]! & ServiceFlag.Used) !== 0;
  }

  /** Service of an address, or NO_SERVICE. That of a firewall mark has protocol 0, the mark as address and port 0. */
  find(protocol: number, vip: number, port: number): number {
    let s = this.#buckets[hash4(this.#seed, vip, port, protocol, 0) & this.#mask]! - 1;
    while (s >= 0) {
      if (this.vip[s] === vip && this.port[s] === port && this.protocol[s] === protocol) return s;
      s = this.#next[s]! - 1;
    }
    return NO_SERVICE;
  }

  /**
   * Service of a packet: that of its mark; of its address and port; FTP's for the ports of its data connections; that of all ports
   * (ip_vs_ctl.c, ip_vs_service_find).
   */
  match(protocol: number, vip: number, port: number, mark: number): number {
    if (mark !== 0 && this.#marks !== 0) {
      const marked = this.find(0, mark, 0);
      if (marked !== NO_SERVICE) return marked;
    }
    const exact = this.find(protocol, vip, port);
    if (exact !== NO_SERVICE) return exact;
    if (this.#ftps !== 0 && protocol === TCP && (port === FTP_DATA || port >= FIRST_USER_PORT)) {
      const ftp = this.find(protocol, vip, FTP);
      if (ftp !== NO_SERVICE) return ftp;
    }
    return this.#anyPorts === 0 ? NO_SERVICE : this.find(protocol, vip, 0);
  }

  // cold: commands
  /** A row for a service that does not exist yet; NO_SERVICE when all are in use. */
  add(protocol: number, vip: number, port: number): number {
    let s: number;
    if (this.#free !== 0) {
      s = this.#free - 1;
      this.#free = this.#next[s]!;
    } else {
      s = this.#fresh[0]!;
      if (s === this.capacity) return NO_SERVICE;
      this.#fresh[0] = s + 1;
    }
    const bucket = hash4(this.#seed, vip, port, protocol, 0) & this.#mask;
    this.protocol[s] = protocol;
    this.vip[s] = vip;
    this.port[s] = port;
    this.flags[s] = ServiceFlag.Used;
    this.schedulerFlags[s] = 0;
    this.timeout[s] = 0;
    this.netmask[s] = -1;
    this.first[s] = -1;
    this.destinations[s] = 0;
    this.schedulers[s] = null;
    this.schedulerNames[s] = '';
    this.engines[s] = null;
    this.schedulerNumbers[s] = 0;
    this.engineNumbers[s] = 0;
    this.serial[s] = this.#serial = (this.#serial + 1) | 0;
    this.counters.clear(s);
    this.#next[s] = this.#buckets[bucket]!;
    this.#buckets[bucket] = s + 1;
    this.#count++;
    this.#tally(s, 1);
    return s;
  }

  /** Another persistence engine, or none. */
  setEngine(s: number, engine: PersistenceEngine | null): void {
    this.engines[s] = engine;
    this.engineNumbers[s] = engineNumber(engine);
    if (engine?.followsServers) this.followers.add(s);
    else this.followers.delete(s);
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
    this.#tally(s, -1);
    this.flags[s] = 0;
    this.schedulers[s] = null;
    this.setEngine(s, null);
    this.#next[s] = this.#free;
    this.#free = s + 1;
    this.#count--;
  }

  /** Become a copy, with room for no more rows. Counters are not copied: no packet's way depends on them. Schedulers are the caller's. */
  copyFrom(live: ServiceTable): void {
    copyState<ServiceTable>(this, live, live.highWater, live.capacity, ['capacity']);
    copyRows(this.#next, live.#next, live.highWater, live.capacity);
    // A packet only looks into them.
    this.#buckets = live.#buckets;
    this.#mask = live.#mask;
    for (let s = 0; s < live.highWater; s++) {
      this.schedulerNames[s] = live.schedulerNames[s]!;
      this.setEngine(s, live.engines[s] ?? null);
    }
    this.#seed = live.#seed;
    this.#free = live.#free;
    this.#fresh[0] = live.highWater;
    this.#count = live.#count;
    this.#serial = live.#serial;
    this.#marks = live.#marks;
    this.#ftps = live.#ftps;
    this.#anyPorts = live.#anyPorts;
  }

  #tally(s: number, one: number): void {
    if (this.protocol[s] === 0) this.#marks += one;
    else if (this.port[s] === FTP) this.#ftps += one;
    else if (this.port[s] === 0) this.#anyPorts += one;
  }
  // hot again
}
