/**
 * Messages by which IPVS directors tell each other of connections (net/netfilter/ipvs/ip_vs_sync.c), IPv4 only.   @hot
 *
 *   header, version 1 (8 bytes)                            header, version 0 (4 bytes)
 *   +----------+----------+---------------------+          +----------+----------+---------------------+
 *   |    0     |  SyncID  |        Size         |          |  Count   |  SyncID  |        Size         |
 *   |  Count   | Version  |          0          |          +----------+----------+---------------------+
 *   +----------+----------+---------------------+
 *
 *   record, version 1 (36 bytes, options behind it)        record, version 0 (24 bytes, or 48 with both sequences)
 *   +----------+----------+-----+---------------+          +----------+----------+---------------------+
 *   |   Type   | Protocol | Ver |     Size      |          |    0     | Protocol |        CPort        |
 *   |                   Flags                   |          |        VPort        |        DPort        |
 *   |        State        |        CPort        |          |              Client address               |
 *   |        VPort        |        DPort        |          |              Virtual address              |
 *   |               Firewall mark               |          |            Destination address            |
 *   |             Timeout (seconds)             |          |        Flags        |        State        |
 *   |  Client, virtual and destination address  |          +----------+----------+---------------------+
 *   +----------+----------+---------------------+
 *
 * An option is type, length, data. A record of version 1 begins on a multiple of 4; Size is without that padding. In version 0 the sequences are in the
 * sender's byte order.
 */
export const SYNC_HEADER = 8;
export const SYNC_HEADER_V0 = 4;
export const SYNC_RECORD = 36;
export const SYNC_RECORD_V0 = 24;
/** Both sequences, each initial number, delta, delta before. */
export const SYNC_SEQUENCES = 24;
export const SYNC_OPTION_HEADER = 2;

/** Bits of a record's flags (include/uapi/linux/ip_vs.h). The low three are the forwarding method. */
export const SyncFlag = {
  Method: 0x0007,
  Synced: 0x0020,
  Hashed: 0x0040,
  NoOutput: 0x0080,
  Inactive: 0x0100,
  OutSeq: 0x0200,
  InSeq: 0x0400,
  NoCport: 0x0800,
  Template: 0x1000,
  OnePacket: 0x2000,
} as const;

export const SyncOption = { Sequences: 1, PeData: 2, PeName: 3, LifeLeft: 4 } as const;
/** Who does not know an option with this bit passes over it. */
export const OPTIONAL = 0x40;
const PE_DATA_LONGEST = 255;
const PE_NAME_LONGEST = 16;

/** IPv6. */
const TYPE_INET6 = 1;
const RECORD_V6 = 72;
const SIZE_MASK = 0x0fff;

export const SyncFault = {
  None: 0,
  /** Ends the message. */
  Bad: 1,
  /** This record cannot be had; the next one can. */
  Skip: 2,
} as const;

/** One record, for both directions: its fields, and where its options lie. */
export class SyncRecord {
  protocol = 0;
  /** SyncFlag bits. */
  flags = 0;
  state = 0;
  cport = 0;
  vport = 0;
  dport = 0;
  cip = 0;
  vip = 0;
  rip = 0;
  /** int32. */
  fwmark = 0;
  /** Seconds, uint32; 0: as the receiver thinks fit. */
  timeout = 0;
  /** Seconds until it ends, when less than `timeout`; -1: not told. Only tapvs says it. */
  lifeLeft = -1;
  /** Initial number, delta, delta before: inbound, then outbound. */
  readonly sequences = new Int32Array(6);
  hasSequences = 0;
  /** Persistence engine: its data and name. */
  readonly peData = new Uint8Array(PE_DATA_LONGEST);
  peDataLength = 0;
  readonly peName = new Uint8Array(PE_NAME_LONGEST);
  peNameLength = 0;
}

export function syncId(m: DataView, at: number): number {
  return m.getUint8(at + 1);
}
export function messageSize(m: DataView, at: number): number {
  return m.getUint16(at + 2);
}
/** Only a whole header of version 1 has its fixed bytes; whatever else is taken for version 0. */
export function isVersion1(m: DataView, at: number, length: number): boolean {
  return length >= SYNC_HEADER && m.getUint8(at) === 0 && m.getUint8(at + 5) === 1 && m.getUint16(at + 6) === 0;
}
export function recordCount(m: DataView, at: number, version: number): number {
  return m.getUint8(version === 0 ? at : at + 4);
}

/** Length of a record with its options, without padding. */
export function recordLength(record: SyncRecord, version: number): number {
  if (version === 0) return SYNC_RECORD_V0 + (record.hasSequences === 0 ? 0 : SYNC_SEQUENCES);
  let length = SYNC_RECORD;
  if (record.hasSequences !== 0) length += SYNC_OPTION_HEADER + SYNC_SEQUENCES;
  if (record.peDataLength !== 0) length += SYNC_OPTION_HEADER + record.peDataLength;
  if (record.peNameLength !== 0) length += SYNC_OPTION_HEADER + record.peNameLength;
  if (record.lifeLeft >= 0) length += SYNC_OPTION_HEADER + 4;
  return length;
}

/** An empty message; `appendRecord` makes it grow. Answers its length. */
export function emitHeader(m: DataView, at: number, version: number, id: number): number {
  if (version === 0) {
    m.setUint8(at, 0);
    m.setUint8(at + 1, id);
    m.setUint16(at + 2, SYNC_HEADER_V0);
    return SYNC_HEADER_V0;
  }
  m.setUint8(at, 0);
  m.setUint8(at + 1, id);
  m.setUint16(at + 2, SYNC_HEADER);
  m.setUint8(at + 4, 0);
  m.setUint8(at + 5, 1);
  m.setUint16(at + 6, 0);
  return SYNC_HEADER;
}

/** Add a record to the message of `length` bytes at `at`, where there is room for it; answers the new length. */
export function appendRecord(m: DataView, at: number, length: number, version: number, record: SyncRecord): number {
  let to = at + length;
  if (version === 0) {
    m.setUint8(at, m.getUint8(at) + 1);
  } else {
    for (; ((to - at) & 3) !== 0; to++) m.setUint8(to, 0);
    m.setUint8(at + 4, m.getUint8(at + 4) + 1);
  }
  const end = version === 0 ? emitRecordV0(m, to, record) : emitRecord(m, to, record);
  m.setUint16(at + 2, end - at);
  return end - at;
}

function emitRecord(m: DataView, at: number, r: SyncRecord): number {
  m.setUint8(at, 0);
  m.setUint8(at + 1, r.protocol);
  m.setUint16(at + 2, recordLength(r, 1));
  m.setUint32(at + 4, r.flags);
  m.setUint16(at + 8, r.state);
  m.setUint16(at + 10, r.cport);
  m.setUint16(at + 12, r.vport);
  m.setUint16(at + 14, r.dport);
  m.setInt32(at + 16, r.fwmark);
  m.setUint32(at + 20, r.timeout);
  m.setInt32(at + 24, r.cip);
  m.setInt32(at + 28, r.vip);
  m.setInt32(at + 32, r.rip);
  let to = at + SYNC_RECORD;
  if (r.hasSequences !== 0) {
    m.setUint8(to, SyncOption.Sequences);
    m.setUint8(to + 1, SYNC_SEQUENCES);
    to += SYNC_OPTION_HEADER;
    for (let i = 0; i < 6; i++, to += 4) m.setInt32(to, r.sequences[i]!);
  }
  if (r.peDataLength !== 0) to = emitBytes(m, to, SyncOption.PeData, r.peData, r.peDataLength);
  if (r.peNameLength !== 0) to = emitBytes(m, to, SyncOption.PeName, r.peName, r.peNameLength);
  if (r.lifeLeft >= 0) {
    m.setUint8(to, SyncOption.LifeLeft | OPTIONAL);
    m.setUint8(to + 1, 4);
    m.setUint32(to + 2, r.lifeLeft);
    to += SYNC_OPTION_HEADER + 4;
  }
  return to;
}

function emitBytes(m: DataView, at: number, type: number, bytes: Uint8Array, length: number): number {
  m.setUint8(at, type);
  m.setUint8(at + 1, length);
  let to = at + SYNC_OPTION_HEADER;
  for (let i = 0; i < length; i++, to++) m.setUint8(to, bytes[i]!);
  return to;
}

function emitRecordV0(m: DataView, at: number, r: SyncRecord): number {
  m.setUint8(at, 0);
  m.setUint8(at + 1, r.protocol);
  m.setUint16(at + 2, r.cport);
  m.setUint16(at + 4, r.vport);
  m.setUint16(at + 6, r.dport);
  m.setInt32(at + 8, r.cip);
  m.setInt32(at + 12, r.vip);
  m.setInt32(at + 16, r.rip);
  m.setUint16(at + 20, r.flags);
  m.setUint16(at + 22, r.state);
  if (r.hasSequences === 0) return at + SYNC_RECORD_V0;
  for (let i = 0; i < 6; i++) m.setInt32(at + SYNC_RECORD_V0 + i * 4, r.sequences[i]!, true);
  return at + SYNC_RECORD_V0 + SYNC_SEQUENCES;
}

/** Walks the records of a message whose header was found sound. */
export class SyncReader {
  readonly record = new SyncRecord();
  #m: DataView = new DataView(new ArrayBuffer(0));
  #at = 0;
  #end = 0;
  #left = 0;
  #version = 0;

  /** @param length of the message, at least SYNC_HEADER_V0 */
  open(m: DataView, at: number, length: number): void {
    this.#m = m;
    this.#version = isVersion1(m, at, length) ? 1 : 0;
    this.#at = at + (this.#version === 0 ? SYNC_HEADER_V0 : SYNC_HEADER);
    this.#end = at + length;
    this.#left = recordCount(m, at, this.#version);
  }

  get isAtEnd(): boolean {
    return this.#left === 0;
  }

  /** Read the next record into `record`; only while not `isAtEnd`. @returns SyncFault */
  next(): number {
    this.#left--;
    const r = this.record;
    r.fwmark = 0;
    r.timeout = 0;
    r.lifeLeft = -1;
    r.hasSequences = 0;
    r.peDataLength = 0;
    r.peNameLength = 0;
    const fault = this.#version === 0 ? this.#readV0(r) : this.#read(r);
    if (fault === SyncFault.Bad) this.#left = 0;
    return fault;
  }

  #readV0(r: SyncRecord): number {
    const at = this.#at;
    const m = this.#m;
    if (at + SYNC_RECORD_V0 > this.#end) return SyncFault.Bad;
    r.protocol = m.getUint8(at + 1);
    r.cport = m.getUint16(at + 2);
    r.vport = m.getUint16(at + 4);
    r.dport = m.getUint16(at + 6);
    r.cip = m.getInt32(at + 8);
    r.vip = m.getInt32(at + 12);
    r.rip = m.getInt32(at + 16);
    r.flags = m.getUint16(at + 20);
    r.state = m.getUint16(at + 22);
    this.#at += SYNC_RECORD_V0;
    if ((r.flags & (SyncFlag.InSeq | SyncFlag.OutSeq)) === 0) return SyncFault.None;
    if (this.#at + SYNC_SEQUENCES > this.#end) return SyncFault.Bad;
    for (let i = 0; i < 6; i++) r.sequences[i] = m.getInt32(this.#at + i * 4, true);
    r.hasSequences = 1;
    this.#at += SYNC_SEQUENCES;
    return SyncFault.None;
  }

  #read(r: SyncRecord): number {
    const at = this.#at;
    const m = this.#m;
    if (at + SYNC_RECORD > this.#end) return SyncFault.Bad;
    const type = m.getUint8(at);
    const word = m.getUint16(at + 2);
    const size = word & SIZE_MASK;
    const end = at + size;
    if (end > this.#end || word !== size) return SyncFault.Bad;
    this.#at = at + ((size + 3) & ~3);
    if ((type & TYPE_INET6) !== 0) return size < RECORD_V6 ? SyncFault.Bad : SyncFault.Skip;
    if (type !== 0 || size < SYNC_RECORD) return SyncFault.Bad;
    r.protocol = m.getUint8(at + 1);
    r.flags = m.getUint32(at + 4);
    r.state = m.getUint16(at + 8);
    r.cport = m.getUint16(at + 10);
    r.vport = m.getUint16(at + 12);
    r.dport = m.getUint16(at + 14);
    r.fwmark = m.getInt32(at + 16);
    r.timeout = m.getUint32(at + 20);
    r.cip = m.getInt32(at + 24);
    r.vip = m.getInt32(at + 28);
    r.rip = m.getInt32(at + 32);
    return this.#readOptions(r, at + SYNC_RECORD, end);
  }

  /** Each at most once; an option that is unknown and not optional spoils its record only (ip_vs_proc_sync_conn). */
  #readOptions(r: SyncRecord, from: number, end: number): number {
    const m = this.#m;
    for (let at = from; at < end; ) {
      if (at + SYNC_OPTION_HEADER > end) return SyncFault.Bad;
      const type = m.getUint8(at);
      const length = m.getUint8(at + 1);
      at += SYNC_OPTION_HEADER;
      if (length === 0 || at + length > end) return SyncFault.Bad;
      switch (type & ~OPTIONAL) {
        case SyncOption.Sequences:
          if (length !== SYNC_SEQUENCES || r.hasSequences !== 0) return SyncFault.Bad;
          for (let i = 0; i < 6; i++) r.sequences[i] = m.getInt32(at + i * 4);
          r.hasSequences = 1;
          break;
        case SyncOption.PeData:
          if (r.peDataLength !== 0) return SyncFault.Bad;
          for (let i = 0; i < length; i++) r.peData[i] = m.getUint8(at + i);
          r.peDataLength = length;
          break;
        case SyncOption.PeName:
          if (length > PE_NAME_LONGEST || r.peNameLength !== 0) return SyncFault.Bad;
          for (let i = 0; i < length; i++) r.peName[i] = m.getUint8(at + i);
          r.peNameLength = length;
          break;
        default:
          if ((type & OPTIONAL) === 0) return SyncFault.Skip;
          if (type === (SyncOption.LifeLeft | OPTIONAL) && length === 4) r.lifeLeft = m.getUint32(at);
      }
      at += length;
    }
    return SyncFault.None;
  }
}
