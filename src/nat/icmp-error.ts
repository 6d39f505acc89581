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
import { headerLength, IPV4_HEADER, IpProto, proto } from '../wire/ipv4.ts';
import { SCTP_HEADER } from '../wire/sctp.ts';
import { TCP_HEADER } from '../wire/tcp.ts';
import { rewrite } from './rewrite.ts';

const HEADER = ICMP_HEADER;
const { Tcp: TCP, Udp: UDP, UdpLite: UDPLITE, Icmp: ICMP, Sctp: SCTP } = IpProto;
/** What is touched of a quoted transport header, TCP's and SCTP's checksum excepted. */
const PORTS = 8;
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

/** Both headers must be in one piece to be looked at. */
export function drawHeaders(p: Packet): void {
  if (p.fragMax !== 0) p.drawn = Math.max(p.drawn, HEADER + IPV4_HEADER);
}

/** And of the quoted packet as much as rewriting touches (l4proto_manip_pkt). */
function drawQuoted(p: Packet, inner: number): void {
  const l4 = inner + headerLength(p.view, inner);
  p.drawn = Math.max(p.drawn, l4 - p.l4 + touched(proto(p.view, inner), p.end - l4));
}

function touched(protocol: number, length: number): number {
  if (protocol === TCP && length >= TCP_HEADER) return TCP_HEADER;
  if (protocol === SCTP && length >= SCTP_HEADER) return SCTP_HEADER;
  return protocol === TCP || protocol === SCTP || protocol === UDP || protocol === ICMP || protocol === UDPLITE
    ? PORTS
    : 0;
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
  if (p.fragMax !== 0) drawQuoted(p, inner);
  if (p.csumPartial === 0) {
    view.setUint16(l4 + SUM, 0);
    view.setUint16(l4 + SUM, ~sum(p, l4, p.end - l4) & 0xffff);
  }
  return rewrite(p, p.l3, isSource, ip, 0);
}
