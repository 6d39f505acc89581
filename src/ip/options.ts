/**
 * IPv4 options, RFC 791 §3.1: are they well formed, and is a source route among them? A recorded route gets our address; timestamp and the rest pass as they are.   @hot
 * Kernel: __ip_options_compile, ip_forward_options (net/ipv4/ip_options.c).
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
    const fault =
      type === RECORD_ROUTE ? slotFault(p, at, length, 3) : type === TIMESTAMP ? slotFault(p, at, length, 4) : 0;
    if (fault !== 0) {
      pointer += fault;
      return Drop.Ipv4BadOptions;
    }
    at += length;
  }
  return Drop.None;
}

/** Which byte of a recorded route, or of recorded times, is wrong; 0 for none. Their pointer counts from the option's start and lies behind the fixed part. */
function slotFault(p: Packet, at: number, length: number, fixed: number): number {
  if (length < fixed) return 1;
  const slot = p.view.getUint8(at + 2);
  return slot <= fixed || (slot <= length && slot + 3 > length) ? 2 : 0;
}

/** Where the next address of a recorded route belongs, from the start of the IPv4 header; 0 when there is no such option, or it is full. */
function recordSlot(p: Packet): number {
  const { view, l3 } = p;
  const end = l3 + ipv4.headerLength(view, l3);
  for (let at = l3 + ipv4.IPV4_HEADER; at < end; ) {
    const type = view.getUint8(at);
    if (type === END) return 0;
    if (type === NOP) {
      at++;
      continue;
    }
    const length = view.getUint8(at + 1);
    if (type === RECORD_ROUTE) return view.getUint8(at + 2) <= length ? at - l3 : 0;
    at += length;
  }
  return 0;
}

/** Into a forwarded packet whose options are well formed: the address that it leaves by, if it records its route. */
export function recordRoute(p: Packet, address: number): void {
  const option = recordSlot(p);
  if (option === 0) return;
  const { view, l3 } = p;
  const at = l3 + option;
  const slot = view.getUint8(at + 2);
  view.setInt32(at + slot - 1, address);
  view.setUint8(at + 2, slot + 4);
  ipv4.fillChecksum(view, l3);
}
