/**
 * What a process does before its turn has come: a small director with devices in memory forwards, ends, and another one goes on from it. Afterwards the code that meets the
 * first packets of a restart is compiled, and has seen what it will see. The build does the same before it stores compiled code (scripts/bundle.mjs).
 */
import { systemClock } from '../base/clock.ts';
import { KEEP_SIZE, Keep, Kept, keptOr, type MapMemory } from '../base/keep.ts';
import { plainMemory, wholeOf } from '../base/memory.ts';
import { SeededRng } from '../base/rng.ts';
import { finish } from '../base/slices.ts';
import { MemoryDevice } from '../device/memory.ts';
import * as native from '../device/native.ts';
import { formatIp4, mac } from '../wire/addr.ts';
import { type FrameBuilder, frame } from '../wire/build.ts';
import * as ipv4 from '../wire/ipv4.ts';
import * as tcp from '../wire/tcp.ts';
import { Engine } from './engine.ts';
import { inherit, Keeper, LAYOUT } from './keeper.ts';
import type { DeviceSpec } from './messages.ts';

const MACS = { front: '02:00:00:00:01:01', back: '02:00:00:00:02:01' } as const;
const CLIENT = { address: '192.0.2.2', mac: '02:00:00:00:01:02' };
const SERVERS = [11, 12].map((n) => ({ address: `198.51.100.${n}`, mac: `02:00:00:00:02:${n}` }));
const VIP = '192.0.2.100';
const LIMITS = { maxConnections: 2000, maxEntries: 2000, maxPackets: 64 };
const FIRST_PORT = 10_000;
const RULES = [
  ['INPUT', '-m', 'conntrack', '--ctstate', 'INVALID', '-j', 'DROP'],
  ['FORWARD', '-m', 'conntrack', '--ctstate', 'RELATED,ESTABLISHED', '-j', 'ACCEPT'],
];

/**
 * Answers the packets that were forwarded.
 * @param connections of each life, at most 1000: after a hundred all is compiled, after a thousand optimised
 */
export function warmUp(connections: number): number {
  const fds = [0, 1].map(() => native.memfd('tapvs-warm-up', KEEP_SIZE));
  try {
    const [first, second] = fds.map(
      (fd): MapMemory =>
        (offset, bytes) =>
          wholeOf(native.mapShared(fd, bytes, offset)),
    );
    const before = new Life(first!, 1);
    before.setUp();
    before.open(0, connections);
    before.keeper.finish();
    const kept = Kept.open(first!, LAYOUT);
    if (typeof kept === 'string') return 0;
    const after = new Life(second!, 2);
    const { steps } = inherit(after.engine, kept, (spec) => after.addDevice(spec));
    after.talk(0, connections / 2);
    finish(steps);
    after.keeper.begin();
    after.talk(connections / 2, connections);
    after.open(connections, connections + connections / 2);
    return before.sent + after.sent;
  } finally {
    for (const fd of fds) native.close(fd);
  }
}

class Life {
  readonly engine: Engine;
  readonly keeper: Keeper;
  readonly #devices = new Map<string, MemoryDevice>();

  constructor(map: MapMemory, life: number) {
    const keep = new Keep(map, { ...LIMITS, spin: 0, testClock: false }, LAYOUT, life);
    const allocate = keptOr(keep, plainMemory);
    this.engine = new Engine({ clock: systemClock, rng: new SeededRng(life), ...LIMITS, allocate });
    this.keeper = new Keeper(this.engine, keep, () => {});
  }

  /** Packets. */
  get sent(): number {
    return [...this.#devices.values()].reduce((sum, { stats }) => sum + stats.txPackets, 0);
  }

  addDevice({ name, mac: address }: Pick<DeviceSpec, 'name' | 'mac'>): boolean {
    const { hi, lo } = mac(address);
    const device = new MemoryDevice(this.engine.pool, { name, macHi: hi, macLo: lo, drops: this.engine.drops });
    this.engine.addDevice(device);
    this.#devices.set(name, device);
    return true;
  }

  setUp(): void {
    const { engine, keeper } = this;
    for (const name of ['front', 'back'] as const) {
      const spec = { name, kind: 'tap', fd: -1, mac: MACS[name], mtu: 1500, isHost: false, offload: false } as const;
      this.addDevice(spec);
      keeper.devices.push(spec);
    }
    engine.executeIp([
      { op: 'addr-add', device: 'front', address: '192.0.2.1', prefixLength: 24 },
      { op: 'addr-add', device: 'back', address: '198.51.100.1', prefixLength: 24 },
      { op: 'addr-add', device: 'lo', address: VIP, prefixLength: 32 },
      { op: 'neigh-add', device: 'front', address: CLIENT.address, mac: CLIENT.mac },
      ...SERVERS.map((server) => ({ op: 'neigh-add', device: 'back', ...server }) as const),
    ]);
    engine.setSysctl('net.ipv4.ip_forward', '1');
    engine.setSysctl('net.ipv4.vs.conntrack', '1');
    for (const protocol of ['tcp', 'udp'] as const) {
      const key = { kind: 'address', protocol, address: VIP, port: 80 } as const;
      engine.executeIpvs([
        { op: 'add-service', service: { key, scheduler: 'rr', schedulerFlags: 0, ops: false } },
        ...SERVERS.map(({ address }) => {
          const server = { method: 'masq', weight: 1, upperThreshold: 0, lowerThreshold: 0 } as const;
          return { op: 'add-server', service: key, server: { key: { address, port: 80 }, ...server } } as const;
        }),
      ]);
    }
    const commands = RULES.map(([chain = '', ...words]) => ({ op: 'append', chain, rule: { words } }) as const);
    engine.filter.change({ table: 'filter', commands });
    keeper.begin();
  }

  /** Connections of clients' ports `from` to `to`, as far as the first request; and as many datagrams. */
  open(from: number, to: number): void {
    for (let i = from; i < to; i++) {
      const client = { srcPort: FIRST_PORT + i, dstPort: 80 };
      this.#fromClient((f) => f.tcp({ ...client, flags: 'S', seq: 0, options: [2, 4, 5, 180] }));
      this.#answer('S.', 100, 1, '');
      this.#fromClient((f) => f.tcp({ ...client, flags: '.', seq: 1, ack: 101 }));
      this.#fromClient((f) => f.tcp({ ...client, flags: 'P.', seq: 1, ack: 101 }).payload('GET'));
      this.#answer('P.', 101, 4, 'OK');
      this.#fromClient((f) => f.udp(client).payload('?'));
    }
  }

  /** What was opened goes on, and ends. */
  talk(from: number, to: number): void {
    for (let i = from; i < to; i++) {
      const client = { srcPort: FIRST_PORT + i, dstPort: 80 };
      this.#fromClient((f) => f.tcp({ ...client, flags: 'P.', seq: 4, ack: 103 }).payload('GET'));
      this.#answer('P.', 103, 7, 'OK');
      this.#fromClient((f) => f.tcp({ ...client, flags: 'F.', seq: 7, ack: 105 }));
      this.#answer('F.', 105, 8, '');
      this.#fromClient((f) => f.tcp({ ...client, flags: '.', seq: 8, ack: 106 }));
    }
  }

  #fromClient(build: (f: FrameBuilder) => FrameBuilder): void {
    const f = frame().eth(MACS.front, CLIENT.mac).ipv4(CLIENT.address, VIP);
    this.#devices.get('front')!.inject(build(f).build());
    this.engine.breathe();
    this.keeper.advance();
  }

  /** By the server that was asked, if one was. */
  #answer(flags: string, seq: number, ack: number, text: string): void {
    const back = this.#devices.get('back')!;
    const asked = back.takeSent().at(-1);
    if (asked === undefined || asked.l4 === 0) return;
    const view = new DataView(asked.bytes.buffer, asked.bytes.byteOffset);
    const at = asked.l4 - 20;
    const f = frame()
      .eth(MACS.back, SERVERS[0]!.mac)
      .ipv4(formatIp4(ipv4.dst(view, at)), CLIENT.address);
    const dstPort = tcp.srcPort(view, asked.l4);
    back.inject(f.tcp({ srcPort: 80, dstPort, flags, seq, ack }).payload(text).build());
    this.engine.breathe();
    this.#devices.get('front')!.takeSent();
  }
}
