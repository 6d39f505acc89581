/**
 * Between the vnet header and the packet's offload fields (virtio 1.2 §5.1.6; the kernel's side is virtio_net_hdr_to_skb and
 * virtio_net_hdr_from_skb in include/linux/virtio_net.h).   @hot
 *
 * The invariants that a received packet leaves with:
 *   csumPartial = 1   the checksum field of the TCP or UDP header at `l4` holds the pseudo-header sum, `proto` is set
 *   gsoType ≠ 0       csumPartial = 1, gsoSize > 0, and the payload is longer than gsoSize
 * Every other packet has its checksum complete, by us if need be.
 */

import type { Packet } from '../packet/packet.ts';
import { fold, pseudoSum, sumBytes, sumWords } from '../wire/checksum.ts';
import * as ethernet from '../wire/ethernet.ts';
import * as ipv4 from '../wire/ipv4.ts';
import * as sctp from '../wire/sctp.ts';
import * as tcp from '../wire/tcp.ts';
import * as udp from '../wire/udp.ts';
import * as vnet from '../wire/virtio-net.ts';

const { NeedsCsum: NEEDS_CSUM, DataValid: DATA_VALID } = vnet.VnetFlag;
const { TcpV4: TCP_V4, UdpL4: UDP_L4, Ecn: ECN } = vnet.GsoType;
const { Tcp: TCP, Udp: UDP, IpIp: IPIP, Sctp: SCTP } = ipv4.IpProto;
const { Ipv4: ETHER_IPV4 } = ethernet.EtherType;
const IPV4_HEADER = ipv4.IPV4_HEADER;
const TCP_CHECKSUM = tcp.TCP_CHECKSUM;
const UDP_CHECKSUM = udp.UDP_CHECKSUM;
const UDP_HEADER = udp.UDP_HEADER;
const SCTP_HEADER = sctp.SCTP_HEADER;
const ETH_HEADER = ethernet.ETH_HEADER;

/**
 * Take the header at `header` into the offload fields of `p`, whose frame begins at `start` (l2, or l3 on an Ip device) and ends at `p.end`.
 * A frame that is no sound IPv4 packet is left as it is: the link and IP gates name what is wrong with it.
 * @returns false when the header does not fit its frame: Drop.VnetHeaderBad
 */
export function readVnet(p: Packet, header: number, start: number): boolean {
  const m = p.view;
  const flags = vnet.flags(m, header);
  const type = vnet.gsoType(m, header);
  if ((flags & DATA_VALID) !== 0) p.csumValid = 1;
  if ((flags & NEEDS_CSUM) === 0 && type === 0) return true;

  const { l3, end } = p;
  if (end - l3 < IPV4_HEADER) return true;
  if (start !== l3 && ethernet.etherType(m, start) !== ETHER_IPV4) return true;
  if (m.getUint8(l3) >> 4 !== 4) return true;
  const ipHeader = ipv4.headerLength(m, l3);
  const ipEnd = l3 + ipv4.totalLength(m, l3);
  const l4 = l3 + ipHeader;
  if (ipHeader < IPV4_HEADER || l4 > ipEnd || ipEnd > end) return true;

  const proto = ipv4.proto(m, l3);
  const isFragment = ipv4.isFragment(m, l3);
  const field = isFragment ? -1 : checksumField(m, proto, l4, ipEnd);
  const csumStart = start + vnet.csumStart(m, header);
  const isPartial = (flags & NEEDS_CSUM) !== 0;
  const isOurs = isPartial && field >= 0 && csumStart === l4 && vnet.csumOffset(m, header) === field;

  if (type !== 0) {
    if (field < 0 || (isPartial && !isOurs)) return false;
    if (proto === TCP ? (type & ~ECN) !== TCP_V4 : type !== UDP_L4) return false;
    const size = vnet.gsoSize(m, header);
    if (size === 0) return false;
    if (ipEnd - l4 - transportHeader(m, proto, l4) > size) {
      p.gsoType = type;
      p.gsoSize = size;
      // A receiver's large receive may say TCPV4 without NEEDS_CSUM; the sum over many segments means nothing to either, so start it anew.
      if (!isPartial) m.setUint16(l4 + field, fold(pseudoSum(ipv4.src(m, l3), ipv4.dst(m, l3), proto, ipEnd - l4)));
      setPartial(p, l4, proto);
      return true;
    }
  }
  if (isOurs) setPartial(p, l4, proto);
  else if (isPartial && proto === SCTP) return completeSctp(p, l4, ipEnd, csumStart);
  else if (isPartial) return complete(p, csumStart, csumStart + vnet.csumOffset(m, header));
  return true;
}

/**
 * Write the header that says at `header` what the offload fields of `p` say; the frame begins at `start`.
 * @returns false when no header can say it: a super-packet in a tunnel, a partial checksum of neither TCP nor UDP
 */
export function writeVnet(p: Packet, header: number, start: number): boolean {
  const m = p.view;
  if (p.csumPartial === 0) {
    vnet.emit(m, header, 0, 0, 0, 0, 0, 0);
    return p.gsoType === 0;
  }
  const l4 = innerTransport(p);
  const proto = innerProto;
  const field = checksumField(m, proto, l4, p.end);
  if (field < 0) return false;
  const headerEnd = l4 + transportHeader(m, proto, l4);
  // The kernel refuses to cut a super-packet that is one segment long (tcp_gso_segment).
  const isSuper = p.gsoType !== 0 && p.end - headerEnd > p.gsoSize;
  if (isSuper && l4 !== p.l4) return false;
  vnet.emit(
    m,
    header,
    NEEDS_CSUM,
    isSuper ? p.gsoType : 0,
    headerEnd - start,
    isSuper ? p.gsoSize : 0,
    l4 - start,
    field,
  );
  return true;
}

/**
 * Complete a partial checksum for a device that takes none.
 * @returns false when that can't be done (a super-packet, or neither TCP nor UDP)
 */
export function completeChecksum(p: Packet): boolean {
  if (p.gsoType !== 0) return false;
  if (p.csumPartial === 0) return true;
  const l4 = innerTransport(p);
  const field = checksumField(p.view, innerProto, l4, p.end);
  return field >= 0 && complete(p, l4, l4 + field);
}

/** Protocol that the last `innerTransport` found. */
let innerProto = 0;

/** Offset of the transport header that the checksum fields speak of: `l4`, or the one inside when l4 is an IPv4 header in a tunnel. */
function innerTransport(p: Packet): number {
  const m = p.view;
  let l4 = p.l4;
  innerProto = p.proto;
  while (innerProto === IPIP && p.end - l4 >= IPV4_HEADER && ipv4.headerLength(m, l4) >= IPV4_HEADER) {
    innerProto = ipv4.proto(m, l4);
    l4 += ipv4.headerLength(m, l4);
  }
  return l4;
}

/** Offset of the checksum in the transport header, -1 when the protocol has none for us or the header is not whole. */
function checksumField(m: DataView, proto: number, l4: number, end: number): number {
  if (proto === TCP) return tcp.check(m, l4, end) === 0 ? TCP_CHECKSUM : -1;
  if (proto === UDP) return end - l4 >= UDP_HEADER ? UDP_CHECKSUM : -1;
  return -1;
}

/** Bytes; proto is TCP or UDP and the header was checked. */
function transportHeader(m: DataView, proto: number, l4: number): number {
  return proto === TCP ? tcp.headerLength(m, l4) : UDP_HEADER;
}

function setPartial(p: Packet, l4: number, proto: number): void {
  p.csumPartial = 1;
  p.l4 = l4;
  p.proto = proto;
}

/** Sum `from … end` into the field at `field`; what stands in the field counts (it is the pseudo-header's part). */
function complete(p: Packet, from: number, field: number): boolean {
  if (from < p.l2 + ETH_HEADER || field < from || field + 2 > p.end) return false;
  const length = p.end - from;
  const sum = (from & 1) === 0 ? sumWords(p.view, p.words, from, length) : sumBytes(p.view, from, length);
  const checksum = ~sum & 0xffff;
  // As skb_checksum_help: 0 would mean "no checksum" in UDP, and 0xffff is the same sum.
  p.view.setUint16(field, checksum === 0 ? 0xffff : checksum);
  p.csumPartial = 0;
  p.csumValid = 1;
  return true;
}

/** The vnet header has no word for a CRC, yet the kernel says NEEDS_CSUM for SCTP too (skb->csum_not_inet). */
function completeSctp(p: Packet, l4: number, end: number, csumStart: number): boolean {
  if (csumStart !== l4 || end - l4 < SCTP_HEADER) return false;
  sctp.fillChecksum(p.view, p.bytes, l4, end);
  p.csumValid = 1;
  return true;
}
