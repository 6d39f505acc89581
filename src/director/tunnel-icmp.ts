/**
 * ICMP errors about packets that we tunnelled (net/netfilter/ipvs/ip_vs_core.c, ip_vs_in_icmp: ipvs_udp_decap, ipvs_gre_decap).   @hot
 *
 *   to us: | IPv4 | ICMP | our outer IPv4 | UDP+GUE, GRE | the client's packet …      becomes, from the service's address,
 *   to the client:                 | IPv4 | ICMP (the same type and code) | the client's packet …
 *
 * Fragmentation needed also teaches the MTU of the path to the server; the client hears of it only when its packet had DF. An error about a tunnel that
 * is not one of ours, or about no connection, is anybody's.
 */
import { NO_FLOW } from '../flow/flow-table.ts';
import { Verdict } from '../hooks/hooks.ts';
import { Drop } from '../packet/drop.ts';
import { FLOW_UNKNOWN, type Packet } from '../packet/packet.ts';
import * as gre from '../wire/gre.ts';
import * as gue from '../wire/gue.ts';
import * as icmp from '../wire/icmpv4.ts';
import * as ipv4 from '../wire/ipv4.ts';
import { dstPort, UDP_HEADER } from '../wire/udp.ts';
import { CONN_SHIFT, Conn, Dir, Method, NO_CONN } from './connection.ts';
import { ROUTE_SHIFT, RouteColumn, TunnelType } from './destinations.ts';
import type { Director } from './director.ts';

/** The answer of `tunnelError` when the message is about no tunnel of ours. */
export const NO_TUNNEL = -1;

const DROP = Verdict.Drop;
const { IpIp: PROTO_IPIP, Udp: PROTO_UDP, Gre: PROTO_GRE } = ipv4.IpProto;
const { IpIp: IPIP, Gue: GUE, Gre: GRE } = TunnelType;
const { IPV4_HEADER, DF } = ipv4;
const { DestUnreachable: UNREACHABLE } = icmp.IcmpType;
const { FragNeeded: FRAG_NEEDED } = icmp.UnreachCode;
const NO_FAULT = icmp.IcmpFault.None;
const UDP_LENGTH = UDP_HEADER;
const TUNNEL = Method.Tunnel;
const { Dest } = Conn;
const REST = 4;
const MTU = RouteColumn.Mtu;
/** RFC 791: what every network must carry. */
const LEAST_MTU = 68;

/** TunnelType that the last `innerOf` found, and GUE's port. */
let tunnelType = 0;
let tunnelPort = 0;

/** Start of the client's packet in a quoted tunnel packet at `outer`, -1 when it is none or too short. The quotation's own IPv4 header was checked. */
function innerOf(p: Packet, outer: number): number {
  const { view, end } = p;
  const at = outer + ipv4.headerLength(view, outer);
  const proto = ipv4.proto(view, outer);
  let inner = at;
  tunnelPort = 0;
  if (proto === PROTO_IPIP) {
    tunnelType = IPIP;
  } else if (proto === PROTO_UDP) {
    tunnelType = GUE;
    if (end - at < UDP_LENGTH) return -1;
    tunnelPort = dstPort(view, at);
    if (gue.check(view, at + UDP_LENGTH, end) !== gue.GueFault.None) return -1;
    inner = at + UDP_LENGTH + gue.headerLength(view, at + UDP_LENGTH);
  } else if (proto === PROTO_GRE) {
    tunnelType = GRE;
    if (gre.check(view, at, end) !== gre.GreFault.None) return -1;
    inner = at + gre.headerLength(view, at);
  } else {
    return -1;
  }
  if (end - inner < IPV4_HEADER || view.getUint8(inner) >> 4 !== 4) return -1;
  const header = ipv4.headerLength(view, inner);
  return header < IPV4_HEADER || end - inner < header + 4 || ipv4.isLaterFragment(view, inner) ? -1 : inner;
}

/** The connection whose request is quoted, through a tunnel as its server has one now; NO_CONN when there is none. */
function tunnelled(director: Director, p: Packet, outer: number, inner: number): number {
  const { view } = p;
  const { dests, conns } = director;
  const l4 = inner + ipv4.headerLength(view, inner);
  const flow = director.flows.find(
    ipv4.src(view, inner),
    ipv4.dst(view, inner),
    view.getInt32(l4),
    ipv4.proto(view, inner),
  );
  const conn = flow === NO_FLOW ? NO_CONN : conns.find(flow, Dir.In);
  if (conn === NO_CONN) return NO_CONN;
  const dest = conns.rows[(conn << CONN_SHIFT) + Dest]!;
  const isIts =
    dests.isAvailable(dest) &&
    dests.method[dest] === TUNNEL &&
    dests.ip[dest] === ipv4.dst(view, outer) &&
    dests.tunnelType[dest] === tunnelType &&
    (tunnelType !== GUE || dests.tunnelPort[dest] === tunnelPort);
  return isIts ? conn : NO_CONN;
}

/**
 * An ICMP error of a related type (unreachable, source quench, time exceeded) that quotes an IPv4 header at `outer`.
 * @returns NO_TUNNEL: not ours, nothing was changed; else a verdict, with what the client is owed in the packet
 */
export function tunnelError(director: Director, p: Packet, outer: number): Verdict | typeof NO_TUNNEL {
  // It must be addressed to us: we are who tunnelled.
  if (p.isLocalIn === 0 || ipv4.isLaterFragment(p.view, outer)) return NO_TUNNEL;
  const inner = innerOf(p, outer);
  if (inner < 0) return NO_TUNNEL;
  const conn = tunnelled(director, p, outer, inner);
  if (conn === NO_CONN) return NO_TUNNEL;
  const { view, l4, end } = p;
  if (icmp.check(view, l4, end) !== NO_FAULT) {
    p.drop = Drop.DirectorIcmpBad;
    return DROP;
  }
  const type = icmp.type(view, l4);
  const code = icmp.code(view, l4);
  let rest = view.getInt32(l4 + REST);
  if (type === UNREACHABLE && code === FRAG_NEEDED) {
    const { routing } = director;
    const rip = ipv4.dst(view, outer);
    const isKnown = routing.learnMtu(rip, rest & 0xffff);
    p.drop = Drop.TunnelErrorTaken;
    if ((ipv4.fragmentWord(view, inner) & DF) === 0) return DROP;
    const dest = director.conns.rows[(conn << CONN_SHIFT) + Dest]!;
    rest = clientMtu(pathOf(director, dest, isKnown, rest & 0xffff), inner - outer);
  }
  director.countOut(director.conns.rows[(conn << CONN_SHIFT) + Dest]!, 1, end - inner);
  // From here on it is the client's packet that was refused.
  p.l3 = inner;
  p.l4 = inner + ipv4.headerLength(view, inner);
  p.proto = ipv4.proto(view, inner);
  p.l4Fault = 0;
  p.csumPartial = 0;
  p.flow = FLOW_UNKNOWN;
  p.drop = Drop.TunnelErrorRelayed;
  p.rejectType = type;
  p.rejectCode = code;
  p.rejectMtu = rest;
  return DROP;
}

/**
 * The path's MTU as the server's cached route has it. That is the old one when nothing was known of the path before: the kernel updates a route that is
 * an exception already, but only marks an ordinary one stale, so the client hears the new MTU when its next packet is too long.
 */
function pathOf(director: Director, dest: number, isKnown: boolean, told: number): number {
  const { routing, dests } = director;
  const cached = dests.route[(dest << ROUTE_SHIFT) + MTU]!;
  if (!isKnown && cached > 0) return cached;
  return routing.resolve(dests.ip[dest]!) ? routing.mtu : told;
}

/** What is left for the client of the path to its server, `overhead` bytes less. */
function clientMtu(path: number, overhead: number): number {
  return path > LEAST_MTU + overhead ? path - overhead : path;
}
