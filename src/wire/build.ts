/** Over 400 lines: builder, verifier and describer know the same layouts. */
/**
 * Frames for tests and tools: built layer by layer with right lengths and checksums, verified, and described in one line.
 *
 *   frame().eth(dst, src).ipv4('10.0.0.1', '10.0.0.2').tcp({ srcPort: 1024, dstPort: 80, flags: 'S' }).payload('hello').build()
 *
 * Every field that a layer computes (length, checksum, protocol) can be given instead, to build what is wrong on purpose. Without `.eth` the
 * result is an IP packet. A second `.ipv4` is an inner packet: of a tunnel after an `.ipv4`, a quotation after an `.icmp`.
 * Not for the data path: it allocates freely.
 */
import { formatIp4, formatMac, ip4, mac } from './addr.ts';
import { fold, pseudoSum, sumBytes } from './checksum.ts';
import { crc32c } from './crc32c.ts';

export interface Ipv4Fields {
  readonly ttl?: number;
  readonly tos?: number;
  readonly id?: number;
  readonly df?: boolean;
  readonly mf?: boolean;
  /** Bytes, a multiple of 8. */
  readonly offset?: number;
  readonly proto?: number;
  /** Padded with zeros to a multiple of 4. */
  readonly options?: readonly number[];
  readonly version?: number;
  /** In 32-bit words. */
  readonly ihl?: number;
  readonly totalLength?: number;
  readonly checksum?: number;
}

export interface TcpFields {
  readonly srcPort: number;
  readonly dstPort: number;
  readonly seq?: number;
  readonly ack?: number;
  /** tcpdump's letters: F S R P . (ACK) U E W; default '.'. */
  readonly flags?: string;
  readonly window?: number;
  readonly options?: readonly number[];
  /** Header length in 32-bit words. */
  readonly dataOffset?: number;
  readonly checksum?: number;
  /** The checksum field holds the pseudo-header sum only, as the kernel leaves it for the "hardware" (NEEDS_CSUM). */
  readonly partialChecksum?: boolean;
}

export interface UdpFields {
  readonly srcPort: number;
  readonly dstPort: number;
  readonly length?: number;
  readonly checksum?: number;
  readonly partialChecksum?: boolean;
}

export interface IcmpFields {
  readonly type: number;
  readonly code?: number;
  /** Identifier and sequence number of an echo … */
  readonly id?: number;
  readonly seq?: number;
  /** … or next-hop MTU of fragmentation needed. */
  readonly mtu?: number;
  readonly checksum?: number;
}

export interface SctpFields {
  readonly srcPort: number;
  readonly dstPort: number;
  /** Verification tag. */
  readonly tag?: number;
  /** Each with its type, as many bytes of value as asked for, and padding; `length` is what it says itself. */
  readonly chunks: readonly { readonly type: number; readonly value?: number; readonly length?: number }[];
  readonly checksum?: number;
}

export interface ArpFields {
  readonly op: 'request' | 'reply' | number;
  readonly senderMac: string;
  readonly sender: string;
  readonly targetMac?: string;
  readonly target: string;
}

interface Enclosing {
  readonly src: number;
  readonly dst: number;
}
interface Layer {
  /** IPv4 protocol number or EtherType by which the layer before announces this one. */
  readonly proto: number;
  readonly etherType: number;
  readonly addresses?: Enclosing;
  emit(body: Uint8Array, above: Enclosing, next: Layer | undefined): Uint8Array;
}

const FLAG_LETTERS = 'FSRP.UEW';

function tcpFlags(letters: string): number {
  let flags = 0;
  for (const letter of letters) {
    const bit = FLAG_LETTERS.indexOf(letter === 'A' ? '.' : letter === 'C' ? 'W' : letter);
    if (bit < 0) throw new Error(`unknown TCP flag: ${letter}`);
    flags |= 1 << bit;
  }
  return flags;
}

function concat(header: Uint8Array, body: Uint8Array): Uint8Array {
  const whole = new Uint8Array(header.length + body.length);
  whole.set(header);
  whole.set(body, header.length);
  return whole;
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function padded(options: readonly number[]): readonly number[] {
  return [...options, ...new Array<number>((4 - (options.length & 3)) & 3).fill(0)];
}

function chunkBytes(chunks: SctpFields['chunks']): Uint8Array {
  let all = new Uint8Array(0);
  for (const { type, value = 0, length } of chunks) {
    const chunk = new Uint8Array(4 + ((value + 3) & ~3));
    chunk.fill(0x78, 4, 4 + value);
    chunk[0] = type;
    viewOf(chunk).setUint16(2, length ?? 4 + value);
    all = concat(all, chunk) as Uint8Array<ArrayBuffer>;
  }
  return all;
}

/** Checksum of a transport segment with its pseudo-header, complete or partial. */
function transportSum(segment: Uint8Array, at: number, proto: number, above: Enclosing, partial: boolean): void {
  const view = viewOf(segment);
  const pseudo = fold(pseudoSum(above.src, above.dst, proto, segment.length));
  view.setUint16(at, 0);
  let field = pseudo;
  if (!partial) {
    field = ~fold(pseudo + sumBytes(view, 0, segment.length)) & 0xffff;
    if (proto === 17 && field === 0) field = 0xffff;
  }
  view.setUint16(at, field);
}

export class FrameBuilder {
  readonly #layers: Layer[] = [];
  #minimum = 0;

  #add(layer: Layer): this {
    this.#layers.push(layer);
    return this;
  }

  eth(dst: string, src: string, etherType?: number): this {
    return this.#add({
      proto: 0,
      etherType: 0,
      emit: (body, _above, next) => {
        const header = new Uint8Array(14);
        const view = viewOf(header);
        const [to, from] = [mac(dst), mac(src)];
        view.setUint16(0, to.hi);
        view.setInt32(2, to.lo);
        view.setUint16(6, from.hi);
        view.setInt32(8, from.lo);
        view.setUint16(12, etherType ?? next?.etherType ?? 0x0800);
        return concat(header, body);
      },
    });
  }

  arp(f: ArpFields): this {
    return this.#add({
      proto: 0,
      etherType: 0x0806,
      emit: (body) => {
        const m = new Uint8Array(28);
        const view = viewOf(m);
        const [from, to] = [mac(f.senderMac), mac(f.targetMac ?? '00:00:00:00:00:00')];
        view.setUint16(0, 1);
        view.setUint16(2, 0x0800);
        view.setUint16(4, 0x0604);
        view.setUint16(6, f.op === 'request' ? 1 : f.op === 'reply' ? 2 : f.op);
        view.setUint16(8, from.hi);
        view.setInt32(10, from.lo);
        view.setInt32(14, ip4(f.sender));
        view.setUint16(18, to.hi);
        view.setInt32(20, to.lo);
        view.setInt32(24, ip4(f.target));
        return concat(m, body);
      },
    });
  }

  ipv4(src: string, dst: string, f: Ipv4Fields = {}): this {
    const addresses = { src: ip4(src), dst: ip4(dst) };
    return this.#add({
      proto: 4,
      etherType: 0x0800,
      addresses,
      emit: (body, _above, next) => {
        const options = padded(f.options ?? []);
        const header = new Uint8Array(20 + options.length);
        const view = viewOf(header);
        header.set(options, 20);
        view.setUint8(0, ((f.version ?? 4) << 4) | (f.ihl ?? header.length >> 2));
        view.setUint8(1, f.tos ?? 0);
        view.setUint16(2, f.totalLength ?? header.length + body.length);
        view.setUint16(4, f.id ?? 0);
        view.setUint16(6, (f.df ? 0x4000 : 0) | (f.mf ? 0x2000 : 0) | ((f.offset ?? 0) >> 3));
        view.setUint8(8, f.ttl ?? 64);
        view.setUint8(9, f.proto ?? next?.proto ?? 255);
        view.setInt32(12, addresses.src);
        view.setInt32(16, addresses.dst);
        view.setUint16(10, f.checksum ?? ~sumBytes(view, 0, header.length) & 0xffff);
        return concat(header, body);
      },
    });
  }

  tcp(f: TcpFields): this {
    return this.#add({
      proto: 6,
      etherType: 0,
      emit: (body, above) => {
        const options = padded(f.options ?? []);
        const header = new Uint8Array(20 + options.length);
        const view = viewOf(header);
        header.set(options, 20);
        view.setUint16(0, f.srcPort);
        view.setUint16(2, f.dstPort);
        view.setInt32(4, f.seq ?? 0);
        view.setInt32(8, f.ack ?? 0);
        view.setUint8(12, (f.dataOffset ?? header.length >> 2) << 4);
        view.setUint8(13, tcpFlags(f.flags ?? '.'));
        view.setUint16(14, f.window ?? 65535);
        const segment = concat(header, body);
        transportSum(segment, 16, 6, above, f.partialChecksum ?? false);
        if (f.checksum !== undefined) viewOf(segment).setUint16(16, f.checksum);
        return segment;
      },
    });
  }

  udp(f: UdpFields): this {
    return this.#add({
      proto: 17,
      etherType: 0,
      emit: (body, above) => {
        const header = new Uint8Array(8);
        const view = viewOf(header);
        view.setUint16(0, f.srcPort);
        view.setUint16(2, f.dstPort);
        view.setUint16(4, f.length ?? 8 + body.length);
        const segment = concat(header, body);
        transportSum(segment, 6, 17, above, f.partialChecksum ?? false);
        if (f.checksum !== undefined) viewOf(segment).setUint16(6, f.checksum);
        return segment;
      },
    });
  }

  sctp(f: SctpFields): this {
    return this.#add({
      proto: 132,
      etherType: 0,
      emit: (body) => {
        const header = new Uint8Array(12);
        const view = viewOf(header);
        view.setUint16(0, f.srcPort);
        view.setUint16(2, f.dstPort);
        view.setInt32(4, f.tag ?? 0x01020304);
        const whole = concat(concat(header, chunkBytes(f.chunks)), body);
        viewOf(whole).setInt32(8, f.checksum ?? crc32c(whole, 0, whole.length, 8), true);
        return whole;
      },
    });
  }

  icmp(f: IcmpFields): this {
    return this.#add({
      proto: 1,
      etherType: 0,
      emit: (body) => {
        const header = new Uint8Array(8);
        const view = viewOf(header);
        view.setUint8(0, f.type);
        view.setUint8(1, f.code ?? 0);
        view.setUint16(4, f.id ?? 0);
        view.setUint16(6, f.seq ?? f.mtu ?? 0);
        const message = concat(header, body);
        const whole = viewOf(message);
        whole.setUint16(2, f.checksum ?? ~sumBytes(whole, 0, message.length) & 0xffff);
        return message;
      },
    });
  }

  /** Bytes, text (UTF-8), or a length of counting bytes. */
  payload(data: Uint8Array | string | number): this {
    let bytes: Uint8Array;
    if (typeof data === 'string') bytes = new TextEncoder().encode(data);
    else if (typeof data === 'number') bytes = Uint8Array.from({ length: data }, (_, i) => i & 255);
    else bytes = data;
    return this.#add({ proto: 255, etherType: 0x0800, emit: (body) => concat(bytes, body) });
  }

  /** Zeros at the end up to this length, as Ethernet pads to 60. */
  pad(length: number): this {
    this.#minimum = length;
    return this;
  }

  build(): Uint8Array {
    let body: Uint8Array = new Uint8Array(0);
    for (let i = this.#layers.length - 1; i >= 0; i--) {
      const above = this.#layers.slice(0, i).findLast((layer) => layer.addresses !== undefined)?.addresses;
      body = this.#layers[i]!.emit(body, above ?? { src: 0, dst: 0 }, this.#layers[i + 1]);
    }
    return body.length < this.#minimum ? concat(body, new Uint8Array(this.#minimum - body.length)) : body;
  }
}

export function frame(): FrameBuilder {
  return new FrameBuilder();
}

/** How a transport checksum is to be: complete, or as the kernel leaves it for the device (see TcpFields.partialChecksum). */
export interface VerifyOptions {
  readonly partialChecksum?: boolean;
  /** True when the bytes start with the IPv4 header. */
  readonly isIp?: boolean;
}

/** Every length and checksum of a frame; answers what is wrong, one line each. Empty: the frame is sound. */
export function verifyFrame(bytes: Uint8Array, options: VerifyOptions = {}): string[] {
  if (options.isIp) return verifyIpv4(bytes, options.partialChecksum ?? false);
  if (bytes.length < 14) return ['frame shorter than 14 bytes'];
  const type = viewOf(bytes).getUint16(12);
  if (type === 0x0806) return bytes.length < 42 ? ['ARP packet shorter than 28 bytes'] : [];
  if (type !== 0x0800) return [`EtherType 0x${type.toString(16)}`];
  return verifyIpv4(bytes.subarray(14), options.partialChecksum ?? false);
}

function verifyIpv4(bytes: Uint8Array, partial: boolean): string[] {
  const view = viewOf(bytes);
  if (bytes.length < 20) return ['IPv4 header truncated'];
  const header = (view.getUint8(0) & 15) << 2;
  const total = view.getUint16(2);
  if (view.getUint8(0) >> 4 !== 4 || header < 20 || header > total || total > bytes.length) {
    return [`IPv4 lengths: header ${header}, total ${total}, present ${bytes.length}`];
  }
  const faults: string[] = [];
  if (sumBytes(view, 0, header) !== 0xffff) faults.push('IPv4 header checksum wrong');
  if ((view.getUint16(6) & 0x3fff) !== 0) return faults;
  const body = bytes.subarray(header, total);
  const above = { src: view.getInt32(12), dst: view.getInt32(16) };
  const proto = view.getUint8(9);
  if (proto === 4) faults.push(...verifyIpv4(body, partial).map((fault) => `inner ${fault}`));
  if (proto === 1 && sumBytes(viewOf(body), 0, body.length) !== 0xffff) faults.push('ICMP checksum wrong');
  if (proto === 6 || proto === 17) faults.push(...verifyTransport(body, proto, above, partial));
  if (proto === 132) faults.push(...verifySctp(body));
  return faults;
}

function verifySctp(packet: Uint8Array): string[] {
  if (packet.length < 12) return ['SCTP header truncated'];
  return viewOf(packet).getInt32(8, true) === crc32c(packet, 0, packet.length, 8) ? [] : ['SCTP checksum wrong'];
}

function verifyTransport(segment: Uint8Array, proto: 6 | 17, above: Enclosing, partial: boolean): string[] {
  const name = proto === 6 ? 'TCP' : 'UDP';
  const view = viewOf(segment);
  if (segment.length < (proto === 6 ? 20 : 8)) return [`${name} header truncated`];
  if (proto === 17 && view.getUint16(4) !== segment.length) return ['UDP length differs from the IPv4 payload'];
  const field = view.getUint16(proto === 6 ? 16 : 6);
  if (proto === 17 && field === 0) return [];
  const pseudo = fold(pseudoSum(above.src, above.dst, proto, segment.length));
  if (partial) return field === pseudo ? [] : [`${name} partial checksum wrong`];
  return fold(pseudo + sumBytes(view, 0, segment.length)) === 0xffff ? [] : [`${name} checksum wrong`];
}

/**
 * One line in tcpdump's spirit, for golden tests; only what is on the wire, in a fixed order:
 * `02:…:01 > 02:…:02 IP 10.0.0.1.1024 > 10.0.0.2.80: tcp [S] seq 1 ack 0 win 65535 len 0 (ttl 64 id 7 DF)`
 */
export function describeFrame(bytes: Uint8Array): string {
  if (bytes.length < 14) return `short frame of ${bytes.length} bytes`;
  const view = viewOf(bytes);
  const macs = `${formatMac(view.getUint16(6), view.getInt32(8))} > ${formatMac(view.getUint16(0), view.getInt32(2))}`;
  const type = view.getUint16(12);
  if (type === 0x0806 && bytes.length >= 42) {
    const [sender, target] = [formatIp4(view.getInt32(28)), formatIp4(view.getInt32(38))];
    const op = view.getUint16(20);
    if (op === 1) return `${macs} ARP who-has ${target} tell ${sender}`;
    return `${macs} ARP ${sender} is-at ${formatMac(view.getUint16(22), view.getInt32(24))} to ${target}`;
  }
  if (type !== 0x0800) return `${macs} ethertype 0x${type.toString(16).padStart(4, '0')}`;
  return `${macs} ${describePacket(bytes.subarray(14))}`;
}

/** The same for an IPv4 packet without link header. */
export function describePacket(bytes: Uint8Array): string {
  if (bytes.length < 20) return `short packet of ${bytes.length} bytes`;
  const view = viewOf(bytes);
  const header = (view.getUint8(0) & 15) << 2;
  const total = Math.min(view.getUint16(2), bytes.length);
  const word = view.getUint16(6);
  const offset = (word & 0x1fff) << 3;
  const ip = [`ttl ${view.getUint8(8)}`, `id ${view.getUint16(4)}`];
  if (view.getUint8(1) !== 0) ip.push(`tos 0x${view.getUint8(1).toString(16)}`);
  if (word & 0x4000) ip.push('DF');
  if (word & 0x2000) ip.push('MF');
  if (offset !== 0) ip.push(`offset ${offset}`);
  if (header > 20) ip.push(`options ${header - 20}`);
  const body = bytes.subarray(header, total);
  const what = offset !== 0 ? `fragment len ${body.length}` : describeTransport(body, view.getUint8(9));
  const ports = offset === 0 && body.length >= 4 && [6, 17, 132].includes(view.getUint8(9));
  const [src, dst] = [formatIp4(view.getInt32(12)), formatIp4(view.getInt32(16))];
  const [from, to] = ports ? [`.${view.getUint16(header)}`, `.${view.getUint16(header + 2)}`] : ['', ''];
  return `IP ${src}${from} > ${dst}${to}: ${what} (${ip.join(' ')})`;
}

function chunkTypes(packet: Uint8Array): string {
  const types: number[] = [];
  for (let at = 12; at + 4 <= packet.length; ) {
    types.push(packet[at]!);
    const length = viewOf(packet).getUint16(at + 2);
    if (length < 4) break;
    at += (length + 3) & ~3;
  }
  return `[${types.join(' ')}]`;
}

function describeTransport(body: Uint8Array, proto: number): string {
  const view = viewOf(body);
  if (proto === 6 && body.length >= 20) {
    const flags = view.getUint8(13);
    const letters = [...FLAG_LETTERS].filter((_, bit) => flags & (1 << bit)).join('');
    const length = body.length - ((view.getUint8(12) >> 4) << 2);
    return `tcp [${letters}] seq ${view.getUint32(4)} ack ${view.getUint32(8)} win ${view.getUint16(14)} len ${length}`;
  }
  if (proto === 17 && body.length >= 8) return `udp len ${view.getUint16(4) - 8}`;
  if (proto === 1 && body.length >= 8) return describeIcmp(body, view);
  if (proto === 132 && body.length >= 12) return `sctp ${chunkTypes(body)}`;
  if (proto === 4) return `ipip { ${describePacket(body)} }`;
  return `proto ${proto} len ${body.length}`;
}

function describeIcmp(body: Uint8Array, view: DataView): string {
  const type = view.getUint8(0);
  const code = view.getUint8(1);
  if (type === 8 || type === 0) {
    return `icmp echo ${type === 8 ? 'request' : 'reply'} id ${view.getUint16(4)} seq ${view.getUint16(6)} len ${body.length - 8}`;
  }
  if (![3, 4, 5, 11, 12].includes(type)) return `icmp type ${type} code ${code} len ${body.length - 8}`;
  const mtu = type === 3 && code === 4 ? ` mtu ${view.getUint16(6)}` : '';
  return `icmp error ${type}/${code}${mtu} { ${describePacket(body.subarray(8))} }`;
}
