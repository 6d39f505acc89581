/**
 * CRC-32C (Castagnoli), the checksum of SCTP: RFC 9260 §6.8 and Appendix A.   @hot
 * Reflected polynomial 0x82f63b78, one table look-up per byte.
 */
const table = new Int32Array(256);
for (let i = 0; i < 256; i++) {
  let crc = i;
  for (let bit = 0; bit < 8; bit++) crc = (crc & 1) !== 0 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
  table[i] = crc;
}

/** CRC of `from … end` as int32, with the four bytes at `field` taken as zero (-1: none); SCTP stores it low byte first. */
export function crc32c(bytes: Uint8Array, from: number, end: number, field: number): number {
  let crc = -1;
  for (let i = from; i < end; i++) {
    const byte = i >= field && i < field + 4 && field >= 0 ? 0 : bytes[i]!;
    crc = table[(crc ^ byte) & 0xff]! ^ (crc >>> 8);
  }
  return ~crc;
}
