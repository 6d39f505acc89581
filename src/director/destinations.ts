/**
 * Destinations (real servers): columns; the list of each service, newest first; the trash.   @hot
 *
 * A destination belongs to one service. When it is removed it goes to the trash, because connections still refer to it; adding the same server to the
 * same service takes the old row back, with its connections and counters. The trash is swept every minute; a row leaves it for good when no
 * connection has referred to it for two minutes (ip_vs_ctl.c, ip_vs_dest_trash_expire).
 */
import { seconds } from '../base/clock.ts';
import { copyRows, copyState } from '../base/copy-state.ts';
import { hash4 } from '../base/hash.ts';
import { type Allocate, Columns } from '../base/memory.ts';
import { Counters } from './accounting.ts';
import { Method } from './connection.ts';
import type { ServiceTable } from './services.ts';

export const NO_DEST = -1;

/** Bits of DestTable.flags. */
export const DestFlag = {
  /** On its service's list. */
  Available: 1,
  /** At its upper threshold: gets no new connection. */
  Overload: 2,
  /** The row is in use: on a list or in the trash. */
  Used: 4,
  /** Taken out of service (drain.ts). */
  Draining: 8,
} as const;

/** What a tunnelled packet is wrapped in, numbered as the kernel's IP_VS_CONN_F_TUNNEL_TYPE_*. */
export const TunnelType = { IpIp: 0, Gue: 1, Gre: 2 } as const;
/** IP_VS_TUNNEL_ENCAP_FLAG_*; 0 is none. */
export const TunnelFlag = { Csum: 1, Remcsum: 2 } as const;

/** Ints of a cached route: generation of the routing that gave it, next hop, device, MTU (0: no route, -1: one of our own addresses), our source address. */
export const ROUTE_SHIFT = 3;
export const RouteColumn = { Generation: 0, Nexthop: 1, Device: 2, Mtu: 3, Source: 4 } as const;
export const ROUTE_LOCAL = -1;
export const ROUTE_NONE = 0;

const TRASH_SWEEP = seconds(60);
const TRASH_KEEP = seconds(120);
/** Rows that a breath looks at while the trash is swept. */
const SWEEP_STEP = 256;
const { Available: AVAILABLE, Overload: OVERLOAD, Used: USED } = DestFlag;
const { Masq: MASQ, FullNat: FULL_NAT } = Method;

/** What a service is known by. */
export interface VirtualService {
  readonly protocol: number;
  readonly vip: number;
  readonly vport: number;
}

export class DestTable {
  readonly capacity: number;
  /**
   * The row of connections that are bound to no server: synchronised from a director whose services are not here. It is on no list and counts for
   * nobody; its address is that of the connection at hand (`lend`).
   */
  readonly unbound: number;
  readonly ip: Int32Array;
  /** 0: the port that the client asked for. */
  readonly port: Uint16Array;
  readonly service: Int32Array;
  /** DestFlag bits. */
  readonly flags: Uint8Array;
  /** 0 … 2^31-1; 0 = quiesced. */
  readonly weight: Int32Array;
  /** The last weight above 0; 0 when it never had one since it was added. */
  readonly lastWeight: Int32Array;
  /** Method of new connections. */
  readonly method: Uint8Array;
  /** TunnelType, GUE's UDP port and TunnelFlag bits: of all its connections, as they stand now. */
  readonly tunnelType: Uint8Array;
  readonly tunnelPort: Uint16Array;
  readonly tunnelFlags: Uint8Array;
  /** Connections, 0 = no limit; uint32 as ipvsadm's. */
  readonly upper: Uint32Array;
  readonly lower: Uint32Array;
  /** Connections by kind; they are what refers to the row. */
  readonly active: Int32Array;
  readonly inactive: Int32Array;
  readonly persistent: Int32Array;
  /** How often its service's scheduler remembers it; that refers to the row as connections do. */
  readonly held: Int32Array;
  /** Neighbours on the list of its service, NO_DEST at the ends. `previous` stays as it was after a removal, until the row is added again. */
  readonly next: Int32Array;
  readonly previous: Int32Array;
  readonly route: Int32Array;
  readonly counters: Counters;

  readonly #services: ServiceTable;
  /** Serial of the service that the row belonged to last. */
  readonly #serial: Int32Array;
  /** Identity of the service that a trashed row belonged to; the service's row may be another's by now. */
  readonly #vip: Int32Array;
  readonly #vport: Uint16Array;
  readonly #protocol: Uint8Array;
  /** Hash over (server, service) of rows in use, listed and trashed. */
  readonly #chain: Int32Array;
  #buckets: Int32Array;
  #mask: number;
  #seed: number;
  /** Hash over (server, its port) of the same rows. */
  readonly #serverChain: Int32Array;
  #serverBuckets: Int32Array;
  /** Tick since which a trashed row is idle; a second column says whether that began. */
  readonly #idleSince: Int32Array;
  readonly #isIdle: Uint8Array;
  /** Row + 1, linked by #trashNext / #trashPrevious. */
  #trash = 0;
  readonly #trashNext: Int32Array;
  readonly #trashPrevious: Int32Array;
  #sweepAt = 0;
  /** Row + 1 that the sweep under way goes on with, 0 between two; and the tick that it was due at. */
  #sweepLink = 0;
  #sweptAt = 0;
  /** Nothing leaves the trash while this is set. */
  isTrashHeld = false;
  #free = 0;
  /** Rows on the free list. */
  #freed = 0;
  /** One int: rows from there on were never used. */
  readonly #fresh: Int32Array;
  #count = 0;

  /** @param limit servers at most */
  constructor(limit: number, services: ServiceTable, seed: number, allocate?: Allocate) {
    const capacity = limit + 1;
    const columns = new Columns('servers', allocate);
    const buckets = 2 ** Math.ceil(Math.log2(capacity));
    this.capacity = limit;
    this.unbound = limit;
    this.ip = columns.int32('ip', capacity);
    this.port = columns.uint16('port', capacity);
    this.service = columns.int32('service', capacity);
    this.flags = columns.uint8('flags', capacity);
    this.weight = columns.int32('weight', capacity);
    this.lastWeight = columns.int32('lastWeight', capacity);
    this.method = columns.uint8('method', capacity);
    this.tunnelType = columns.uint8('tunnelType', capacity);
    this.tunnelPort = columns.uint16('tunnelPort', capacity);
    this.tunnelFlags = columns.uint8('tunnelFlags', capacity);
    this.upper = columns.uint32('upper', capacity);
    this.lower = columns.uint32('lower', capacity);
    this.active = new Int32Array(capacity);
    this.inactive = new Int32Array(capacity);
    this.persistent = new Int32Array(capacity);
    this.held = new Int32Array(capacity);
    this.next = columns.int32('next', capacity);
    this.previous = new Int32Array(capacity);
    this.route = new Int32Array(capacity << ROUTE_SHIFT);
    this.counters = new Counters(capacity, columns);
    this.#fresh = columns.int32('fresh', 1);
    this.#services = services;
    this.#vip = columns.int32('vip', capacity);
    this.#vport = columns.uint16('vport', capacity);
    this.#protocol = columns.uint8('protocol', capacity);
    this.#chain = new Int32Array(capacity);
    this.#buckets = new Int32Array(buckets);
    this.#mask = buckets - 1;
    this.#seed = seed | 0;
    this.#idleSince = new Int32Array(capacity);
    this.#isIdle = new Uint8Array(capacity);
    this.#serverChain = new Int32Array(capacity);
    this.#serverBuckets = new Int32Array(buckets);
    this.#serial = new Int32Array(capacity);
    this.#trashNext = new Int32Array(capacity);
    this.#trashPrevious = new Int32Array(capacity);
    this.flags[limit] = USED;
    // Not quiesced, whoever asks.
    this.weight[limit] = 1;
  }

  /** A connection that is bound to none goes to the address that it brought: the route is asked for each packet, as the kernel does. */
  lend(ip: number): void {
    this.ip[this.unbound] = ip;
    this.route[this.unbound << ROUTE_SHIFT] = -1;
  }

  /** Destinations on lists. */
  get count(): number {
    return this.#count;
  }

  get highWater(): number {
    return this.#fresh[0]!;
  }

  isAvailable(d: number): boolean {
    return (this.flags[d]! & AVAILABLE) !== 0;
  }

  /** May a scheduler pick it: weight above 0, not at its upper threshold. */
  isCandidate(d: number): boolean {
    return this.weight[d]! > 0 && (this.flags[d]! & OVERLOAD) === 0;
  }

  /** A connection begins to refer to it (ip_vs_conn.c, ip_vs_bind_dest). */
  bind(d: number, isTemplate: boolean, isInactive: boolean): void {
    if (isTemplate) this.persistent[d]!++;
    else if (isInactive) this.inactive[d]!++;
    else this.active[d]!++;
    this.#checkOverload(d);
  }

  /** A connection goes (ip_vs_unbind_dest). */
  unbind(d: number, isTemplate: boolean, isInactive: boolean): void {
    if (isTemplate) this.persistent[d]!--;
    else if (isInactive) this.inactive[d]!--;
    else this.active[d]!--;
    if ((this.flags[d]! & OVERLOAD) !== 0) this.#checkOverload(d);
  }

  /**
   * The overload begins at the upper threshold and ends below the lower one, or below three quarters of the upper one
   * (ip_vs_dest_update_overload in kernels since 2026, the recorded one among them).
   */
  #checkOverload(d: number): void {
    const total = this.active[d]! + this.inactive[d]!;
    const upper = this.upper[d]!;
    const lower = this.lower[d]!;
    if (upper !== 0 && total >= upper) this.flags[d]! |= OVERLOAD;
    else if (upper === 0 || total < (lower !== 0 ? lower : upper - (upper >>> 2))) this.flags[d]! &= ~OVERLOAD;
  }

  /** Is this the address of a masqueraded server, or one by full NAT, of some service of the protocol, or of a mark (ip_vs_has_real_service)? */
  hasServer(protocol: number, ip: number, port: number): boolean {
    const bucket = hash4(this.#seed, ip, port, 0, 0) & this.#mask;
    for (let d = this.#serverBuckets[bucket]! - 1; d >= 0; d = this.#serverChain[d]! - 1) {
      const method = this.method[d]!;
      if (this.ip[d] !== ip || this.port[d] !== port || !this.isAvailable(d)) continue;
      if (method !== MASQ && method !== FULL_NAT) continue;
      if (this.#protocol[d] === protocol || this.#protocol[d] === 0) return true;
    }
    return false;
  }

  // cold: commands
  /** The row of a server of this service, listed or in the trash; NO_DEST when there is none. */
  #lookUp(protocol: number, vip: number, vport: number, ip: number, port: number): number {
    const bucket = hash4(this.#seed, ip, vip, (port << 16) | vport, protocol) & this.#mask;
    for (let d = this.#buckets[bucket]! - 1; d >= 0; d = this.#chain[d]! - 1) {
      if (
        this.ip[d] === ip &&
        this.port[d] === port &&
        this.#vip[d] === vip &&
        this.#vport[d] === vport &&
        this.#protocol[d] === protocol
      ) {
        return d;
      }
    }
    return NO_DEST;
  }

  #find(service: number, ip: number, port: number): number {
    const t = this.#services;
    return this.#lookUp(t.protocol[service]!, t.vip[service]!, t.port[service]!, ip, port);
  }

  /** The listed server of a service, or NO_DEST. */
  find(service: number, ip: number, port: number): number {
    const d = this.#find(service, ip, port);
    return d !== NO_DEST && this.isAvailable(d) ? d : NO_DEST;
  }

  /** Is the server in the service's trash, so that adding it brings it back? */
  isTrashed(service: number, ip: number, port: number): boolean {
    const d = this.#find(service, ip, port);
    return d !== NO_DEST && !this.isAvailable(d);
  }

  /**
   * Put a server at the head of its service's list: a new row, or the old one out of the trash. Weight, method, thresholds come with `update`.
   * @returns NO_DEST when all rows are in use
   */
  add(service: number, ip: number, port: number): number {
    const t = this.#services;
    let d = this.#find(service, ip, port);
    if (d === NO_DEST) {
      d = this.#allocate();
      if (d === NO_DEST) return NO_DEST;
      this.ip[d] = ip;
      this.port[d] = port;
      this.service[d] = service;
      this.#vip[d] = t.vip[service]!;
      this.#vport[d] = t.port[service]!;
      this.#protocol[d] = t.protocol[service]!;
      this.#hashIn(d);
    } else {
      this.#leaveTrash(d);
      // The service was deleted and added anew: counters start again, connections stay (__ip_vs_update_dest).
      if (this.#serial[d] !== t.serial[service]) this.counters.zero(d, false);
      this.service[d] = service;
    }
    this.#serial[d] = t.serial[service]!;
    this.lastWeight[d] = 0;
    this.flags[d]! |= AVAILABLE;
    const head = t.first[service]!;
    this.next[d] = head;
    this.previous[d] = NO_DEST;
    if (head !== NO_DEST) this.previous[head] = d;
    t.first[service] = d;
    t.destinations[service]!++;
    this.#count++;
    return d;
  }

  /** New settings; other thresholds may begin or end an overload. */
  update(d: number, method: number, weight: number, upper: number, lower: number): void {
    const isOther = upper !== this.upper[d] || lower !== this.lower[d];
    this.method[d] = method;
    this.weight[d] = weight;
    if (weight > 0) this.lastWeight[d] = weight;
    this.upper[d] = upper;
    this.lower[d] = lower;
    if (isOther) this.#checkOverload(d);
  }

  setTunnel(d: number, type: number, port: number, flags: number): void {
    this.tunnelType[d] = type;
    this.tunnelPort[d] = port;
    this.tunnelFlags[d] = flags;
  }

  /** Off the list and into the trash. */
  remove(d: number, now: number): void {
    const t = this.#services;
    const service = this.service[d]!;
    const next = this.next[d]!;
    const previous = this.previous[d]!;
    if (previous === NO_DEST) t.first[service] = next;
    else this.next[previous] = next;
    if (next !== NO_DEST) this.previous[next] = previous;
    t.destinations[service]!--;
    this.#count--;
    this.flags[d]! &= ~AVAILABLE;
    this.#toTrash(d, now);
  }

  /** A row that is in the trash from the start: in an earlier life of the daemon its connections outlived their server's place in the service. */
  addTrashed(service: VirtualService, ip: number, port: number, now: number): number {
    const d = this.#allocate();
    if (d === NO_DEST) return NO_DEST;
    this.ip[d] = ip;
    this.port[d] = port;
    this.#vip[d] = service.vip;
    this.#vport[d] = service.vport;
    this.#protocol[d] = service.protocol;
    this.#hashIn(d);
    this.#toTrash(d, now);
    return d;
  }

  #toTrash(d: number, now: number): void {
    if (this.#trash === 0) this.#sweepAt = (now + TRASH_SWEEP) | 0;
    this.#isIdle[d] = 0;
    this.#trashNext[d] = this.#trash;
    this.#trashPrevious[d] = 0;
    if (this.#trash !== 0) this.#trashPrevious[this.#trash - 1] = d + 1;
    this.#trash = d + 1;
  }

  /** Connections that refer to it, templates too. */
  references(d: number): number {
    return this.active[d]! + this.inactive[d]! + this.persistent[d]!;
  }

  /** Rows that nobody uses. */
  get room(): number {
    return this.capacity - this.highWater + this.#freed;
  }

  /** Rows in the trash, for tests and listings. */
  get trashed(): number {
    let n = 0;
    for (let d = this.#trash; d !== 0; d = this.#trashNext[d - 1]!) n++;
    return n;
  }

  /** Sweep the trash when its minute is over: some rows a breath, each as of the minute's end. */
  advance(now: number): void {
    if (this.isTrashHeld) return;
    for (let left = SWEEP_STEP; this.#trash !== 0 && left > 0; left--) {
      if (this.#sweepLink === 0) {
        if (((now - this.#sweepAt) | 0) < 0) return;
        this.#sweptAt = this.#sweepAt;
        this.#sweepAt = (this.#sweepAt + TRASH_SWEEP) | 0;
        this.#sweepLink = this.#trash;
      }
      const d = this.#sweepLink - 1;
      this.#sweepLink = this.#trashNext[d]!;
      this.#sweep(d, this.#sweptAt);
    }
  }

  #sweep(d: number, at: number): void {
    if (this.references(d) > 0 || this.held[d]! > 0) {
      this.#isIdle[d] = 0;
    } else if (this.#isIdle[d] === 0) {
      this.#isIdle[d] = 1;
      this.#idleSince[d] = at;
    } else if (((at - this.#idleSince[d]!) | 0) >= TRASH_KEEP) {
      this.#leaveTrash(d);
      this.#hashOut(d);
      this.flags[d] = 0;
      this.#chain[d] = this.#free;
      this.#free = d + 1;
      this.#freed++;
    }
  }

  /** Become a copy, with room for no more rows. Counters are not copied: no packet's way depends on them. */
  copyFrom(live: DestTable): void {
    const rows = live.highWater;
    // The row of `unbound` stands behind all others: its constructor has made it.
    const all = live.capacity + 1;
    copyState<DestTable>(this, live, rows, all, ['capacity', 'unbound']);
    copyRows(this.#serial, live.#serial, rows, all);
    copyRows(this.#vip, live.#vip, rows, all);
    copyRows(this.#vport, live.#vport, rows, all);
    copyRows(this.#protocol, live.#protocol, rows, all);
    copyRows(this.#chain, live.#chain, rows, all);
    // A packet only looks into them: rows come and go by commands, and with time.
    this.#buckets = live.#buckets;
    this.#mask = live.#mask;
    copyRows(this.#serverChain, live.#serverChain, rows, all);
    this.#serverBuckets = live.#serverBuckets;
    copyRows(this.#idleSince, live.#idleSince, rows, all);
    copyRows(this.#isIdle, live.#isIdle, rows, all);
    copyRows(this.#trashNext, live.#trashNext, rows, all);
    copyRows(this.#trashPrevious, live.#trashPrevious, rows, all);
    this.#seed = live.#seed;
    this.#trash = live.#trash;
    this.#sweepAt = live.#sweepAt;
    this.#sweepLink = live.#sweepLink;
    this.#sweptAt = live.#sweptAt;
    this.#free = live.#free;
    this.#freed = live.#freed;
    this.#fresh[0] = live.highWater;
    this.#count = live.#count;
  }

  #allocate(): number {
    let d: number;
    if (this.#free !== 0) {
      d = this.#free - 1;
      this.#free = this.#chain[d]!;
      this.#freed--;
    } else {
      d = this.#fresh[0]!;
      if (d === this.capacity) return NO_DEST;
      this.#fresh[0] = d + 1;
    }
    this.flags[d] = USED;
    this.weight[d] = 0;
    this.upper[d] = 0;
    this.lower[d] = 0;
    this.active[d] = 0;
    this.inactive[d] = 0;
    this.persistent[d] = 0;
    this.held[d] = 0;
    this.route.fill(-1, d << ROUTE_SHIFT, (d + 1) << ROUTE_SHIFT);
    this.counters.clear(d);
    return d;
  }

  #bucketOf(d: number): number {
    return (
      hash4(this.#seed, this.ip[d]!, this.#vip[d]!, (this.port[d]! << 16) | this.#vport[d]!, this.#protocol[d]!) &
      this.#mask
    );
  }

  #hashIn(d: number): void {
    const bucket = this.#bucketOf(d);
    this.#chain[d] = this.#buckets[bucket]!;
    this.#buckets[bucket] = d + 1;
    const home = hash4(this.#seed, this.ip[d]!, this.port[d]!, 0, 0) & this.#mask;
    this.#serverChain[d] = this.#serverBuckets[home]!;
    this.#serverBuckets[home] = d + 1;
  }

  #hashOut(d: number): void {
    unchain(this.#buckets, this.#chain, this.#bucketOf(d), d);
    unchain(
      this.#serverBuckets,
      this.#serverChain,
      hash4(this.#seed, this.ip[d]!, this.port[d]!, 0, 0) & this.#mask,
      d,
    );
  }

  #leaveTrash(d: number): void {
    const next = this.#trashNext[d]!;
    const previous = this.#trashPrevious[d]!;
    if (previous === 0) this.#trash = next;
    else this.#trashNext[previous - 1] = next;
    if (next !== 0) this.#trashPrevious[next - 1] = previous;
    if (this.#sweepLink === d + 1) this.#sweepLink = next;
  }
  // hot again
}

// cold: commands
/** Take row `d` out of its bucket's chain. */
function unchain(buckets: Int32Array, chain: Int32Array, bucket: number, d: number): void {
  if (buckets[bucket] === d + 1) {
    buckets[bucket] = chain[d]!;
    return;
  }
  let link = buckets[bucket]! - 1;
  while (chain[link] !== d + 1) link = chain[link]! - 1;
  chain[link] = chain[d]!;
}
