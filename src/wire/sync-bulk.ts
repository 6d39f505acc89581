/**
 * Bulk transfer of a connection table between tapvs directors: datagrams on the synchronisation group's port that no other IPVS takes for a message,
 * because their size field is 0 and a message's is its length.
 *
 *   +----------+----------+---------------------+
 *   |    0     |  SyncID  |        0            |
 *   |    0     | Version  |        Type         |   version 0x54
 *   |                 Transfer                  |   a number that the asker has chosen
 *   |                   From                    |
 *   |                    To                     |
 *   |                   Count                   |
 *   +-------------------------------------------+
 *
 *   Ask    want the places from … to of the table, in at most `count` datagrams
 *   Rows   all that stands at the places from … to, a synchronisation message of version 1 behind this header
 *   Pause  `count` datagrams were sent, up to place `from`: ask for what is missing or next
 */
export const BULK_HEADER = 24;
const VERSION = 0x54;

export const BulkType = { Ask: 1, Rows: 2, Pause: 3 } as const;

/** Places: templates by row, then connections by row, then the end. */
export const FIRST_CONNECTION = 0x8000_0000;
export const END_OF_TABLE = 0xffff_ffff;

export function isBulk(m: DataView, at: number, length: number): boolean {
  return length >= BULK_HEADER && m.getUint32(at) << 16 === 0 && m.getUint8(at) === 0 && m.getUint8(at + 5) === VERSION;
}
export function bulkType(m: DataView, at: number): number {
  return m.getUint16(at + 6);
}
export function bulkTransfer(m: DataView, at: number): number {
  return m.getInt32(at + 8);
}
export function bulkFrom(m: DataView, at: number): number {
  return m.getUint32(at + 12);
}
export function bulkTo(m: DataView, at: number): number {
  return m.getUint32(at + 16);
}
export function bulkCount(m: DataView, at: number): number {
  return m.getUint32(at + 20);
}

export function emitBulk(
  m: DataView,
  syncId: number,
  type: number,
  transfer: number,
  from: number,
  to: number,
  count: number,
): void {
  m.setUint32(0, syncId << 16);
  m.setUint8(4, 0);
  m.setUint8(5, VERSION);
  m.setUint16(6, type);
  m.setInt32(8, transfer);
  m.setUint32(12, from);
  m.setUint32(16, to);
  m.setUint32(20, count);
}
