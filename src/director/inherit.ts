/**
 * What an earlier life of the daemon has left of a director (base/keep.ts) becomes this one's, which is still empty: services, servers with those in the trash,
 * connections, counters. Every row is looked at before it is believed: the process may have ended in the middle of any of them.
 *
 * Rows get new places. Nothing else is remembered of a scheduler than its name: it starts from the beginning of its list.
 */
import type { Kept } from '../base/keep.ts';
import { IpProto } from '../wire/ipv4.ts';
import { COLD_SHIFT, COUNTER_SHIFT, type Counters } from './accounting.ts';
import type { Control } from './app/ftp.ts';
import { bindScheduler } from './commands.ts';
import { CONN_SHIFT, Conn, ConnFlag, LOCAL_SHIFT, Method, NO_CONN } from './connection.ts';
import { DestFlag, NO_DEST } from './destinations.ts';
import type { Director } from './director.ts';
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

export interface DirectorInheritance {
  readonly services: number;
  readonly connections: number;
  /** Rows that did not hold. */
  readonly dropped: number;
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

/** Sysctls are the caller's, and come first. */
export function inheritDirector(
  director: Director,
  kept: Kept,
  settings: DirectorSettings,
  rest: DirectorRest,
): DirectorInheritance {
  const { locals } = director;
  inheritTimeouts(director, settings);
  const services = inheritServices(director, kept);
  const pooled = settings.locals.map((a) => ({ ...a, service: (services[a.service] ?? 0) - 1 }));
  locals.inherit(pooled);
  const servers = inheritServers(director, kept, services);
  readCounters(kept, 'total')(director.total, 0, 0);
  const { places, dropped } = inheritConnections(director, kept, servers);
  locals.forgetUnused();
  inheritRest(director, rest, places);
  return { services: director.services.count, connections: director.conns.count, dropped };
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
  const protocol = kept.uint8('services.protocol');
  const vip = kept.int32('services.vip');
  const port = kept.uint16('services.port');
  const flags = kept.uint8('services.flags');
  const schedulerFlags = kept.uint8('services.schedulerFlags');
  const schedulers = kept.uint8('services.schedulerNumbers');
  const engines = kept.uint8('services.engineNumbers');
  const timeout = kept.int32('services.timeout');
  const netmask = kept.int32('services.netmask');
  const counters = readCounters(kept, 'services');
  const places = new Int32Array(topOf(kept, 'services', flags.length));
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
  const ip = kept.int32('servers.ip');
  const port = kept.uint16('servers.port');
  const service = kept.int32('servers.service');
  const flags = kept.uint8('servers.flags');
  const method = kept.uint8('servers.method');
  const weight = kept.int32('servers.weight');
  const lastWeight = kept.int32('servers.lastWeight');
  const upper = kept.uint32('servers.upper');
  const lower = kept.uint32('servers.lower');
  const tunnelType = kept.uint8('servers.tunnelType');
  const tunnelPort = kept.uint16('servers.tunnelPort');
  const tunnelFlags = kept.uint8('servers.tunnelFlags');
  const vip = kept.int32('servers.vip');
  const vport = kept.uint16('servers.vport');
  const protocol = kept.uint8('servers.protocol');
  const counters = readCounters(kept, 'servers');
  const places = new Int32Array(flags.length);
  const settle = (old: number, d: number): void => {
    if (d === NO_DEST) return;
    dests.update(d, method[old]!, weight[old]!, upper[old]!, lower[old]!);
    dests.lastWeight[d] = lastWeight[old]!;
    dests.setTunnel(d, tunnelType[old]!, tunnelPort[old]!, tunnelFlags[old]!);
    counters(dests.counters, d, old);
    places[old] = d + 1;
  };
  const top = topOf(kept, 'servers', flags.length);
  for (let old = 0; old < services.length; old++) {
    const s = services[old]! - 1;
    if (s === NO_SERVICE) continue;
    // The list is newest first, and whoever is added comes to its head.
    for (const d of listOf(kept, old, top).reverse()) {
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
  places[flags.length - 1] = dests.unbound + 1;
  return places;
}

/** Servers on the list of a service, as far as it can be followed. */
function listOf(kept: Kept, service: number, top: number): number[] {
  const next = kept.int32('servers.next');
  const list = new Set<number>();
  for (let d = kept.int32('services.first')[service]!; d >= 0 && d < top && !list.has(d); d = next[d]!) list.add(d);
  return [...list];
}

const LAST_METHOD = Math.max(...Object.values(Method));
/** Who has a local address. */
const LOCAL_BITS = ConnFlag.MethodMask | ConnFlag.Template;
const PROTOCOLS: ReadonlySet<number> = new Set([IpProto.Tcp, IpProto.Udp, IpProto.Sctp]);

function inheritConnections(director: Director, kept: Kept, servers: Places): { places: Places; dropped: number } {
  const { conns, dests, locals, now } = director;
  const rows = kept.int32('connections.rows');
  const local = kept.int32('connections.local');
  const control = kept.int32('connections.control');
  const tables = { rows, local, control };
  const places = new Int32Array(topOf(kept, 'connections', control.length));
  let dropped = 0;
  for (let old = 0; old < places.length; old++) {
    const from = old << CONN_SHIFT;
    const flags = rows[from + Conn.Flags]!;
    if ((flags & ConnFlag.Used) === 0) continue;
    const dest = (servers[rows[from + Conn.Dest]!] ?? 0) - 1;
    const proto = (rows[from + Conn.Meta]! >> 8) & 0xff;
    const isLocal = (flags & LOCAL_BITS) === Method.FullNat;
    const address = local[(old << LOCAL_SHIFT) + 1]! >>> 16;
    const holds =
      dest !== NO_DEST &&
      PROTOCOLS.has(proto) &&
      (flags & ConnFlag.MethodMask) <= LAST_METHOD &&
      rows[from + Conn.Timeout]! > 0 &&
      (!isLocal || locals.isKnown(address));
    const id = holds ? conns.inherit(tables, old, dest, now) : NO_CONN;
    if (id === NO_CONN) {
      dropped++;
      continue;
    }
    places[old] = id + 1;
    if (isLocal) locals.bind(address);
    dests.bind(dest, (flags & ConnFlag.Template) !== 0, (flags & ConnFlag.Inactive) !== 0);
  }
  for (let old = 0; old < places.length; old++) {
    const by = (places[control[old]! - 1] ?? 0) - 1;
    if (places[old] !== 0 && by !== NO_CONN) conns.setControl(by, places[old]! - 1);
  }
  return { places, dropped };
}

function inheritRest(director: Director, rest: DirectorRest, places: Places): void {
  const { conns, ftp, engines } = director;
  const placeOf = (old: number): number => (places[old] ?? 0) - 1;
  for (const [old, known] of rest.ftp) if (placeOf(old) !== NO_CONN) ftp.inherit(placeOf(old), known);
  for (const [old, mark] of rest.marks) if (placeOf(old) !== NO_CONN) conns.marks.set(placeOf(old), mark);
  const known = new Map(rest.engines);
  for (let old = 0; old < places.length; old++) {
    const conn = placeOf(old);
    const at = conn << CONN_SHIFT;
    if (conn === NO_CONN || (conns.rows[at + Conn.Flags]! & ConnFlag.HasPe) === 0) continue;
    const told = known.get(old);
    const engine = told === undefined ? null : engineOf(told[0]);
    // Nobody could find it any more.
    if (told === undefined || engine === null) director.expire(conn);
    else {
      const proto = (conns.rows[at + Conn.Meta]! >> 8) & 0xff;
      const vport = conns.rows[at + Conn.Ports]! & 0xffff;
      engines.add(conn, engine, proto, conns.rows[at + Conn.Cip]!, conns.rows[at + Conn.Vip]!, vport, told[1]);
    }
  }
}

/** How many rows of a table were ever in use. */
function topOf(kept: Kept, table: string, capacity: number): number {
  const top = kept.int32(`${table}.fresh`)[0] ?? 0;
  return top > 0 && top <= capacity ? top : 0;
}

/** Copies counters of a row of then to a row of now. */
function readCounters(kept: Kept, table: string): (counters: Counters, row: number, old: number) => void {
  const live = kept.float64(`${table}.live`);
  const cold = kept.float64(`${table}.cold`);
  return (counters, row, old) => {
    for (let i = 0; i < 1 << COUNTER_SHIFT; i++)
      counters.live[(row << COUNTER_SHIFT) + i] = live[(old << COUNTER_SHIFT) + i] ?? 0;
    for (let i = 0; i < 1 << COLD_SHIFT; i++)
      counters.cold[(row << COLD_SHIFT) + i] = cold[(old << COLD_SHIFT) + i] ?? 0;
  };
}
