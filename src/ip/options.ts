/**
 * IPv4 options, RFC 791 §3.1: are they well formed, and is a source route among them? Record route, timestamp and the rest pass as they are.   @hot
 * Kernel: __ip_options_compile (net/ipv4/ip_options.c).
 */
import { Drop } from '../packet/drop.ts';
import type { Packet } from '../packet/packet.ts';
import * as ipv4 from '../wire/ipv4.ts';

const END = 0;
const NOP = 1;
const RECORD_ROUTE = 7;
const TIMESTAMP = 68;
const LOOSE_SOURCE_ROUTE = 131;
const STRICT_SOURCE_ROUTE = 137;

export const NO_POINTER = -1;
let pointer: number = NO_POINTER;

/** Offset of the byte that the last fault is about, from the start of the IPv4 header. */
export function optionPointer(): number {
  return pointer;
}

/** Drop.None, Ipv4BadOptions or Ipv4SourceRoute for a packet whose header is longer than 20 bytes. */
export function optionFault(p: Packet): number {
  const { view, l3 } = p;
  const end = l3 + ipv4.headerLength(view, l3);
  for (let at = l3 + ipv4.IPV4_HEADER; at < end; ) {
    const type = view.getUint8(at);
    if (type === END) break;
    if (type === NOP) {
      at++;
      continue;
    }
    pointer = at - l3;
    const length = at + 1 < end ? view.getUint8(at + 1) : 0;
    if (length < 2 || at + length > end) return Drop.Ipv4BadOptions;
    if (type === LOOSE_SOURCE_ROUTE || type === STRICT_SOURCE_ROUTE) return Drop.Ipv4SourceRoute;
    // Their pointer counts from the option's start and lies behind the fixed part.
    const fixed = type === RECORD_ROUTE ? 3 : type === TIMESTAMP ? 4 : 0;
    if (fixed !== 0 && (length < fixed || view.getUint8(at + 2) <= fixed)) return Drop.Ipv4BadOptions;
    at += length;
  }
  return Drop.None;
}
