/**
 * Masquerading: the request gets the server's address and port, the answer gets the service's back.   @hot
 *
 * Checksums change by differences that were computed once per connection (RFC 1624 eqn. 3; packet/sum.ts). SCTP's CRC covers no address: it is computed anew where a port changes, and only there.
 */
import { Verdict } from '../../hooks/hooks.ts';
import { FLOW_UNKNOWN, type Packet } from '../../packet/packet.ts';
import { changeTransportChecksum } from '../../packet/sum.ts';
import { adjustChecksum, IpProto, isFragment, setDst, setSrc } from '../../wire/ipv4.ts';
import { fillChecksum } from '../../wire/sctp.ts';
import { CONN_SHIFT, Conn } from '../connection.ts';
import type { Director } from '../director.ts';
import { masqWayOut, WayOut } from './way-out.ts';

const { Accept: ACCEPT, Drop: DROP, Reroute: REROUTE } = Verdict;
const { Tcp: TCP, Udp: UDP } = IpProto;
const { None: NONE, Remote: REMOTE } = WayOut;
const { Rip, Vip, Ports, Meta, Deltas, Dest } = Conn;
const SRC_PORT = 0;
const DST_PORT = 2;

/** The port at `at` becomes `port`, and the checksum fits again; `addresses` and `all` are sums as in Conn.Deltas. */
function setPort(p: Packet, at: number, port: number, addresses: number, all: number): void {
  const { view, l4 } = p;
  if (p.proto !== TCP && p.proto !== UDP) return setSctpPort(p, at, port);
  view.setUint16(l4 + at, port);
  changeTransportChecksum(view, l4, p.proto, p.csumPartial !== 0, addresses, all);
}

/** sctp_dnat_handler, sctp_snat_handler. A fragment's CRC is that of the whole packet, which is not here. */
function setSctpPort(p: Packet, at: number, port: number): void {
  const { view, l4 } = p;
  if (view.getUint16(l4 + at) === port) return;
  view.setUint16(l4 + at, port);
  if (!isFragment(view, p.l3)) fillChecksum(view, p.bytes, l4, p.end);
}

/** Client → server. The packet is sent again from LOCAL_OUT, or goes up our own stack when the server is ourselves. */
export function masqRequest(director: Director, p: Packet, conn: number): Verdict {
  const rows = director.conns.rows;
  const at = conn << CONN_SHIFT;
  const way = masqWayOut(director, p, rows[at + Dest]!);
  if (way === NONE) return DROP;
  const { view, l3 } = p;
  const deltas = rows[at + Deltas]!;
  setDst(view, l3, rows[at + Rip]!);
  adjustChecksum(view, l3, deltas >>> 16);
  setPort(p, DST_PORT, rows[at + Meta]! >>> 16, deltas >>> 16, deltas & 0xffff);
  p.flow = FLOW_UNKNOWN;
  p.ipvsProperty = 1;
  return way === REMOTE ? REROUTE : ACCEPT;
}

/** Server → client; the packet stays on its way. */
export function masqReply(director: Director, p: Packet, conn: number): void {
  const rows = director.conns.rows;
  const at = conn << CONN_SHIFT;
  const { view, l3 } = p;
  // The change back is the ones' complement negative of the change there.
  const deltas = ~rows[at + Deltas]!;
  setSrc(view, l3, rows[at + Vip]!);
  adjustChecksum(view, l3, deltas >>> 16);
  setPort(p, SRC_PORT, rows[at + Ports]! & 0xffff, deltas >>> 16, deltas & 0xffff);
  // ip_vs_route_me_harder.
  if (p.options !== 0 && director.sysctls.snatReroute !== 0) director.routing.rerouteOptions(p);
  p.flow = FLOW_UNKNOWN;
  p.ipvsProperty = 1;
}
