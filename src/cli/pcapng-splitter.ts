/**
 * Cuts a pcapng stream (draft-ietf-opsawg-pcapng) at whole blocks and counts its packets, so that a capture can end after so many of them and what was
 * written is always a whole file.
 */

const SECTION_HEADER = 0x0a0d0d0a;
const BYTE_ORDER_MAGIC = 0x1a2b3c4d;
const ENHANCED_PACKET = 6;
const SIMPLE_PACKET = 3;

export class PcapngSplitter {
  /** Packets in all that push() has answered. */
  packets = 0;
  readonly #limit: number;
  #rest: Buffer = Buffer.alloc(0);
  #isLittle = true;

  constructor(limit: number) {
    this.#limit = limit;
  }

  /** The whole blocks that there are now, up to the last packet within the limit. */
  push(chunk: Buffer): Buffer {
    const bytes = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    let at = 0;
    while (at + 12 <= bytes.length && this.packets < this.#limit) {
      if (bytes.readUInt32LE(at) === SECTION_HEADER) this.#isLittle = bytes.readUInt32LE(at + 8) === BYTE_ORDER_MAGIC;
      const type = this.#isLittle ? bytes.readUInt32LE(at) : bytes.readUInt32BE(at);
      const length = this.#isLittle ? bytes.readUInt32LE(at + 4) : bytes.readUInt32BE(at + 4);
      if (length < 12) throw new Error(`a block of ${length} bytes is no pcapng`);
      if (at + length > bytes.length) break;
      if (type === ENHANCED_PACKET || type === SIMPLE_PACKET) this.packets++;
      at += length;
    }
    this.#rest = bytes.subarray(at);
    return bytes.subarray(0, at);
  }
}
