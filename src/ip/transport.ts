/** The transport header as `ip` sees it: found and checked once on input.   @hot */
import { Drop } from '../packet/drop.ts';
import type { Packet } from '../packet/packet.ts';
import { sum } from '../packet/sum.ts';
import * as icmp from '../wire/icmpv4.ts';
import * as ipv4 from '../wire/ipv4.ts';
import * as sctp from '../wire/sctp.ts';
import * as tcp from '../wire/tcp.ts';
import * as udp from '../wire/udp.ts';

const { Tcp: TCP, Udp: UDP, Icmp: ICMP, Sctp: SCTP } = ipv4.IpProto;
const TCP_HEADER = tcp.TCP_HEADER;
const UDP_HEADER = udp.UDP_HEADER;
const ICMP_HEADER = icmp.ICMP_HEADER;
const SCTP_HEADER = sctp.SCTP_HEADER;

/** The one gate of the transport: sets l4, proto, isLaterFragment and l4Fault of a packet whose IPv4 header is sound. */
export function gateTransport(p: Packet): void {
  const { view, l3 } = p;
  const l4 = l3 + ipv4.headerLength(view, l3);
  const proto = ipv4.proto(view, l3);
  p.l4 = l4;
  p.proto = proto;
  if (ipv4.isLaterFragment(view, l3)) {
    p.isLaterFragment = 1;
    return;
  }
  if (ipv4.isFragment(view, l3)) p.l4Fault = gateFirstFragment(p, proto);
  else if (proto === TCP) p.l4Fault = gateTcp(p);
  else if (proto === UDP) p.l4Fault = gateUdp(p);
  else if (proto === ICMP) p.l4Fault = gateIcmp(p);
  else if (proto === SCTP) p.l4Fault = gateSctp(p);
}

function gateTcp(p: Packet): number {
  const fault = tcp.check(p.view, p.l4, p.end);
  if (fault === tcp.TcpFault.None) return Drop.None;
  return fault === tcp.TcpFault.TooShort ? Drop.TcpTooShort : Drop.TcpBadOffset;
}

/** Of a super-packet only the header: its length field is the kernel's business. */
function gateUdp(p: Packet): number {
  if (p.gsoType !== 0) return p.end - p.l4 < UDP_HEADER ? Drop.UdpTooShort : Drop.None;
  const fault = udp.check(p.view, p.l4, p.end);
  if (fault === udp.UdpFault.None) return Drop.None;
  return fault === udp.UdpFault.TooShort ? Drop.UdpTooShort : Drop.UdpBadLength;
}

function gateIcmp(p: Packet): number {
  const length = p.end - p.l4;
  if (length < ICMP_HEADER) return Drop.IcmpTooShort;
  return p.csumPartial !== 0 || sum(p, p.l4, length) === 0xffff ? Drop.None : Drop.IcmpBadChecksum;
}

/** Its CRC is the receiver's business, as for the kernel's director. */
function gateSctp(p: Packet): number {
  return sctp.check(p.view, p.l4, p.end) === sctp.SctpFault.None ? Drop.None : Drop.SctpTooShort;
}

/** The header must be whole in the first fragment (RFC 1858 §3); lengths and checksums are the datagram's. */
function gateFirstFragment(p: Packet, proto: number): number {
  const length = p.end - p.l4;
  if (proto === TCP) return length < TCP_HEADER ? Drop.FragmentTooShort : gateTcp(p);
  if (proto === UDP) return length < UDP_HEADER ? Drop.FragmentTooShort : Drop.None;
  if (proto === ICMP) return length < ICMP_HEADER ? Drop.FragmentTooShort : Drop.None;
  return proto === SCTP && length < SCTP_HEADER ? Drop.FragmentTooShort : Drop.None;
}
