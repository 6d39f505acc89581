/**
 * Packets in the notation of the recorded scenarios (`{"p": "tcp", "src": "10.1.0.2:40000", "flags": "S", …}`), for the test that replays them.
 * Everything can be wrong on purpose, so layers are put together byte by byte. Not for the data path.
 */
import { ip4 } from '../wire/addr.ts';
import { fold, pseudoSum, sumBytes } from '../wire/checksum.ts';
import { crc32c } from '../wire/crc32c.ts';

export interface PacketSpec {
  readonly p: string | number;
  readonly src: string;
  readonly dst: string;
  readonly [field: string]: unknown;
}

type Fields = Readonly<Record<string, unknown>>;
type Bytes = readonly number[];

const PROTO: Readonly<Record<string, number>> = {
  icmp: 1,
  tcp: 6,
  udp: 17,
  dccp: 33,
  gre: 47,
  sctp: 132,
  udplite: 136,
};
const TCP_FLAGS = 'FSRPAUEC';
const BASES: Readonly<Record<string, number>> = { c: 0x10000000, s: 0x50000000, d: 0x90000000, e: 0xd0000000 };
const CHUNKS: Readonly<Record<string, number>> = {
  DATA: 0,
  INIT: 1,
  INIT_ACK: 2,
  SACK: 3,
  HEARTBEAT: 4,
  HEARTBEAT_ACK: 5,
  ABORT: 6,
  SHUTDOWN: 7,
  SHUTDOWN_ACK: 8,
  ERROR: 9,
  COOKIE_ECHO: 10,
  COOKIE_ACK: 11,
  SHUTDOWN_COMPLETE: 14,
};
const WRONG = 0x1111;

const u8 = (n: number): number[] => [n & 0xff];
const u16 = (n: number): number[] => [(n >>> 8) & 0xff, n & 0xff];
const u32 = (n: number): number[] => [...u16(n >>> 16), ...u16(n)];
const zeros = (n: number): number[] => new Array<number>(n).fill(0);
const fromHex = (text: string): number[] => (text.match(/../g) ?? []).map((byte) => Number.parseInt(byte, 16));
const pattern = (n: number, seed = 0): number[] => Array.from({ length: n }, (_, i) => (i * 7 + seed) & 255);

function number(fields: Fields, name: string, otherwise: number): number {
  const value = fields[name];
  return typeof value === 'number' ? value : otherwise;
}

function text(fields: Fields, name: string): string {
  const value = fields[name];
  return typeof value === 'string' ? value : '';
}

/** `c+1`: one more than the base that the scenario calls c. */
function sequence(value: unknown): number {
  if (typeof value === 'number') return value;
  const [, base = 'c', sign, by = '0'] = /^([a-z])(?:([+-])(\d+))?$/.exec(String(value)) ?? [];
  return ((BASES[base] ?? 0) + (sign === '-' ? -Number(by) : Number(by))) >>> 0;
}

function checksum(bytes: Bytes): number {
  const view = new DataView(Uint8Array.from(bytes).buffer);
  return ~sumBytes(view, 0, bytes.length) & 0xffff;
}

function tcpOptions(list: string): number[] {
  const options = list.split(',').flatMap((word): number[] => {
    const [key, value = ''] = word.split('=');
    switch (key) {
      case '':
        return [];
      case 'mss':
        return [2, 4, ...u16(Number(value))];
      case 'sackok':
        return [4, 2];
      case 'ws':
        return [3, 3, Number(value)];
      case 'ts':
        return [8, 10, ...value.split(':').flatMap((n) => u32(Number(n)))];
      case 'sack': {
        const edges = value.split(/[:;]/).flatMap((edge) => u32(sequence(edge)));
        return [5, 2 + edges.length, ...edges];
      }
      case 'nop':
        return [1];
      case 'eol':
        return [0];
      default:
        return fromHex(value);
    }
  });
  while (options.length % 4 !== 0) options.push(1);
  return options;
}

function chunkValue(type: number, chunk: Fields): number[] {
  if (chunk.hex !== undefined) return fromHex(text(chunk, 'hex'));
  const tsn = number(chunk, 'tsn', 1);
  const letters = [0x61, 0x62, 0x63, 0x64];
  switch (type) {
    case 0:
      return [...u32(tsn), ...zeros(8), ...pattern(number(chunk, 'len', 4))];
    case 1:
    case 2:
      return [
        ...u32(number(chunk, 'tag', 0)),
        ...u32(number(chunk, 'rwnd', 65536)),
        ...u16(10),
        ...u16(10),
        ...u32(tsn),
        ...(type === 2 ? [0, 7, 0, 8, ...letters] : []),
      ];
    case 3:
      return [...u32(tsn), ...u32(65536), ...zeros(4)];
    case 4:
    case 5:
      return [0, 1, 0, 8, 0x68, 0x62, 0x68, 0x62];
    case 7:
      return u32(tsn);
    case 10:
      return letters;
    default:
      return [];
  }
}

function chunkBytes(chunk: Fields): number[] {
  const type = typeof chunk.t === 'number' ? chunk.t : CHUNKS[text(chunk, 't')]!;
  const value = chunkValue(type, chunk);
  const length = number(chunk, 'clen', 4 + value.length);
  return [...u8(type), ...u8(number(chunk, 'flags', 0)), ...u16(length), ...value, ...zeros(-value.length & 3)];
}

function payload(a: Fields): number[] {
  if (a.hex !== undefined) return fromHex(text(a, 'hex'));
  if (a.data !== undefined) return [...text(a, 'data')].map((letter) => letter.charCodeAt(0));
  return pattern(number(a, 'len', 0), number(a, 'seed', 0));
}

/** `10.1.0.2:40000`: address and port. */
function endpoint(value: string): [number, number] {
  const [address = '', port = '0'] = value.split(':');
  return [ip4(address), Number(port)];
}

function transport(a: PacketSpec): number[] {
  const [src, srcPort] = endpoint(a.src);
  const [dst, dstPort] = endpoint(a.dst);
  const ports = [...u16(srcPort), ...u16(dstPort)];
  const data = payload(a);
  const wrong = a.l4sum === 'bad' ? WRONG : 0;
  const sumOf = (proto: number, length: number, bytes: Bytes) =>
    ~fold(fold(pseudoSum(src, dst, proto, length)) + (~checksum(bytes) & 0xffff)) & 0xffff;
  switch (a.p) {
    case 'tcp': {
      const options = tcpOptions(text(a, 'opt'));
      const flags = [...text(a, 'flags')].reduce(
        (bits, c) => (c === '-' ? bits : bits | (1 << TCP_FLAGS.indexOf(c))),
        0,
      );
      const before = [
        ...ports,
        ...u32(sequence(a.seq ?? 0)),
        ...u32(sequence(a.ack ?? 0)),
        ...u8(number(a, 'doff', 5 + options.length / 4) << 4),
        ...u8(flags),
        ...u16(number(a, 'win', 64240)),
      ];
      const after = [...u16(number(a, 'urg', 0)), ...options, ...data];
      const whole = [...before, 0, 0, ...after];
      return [...before, ...u16(sumOf(6, whole.length, whole) ^ wrong), ...after];
    }
    case 'udp':
    case 'udplite': {
      const length = 8 + data.length;
      const coverage = number(a, 'cov', 0);
      const before = [...ports, ...u16(a.p === 'udp' ? number(a, 'ulen', length) : coverage)];
      const whole = [...before, 0, 0, ...data];
      const covered = a.p === 'udp' ? whole : whole.slice(0, coverage === 0 ? length : coverage);
      const sum = sumOf(number(a, 'sumproto', PROTO[a.p]!), length, covered) || 0xffff;
      return [...before, ...u16(a.l4sum === 'zero' ? 0 : sum ^ wrong), ...data];
    }
    case 'icmp':
      return icmp(a, data, wrong);
    case 'sctp': {
      const chunks = (a.chunks as readonly Fields[]).flatMap(chunkBytes);
      const before = [...ports, ...u32(number(a, 'vtag', 0))];
      const crc = crc32c(Uint8Array.from([...before, 0, 0, 0, 0, ...chunks]), 0, 12 + chunks.length, -1) ^ wrong;
      return [...before, ...u32(crc).reverse(), ...chunks];
    }
    default:
      return data;
  }
}

function icmp(a: PacketSpec, data: readonly number[], wrong: number): number[] {
  let rest = [...u16(number(a, 'id', 0)), ...u16(number(a, 'iseq', 1))];
  let body = data;
  if (a.inner !== undefined) {
    const inner = [...ipPackets(a.inner as PacketSpec)[0]!];
    const header = (inner[0]! & 15) * 4;
    body = a.cut === null ? inner : inner.slice(0, header + number(a, 'cut', 8));
    rest = a.gw === undefined ? [0, 0, ...u16(number(a, 'mtu', 0))] : u32(ip4(text(a, 'gw')));
  }
  const kind = [...u8(number(a, 'type', 0)), ...u8(number(a, 'code', 0))];
  return [...kind, ...u16(checksum([...kind, 0, 0, ...rest, ...body]) ^ wrong), ...rest, ...body];
}

/** The IPv4 packets that a `tx` means: several when it asks for fragments. */
export function ipPackets(a: PacketSpec): Uint8Array[] {
  let body = transport(a);
  if (a.trunc !== undefined) body = body.slice(0, number(a, 'trunc', 0));
  const options = fromHex(text(a, 'ipopt'));
  while (options.length % 4 !== 0) options.push(0);
  const proto = typeof a.p === 'number' ? a.p : PROTO[a.p]!;
  const one = (part: Bytes, offset: number, mf: boolean, df: boolean): Uint8Array => {
    const before = [
      ...u8(0x45 + options.length / 4),
      ...u8(number(a, 'tos', 0)),
      ...u16(20 + options.length + part.length),
      ...u16(number(a, 'ipid', 1)),
      ...u16((df ? 0x4000 : 0) | (mf ? 0x2000 : 0) | (offset >> 3)),
      ...u8(number(a, 'ttl', 64)),
      ...u8(proto),
    ];
    const after = [...u32(endpoint(a.src)[0]), ...u32(endpoint(a.dst)[0]), ...options];
    const sum = checksum([...before, 0, 0, ...after]) ^ (a.ipsum === 'bad' ? WRONG : 0);
    return Uint8Array.from([...before, ...u16(sum), ...after, ...part]);
  };
  if (a.frags === undefined) return [one(body, 0, false, a.df !== false)];
  const frags = a.frags as readonly (readonly [number, number, { readonly mf?: boolean; readonly xor?: number }?])[];
  return frags.map(([from, to, { mf, xor = 0 } = {}]) => {
    const part = body.slice(from, to).map((byte) => byte ^ xor);
    return one(part, from, mf ?? to < body.length, a.df === true);
  });
}
