/**
 * scripts/bench's small sister: what one packet costs inside tapvs, without any kernel.
 *
 *   node dist/bench/micro.js [--json] [--packets N] [--rounds N] [--only SUBJECT,...]
 *
 * Each subject runs in a process of its own, so that what one teaches the optimiser does not help or hurt the next. A round sends N packets of established flows
 * through a whole engine: half from clients and half from servers with NAT, all from clients where answers do not cross the balancer. The figure is the best of many
 * rounds that are shorter than a time slice (what else the machine does only ever adds), less what making and freeing the frames costs (subject `harness`).
 */
import { execFileSync } from 'node:child_process';
import { PerformanceObserver } from 'node:perf_hooks';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { systemClock } from '../src/base/clock.ts';
import { SeededRng } from '../src/base/rng.ts';
import { hugeMemory } from '../src/device/native.ts';
import { Engine } from '../src/engine/engine.ts';
import type { TableCommand } from '../src/model/iptables.ts';
import type { ForwardMethod, IpvsCommand } from '../src/model/ipvs.ts';
import { Burst } from '../src/packet/burst.ts';
import { PacketPool } from '../src/packet/pool.ts';
import { ip4, mac } from '../src/wire/addr.ts';
import { deviceRules, manyRules, RULES, TRACKING_RULES } from './rules.ts';
import { ClientDevice, type Order, ServerDevice } from './traffic.ts';

interface Subject {
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

const FEW = { services: 1, flows: 1000, active: 1000, order: 'random', method: 'masq', segments: 1 } as const;
/** A super-packet of 44 segments of 1,440 bytes is what a TAP hands over in bulk. */
const SUPER = { segments: 44 } as const;

const SUBJECTS: Readonly<Record<string, Subject>> = {
  harness: { ...FEW, what: 'frames made and freed, no engine', services: 0 },
  base: { ...FEW, what: '1 service, 1,000 flows' },
  services: { ...FEW, what: '20,000 services, 1,000 flows', services: 20_000 },
  flows: { ...FEW, what: '1,000,000 flows, packets of 1,000', flows: 1_000_000 },
  'flows-active': {
    ...FEW,
    what: '1,000,000 flows, packets of all at random',
    flows: 1_000_000,
    active: 1_000_000,
  },
  tracking: { ...FEW, what: 'as base, all tracked', rules: TRACKING_RULES, isTracked: true },
  untracked: { ...FEW, what: 'as base, others are tracked', rules: TRACKING_RULES },
  rules: { ...FEW, what: `as base, ${RULES} rules before it`, rules: manyRules(RULES) },
  'rules-device': { ...FEW, what: `as base, ${RULES} rules that differ by device`, rules: deviceRules(RULES) },
  dr: { ...FEW, what: 'as base, direct routing, requests only', method: 'route' },
  ipip: { ...FEW, what: 'as base, IPIP, requests only', method: 'tunnel' },
  'bulk-dr': { ...FEW, ...SUPER, what: 'super-packets, direct routing, per super-packet', method: 'route' },
  'bulk-ipip': { ...FEW, ...SUPER, what: 'super-packets cut into IPIP, per segment', method: 'tunnel' },
};

/** Ratios that issue 2 bounds: subject to `base`, at most. */
const BOUNDS: Readonly<Record<string, number>> = { services: 1.1, flows: 1.1, 'flows-active': 1.1 };

/** Among so many packets of established flows the garbage collector has nothing to do. */
const GC_PACKETS = 2_000_000;

const SERVERS = 10;
const VIP = '10.0.1.100';
const PORT = 80;
const CLIENT_MAC = '02:00:00:00:01:02';
const FRONT_MAC = '02:00:00:00:01:01';
const BACK_MAC = '02:00:00:00:02:01';
const SERVER_MAC = '02:00:00:00:02:0b';

interface Outcome {
  readonly nsPerPacket: number;
  readonly medianNsPerPacket: number;
  /** Garbage collections during one round of GC_PACKETS, after all others. */
  readonly gcEvents: number;
  /** Resident bytes that services and flows took. */
  readonly stateBytes: number;
  readonly loadMs: number;
  readonly addMs: number;
}

const octets = (address: string): number[] => address.split(':').map((byte) => Number.parseInt(byte, 16));
const serverAddress = (i: number): string => `10.0.2.${11 + i}`;

function serviceCommands(method: ForwardMethod, address: string, port: number): IpvsCommand[] {
  const service = { kind: 'address', protocol: 'tcp', address, port } as const;
  const commands: IpvsCommand[] = [
    { op: 'add-service', service: { key: service, scheduler: 'rr', schedulerFlags: 0, ops: false } },
  ];
  for (let i = 0; i < SERVERS; i++) {
    const key = { address: serverAddress(i), port };
    const server = { key, method, weight: 1, upperThreshold: 0, lowerThreshold: 0 } as const;
    commands.push({ op: 'add-server', service, server });
  }
  return commands;
}

function execute(engine: Engine, commands: readonly IpvsCommand[]): number {
  const before = performance.now();
  for (const error of engine.executeIpvs(commands)) if (error !== null) throw new Error(`set-up: ${error}`);
  return performance.now() - before;
}

class Rig {
  readonly engine: Engine;
  readonly client: ClientDevice;
  readonly server: ServerDevice;
  readonly subject: Subject;
  loadMs = 0;
  addMs = 0;

  constructor(subject: Subject) {
    this.subject = subject;
    const maxConnections = Math.max(65_536, subject.flows + 1000);
    this.engine = new Engine({
      clock: systemClock,
      rng: new SeededRng(7),
      maxConnections,
      maxPackets: 1024,
      allocate: hugeMemory,
    });
    const { pool } = this.engine;
    this.client = new ClientDevice(pool, mac(FRONT_MAC), octets(CLIENT_MAC), ip4(VIP), PORT);
    this.server = new ServerDevice(pool, mac(BACK_MAC), octets(SERVER_MAC), PORT, subject.flows);
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
    if (method === 'masq') {
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
    const fromServers = method === 'masq' ? packets >> 1 : 0;
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

/** The harness alone: frames are made, put on a burst, and freed. */
class Harness {
  readonly #pool = new PacketPool(1024);
  readonly #client = new ClientDevice(this.#pool, mac(FRONT_MAC), octets(CLIENT_MAC), ip4(VIP), PORT);
  readonly #server = new ServerDevice(this.#pool, mac(BACK_MAC), octets(SERVER_MAC), PORT, 1000);
  readonly #burst = new Burst();

  round(packets: number): number {
    const half = packets >> 1;
    this.#server.isOpening = false;
    this.#client.phase = 'data';
    this.#client.play(half, 1000, 'random');
    this.#server.play(half, 1000, 'random');
    const before = process.hrtime.bigint();
    while (this.#client.toPlay > 0 || this.#server.toPlay > 0) {
      this.#client.receive(this.#burst);
      this.#server.transmit(this.#burst);
      this.#server.receive(this.#burst);
      this.#client.transmit(this.#burst);
    }
    return Number(process.hrtime.bigint() - before) / (half * 2);
  }
}

/** Garbage collections while `work` runs. */
async function collectionsDuring(work: () => void): Promise<number> {
  const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
  let events = 0;
  const observer = new PerformanceObserver((list) => {
    events += list.getEntries().length;
  });
  globalThis.gc?.();
  await turn();
  observer.observe({ entryTypes: ['gc'] });
  work();
  await turn();
  events += observer.takeRecords().length;
  observer.disconnect();
  return events;
}

async function measure(name: string, packets: number, rounds: number): Promise<Outcome> {
  const subject = SUBJECTS[name]!;
  let runner: { round(packets: number): number };
  let stateBytes = 0;
  let loadMs = 0;
  let addMs = 0;
  if (name === 'harness') {
    runner = new Harness();
  } else {
    const rig = new Rig(subject);
    globalThis.gc?.();
    const before = process.memoryUsage().rss;
    rig.prepare();
    globalThis.gc?.();
    stateBytes = process.memoryUsage().rss - before;
    ({ loadMs, addMs } = rig);
    runner = rig;
  }
  for (let done = 0; done < 2_000_000; done += packets) runner.round(packets);
  const times: number[] = [];
  for (let i = 0; i < rounds; i++) times.push(runner.round(packets));
  const gcEvents = await collectionsDuring(() => runner.round(GC_PACKETS));
  times.sort((a, b) => a - b);
  return {
    nsPerPacket: times[0]!,
    medianNsPerPacket: times[times.length >> 1]!,
    gcEvents,
    stateBytes,
    loadMs,
    addMs,
  };
}

function main(): number {
  const { values } = parseArgs({
    options: {
      json: { type: 'boolean', default: false },
      packets: { type: 'string', default: '5000' },
      rounds: { type: 'string', default: '1000' },
      only: { type: 'string' },
    },
  });
  const wanted = values.only?.split(',') ?? Object.keys(SUBJECTS);
  const unknown = wanted.find((name) => SUBJECTS[name] === undefined);
  if (unknown !== undefined) throw new Error(`--only ${unknown}: one of ${Object.keys(SUBJECTS).join(', ')}`);
  const outcomes: Record<string, Outcome> = {};
  for (const name of wanted) {
    // The memory reducer collects by the clock, whether anything was allocated or not.
    const args = ['--expose-gc', '--no-memory-reducer', fileURLToPath(import.meta.url), values.packets, values.rounds];
    const out = execFileSync(process.execPath, args, {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: { ...process.env, BENCH_SUBJECT: name },
      encoding: 'utf8',
    });
    outcomes[name] = JSON.parse(out) as Outcome;
  }
  const harness = outcomes.harness?.nsPerPacket ?? 0;
  const base = outcomes.base === undefined ? null : outcomes.base.nsPerPacket - harness;
  const rows = wanted.map((name) => {
    const { nsPerPacket, medianNsPerPacket, gcEvents, stateBytes, loadMs, addMs } = outcomes[name]!;
    const net = name === 'harness' ? nsPerPacket : nsPerPacket - harness;
    const ratio = base === null || name === 'harness' ? null : net / base;
    return { name, net, nsPerPacket, medianNsPerPacket, ratio, gcEvents, stateBytes, loadMs, addMs };
  });
  if (values.json) {
    process.stdout.write(`${JSON.stringify(rows, null, 2)}\n`);
    return 0;
  }
  for (const row of rows) {
    const bound = BOUNDS[row.name];
    const ratio =
      row.ratio === null ? '' : `  ${row.ratio.toFixed(2)} of base${bound === undefined ? '' : ` (at most ${bound})`}`;
    const state = row.stateBytes > 0 ? `  state ${(row.stateBytes / 2 ** 20).toFixed(0)} MB` : '';
    const load =
      row.name === 'services' ? `  load ${row.loadMs.toFixed(0)} ms, one more ${row.addMs.toFixed(2)} ms` : '';
    process.stdout.write(
      `${row.name.padEnd(13)} ${row.net.toFixed(0).padStart(5)} ns/packet  gc ${row.gcEvents} in ${GC_PACKETS}${ratio}${state}${load}  ${SUBJECTS[row.name]!.what}\n`,
    );
  }
  return 0;
}

const name = process.env.BENCH_SUBJECT;
if (name === undefined) {
  try {
    process.exitCode = main();
  } catch (error) {
    process.stderr.write(`micro: ${error instanceof Error ? error.message.split('\n')[0] : String(error)}\n`);
    process.exitCode = 1;
  }
} else {
  const outcome = await measure(name, Number(process.argv[2]), Number(process.argv[3]));
  process.stdout.write(JSON.stringify(outcome));
}
