/**
 * Fragmentation, RFC 791 §3.2.   @hot
 *
 * The original becomes the last fragment, the others are copied out of it before: so order holds and every packet is accounted for. Options whose copied
 * flag is not set stay in the first fragment alone.
 */
import { bear } from '../link/link.ts';
import type { Packet } from '../packet/packet.ts';
import { ETH_HEADER } from '../wire/ethernet.ts';
import * as ipv4 from '../wire/ipv4.ts';
import type { IpStack } from './stack.ts';

const { DF, MF, IPV4_HEADER } = ipv4;
const OFFSET = 0x1fff;
const COPIED = 0x80;
const OPTION_END = 0;
const OPTION_NOP = 1;

/** What takes the fragments, in order, and owns them then. */
export type FragmentSink = (stack: IpStack, p: Packet) => void;

/** Cut `p` (complete checksum, no super-packet, longer than `mtu` ≥ 68) into pieces and give them to `sink`. */
export function fragment(stack: IpStack, p: Packet, mtu: number, sink: FragmentSink): void {
  const { view, bytes, l3 } = p;
  const firstHeader = ipv4.headerLength(view, l3);
  const word = ipv4.fragmentWord(view, l3) & ~DF;
  const more = word & MF;
  let offset = word & OFFSET;
  let header = firstHeader;
  let from = l3 + firstHeader;
  for (;;) {
    const chunk = (mtu - header) & ~7;
    if (p.end - from <= chunk) break;
    const q = bear(stack.link, ETH_HEADER + header + chunk);
    if (q !== null) {
      bytes.copyWithin(q.l3, l3, l3 + header);
      bytes.copyWithin(q.l3 + header, from, from + chunk);
      inherit(q, p, header);
      finishHeader(q, header + chunk, MF | offset);
      sink(stack, q);
    }
    from += chunk;
    offset += chunk >> 3;
    // From the second piece on only the copied options: written once, in the original's header, which the first piece has left.
    if (header === firstHeader) header = keepCopiedOptions(p, firstHeader);
  }
  bytes.copyWithin(l3 + header, from, p.end);
  p.end = l3 + header + (p.end - from);
  p.l4 = l3 + header;
  p.isLaterFragment = offset === 0 ? 0 : 1;
  p.inner = 0;
  finishHeader(p, p.end - l3, more | offset);
  sink(stack, p);
}

function inherit(q: Packet, p: Packet, header: number): void {
  q.l4 = q.l3 + header;
  q.proto = p.proto;
  q.inDevice = p.inDevice;
  q.outDevice = p.outDevice;
  q.isLocalOut = p.isLocalOut;
  q.nexthop = p.nexthop;
  q.mtu = p.mtu;
  q.mark = p.mark;
  q.ipvsProperty = p.ipvsProperty;
}

function finishHeader(p: Packet, length: number, word: number): void {
  ipv4.setTotalLength(p.view, p.l3, length);
  ipv4.setFragmentWord(p.view, p.l3, word);
  ipv4.fillChecksum(p.view, p.l3);
}

/** Squeeze the header's options to those with the copied flag, padded to a whole word; answers the new header length. */
function keepCopiedOptions(p: Packet, headerLength: number): number {
  const { view, bytes, l3 } = p;
  const end = l3 + headerLength;
  let to = l3 + IPV4_HEADER;
  let at = to;
  while (at < end) {
    const type = view.getUint8(at);
    if (type === OPTION_END) break;
    const length = type === OPTION_NOP ? 1 : at + 1 < end ? view.getUint8(at + 1) : 0;
    if (length === 0 || at + length > end) break;
    if ((type & COPIED) !== 0) {
      bytes.copyWithin(to, at, at + length);
      to += length;
    }
    at += length;
  }
  while (((to - l3) & 3) !== 0) view.setUint8(to++, OPTION_END);
  view.setUint8(l3, 0x40 | ((to - l3) >> 2));
  return to - l3;
}
