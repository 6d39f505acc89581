/**
 * What an earlier life of the daemon has left of a director (base/keep.ts) becomes this one's, which is still empty: services, servers with those in the trash,
 * connections, counters. Every row is looked at before it is believed: the process may have ended in the middle of any of them.
 *
 * Rows get new places. Nothing else is remembered of a scheduler than its name: it starts from the beginning of its list.
 */
import type { Kept } from '../base/keep.ts';
import { FlowColumn } from '../flow/flow-table.ts';
import type { Heir, Inheritance } from '../flow/inheritance.ts';
import { IpProto } from '../wire/ipv4.ts';
import { COLD_SHIFT, COUNTER_SHIFT, type Counters } from './accounting.ts';
import type { Control } from './app/ftp.ts';
import { bindScheduler } from './commands.ts';
import { CONN_SHIFT, Conn, ConnFlag, LOCAL_SHIFT, Method, NO_CONN, TEMPLATE_KIND } from './connection.ts';
import type { KeptConnections } from './connections.ts';
import { DestFlag, NO_DEST } from './destinations.ts';
import type { Director } from './director.ts';
import { reply, replyOf } from './flow-rows.ts';
import type { KeptLocalAddress } from './local-addresses.ts';
import { type EngineDatum, engineOf } from './persistence-engine.ts';
import { schedulerOf } from './sched/index.ts';
import { NO_SERVICE, ServiceFlag } from './services.ts';

/** What stands in no column, as the text that is kept beside them. Numbers of connections are those of the life that wrote it. */
export interface DirectorRest {
  readonly ftp: readonly (readonly [conn: number, known: Control])[];
  readonly engines: readonly (readonly [template: number, what: EngineDatum])[];
  readonly marks: readonly (readonly [conn: number, mark: number])[];
}

/** Settings of the director that are no sysctls. */
export interface DirectorSettings {
  readonly flowSeed: number;
  /** Ticks by state. */
  readonly tcp: readonly number[];
  readonly udp: readonly number[];
  readonly sctp: readonly number[];
  /** Rows of services are those of the life that wrote it. */
  readonly locals: readonly KeptLocalAddress[];
}

/** Of a connection: where it comes from, and where answers do. */
export const CONNECTION_TUPLES = 2;

/** How many rows were ever in use. */
export function connectionsLeft(kept: Kept): number {
  return kept.rowsOf('connections', kept.bytesOf('connections.control') >> 2);
}

/** Changes when anything does that `restOf` tells. */
export function restChanges({ ftp, engines }: Director): number {
  return ftp.changes + engines.changes;
}

export function restOf({ ftp, engines, conns }: Director): DirectorRest {
  return { ftp: ftp.list(), engines: engines.list(), marks: [...conns.marks] };
}

export function settingsOf({ flowSeed, tcpTimeouts, udpTimeouts, sctpTimeouts, locals }: Director): DirectorSettings {
  const timeouts = { tcp: [...tcpTimeouts], udp: [...udpTimeouts], sctp: [...sctpTimeouts] };
  return { flowSeed, ...timeouts, locals: locals.listAll() };
}

/** All but connections, which are the heir's that is answered. Sysctls are the caller's, and come first. */
export function inheritDirector(
  director: Director,
  kept: Kept,
  settings: DirectorSettings,
  inheritance: Inheritance,
): ConnectionHeir {
  inheritTimeouts(director, settings);
  const services = inheritServices(director, kept);
  const pooled = settings.locals.map((a) => ({ ...a, service: (services[a.service] ?? 0) - 1 }));
  director.locals.inherit(pooled);
  const servers = inheritServers(director, kept, services);
  readCounters(kept, 'total', 1)(director.total, 0, 0);
  return new ConnectionHeir(director, kept, servers, inheritance);
}

function inheritTimeouts(director: Director, settings: DirectorSettings): void {
  director.flowSeed = settings.flowSeed;
  for (const [own, kept] of [
    [director.tcpTimeouts, settings.tcp],
    [director.udpTimeouts, settings.udp],
    [director.sctpTimeouts, settings.sctp],
  ] as const) {
    if (kept.length === own.length) own.set(kept);
  }
}

const LISTED = DestFlag.Used | DestFlag.Available;

/** Row of now + 1 by row of then; 0: it was not taken over. */
type Places = Int32Array;

function inheritServices(director: Director, kept: Kept): Places {
  const { services } = director;
  const top = kept.rowsOf('services', kept.bytesOf('services.flags'));
  const protocol = kept.uint8('services.protocol', top);
  const vip = kept.int32('services.vip', top);
  const port = kept.uint16('services.port', top);
  const flags = kept.uint8('services.flags', top);
  const schedulerFlags = kept.uint8('services.schedulerFlags', top);
  const schedulers = kept.uint8('services.schedulerNumbers', top);
  const engines = kept.uint8('services.engineNumbers', top);
  const timeout = kept.int32('services.timeout', top);
  const netmask = kept.int32('services.netmask', top);
  const counters = readCounters(kept, 'services', top);
  const places = new Int32Array(top);
  for (let old = 0; old < places.length; old++) {
    const scheduler = schedulerOf(schedulers[old]!);
    if ((flags[old]! & ServiceFlag.Used) === 0 || scheduler === undefined) continue;
    if (services.find(protocol[old]!, vip[old]!, port[old]!) !== NO_SERVICE) continue;
    const s = services.add(protocol[old]!, vip[old]!, port[old]!);
    if (s === NO_SERVICE) continue;
    services.flags[s] = flags[old]!;
    services.schedulerFlags[s] = schedulerFlags[old]!;
    services.timeout[s] = timeout[old]!;
    services.netmask[s] = netmask[old]!;
    services.setEngine(s, engineOf(engines[old]!));
    bindScheduler(director, s, scheduler);
    counters(services.counters, s, old);
    places[old] = s + 1;
  }
  return places;
}

function inheritServers(director: Director, kept: Kept, services: Places): Places {
  const { dests, now } = director;
  const capacity = kept.bytesOf('servers.flags');
  const top = kept.rowsOf('servers', capacity);
  const ip = kept.int32('servers.ip', top);
  const port = kept.uint16('servers.port', top);
  const service = kept.int32('servers.service', top);
  const flags = kept.uint8('servers.flags', top);
  const method = kept.uint8('servers.method', top);
  const weight = kept.int32('servers.weight', top);
  const lastWeight = kept.int32('servers.lastWeight', top);
  const upper = kept.uint32('servers.upper', top);
  const lower = kept.uint32('servers.lower', top);
  const tunnelType = kept.uint8('servers.tunnelType', top);
  const tunnelPort = kept.uint16('servers.tunnelPort', top);
  const tunnelFlags = kept.uint8('servers.tunnelFlags', top);
  const vip = kept.int32('servers.vip', top);
  const vport = kept.uint16('servers.vport', top);
  const protocol = kept.uint8('servers.protocol', top);
  const next = kept.int32('servers.next', top);
  const first = kept.int32('services.first', services.length);
  const counters = readCounters(kept, 'servers', top);
  const places = new Int32Array(capacity);
  const settle = (old: number, d: number): void => {
    if (d === NO_DEST) return;
    dests.update(d, method[old]!, weight[old]!, upper[old]!, lower[old]!);
    dests.lastWeight[d] = lastWeight[old]!;
    dests.setTunnel(d, tunnelType[old]!, tunnelPort[old]!, tunnelFlags[old]!);
    counters(dests.counters, d, old);
    places[old] = d + 1;
  };
  for (let old = 0; old < services.length; old++) {
    const s = services[old]! - 1;
    if (s === NO_SERVICE) continue;
    // The list is newest first, and whoever is added comes to its head.
    for (const d of listOf(first[old]!, next).reverse()) {
      if ((flags[d]! & LISTED) !== LISTED || service[d] !== old) continue;
      if (dests.find(s, ip[d]!, port[d]!) !== NO_DEST) continue;
      settle(d, dests.add(s, ip[d]!, port[d]!));
      if (places[d] !== 0) director.services.schedulers[s]!.added?.(places[d]! - 1);
    }
  }
  for (let old = 0; old < top; old++) {
    if ((flags[old]! & DestFlag.Used) === 0 || places[old] !== 0) continue;
    const of = { protocol: protocol[old]!, vip: vip[old]!, vport: vport[old]! };
    settle(old, dests.addTrashed(of, ip[old]!, port[old]!, now));
  }
  // Connections that are bound to none have the row behind all others.
  places[capacity - 1] = dests.unbound + 1;
  return places;
}

/** Servers on a list that begins with `first`, as far as it can be followed. */
function listOf(first: number, next: Int32Array): number[] {
  const list = new Set<number>();
  for (let d = first; d >= 0 && d < next.length && !list.has(d); d = next[d]!) list.add(d);
  return [...list];
}

const CONNECTION = FlowColumn.Connection;
const LAST_METHOD = Math.max(...Object.values(Method));
/** Who has a local address. */
const LOCAL_BITS = ConnFlag.MethodMask | ConnFlag.Template;
const { Tcp: TCP, Udp: UDP, Sctp: SCTP } = IpProto;
const { Flags: FLAGS, Meta: META, Timeout: TIMEOUT, Cip: CIP, Vip: VIP, Ports: PORTS } = Conn;
const { Used: USED, Template: TEMPLATE, Inactive: INACTIVE, MethodMask: METHOD_MASK } = ConnFlag;

/** Found without their tuples, or only while somebody knows that there are any. */
const SPECIAL = ConnFlag.HasPe | ConnFlag.NoCport | ConnFlag.App;

/** Connections of then: known by their tuples at once, taken over one by one. */
export class ConnectionHeir implements Heir {
  /** How many were taken over, and how many could not be. */
  count = 0;
  dropped = 0;
  readonly #director: Director;
  readonly #tables: KeptConnections;
  readonly #servers: Places;
  readonly #places: Places;
  /** Those of FTP, of persistence engines, and whom another connection than a template controls. */
  readonly #related: number[] = [];
  readonly #inheritance: Inheritance;

  constructor(director: Director, kept: Kept, servers: Places, inheritance: Inheritance) {
    this.#director = director;
    this.#servers = servers;
    this.#inheritance = inheritance;
    const top = connectionsLeft(kept);
    this.#tables = {
      rows: kept.int32('connections.rows', top << CONN_SHIFT),
      local: kept.int32('connections.local', top << LOCAL_SHIFT),
      control: kept.int32('connections.control', top),
    };
    this.#places = new Int32Array(top);
    this.#announceAll();
  }

  /** All rows that hold, by their tuples; their servers count them from now on. Packets wait: one flat loop is compiled soonest. */
  #announceAll(): void {
    const { locals } = this.#director;
    const { rows, local, control } = this.#tables;
    const inheritance = this.#inheritance;
    for (let old = 0; old < this.#places.length; old++) {
      const at = old << CONN_SHIFT;
      const flags = rows[at + FLAGS]!;
      if ((flags & USED) === 0) continue;
      const dest = this.#destOf(old);
      const proto = (rows[at + META]! >> 8) & 0xff;
      const isLocal = (flags & LOCAL_BITS) === Method.FullNat;
      const holds =
        dest !== NO_DEST &&
        (proto === TCP || proto === UDP || proto === SCTP) &&
        (flags & METHOD_MASK) <= LAST_METHOD &&
        rows[at + TIMEOUT]! > 0 &&
        (!isLocal || locals.isKnown(this.#localOf(old)));
      if (!holds) {
        this.dropped++;
        continue;
      }
      this.#director.dests.bind(dest, (flags & TEMPLATE) !== 0, (flags & INACTIVE) !== 0);
      if (isLocal) locals.bind(this.#localOf(old));
      const kind = (flags & TEMPLATE) !== 0 ? proto | TEMPLATE_KIND : proto;
      inheritance.add(CONNECTION, old, rows[at + CIP]!, rows[at + VIP]!, rows[at + PORTS]!, kind);
      if ((flags & TEMPLATE) === 0) {
        replyOf(rows, local, old);
        inheritance.add(CONNECTION, old, reply.src, reply.dst, reply.ports, proto);
      }
      if ((flags & SPECIAL) !== 0 || !this.#isTemplate(control[old]! - 1)) this.#related.push(old);
    }
    locals.forgetUnused();
  }

  #destOf(old: number): number {
    return (this.#servers[this.#tables.rows[(old << CONN_SHIFT) + Conn.Dest]!] ?? 0) - 1;
  }

  #localOf(old: number): number {
    return this.#tables.local[(old << LOCAL_SHIFT) + 1]! >>> 16;
  }

  /** Is it one, or nobody? */
  #isTemplate(old: number): boolean {
    return old === NO_CONN || (this.#tables.rows[(old << CONN_SHIFT) + FLAGS]! & TEMPLATE) !== 0;
  }

  /** It could not be taken over. */
  #drop(old: number): void {
    this.dropped++;
    const flags = this.#tables.rows[(old << CONN_SHIFT) + FLAGS]!;
    const { dests, locals } = this.#director;
    dests.unbind(this.#destOf(old), (flags & TEMPLATE) !== 0, (flags & INACTIVE) !== 0);
    if ((flags & LOCAL_BITS) === Method.FullNat) locals.release(this.#localOf(old));
  }

  inherit(old: number): void {
    const { conns, now } = this.#director;
    const conn = conns.inherit(this.#tables, old, this.#destOf(old), now);
    this.#places[old] = conn + 1;
    if (conn === NO_CONN) {
      this.#drop(old);
      return;
    }
    this.count++;
    const controller = this.#tables.control[old]! - 1;
    if (controller === NO_CONN || !this.#isTemplate(controller)) return;
    this.#inheritance.takeRow(CONNECTION, controller);
    // It came a while ago perhaps, and has gone.
    if (this.#isStill(controller)) conns.setControl(this.#placeOf(controller), conn);
  }

  #placeOf(old: number): number {
    return (this.#places[old] ?? 0) - 1;
  }

  #isStill(old: number): boolean {
    const { conns } = this.#director;
    const { rows } = this.#tables;
    const conn = this.#placeOf(old);
    if (conn === NO_CONN || !conns.isUsed(conn)) return false;
    const from = old << CONN_SHIFT;
    const at = conn << CONN_SHIFT;
    for (const column of [Conn.Cip, Conn.Vip, Conn.Ports] as const)
      if (conns.rows[at + column] !== rows[from + column]) return false;
    return (conns.rows[at + Conn.Flags]! & ConnFlag.Template) !== 0;
  }

  /** Those that are not found by their tuples alone, with what stands in no column. */
  takeRelated(rest: DirectorRest): void {
    const { conns, ftp } = this.#director;
    const take = (old: number): number => {
      this.#inheritance.takeRow(CONNECTION, old);
      return this.#placeOf(old);
    };
    for (const old of this.#related) take(old);
    for (const old of this.#related) {
      const controller = this.#tables.control[old]! - 1;
      if (this.#isTemplate(controller) || this.#placeOf(old) === NO_CONN) continue;
      const by = take(controller);
      if (by !== NO_CONN) conns.setControl(by, this.#placeOf(old));
    }
    for (const [old, known] of rest.ftp) if (take(old) !== NO_CONN) ftp.inherit(take(old), known);
    for (const [old, mark] of rest.marks) if (take(old) !== NO_CONN) conns.marks.set(take(old), mark);
    this.#takeEngines(new Map(rest.engines));
  }

  #takeEngines(known: ReadonlyMap<number, EngineDatum>): void {
    const { conns, engines } = this.#director;
    const { rows } = conns;
    for (const old of this.#related) {
      const conn = this.#placeOf(old);
      const at = conn << CONN_SHIFT;
      if (conn === NO_CONN || (rows[at + Conn.Flags]! & ConnFlag.HasPe) === 0) continue;
      const told = known.get(old);
      const engine = told === undefined ? null : engineOf(told[0]);
      // Nobody could find it any more.
      if (told === undefined || engine === null) this.#director.expire(conn);
      else {
        const proto = (rows[at + Conn.Meta]! >> 8) & 0xff;
        const vport = rows[at + Conn.Ports]! & 0xffff;
        engines.add(conn, engine, proto, rows[at + Conn.Cip]!, rows[at + Conn.Vip]!, vport, told[1]);
      }
    }
  }
}

/** Copies counters of a row of then, one of the first `rows`, to a row of now. */
function readCounters(kept: Kept, table: string, rows: number): (counters: Counters, row: number, old: number) => void {
  const live = kept.float64(`${table}.live`, rows << COUNTER_SHIFT);
  const cold = kept.float64(`${table}.cold`, rows << COLD_SHIFT);
  return (counters, row, old) => {
    for (let i = 0; i < 1 << COUNTER_SHIFT; i++)
      counters.live[(row << COUNTER_SHIFT) + i] = live[(old << COUNTER_SHIFT) + i] ?? 0;
    for (let i = 0; i < 1 << COLD_SHIFT; i++)
      counters.cold[(row << COLD_SHIFT) + i] = cold[(old << COLD_SHIFT) + i] ?? 0;
  };
}
