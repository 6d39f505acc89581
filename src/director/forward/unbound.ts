/** A connection that is bound to no server: where its packets go.   @hot */
import type { Packet } from '../../packet/packet.ts';
import { dst } from '../../wire/ipv4.ts';
import { CONN_SHIFT, Conn, ConnFlag, Method } from '../connection.ts';
import type { Director } from '../director.ts';

const { Rip, Flags } = Conn;
const METHOD_MASK = ConnFlag.MethodMask;
const BYPASS = Method.Bypass;

/** To where the packet itself says (cache_bypass: ip_vs_xmit.c, ip_vs_bypass_xmit), or to the address that the connection brought. */
export function lendAddress(director: Director, p: Packet, conn: number): void {
  const { rows } = director.conns;
  const at = conn << CONN_SHIFT;
  const isBypass = (rows[at + Flags]! & METHOD_MASK) === BYPASS;
  director.dests.lend(isBypass ? dst(p.view, p.l3) : rows[at + Rip]!);
}
