/**
 * User Datagram Protocol, RFC 768.   @hot
 *
 *   0                              16                              31
 *  +-------------------------------+-------------------------------+
 *  |          Source Port          |       Destination Port        |
 *  |            Length             |           Checksum            |
 *  +-------------------------------+-------------------------------+
 */
const SRC_PORT = 0;
const DST_PORT = 2;
const LENGTH = 4;
const CHECKSUM = 6;

export const UDP_HEADER = 8;
export const UDP_CHECKSUM = CHECKSUM;

export const UdpFault = { None: 0, TooShort: 1, BadLength: 2 } as const;

/**
 * The one gate: after UdpFault.None every accessor is in bounds and the datagram, as its length field has it, ends at or
 * before `end`. Not for the first fragment of a datagram (its length reaches past the fragment) nor for a super-packet.
 */
export function check(m: DataView, l4: number, end: number): number {
  if (end - l4 < UDP_HEADER) return UdpFault.TooShort;
  const length = m.getUint16(l4 + LENGTH);
  return length < UDP_HEADER || l4 + length > end ? UdpFault.BadLength : UdpFault.None;
}

export function srcPort(m: DataView, l4: number): number {
  return m.getUint16(l4 + SRC_PORT);
}
export function dstPort(m: DataView, l4: number): number {
  return m.getUint16(l4 + DST_PORT);
}
/** Bytes, header included. */
export function length(m: DataView, l4: number): number {
  return m.getUint16(l4 + LENGTH);
}
export function checksum(m: DataView, l4: number): number {
  return m.getUint16(l4 + CHECKSUM);
}
export function setChecksum(m: DataView, l4: number, sum: number): void {
  m.setUint16(l4 + CHECKSUM, sum);
}

/** A header; the checksum is left 0 (transport.ts fills it). */
export function emit(m: DataView, l4: number, srcPort: number, dstPort: number, length: number): void {
  m.setUint16(l4 + SRC_PORT, srcPort);
  m.setUint16(l4 + DST_PORT, dstPort);
  m.setUint16(l4 + LENGTH, length);
  m.setUint16(l4 + CHECKSUM, 0);
}
