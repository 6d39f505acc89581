/** A whole engine between devices that make their own traffic (traffic.ts): for benches without any kernel. */
import { systemClock } from '../src/base/clock.ts';
import { SeededRng } from '../src/base/rng.ts';
import { Engine } from '../src/engine/engine.ts';
import { inlineMore } from '../src/engine/inlining.ts';
import { ownMemory } from '../src/engine/start.ts';
import type { TableCommand } from '../src/model/iptables.ts';
import type { ForwardMethod, IpvsCommand } from '../src/model/ipvs.ts';
import { ip4, mac } from '../src/wire/addr.ts';
import { ClientDevice, type Order, ServerDevice } from './traffic.ts';

export interface Subject {
  readonly what: string;
  readonly services: number;
  /** Flows that exist, and those among which packets are spread. */
  readonly flows: number;
  readonly active: number;
  readonly order: Order;
  readonly method: ForwardMethod;
  /** Segments in each packet that comes in; each leaves as a packet of its own where a tunnel cuts them. */
  readonly segments: number;
  /** Lines of iptables in the filter table. */
  readonly rules?: readonly string[];
  /** net.ipv4.vs.conntrack: balanced flows have entries, too. */
  readonly isTracked?: boolean;
}

/** One service, a thousand flows. */
export const FEW = { services: 1, flows: 1000, active: 1000, order: 'random', method: 'masq', segments: 1 } as const;

const SERVERS = 10;
export const VIP = '10.0.1.100';
export const PORT = 80;
export const CLIENT_MAC = '02:00:00:00:01:02';
export const FRONT_MAC = '02:00:00:00:01:01';
export const BACK_MAC = '02:00:00:00:02:01';
export const SERVER_MAC = '02:00:00:00:02:0b';

export const octets = (address: string): number[] => address.split(':').map((byte) => Number.parseInt(byte, 16));
const serverAddress = (i: number): string => `10.0.2.${11 + i}`;

function serviceCommands(method: ForwardMethod, address: string, port: number): IpvsCommand[] {
  const service = { kind: 'address', protocol: 'tcp', address, port } as const;
  const commands: IpvsCommand[] = [
    { op: 'add-service', service: { key: service, scheduler: 'rr', schedulerFlags: 0, ops: false } },
  ];
  if (method === 'fullnat') commands.push({ op: 'add-local-address', service, local: { address: '10.0.2.1' } });
  for (let i = 0; i < SERVERS; i++) {
    const key = { address: serverAddress(i), port };
    const server = { key, method, weight: 1, upperThreshold: 0, lowerThreshold: 0 } as const;
    commands.push({ op: 'add-server', service, server });
  }
  return commands;
}

/** Do answers cross the director? */
function isAnswered(method: ForwardMethod): boolean {
  return method === 'masq' || method === 'fullnat';
}

function execute(engine: Engine, commands: readonly IpvsCommand[]): number {
  const before = performance.now();
  for (const error of engine.executeIpvs(commands)) if (error !== null) throw new Error(`set-up: ${error}`);
  return performance.now() - before;
}

export class Rig {
  readonly engine: Engine;
  readonly client: ClientDevice;
  readonly server: ServerDevice;
  readonly subject: Subject;
  loadMs = 0;
  addMs = 0;

  constructor(subject: Subject) {
    inlineMore();
    this.subject = subject;
    const isFullNat = subject.method === 'fullnat';
    const maxConnections = Math.max(65_536, subject.flows + 1000);
    this.engine = new Engine({
      clock: systemClock,
      rng: new SeededRng(7),
      maxConnections,
      maxPackets: 1024,
      allocate: ownMemory,
    });
    const { pool } = this.engine;
    this.client = new ClientDevice(pool, mac(FRONT_MAC), octets(CLIENT_MAC), ip4(VIP), PORT);
    this.server = new ServerDevice(pool, mac(BACK_MAC), octets(SERVER_MAC), PORT, subject.flows, isFullNat);
    for (const device of [this.client, this.server]) this.engine.addDevice(device, { isHost: false, peer: 0 });
    this.engine.executeIp([
      { op: 'addr-add', device: 'front', address: '10.0.1.1', prefixLength: 24 },
      { op: 'addr-add', device: 'back', address: '10.0.2.1', prefixLength: 24 },
      { op: 'addr-add', device: 'lo', address: VIP, prefixLength: 32 },
      { op: 'neigh-add', device: 'front', address: '10.0.1.2', mac: CLIENT_MAC },
      { op: 'route-add', route: { to: 'default', via: '10.0.1.2' } },
      ...Array.from(
        { length: SERVERS },
        (_, i) => ({ op: 'neigh-add', device: 'back', address: serverAddress(i), mac: SERVER_MAC }) as const,
      ),
    ]);
    this.engine.setSysctl('net.ipv4.ip_forward', '1');
  }

  /** Services, then a whole handshake for each flow. */
  prepare(): void {
    const { services, flows, method } = this.subject;
    const commands = serviceCommands(method, VIP, PORT);
    for (let i = 1; i < services; i++)
      commands.push(...serviceCommands(method, `10.${1 + (i >> 14)}.${(i >> 6) & 255}.1`, 1 + (i & 63)));
    this.loadMs = execute(this.engine, commands);
    this.#setRules();
    this.addMs = execute(this.engine, serviceCommands(method, '10.250.0.1', PORT));
    this.client.phase = 'syn';
    this.client.play(flows, flows, 'sequential');
    this.drain();
    if (this.server.scheduled !== flows)
      throw new Error(`only ${this.server.scheduled} of ${flows} flows were scheduled`);
    if (isAnswered(method)) {
      this.server.play(flows, flows, 'sequential');
      this.drain();
    }
    this.client.phase = 'ack';
    this.client.play(flows, flows, 'sequential');
    this.drain();
    this.client.phase = 'data';
    this.client.segments = this.subject.segments;
    this.server.isOpening = false;
  }

  #setRules(): void {
    const { rules = [], isTracked = false } = this.subject;
    if (isTracked) this.engine.setSysctl('net.ipv4.vs.conntrack', '1');
    const commands = rules.map((line): TableCommand => {
      const [, chain = '', ...words] = line.split(' ');
      return { op: 'append', chain, rule: { words } };
    });
    if (commands.length === 0) return;
    const outcome = this.engine.filter.change({ table: 'filter', commands });
    if (outcome !== null) throw new Error(`rule ${outcome.index}: ${outcome.fault}`);
  }

  /** Nanoseconds for one packet of a round: of those that leave. */
  round(packets: number): number {
    const { active, order, method, segments } = this.subject;
    const pieces = method === 'tunnel' ? segments : 1;
    const fromServers = isAnswered(method) ? packets >> 1 : 0;
    const fromClients = Math.ceil((packets - fromServers) / pieces);
    const expected = fromClients * pieces + fromServers;
    const sent = this.client.stats.txPackets + this.server.stats.txPackets;
    this.client.play(fromClients, active, order);
    this.server.play(fromServers, active, order);
    const before = process.hrtime.bigint();
    this.drain();
    const spent = Number(process.hrtime.bigint() - before);
    const passed = this.client.stats.txPackets + this.server.stats.txPackets - sent;
    if (passed !== expected) throw new Error(`${expected} packets expected, ${passed} out: ${this.reasons()}`);
    return spent / passed;
  }

  drain(): void {
    while (this.client.toPlay > 0 || this.server.toPlay > 0) this.engine.breathe();
    while (this.engine.breathe() > 0);
  }

  reasons(): string {
    return [...this.engine.drops].flatMap((n, reason) => (n > 0 ? [`drop ${reason}: ${n}`] : [])).join(', ');
  }
}
