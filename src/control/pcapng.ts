/**
 * pcapng blocks as `GET /v1/capture` streams them: a section header, one interface description per device when it is first seen, one enhanced packet per
 * packet, whose comment says what became of it.
 *
 * libpcap (tcpdump) reads no file whose interfaces have different link types. So a stream of all devices is Ethernet throughout: a packet of the host port
 * gets an Ethernet header with all-zero addresses. A stream of one device has that device's own link type.
 *
 * Format: draft-ietf-opsawg-pcapng §4.1 (section header), §4.2 (interface description), §4.3 (enhanced packet), §3.5 (options). Little-endian.
 */
import type { CaptureRecord } from '../engine/messages.ts';

const SECTION_HEADER = 0x0a0d0d0a;
const INTERFACE_DESCRIPTION = 1;
const ENHANCED_PACKET = 6;
const BYTE_ORDER_MAGIC = 0x1a2b3c4d;

/** Link types of pcap: an Ethernet frame, or a bare IP packet. */
const LINKTYPE = { ethernet: 1, ip: 101 } as const;

const OPT_COMMENT = 1;
const SHB_USERAPPL = 4;
const IF_NAME = 2;
const IF_TSRESOL = 9;
const EPB_FLAGS = 2;
/** Microseconds: 10^-6. */
const TSRESOL_US = 6;
const DIRECTION = { in: 1, out: 2 } as const;

/** Zero addresses, type IPv4. */
const NO_ETHERNET = Buffer.from([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x08, 0x00]);

export interface PcapngOptions {
  /** Bytes of a packet at most. */
  readonly snapLength: number;
  /** Several devices may come. */
  readonly isMixed: boolean;
}

/** One stream: it numbers the interfaces in the order in which they come. */
export class PcapngStream {
  readonly #snapLength: number;
  readonly #isMixed: boolean;
  readonly #interfaces = new Map<string, number>();

  constructor({ snapLength, isMixed }: PcapngOptions) {
    this.#snapLength = snapLength;
    this.#isMixed = isMixed;
  }

  /** The section header that begins the stream. */
  start(application: string): Buffer {
    const body = Buffer.alloc(16);
    body.writeUInt32LE(BYTE_ORDER_MAGIC, 0);
    body.writeUInt16LE(1, 4); // version 1.0
    body.fill(0xff, 8, 16); // section length -1: not known
    return block(SECTION_HEADER, [body, option(SHB_USERAPPL, Buffer.from(application)), END_OF_OPTIONS]);
  }

  /** One packet, after the description of its interface when that is new. */
  packet(captured: CaptureRecord): Buffer {
    const record = this.#isMixed && captured.medium === 'ip' ? withEthernet(captured) : captured;
    const id = `${record.device} ${record.medium}`;
    let index = this.#interfaces.get(id);
    const blocks: Buffer[] = [];
    if (index === undefined) {
      index = this.#interfaces.size;
      this.#interfaces.set(id, index);
      blocks.push(this.#describe(record));
    }
    const body = Buffer.alloc(20);
    body.writeUInt32LE(index, 0);
    body.writeUInt32LE(Math.floor(record.timeUs / 2 ** 32), 4);
    body.writeUInt32LE((record.timeUs % 2 ** 32) >>> 0, 8);
    body.writeUInt32LE(record.bytes.length, 12);
    body.writeUInt32LE(record.length, 16);
    const flags = Buffer.alloc(4);
    flags.writeUInt32LE(DIRECTION[record.direction]);
    const parts = [body, padded(record.bytes), option(EPB_FLAGS, flags)];
    if (record.comment !== '') parts.push(option(OPT_COMMENT, Buffer.from(record.comment)));
    blocks.push(block(ENHANCED_PACKET, [...parts, END_OF_OPTIONS]));
    return blocks.length === 1 ? blocks[0]! : Buffer.concat(blocks);
  }

  #describe({ device, medium }: CaptureRecord): Buffer {
    const body = Buffer.alloc(8);
    body.writeUInt16LE(LINKTYPE[medium], 0);
    body.writeUInt32LE(this.#snapLength, 4);
    const name = option(IF_NAME, Buffer.from(device));
    const resolution = option(IF_TSRESOL, Buffer.from([TSRESOL_US]));
    return block(INTERFACE_DESCRIPTION, [body, name, resolution, END_OF_OPTIONS]);
  }
}

function withEthernet(record: CaptureRecord): CaptureRecord {
  const bytes = Buffer.concat([NO_ETHERNET, record.bytes]);
  return { ...record, medium: 'ethernet', bytes, length: record.length + NO_ETHERNET.length };
}

const END_OF_OPTIONS = Buffer.alloc(4);

/** Type, length, body, length again. Each part is a multiple of four bytes. */
function block(type: number, parts: readonly Uint8Array[]): Buffer {
  const length = 12 + parts.reduce((sum, part) => sum + part.length, 0);
  const head = Buffer.alloc(8);
  head.writeUInt32LE(type, 0);
  head.writeUInt32LE(length, 4);
  const tail = Buffer.alloc(4);
  tail.writeUInt32LE(length, 0);
  return Buffer.concat([head, ...parts, tail]);
}

function option(code: number, value: Uint8Array): Buffer {
  const head = Buffer.alloc(4);
  head.writeUInt16LE(code, 0);
  head.writeUInt16LE(value.length, 2);
  return Buffer.concat([head, padded(value)]);
}

function padded(bytes: Uint8Array): Uint8Array {
  const rest = bytes.length % 4;
  return rest === 0 ? bytes : Buffer.concat([bytes, Buffer.alloc(4 - rest)]);
}
