/**
 * Transmission Control Protocol, RFC 9293 §3.1.   @hot
 *
 *   0       4       8              16                              31
 *  +-------------------------------+-------------------------------+
 *  |          Source Port          |       Destination Port        |
 *  +-------------------------------+-------------------------------+
 *  |                        Sequence Number                        |
 *  +---------------------------------------------------------------+
 *  |                    Acknowledgment Number                      |
 *  +-------+-------+---------------+-------------------------------+
 *  |Offset | Rsrvd | CWR…FIN flags |            Window             |
 *  +-------+-------+---------------+-------------------------------+
 *  |           Checksum            |        Urgent Pointer         |
 *  +-------------------------------+-------------------------------+
 */
const SRC_PORT = 0;
const DST_PORT = 2;
const SEQ = 4;
const ACK = 8;
const OFFSET = 12;
const FLAGS = 13;
const WINDOW = 14;
const CHECKSUM = 16;

export const TCP_HEADER = 20;
export const TCP_CHECKSUM = CHECKSUM;

export const TcpFlag = { Fin: 1, Syn: 2, Rst: 4, Psh: 8, Ack: 16, Urg: 32, Ece: 64, Cwr: 128 } as const;

export const TcpFault = { None: 0, TooShort: 1, BadOffset: 2 } as const;

/** The one gate: after TcpFault.None every accessor is in bounds and the header with its options ends at or before `end`. */
export function check(m: DataView, l4: number, end: number): number {
  if (end - l4 < TCP_HEADER) return TcpFault.TooShort;
  const header = headerLength(m, l4);
  return header < TCP_HEADER || l4 + header > end ? TcpFault.BadOffset : TcpFault.None;
}

export function srcPort(m: DataView, l4: number): number {
  return m.getUint16(l4 + SRC_PORT);
}
export function dstPort(m: DataView, l4: number): number {
  return m.getUint16(l4 + DST_PORT);
}
/** int32; compare with `((a - b) | 0) < 0`. */
export function seq(m: DataView, l4: number): number {
  return m.getInt32(l4 + SEQ);
}
export function ack(m: DataView, l4: number): number {
  return m.getInt32(l4 + ACK);
}
/** Bytes, 20…60. */
export function headerLength(m: DataView, l4: number): number {
  return (m.getUint8(l4 + OFFSET) >> 4) << 2;
}
export function flags(m: DataView, l4: number): number {
  return m.getUint8(l4 + FLAGS);
}
export function setChecksum(m: DataView, l4: number, sum: number): void {
  m.setUint16(l4 + CHECKSUM, sum);
}
export function setSeq(m: DataView, l4: number, seq: number): void {
  m.setInt32(l4 + SEQ, seq);
}
export function setFlags(m: DataView, l4: number, flags: number): void {
  m.setUint8(l4 + FLAGS, flags);
}

/** A header without options; the checksum is left 0 (transport.ts fills it). */
export function emit(
  m: DataView,
  l4: number,
  srcPort: number,
  dstPort: number,
  seq: number,
  ack: number,
  flags: number,
  window: number,
): void {
  m.setUint16(l4 + SRC_PORT, srcPort);
  m.setUint16(l4 + DST_PORT, dstPort);
  m.setInt32(l4 + SEQ, seq);
  m.setInt32(l4 + ACK, ack);
  m.setUint8(l4 + OFFSET, 0x50);
  m.setUint8(l4 + FLAGS, flags);
  m.setUint16(l4 + WINDOW, window);
  m.setUint32(l4 + CHECKSUM, 0);
}
