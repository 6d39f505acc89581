/**
 * The director beside connection tracking (net/netfilter/ipvs/ip_vs_nfct.c, ip_vs_xmit.c: ip_vs_notrack, ip_vs_update_conntrack).   @hot
 *
 * With `net.ipv4.vs.conntrack` 0 a balanced packet is nobody's but the director's: UNTRACKED from here on. With 1 its entry stays, and when it is new its answers
 * are expected from the real server, so that rules and translation behind us find the connection. What a connection began with stays with it.
 */
import { Verdict } from '../hooks/hooks.ts';
import type { Packet } from '../packet/packet.ts';
import { CONN_SHIFT, Conn, ConnFlag, Method } from './connection.ts';
import type { Director } from './director.ts';

const { Accept: ACCEPT } = Verdict;
const { Flags, Cip, Vip, Rip, Ports, Meta } = Conn;
const { MethodMask: METHOD_MASK, Tracked: TRACKED, OnePacket: ONE_PACKET } = ConnFlag;
const { Masq: MASQ, Tunnel: TUNNEL } = Method;

/** A packet of the client is about to be sent to its server. Accept, or how it ends. */
export function trackRequest(director: Director, p: Packet, conn: number): Verdict {
  const { tracking } = director;
  if (tracking === null || !tracking.isInUse) return ACCEPT;
  const { rows } = director.conns;
  const at = conn << CONN_SHIFT;
  const flags = rows[at + Flags]!;
  const method = flags & METHOD_MASK;
  if (method === TUNNEL) {
    const verdict = (flags & TRACKED) !== 0 ? tracking.confirm(p) : ACCEPT;
    // What goes into the tunnel is seen as its own connection.
    if (verdict === ACCEPT) tracking.forget(p);
    return verdict;
  }
  if ((flags & TRACKED) === 0) tracking.untrack(p);
  else if (method === MASQ && (flags & ONE_PACKET) === 0) {
    tracking.answersComeFrom(p, rows[at + Rip]!, rows[at + Meta]! >>> 16);
  }
  return ACCEPT;
}

/** A packet of the server is about to be sent to its client. */
export function trackReply(director: Director, p: Packet, conn: number): void {
  const { tracking } = director;
  if (tracking === null || !tracking.isInUse) return;
  const { rows } = director.conns;
  const at = conn << CONN_SHIFT;
  const flags = rows[at + Flags]!;
  if ((flags & TRACKED) === 0) tracking.untrack(p);
  else if ((flags & METHOD_MASK) === MASQ && (flags & ONE_PACKET) === 0) {
    tracking.answersGoTo(p, rows[at + Vip]!, rows[at + Ports]! & 0xffff);
  }
}

/** Would a new connection of this client port meet the entry of the old one (ip_vs_conn_uses_old_conntrack)? Then its packet must come again, for the entry is in its way. */
export function meetsOldEntry(director: Director, p: Packet, conn: number): boolean {
  if ((director.conns.rows[(conn << CONN_SHIFT) + Flags]! & TRACKED) === 0) return false;
  return director.tracking?.isConfirmed(p) === true;
}

/** The answer of an FTP server has announced the client's connection `data` (ip_vs_nfct_expect_related): for rules it is RELATED, if the control connection has a helper. */
export function announceTracked(director: Director, p: Packet, data: number): void {
  const { rows } = director.conns;
  const at = data << CONN_SHIFT;
  director.tracking?.announce(p, rows[at + Cip]!, rows[at + Vip]!, rows[at + Ports]! & 0xffff);
}

/** The connection ends, and its entry with it (ip_vs_conn_drop_conntrack). */
export function endTracked(director: Director, conn: number): void {
  const { rows } = director.conns;
  const at = conn << CONN_SHIFT;
  if ((rows[at + Flags]! & TRACKED) === 0) return;
  director.tracking?.end(rows[at + Cip]!, rows[at + Vip]!, rows[at + Ports]!, (rows[at + Meta]! >> 8) & 0xff);
}
