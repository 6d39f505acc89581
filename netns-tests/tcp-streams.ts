// The TCP connections of a capture, put together by sequence number as an end system would, and checked: a byte that is sent again is the same byte,
// nobody acknowledges what was not sent, and selective acknowledgements name pieces that were (RFC 9293 §3.4, RFC 2018 §3).
import { formatIp4 } from '../src/wire/addr.ts';

const SEQUENCE_SPACE = 2 ** 32;
const Flag = { Fin: 1, Syn: 2, Reset: 4, Ack: 16 } as const;
const Option = { End: 0, Nop: 1, Sack: 5 } as const;

export interface TcpStream {
  /** `10.0.1.2:40000` of who opened it, and of whom it was opened to. */
  readonly from: string;
  readonly to: string;
  readonly sent: Buffer;
  readonly received: Buffer;
  /** Both ends have closed it and acknowledged all. */
  readonly isWhole: boolean;
  /** Selective acknowledgements that it carried. */
  readonly sacks: number;
}

interface Segment {
  readonly seq: number;
  readonly ack: number;
  readonly flags: number;
  readonly data: Uint8Array;
  readonly sacks: readonly (readonly [number, number])[];
}

/** One end as the capture shows it; its numbers count from its SYN. */
class End {
  isn = -1;
  /** Behind the last byte that it sent. */
  next = 0;
  acked = 0;
  fin = -1;
  readonly #bytes: number[] = [];
  readonly #edges = new Set<number>();

  /** A number of this end's, from its SYN on. */
  relative(seq: number): number {
    return (seq - this.isn + SEQUENCE_SPACE) % SEQUENCE_SPACE;
  }

  send({ seq, flags, data }: Segment): string[] {
    const faults: string[] = [];
    const at = this.relative(seq) + (flags & Flag.Syn ? 1 : 0);
    if (at > this.next && !(flags & Flag.Syn)) faults.push(`a gap: bytes ${this.next} to ${at} were never sent`);
    data.forEach((byte, i) => {
      const known = this.#bytes[at - 1 + i];
      if (known !== undefined && known !== byte) faults.push(`byte ${at + i} is sent again as another`);
      this.#bytes[at - 1 + i] = byte;
    });
    const end = at + data.length + (flags & Flag.Fin ? 1 : 0);
    if (flags & Flag.Fin) {
      if (this.fin >= 0 && this.fin !== end) faults.push('a second end elsewhere');
      this.fin = end;
    }
    this.#edges
      .add(at)
      .add(at + data.length)
      .add(end);
    this.next = Math.max(this.next, end);
    return faults;
  }

  /** The other end's segment speaks of what this one sent. */
  acknowledge({ ack, sacks }: Segment, isCut: boolean): string[] {
    const faults: string[] = [];
    const upTo = this.relative(ack);
    if (upTo > this.next) faults.push(`acknowledges ${upTo}, sent are ${this.next}`);
    this.acked = Math.max(this.acked, upTo);
    for (const [left, right] of sacks) {
      const [from, to] = [this.relative(left), this.relative(right)];
      // A first block below the acknowledgement is a duplicate's (RFC 2883 §4).
      const areEdges = this.#edges.has(from) && this.#edges.has(to);
      if (from >= to || to > this.next || (isCut && !areEdges))
        faults.push(`selectively acknowledges ${from} to ${to}, which is no run of segments`);
    }
    return faults;
  }

  get bytes(): Buffer {
    return Buffer.from(this.#bytes);
  }

  get isDone(): boolean {
    return this.fin > 0 && this.acked === this.fin;
  }
}

/**
 * All connections whose SYN the capture holds, oldest first, and what is wrong with them. Ethernet frames; what is not TCP is passed over.
 * @param isCut no frame is a super-packet: what is acknowledged selectively begins and ends where segments do
 */
export function tcpStreams(frames: readonly Uint8Array[], isCut = true): { streams: TcpStream[]; faults: string[] } {
  const faults: string[] = [];
  const open = new Map<string, { ends: [End, End]; names: [string, string]; sacks: number }>();
  const all: (typeof open extends Map<string, infer C> ? C : never)[] = [];
  frames.forEach((bytes, i) => {
    const read = readSegment(bytes);
    if (read === null) return;
    const { src, dst, segment } = read;
    const key = [src, dst].sort().join(' ');
    if ((segment.flags & (Flag.Syn | Flag.Ack)) === Flag.Syn && open.get(key)?.names[0] !== src) {
      const born = { ends: [new End(), new End()] as [End, End], names: [src, dst] as [string, string], sacks: 0 };
      open.set(key, born);
      all.push(born);
    }
    const connection = open.get(key);
    if (connection === undefined) {
      faults.push(`frame ${i + 1}: ${src} > ${dst} of no connection`);
      return;
    }
    const [self, peer] = connection.names[0] === src ? connection.ends : [...connection.ends].reverse();
    if (segment.flags & Flag.Syn) self!.isn = segment.seq;
    const said = segment.flags & Flag.Reset ? ['a reset'] : self!.send(segment);
    if (segment.flags & Flag.Ack) said.push(...peer!.acknowledge(segment, isCut));
    connection.sacks += segment.sacks.length;
    faults.push(...said.map((fault) => `frame ${i + 1}: ${src} > ${dst}: ${fault}`));
  });
  const streams = all.map(({ ends: [a, b], names: [from, to], sacks }) => ({
    from,
    to,
    sent: a.bytes,
    received: b.bytes,
    isWhole: a.isDone && b.isDone,
    sacks,
  }));
  return { streams, faults };
}

function readSegment(bytes: Uint8Array): { src: string; dst: string; segment: Segment } | null {
  const m = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  if (bytes.length < 54 || m.getUint16(12) !== 0x0800 || m.getUint8(23) !== 6) return null;
  const l4 = 14 + ((m.getUint8(14) & 15) << 2);
  const end = 14 + m.getUint16(16);
  const data = l4 + ((m.getUint8(l4 + 12) >> 4) << 2);
  return {
    src: `${formatIp4(m.getInt32(26))}:${m.getUint16(l4)}`,
    dst: `${formatIp4(m.getInt32(30))}:${m.getUint16(l4 + 2)}`,
    segment: {
      seq: m.getUint32(l4 + 4),
      ack: m.getUint32(l4 + 8),
      flags: m.getUint8(l4 + 13),
      data: bytes.subarray(data, end),
      sacks: sackBlocks(m, l4 + 20, data),
    },
  };
}

function sackBlocks(m: DataView, from: number, end: number): [number, number][] {
  const blocks: [number, number][] = [];
  for (let at = from; at < end; ) {
    const kind = m.getUint8(at);
    if (kind === Option.End) break;
    const length = kind === Option.Nop ? 1 : Math.max(2, m.getUint8(at + 1));
    if (kind === Option.Sack)
      for (let block = at + 2; block < at + length; block += 8)
        blocks.push([m.getUint32(block), m.getUint32(block + 4)]);
    at += length;
  }
  return blocks;
}
