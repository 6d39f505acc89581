/**
 * The first packet of a connection: find its service, ask the scheduler, make the connection
 * (net/netfilter/ipvs/ip_vs_core.c: tcp_conn_schedule, sctp_conn_schedule, ip_vs_schedule, ip_vs_sched_persist, ip_vs_leave).
 */
import { seconds } from '../base/clock.ts';
import { NO_FLOW } from '../flow/flow-table.ts';
import { Drop } from '../packet/drop.ts';
import type { Packet } from '../packet/packet.ts';
import { isMulticast, isZeroNet } from '../wire/addr.ts';
import { IcmpType, UnreachCode } from '../wire/icmpv4.ts';
import { dst, headerLength, IpProto, proto as protocolOf, src } from '../wire/ipv4.ts';
import { TcpFlag } from '../wire/tcp.ts';
import { CONN_SHIFT, Conn, ConnFlag, Dir, Method, NO_CONN, TEMPLATE_KIND } from './connection.ts';
import { DestFlag, NO_DEST } from './destinations.ts';
import type { Director } from './director.ts';
import { LocalFault, NO_LOCAL } from './local-addresses.ts';
import { TemplateUse } from './notes.ts';
import type { PersistenceEngine } from './persistence-engine.ts';
import { schedulerNumber } from './sched/index.ts';
import { rr } from './sched/rr.ts';
import { wrr } from './sched/wrr.ts';
import { beginsAssociation, NO_STEP } from './sctp-states.ts';
import { FTP, NO_SERVICE, ServiceFlag } from './services.ts';

/** Answers of `schedule` beside a connection. */
export const NOT_OURS = -1;
export const REFUSED = -2;

const { Tcp: TCP, Udp: UDP, Sctp: SCTP, Icmp: ICMP } = IpProto;
const { Syn: SYN, Rst: RST } = TcpFlag;
/** Schedulers that go from server to server. */
const RR = schedulerNumber(rr);
const WRR = schedulerNumber(wrr);
const FTP_DATA = 20;
/** Until the state machine has set the real timeout, which it does with this very packet. */
const FIRST_TIMEOUT = seconds(3);

/**
 * @param step TCP flags, or sctpStep of an SCTP packet; not looked at for UDP
 * @returns a connection; NOT_OURS: let the packet pass; REFUSED: `p.drop` and what the sender is owed are set
 */
export function schedule(director: Director, p: Packet, step: number): number {
  const { view, l3, l4, proto } = p;
  const { sysctls } = director;
  // A TCP connection begins with SYN (SYN/ACK too, for active FTP), unless sloppy_tcp lets it be joined midway.
  if (proto === TCP && ((step & RST) !== 0 || ((step & SYN) === 0 && sysctls.sloppyTcp === 0))) return NOT_OURS;
  if (proto === SCTP && !beginsAssociation(step, sysctls.sloppySctp)) {
    if (step !== NO_STEP) return NOT_OURS;
    // The kernel gives up on a packet without chunk before it asks whose it is.
    p.drop = Drop.SctpTooShort;
    return REFUSED;
  }
  return scheduleFlow(director, p, proto, src(view, l3), dst(view, l3), view.getInt32(l4));
}

/**
 * schedule_icmp: an error about an answer whose connection we do not have gets one, so that it finds the server that a hash would find
 * (ip_vs_try_to_schedule). @param inner the quoted IPv4 header, with its ports behind it
 */
export function scheduleQuoted(director: Director, p: Packet, inner: number): number {
  const { view } = p;
  const ports = view.getInt32(inner + headerLength(view, inner));
  const reversed = (ports << 16) | (ports >>> 16);
  return scheduleFlow(director, p, protocolOf(view, inner), dst(view, inner), src(view, inner), reversed);
}

/** @param ports cport << 16 | vport */
function scheduleFlow(director: Director, p: Packet, proto: number, cip: number, vip: number, ports: number): number {
  const { services } = director;
  const vport = ports & 0xffff;
  const service = services.match(proto, vip, vport, p.mark);
  if (service === NO_SERVICE) return NOT_OURS;
  if (director.defence.refuses()) {
    p.drop = Drop.DirectorDropPacket;
    return REFUSED;
  }
  if (ports >>> 16 === FTP_DATA) return NOT_OURS;
  if (p.isLocalOut !== 0) {
    // An answer of a server on this machine, to a client that is balanced too, begins nothing.
    const flow = director.flows.find(vip, cip, (vport << 16) | (ports >>> 16), proto);
    if (flow !== NO_FLOW && director.conns.find(flow, Dir.In) !== NO_CONN) return NOT_OURS;
  }
  if (director.notes !== null) director.notes.service(service);
  if ((services.flags[service]! & ServiceFlag.Persistent) !== 0) {
    return schedulePersistent(director, p, service, proto, cip, vip, ports);
  }
  const isMarked = services.protocol[service] === 0;
  if (!isMarked && vport !== services.port[service]) return leave(director, p, service, vport);
  const dest = pick(director, service, cip, vip, ports);
  if (dest === NO_DEST) return leave(director, p, service, vport);
  const rport = director.dests.port[dest] === 0 ? vport : director.dests.port[dest]!;
  return connect(director, p, service, dest, proto, cip, vip, ports, rport);
}

function pick(director: Director, service: number, source: number, destination: number, ports: number): number {
  if (director.notes !== null) director.notes.scheduling(service, source, destination, ports);
  return director.services.schedulers[service]!.pick(source, destination, ports);
}

/** By the client's template: the server that it had, or a new one that it will keep. */
function schedulePersistent(
  director: Director,
  p: Packet,
  service: number,
  proto: number,
  cip: number,
  vip: number,
  ports: number,
): number {
  const { services, dests, conns } = director;
  const vport = ports & 0xffff;
  const isOwnPort = vport === services.port[service];
  const isMarked = services.protocol[service] === 0;
  // One template for the port of its service; for FTP and for services of all ports, of all ports; for a mark, of all protocols.
  const hasPort = isOwnPort && vport !== FTP;
  const kind = isMarked && !isOwnPort ? 0 : proto;
  const address = isMarked && !isOwnPort ? services.vip[service]! : vip;
  const client = cip & services.netmask[service]!;
  const key = hasPort ? vport : 0;
  const engine = services.engines[service]!;
  const data = engine === null ? undefined : engine.read(p);
  if (engine !== null && data === undefined) {
    p.drop = Drop.DirectorNoCallId;
    return REFUSED;
  }
  let template = findTemplate(director, engine, kind, client, address, key, data);
  if (template !== NO_CONN && !isTemplateGood(director, template)) template = NO_CONN;
  let dest: number;
  if (template === NO_CONN) {
    dest = pick(director, service, cip, vip, ports);
    if (dest === NO_DEST) return leave(director, p, service, vport);
    const dport = hasPort ? dests.port[dest]! : 0;
    template = addTemplate(director, service, dest, kind, client, address, key, dport, data);
    if (template === NO_CONN) return tableFull(p);
  } else {
    if (director.notes !== null) director.notes.template(template, TemplateUse.Used);
    dest = conns.rows[(template << CONN_SHIFT) + Conn.Dest]!;
  }
  const rport = isOwnPort && dests.port[dest] !== 0 ? dests.port[dest]! : vport;
  const conn = connect(director, p, service, dest, proto, cip, vip, ports, rport);
  if (conn >= 0) conns.setControl(template, conn);
  conns.restart(template, director.now);
  return conn;
}

/** ip_vs_ct_in_get: a template of an engine is found by the engine's data, too, and only so. */
function findTemplate(
  director: Director,
  engine: PersistenceEngine | null,
  proto: number,
  client: number,
  vip: number,
  vport: number,
  data: string | undefined,
): number {
  if (engine !== null) return director.engines.find(engine, proto, client, vip, vport, data!);
  const flow = director.flows.find(client, vip, vport, proto | TEMPLATE_KIND);
  return flow === NO_FLOW ? NO_CONN : director.conns.find(flow, Dir.In);
}

/** Is its server still there and willing? If not, the template is never found again (ip_vs_check_template). */
function isTemplateGood(director: Director, template: number): boolean {
  const { dests } = director;
  const its = director.conns.rows[(template << CONN_SHIFT) + Conn.Dest]!;
  const isQuiescent = director.sysctls.expireQuiescentTemplate !== 0 && dests.weight[its] === 0;
  const isDraining = (dests.flags[its]! & DestFlag.Draining) !== 0;
  if (dests.isAvailable(its) && !isQuiescent && !isDraining) return true;
  invalidate(director, template);
  return false;
}

function invalidate(director: Director, template: number): void {
  if (director.notes !== null) director.notes.template(template, TemplateUse.GivenUp);
  director.conns.invalidateTemplate(template);
  director.engines.hide(template);
}

/** @param data what the service's engine read, undefined without engine  @returns NO_CONN when the table is full */
function addTemplate(
  director: Director,
  service: number,
  dest: number,
  proto: number,
  client: number,
  vip: number,
  vport: number,
  dport: number,
  data: string | undefined,
): number {
  const { services, dests, conns } = director;
  const hasData = data !== undefined;
  const flags = dests.method[dest]! | ConnFlag.Inactive | ConnFlag.Template | (hasData ? ConnFlag.HasPe : 0);
  const timeout = seconds(services.timeout[service]!);
  const template = conns.add(director.now, proto, client, vip, vport, dests.ip[dest]!, dport, dest, flags, timeout);
  if (template === NO_CONN) return NO_CONN;
  dests.bind(dest, true, true);
  if (hasData) director.engines.add(template, services.engines[service]!, proto, client, vip, vport, data);
  if (director.notes !== null) director.notes.template(template, TemplateUse.Made);
  return template;
}

/**
 * A server has sent a UDP packet that answers no connection. If its service's engine follows servers, a connection is made (and a template), so that
 * the packet leaves with the service's address and answers come back to the same server; answers of one-packet services go this way, too
 * (__ip_vs_rs_conn_out, ip_vs_new_conn_out).
 * @returns NO_CONN when it is no such packet
 */
export function scheduleOut(director: Director, p: Packet): number {
  const { services, dests, conns } = director;
  const { view, l3, l4 } = p;
  const ports = view.getInt32(l4);
  const [rip, rport, cip, cport] = [src(view, l3), ports >>> 16, dst(view, l3), ports & 0xffff];
  for (const service of services.followers) {
    if (services.protocol[service] !== UDP) continue;
    const dest = dests.find(service, rip, rport);
    if (dest === NO_DEST || dests.method[dest] !== Method.Masq) continue;
    const vport = services.port[service]!;
    if (vport === 0 || rport === 0) return NO_CONN;
    const vip = services.vip[service]!;
    let template = NO_CONN;
    if ((services.flags[service]! & ServiceFlag.Persistent) !== 0) {
      const engine = services.engines[service]!;
      const data = engine.read(p);
      if (data === undefined) return NO_CONN;
      const client = cip & services.netmask[service]!;
      template = findTemplate(director, engine, UDP, client, vip, vport, data);
      if (template !== NO_CONN && isTemplateGood(director, template)) {
        const its = conns.rows[(template << CONN_SHIFT) + Conn.Dest]!;
        if (its !== dest) {
          invalidate(director, template);
          template = NO_CONN;
        }
      } else {
        template = NO_CONN;
      }
      if (template === NO_CONN) template = addTemplate(director, service, dest, UDP, client, vip, vport, rport, data);
      if (template === NO_CONN) return NO_CONN;
    }
    const conn = connect(director, p, service, dest, UDP, cip, vip, (cport << 16) | vport, rport);
    if (template !== NO_CONN) {
      if (conn >= 0) conns.setControl(template, conn);
      conns.restart(template, director.now);
    }
    if (conn >= 0) return conn;
    p.drop = Drop.None;
    return NO_CONN;
  }
  return NO_CONN;
}

function connect(
  director: Director,
  p: Packet,
  service: number,
  dest: number,
  proto: number,
  cip: number,
  vip: number,
  ports: number,
  rport: number,
): number {
  const { services, dests } = director;
  const method = dests.method[dest]!;
  const isFullNat = method === Method.FullNat;
  const isOnePacket = proto === UDP && (services.flags[service]! & ServiceFlag.OnePacket) !== 0;
  const flags =
    method |
    ConnFlag.Inactive |
    (method === Method.Masq || isFullNat ? 0 : ConnFlag.NoOutput) |
    (isOnePacket ? ConnFlag.OnePacket : 0);
  const rip = dests.ip[dest]!;
  const { now, conns, locals } = director;
  let local = NO_LOCAL;
  let localIp = 0;
  let localPort = 0;
  if (isFullNat) {
    local = chooseLocal(director, service, proto, rip, rport);
    if (local === NO_LOCAL) return noLocal(director, p);
    localIp = locals.ip;
    localPort = (local << 16) | locals.port;
  }
  const conn = conns.add(now, proto, cip, vip, ports, rip, rport, dest, flags, FIRST_TIMEOUT, localIp, localPort);
  if (conn === NO_CONN) return tableFull(p);
  if (local !== NO_LOCAL) locals.bind(local);
  dests.bind(dest, false, true);
  dests.counters.addConnection(dest);
  services.counters.addConnection(service);
  director.total.addConnection(0);
  if (director.notes !== null) director.notes.made(conn);
  return conn;
}

/** Full NAT: where the connection is to come from, in `director.locals`. */
function chooseLocal(director: Director, service: number, proto: number, rip: number, rport: number): number {
  const { locals, flows, routing, rng, services } = director;
  const scheduler = services.schedulerNumbers[service]!;
  return locals.choose(service, flows, routing, rng, proto, rip, rport, scheduler === RR || scheduler === WRR);
}

function noLocal(director: Director, p: Packet): number {
  const isEmpty = director.locals.fault === LocalFault.NoAddress;
  p.drop = isEmpty ? Drop.DirectorNoLocalAddress : Drop.DirectorNoLocalPort;
  return REFUSED;
}

function tableFull(p: Packet): number {
  p.drop = Drop.DirectorConnTableFull;
  return REFUSED;
}

/**
 * No server for it: with cache_bypass, what a mark's service was asked goes to where it wants to go. Else port unreachable, also for TCP; but ports that only
 * an FTP service claimed are let through. An ICMP error is answered by nobody.
 */
function leave(director: Director, p: Packet, service: number, vport: number): number {
  const { services } = director;
  if (director.sysctls.cacheBypass !== 0 && services.protocol[service] === 0 && canBypass(director, p)) {
    return bypass(director, p, service);
  }
  if (services.port[service] === FTP && vport !== FTP) return NOT_OURS;
  p.drop = Drop.DirectorNoDestination;
  if (p.proto !== ICMP) {
    p.rejectType = IcmpType.DestUnreachable;
    p.rejectCode = UnreachCode.Port;
  }
  return REFUSED;
}

/** Another's unicast address (inet_addr_type). */
function canBypass(director: Director, p: Packet): boolean {
  const to = dst(p.view, p.l3);
  if (p.proto === ICMP || isMulticast(to) || isZeroNet(to) || to === -1) return false;
  const { routing } = director;
  return !routing.resolve(to) || !(routing.isLocal || routing.isBroadcast);
}

/** A connection without a server; nobody counts it. */
function bypass(director: Director, p: Packet, service: number): number {
  const { view, l3, l4, proto } = p;
  const isOnePacket = proto === UDP && (director.services.flags[service]! & ServiceFlag.OnePacket) !== 0;
  const flags = Method.Bypass | (isOnePacket ? ConnFlag.OnePacket : 0);
  const [cip, vip, ports] = [src(view, l3), dst(view, l3), view.getInt32(l4)];
  const none = director.dests.unbound;
  const conn = director.conns.add(director.now, proto, cip, vip, ports, 0, 0, none, flags, FIRST_TIMEOUT);
  return conn === NO_CONN ? tableFull(p) : conn;
}
