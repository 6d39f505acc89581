/**
 * For tests of explain and trace: a whole engine between two networks of memory, with a clock turned by hand.
 *
 *   client 10.0.1.2 ── front 10.0.1.1, VIPs 10.0.1.100-102 ─ engine ─ back 10.0.2.1 ── servers 10.0.2.11 …    (host port: 10.0.3.1, kernel 10.0.3.2)
 */
import { ManualClock } from '../base/clock.ts';
import { SeededRng } from '../base/rng.ts';
import { Medium } from '../device/device.ts';
import { MemoryDevice, type SentFrame } from '../device/memory.ts';
import { parseCommand } from '../director/test-rig.ts';
import type { ExplainSpec } from '../model/way.ts';
import { ip4, mac } from '../wire/addr.ts';
import { ChunkType } from '../wire/sctp.ts';
import { Engine } from './engine.ts';

export const RIG_MAC = {
  front: '02:00:00:00:01:01',
  back: '02:00:00:00:02:01',
  client: '02:00:00:00:01:02',
} as const;

export class ExplainRig {
  readonly clock = new ManualClock(1000);
  readonly engine: Engine;
  readonly front: MemoryDevice;
  readonly back: MemoryDevice;
  readonly host: MemoryDevice | null;

  constructor(options: { readonly hostPort?: boolean; readonly maxConnections?: number } = {}) {
    const { clock } = this;
    const maxConnections = options.maxConnections ?? 1000;
    this.engine = new Engine({
      clock,
      rng: new SeededRng(1),
      maxConnections,
      maxServices: 64,
      maxDestinations: 256,
      maxPackets: 256,
    });
    this.front = this.#device('front', RIG_MAC.front);
    this.back = this.#device('back', RIG_MAC.back);
    this.host = options.hostPort === true ? this.#device('host', undefined) : null;
    this.engine.executeIp([
      { op: 'addr-add', device: 'front', address: '10.0.1.1', prefixLength: 24 },
      { op: 'addr-add', device: 'back', address: '10.0.2.1', prefixLength: 24 },
      ...[100, 101, 102].map((n) => ({
        op: 'addr-add' as const,
        device: 'lo',
        address: `10.0.1.${n}`,
        prefixLength: 32,
      })),
      { op: 'neigh-add', device: 'front', address: '10.0.1.2', mac: RIG_MAC.client },
      ...[11, 12, 13, 14, 15, 16].map((n) => ({
        op: 'neigh-add' as const,
        device: 'back',
        address: `10.0.2.${n}`,
        mac: `02:00:00:00:02:${n}`,
      })),
    ]);
    this.engine.setSysctl('net.ipv4.ip_forward', '1');
    this.engine.breathe();
    this.takeSent();
  }

  #device(name: string, address: string | undefined): MemoryDevice {
    const { hi, lo } = mac(address ?? '00:00:00:00:00:00');
    const medium = address === undefined ? Medium.Ip : Medium.Ethernet;
    const device = new MemoryDevice(this.engine.pool, {
      name,
      medium,
      macHi: hi,
      macLo: lo,
      drops: this.engine.drops,
    });
    if (address === undefined) this.engine.addDevice(device, { isHost: true, peer: ip4('10.0.3.2') });
    else this.engine.addDevice(device);
    return device;
  }

  /** Commands in ipvsadm's words. */
  run(...lines: readonly string[]): (string | null)[] {
    return this.engine.executeIpvs(lines.map(parseCommand));
  }

  /** A frame (a packet, from the host port) comes in; what left, by device. */
  send(device: MemoryDevice, bytes: Uint8Array): { readonly device: string; readonly frame: SentFrame }[] {
    device.inject(bytes);
    this.engine.wake();
    this.engine.breathe();
    return this.takeSent();
  }

  takeSent(): { readonly device: string; readonly frame: SentFrame }[] {
    const devices = [this.front, this.back, ...(this.host === null ? [] : [this.host])];
    return devices.flatMap((d) => d.takeSent().map((frame) => ({ device: d.name, frame })));
  }
}

/** `tcp 10.0.1.2:1234 10.0.1.100:80`, with what else is to be set. */
export function explainSpec(text: string, more: Partial<ExplainSpec> = {}): ExplainSpec {
  const [protocol, from, to] = text.split(' ') as [ExplainSpec['protocol'], string, string];
  const [source, sourcePort] = from.split(':') as [string, string | undefined];
  const [destination, destinationPort] = to.split(':') as [string, string | undefined];
  return {
    protocol,
    source,
    destination,
    sourcePort: Number(sourcePort ?? 0),
    destinationPort: Number(destinationPort ?? 0),
    flags: 'S',
    chunk: ChunkType.Init,
    mark: 0,
    ttl: 64,
    length: 0,
    df: false,
    ...more,
  };
}
