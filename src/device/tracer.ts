/**
 * A device that tells of every frame, wrapped around another: one line per frame to a function.
 *
 *   host in  IP 10.0.3.2.40000 > 10.0.1.100.80: tcp [S] seq 0 ack 0 win 65535 len 0 (ttl 64 id 1)
 *   host out IP 10.0.1.100.80 > 10.0.3.2.40000: tcp [.] seq 1 ack 1 win 65535 len 28960 (ttl 64 id 2) gso 1448
 */

import type { Burst } from '../packet/burst.ts';
import type { Packet } from '../packet/packet.ts';
import { describeFrame, describePacket } from '../wire/build.ts';
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
    const gso = p.gsoType === 0 ? '' : ` gso ${p.gsoSize}`;
    const isEthernet = this.medium === Medium.Ethernet;
    const bytes = p.bytes.subarray(isEthernet ? p.l2 : p.l3, p.end);
    this.#sink(`${this.name} ${direction} ${isEthernet ? describeFrame(bytes) : describePacket(bytes)}${gso}`);
  }
}
