// The far side of a TUN, for tests of the kernel's side: reads what the kernel sends, writes single packets, and can play
// a web server and an echo for every address (as tapvs and a real server would).
import { readSync, writeSync } from 'node:fs';
import { formatIp4, ip4 } from '../src/wire/addr.ts';
import { fold, pseudoSum, sumBytes } from '../src/wire/checksum.ts';
import * as icmpv4 from '../src/wire/icmpv4.ts';
import * as ipv4 from '../src/wire/ipv4.ts';
import * as tcp from '../src/wire/tcp.ts';
import * as udp from '../src/wire/udp.ts';

const { Fin: FIN, Syn: SYN, Rst: RST, Psh: PSH, Ack: ACK } = tcp.TcpFlag;
const { Icmp: ICMP, Tcp: TCP, Udp: UDP } = ipv4.IpProto;
const TTL = 64;
const WINDOW = 65_535;
const PAGE = Buffer.from('HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nvip\n');

/** One packet in words: `tcp 10.0.1.2:4000 > 10.0.1.100:80 SYN,ACK`, `icmp 10.0.1.100 > 10.0.1.2 3/3`. */
export function words(packet: DataView): string {
  const l4 = ipv4.headerLength(packet, 0);
  const [src, dst] = [formatIp4(ipv4.src(packet, 0)), formatIp4(ipv4.dst(packet, 0))];
  const proto = ipv4.proto(packet, 0);
  if (proto === ICMP) return `icmp ${src} > ${dst} ${icmpv4.type(packet, l4)}/${icmpv4.code(packet, l4)}`;
  if (proto === UDP) return `udp ${src}:${udp.srcPort(packet, l4)} > ${dst}:${udp.dstPort(packet, l4)}`;
  if (proto !== TCP) return `proto ${proto} ${src} > ${dst}`;
  const flags = tcp.flags(packet, l4);
  const names = [
    flags & SYN && 'SYN',
    flags & FIN && 'FIN',
    flags & RST && 'RST',
    flags & PSH && 'PSH',
    flags & ACK && 'ACK',
  ];
  const ports = [tcp.srcPort(packet, l4), tcp.dstPort(packet, l4)];
  return `tcp ${src}:${ports[0]} > ${dst}:${ports[1]} ${names.filter(Boolean).join(',')}`;
}

function withIp(proto: number, from: string, to: string, l4Bytes: number): DataView {
  const m = new DataView(new ArrayBuffer(ipv4.IPV4_HEADER + l4Bytes));
  ipv4.emit(m, 0, m.byteLength, proto, ip4(from), ip4(to), TTL, 0, 0, ipv4.DF);
  return m;
}

function transportChecksum(m: DataView, proto: number, at: number): void {
  const length = m.byteLength - ipv4.IPV4_HEADER;
  const pseudo = pseudoSum(ipv4.src(m, 0), ipv4.dst(m, 0), proto, length);
  m.setUint16(at, ~fold(pseudo + sumBytes(m, ipv4.IPV4_HEADER, length)) & 0xffff);
}

const L4 = ipv4.IPV4_HEADER;

/** A TCP segment from `10.0.1.2:4000` to `10.0.1.100:80`. */
export function segment(from: string, to: string, flags: number, seq = 100, ack = 0, data?: Uint8Array): DataView {
  const [src = '', sport] = from.split(':');
  const [dst = '', dport] = to.split(':');
  const m = withIp(TCP, src, dst, tcp.TCP_HEADER + (data?.length ?? 0));
  tcp.emit(m, L4, Number(sport), Number(dport), seq, ack, flags, WINDOW);
  if (data !== undefined) new Uint8Array(m.buffer).set(data, L4 + tcp.TCP_HEADER);
  transportChecksum(m, TCP, L4 + tcp.TCP_CHECKSUM);
  return m;
}

export const syn = (from: string, to: string): DataView => segment(from, to, SYN);

/** A UDP datagram of one byte. */
export function datagram(from: string, to: string): DataView {
  const [src = '', sport] = from.split(':');
  const [dst = '', dport] = to.split(':');
  const m = withIp(UDP, src, dst, udp.UDP_HEADER + 1);
  udp.emit(m, L4, Number(sport), Number(dport), udp.UDP_HEADER + 1);
  m.setUint8(L4 + udp.UDP_HEADER, 33);
  transportChecksum(m, UDP, L4 + udp.UDP_CHECKSUM);
  return m;
}

/** An ICMP message without data: 8 is an echo request, 0 the reply. */
export function icmp(from: string, to: string, type: number, rest = 0x10001): DataView {
  const m = withIp(ICMP, from, to, icmpv4.ICMP_HEADER);
  icmpv4.emit(m, L4, type, 0, rest);
  icmpv4.fillChecksum(m, L4, m.byteLength);
  return m;
}

export class TunPeer {
  /** Everything that the kernel sent, in words, oldest first. */
  readonly seen: string[] = [];
  readonly #fd: number;
  readonly #buffer = Buffer.alloc(65_536);
  readonly #isServing: boolean;
  readonly #timer: NodeJS.Timeout;
  #onPacket: () => void = () => {};

  /** @param fd a non-blocking TUN without packet information or vnet header; the caller closes it after `stop` */
  constructor(fd: number, options: { readonly serve: boolean }) {
    this.#fd = fd;
    this.#isServing = options.serve;
    // A character device is no handle that libuv can wait for, so it is asked each millisecond.
    this.#timer = setInterval(() => this.#drain(), 1);
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  send(packet: DataView): void {
    writeSync(this.#fd, new Uint8Array(packet.buffer));
  }

  /** Sends a packet and resolves with the first answer that matches; rejects, with all that came instead, after 2 s. */
  async exchange(packet: DataView, pattern: RegExp): Promise<string> {
    const from = this.seen.length;
    this.send(packet);
    return this.next(pattern, from);
  }

  /** The first packet, from the `from`-th on, that matches. */
  next(pattern: RegExp, from = 0): Promise<string> {
    return new Promise((resolve, reject) => {
      const late = setTimeout(() => {
        this.#onPacket = () => {};
        reject(new Error(`no ${pattern}; the kernel sent: ${this.seen.slice(from).join('; ') || 'nothing'}`));
      }, 2000);
      this.#onPacket = () => {
        const found = this.seen.slice(from).find((text) => pattern.test(text));
        if (found === undefined) return;
        clearTimeout(late);
        this.#onPacket = () => {};
        resolve(found);
      };
      this.#onPacket();
    });
  }

  #drain(): void {
    for (;;) {
      let length: number;
      try {
        length = readSync(this.#fd, this.#buffer);
      } catch (error) {
        if (error instanceof Error && 'code' in error && (error.code === 'EAGAIN' || error.code === 'EIO')) return;
        throw error;
      }
      const packet = new DataView(Uint8Array.from(this.#buffer.subarray(0, length)).buffer);
      if (packet.getUint8(0) >> 4 !== 4) continue;
      this.seen.push(words(packet));
      if (this.#isServing) this.#serve(packet);
      this.#onPacket();
    }
  }

  #serve(p: DataView): void {
    const [from, to] = [formatIp4(ipv4.dst(p, 0)), formatIp4(ipv4.src(p, 0))];
    const l4 = ipv4.headerLength(p, 0);
    if (ipv4.proto(p, 0) === ICMP && icmpv4.type(p, l4) === 8) this.send(icmp(from, to, 0, p.getInt32(l4 + 4)));
    if (ipv4.proto(p, 0) !== TCP || tcp.dstPort(p, l4) !== 80) return;
    const [here, there] = [`${from}:80`, `${to}:${tcp.srcPort(p, l4)}`];
    const flags = tcp.flags(p, l4);
    const [seq, ack] = [tcp.seq(p, l4), tcp.ack(p, l4)];
    const bytes = ipv4.totalLength(p, 0) - l4 - tcp.headerLength(p, l4);
    if (flags & SYN) this.send(segment(here, there, SYN | ACK, 1000, seq + 1));
    else if (bytes > 0) this.send(segment(here, there, PSH | ACK, ack, seq + bytes, PAGE));
    // curl closes when it has the whole page; its FIN acknowledges all that we sent.
    else if (flags & FIN) this.send(segment(here, there, FIN | ACK, ack, seq + 1));
  }
}
