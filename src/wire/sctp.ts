/**
 * Stream Control Transmission Protocol, RFC 9260 §3.   @hot
 *
 *   0                              16                              31
 *  +-------------------------------+-------------------------------+
 *  |          Source Port          |       Destination Port        |
 *  |                       Verification Tag                        |
 *  |                    Checksum (CRC-32C, low byte first)         |
 *  +---------------+---------------+-------------------------------+
 *  |  Chunk Type   |  Chunk Flags  |         Chunk Length          |   first chunk; the next begins at the next multiple of 4
 *  |                          Chunk Value                          |
 *  +---------------------------------------------------------------+
 */
import { crc32c } from './crc32c.ts';

const CHECKSUM = 8;
const CHUNK_LENGTH = 2;

export const SCTP_HEADER = 12;
export const CHUNK_HEADER = 4;

/** RFC 9260 §3.2; ECNE and CWR are those of its appendix. */
export const ChunkType = {
  Data: 0,
  Init: 1,
  InitAck: 2,
  Sack: 3,
  Heartbeat: 4,
  HeartbeatAck: 5,
  Abort: 6,
  Shutdown: 7,
  ShutdownAck: 8,
  Error: 9,
  CookieEcho: 10,
  CookieAck: 11,
  Ecne: 12,
  Cwr: 13,
  ShutdownComplete: 14,
} as const;

export const SctpFault = { None: 0, TooShort: 1 } as const;
export const NO_CHUNK = -1;

/** The one gate: after SctpFault.None the common header is whole. Chunks are looked at by the functions below, which know where the packet ends. */
export function check(_m: DataView, l4: number, end: number): number {
  return end - l4 < SCTP_HEADER ? SctpFault.TooShort : SctpFault.None;
}

/** Offset of the first chunk, NO_CHUNK when there is no whole chunk header. */
export function firstChunk(l4: number, end: number): number {
  const chunk = l4 + SCTP_HEADER;
  return end - chunk < CHUNK_HEADER ? NO_CHUNK : chunk;
}

/** Offset of the chunk after `chunk`, NO_CHUNK when there is none; a chunk shorter than its own header ends the walk. */
export function nextChunk(m: DataView, chunk: number, end: number): number {
  const length = m.getUint16(chunk + CHUNK_LENGTH);
  if (length < CHUNK_HEADER) return NO_CHUNK;
  const next = chunk + ((length + 3) & ~3);
  return end - next < CHUNK_HEADER ? NO_CHUNK : next;
}

export function chunkType(m: DataView, chunk: number): number {
  return m.getUint8(chunk);
}

/** Compute and set the CRC of the packet at `l4 … end`. */
export function fillChecksum(m: DataView, bytes: Uint8Array, l4: number, end: number): void {
  m.setInt32(l4 + CHECKSUM, crc32c(bytes, l4, end, l4 + CHECKSUM), true);
}
