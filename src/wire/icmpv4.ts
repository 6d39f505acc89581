/**
 * Internet Control Message Protocol, RFC 792; fragmentation needed with next-hop MTU, RFC 1191 §4.   @hot
 *
 *   0               8              16                              31
 *  +---------------+---------------+-------------------------------+
 *  |     Type      |     Code      |           Checksum            |
 *  +---------------+---------------+-------------------------------+
 *  |        Identifier / unused    |   Sequence / next-hop MTU     |
 *  +-------------------------------+-------------------------------+
 *  |  echo: data · error: IP header + at least 8 bytes of the cause |
 */
import { sumBytes } from './checksum.ts';

const TYPE = 0;
const CODE = 1;
const CHECKSUM = 2;
const ID = 4;

export const ICMP_HEADER = 8;
export const ICMP_CHECKSUM = CHECKSUM;

export const IcmpType = {
  EchoReply: 0,
  DestUnreachable: 3,
  SourceQuench: 4,
  Redirect: 5,
  Echo: 8,
  TimeExceeded: 11,
  ParameterProblem: 12,
  Timestamp: 13,
  TimestampReply: 14,
} as const;

export const UnreachCode = {
  Net: 0,
  Host: 1,
  Protocol: 2,
  Port: 3,
  FragNeeded: 4,
  SourceRoute: 5,
  NetProhibited: 9,
  HostProhibited: 10,
  AdminProhibited: 13,
} as const;

export const IcmpFault = { None: 0, TooShort: 1, BadChecksum: 2 } as const;

/** The one gate: 8 bytes of header are there and the checksum over `l4 … end` is right. */
export function check(m: DataView, l4: number, end: number): number {
  if (end - l4 < ICMP_HEADER) return IcmpFault.TooShort;
  return sumBytes(m, l4, end - l4) === 0xffff ? IcmpFault.None : IcmpFault.BadChecksum;
}

export function type(m: DataView, l4: number): number {
  return m.getUint8(l4 + TYPE);
}
export function code(m: DataView, l4: number): number {
  return m.getUint8(l4 + CODE);
}
export function setType(m: DataView, l4: number, type: number): void {
  m.setUint8(l4 + TYPE, type);
}

/** True for the messages that quote the packet which caused them, RFC 1122 §3.2.2. */
export function isError(type: number): boolean {
  return type === 3 || type === 4 || type === 5 || type === 11 || type === 12;
}

/** Header of an error; `rest` is the 32-bit word after the checksum. The checksum comes with `fillChecksum`. */
export function emit(m: DataView, l4: number, type: number, code: number, rest: number): void {
  m.setUint8(l4 + TYPE, type);
  m.setUint8(l4 + CODE, code);
  m.setUint16(l4 + CHECKSUM, 0);
  m.setInt32(l4 + ID, rest);
}

export function fillChecksum(m: DataView, l4: number, end: number): void {
  m.setUint16(l4 + CHECKSUM, 0);
  m.setUint16(l4 + CHECKSUM, ~sumBytes(m, l4, end - l4) & 0xffff);
}
