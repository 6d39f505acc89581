/**
 * Full NAT: the request gets a local address and port as its source beside the server's as its destination, so that the answer comes to us whatever the server's
 * routes are; the answer gets the service's as its source and the client's as its destination (DPVS: ip_vs_xmit.c, dp_vs_xmit_fnat and dp_vs_out_xmit_fnat).   @hot
 *
 * Checksums change as for masquerading, by the differences in Conn.Deltas, which are of both addresses and both ports here.
 */
import { Verdict } from '../../hooks/hooks.ts';
import { FLOW_UNKNOWN, type Packet } from '../../packet/packet.ts';
import { changeTransportChecksum } from '../../packet/sum.ts';
import { adjustChecksum, IpProto, isFragment, setDst, setSrc } from '../../wire/ipv4.ts';
import { fillChecksum } from '../../wire/sctp.ts';
import { CONN_SHIFT, Conn, LOCAL_SHIFT } from '../connection.ts';
import type { Director } from '../director.ts';
import { masqWayOut, WayOut, wayTo } from './way-out.ts';

const { Accept: ACCEPT, Drop: DROP, Reroute: REROUTE } = Verdict;
const { Tcp: TCP, Udp: UDP } = IpProto;
const { None: NONE, Remote: REMOTE } = WayOut;
const { Cip, Vip, Rip, Ports, Meta, Deltas, Dest } = Conn;
const LOCAL = LOCAL_SHIFT;

/** New addresses and ports (source << 16 | destination); `deltas` as in Conn.Deltas. */
function rewrite(p: Packet, source: number, destination: number, ports: number, deltas: number): void {
  const { view, l3, l4, proto } = p;
  const addresses = deltas >>> 16;
  setSrc(view, l3, source);
  setDst(view, l3, destination);
  adjustChecksum(view, l3, addresses);
  p.flow = FLOW_UNKNOWN;
  p.ipvsProperty = 1;
  if (proto === TCP || proto === UDP) {
    view.setInt32(l4, ports);
    changeTransportChecksum(view, l4, proto, p.csumPartial !== 0, addresses, deltas & 0xffff);
    return;
  }
  if (view.getInt32(l4) === ports) return;
  view.setInt32(l4, ports);
  if (!isFragment(view, l3)) fillChecksum(view, p.bytes, l4, p.end);
}

/** Client → server. The packet is sent again from LOCAL_OUT, or goes up our own stack when the server is ourselves. */
export function fullNatRequest(director: Director, p: Packet, conn: number): Verdict {
  const { rows, local } = director.conns;
  const at = conn << CONN_SHIFT;
  const way = masqWayOut(director, p, rows[at + Dest]!);
  if (way === NONE) return DROP;
  const own = conn << LOCAL;
  const ports = (local[own + 1]! << 16) | (rows[at + Meta]! >>> 16);
  rewrite(p, local[own]!, rows[at + Rip]!, ports, rows[at + Deltas]!);
  return way === REMOTE ? REROUTE : ACCEPT;
}

/** Server → client. It came to one of our addresses, and is sent again from LOCAL_OUT. */
export function fullNatReply(director: Director, p: Packet, conn: number): Verdict {
  const { rows } = director.conns;
  const at = conn << CONN_SHIFT;
  const cip = rows[at + Cip]!;
  const way = wayTo(director, p, cip);
  if (way === NONE) return DROP;
  const ports = rows[at + Ports]!;
  rewrite(p, rows[at + Vip]!, cip, (ports << 16) | (ports >>> 16), ~rows[at + Deltas]!);
  return way === REMOTE ? REROUTE : ACCEPT;
}
