/**
 * A device that tells of every frame, wrapped around another: one line per frame to a function.
 *
 *   front in  74 10.0.1.2:40000 > 10.0.1.100:80 tcp [S] 0
 *   back  out 42 arp who-has 10.0.2.11 tell 10.0.2.1
 */

import type { Burst } from '../packet/burst.ts';
import type { Packet } from '../packet/packet.ts';
import { formatIp4, formatMac } from '../wire/addr.ts';
import * as arp from '../wire/arp.ts';
import * as ethernet from '../wire/ethernet.ts';
import * as icmpv4 from '../wire/icmpv4.ts';
import * as ipv4 from '../wire/ipv4.ts';
import * as tcp from '../wire/tcp.ts';
import * as udp from '../wire/udp.ts';
import { type Device, type DeviceStats, Medium } from './device.ts';

export class TracerDevice implements Device {
  readonly name: string;
  readonly kind: Device['kind'];
  readonly medium: Medium;
  readonly canOffload: boolean;
  readonly stats: DeviceStats;
  readonly #inner: Device;
  readonly #sink: (line: string) => void;

  constructor(inner: Device, sink: (line: string) => void) {
    this.#inner = inner;
    this.#sink = sink;
    this.name = inner.name;
    this.kind = inner.kind;
    this.medium = inner.medium;
    this.canOffload = inner.canOffload;
    this.stats = inner.stats;
  }

  get fd(): number {
    return this.#inner.fd;
  }
  get mtu(): number {
    return this.#inner.mtu;
  }
  set mtu(bytes: number) {
    this.#inner.mtu = bytes;
  }
  get macHi(): number {
    return this.#inner.macHi;
  }
  set macHi(hi: number) {
    this.#inner.macHi = hi;
  }
  get macLo(): number {
    return this.#inner.macLo;
  }
  set macLo(lo: number) {
    this.#inner.macLo = lo;
  }

  receive(burst: Burst): number {
    const before = burst.count;
    this.#inner.receive(burst);
    for (let i = before; i < burst.count; i++) this.#tell('in ', burst.packets[i]!);
    return burst.count;
  }

  transmit(burst: Burst): void {
    for (let i = 0; i < burst.count; i++) this.#tell('out', burst.packets[i]!);
    this.#inner.transmit(burst);
  }

  close(): void {
    this.#inner.close();
  }

  #tell(direction: string, p: Packet): void {
    const start = this.medium === Medium.Ethernet ? p.l2 : p.l3;
    const gso = p.gsoType === 0 ? '' : ` gso ${p.gsoSize}`;
    const line = describeFrame(p.view, start, p.end, this.medium);
    this.#sink(`${this.name} ${direction} ${p.end - start} ${line}${gso}`);
  }
}

const FLAG_LETTERS = ['F', 'S', 'R', 'P', '.', 'U', 'E', 'W'];

/** What a frame is, in a few words; takes any bytes. */
export function describeFrame(m: DataView, start: number, end: number, medium: Medium): string {
  if (medium === Medium.Ip) return describePacket(m, start, end);
  if (end - start < ethernet.ETH_HEADER) return 'frame without a whole Ethernet header';
  const l3 = start + ethernet.ETH_HEADER;
  const type = ethernet.etherType(m, start);
  if (type === ethernet.EtherType.Ipv4) return describePacket(m, l3, end);
  if (type === ethernet.EtherType.Arp && arp.check(m, l3, end) === arp.ArpFault.None) {
    const sender = formatIp4(arp.senderIp(m, l3));
    return arp.op(m, l3) === arp.ArpOp.Request
      ? `arp who-has ${formatIp4(arp.targetIp(m, l3))} tell ${sender}`
      : `arp ${sender} is-at ${formatMac(arp.senderMacHi(m, l3), arp.senderMacLo(m, l3))}`;
  }
  return `ethertype 0x${type.toString(16).padStart(4, '0')}`;
}

function describePacket(m: DataView, l3: number, end: number): string {
  const fault = ipv4.check(m, l3, end);
  if (fault !== ipv4.Ipv4Fault.None && fault !== ipv4.Ipv4Fault.BadChecksum) return 'not a sound IPv4 packet';
  const bad = fault === ipv4.Ipv4Fault.None ? '' : ' bad-header-checksum';
  const src = formatIp4(ipv4.src(m, l3));
  const dst = formatIp4(ipv4.dst(m, l3));
  const l4 = l3 + ipv4.headerLength(m, l3);
  const last = l3 + ipv4.totalLength(m, l3);
  const proto = ipv4.proto(m, l3);
  if (ipv4.isLaterFragment(m, l3)) {
    return `${src} > ${dst} proto ${proto} fragment at ${ipv4.fragmentOffset(m, l3)}${bad}`;
  }
  const first = ipv4.isFragment(m, l3) ? ' first-fragment' : '';
  if (proto === ipv4.IpProto.Tcp && tcp.check(m, l4, last) === tcp.TcpFault.None) {
    const flags = FLAG_LETTERS.filter((_, bit) => (tcp.flags(m, l4) & (1 << bit)) !== 0).join('');
    const data = last - l4 - tcp.headerLength(m, l4);
    return `${src}:${tcp.srcPort(m, l4)} > ${dst}:${tcp.dstPort(m, l4)} tcp [${flags}] ${data}${first}${bad}`;
  }
  if (proto === ipv4.IpProto.Udp && last - l4 >= udp.UDP_HEADER) {
    const data = last - l4 - udp.UDP_HEADER;
    return `${src}:${udp.srcPort(m, l4)} > ${dst}:${udp.dstPort(m, l4)} udp ${data}${first}${bad}`;
  }
  if (proto === ipv4.IpProto.Icmp && last - l4 >= icmpv4.ICMP_HEADER) {
    return `${src} > ${dst} icmp ${icmpv4.type(m, l4)}/${icmpv4.code(m, l4)}${first}${bad}`;
  }
  return `${src} > ${dst} proto ${proto}${first}${bad}`;
}
