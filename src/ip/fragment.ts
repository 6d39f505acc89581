/**
 * Fragmentation, RFC 791 §3.2.   @hot
 *
 * The original becomes the last fragment, the others are copied out of it before: so order holds and every packet is accounted for. Options whose copied
 * flag is not set are no-ops in all but the first (ip_options_fragment). As ip_do_fragment (net/ipv4/ip_output.c): a datagram that came in pieces leaves in the same ones where
 * they fit, without DF, and else is cut anew.
 */
import { bear } from '../link/link.ts';
import { goLike, type Packet } from '../packet/packet.ts';
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

/** Cut `p` (complete checksum, no super-packet, `mtu` ≥ 68) into pieces that fit and give them to `sink`. @param df DF of the pieces, or 0 */
export function fragment(stack: IpStack, p: Packet, mtu: number, sink: FragmentSink, df = 0): void {
  cut(stack, p, mtu, false, df, sink);
}

/** Does the datagram fit in the pieces that it came in? Not if it was changed in length, or wrapped. */
export function canRefragment(stack: IpStack, p: Packet, mtu: number): boolean {
  const { fragments } = stack;
  if (p.drawn !== 0) fragments.draw(p);
  const count = fragments.cutCount(p);
  if (count === 0 || p.inner !== 0 || ipv4.isFragment(p.view, p.l3)) return false;
  const room = mtu - ipv4.headerLength(p.view, p.l3);
  let length = 0;
  for (let i = 0; i < count; i++) {
    const piece = fragments.cut(p, i);
    if (piece > room || ((piece & 7) !== 0 && i < count - 1)) return false;
    length += piece;
  }
  return length === p.end - p.l3 - ipv4.headerLength(p.view, p.l3);
}

/** Into the pieces that it came in; see canRefragment. */
export function refragment(stack: IpStack, p: Packet, sink: FragmentSink): void {
  cut(stack, p, 0, true, 0, sink);
}

function cut(stack: IpStack, p: Packet, mtu: number, isAsCame: boolean, df: number, sink: FragmentSink): void {
  const { view, bytes, l3 } = p;
  const { fragments } = stack;
  const header = ipv4.headerLength(view, l3);
  const word = (ipv4.fragmentWord(view, l3) & ~DF) | df;
  const more = word & (MF | DF);
  let offset = word & OFFSET;
  let from = l3 + header;
  for (let i = 0; ; i++) {
    const chunk = isAsCame ? fragments.cut(p, i) : (mtu - header) & ~7;
    if (p.end - from <= (isAsCame ? chunk : mtu - header)) break;
    const q = bear(stack.link, ETH_HEADER + header + chunk);
    if (q !== null) {
      bytes.copyWithin(q.l3, l3, l3 + header);
      bytes.copyWithin(q.l3 + header, from, from + chunk);
      q.l4 = q.l3 + header;
      goLike(q, p);
      finishHeader(q, header + chunk, MF | df | offset);
      sink(stack, q);
    }
    from += chunk;
    offset += chunk >> 3;
    // From the second piece on only the copied options: written once, in the original's header, which the first piece has left.
    if (i === 0 && header !== IPV4_HEADER) keepCopiedOptions(p, header);
  }
  bytes.copyWithin(l3 + header, from, p.end);
  p.end = l3 + header + (p.end - from);
  p.l4 = l3 + header;
  p.isLaterFragment = offset === 0 ? 0 : 1;
  p.inner = 0;
  finishHeader(p, p.end - l3, more | offset);
  sink(stack, p);
}

function finishHeader(p: Packet, length: number, word: number): void {
  ipv4.setTotalLength(p.view, p.l3, length);
  ipv4.setFragmentWord(p.view, p.l3, word);
  ipv4.fillChecksum(p.view, p.l3);
}

/** Options without the copied flag become no-ops. */
function keepCopiedOptions(p: Packet, headerLength: number): void {
  const { view, bytes, l3 } = p;
  const end = l3 + headerLength;
  let at = l3 + IPV4_HEADER;
  while (at < end) {
    const type = view.getUint8(at);
    if (type === OPTION_END) return;
    const length = type === OPTION_NOP ? 1 : at + 1 < end ? view.getUint8(at + 1) : 0;
    if (length === 0 || at + length > end) return;
    if ((type & COPIED) === 0) bytes.fill(OPTION_NOP, at, at + length);
    at += length;
  }
}
