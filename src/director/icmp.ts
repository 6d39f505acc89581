/**
 * ICMP errors about balanced connections (net/netfilter/ipvs/ip_vs_core.c, ip_vs_in_icmp and ip_vs_out_icmp; ip_vs_nat_icmp).   @hot
 *
 *   from the client's side   outer destination and quoted source become the server's      quoted packet: an answer, VIP → CIP
 *   from the server's side   outer source and quoted destination become the service's     quoted packet: a request, CIP → RIP
 *
 * With full NAT the other halves change, too: from the client's side outer source and quoted destination become the local address, from the server's side outer
 * destination and quoted source the client's (DPVS: ip_vs_proto_icmp.c, ip_vs_nat_icmp).
 *
 * Only destination unreachable, source quench and time exceeded take part. The quoted transport checksum is left as it is, as the kernel leaves it;
 * the quoted IP header's and the ICMP checksum are computed anew.
 */
import { NO_FLOW } from '../flow/flow-table.ts';
import { Verdict } from '../hooks/hooks.ts';
import { Drop } from '../packet/drop.ts';
import { FLOW_UNKNOWN, type Packet } from '../packet/packet.ts';
import { check, fillChecksum, ICMP_HEADER, IcmpFault, IcmpType, type } from '../wire/icmpv4.ts';
import * as ipv4 from '../wire/ipv4.ts';
import { CONN_SHIFT, Conn, ConnFlag, Dir, LOCAL_SHIFT, Method, NO_CONN } from './connection.ts';
import type { Director } from './director.ts';
import { routeRequest } from './forward/droute.ts';
import { tunnelRequest } from './forward/tunnel.ts';
import { lendAddress } from './forward/unbound.ts';
import { masqWayOut, WayOut, wayTo } from './forward/way-out.ts';
import { NOT_OURS, REFUSED, scheduleQuoted } from './schedule.ts';
import { trackReply, trackRequest } from './tracked.ts';
import { NO_TUNNEL, tunnelError } from './tunnel-icmp.ts';

const { Accept: ACCEPT, Drop: DROP, Reroute: REROUTE } = Verdict;
const { Tcp: TCP, Udp: UDP, Sctp: SCTP } = ipv4.IpProto;
const { DestUnreachable: UNREACHABLE, SourceQuench: QUENCH, TimeExceeded: EXCEEDED } = IcmpType;
const { Cip, Vip, Rip, Ports, Meta, Flags, Dest, Packets } = Conn;
const { None: NONE, Local: LOCAL_WAY, Remote: REMOTE } = WayOut;
const METHOD_MASK = ConnFlag.MethodMask;
const { Masq: MASQ, Tunnel: TUNNEL, FullNat: FULL_NAT } = Method;
const LOCAL = LOCAL_SHIFT;
const HEADER = ICMP_HEADER;
const NO_FAULT = IcmpFault.None;

/** The IPv4 header that an ICMP error of one of our types quotes, with at least 4 bytes behind it; -1 when `p` is no such message. */
function quoted(p: Packet): number {
  const { view, l3, l4, end } = p;
  if (p.isLaterFragment !== 0 || end - l4 < HEADER + ipv4.IPV4_HEADER || ipv4.isFragment(view, l3)) return -1;
  const t = type(view, l4);
  if (t !== UNREACHABLE && t !== QUENCH && t !== EXCEEDED) return -1;
  const inner = l4 + HEADER;
  if (view.getUint8(inner) >> 4 !== 4) return -1;
  const header = ipv4.headerLength(view, inner);
  return header < ipv4.IPV4_HEADER || inner + header + 4 > end ? -1 : inner;
}

/** Is what is quoted at `inner` of a protocol that we balance, with its ports? */
function hasPorts(p: Packet, inner: number): boolean {
  const proto = ipv4.proto(p.view, inner);
  return (proto === TCP || proto === UDP || proto === SCTP) && !ipv4.isLaterFragment(p.view, inner);
}

/**
 * The connection that an ICMP error is about, or NO_CONN. A quoted packet stands the other way round: its tuple reversed is looked up.
 * @param dir Dir.In: errors about answers; Dir.Out: errors about requests
 */
function related(director: Director, p: Packet, inner: number, dir: number): number {
  const { view } = p;
  const ports = view.getInt32(inner + ipv4.headerLength(view, inner));
  const reversed = (ports << 16) | (ports >>> 16);
  const flow = director.flows.find(ipv4.dst(view, inner), ipv4.src(view, inner), reversed, ipv4.proto(view, inner));
  return flow === NO_FLOW ? NO_CONN : director.conns.find(flow, dir);
}

/** The error's own addresses, and those and the ports of the packet that it quotes; a 0 leaves an address as it is. */
function rewrite(p: Packet, inner: number, source: number, destination: number, ports: number): void {
  const { view, l3, l4 } = p;
  if (source !== 0) {
    ipv4.setSrc(view, l3, source);
    ipv4.setDst(view, inner, source);
  }
  if (destination !== 0) {
    ipv4.setDst(view, l3, destination);
    ipv4.setSrc(view, inner, destination);
  }
  ipv4.fillChecksum(view, l3);
  ipv4.fillChecksum(view, inner);
  view.setInt32(inner + ipv4.headerLength(view, inner), ports);
  fillChecksum(view, l4, p.end);
  p.flow = FLOW_UNKNOWN;
  p.ipvsProperty = 1;
}

function refuse(p: Packet): Verdict {
  p.drop = Drop.DirectorIcmpBad;
  return DROP;
}

/** Too short for a header of its own. */
function isCut(p: Packet): boolean {
  return p.isLaterFragment === 0 && p.end - p.l4 < HEADER;
}

/** An ICMP packet on LOCAL_IN, LOCAL_OUT or FORWARD that may be about an answer which we sent on to a client. */
export function icmpRequest(director: Director, p: Packet): Verdict {
  const inner = quoted(p);
  if (inner < 0) return isCut(p) ? refuse(p) : ACCEPT;
  const answer = tunnelError(director, p, inner);
  if (answer !== NO_TUNNEL) return answer;
  if (!hasPorts(p, inner)) return ACCEPT;
  let conn = related(director, p, inner, Dir.In);
  if (conn === NO_CONN) {
    if (director.sysctls.scheduleIcmp === 0) return ACCEPT;
    conn = scheduleQuoted(director, p, inner);
    if (conn === NOT_OURS) return ACCEPT;
    if (conn === REFUSED) return DROP;
  } else if (director.notes !== null) {
    director.notes.found(conn, Dir.In);
  }
  const { view, l3, l4 } = p;
  const rows = director.conns.rows;
  const at = conn << CONN_SHIFT;
  // Only what is rewritten gets a new checksum, which must not hide that the old one was wrong.
  const method = rows[at + Flags]! & METHOD_MASK;
  const isRewritten = method === MASQ || method === FULL_NAT;
  if (isRewritten && check(view, l4, p.end) !== NO_FAULT) return refuse(p);
  const dest = rows[at + Dest]!;
  if (dest === director.dests.unbound) lendAddress(director, p, conn);
  director.countIn(dest, 1, p.end - l3);
  if (trackRequest(director, p, conn) !== ACCEPT) return DROP;
  if (!isRewritten) {
    rows[at + Packets]!++;
    return method === TUNNEL ? tunnelRequest(director, p, conn) : routeRequest(director, p, conn);
  }
  const way = masqWayOut(director, p, dest);
  if (way === NONE) return DROP;
  const isFullNat = method === FULL_NAT;
  const { local } = director.conns;
  const own = conn << LOCAL;
  const cport = isFullNat ? local[own + 1]! & 0xffff : rows[at + Ports]! >>> 16;
  rewrite(p, inner, isFullNat ? local[own]! : 0, rows[at + Rip]!, (rows[at + Meta]! & 0xffff0000) | cport);
  return way === REMOTE ? REROUTE : ACCEPT;
}

/** An ICMP packet on FORWARD, LOCAL_IN or LOCAL_OUT that may be about a request which we sent on to a server. */
export function icmpReply(director: Director, p: Packet): Verdict {
  const inner = quoted(p);
  if (inner < 0) return isCut(p) ? refuse(p) : ACCEPT;
  if (!hasPorts(p, inner)) return ACCEPT;
  const conn = related(director, p, inner, Dir.Out);
  if (conn === NO_CONN) return ACCEPT;
  if (director.notes !== null) director.notes.found(conn, Dir.Out);
  const { view, l3, l4 } = p;
  const rows = director.conns.rows;
  const at = conn << CONN_SHIFT;
  const method = rows[at + Flags]! & METHOD_MASK;
  const isFullNat = method === FULL_NAT;
  const isRewritten = method === MASQ || isFullNat;
  if (isRewritten && check(view, l4, p.end) !== NO_FAULT) return refuse(p);
  director.countOut(rows[at + Dest]!, 1, p.end - l3);
  p.ipvsProperty = 1;
  trackReply(director, p, conn);
  if (!isRewritten) return ACCEPT;
  const cip = rows[at + Cip]!;
  const way = isFullNat ? wayTo(director, p, cip) : LOCAL_WAY;
  if (way === NONE) return DROP;
  rewrite(p, inner, rows[at + Vip]!, isFullNat ? cip : 0, rows[at + Ports]!);
  if (p.options !== 0 && director.sysctls.snatReroute !== 0) director.routing.rerouteOptions(p);
  return way === REMOTE ? REROUTE : ACCEPT;
}
