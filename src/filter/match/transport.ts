/** What matches on transport headers share: later fragments never match, and a header that is cut off ends the packet.   @hot */
import type { Packet } from '../../packet/packet.ts';
import { fragmentWord } from '../../wire/ipv4.ts';
import type { MatchFunction } from '../extension.ts';

/** Length of the option list's end and padding, one byte each (RFC 9293 §3.2). */
const END = 0;
const PADDING = 1;

/** 1, 0, or -1 for a packet that must end here. */
export type HeaderTest = (p: Packet) => number;

// cold: compiling
/** @param length bytes that `test` reads */
export function transport(length: number, test: HeaderTest): MatchFunction {
  return (p, t) => {
    if (p.isLaterFragment !== 0) {
      // xt_tcpudp.c: who puts a fragment into the header of another is up to no good (RFC 1858).
      if (length === 20 && (fragmentWord(p.view, p.l3) & 0x1fff) === 1) t.isHotDrop = true;
      return false;
    }
    if (p.end - p.l4 < length) {
      t.isHotDrop = true;
      return false;
    }
    const found = test(p);
    if (found < 0) t.isHotDrop = true;
    return found === 1;
  };
}
// hot again

/** Is the option there? -1 when the header is longer than the packet. */
export function hasTcpOption(p: Packet, option: number): number {
  const { view, l4 } = p;
  const end = l4 + ((view.getUint8(l4 + 12) >> 4) << 2);
  if (end < l4 + 20) return -1;
  if (end > p.end) return -1;
  let at = l4 + 20;
  while (at < end) {
    const kind = view.getUint8(at);
    if (kind === option) return 1;
    if (kind <= PADDING) {
      at++;
      if (kind === END) continue; // the kernel walks on behind the end, too
    } else {
      at += at + 1 < end ? view.getUint8(at + 1) || 1 : 1;
    }
  }
  return 0;
}
