/**
 * Another payload in a TCP segment: its bytes, lengths and checksum (nf_nat_helper.c, __nf_nat_mangle_tcp_packet).
 *
 * For helpers of protocols that carry addresses in their payload, the director's and connection tracking's; what a change of length means for later
 * segments is in sequence.ts. Not for every packet: only control connections come here.
 */
import { type Packet, SLOT_SIZE } from '../packet/packet.ts';
import { fillTransportChecksum } from '../packet/sum.ts';
import { adjust, adjustPartial, diff16 } from '../wire/checksum.ts';
import * as ipv4 from '../wire/ipv4.ts';
import * as tcp from '../wire/tcp.ts';

const LONGEST = 65535;
const { Tcp: TCP } = ipv4.IpProto;

export function payloadStart(p: Packet): number {
  return p.l4 + tcp.headerLength(p.view, p.l4);
}

/**
 * Put `text` (a byte a character) in the place of the bytes `from … to` of the payload. Lengths and checksums are right afterwards; a partial checksum
 * stays partial.
 * @returns false when the packet would be longer than a packet can be; it is as it was
 */
export function replaceInPayload(p: Packet, from: number, to: number, text: string): boolean {
  const growth = text.length - (to - from);
  if (p.end - p.l3 + growth > LONGEST || p.end + growth > p.slotStart + SLOT_SIZE) return false;
  const { view, bytes, l3, l4 } = p;
  const before = p.end - l4;
  bytes.copyWithin(from + text.length, to, p.end);
  for (let i = 0; i < text.length; i++) bytes[from + i] = text.charCodeAt(i);
  p.end += growth;
  const change = diff16(ipv4.totalLength(view, l3), p.end - l3);
  ipv4.setTotalLength(view, l3, p.end - l3);
  ipv4.adjustChecksum(view, l3, change);
  const field = l4 + tcp.TCP_CHECKSUM;
  if (p.csumPartial !== 0) {
    view.setUint16(field, adjustPartial(view.getUint16(field), diff16(before, p.end - l4)));
  } else {
    fillTransportChecksum(p, l3, l4, TCP);
    p.csumValid = 0;
  }
  return true;
}

/** Another 32-bit field in the TCP header at `at`; a complete checksum follows it. */
export function setTcpField(p: Packet, at: number, value: number, change: number): void {
  const { view, l4 } = p;
  view.setInt32(at, value);
  if (p.csumPartial === 0) {
    const field = l4 + tcp.TCP_CHECKSUM;
    view.setUint16(field, adjust(view.getUint16(field), change));
  }
}
