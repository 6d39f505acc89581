/**
 * Generic Routing Encapsulation, RFC 2784 §2.1; only version 0 and the checksum, as IPVS sends it.   @hot
 *
 *   0 1           13              16                              31
 *  +-+-----------+---------------+-------------------------------+
 *  |C| Reserved0 |      Ver      |         Protocol Type         |
 *  +-+-----------+---------------+-------------------------------+
 *  |      Checksum (if C)        |       Reserved1 (if C)        |
 *  +-----------------------------+-------------------------------+
 */
import { sumBytes } from './checksum.ts';

const FLAGS = 0;
const PROTOCOL = 2;
const CHECKSUM = 4;
const CSUM = 0x8000;
const ETHER_IPV4 = 0x0800;

export const GRE_HEADER = 4;
export const GRE_HEADER_CSUM = 8;

export const GreFault = { None: 0, TooShort: 1, BadFlags: 2, BadProtocol: 3 } as const;

/** The one gate: after GreFault.None `headerLength` bytes are there, and IPv4 follows. Keys, sequence numbers and routing are refused. */
export function check(m: DataView, at: number, end: number): number {
  if (end - at < GRE_HEADER) return GreFault.TooShort;
  const flags = m.getUint16(at + FLAGS);
  if ((flags & ~CSUM) !== 0) return GreFault.BadFlags;
  if (m.getUint16(at + PROTOCOL) !== ETHER_IPV4) return GreFault.BadProtocol;
  return flags !== 0 && end - at < GRE_HEADER_CSUM ? GreFault.TooShort : GreFault.None;
}

export function hasChecksum(m: DataView, at: number): boolean {
  return (m.getUint16(at + FLAGS) & CSUM) !== 0;
}
/** Bytes, 4 or 8. */
export function headerLength(m: DataView, at: number): number {
  return hasChecksum(m, at) ? GRE_HEADER_CSUM : GRE_HEADER;
}
/** The checksum covers header and payload. */
export function isChecksumRight(m: DataView, at: number, end: number): boolean {
  return sumBytes(m, at, end - at) === 0xffff;
}

/** A header; its checksum is left 0 (`setChecksum`). */
export function emit(m: DataView, at: number, csum: boolean): void {
  m.setUint16(at + FLAGS, csum ? CSUM : 0);
  m.setUint16(at + PROTOCOL, ETHER_IPV4);
  if (csum) m.setInt32(at + CHECKSUM, 0);
}
export function setChecksum(m: DataView, at: number, sum: number): void {
  m.setUint16(at + CHECKSUM, sum);
}
