/** For the tests of connection synchronisation: a director in memory, with a client's network and a servers', driven by hand. */
import { expect } from 'vitest';
import { ManualClock, seconds } from '../base/clock.ts';
import { SeededRng } from '../base/rng.ts';
import { MemoryDevice, type SentFrame } from '../device/memory.ts';
import { parseCommand } from '../director/test-rig.ts';
import type { DaemonSpec, IpvsErrno } from '../model/ipvs.ts';
import { Drop } from '../packet/drop.ts';
import { mac } from '../wire/addr.ts';
import { frame } from '../wire/build.ts';
import { Engine } from './engine.ts';

const CLIENT = '10.0.1.2';
const CLIENT_MAC = '02:00:00:00:01:02';
export const VIP = '10.0.1.100';
export const SERVICES = [
  `-A -t ${VIP}:80 -s rr`,
  `-a -t ${VIP}:80 -r 10.0.2.11:80 -m`,
  `-a -t ${VIP}:80 -r 10.0.2.12:80 -g`,
  `-A -t ${VIP}:443 -s rr -p 60`,
  `-a -t ${VIP}:443 -r 10.0.2.11:443 -m`,
  `-A -u ${VIP}:53 -s rr`,
  `-a -u ${VIP}:53 -r 10.0.2.11:53 -m`,
];

/** A director between a client's network (front) and a servers' (back). */
export class Host {
  readonly clock: ManualClock;
  readonly engine: Engine;
  readonly front: MemoryDevice;
  readonly back: MemoryDevice;

  constructor(n: number, clock = new ManualClock(5000), maxConnections = 4096) {
    this.clock = clock;
    this.engine = new Engine({ clock, rng: new SeededRng(n), maxConnections, maxPackets: 256 });
    this.front = this.#device('front', `02:00:00:00:01:1${n}`);
    this.back = this.#device('back', `02:00:00:00:02:0${n}`);
    const add = { op: 'addr-add', prefixLength: 24 } as const;
    this.engine.executeIp([
      { ...add, device: 'front', address: n === 1 ? '10.0.1.1' : `10.0.1.25${n}` },
      { ...add, device: 'back', address: n === 1 ? '10.0.2.1' : `10.0.2.25${n}` },
      { ...add, device: 'front', address: VIP, prefixLength: 32 },
      { op: 'neigh-add', device: 'front', address: CLIENT, mac: CLIENT_MAC },
      { op: 'neigh-add', device: 'back', address: '10.0.2.11', mac: '02:00:00:00:02:11' },
      { op: 'neigh-add', device: 'back', address: '10.0.2.12', mac: '02:00:00:00:02:12' },
    ]);
    this.engine.setSysctl('net.ipv4.ip_forward', '1');
  }

  #device(name: string, address: string): MemoryDevice {
    const { hi, lo } = mac(address);
    const { pool, drops } = this.engine;
    const device = new MemoryDevice(pool, { name, macHi: hi, macLo: lo, drops, canOffload: false });
    this.engine.addDevice(device);
    return device;
  }

  run(...lines: readonly string[]): void {
    for (const errno of this.engine.executeIpvs(lines.map(parseCommand))) expect(errno).toBeNull();
  }

  start(daemon: Partial<DaemonSpec> & Pick<DaemonSpec, 'role'>): IpvsErrno | null | undefined {
    const spec = { device: 'front', syncId: 5, ...daemon };
    return this.engine.executeIpvs([{ op: 'start-daemon', daemon: spec }])[0];
  }

  set(key: string, value: string): void {
    expect(this.engine.setSysctl(`net.ipv4.vs.${key}`, value)).toBeNull();
  }

  /** Time passes, a breath each 20 ms. */
  wait(secondsToWait: number): void {
    for (let left = seconds(secondsToWait); left > 0; left -= 5) {
      this.clock.advance(Math.min(5, left));
      this.engine.breathe();
    }
  }

  /** A segment or datagram of the client. */
  client(sport: number, dport: number, flags: string): void {
    this.clientAt(CLIENT, sport, dport, flags);
  }

  clientAt(client: string, sport: number, dport: number, flags: string): void {
    const to = this.front;
    const ip = frame().eth(formatMacOf(to), CLIENT_MAC).ipv4(client, VIP);
    const ports = { srcPort: sport, dstPort: dport };
    to.inject((flags === 'u' ? ip.udp(ports).payload('x') : ip.tcp({ ...ports, flags })).build());
    this.engine.wake();
    this.engine.breathe();
  }

  /** An answer of a server that it crosses us with. */
  server(rip: string, rport: number, cport: number, flags: string): void {
    const ip = frame().eth(formatMacOf(this.back), '02:00:00:00:02:11').ipv4(rip, CLIENT);
    this.back.inject(ip.tcp({ srcPort: rport, dstPort: cport, flags }).build());
    this.engine.wake();
    this.engine.breathe();
  }

  /** What has left by front for a group. */
  multicasts(): SentFrame[] {
    return this.front.takeSent().filter(({ bytes }) => bytes[0] === 1 && bytes[1] === 0 && bytes[2] === 0x5e);
  }

  /** Payloads of the synchronisation messages among it, in hexadecimal. */
  messages(): string[] {
    return this.multicasts()
      .filter(({ bytes }) => bytes[14 + 9] === 17)
      .map(({ bytes }) => Buffer.from(bytes.subarray(42)).toString('hex'));
  }

  connections(): string[] {
    const { rows } = this.engine.director.listConnections(0, 1000);
    return rows
      .map((r) => {
        const [c, v, d] = [r.client, r.virtual, r.destination].map((a) => `${a.address}:${a.port}`);
        return `${r.protocol} ${r.state} ${c} ${v} ${d} ${r.expiresSeconds}`;
      })
      .sort();
  }

  /** active, inactive, persistent of each server, in ipvsadm's order of services. */
  counts(): string[] {
    return this.engine.director
      .listServices(0, 100)
      .rows.flatMap((s) =>
        s.servers.map((d) => `${d.key.address}:${d.key.port} ${d.activeConns} ${d.inactiveConns} ${d.persistentConns}`),
      )
      .sort();
  }

  drop(name: keyof typeof Drop): number {
    return this.engine.drops[Drop[name]]!;
  }
}

function formatMacOf(device: MemoryDevice): string {
  const hex = device.macHi.toString(16).padStart(4, '0') + (device.macLo >>> 0).toString(16).padStart(8, '0');
  return hex.match(/../g)!.join(':');
}

/** A message in hexadecimal, from a master at `source`. */
export function deliver(
  to: Host,
  payload: string,
  options: { source?: string; port?: number; group?: string } = {},
): void {
  const bytes = new Uint8Array(Buffer.from(payload, 'hex'));
  const { source = '10.0.1.1', port = 8848, group = '224.0.0.81' } = options;
  const ip = frame().eth('01:00:5e:00:00:51', '02:00:00:00:01:01').ipv4(source, group, { ttl: 1 });
  to.front.inject(ip.udp({ srcPort: 40000, dstPort: port }).payload(bytes).build());
  to.engine.wake();
  to.engine.breathe();
}
