/**
 * Tunnelling: the packet goes to the server as it is, inside another (net/netfilter/ipvs/ip_vs_xmit.c, ip_vs_tunnel_xmit).   @hot
 *
 *   IPIP   | IPv4 20 |                                | the client's packet      RFC 2003
 *   GUE    | IPv4 20 | UDP 8 | GUE 4 (+ 8 remcsum)     | …                        include/net/gue.h, UDP checksum only when asked for
 *   GRE    | IPv4 20 | GRE 4 (+ 4 checksum)            | …                        RFC 2784
 *
 * The outer header stands in the packet's headroom. It has the inner TTL (one less than it came with), the inner DF unless pmtu_disc is 0, and the inner
 * TOS with congestion marks as RFC 3168 §9.1.1 wants them (full functionality). The server has the service's address and answers the client directly.
 *
 * An open checksum (CHECKSUM_PARTIAL) is completed before it disappears in the tunnel, or left to the server where that was agreed (remote checksum
 * offload). A super-packet stays one, and is cut where it leaves (ip/segment.ts): no vnet header can describe it.
 */
import { hash4 } from '../../base/hash.ts';
import { Verdict } from '../../hooks/hooks.ts';
import { Drop } from '../../packet/drop.ts';
import { FLOW_UNKNOWN, type Packet } from '../../packet/packet.ts';
import { completeChecksum, fillTransportChecksum, sum } from '../../packet/sum.ts';
import * as gre from '../../wire/gre.ts';
import * as gue from '../../wire/gue.ts';
import * as ipv4 from '../../wire/ipv4.ts';
import { TCP_CHECKSUM } from '../../wire/tcp.ts';
import * as udp from '../../wire/udp.ts';
import { CONN_SHIFT, Conn } from '../connection.ts';
import { type DestTable, ROUTE_SHIFT, RouteColumn, TunnelFlag, TunnelType } from '../destinations.ts';
import type { Director } from '../director.ts';
import { deliverHere } from './droute.ts';
import { WayOut, wayOut } from './way-out.ts';

const { Drop: DROP, Reroute: REROUTE } = Verdict;
const { None: NONE, Remote: REMOTE } = WayOut;
const { Dest } = Conn;
const { Gue: GUE, Gre: GRE } = TunnelType;
const { Csum: CSUM, Remcsum: REMCSUM } = TunnelFlag;
const { IpIp: PROTO_IPIP, Udp: PROTO_UDP, Gre: PROTO_GRE, Tcp: TCP } = ipv4.IpProto;
const { IPV4_HEADER, DF } = ipv4;
const { UDP_HEADER, UDP_CHECKSUM } = udp;
const { GUE_HEADER, GUE_HEADER_REMCSUM } = gue;
const { GRE_HEADER, GRE_HEADER_CSUM } = gre;
const TCP_SUM = TCP_CHECKSUM;
const SOURCE = RouteColumn.Source;
/** net.ipv4.ip_local_port_range as a kernel starts with it: [first, last). */
const FIRST_PORT = 32768;
const PORTS = 60999 - FIRST_PORT;
const ECN_MASK = 3;
const ECN_CE = 3;
const ECN_ECT0 = 2;

/** Client → server; ICMP errors of the client's side go the same way. */
export function tunnelRequest(director: Director, p: Packet, conn: number): Verdict {
  const { dests } = director;
  const dest = director.conns.rows[(conn << CONN_SHIFT) + Dest]!;
  // Which tunnel, only a server says.
  if (dest === dests.unbound) {
    p.drop = Drop.DirectorNoRoute;
    return DROP;
  }
  const overhead = IPV4_HEADER + encapsulation(dests, dest, p);
  const way = wayOut(director, p, dest, overhead);
  if (way === NONE) return DROP;
  if (way !== REMOTE) return deliverHere(director, p);
  wrap(director, p, dest, overhead);
  return REROUTE;
}

/** Bytes between the two IPv4 headers. */
function encapsulation(dests: DestTable, dest: number, p: Packet): number {
  const type = dests.tunnelType[dest]!;
  if (type === GUE) return UDP_HEADER + (isRemote(dests, dest, p) ? GUE_HEADER_REMCSUM : GUE_HEADER);
  if (type === GRE) return (dests.tunnelFlags[dest]! & CSUM) !== 0 ? GRE_HEADER_CSUM : GRE_HEADER;
  return 0;
}

/** Does the server complete the checksum? Only one that is still open. */
function isRemote(dests: DestTable, dest: number, p: Packet): boolean {
  return p.csumPartial !== 0 && (dests.tunnelFlags[dest]! & REMCSUM) !== 0;
}

function wrap(director: Director, p: Packet, dest: number, overhead: number): void {
  const { dests } = director;
  const { view } = p;
  const inner = p.l3;
  const l3 = inner - overhead;
  const l4 = l3 + IPV4_HEADER;
  const type = dests.tunnelType[dest]!;
  const isOpen = type === GUE && isRemote(dests, dest, p);
  if (!isOpen && p.gsoType === 0) completeChecksum(p);
  const tos = ipv4.tos(view, inner);
  const ecn = (tos & ECN_MASK) === ECN_CE ? ECN_ECT0 : tos & ECN_MASK;
  const df = director.sysctls.pmtuDisc !== 0 ? ipv4.fragmentWord(view, inner) & DF : 0;
  const port = type === GUE ? flowPort(director, p) : 0;
  const proto = type === GUE ? PROTO_UDP : type === GRE ? PROTO_GRE : PROTO_IPIP;
  const source = dests.route[(dest << ROUTE_SHIFT) + SOURCE]!;
  // ip_select_ident: what is never cut needs no number; a super-packet's segments count up from it.
  const id = df !== 0 ? 0 : director.nextIdent();
  const ttl = ipv4.ttl(view, inner);
  ipv4.emit(view, l3, p.end - l3, proto, source, dests.ip[dest]!, ttl, (tos & ~ECN_MASK) | ecn, id, df);
  const innerProto = p.proto;
  const checksumAt = p.l4 + (innerProto === TCP ? TCP_SUM : UDP_CHECKSUM) - inner;
  const transport = p.l4 - inner;
  p.l3 = l3;
  p.l4 = l4;
  p.proto = proto;
  p.inner = overhead;
  p.flow = FLOW_UNKNOWN;
  p.ipvsProperty = 1;
  if (type === GUE) {
    if (isOpen) gue.emitRemcsum(view, l4 + UDP_HEADER, transport, checksumAt);
    else gue.emit(view, l4 + UDP_HEADER);
    emitUdp(p, port, dests.tunnelPort[dest]!, (dests.tunnelFlags[dest]! & (CSUM | REMCSUM)) !== 0);
    if (isOpen && p.gsoType === 0) p.csumPartial = 0;
  } else if (type === GRE) {
    const isSummed = (dests.tunnelFlags[dest]! & CSUM) !== 0;
    gre.emit(view, l4, isSummed);
    if (isSummed && p.gsoType === 0) gre.setChecksum(view, l4, ~sum(p, l4, p.end - l4) & 0xffff);
  }
}

/** The UDP header of GUE; of a super-packet only a sign that its segments are to have a checksum. */
function emitUdp(p: Packet, srcPort: number, dstPort: number, isSummed: boolean): void {
  const { view, l4 } = p;
  udp.emit(view, l4, srcPort, dstPort, p.end - l4);
  if (!isSummed) return;
  if (p.gsoType !== 0) udp.setChecksum(view, l4, 0xffff);
  else fillTransportChecksum(p, p.l3, l4, PROTO_UDP);
}

/** One source port per inner flow, so that the network can spread flows (RFC 8085 §3.1.11; udp_flow_src_port). */
function flowPort(director: Director, p: Packet): number {
  const { view, l3, l4 } = p;
  const ports = p.end - l4 >= 4 ? view.getInt32(l4) : 0;
  const hash = hash4(director.flowSeed, ipv4.src(view, l3), ipv4.dst(view, l3), ports, p.proto) >>> 0;
  return FIRST_PORT + Math.trunc((hash / 0x100000000) * PORTS);
}
