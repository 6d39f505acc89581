/**
 * Generic UDP Encapsulation, version 0 (draft-ietf-intarea-gue; include/net/gue.h), the header behind the UDP header.   @hot
 *
 *   0   2 3       8              16                              31
 *  +---+-+-------+---------------+-------------------------------+
 *  |Ver|C| Hlen  |  Proto/ctype  |             Flags             |
 *  +---+-+-------+---------------+-------------------------------+
 *  |  Private flags (if flag P), then their fields:              |
 *  |  remote checksum offload: start 16 | place of the checksum  |    counted from the end of this header
 *  +-------------------------------------------------------------+
 *
 * Hlen counts the words behind the first. Remote checksum offload: the inner transport checksum still holds the sum of its pseudo-header alone; the
 * receiver sums from `start` on and puts the result at the place.
 */
const VERSION_HLEN = 0;
const PROTO = 1;
const FLAGS = 2;
const PRIVATE = 4;
const START = 8;
const PLACE = 10;

const CONTROL = 0x20;
const HLEN = 0x1f;
const PRIVATE_FLAG = 0x0001;
const REMCSUM_FLAG = 0x80000000 | 0;
/** Private flags and the two offsets. */
const REMCSUM_LENGTH = 8;
const IPIP = 4;

export const GUE_HEADER = 4;
export const GUE_HEADER_REMCSUM = GUE_HEADER + REMCSUM_LENGTH;

export const GueFault = { None: 0, TooShort: 1, BadVersion: 2, Control: 3, BadFlags: 4, BadProtocol: 5 } as const;

/** The one gate: after GueFault.None `headerLength` bytes are there, their flags are known, and IPv4 follows. */
export function check(m: DataView, at: number, end: number): number {
  if (end - at < GUE_HEADER) return GueFault.TooShort;
  const first = m.getUint8(at + VERSION_HLEN);
  if (first >> 6 !== 0) return GueFault.BadVersion;
  if ((first & CONTROL) !== 0) return GueFault.Control;
  if (end - at < headerLength(m, at)) return GueFault.TooShort;
  const flags = m.getUint16(at + FLAGS);
  if ((flags & ~PRIVATE_FLAG) !== 0) return GueFault.BadFlags;
  if (flags !== 0) {
    if (headerLength(m, at) < GUE_HEADER + 4) return GueFault.TooShort;
    const own = m.getInt32(at + PRIVATE);
    if ((own & ~REMCSUM_FLAG) !== 0) return GueFault.BadFlags;
    if (own !== 0 && headerLength(m, at) < GUE_HEADER_REMCSUM) return GueFault.TooShort;
  }
  return m.getUint8(at + PROTO) === IPIP ? GueFault.None : GueFault.BadProtocol;
}

/** Bytes, 4…128. */
export function headerLength(m: DataView, at: number): number {
  return GUE_HEADER + ((m.getUint8(at + VERSION_HLEN) & HLEN) << 2);
}
export function hasRemcsum(m: DataView, at: number): boolean {
  return (m.getUint16(at + FLAGS) & PRIVATE_FLAG) !== 0 && m.getInt32(at + PRIVATE) === REMCSUM_FLAG;
}
/** Where the sum begins and where it goes, bytes from the end of the header; only with `hasRemcsum`. */
export function remcsumStart(m: DataView, at: number): number {
  return m.getUint16(at + START);
}
export function remcsumPlace(m: DataView, at: number): number {
  return m.getUint16(at + PLACE);
}

export function emit(m: DataView, at: number): void {
  m.setUint8(at + VERSION_HLEN, 0);
  m.setUint8(at + PROTO, IPIP);
  m.setUint16(at + FLAGS, 0);
}

/** @param start @param place bytes from the end of this header */
export function emitRemcsum(m: DataView, at: number, start: number, place: number): void {
  m.setUint8(at + VERSION_HLEN, REMCSUM_LENGTH >> 2);
  m.setUint8(at + PROTO, IPIP);
  m.setUint16(at + FLAGS, PRIVATE_FLAG);
  m.setInt32(at + PRIVATE, REMCSUM_FLAG);
  m.setUint16(at + START, start);
  m.setUint16(at + PLACE, place);
}
