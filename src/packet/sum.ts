/**
 * Transport checksums of a packet, also of one that stands in a tunnel.   @hot
 *
 * `Packet.inner` says which IPv4 header the transport, `csumPartial` and the GSO fields belong to.
 */
import { adjust, adjustPartial, fold, pseudoSum, sumBytes, sumWords } from '../wire/checksum.ts';
import * as ipv4 from '../wire/ipv4.ts';
import { TCP_CHECKSUM } from '../wire/tcp.ts';
import { UDP_CHECKSUM } from '../wire/udp.ts';
import type { Packet } from './packet.ts';

const { Tcp: TCP, Udp: UDP } = ipv4.IpProto;
const TCP_SUM = TCP_CHECKSUM;
const UDP_SUM = UDP_CHECKSUM;
const UDP_LENGTH = 4;
const UDP_LITE_HEADER = 8;

/** Folded sum of `length` bytes at `at`: by words where the memory allows. */
export function sum(p: Packet, at: number, length: number): number {
  return (at & 1) === 0 ? sumWords(p.view, p.words, at, length) : sumBytes(p.view, at, length);
}

/** Finish a partial checksum. The field holds the pseudo-header's sum, so the sum over all is already that of both. */
export function completeChecksum(p: Packet): void {
  if (p.csumPartial === 0) return;
  p.csumPartial = 0;
  const { view } = p;
  const l3 = p.l3 + p.inner;
  const l4 = l3 + ipv4.headerLength(view, l3);
  const proto = ipv4.proto(view, l3);
  const value = ~sum(p, l4, p.end - l4) & 0xffff;
  if (proto === TCP) view.setUint16(l4 + TCP_SUM, value);
  else if (proto === UDP) view.setUint16(l4 + UDP_SUM, value === 0 ? 0xffff : value);
}

/** Sum and set the whole transport checksum of the TCP or UDP at `l4 … end` below the IPv4 header at `l3`. */
export function fillTransportChecksum(p: Packet, l3: number, l4: number, proto: number): void {
  const { view } = p;
  const length = p.end - l4;
  const pseudo = fold(pseudoSum(ipv4.src(view, l3), ipv4.dst(view, l3), proto, length));
  const at = l4 + (proto === TCP ? TCP_SUM : UDP_SUM);
  view.setUint16(at, 0);
  const value = ~fold(pseudo + sum(p, l4, length)) & 0xffff;
  // RFC 768: a computed zero is sent as all ones; zero means "none".
  view.setUint16(at, value === 0 && proto === UDP ? 0xffff : value);
}

/** Set the checksum to the pseudo-header's sum alone, for whoever sums the rest later. */
export function fillPartialChecksum(p: Packet, l3: number, l4: number, proto: number): void {
  const { view } = p;
  const pseudo = pseudoSum(ipv4.src(view, l3), ipv4.dst(view, l3), proto, p.end - l4);
  view.setUint16(l4 + (proto === TCP ? TCP_SUM : UDP_SUM), fold(pseudo));
}

/**
 * The checksum of the TCP or UDP header at `l4` after a change: `addresses` is what changed in the pseudo-header, `all` that and the ports (diff32, diff16 and
 * their sums). A partial checksum covers the addresses alone, and is not complemented. RFC 768: a UDP checksum of 0 means "none" and stays; one that comes out as
 * 0 is sent as 0xffff.
 */
export function changeTransportChecksum(
  view: DataView,
  l4: number,
  proto: number,
  isPartial: boolean,
  addresses: number,
  all: number,
): void {
  if (proto === TCP) {
    const sum = view.getUint16(l4 + TCP_SUM);
    view.setUint16(l4 + TCP_SUM, isPartial ? adjustPartial(sum, addresses) : adjust(sum, all));
    return;
  }
  const sum = view.getUint16(l4 + UDP_SUM);
  if (isPartial) {
    view.setUint16(l4 + UDP_SUM, adjustPartial(sum, addresses));
  } else if (sum !== 0) {
    const adjusted = adjust(sum, all);
    view.setUint16(l4 + UDP_SUM, adjusted === 0 ? 0xffff : adjusted);
  }
}

/** Is the checksum of the (whole, sound) TCP or UDP at l4 right, or vouched for? */
export function isTransportSumRight(p: Packet): boolean {
  if (p.csumPartial !== 0 || p.csumValid !== 0 || p.gsoType !== 0) return true;
  const { view, l3, l4 } = p;
  let length = p.end - l4;
  if (p.proto === UDP) {
    if (view.getUint16(l4 + UDP_SUM) === 0) return true;
    length = view.getUint16(l4 + UDP_LENGTH);
  }
  const pseudo = fold(pseudoSum(ipv4.src(view, l3), ipv4.dst(view, l3), p.proto, length));
  return fold(pseudo + sum(p, l4, length)) === 0xffff;
}

/** Is the UDP-Lite (RFC 3828) at l4 whole, covered as it says, and right? Its checksum is never optional. */
export function isUdpLiteRight(p: Packet): boolean {
  const { view, l3, l4 } = p;
  const length = p.end - l4;
  if (length < UDP_LITE_HEADER || view.getUint16(l4 + UDP_SUM) === 0) return false;
  const said = view.getUint16(l4 + UDP_LENGTH);
  const covered = said === 0 ? length : said;
  if (covered < UDP_LITE_HEADER || covered > length) return false;
  const pseudo = fold(pseudoSum(ipv4.src(view, l3), ipv4.dst(view, l3), p.proto, length));
  return fold(pseudo + sum(p, l4, covered)) === 0xffff;
}
