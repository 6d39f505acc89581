/**
 * A stack with memory for cables: two networks, a host port, and what came out of them. For tests of `ip`, and of whoever needs a whole host in memory.
 *
 *   10.0.1.0/24 ── front 10.0.1.1 (id 1) ─┐
 *                                         ├─ stack ── host 10.0.3.1, peer 10.0.3.2 (id 3, optional)
 *   10.0.2.0/24 ── back  10.0.2.1 (id 2) ─┘
 */
import { ManualClock } from '../base/clock.ts';
import { SeededRng } from '../base/rng.ts';
import { type Device, Medium, noStats } from '../device/device.ts';
import { Hooks } from '../hooks/hooks.ts';
import type { Interface } from '../link/interface.ts';
import { flush } from '../link/link.ts';
import type { Burst } from '../packet/burst.ts';
import { Drop } from '../packet/drop.ts';
import type { Packet } from '../packet/packet.ts';
import { PacketPool } from '../packet/pool.ts';
import { ip4, mac } from '../wire/addr.ts';
import { describeFrame, describePacket, verifyFrame } from '../wire/build.ts';
import { IpControl } from './control.ts';
import { receive, tick } from './receive.ts';
import { IpStack } from './stack.ts';

/** A device whose transmitted frames are kept; offload fields are kept beside them. */
class CableDevice implements Device {
  readonly name: string;
  readonly kind = 'memory';
  readonly medium: Medium;
  mtu = 1500;
  macHi: number;
  macLo: number;
  canOffload = true;
  readonly fd = -1;
  readonly stats = noStats();
  readonly sent: { bytes: Uint8Array; gsoType: number; gsoSize: number; csumPartial: number }[] = [];
  readonly #pool: PacketPool;

  constructor(name: string, medium: Medium, address: string, pool: PacketPool) {
    const { hi, lo } = mac(address);
    this.name = name;
    this.medium = medium;
    this.macHi = hi;
    this.macLo = lo;
    this.#pool = pool;
  }

  receive(): number {
    return 0;
  }

  transmit(burst: Burst): void {
    for (let i = 0; i < burst.count; i++) {
      const p = burst.packets[i]!;
      const start = this.medium === Medium.Ethernet ? p.l2 : p.l3;
      this.sent.push({
        bytes: p.bytes.slice(start, p.end),
        gsoType: p.gsoType,
        gsoSize: p.gsoSize,
        csumPartial: p.csumPartial,
      });
      this.#pool.free(p);
    }
    burst.clear();
  }

  close(): void {}
}

/** What a frame brings besides its bytes. */
export interface Offload {
  readonly gsoType?: number;
  readonly gsoSize?: number;
  readonly csumPartial?: number;
}

export class Rig {
  readonly clock = new ManualClock(1000);
  readonly pool: PacketPool;
  readonly hooks = new Hooks();
  readonly stack: IpStack;
  readonly control: IpControl;
  readonly front: CableDevice;
  readonly back: CableDevice;
  readonly host: CableDevice;

  constructor(options: { readonly hostPort?: boolean; readonly slots?: number } = {}) {
    this.pool = new PacketPool(options.slots ?? 256);
    this.stack = new IpStack(this.pool, this.hooks, new SeededRng(42));
    this.control = new IpControl(this.stack);
    this.front = new CableDevice('front', Medium.Ethernet, MAC.front, this.pool);
    this.back = new CableDevice('back', Medium.Ethernet, MAC.back, this.pool);
    this.host = new CableDevice('host', Medium.Ip, '00:00:00:00:00:00', this.pool);
    this.control.addInterface(this.front);
    this.control.addInterface(this.back);
    this.run({ op: 'addr-add', device: 'front', address: '10.0.1.1', prefixLength: 24 });
    this.run({ op: 'addr-add', device: 'back', address: '10.0.2.1', prefixLength: 24 });
    if (options.hostPort === true) {
      this.control.addInterface(this.host, { isHost: true, peer: ip4('10.0.3.2') });
      this.run({ op: 'addr-add', device: 'host', address: '10.0.3.1', prefixLength: 30 });
    }
    this.sysctl('net.ipv4.ip_forward', 1);
    this.neighbour('front', '10.0.1.2', MAC.client);
    this.neighbour('back', '10.0.2.2', MAC.server);
    this.stack.now = this.clock.now();
    this.flush();
    this.front.sent.length = 0;
    this.back.sent.length = 0;
    this.stack.stats.transmitted = 0;
    this.stack.stats.born = 0;
  }

  run(command: Parameters<IpControl['run']>[0]): void {
    const errno = this.control.run(command);
    if (errno !== null) throw new Error(`${JSON.stringify(command)}: ${errno}`);
  }

  sysctl(key: string, value: number): void {
    const errno = this.control.sysctls.set(key, String(value));
    if (errno !== null) throw new Error(`${key}: ${errno}`);
  }

  neighbour(device: string, address: string, lladdr: string): void {
    this.run({ op: 'neigh-replace', device, address, mac: lladdr });
  }

  /** One frame (or packet, on the host port) in, run to completion and out of the bursts. */
  send(device: CableDevice, bytes: Uint8Array, offload: Offload = {}): void {
    const ifc = this.interfaceOf(device);
    const p = this.#packet(device, bytes);
    p.gsoType = offload.gsoType ?? 0;
    p.gsoSize = offload.gsoSize ?? 0;
    p.csumPartial = offload.csumPartial ?? 0;
    receive(this.stack, ifc, p);
    this.flush();
  }

  interfaceOf(device: CableDevice): Interface {
    return this.stack.link.findInterface(device.name)!;
  }

  #packet(device: CableDevice, bytes: Uint8Array): Packet {
    const isFrame = device.medium === Medium.Ethernet;
    const p = this.pool.take(isFrame ? bytes.length : bytes.length + 14)!;
    p.bytes.set(bytes, isFrame ? p.l2 : p.l3);
    return p;
  }

  flush(): void {
    flush(this.stack.link);
  }

  /** Let time pass in steps of a tenth of a second. */
  pass(seconds: number): void {
    for (let i = 0; i < seconds * 10; i++) {
      this.clock.advance(25);
      this.stack.now = this.clock.now();
      tick(this.stack);
      this.flush();
    }
  }

  /** Let time pass tick by tick. */
  passTicks(ticks: number): void {
    for (let i = 0; i < ticks; i++) {
      this.clock.advance(1);
      this.stack.now = this.clock.now();
      tick(this.stack);
      this.flush();
    }
  }

  /** Lines of what the device has sent since the last call; every checksum is verified on the way. */
  out(device: CableDevice): string[] {
    return this.outBytes(device).map((bytes) =>
      device.medium === Medium.Ethernet ? describeFrame(bytes) : describePacket(bytes),
    );
  }

  outBytes(device: CableDevice): Uint8Array[] {
    const isIp = device.medium === Medium.Ip;
    const frames = device.sent.splice(0);
    for (const f of frames) {
      const faults = verifyFrame(f.bytes, { isIp, partialChecksum: f.csumPartial !== 0 });
      if (faults.length > 0) throw new Error(`${device.name} sent a bad frame: ${faults.join(', ')}`);
    }
    return frames.map((f) => f.bytes);
  }

  /** Names of the counters that are not zero, with their values. */
  drops(): Record<string, number> {
    const names = Object.entries(Drop) as [string, number][];
    return Object.fromEntries(
      names.flatMap(([name, i]) => (this.stack.drops[i] === 0 ? [] : [[name, this.stack.drops[i]!]])),
    );
  }

  /** What came in and was born, less what went out, ended or is held: 0 when every packet is accounted for. */
  unaccounted(): number {
    const { received, born, transmitted, deliveredToHost, held } = this.stack.stats;
    const dropped = this.stack.drops.reduce((sum, n) => sum + n, 0);
    return received + born - transmitted - deliveredToHost - held - dropped;
  }
}

export const MAC = {
  front: '02:00:00:00:01:01',
  back: '02:00:00:00:02:01',
  client: '02:00:00:00:01:02',
  server: '02:00:00:00:02:02',
  all: 'ff:ff:ff:ff:ff:ff',
} as const;
