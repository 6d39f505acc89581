/**
 * Writing another source or destination into a packet: address, port or id, and every checksum that covers them (nf_nat_proto.c, nf_nat_ipv4_manip_pkt).   @hot
 *
 * Internet checksums change by differences (RFC 1624; packet/sum.ts): a wrong one stays wrong. SCTP's CRC is computed anew, as the kernel does. What stands in
 * an ICMP error is cut short: its ports are there, its checksum may not be.
 */
import type { Packet } from '../packet/packet.ts';
import { changeTransportChecksum } from '../packet/sum.ts';
import { adjust, diff16, diff32, fold } from '../wire/checksum.ts';
import { ICMP_CHECKSUM, ICMP_HEADER } from '../wire/icmpv4.ts';
import * as ipv4 from '../wire/ipv4.ts';
import * as sctp from '../wire/sctp.ts';
import { TCP_HEADER } from '../wire/tcp.ts';
import { UDP_CHECKSUM, UDP_HEADER } from '../wire/udp.ts';

const { Tcp: TCP, Udp: UDP, UdpLite: UDPLITE, Icmp: ICMP, Sctp: SCTP, Gre: GRE } = ipv4.IpProto;
const ICMP_LENGTH = ICMP_HEADER;
const TCP_LENGTH = TCP_HEADER;
const UDP_LENGTH = UDP_HEADER;
const SCTP_LENGTH = sctp.SCTP_HEADER;
const UDP_SUM = UDP_CHECKSUM;
const ICMP_SUM = ICMP_CHECKSUM;
/** What of TCP, SCTP and PPTP's GRE is there even in an ICMP error. */
const QUOTED = 8;
const SRC_PORT = 0;
const DST_PORT = 2;
const ICMP_ID = 4;
const GRE_VERSION = 7;
const GRE_CALL_ID = 6;
/** Bit n: ICMP type n has an id (echo, timestamp, information, address mask, and their replies). */
const HAS_ID = 0x7e101;

/**
 * Give the IPv4 packet at `l3` of `p` another source or destination. `port` is a port, an ICMP id or a GRE key, whatever the protocol has.
 * @returns false when its transport header is too short for that; the packet is as it was
 */
export function rewrite(p: Packet, l3: number, isSource: boolean, ip: number, port: number): boolean {
  const { view } = p;
  const isQuoted = l3 !== p.l3;
  const before = isSource ? ipv4.src(view, l3) : ipv4.dst(view, l3);
  const addresses = diff32(before, ip);
  const l4 = l3 + ipv4.headerLength(view, l3);
  if (!rewriteTransport(p, l4, ipv4.proto(view, l3), isQuoted, isSource, port, addresses)) return false;
  if (isSource) ipv4.setSrc(view, l3, ip);
  else ipv4.setDst(view, l3, ip);
  ipv4.adjustChecksum(view, l3, addresses);
  return true;
}

function rewriteTransport(
  p: Packet,
  l4: number,
  proto: number,
  isQuoted: boolean,
  isSource: boolean,
  port: number,
  addresses: number,
): boolean {
  const room = p.end - l4;
  const at = l4 + (isSource ? SRC_PORT : DST_PORT);
  switch (proto) {
    case TCP:
      if (room < QUOTED) return false;
      setPort(p, at, port, l4, TCP, isQuoted, room >= TCP_LENGTH, addresses);
      return true;
    case UDP:
      if (room < UDP_LENGTH) return false;
      setPort(p, at, port, l4, UDP, isQuoted, true, addresses);
      return true;
    case UDPLITE:
      if (room < UDP_LENGTH) return false;
      setUdpLitePort(p.view, at, port, l4, addresses);
      return true;
    case SCTP:
      if (room < QUOTED) return false;
      p.view.setUint16(at, port);
      if (room >= SCTP_LENGTH) sctp.fillChecksum(p.view, p.bytes, l4, p.end);
      return true;
    case ICMP:
      if (room < ICMP_LENGTH) return false;
      setIcmpId(p.view, l4, port);
      return true;
    case GRE:
      return room >= QUOTED && setGreKey(p.view, l4, isSource, port);
    default:
      return true;
  }
}

function setPort(
  p: Packet,
  at: number,
  port: number,
  l4: number,
  proto: number,
  isQuoted: boolean,
  hasChecksum: boolean,
  addresses: number,
): void {
  const { view } = p;
  const all = fold(addresses + diff16(view.getUint16(at), port));
  view.setUint16(at, port);
  if (hasChecksum) changeTransportChecksum(view, l4, proto, p.csumPartial !== 0 && !isQuoted, addresses, all);
}

/** RFC 3828 §3.1: the checksum is never absent. */
function setUdpLitePort(view: DataView, at: number, port: number, l4: number, addresses: number): void {
  const all = fold(addresses + diff16(view.getUint16(at), port));
  view.setUint16(at, port);
  const sum = adjust(view.getUint16(l4 + UDP_SUM), all);
  view.setUint16(l4 + UDP_SUM, sum === 0 ? 0xffff : sum);
}

/** Errors have no id. */
function setIcmpId(view: DataView, l4: number, id: number): void {
  const type = view.getUint8(l4);
  if (type > 18 || ((HAS_ID >>> type) & 1) === 0) return;
  const change = diff16(view.getUint16(l4 + ICMP_ID), id);
  view.setUint16(l4 + ICMP_ID, id);
  view.setUint16(l4 + ICMP_SUM, adjust(view.getUint16(l4 + ICMP_SUM), change));
}

/** gre_manip_pkt: only the call id of PPTP (version 1) is in the packet, and only that of its receiver; RFC 2637 §4.1. */
function setGreKey(view: DataView, l4: number, isSource: boolean, key: number): boolean {
  if (isSource) return true;
  const version = view.getUint8(l4 + 1) & GRE_VERSION;
  if (version === 1) view.setUint16(l4 + GRE_CALL_ID, key);
  return version <= 1;
}
