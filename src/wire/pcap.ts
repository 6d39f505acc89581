/**
 * Capture files: classic pcap (microseconds and nanoseconds, either byte order) is read and written; of pcapng the blocks that carry
 * packets are read, with their comments (draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng).
 *
 *   pcap      magic 4 | version 2+2 | zone 4 | accuracy 4 | snap length 4 | link type 4    then per packet:
 *             seconds 4 | fraction 4 | captured bytes 4 | bytes on the wire 4 | data
 *   pcapng    blocks: type 4 | total length 4 | body, padded to 4 | total length 4
 *
 * Reading never throws: a file that stops making sense ends there, with a fault that says how.
 */
const MAGIC_US = 0xa1b2c3d4;
const MAGIC_NS = 0xa1b23c4d;
const FILE_HEADER = 24;
const RECORD_HEADER = 16;
/** More bytes in one record than any writer would put there (libpcap's MAXIMUM_SNAPLEN). */
const LONGEST = 262144;

const SECTION = 0x0a0d0d0a;
const BYTE_ORDER = 0x1a2b3c4d;
const INTERFACE = 1;
const SIMPLE_PACKET = 3;
const ENHANCED_PACKET = 6;
const BLOCK_FRAME = 12;
const OPTION_END = 0;
const OPTION_COMMENT = 1;
const OPTION_IF_TSRESOL = 9;

/** www.tcpdump.org/linktypes.html: Raw is an IP packet without a link header. */
export const LinkType = { Ethernet: 1, RawBsd: 12, RawOpenbsd: 14, Raw: 101, LinuxCooked: 113, Ipv4: 228 } as const;

export type PcapFault =
  | 'NotACapture'
  | 'UnknownVersion'
  | 'TruncatedHeader'
  | 'TruncatedPacket'
  | 'BadLength'
  | 'NoInterface';

/** One sentence each, for operators. */
export const pcapFaultText: Readonly<Record<PcapFault, string>> = {
  NotACapture: 'neither a pcap nor a pcapng file',
  UnknownVersion: 'a version of the format that is not known (pcap 2.x, pcapng 1.x are)',
  TruncatedHeader: 'the file ends inside a header',
  TruncatedPacket: 'the file ends inside a packet',
  BadLength: 'a length that cannot be',
  NoInterface: 'a packet of an interface that the file does not describe',
};

export interface PcapFrame {
  /** Since the epoch. */
  readonly seconds: number;
  readonly nanoseconds: number;
  /** Bytes on the wire; `bytes` may be fewer. */
  readonly length: number;
  readonly bytes: Uint8Array;
  readonly linkType: number;
  /** pcapng only; empty when there is none. */
  readonly comment: string;
}

export interface Capture {
  readonly frames: readonly PcapFrame[];
  /** Why reading ended before the end of the file; null when all was read. */
  readonly fault: PcapFault | null;
}

/** All packets up to the end or to the first thing that makes no sense. The frames' bytes lie in `file`. */
export function readCapture(file: Uint8Array): Capture {
  const m = new DataView(file.buffer, file.byteOffset, file.byteLength);
  if (file.length < 4) return { frames: [], fault: 'NotACapture' };
  const magic = m.getUint32(0);
  if (magic === SECTION) return readPcapng(m, file);
  const swapped = m.getUint32(0, true);
  for (const [value, little] of [
    [magic, false],
    [swapped, true],
  ] as const) {
    if (value === MAGIC_US) return readPcap(m, file, little, 1000);
    if (value === MAGIC_NS) return readPcap(m, file, little, 1);
  }
  return { frames: [], fault: 'NotACapture' };
}

/** @param nanoseconds of one unit of the fraction field */
function readPcap(m: DataView, file: Uint8Array, little: boolean, nanoseconds: number): Capture {
  const frames: PcapFrame[] = [];
  if (file.length < FILE_HEADER) return { frames, fault: 'TruncatedHeader' };
  if (m.getUint16(4, little) !== 2) return { frames, fault: 'UnknownVersion' };
  // The upper bits tell of a frame check sequence; the type is the lower 16.
  const linkType = m.getUint32(20, little) & 0xffff;
  const snapLength = m.getUint32(16, little) || LONGEST;
  let at = FILE_HEADER;
  while (at < file.length) {
    if (file.length - at < RECORD_HEADER) return { frames, fault: 'TruncatedHeader' };
    const captured = m.getUint32(at + 8, little);
    if (captured > LONGEST) return { frames, fault: 'BadLength' };
    const start = at + RECORD_HEADER;
    if (file.length - start < captured) return { frames, fault: 'TruncatedPacket' };
    frames.push({
      seconds: m.getUint32(at, little),
      nanoseconds: m.getUint32(at + 4, little) * nanoseconds,
      length: m.getUint32(at + 12, little),
      // A record longer than the file says that any is: the rest is not the packet's (as libpcap sees it).
      bytes: file.subarray(start, start + Math.min(captured, snapLength)),
      linkType,
      comment: '',
    });
    at = start + captured;
  }
  return { frames, fault: null };
}

interface PcapngInterface {
  readonly linkType: number;
  readonly snapLength: number;
  /** Units of a time stamp in one second. */
  readonly resolution: bigint;
}

function readPcapng(m: DataView, file: Uint8Array): Capture {
  const frames: PcapFrame[] = [];
  let interfaces: PcapngInterface[] = [];
  let little = false;
  let at = 0;
  while (at < file.length) {
    if (file.length - at < BLOCK_FRAME) return { frames, fault: 'TruncatedHeader' };
    if (m.getUint32(at) === SECTION) {
      // A section states its own byte order, before its length can be read.
      little = m.getUint32(at + 8) !== BYTE_ORDER;
      if (m.getUint32(at + 8, little) !== BYTE_ORDER) return { frames, fault: 'NotACapture' };
    }
    const type = m.getUint32(at, little);
    const length = m.getUint32(at + 4, little);
    if (length < BLOCK_FRAME || (length & 3) !== 0) return { frames, fault: 'BadLength' };
    if (length > file.length - at) return { frames, fault: 'TruncatedPacket' };
    if (m.getUint32(at + length - 4, little) !== length) return { frames, fault: 'BadLength' };
    const end = at + length - 4;
    const body = at + 8;
    if (type === SECTION) {
      if (end - body < 16) return { frames, fault: 'BadLength' };
      if (m.getUint16(body + 4, little) !== 1) return { frames, fault: 'UnknownVersion' };
      interfaces = [];
    } else if (type === INTERFACE) {
      if (end - body < 8) return { frames, fault: 'BadLength' };
      interfaces.push({
        linkType: m.getUint16(body, little),
        snapLength: m.getUint32(body + 4, little),
        resolution: resolution(m, body + 8, end, little),
      });
    } else if (type === ENHANCED_PACKET || type === SIMPLE_PACKET) {
      const frame =
        type === ENHANCED_PACKET
          ? enhancedPacket(m, file, body, end, little, interfaces)
          : simplePacket(m, file, body, end, little, interfaces);
      if (typeof frame === 'string') return { frames, fault: frame };
      frames.push(frame);
    }
    at += length;
  }
  return { frames, fault: null };
}

function enhancedPacket(
  m: DataView,
  file: Uint8Array,
  body: number,
  end: number,
  little: boolean,
  interfaces: readonly PcapngInterface[],
): PcapFrame | PcapFault {
  if (end - body < 20) return 'BadLength';
  const on = interfaces[m.getUint32(body, little)];
  if (on === undefined) return 'NoInterface';
  const captured = m.getUint32(body + 12, little);
  if (captured > LONGEST || captured > end - body - 20) return 'BadLength';
  const stamp = (BigInt(m.getUint32(body + 4, little)) << 32n) | BigInt(m.getUint32(body + 8, little));
  const start = body + 20;
  return {
    seconds: Number(stamp / on.resolution),
    nanoseconds: Number(((stamp % on.resolution) * 1_000_000_000n) / on.resolution),
    length: m.getUint32(body + 16, little),
    bytes: file.subarray(start, start + captured),
    linkType: on.linkType,
    comment: comment(m, file, start + padded(captured), end, little),
  };
}

function simplePacket(
  m: DataView,
  file: Uint8Array,
  body: number,
  end: number,
  little: boolean,
  interfaces: readonly PcapngInterface[],
): PcapFrame | PcapFault {
  const on = interfaces[0];
  if (on === undefined) return 'NoInterface';
  if (end - body < 4) return 'BadLength';
  const length = m.getUint32(body, little);
  const captured = on.snapLength === 0 ? length : Math.min(length, on.snapLength);
  if (captured > LONGEST || captured > end - body - 4) return 'BadLength';
  const bytes = file.subarray(body + 4, body + 4 + captured);
  return { seconds: 0, nanoseconds: 0, length, bytes, linkType: on.linkType, comment: '' };
}

/** Visits the options of a block until its end, or until one that does not fit. */
function options(
  m: DataView,
  from: number,
  end: number,
  little: boolean,
  visit: (code: number, at: number, length: number) => void,
): void {
  let at = from;
  while (at + 4 <= end) {
    const code = m.getUint16(at, little);
    const length = m.getUint16(at + 2, little);
    if (code === OPTION_END || at + 4 + length > end) return;
    visit(code, at + 4, length);
    at += 4 + padded(length);
  }
}

/** if_tsresol: a power of ten, or of two when the top bit is set; microseconds without it. */
function resolution(m: DataView, from: number, end: number, little: boolean): bigint {
  let units = 1_000_000n;
  options(m, from, end, little, (code, at, length) => {
    if (code !== OPTION_IF_TSRESOL || length < 1) return;
    const value = m.getUint8(at);
    units = (value & 0x80) !== 0 ? 2n ** BigInt(value & 0x7f) : 10n ** BigInt(value);
  });
  return units;
}

function comment(m: DataView, file: Uint8Array, from: number, end: number, little: boolean): string {
  let text = '';
  options(m, from, end, little, (code, at, length) => {
    if (code === OPTION_COMMENT) text = new TextDecoder().decode(file.subarray(at, at + length));
  });
  return text;
}

function padded(length: number): number {
  return (length + 3) & ~3;
}

/** The start of a classic file: microseconds, little-endian. */
export function pcapHeader(linkType: number, snapLength: number = LONGEST): Uint8Array {
  const m = new DataView(new ArrayBuffer(FILE_HEADER));
  m.setUint32(0, MAGIC_US, true);
  m.setUint16(4, 2, true);
  m.setUint16(6, 4, true);
  m.setUint32(16, snapLength, true);
  m.setUint32(20, linkType, true);
  return new Uint8Array(m.buffer);
}

/** One packet of a classic file. @param timeUs since the epoch  @param length on the wire */
export function pcapRecord(timeUs: number, bytes: Uint8Array, length: number): Uint8Array {
  const record = new Uint8Array(RECORD_HEADER + bytes.length);
  const m = new DataView(record.buffer);
  m.setUint32(0, Math.floor(timeUs / 1e6), true);
  m.setUint32(4, Math.floor(timeUs % 1e6), true);
  m.setUint32(8, bytes.length, true);
  m.setUint32(12, length, true);
  record.set(bytes, RECORD_HEADER);
  return record;
}
