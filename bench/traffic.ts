/**
 * Devices that make their traffic themselves, for micro-benches: TCP of many clients to one service, and its answers.   @hot
 *
 * Flow i is client 11.0.(i / 50,000).1, port 1024 + i mod 50,000. A frame is a template of 60 bytes into which addresses, ports and the header checksum are
 * written, so that a million flows need no million frames. Nothing is allocated per packet.
 */
import { type Device, Medium, noStats } from '../src/device/device.ts';
import type { Burst } from '../src/packet/burst.ts';
import type { PacketPool } from '../src/packet/pool.ts';
import { IpProto } from '../src/wire/ipv4.ts';
import { GsoType } from '../src/wire/virtio-net.ts';

const TCP = IpProto.Tcp;
const FRAME_BYTES = 60;
/** Payload of one segment of a super-packet, bytes: what fits an IPIP packet of 1,500. */
const SEGMENT_BYTES = 1440;
const PORTS = 50_000;
const FIRST_PORT = 1024;
const CLIENT_NET = 0x0b000001;
const L3 = 14;
const L4 = 34;
const TCP_BYTES = 20;
const SYN = 0x02;
const ACK = 0x10;
const PSH_ACK = 0x18;

/** In which order the flows take turns. */
export type Order = 'sequential' | 'random';

const clientIp = (flow: number): number => CLIENT_NET + (Math.trunc(flow / PORTS) << 8);
const clientPort = (flow: number): number => FIRST_PORT + (flow % PORTS);
const flowOf = (ip: number, port: number): number => ((ip - CLIENT_NET) >> 8) * PORTS + port - FIRST_PORT;

abstract class TrafficDevice implements Device {
  readonly kind = 'memory';
  readonly medium = Medium.Ethernet;
  mtu = 1500;
  readonly canOffload = true;
  readonly fd = -1;
  readonly stats = noStats();
  readonly name: string;
  macHi: number;
  macLo: number;
  protected readonly pool: PacketPool;
  readonly #template: Uint8Array;
  /** More than 1: super-packets of so many segments, their checksum partial. */
  segments = 1;
  /** Packets that `receive` may still give. */
  toPlay = 0;
  #order: Order = 'sequential';
  #flows = 1;
  #flow = 0;
  #state = 1;

  constructor(pool: PacketPool, name: string, macHi: number, macLo: number, peerMac: readonly number[]) {
    this.pool = pool;
    this.name = name;
    this.macHi = macHi;
    this.macLo = macLo;
    const own = [(macHi >> 8) & 255, macHi & 255, macLo >>> 24, (macLo >> 16) & 255, (macLo >> 8) & 255, macLo & 255];
    const ip = [0x45, 0, 0, FRAME_BYTES - L3, 0, 0, 0x40, 0, 64, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    const tcp = [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0, 0xff, 0xff, 0, 0, 0, 0];
    this.#template = Uint8Array.from([...own, ...peerMac, 8, 0, ...ip, ...tcp, ...new Array<number>(6).fill(0)]);
  }

  /** Let `count` packets arrive, of the flows 0 … flows-1 in turn. */
  play(count: number, flows: number, order: Order): void {
    this.toPlay = count;
    this.#flows = flows;
    this.#order = order;
    this.#flow = 0;
  }

  receive(burst: Burst): number {
    while (this.toPlay > 0 && !burst.isFull) {
      if (!this.next(burst)) break;
      this.toPlay--;
    }
    return burst.count;
  }

  transmit(burst: Burst): void {
    for (let i = 0; i < burst.count; i++) {
      const p = burst.packets[i]!;
      burst.packets[i] = null;
      this.stats.txPackets++;
      this.pool.free(p);
    }
    burst.clear();
  }

  close(): void {}

  /** One more packet into the burst; false when there is none. */
  protected abstract next(burst: Burst): boolean;

  protected nextFlow(): number {
    if (this.#order === 'sequential') {
      const flow = this.#flow;
      this.#flow = flow + 1 === this.#flows ? 0 : flow + 1;
      return flow;
    }
    let x = this.#state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#state = x;
    return (x >>> 1) % this.#flows;
  }

  protected emit(burst: Burst, src: number, srcPort: number, dst: number, dstPort: number, flags: number): boolean {
    const isSuper = this.segments > 1;
    const length = isSuper ? L4 + TCP_BYTES + this.segments * SEGMENT_BYTES : FRAME_BYTES;
    const p = this.pool.take(length);
    if (p === null) return false;
    const m = p.view;
    p.bytes.set(this.#template, p.l2);
    const l3 = p.l2 + L3;
    const l4 = p.l2 + L4;
    m.setUint16(l3 + 2, length - L3);
    m.setInt32(l3 + 12, src);
    m.setInt32(l3 + 16, dst);
    let sum = 0;
    for (let i = 0; i < 20; i += 2) sum += m.getUint16(l3 + i);
    sum = (sum & 0xffff) + (sum >>> 16);
    m.setUint16(l3 + 10, ~(sum + (sum >>> 16)) & 0xffff);
    m.setUint16(l4, srcPort);
    m.setUint16(l4 + 2, dstPort);
    m.setUint8(l4 + 13, flags);
    if (isSuper) {
      p.csumPartial = 1;
      p.gsoType = GsoType.TcpV4;
      p.gsoSize = SEGMENT_BYTES;
    } else {
      p.csumValid = 1;
    }
    this.stats.rxPackets++;
    burst.push(p);
    return true;
  }
}

/** The clients' side: a SYN per flow while `isOpening`, then data. */
export class ClientDevice extends TrafficDevice {
  readonly #vip: number;
  readonly #port: number;
  /** What each packet carries: SYN to open, ACK to complete the handshake, PSH+ACK for data. */
  phase: 'syn' | 'ack' | 'data' = 'syn';

  constructor(
    pool: PacketPool,
    mac: { readonly hi: number; readonly lo: number },
    peerMac: readonly number[],
    vip: number,
    port: number,
  ) {
    super(pool, 'front', mac.hi, mac.lo, peerMac);
    this.#vip = vip;
    this.#port = port;
  }

  protected next(burst: Burst): boolean {
    const flow = this.nextFlow();
    const flags = this.phase === 'data' ? PSH_ACK : this.phase === 'syn' ? SYN : ACK;
    return this.emit(burst, clientIp(flow), clientPort(flow), this.#vip, this.#port, flags);
  }
}

/** The servers' side: notes which server each flow was given, answers as that server. */
export class ServerDevice extends TrafficDevice {
  readonly #serverOf: Int32Array;
  readonly #port: number;
  /** Full NAT: where a flow's packets come from, address and port; the flows begin one after the other. */
  readonly #peers: Int32Array | null;
  #begun = 0;
  /** SYN+ACK instead of data. */
  isOpening = true;

  constructor(
    pool: PacketPool,
    mac: { readonly hi: number; readonly lo: number },
    peerMac: readonly number[],
    port: number,
    flows: number,
    isFullNat = false,
  ) {
    super(pool, 'back', mac.hi, mac.lo, peerMac);
    this.#serverOf = new Int32Array(flows);
    this.#port = port;
    this.#peers = isFullNat ? new Int32Array(flows * 2) : null;
  }

  override transmit(burst: Burst): void {
    if (this.isOpening) {
      for (let i = 0; i < burst.count; i++) {
        const p = burst.packets[i]!;
        const l3 = p.end - (FRAME_BYTES - L3); // of the innermost header, whatever stands around it
        const peer = p.view.getInt32(l3 + 12);
        const port = p.view.getUint16(l3 + L4 - L3);
        // The first frame of the device is an ARP announcement.
        const flow = this.#peers === null ? flowOf(peer, port) : p.proto === TCP ? this.#begun++ : -1;
        if (this.#peers !== null && flow >= 0 && flow < this.#serverOf.length) {
          this.#peers[flow * 2] = peer;
          this.#peers[flow * 2 + 1] = port;
        }
        if (flow >= 0 && flow < this.#serverOf.length) this.#serverOf[flow] = p.view.getInt32(l3 + 16);
      }
    }
    super.transmit(burst);
  }

  /** Flows that were given a server. */
  get scheduled(): number {
    return this.#serverOf.reduce((n, server) => n + (server !== 0 ? 1 : 0), 0);
  }

  protected next(burst: Burst): boolean {
    const flow = this.nextFlow();
    const flags = this.isOpening ? SYN | ACK : PSH_ACK;
    const peers = this.#peers;
    const ip = peers === null ? clientIp(flow) : peers[flow * 2]!;
    const port = peers === null ? clientPort(flow) : peers[flow * 2 + 1]!;
    return this.emit(burst, this.#serverOf[flow]!, this.#port, ip, port, flags);
  }
}
