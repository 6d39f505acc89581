/**
 * Internet Group Management Protocol: what a host says and hears. RFC 3376 (version 3), RFC 2236 (2), RFC 1112 (1).
 *
 *   0               8               16                              31
 *  +---------------+---------------+-------------------------------+
 *  |     Type      | Max Resp Code |           Checksum            |
 *  |                         Group Address                         |   query; report and leave of versions 1 and 2
 *  +---------------+---------------+-------------------------------+
 *
 *  +---------------+---------------+-------------------------------+
 *  |     0x22      |       0       |           Checksum            |   report of version 3
 *  |              0                |       Number of records       |
 *  |  Record type  |       0       |      Number of sources 0      |
 *  |                         Group Address                         |   …
 *  +---------------+---------------+-------------------------------+
 */
import { sumBytes } from './checksum.ts';

export const IgmpType = { Query: 0x11, ReportV1: 0x12, ReportV2: 0x16, LeaveV2: 0x17, ReportV3: 0x22 } as const;
/** Record types: the state as it is, and that it has become so. Without sources, "exclude" is membership and "include" is none. */
export const IgmpRecord = { IsExclude: 2, ToInclude: 3, ToExclude: 4 } as const;

export const IGMP_LENGTH = 8;
/** Of a query of version 3, at least. */
const QUERY_V3 = 12;
export const IGMP_RECORD = 8;

/** Length and checksum are sound: the accessors are in bounds. */
export function isSound(m: DataView, l4: number, end: number): boolean {
  return end - l4 >= IGMP_LENGTH && sumBytes(m, l4, end - l4) === 0xffff;
}

export function type(m: DataView, l4: number): number {
  return m.getUint8(l4);
}
export function group(m: DataView, l4: number): number {
  return m.getInt32(l4 + 4);
}

/** Version of a query (RFC 3376 §7.1). */
export function queryVersion(m: DataView, l4: number, end: number): 1 | 2 | 3 {
  if (end - l4 >= QUERY_V3) return 3;
  return m.getUint8(l4 + 1) === 0 ? 1 : 2;
}

/** Milliseconds within which a query wants its answer. */
export function maxResponse(m: DataView, l4: number, version: 1 | 2 | 3): number {
  const code = m.getUint8(l4 + 1);
  if (version === 1) return 10_000;
  if (version === 2 || code < 128) return Math.max(code, 1) * 100;
  return (((code & 15) | 16) << (((code >> 4) & 7) + 3)) * 100;
}

/** Report or leave of version 1 or 2. */
export function emitOld(m: DataView, l4: number, messageType: number, groupAddress: number): void {
  m.setUint8(l4, messageType);
  m.setUint8(l4 + 1, 0);
  m.setUint16(l4 + 2, 0);
  m.setInt32(l4 + 4, groupAddress);
  m.setUint16(l4 + 2, ~sumBytes(m, l4, IGMP_LENGTH) & 0xffff);
}

/** Report of version 3 with a record of each group, all of one type. */
export function emitReport(m: DataView, l4: number, recordType: number, groups: readonly number[]): void {
  m.setInt32(l4, IgmpType.ReportV3 << 24);
  m.setInt32(l4 + 4, groups.length);
  groups.forEach((address, i) => {
    const at = l4 + IGMP_LENGTH + i * IGMP_RECORD;
    m.setInt32(at, recordType << 24);
    m.setInt32(at + 4, address);
  });
  m.setUint16(l4 + 2, ~sumBytes(m, l4, IGMP_LENGTH + groups.length * IGMP_RECORD) & 0xffff);
}
