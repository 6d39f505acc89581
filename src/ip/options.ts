/**
 * IPv4 options, RFC 791 §3.1: whether they are well formed, the route and the times that a packet records on its way through us, and those of our answers. A source
 * route is refused, and no answer goes along one.   @hot
 * Kernel: __ip_options_compile, ip_forward_options, __ip_options_echo and ip_options_build (net/ipv4/ip_options.c), spec_dst_fill.
 *
 * `Packet.options` says what was read, for whoever forwards or answers the packet:   0 nothing yet │ bits │ offsets from l3, 6 bits each: route, times, CIPSO
 *
 * As in the kernel the header's checksum is made anew only when a packet leaves; who quotes one before that, quotes the old sum.
 */
import { Drop } from '../packet/drop.ts';
import type { Packet } from '../packet/packet.ts';
import { isMulticast, isZeroNet } from '../wire/addr.ts';
import * as ipv4 from '../wire/ipv4.ts';
import { RouteKind } from './routes.ts';
import type { IpStack } from './stack.ts';

const END = 0;
const NOP = 1;
const RECORD_ROUTE = 7;
const TIMESTAMP = 68;
const LOOSE_SOURCE_ROUTE = 131;
const CIPSO = 134;
const STRICT_SOURCE_ROUTE = 137;
const ROUTER_ALERT = 148;
/** Low four bits of the fourth byte of a timestamp: what is recorded. The high four count those who found no room. */
const TIMES_ONLY = 0;
const TIMES_AND_ADDRESSES = 1;
const TIMES_OF_ADDRESSES = 3;
const { IPV4_HEADER } = ipv4;
const { Local: LOCAL, Broadcast: BROADCAST } = RouteKind;
const { None: FINE, Ipv4BadOptions: BAD, Ipv4SourceRoute: SOURCE_ROUTE } = Drop;

// Bits of Packet.options.
const READ = 1;
/** The slot before the route's pointer gets the address by which the packet leaves. */
const ROUTE_WANTS_ADDRESS = 2;
const TIMES_WANT_ADDRESS = 4;
const TIMES_WANT_TIME = 8;
const IS_CHANGED = 16;
/** It leaves by the address that it has as its source by then. */
const LEAVES_AS_OWN = 32;
const ROUTE_SHIFT = 8;
const TIMES_SHIFT = 14;
const CIPSO_SHIFT = 20;
const OFFSET_MASK = 0x3f;

export const NO_POINTER = -1;
let pointer: number = NO_POINTER;

/** Bytes of `echoOptions`. */
export const answered = new Uint8Array(40);
const answeredView = new DataView(answered.buffer);
/** Answer of `echoOptions`: there can be no answer to such a packet. */
export const NO_ECHO = -1;

/** Offset of the byte that the last fault is about, from the start of the IPv4 header. */
export function optionPointer(): number {
  return pointer;
}

/** Drop.None, Ipv4BadOptions or Ipv4SourceRoute for a packet whose header is longer than 20 bytes; nothing is written. */
export function optionFault(stack: IpStack, p: Packet): number {
  return read(stack, p, 0, false);
}

/** Read the options and record what they ask for; of faulty ones, those before the fault. */
export function readOptions(stack: IpStack, p: Packet): void {
  if (p.options === 0) read(stack, p, specificDestination(stack, p), true);
}

/** Which of our addresses the packet was for: its destination, else the one that we use towards its sender (fib_compute_spec_dst). */
function specificDestination(stack: IpStack, p: Packet): number {
  const dst = ipv4.dst(p.view, p.l3);
  if (stack.routes.lookup(dst)?.kind === LOCAL) return dst;
  const src = ipv4.src(p.view, p.l3);
  return stack.resolve(src) ? stack.source : stack.addresses.select(p.inDevice, src);
}

function read(stack: IpStack, p: Packet, address: number, writes: boolean): number {
  const { view, l3 } = p;
  const end = l3 + ipv4.headerLength(view, l3);
  let found = READ;
  let fault = 0;
  let hasSourceRoute = false;
  let at = l3 + IPV4_HEADER;
  while (at < end && fault === 0) {
    const type = view.getUint8(at);
    if (type === END) {
      if (writes && clear(view, at + 1, end)) found |= IS_CHANGED;
      break;
    }
    if (type === NOP) {
      at++;
      continue;
    }
    const length = at + 1 < end ? view.getUint8(at + 1) : 0;
    if (length < 2 || at + length > end) {
      fault = at;
      break;
    }
    const offset = at - l3;
    switch (type) {
      case LOOSE_SOURCE_ROUTE:
      case STRICT_SOURCE_ROUTE:
        if (length < 3) fault = at + 1;
        else if (view.getUint8(at + 2) < 4) fault = at + 2;
        else if (hasSourceRoute) fault = at;
        hasSourceRoute = true;
        break;
      case RECORD_ROUTE:
        if (((found >> ROUTE_SHIFT) & OFFSET_MASK) !== 0) fault = at;
        else fault = routeFault(view, at, length);
        if (fault !== 0) break;
        if (view.getUint8(at + 2) <= length) {
          found |= ROUTE_WANTS_ADDRESS | IS_CHANGED;
          if (writes) recordAddress(view, at, address, 4);
        }
        found |= offset << ROUTE_SHIFT;
        break;
      case TIMESTAMP:
        if (((found >> TIMES_SHIFT) & OFFSET_MASK) !== 0) fault = at;
        else fault = timesFault(view, at, length);
        if (fault === 0) found |= readTimes(stack, view, at, length, offset, address, writes);
        break;
      case ROUTER_ALERT:
        if (length < 4) fault = at + 1;
        break;
      case CIPSO:
        // Nobody has defined a domain of interpretation here, so none is known (cipso_v4_validate).
        found |= offset << CIPSO_SHIFT;
        fault = length < 8 ? at + 1 : at + 2;
        break;
      default:
    }
    at += length;
  }
  if (writes) p.options = found;
  if (fault !== 0) {
    pointer = fault - l3;
    return BAD;
  }
  pointer = NO_POINTER;
  return hasSourceRoute ? SOURCE_ROUTE : FINE;
}

/** Behind the end of the list there is nothing. True: there was. */
function clear(view: DataView, from: number, end: number): boolean {
  let isChanged = false;
  for (let at = from; at < end; at++) {
    if (view.getUint8(at) === 0) continue;
    view.setUint8(at, 0);
    isChanged = true;
  }
  return isChanged;
}

/** Which byte of a recorded route is wrong; 0 for none. Its pointer counts from 1 and lies behind the fixed part. */
function routeFault(view: DataView, at: number, length: number): number {
  if (length < 3) return at + 1;
  const slot = view.getUint8(at + 2);
  return slot < 4 || (slot <= length && slot + 3 > length) ? at + 2 : 0;
}

function timesFault(view: DataView, at: number, length: number): number {
  if (length < 4) return at + 1;
  const slot = view.getUint8(at + 2);
  if (slot < 5) return at + 2;
  const how = view.getUint8(at + 3);
  const kind = how & 15;
  if (slot > length) return kind !== TIMES_OF_ADDRESSES && how >> 4 === 15 ? at + 3 : 0;
  const size = kind === TIMES_AND_ADDRESSES || kind === TIMES_OF_ADDRESSES ? 8 : 4;
  return slot + size - 1 > length ? at + 2 : 0;
}

/** What a sound timestamp adds to `Packet.options`; our entry is written into it, or one more who had no room. */
function readTimes(
  stack: IpStack,
  view: DataView,
  at: number,
  length: number,
  offset: number,
  address: number,
  writes: boolean,
): number {
  const slot = view.getUint8(at + 2);
  const how = view.getUint8(at + 3);
  const found = offset << TIMES_SHIFT;
  if (slot > length) {
    // Who is asked for by name and finds no room was not meant.
    if ((how & 15) === TIMES_OF_ADDRESSES) return found;
    if (writes) view.setUint8(at + 3, how + 0x10);
    return found | IS_CHANGED;
  }
  switch (how & 15) {
    case TIMES_ONLY:
      if (writes) recordTime(view, at, stack.timeOfDayMs(), 4);
      return found | TIMES_WANT_TIME | IS_CHANGED;
    case TIMES_AND_ADDRESSES:
      if (writes) {
        recordAddress(view, at, address, 8);
        view.setUint32(at + slot + 3, stack.timeOfDayMs());
      }
      return found | TIMES_WANT_ADDRESS | TIMES_WANT_TIME | IS_CHANGED;
    case TIMES_OF_ADDRESSES:
      if (isElsewhere(stack, view.getInt32(at + slot - 1))) return found;
      if (writes) recordTime(view, at, stack.timeOfDayMs(), 8);
      return found | TIMES_WANT_TIME | IS_CHANGED;
    default:
      return found;
  }
}

/** Into the next slot, and on by `step`. */
function recordAddress(view: DataView, at: number, address: number, step: number): void {
  const slot = view.getUint8(at + 2);
  view.setInt32(at + slot - 1, address);
  view.setUint8(at + 2, slot + step);
}

/** Into the last four bytes of the next slot, which has `step`. */
function recordTime(view: DataView, at: number, time: number, step: number): void {
  const slot = view.getUint8(at + 2);
  view.setUint32(at + slot + step - 5, time);
  view.setUint8(at + 2, slot + step);
}

/** Is it a host's address, and not ours (inet_addr_type: RTN_UNICAST)? */
function isElsewhere(stack: IpStack, ip: number): boolean {
  if (isZeroNet(ip) || isMulticast(ip) || ip === -1) return false;
  const kind = stack.routes.lookup(ip)?.kind;
  return kind !== LOCAL && kind !== BROADCAST;
}

/** The packet goes on: the address that it leaves by, if it records its route, and the sum of its header. */
export function forwardOptions(p: Packet, address: number): void {
  const { options, view, l3 } = p;
  if ((options & IS_CHANGED) === 0) return;
  if ((options & ROUTE_WANTS_ADDRESS) !== 0) {
    const at = l3 + ((options >> ROUTE_SHIFT) & OFFSET_MASK);
    view.setInt32(at + view.getUint8(at + 2) - 5, (options & LEAVES_AS_OWN) !== 0 ? ipv4.src(view, l3) : address);
  }
  sumOptions(p);
}

/** A packet that is sent on from LOCAL_IN has recorded our address already. */
export function sumOptions(p: Packet): void {
  if ((p.options & IS_CHANGED) === 0) return;
  p.options &= ~IS_CHANGED;
  ipv4.fillChecksum(p.view, p.l3);
}

/** Its way on was chosen as that of a packet of our own (rt_is_output_route in ip_rt_get_source). */
export function leaveAsOwn(p: Packet): void {
  if (p.options !== 0) p.options |= LEAVES_AS_OWN;
}

/**
 * The options of an answer to a packet whose options were read, into `answered`: its route, times and CIPSO go on.
 * @param source where the answer comes from  @returns bytes, a multiple of four; or NO_ECHO
 */
export function echoOptions(stack: IpStack, p: Packet, source: number): number {
  const { options } = p;
  const route = (options >> ROUTE_SHIFT) & OFFSET_MASK;
  const times = (options >> TIMES_SHIFT) & OFFSET_MASK;
  const cipso = (options >> CIPSO_SHIFT) & OFFSET_MASK;
  let length = 0;
  if (route !== 0) {
    const size = copyOption(p, route, length);
    if ((options & ROUTE_WANTS_ADDRESS) !== 0 && answered[length + 2]! <= size) {
      if (answered[length + 2]! + 3 > size) return NO_ECHO;
      recordAddress(answeredView, length, source, 4);
    }
    length += size;
  }
  if (times !== 0) {
    const size = copyOption(p, times, length);
    if (answered[length + 2]! <= size && !echoTimes(stack, options, length, size, source)) return NO_ECHO;
    length += size;
  }
  if (cipso !== 0) length += copyOption(p, cipso, length);
  while ((length & 3) !== 0) answered[length++] = END;
  return length;
}

function copyOption(p: Packet, offset: number, to: number): number {
  const at = p.l3 + offset;
  const size = p.view.getUint8(at + 1);
  for (let i = 0; i < size; i++) answered[to + i] = p.view.getUint8(at + i);
  return size;
}

/** Our entry as its sender. False: half of it has no room. */
function echoTimes(stack: IpStack, options: number, at: number, size: number, source: number): boolean {
  const slot = answered[at + 2]!;
  const kind = answered[at + 3]! & 15;
  if ((options & TIMES_WANT_ADDRESS) !== 0) {
    if (slot + 7 > size) return false;
    recordAddress(answeredView, at, source, 8);
    answeredView.setUint32(at + slot + 3, stack.timeOfDayMs());
  } else if ((options & TIMES_WANT_TIME) !== 0) {
    if (slot + 3 > size) return false;
    if (kind !== TIMES_OF_ADDRESSES) recordTime(answeredView, at, stack.timeOfDayMs(), 4);
    else if (slot + 7 <= size && !isElsewhere(stack, answeredView.getInt32(at + slot - 1))) {
      recordTime(answeredView, at, stack.timeOfDayMs(), 8);
    }
  }
  return true;
}
