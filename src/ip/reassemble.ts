/**
 * Reassembly of what is addressed to us, before LOCAL_IN sees it: RFC 791 §3.2, RFC 1122 §3.3.2, RFC 5722 §3 (overlaps end a datagram).   @hot
 *
 *   fragment ─► its datagram (source, destination, identification, protocol) ─► list by offset ─► all there? ─► the first takes in the others
 *
 * As the kernel's ip_defrag (net/ipv4/ip_fragment.c): 30 seconds, then time exceeded 11/1 when the first fragment was there; a copy of a fragment is
 * ignored; congestion marks of the pieces are brought together (RFC 3168 §5.3). Nothing is allocated: fragments wait in their own slots, and a slot holds
 * the longest datagram.
 */
import { seconds } from '../base/clock.ts';
import { drop } from '../link/link.ts';
import { Drop } from '../packet/drop.ts';
import { NONE, type Packet } from '../packet/packet.ts';
import { IcmpType } from '../wire/icmpv4.ts';
import * as ipv4 from '../wire/ipv4.ts';
import { icmpError } from './icmp.ts';
import type { IpStack } from './stack.ts';
import { gateTransport } from './transport.ts';

const { DF, MF, IPV4_MAX_LENGTH } = ipv4;
const OFFSET = 0x1fff;
/** Datagrams under way. */
const CAPACITY = 256;
/** Fragments that wait, as a part of the pool; and of one datagram. */
const POOL_SHARE = 4;
const MOST_PIECES = 128;
const TIME_EXCEEDED = IcmpType.TimeExceeded;
const REASSEMBLY_TIME = 1;
const UNKNOWN = -1;
const ECN_MASK = 3;
const ECN_CE = 3;
const NOT_ECT_BIT = 1;
const CE_BIT = 8;

export class Fragments {
  /** net.ipv4.ipfrag_time, seconds. */
  timeSeconds = 30;
  /** Fragments that wait. */
  held = 0;
  readonly #src = new Int32Array(CAPACITY);
  readonly #dst = new Int32Array(CAPACITY);
  /** Identification << 8 | protocol. */
  readonly #key = new Int32Array(CAPACITY);
  /** First of the list, by offset; NONE: the row is free. */
  readonly #head = new Int32Array(CAPACITY).fill(NONE);
  readonly #pieces = new Int32Array(CAPACITY);
  /** Payload bytes that are there, and of the whole; UNKNOWN until the last fragment came. */
  readonly #have = new Int32Array(CAPACITY);
  readonly #total = new Int32Array(CAPACITY);
  /** Bit per ECN code point seen. */
  readonly #ecn = new Uint8Array(CAPACITY);
  /** Which came first: a number that grows. */
  readonly #serial = new Int32Array(CAPACITY);
  #nextSerial = 0;
  /** Tick. */
  readonly #expires = new Int32Array(CAPACITY);

  /** Takes a fragment. @returns the whole datagram when this was the last that missed, else null */
  take(stack: IpStack, p: Packet): Packet | null {
    const { view, l3 } = p;
    const word = ipv4.fragmentWord(view, l3);
    const from = (word & OFFSET) << 3;
    const length = p.end - l3 - ipv4.headerLength(view, l3);
    const isLast = (word & MF) === 0;
    if (length === 0 || (!isLast && (length & 7) !== 0) || from + length > IPV4_MAX_LENGTH - ipv4.IPV4_HEADER) {
      return refuse(stack, p, Drop.FragmentBad);
    }
    const row = this.#rowOf(stack, p);
    const total = this.#total[row]!;
    const end = from + length;
    // Two ends, or bytes behind the end: the datagram is not what it says (RFC 5722 says of overlaps: all of it goes).
    if (
      (total !== UNKNOWN && (end > total || (isLast && end !== total))) ||
      (isLast && this.#lastEnd(stack, row) > end)
    ) {
      this.#end(stack, row, Drop.FragmentBad);
      return refuse(stack, p, Drop.FragmentBad);
    }
    if (!this.#insert(stack, row, p, from, end)) return null;
    if (isLast) this.#total[row] = end;
    this.#have[row]! += length;
    this.#ecn[row]! |= 1 << (ipv4.tos(view, l3) & ECN_MASK);
    return this.#have[row] === this.#total[row] ? this.#join(stack, row) : null;
  }

  /** End what waits for too long; its sender is told when we have the first fragment. */
  advance(stack: IpStack): void {
    if (this.held === 0) return;
    const now = stack.link.now;
    for (let row = 0; row < CAPACITY; row++) {
      if (this.#head[row] === NONE || ((this.#expires[row]! - now) | 0) > 0) continue;
      const first = stack.pool.packets[this.#head[row]!]!;
      if (first.isLaterFragment === 0) icmpError(stack, first, TIME_EXCEEDED, REASSEMBLY_TIME, 0);
      this.#end(stack, row, Drop.ReassemblyTimeout);
    }
  }

  /** The row of the packet's datagram: known, free, or taken from the datagram that waits longest. */
  #rowOf(stack: IpStack, p: Packet): number {
    const { view, l3 } = p;
    const src = ipv4.src(view, l3);
    const dst = ipv4.dst(view, l3);
    const key = (ipv4.id(view, l3) << 8) | ipv4.proto(view, l3);
    let free = NONE;
    let oldest = NONE;
    for (let row = 0; row < CAPACITY; row++) {
      if (this.#head[row] === NONE) {
        if (free === NONE) free = row;
      } else if (this.#key[row] === key && this.#src[row] === src && this.#dst[row] === dst) {
        return row;
      } else if (oldest === NONE || ((this.#serial[row]! - this.#serial[oldest]!) | 0) < 0) {
        oldest = row;
      }
    }
    if (oldest !== NONE && (free === NONE || this.held >= Math.trunc(stack.pool.packets.length / POOL_SHARE))) {
      this.#end(stack, oldest, Drop.ReassemblyFull);
      free = oldest;
    }
    this.#src[free] = src;
    this.#dst[free] = dst;
    this.#key[free] = key;
    this.#pieces[free] = 0;
    this.#have[free] = 0;
    this.#total[free] = UNKNOWN;
    this.#ecn[free] = 0;
    this.#nextSerial = (this.#nextSerial + 1) | 0;
    this.#serial[free] = this.#nextSerial;
    this.#expires[free] = (stack.link.now + seconds(this.timeSeconds)) | 0;
    return free;
  }

  /** Into the list by offset. False: a copy, or an overlap, or too many pieces; the packet has ended. */
  #insert(stack: IpStack, row: number, p: Packet, from: number, end: number): boolean {
    const { packets } = stack.pool;
    let before = NONE;
    let at = this.#head[row]!;
    while (at !== NONE && fromOf(packets[at]!) < from) {
      before = at;
      at = packets[at]!.next;
    }
    if (at !== NONE && fromOf(packets[at]!) === from && endOf(packets[at]!) === end) {
      drop(stack.link, p, Drop.FragmentDuplicate);
      return false;
    }
    const isOverlap =
      (before !== NONE && endOf(packets[before]!) > from) || (at !== NONE && fromOf(packets[at]!) < end);
    if (isOverlap || this.#pieces[row]! >= MOST_PIECES) {
      this.#end(stack, row, Drop.FragmentBad);
      drop(stack.link, p, Drop.FragmentBad);
      return false;
    }
    p.next = at;
    if (before === NONE) this.#head[row] = p.index;
    else packets[before]!.next = p.index;
    this.#pieces[row]!++;
    this.held++;
    stack.stats.held++;
    return true;
  }

  /** Where the furthest piece ends. */
  #lastEnd(stack: IpStack, row: number): number {
    let end = 0;
    for (let at = this.#head[row]!; at !== NONE; at = stack.pool.packets[at]!.next)
      end = endOf(stack.pool.packets[at]!);
    return end;
  }

  /** All pieces are there: the first becomes the whole. */
  #join(stack: IpStack, row: number): Packet | null {
    const { packets } = stack.pool;
    const p = packets[this.#head[row]!]!;
    const { view, bytes, l3 } = p;
    const header = ipv4.headerLength(view, l3);
    const length = header + this.#total[row]!;
    const ecn = this.#ecn[row]!;
    // RFC 3168 §5.3: pieces of a sender that knows ECN and of one that does not are no datagram.
    if (length > IPV4_MAX_LENGTH || ((ecn & NOT_ECT_BIT) !== 0 && ecn !== NOT_ECT_BIT)) {
      this.#end(stack, row, Drop.FragmentBad);
      return null;
    }
    let longest = 0;
    let longestWithDf = 0;
    for (let at = this.#head[row]!; at !== NONE; at = packets[at]!.next) {
      const piece = packets[at]!;
      longest = Math.max(longest, piece.end - piece.l3);
      if (ipv4.hasDf(piece.view, piece.l3)) longestWithDf = Math.max(longestWithDf, piece.end - piece.l3);
    }
    const df = longestWithDf === longest ? DF : 0;
    p.fragMax = longest;
    let next = p.next;
    while (next !== NONE) {
      const piece = packets[next]!;
      const from = piece.l3 + ipv4.headerLength(view, piece.l3);
      bytes.copyWithin(l3 + header + fromOf(piece), from, piece.end);
      next = piece.next;
      this.#release(stack, piece);
      drop(stack.link, piece, Drop.FragmentJoined);
    }
    this.#head[row] = NONE;
    this.#release(stack, p);
    p.end = l3 + length;
    ipv4.setTotalLength(view, l3, length);
    ipv4.setFragmentWord(view, l3, df);
    if ((ecn & CE_BIT) !== 0) ipv4.setTos(view, l3, ipv4.tos(view, l3) | ECN_CE);
    ipv4.fillChecksum(view, l3);
    p.isLaterFragment = 0;
    p.l4Fault = 0;
    gateTransport(p);
    return p;
  }

  /** The datagram will not be whole. */
  #end(stack: IpStack, row: number, reason: number): void {
    let next = this.#head[row]!;
    this.#head[row] = NONE;
    while (next !== NONE) {
      const piece = stack.pool.packets[next]!;
      next = piece.next;
      this.#release(stack, piece);
      drop(stack.link, piece, reason);
    }
  }

  #release(stack: IpStack, p: Packet): void {
    p.next = NONE;
    this.held--;
    stack.stats.held--;
  }
}

function refuse(stack: IpStack, p: Packet, reason: number): null {
  drop(stack.link, p, reason);
  return null;
}

/** Offset of a piece's first byte, and of the byte behind its last. */
function fromOf(p: Packet): number {
  return (ipv4.fragmentWord(p.view, p.l3) & OFFSET) << 3;
}
function endOf(p: Packet): number {
  return fromOf(p) + p.end - p.l3 - ipv4.headerLength(p.view, p.l3);
}
