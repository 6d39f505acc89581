/**
 * Writes down the way of packets while they pass: `tapvs explain` lets it look at the packet that it runs through a copied engine, `tapvs trace` at live ones.
 *
 *   receive ─► way opens ─► hook functions (HookObserver), director's notes (Notes), ends of hooks (tap) ─► transmit or drop: it ends
 *
 * What is born meanwhile (an ICMP error, a reset, an ARP request) gets a way of its own; all ways of one received packet are given out together, when the next
 * one comes or `finish` is called. Nothing is changed, and while nobody is looking the pipeline runs without it.
 */

import { TICKS_PER_SECOND } from '../base/clock.ts';
import { Medium } from '../device/device.ts';
import { CONN_SHIFT, Conn, ConnFlag, Dir, Method } from '../director/connection.ts';
import type { Director } from '../director/director.ts';
import { localOf, stateName } from '../director/listing.ts';
import { Ended, type Notes, TemplateUse } from '../director/notes.ts';
import { serverName } from '../director/sched/explain.ts';
import { FTP, ServiceFlag } from '../director/services.ts';
import type { Filter } from '../filter/filter.ts';
import { HOOK_NAMES, Hook, type HookObserver, type HookOp, Verdict } from '../hooks/hooks.ts';
import { RouteKind } from '../ip/routes.ts';
import type { IpStack } from '../ip/stack.ts';
import { LOOPBACK_ID } from '../link/interface.ts';
import { TapPoint } from '../link/link.ts';
import { NEIGHBOUR_STATES, Nud } from '../link/neighbours.ts';
import type {
  ServiceMatch,
  Way,
  WayChange,
  WayChoice,
  WayConnection,
  WayEnd,
  WayEnded,
  WayFunction,
  WayHop,
  WayService,
  WayStep,
  WayTemplate,
} from '../model/way.ts';
import { Drop, dropName } from '../packet/drop.ts';
import { NONE, type Packet } from '../packet/packet.ts';
import { formatIp4, formatMac, formatPrefix, type Ip4, prefixLength } from '../wire/addr.ts';
import * as ethernet from '../wire/ethernet.ts';
import { headerChanges, packetLine } from '../wire/header-fields.ts';
import * as ipv4 from '../wire/ipv4.ts';
import { dropWhy } from './drop-why.ts';

/** Bytes of a packet that are kept: all its headers, quoted and tunnelled ones too. */
const KEPT = 256;
/** Ways of one received packet, at most; a fragment storm ends there. */
const MAX_WAYS = 16;

const VERDICT_NAMES: readonly string[] = Object.keys(Verdict).map((name) => name.toUpperCase());
const METHODS: Readonly<Record<number, string>> = {
  [Method.Masq]: 'masq',
  [Method.Local]: 'local',
  [Method.Tunnel]: 'tunnel',
  [Method.Route]: 'route',
  [Method.Bypass]: 'bypass',
  [Method.FullNat]: 'fullnat',
};
const ROUTE_TYPES: Readonly<Record<number, string>> = {
  [RouteKind.Unicast]: 'unicast',
  [RouteKind.Local]: 'local',
  [RouteKind.Broadcast]: 'broadcast',
  [RouteKind.Blackhole]: 'blackhole',
  [RouteKind.Unreachable]: 'unreachable',
  [RouteKind.Prohibit]: 'prohibit',
};
const PROTOCOLS: Readonly<Record<number, string>> = { 0: 'IP', 6: 'TCP', 17: 'UDP', 132: 'SCTP' };

const OWNER = 'director/';
const REQUEST = 'director/request';
const REPLY = 'director/reply';

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

export interface RecorderOptions {
  /** Is this received packet's way to be written down? */
  readonly wants: (p: Packet) => boolean;
  readonly done: (ways: readonly Way[]) => void;
  /** Candidates of a scheduler are listed for services of at most so many servers. */
  readonly maxCandidates: number;
}

/** What is recorded of. */
export interface Recorded {
  readonly stack: IpStack;
  readonly director: Director;
  readonly filter: Filter;
}

interface Open {
  readonly packet: Packet;
  readonly origin: Way['origin'];
  readonly device: string | undefined;
  readonly line: string;
  readonly mark: number;
  /** As it came: nothing for a packet that was born here. */
  readonly before: Uint8Array | null;
  readonly isIp: boolean;
  readonly steps: WayStep[];
  /** Of the hook that it is in. */
  functions: WayFunction[];
  pieces: number;
  end: WayEnd | null;
  sent: string | undefined;
  changes: readonly WayChange[];
}

/** The function that runs, with what the director noted of it. */
interface Running {
  readonly packet: Packet;
  readonly way: Open;
  readonly function: Mutable<WayFunction>;
  /** Its connection, and what it was before. */
  conn: number;
  isNew: boolean;
  dir: number;
  state: string;
}

export class WayRecorder implements HookObserver, Notes {
  readonly #stack: IpStack;
  readonly #director: Director;
  readonly #filter: Filter;
  readonly #options: RecorderOptions;
  /** Ways of the received packet that is under way, itself first; empty: of none that is wanted. */
  #ways: Open[] = [];
  #running: Running | null = null;
  readonly #tap = (p: Packet, where: number, verdict: number): void => this.#see(p, where, verdict);

  constructor({ stack, director, filter }: Recorded, options: RecorderOptions) {
    this.#stack = stack;
    this.#director = director;
    this.#filter = filter;
    this.#options = options;
  }

  start(): void {
    this.#stack.link.addTap(this.#tap);
    this.#stack.hooks.observe(this);
    this.#director.notes = this;
  }

  /** What is under way is not given out any more. */
  stop(): void {
    this.#stack.link.removeTap(this.#tap);
    this.#stack.hooks.observe(null);
    this.#director.notes = null;
    this.#ways = [];
    this.#running = null;
  }

  /** The packet that came last has gone as far as it goes for now. */
  finish(): void {
    if (this.#ways.length === 0) return;
    const ways = this.#ways;
    this.#ways = [];
    this.#options.done(ways.map((way) => this.#close(way)));
  }

  // the packet's way

  #see(p: Packet, where: number, verdict: number): void {
    if (where === TapPoint.Receive) {
      this.finish();
      if (this.#options.wants(p)) this.#receive(p);
    } else if (this.#ways.length > 0) {
      if (where === TapPoint.Transmit) this.#transmit(p);
      else if (where === TapPoint.Drop) this.#drop(p, verdict);
      else this.#endHook(p, where - TapPoint.Hook, verdict);
    }
  }

  #receive(p: Packet): void {
    const ifc = this.#stack.link.interfaces[p.inDevice];
    if (!ifc?.device) return;
    const isIp = ifc.device.medium === Medium.Ip;
    this.#open(p, ifc.isHost ? 'host' : 'received', ifc.name, isIp ? p.l3 : p.l2, isIp);
  }

  #open(p: Packet, origin: Way['origin'], device: string | undefined, start: number, isIp: boolean): Open {
    const bytes = p.bytes.slice(start, Math.min(p.end, start + KEPT));
    const way: Open = {
      packet: p,
      origin,
      device,
      line: packetLine(bytes, isIp, p.end - start),
      mark: p.mark,
      before: origin === 'born' ? null : bytes,
      isIp,
      steps: [],
      functions: [],
      pieces: 0,
      end: null,
      sent: undefined,
      changes: [],
    };
    this.#ways.push(way);
    return way;
  }

  /** The way of a packet; one that is new here was born here. */
  #wayOf(p: Packet): Open | null {
    const known = this.#ways.find((way) => way.packet === p && way.end === null);
    if (known !== undefined) {
      if (known.origin === 'born' || p.inDevice !== NONE) return known;
      // The same memory turned around: an echo request became its reply.
      known.end = { kind: 'answered', reason: 'EchoAnswered', why: 'echo request answered' };
    }
    if (p.inDevice !== NONE || this.#ways.length >= MAX_WAYS) return null;
    return this.#open(p, 'born', undefined, p.l3, true);
  }

  #endHook(p: Packet, hook: number, verdict: number): void {
    const way = this.#wayOf(p);
    if (way === null) return;
    if (hook === Hook.LocalOut && p.reroutes === 0) way.steps.push(this.#routeStep(p));
    const functions = way.functions;
    way.functions = [];
    way.steps.push({ kind: 'hook', hook: HOOK_NAMES[hook]!, verdict: verdictName(verdict), functions });
    if (hook === Hook.PreRouting && verdict === Verdict.Accept) way.steps.push(this.#routeStep(p));
  }

  #routeStep(p: Packet): WayStep {
    const dst = ipv4.dst(p.view, p.l3);
    const to = formatIp4(dst);
    const route = this.#stack.routes.lookup(dst);
    if (route === null) return { kind: 'route', to, type: 'none' };
    const device = this.#stack.link.interfaces[route.device]?.name;
    const prefix = route.length === 0 ? 'default' : formatPrefix({ ip: route.prefix as Ip4, length: route.length });
    return {
      kind: 'route',
      to,
      type: ROUTE_TYPES[route.kind] ?? String(route.kind),
      prefix,
      ...(route.via === 0 ? {} : { via: formatIp4(route.via) }),
      ...(device === undefined || route.kind === RouteKind.Local ? {} : { device }),
    };
  }

  #transmit(p: Packet): void {
    const ifc = this.#stack.link.interfaces[p.outDevice];
    if (!ifc?.device) return;
    const isIp = ifc.device.medium === Medium.Ip;
    const start = isIp ? p.l3 : p.l2;
    let way = this.#ways.find((one) => one.packet === p && one.end === null) ?? null;
    if (way === null) {
      const isArp = !isIp && ethernet.etherType(p.view, p.l2) === ethernet.EtherType.Arp;
      if (!isArp) {
        // A piece of the packet that is being cut.
        const whole = this.#ways.find((one) => one.end === null && one.packet.outDevice === p.outDevice);
        if (whole !== undefined && whole.pieces++ === 0)
          this.#noteSent(whole, whole.before, p, start, whole.isIp, isIp);
        return;
      }
      if (this.#ways.length >= MAX_WAYS) return;
      way = this.#open(p, 'born', undefined, start, isIp);
    } else if (way.origin !== 'born' && p.inDevice === NONE) {
      way.end = { kind: 'answered', reason: 'ArpAnswered', why: 'ARP request answered' };
      way = this.#open(p, 'born', undefined, start, isIp);
    }
    // Of a packet that was cut the first piece tells what was changed.
    if (way.pieces === 0) this.#noteSent(way, way.before, p, start, way.isIp, isIp);
    if (ifc.isHost) {
      way.end = { kind: 'host', device: ifc.name };
      return;
    }
    const table = this.#stack.link.neighbours;
    const row = ifc.hasNeighbours && p.nexthop !== 0 ? table.find(ifc.id, p.nexthop) : NONE;
    way.end = {
      kind: 'sent',
      device: ifc.name,
      ...(p.nexthop === 0 || p.nexthop === -1 ? {} : { via: formatIp4(p.nexthop) }),
      ...(isIp ? {} : { mac: formatMac(ethernet.dstHi(p.view, p.l2), ethernet.dstLo(p.view, p.l2)) }),
      ...(row === NONE ? {} : { neighbour: NEIGHBOUR_STATES[table.state[row]!]! }),
      pieces: way.pieces + 1,
      mtu: ifc.mtu,
    };
  }

  #noteSent(way: Open, before: Uint8Array | null, p: Packet, start: number, wasIp: boolean, isIp: boolean): void {
    const bytes = p.bytes.slice(start, Math.min(p.end, start + KEPT));
    way.sent = packetLine(bytes, isIp, p.end - start);
    if (before !== null) way.changes = headerChanges(before, bytes, { before: wasIp, after: isIp });
  }

  #drop(p: Packet, reason: number): void {
    const way = this.#ways.find((one) => one.packet === p && one.end === null);
    if (way === undefined) return;
    const why = dropWhy(this.#stack, this.#director, this.#filter, p, reason, lastFunction(way));
    const isAnswered = reason === Drop.ResetSent || reason === Drop.UnreachableSent || reason === Drop.ArpLearned;
    way.end = { kind: isAnswered ? 'answered' : 'dropped', reason: dropName(reason), why };
  }

  #close(way: Open): Way {
    const end = way.end ?? this.#held(way);
    return {
      origin: way.origin,
      ...(way.device === undefined ? {} : { device: way.device }),
      packet: way.line,
      ...(way.mark === 0 ? {} : { mark: way.mark >>> 0 }),
      steps: way.steps,
      end,
      ...(way.sent === undefined ? {} : { sent: way.sent }),
      changes: way.changes,
    };
  }

  #held(way: Open): WayEnd {
    const p = way.packet;
    const { link } = this.#stack;
    if (p.outDevice === NONE && ipv4.isFragment(p.view, p.l3)) {
      return { kind: 'held', why: 'waits for the other fragments of its datagram' };
    }
    const row = p.outDevice > LOOPBACK_ID ? link.neighbours.find(p.outDevice, p.nexthop) : NONE;
    if (row === NONE || link.neighbours.state[row] !== Nud.Incomplete) {
      return { kind: 'held', why: 'a queue handler or a hook function holds it' };
    }
    const device = link.interfaces[p.outDevice]?.name ?? '?';
    // It will leave as it is now, behind a frame header that nobody knows yet.
    const before = way.isIp ? way.before : (way.before?.subarray(ethernet.ETH_HEADER) ?? null);
    this.#noteSent(way, before, p, p.l3, true, true);
    return { kind: 'held', why: `waits until ${formatIp4(p.nexthop)} on ${device} answers ARP` };
  }

  // HookObserver

  before(p: Packet, op: HookOp): void {
    if (this.#ways.length === 0) return;
    const way = this.#wayOf(p);
    if (way === null) return;
    const fn: Mutable<WayFunction> = { name: op.name, verdict: '' };
    if (p.ipvsProperty !== 0 && op.name.startsWith(OWNER)) fn.note = 'the director has handled it';
    this.#running = { packet: p, way, function: fn, conn: -1, isNew: false, dir: 0, state: '' };
  }

  after(p: Packet, op: HookOp, verdict: Verdict): void {
    const running = this.#running;
    if (running === null) return;
    this.#running = null;
    const fn = running.function;
    fn.verdict = verdictName(verdict);
    if (running.conn >= 0) fn.connection = this.#connection(running);
    else if (verdict === Verdict.Accept && fn.service === undefined && fn.note === undefined) {
      const note = op.name === REQUEST ? this.#noRequest(p) : op.name === REPLY ? 'no connection' : '';
      if (note !== '') fn.note = note;
    }
    if (verdict === Verdict.Reroute) {
      const nexthop = this.#hop(p);
      if (nexthop !== undefined) fn.nexthop = nexthop;
    }
    running.way.functions.push(fn);
  }

  /** Why `director/request` let a packet pass that belongs to no connection. */
  #noRequest(p: Packet): string {
    const { services } = this.#director;
    if (services.count === 0) return 'no services';
    const { Tcp, Udp, Sctp } = ipv4.IpProto;
    const hasPorts = p.proto === Tcp || p.proto === Udp || p.proto === Sctp;
    if (!hasPorts || p.isLaterFragment !== 0 || p.end - p.l4 < 4) return 'no connection';
    const service = services.match(p.proto, ipv4.dst(p.view, p.l3), p.view.getUint16(p.l4 + 2), p.mark);
    if (service < 0) return 'no connection, no service';
    const name = this.#serviceName(service);
    if (p.proto === Udp) return `not for ${name}`;
    return `no connection, and only ${p.proto === Tcp ? 'a SYN' : 'an INIT'} begins one to ${name}`;
  }

  #hop(p: Packet): WayHop | undefined {
    const ifc = this.#stack.link.interfaces[p.outDevice];
    if (p.nexthop === 0 || !ifc) return undefined;
    return { device: ifc.name, ...(ifc.hasNeighbours ? { via: formatIp4(p.nexthop) } : {}), mtu: p.mtu };
  }

  #connection({ conn, isNew, dir, state }: Running): WayConnection {
    const { rows } = this.#director.conns;
    const at = conn << CONN_SHIFT;
    const ports = rows[at + Conn.Ports]!;
    const meta = rows[at + Conn.Meta]!;
    const flags = rows[at + Conn.Flags]!;
    const local = localOf(this.#director, conn, flags);
    return {
      isNew,
      direction: dir === Dir.In ? 'request' : 'reply',
      protocol: protocolName((meta >> 8) & 0xff),
      client: `${formatIp4(rows[at + Conn.Cip]!)}:${ports >>> 16}`,
      virtual: `${formatIp4(rows[at + Conn.Vip]!)}:${ports & 0xffff}`,
      ...(local === undefined ? {} : { local: `${local.address}:${local.port}` }),
      server: `${formatIp4(rows[at + Conn.Rip]!)}:${meta >>> 16}`,
      method: METHODS[flags & ConnFlag.MethodMask] ?? '?',
      from: state,
      to: stateName(meta, flags),
      timeoutSeconds: rows[at + Conn.Timeout]! / TICKS_PER_SECOND,
    };
  }

  // Notes

  found(conn: number, dir: number): void {
    this.#noteConnection(conn, dir, false);
  }

  made(conn: number): void {
    this.#noteConnection(conn, Dir.In, true);
  }

  #noteConnection(conn: number, dir: number, isNew: boolean): void {
    const running = this.#running;
    if (running === null) return;
    running.conn = conn;
    running.dir = dir;
    running.isNew = isNew;
    running.state = isNew ? 'NONE' : this.#stateOf(conn);
  }

  #stateOf(conn: number): string {
    const at = conn << CONN_SHIFT;
    const { rows } = this.#director.conns;
    return stateName(rows[at + Conn.Meta]!, rows[at + Conn.Flags]!);
  }

  ended(conn: number, why: number): void {
    if (this.#running === null) return;
    this.#running.conn = -1;
    const dest = this.#director.conns.rows[(conn << CONN_SHIFT) + Conn.Dest]!;
    const ended: WayEnded = {
      state: this.#stateOf(conn),
      server: serverName(this.#director.dests, dest),
      why: why === Ended.UsedAgain ? 'a SYN uses its ports again' : 'its server was removed',
    };
    this.#running.function.ended = ended;
  }

  service(service: number): void {
    const running = this.#running;
    if (running === null) return;
    const { services } = this.#director;
    const flags = services.flags[service]!;
    const found: WayService = {
      name: this.#serviceName(service),
      scheduler: services.schedulerNames[service]!,
      matched: this.#matchOf(service, running.packet),
      ...((flags & ServiceFlag.Persistent) === 0 ? {} : { persistence: services.timeout[service]! }),
      isOnePacket: (flags & ServiceFlag.OnePacket) !== 0,
      servers: services.destinations[service]!,
    };
    running.function.service = found;
  }

  #serviceName(service: number): string {
    const { protocol, vip, port } = this.#director.services;
    if (protocol[service] === 0) return `FWM ${vip[service]! >>> 0}`;
    return `${protocolName(protocol[service]!)} ${formatIp4(vip[service]!)}:${port[service]}`;
  }

  #matchOf(service: number, p: Packet): ServiceMatch {
    const { protocol, port } = this.#director.services;
    if (protocol[service] === 0) return 'mark';
    if (port[service] === p.view.getUint16(p.l4 + 2)) return 'exact';
    return port[service] === FTP ? 'ftp' : 'any-port';
  }

  template(template: number, use: number): void {
    if (this.#running === null) return;
    const { conns, dests, services, now } = this.#director;
    const at = template << CONN_SHIFT;
    const dest = conns.rows[at + Conn.Dest]!;
    const mask = prefixLength(services.netmask[dests.service[dest]!]!) ?? 32;
    const client = formatIp4(conns.rows[at + Conn.Cip]!);
    const left = (conns.rows[at + Conn.Expires]! - now) | 0;
    const isNew = use === TemplateUse.Made;
    const found: WayTemplate = {
      use: isNew ? 'made' : use === TemplateUse.Used ? 'used' : 'given-up',
      name: `${client}${mask === 32 ? '' : `/${mask}`} > ${formatIp4(conns.rows[at + Conn.Vip]!)}:${conns.rows[at + Conn.Ports]! & 0xffff}`,
      server: serverName(dests, dest),
      ...(isNew ? {} : { secondsLeft: Math.max(0, Math.floor(left / TICKS_PER_SECOND)) }),
    };
    this.#running.function.template = found;
  }

  scheduling(service: number, source: number, destination: number, ports: number): void {
    if (this.#running === null) return;
    const { services, dests } = this.#director;
    const scheduler = services.schedulerNames[service]!;
    if (services.destinations[service]! > this.#options.maxCandidates) {
      const how = `${services.destinations[service]} servers: too many to list here, ask tapvs explain`;
      this.#running.function.choice = { scheduler, server: null, how, candidates: [] };
      return;
    }
    const { dest, how, candidates } = services.schedulers[service]!.explain(source, destination, ports);
    const choice: WayChoice = {
      scheduler,
      server: dest < 0 ? null : serverName(dests, dest),
      how,
      candidates: candidates.map((c) => ({
        server: serverName(dests, c.dest),
        weight: dests.weight[c.dest]!,
        active: dests.active[c.dest]!,
        inactive: dests.inactive[c.dest]!,
        figure: c.figure,
        verdict: c.verdict,
        why: c.why,
      })),
    };
    this.#running.function.choice = choice;
  }
}

function verdictName(verdict: number): string {
  return VERDICT_NAMES[verdict] ?? String(verdict);
}

function protocolName(protocol: number): string {
  return PROTOCOLS[protocol] ?? String(protocol);
}

/** The function that looked at the packet last, also after its hook has ended. */
function lastFunction(way: Open): WayFunction | undefined {
  const step = way.steps.at(-1);
  return way.functions.at(-1) ?? (step?.kind === 'hook' ? step.functions.at(-1) : undefined);
}
