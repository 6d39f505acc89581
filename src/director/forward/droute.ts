/**
 * Direct routing: the packet goes to the server's next hop as it is, one hop less (net/netfilter/ipvs/ip_vs_xmit.c, ip_vs_dr_xmit).   @hot
 *
 * The server has the service's address on an interface of its own and answers the client directly; we see the client's half only.
 */
import { Verdict } from '../../hooks/hooks.ts';
import { Drop } from '../../packet/drop.ts';
import type { Packet } from '../../packet/packet.ts';
import { dst } from '../../wire/ipv4.ts';
import { CONN_SHIFT, Conn } from '../connection.ts';
import type { Director } from '../director.ts';
import { WayOut, wayOut } from './way-out.ts';

const { Accept: ACCEPT, Drop: DROP, Reroute: REROUTE } = Verdict;
const { None: NONE, Remote: REMOTE } = WayOut;
const { Dest } = Conn;

/** Client → server; ICMP errors of the client's side go the same way. */
export function routeRequest(director: Director, p: Packet, conn: number): Verdict {
  const way = wayOut(director, p, director.conns.rows[(conn << CONN_SHIFT) + Dest]!, 0);
  if (way === NONE) return DROP;
  p.ipvsProperty = 1;
  return way === REMOTE ? REROUTE : deliverHere(director, p);
}

/** The server is ourselves, and nothing was translated. */
export function deliverHere(director: Director, p: Packet): Verdict {
  p.ipvsProperty = 1;
  // Our own stack takes what is addressed to us; for another's address it would need NAT.
  const { routing } = director;
  if (routing.resolve(dst(p.view, p.l3)) && routing.isLocal) return ACCEPT;
  p.drop = Drop.DirectorNoRoute;
  return DROP;
}
