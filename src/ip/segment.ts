/**
 * Software segmentation of super-packets, for devices that take none and for tunnels, which the vnet header cannot describe.   @hot
 *
 * As the kernel's tcp_gso_segment and __udp_gso_segment: every segment gets the headers of the whole; IP identification counts up, FIN and PSH stay with the
 * last segment, CWR with the first (RFC 3168 §6.1.2). The original becomes the last segment, the others are copied out of it before.
 *
 * In bulk through a tunnel this is most of what tapvs does. So what all full segments of TCP have in common is summed once (`Cut`), and of each only
 * the payload, identification, sequence number and flags.
 */
import { bear } from '../link/link.ts';
import { goLike, type Packet } from '../packet/packet.ts';
import { fillPartialChecksum, fillTransportChecksum, sum } from '../packet/sum.ts';
import { fold, pseudoSum, sumBytes } from '../wire/checksum.ts';
import { ETH_HEADER } from '../wire/ethernet.ts';
import * as gre from '../wire/gre.ts';
import * as gue from '../wire/gue.ts';
import * as ipv4 from '../wire/ipv4.ts';
import * as tcp from '../wire/tcp.ts';
import * as udp from '../wire/udp.ts';
import type { IpStack } from './stack.ts';

const { Tcp: TCP, Udp: UDP, Gre: GRE } = ipv4.IpProto;
const { Fin: FIN, Psh: PSH, Cwr: CWR } = tcp.TcpFlag;
const UDP_HEADER = udp.UDP_HEADER;
const UDP_LENGTH = 4;
const NO_CHECKSUM = 0;

/** Of the super-packet that is being cut: ones' complement sums of its headers without what differs from segment to segment. */
const cut = { outerSum: 0, outerId: 0, innerSum: 0, innerId: 0, tcpSum: 0, seq: 0 };

/** What takes the segments, in order, and owns them then. */
export type SegmentSink = (stack: IpStack, p: Packet) => void;

/** Length of one full segment from l3 on, bytes. */
export function segmentLength(p: Packet): number {
  return headersLength(p) + p.gsoSize;
}

/** All headers up to the payload, from l3 on. */
function headersLength(p: Packet): number {
  const { view } = p;
  const inner = p.l3 + p.inner;
  const l4 = inner + ipv4.headerLength(view, inner);
  const isTcp = ipv4.proto(view, inner) === TCP;
  return l4 - p.l3 + (isTcp ? tcp.headerLength(view, l4) : UDP_HEADER);
}

/** Cut a super-packet into segments with complete checksums and give them to `sink`. */
export function segment(stack: IpStack, p: Packet, sink: SegmentSink): void {
  const { view, bytes, l3 } = p;
  const headers = headersLength(p);
  const size = p.gsoSize;
  const inner = p.inner;
  const l4 = inner + ipv4.headerLength(view, l3 + inner);
  const isTcp = ipv4.proto(view, l3 + inner) === TCP;
  const flags = isTcp ? tcp.flags(view, l3 + l4) : 0;
  const isPlain = isTcp && (inner === 0 || !isTunnelSummed(p));
  if (isPlain) prepare(p, inner, l4, headers, size);
  let from = l3 + headers;
  let index = 0;
  p.gsoType = 0;
  p.gsoSize = 0;
  p.csumPartial = 0;
  p.csumValid = 0;
  for (; p.end - from > size; index++) {
    const q = bear(stack.link, ETH_HEADER + headers + size);
    if (q !== null) {
      bytes.copyWithin(q.l3, l3, l3 + headers);
      bytes.copyWithin(q.l3 + headers, from, from + size);
      inherit(q, p);
      const own = flags & ~(FIN | PSH | (index === 0 ? 0 : CWR));
      if (isPlain) finishPlain(q, inner, l4, headers, size, index, own);
      else finishSegment(q, inner, l4, isTcp, index, index * size, own);
      sink(stack, q);
    }
    from += size;
  }
  bytes.copyWithin(l3 + headers, from, p.end);
  p.end = l3 + headers + (p.end - from);
  finishSegment(p, inner, l4, isTcp, index, index * size, index === 0 ? flags : flags & ~CWR);
  sink(stack, p);
}

/** Is there a checksum between the two IPv4 headers, or one that is left to the server? */
function isTunnelSummed(p: Packet): boolean {
  const { view, l4 } = p;
  if (p.proto === UDP) return udp.checksum(view, l4) !== NO_CHECKSUM || gue.hasRemcsum(view, l4 + UDP_HEADER);
  return p.proto === GRE && gre.hasChecksum(view, l4);
}

/** The lengths of a full segment into the headers of the whole, and their sums into `cut`. */
function prepare(p: Packet, inner: number, l4: number, headers: number, size: number): void {
  const { view, l3 } = p;
  const length = headers + size;
  if (p.proto === UDP) view.setUint16(p.l4 + UDP_LENGTH, length - (p.l4 - l3));
  cut.outerId = ipv4.id(view, l3);
  cut.outerSum = sumWithoutId(p, l3, length);
  if (inner !== 0) {
    cut.innerId = ipv4.id(view, l3 + inner);
    cut.innerSum = sumWithoutId(p, l3 + inner, length - inner);
  }
  const at = l3 + l4;
  const seq = tcp.seq(view, at);
  const flags = tcp.flags(view, at);
  cut.seq = seq;
  tcp.setSeq(view, at, 0);
  tcp.setFlags(view, at, 0);
  tcp.setChecksum(view, at, 0);
  const pseudo = pseudoSum(ipv4.src(view, l3 + inner), ipv4.dst(view, l3 + inner), TCP, length - l4);
  cut.tcpSum = fold(pseudo + sumBytes(view, at, headers - l4));
  tcp.setSeq(view, at, seq);
  tcp.setFlags(view, at, flags);
}

function sumWithoutId(p: Packet, l3: number, length: number): number {
  const { view } = p;
  const id = ipv4.id(view, l3);
  ipv4.setTotalLength(view, l3, length);
  ipv4.setId(view, l3, 0);
  ipv4.setChecksum(view, l3, 0);
  const sum = sumBytes(view, l3, ipv4.headerLength(view, l3));
  ipv4.setId(view, l3, id);
  return sum;
}

/** What finishSegment does, for a full segment whose headers were prepared. */
function finishPlain(
  q: Packet,
  inner: number,
  l4: number,
  headers: number,
  size: number,
  index: number,
  flags: number,
): void {
  const { view, l3 } = q;
  const id = (cut.outerId + index) & 0xffff;
  ipv4.setId(view, l3, id);
  ipv4.setChecksum(view, l3, ~fold(cut.outerSum + id) & 0xffff);
  if (inner !== 0) {
    const innerId = (cut.innerId + index) & 0xffff;
    ipv4.setId(view, l3 + inner, innerId);
    ipv4.setChecksum(view, l3 + inner, ~fold(cut.innerSum + innerId) & 0xffff);
  }
  const at = l3 + l4;
  const seq = (cut.seq + index * size) | 0;
  tcp.setSeq(view, at, seq);
  tcp.setFlags(view, at, flags);
  const own = (seq >>> 16) + (seq & 0xffff) + flags;
  tcp.setChecksum(view, at, ~fold(cut.tcpSum + own + sum(q, l3 + headers, size)) & 0xffff);
}

function inherit(q: Packet, p: Packet): void {
  q.l4 = q.l3 + (p.l4 - p.l3);
  q.inner = p.inner;
  q.flow = p.flow;
  goLike(q, p);
}

/** Lengths, identification, sequence number, flags and checksums of segment `index`, whose payload starts `at` bytes into the whole. */
function finishSegment(
  q: Packet,
  inner: number,
  l4: number,
  isTcp: boolean,
  index: number,
  at: number,
  flags: number,
): void {
  const { view, l3 } = q;
  finishIp(q, l3, index);
  if (inner !== 0) finishIp(q, l3 + inner, index);
  if (isTcp) {
    tcp.setSeq(view, l3 + l4, (tcp.seq(view, l3 + l4) + at) | 0);
    tcp.setFlags(view, l3 + l4, flags);
  } else {
    view.setUint16(l3 + l4 + UDP_LENGTH, q.end - l3 - l4);
  }
  const proto = isTcp ? TCP : UDP;
  if (inner !== 0 && q.proto === UDP && gue.hasRemcsum(view, q.l4 + UDP_HEADER)) {
    fillPartialChecksum(q, l3 + inner, l3 + l4, proto);
  } else {
    fillTransportChecksum(q, l3 + inner, l3 + l4, proto);
  }
  if (inner !== 0) finishTunnel(q);
}

/** What stands between the two IPv4 headers: GRE's checksum, UDP's length and checksum, where the whole has one. */
function finishTunnel(q: Packet): void {
  const { view, l4, end } = q;
  if (q.proto === UDP) {
    view.setUint16(l4 + UDP_LENGTH, end - l4);
    if (udp.checksum(view, l4) !== NO_CHECKSUM) fillTransportChecksum(q, q.l3, l4, UDP);
  } else if (q.proto === GRE && gre.hasChecksum(view, l4)) {
    gre.setChecksum(view, l4, 0);
    gre.setChecksum(view, l4, ~sum(q, l4, end - l4) & 0xffff);
  }
}

function finishIp(q: Packet, l3: number, index: number): void {
  ipv4.setTotalLength(q.view, l3, q.end - l3);
  ipv4.setId(q.view, l3, (ipv4.id(q.view, l3) + index) & 0xffff);
  ipv4.fillChecksum(q.view, l3);
}
