/**
 * ICMP errors about translated flows: what they quote, and who they come from or go to, as each side knows it (nf_nat_icmp_reply_translation).   @hot
 *
 *   server ─► "10.2.0.2 > 10.2.0.100: { 10.2.0.100:40000 > 10.2.0.2:53 }"   becomes   "10.2.0.2 > 10.1.0.2: { 10.1.0.2:40000 > 10.2.0.2:53 }" ─► client
 *
 * The quoted packet went the other way, so its other end is rewritten.
 */
import { Drop } from '../packet/drop.ts';
import type { Packet } from '../packet/packet.ts';
import { sum } from '../packet/sum.ts';
import { ICMP_CHECKSUM, ICMP_HEADER, IcmpType, type } from '../wire/icmpv4.ts';
import { headerLength, IPV4_HEADER } from '../wire/ipv4.ts';
import { rewrite } from './rewrite.ts';

const HEADER = ICMP_HEADER;
const REDIRECT = IcmpType.Redirect;
const SUM = ICMP_CHECKSUM;
const { NatIcmpBad: BAD, NatIcmpRedirect: REDIRECTED } = Drop;

/** Is the error one that may pass at all? Drop.None when it is. `isTranslated`: the flow that it is about is, or may yet become so. */
export function errorFault(p: Packet, isTranslated: boolean): number {
  const { view, l4, end } = p;
  if (end - l4 < HEADER + IPV4_HEADER) return BAD;
  if (p.csumPartial === 0 && sum(p, l4, end - l4) !== 0xffff) return BAD;
  // A router's advice about a way that only it can see: it would be wrong on the other side.
  return type(view, l4) === REDIRECT && isTranslated ? REDIRECTED : Drop.None;
}

/**
 * @param isSource the outer source is rewritten, and so the quoted destination; else the other ends
 * @param ip,port the address of the outer packet's new end and of the quoted packet's, and the latter's port
 * @returns false: too short
 */
export function rewriteError(p: Packet, isSource: boolean, ip: number, port: number): boolean {
  const { view, l4 } = p;
  const inner = l4 + HEADER;
  if (inner + headerLength(view, inner) > p.end) return false;
  if (!rewrite(p, inner, !isSource, ip, port)) return false;
  if (p.csumPartial === 0) {
    view.setUint16(l4 + SUM, 0);
    view.setUint16(l4 + SUM, ~sum(p, l4, p.end - l4) & 0xffff);
  }
  return rewrite(p, p.l3, isSource, ip, 0);
}
