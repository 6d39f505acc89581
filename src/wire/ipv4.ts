/**
 * Internet Protocol version 4, RFC 791 §3.1.   @hot
 *
 *   0       4       8              16     19                      31
 *  +-------+-------+---------------+-----+-------------------------+
 *  |Version|  IHL  | Type of Svc   |          Total Length         |
 *  +-------+-------+---------------+-----+-------------------------+
 *  |        Identification         |Flags|     Fragment Offset     |
 *  +---------------+---------------+-----+-------------------------+
 *  | Time to Live  |   Protocol    |        Header Checksum        |
 *  +---------------+---------------+-------------------------------+
 *  |                        Source Address                         |
 *  +---------------------------------------------------------------+
 *  |                      Destination Address                      |
 *  +---------------------------------------------------------------+
 *  |                    Options (0 … 40 bytes)                     |
 *  +---------------------------------------------------------------+
 */
import { adjust, fold, sumBytes } from './checksum.ts';

const VERSION_IHL = 0;
const TOS = 1;
const TOTAL_LENGTH = 2;
const ID = 4;
const FRAGMENT = 6;
const TTL = 8;
const PROTO = 9;
const CHECKSUM = 10;
const SRC = 12;
const DST = 16;

export const IPV4_HEADER = 20;
export const IPV4_MAX_LENGTH = 65535;

export const IpProto = {
  Icmp: 1,
  Igmp: 2,
  IpIp: 4,
  Tcp: 6,
  Udp: 17,
  Gre: 47,
  Esp: 50,
  Ah: 51,
  Sctp: 132,
  UdpLite: 136,
} as const;

/** What `check` finds wrong; `packet/drop.ts` has a counter of the same name for each. */
export const Ipv4Fault = {
  None: 0,
  TooShort: 1,
  BadVersion: 2,
  BadHeaderLength: 3,
  BadTotalLength: 4,
  BadChecksum: 5,
} as const;

/** Flag bits of the FRAGMENT word; the rest is the offset in units of 8 bytes. */
export const DF = 0x4000;
export const MF = 0x2000;
const OFFSET = 0x1fff;

/**
 * The one gate. After Ipv4Fault.None every accessor of this file is in bounds, headerLength is 20…60, totalLength ≥ headerLength
 * and l3 + totalLength ≤ end; bytes between there and `end` are link padding, which the caller cuts off.
 */
export function check(m: DataView, l3: number, end: number): number {
  if (end - l3 < IPV4_HEADER) return Ipv4Fault.TooShort;
  const versionIhl = m.getUint8(l3 + VERSION_IHL);
  if (versionIhl >> 4 !== 4) return Ipv4Fault.BadVersion;
  const header = (versionIhl & 15) << 2;
  if (header < IPV4_HEADER || l3 + header > end) return Ipv4Fault.BadHeaderLength;
  const total = m.getUint16(l3 + TOTAL_LENGTH);
  if (total < header || l3 + total > end) return Ipv4Fault.BadTotalLength;
  if (sumBytes(m, l3, header) !== 0xffff) return Ipv4Fault.BadChecksum;
  return Ipv4Fault.None;
}

/** Bytes, 20…60. */
export function headerLength(m: DataView, l3: number): number {
  return (m.getUint8(l3 + VERSION_IHL) & 15) << 2;
}
export function setHeaderLength(m: DataView, l3: number, bytes: number): void {
  m.setUint8(l3 + VERSION_IHL, 0x40 | (bytes >> 2));
}
export function tos(m: DataView, l3: number): number {
  return m.getUint8(l3 + TOS);
}
export function totalLength(m: DataView, l3: number): number {
  return m.getUint16(l3 + TOTAL_LENGTH);
}
export function id(m: DataView, l3: number): number {
  return m.getUint16(l3 + ID);
}
/** The whole word: DF, MF and offset. */
export function fragmentWord(m: DataView, l3: number): number {
  return m.getUint16(l3 + FRAGMENT);
}
export function hasDf(m: DataView, l3: number): boolean {
  return (m.getUint16(l3 + FRAGMENT) & DF) !== 0;
}
/** Part of a fragmented datagram: the first, a middle or the last. */
export function isFragment(m: DataView, l3: number): boolean {
  return (m.getUint16(l3 + FRAGMENT) & (MF | OFFSET)) !== 0;
}
/** A fragment without the transport header: not the first. */
export function isLaterFragment(m: DataView, l3: number): boolean {
  return (m.getUint16(l3 + FRAGMENT) & OFFSET) !== 0;
}
export function ttl(m: DataView, l3: number): number {
  return m.getUint8(l3 + TTL);
}
export function proto(m: DataView, l3: number): number {
  return m.getUint8(l3 + PROTO);
}
export function src(m: DataView, l3: number): number {
  return m.getInt32(l3 + SRC);
}
export function dst(m: DataView, l3: number): number {
  return m.getInt32(l3 + DST);
}

/** Raw setters: the header checksum is void until `adjustChecksum` or `fillChecksum`. */
export function setTotalLength(m: DataView, l3: number, bytes: number): void {
  m.setUint16(l3 + TOTAL_LENGTH, bytes);
}
export function setId(m: DataView, l3: number, id: number): void {
  m.setUint16(l3 + ID, id);
}
export function setFragmentWord(m: DataView, l3: number, word: number): void {
  m.setUint16(l3 + FRAGMENT, word);
}
export function setTos(m: DataView, l3: number, tos: number): void {
  m.setUint8(l3 + TOS, tos);
}
export function setTtl(m: DataView, l3: number, ttl: number): void {
  m.setUint8(l3 + TTL, ttl);
}
export function setSrc(m: DataView, l3: number, ip: number): void {
  m.setInt32(l3 + SRC, ip);
}
export function setDst(m: DataView, l3: number, ip: number): void {
  m.setInt32(l3 + DST, ip);
}

export function setChecksum(m: DataView, l3: number, sum: number): void {
  m.setUint16(l3 + CHECKSUM, sum);
}

/** RFC 1624 eqn. 3; `diff` from checksum.ts. */
export function adjustChecksum(m: DataView, l3: number, diff: number): void {
  m.setUint16(l3 + CHECKSUM, adjust(m.getUint16(l3 + CHECKSUM), diff));
}
export function fillChecksum(m: DataView, l3: number): void {
  m.setUint16(l3 + CHECKSUM, 0);
  m.setUint16(l3 + CHECKSUM, ~sumBytes(m, l3, headerLength(m, l3)) & 0xffff);
}

/** One hop: TTL - 1 and the checksum with it (RFC 1141: the TTL is the high byte, so the sum grows by 0x0100). */
export function decrementTtl(m: DataView, l3: number): void {
  m.setUint8(l3 + TTL, m.getUint8(l3 + TTL) - 1);
  m.setUint16(l3 + CHECKSUM, fold(m.getUint16(l3 + CHECKSUM) + 0x0100));
}

/** A whole header without options, checksum included. `length` counts header and payload. */
export function emit(
  m: DataView,
  l3: number,
  length: number,
  proto: number,
  src: number,
  dst: number,
  ttl: number,
  tos: number,
  id: number,
  fragment: number,
): void {
  m.setUint8(l3 + VERSION_IHL, 0x45);
  m.setUint8(l3 + TOS, tos);
  m.setUint16(l3 + TOTAL_LENGTH, length);
  m.setUint16(l3 + ID, id);
  m.setUint16(l3 + FRAGMENT, fragment);
  m.setUint8(l3 + TTL, ttl);
  m.setUint8(l3 + PROTO, proto);
  m.setInt32(l3 + SRC, src);
  m.setInt32(l3 + DST, dst);
  fillChecksum(m, l3);
}
