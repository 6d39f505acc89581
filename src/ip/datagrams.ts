/** UDP of this host's own: the listeners that local delivery asks, and sending as a socket would. Kernel: net/ipv4/udp.c, __udp4_lib_rcv, udp_send_skb. */
import type { DatagramReceiver, Datagrams, Outgoing } from '../hooks/datagrams.ts';
import { Hook } from '../hooks/hooks.ts';
import { bear, drop } from '../link/link.ts';
import { Drop } from '../packet/drop.ts';
import { NONE, type Packet } from '../packet/packet.ts';
import { fillTransportChecksum, isTransportSumRight } from '../packet/sum.ts';
import { isMulticast } from '../wire/addr.ts';
import { ETH_HEADER } from '../wire/ethernet.ts';
import * as ipv4 from '../wire/ipv4.ts';
import * as udp from '../wire/udp.ts';
import { isSameNetwork } from './addresses.ts';
import type { IpStack } from './stack.ts';

const UDP = ipv4.IpProto.Udp;
const { IPV4_HEADER } = ipv4;
const { UDP_HEADER } = udp;

interface Listener {
  readonly device: number;
  readonly ip: number;
  readonly port: number;
  readonly receive: DatagramReceiver;
}

export class UdpListeners implements Datagrams {
  readonly #stack: IpStack;
  #listeners: readonly Listener[] = [];

  constructor(stack: IpStack) {
    this.#stack = stack;
  }

  get count(): number {
    return this.#listeners.length;
  }

  /** Local delivery's question. True: somebody listens for the datagram, and the packet has ended. */
  deliver(p: Packet): boolean {
    const { view, l3, l4 } = p;
    if (p.l4Fault !== 0 || ipv4.isFragment(view, l3)) return false;
    const dst = ipv4.dst(view, l3);
    const port = udp.dstPort(view, l4);
    const isForUs = (l: Listener) => l.port === port && l.ip === dst && l.device === p.inDevice;
    const listeners = this.#listeners;
    if (!listeners.some(isForUs)) return false;
    const { link } = this.#stack;
    if (!isTransportSumRight(p)) {
      drop(link, p, Drop.UdpBadChecksum);
      return true;
    }
    const length = (p.gsoType === 0 ? udp.length(view, l4) : p.end - l4) - UDP_HEADER;
    let reason: number = Drop.None;
    for (const its of listeners) {
      if (!isForUs(its)) continue;
      const answer = its.receive(view, l4 + UDP_HEADER, length, ipv4.src(view, l3), udp.srcPort(view, l4));
      if (answer !== Drop.None) reason = answer;
    }
    drop(link, p, reason === Drop.None ? Drop.MulticastNotForUs : reason);
    return true;
  }

  /** Become a copy, whose listeners hear nothing. */
  copyFrom(live: UdpListeners): void {
    this.#listeners = live.#listeners.map((listener) => ({ ...listener, receive: () => Drop.SyncTaken }));
  }

  findDevice(name: string): number {
    return this.#stack.link.findInterface(name)?.id ?? NONE;
  }

  deviceMtu(device: number): number {
    return this.#stack.link.interfaces[device]?.mtu ?? 0;
  }

  addressOn(device: number): number {
    return this.#stack.addresses.select(device, 0);
  }

  hasAddress(device: number, ip: number): boolean {
    return this.#stack.addresses.rows.some((a) => a.device === device && a.ip === ip);
  }

  isOnLink(device: number, ip: number): boolean {
    return this.#stack.addresses.rows.some((a) => a.device === device && isSameNetwork(a.ip, ip, a.length));
  }

  listen(device: number, ip: number, port: number, receive: DatagramReceiver): void {
    this.#listeners = [...this.#listeners, { device, ip, port, receive }];
    if (isMulticast(ip)) this.#stack.groups.join(this.#stack, device, ip);
  }

  unlisten(device: number, ip: number, port: number, receive: DatagramReceiver): void {
    const at = this.#listeners.findIndex(
      (l) => l.device === device && l.ip === ip && l.port === port && l.receive === receive,
    );
    if (at < 0) return;
    this.#listeners = this.#listeners.toSpliced(at, 1);
    if (isMulticast(ip)) this.#stack.groups.leave(this.#stack, device, ip);
  }

  /** The device is gone. */
  forget(device: number): void {
    this.#listeners = this.#listeners.filter((l) => l.device !== device);
    this.#stack.groups.forget(device);
  }

  send(to: Outgoing, bytes: Uint8Array, length: number): void {
    const stack = this.#stack;
    const total = IPV4_HEADER + UDP_HEADER + length;
    const q = bear(stack.link, ETH_HEADER + total);
    if (q === null) return;
    ipv4.emit(q.view, q.l3, total, UDP, to.src, to.dst, to.ttl, 0, stack.nextIdent(), 0);
    q.l4 = q.l3 + IPV4_HEADER;
    q.proto = UDP;
    udp.emit(q.view, q.l4, to.srcPort, to.dstPort, UDP_HEADER + length);
    const start = q.l4 + UDP_HEADER;
    for (let i = 0; i < length; i++) q.bytes[start + i] = bytes[i]!;
    fillTransportChecksum(q, q.l3, q.l4, UDP);
    q.isLocalOut = 1;
    if (isMulticast(to.dst)) {
      q.nexthop = to.dst;
      q.outDevice = to.device;
    }
    stack.defer(q, Hook.LocalOut);
  }
}
