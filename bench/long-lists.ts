/**
 * Long lists beside rules and entries: services and their servers, routes, neighbours, addresses. For how long each command about them stops the data path at most.
 *
 *   node --expose-gc dist/bench/long-lists.js [--services N] [--routes N] [--runs N]
 *
 * As million.ts: the engine in this process, without any kernel. Requests are those of the control thread, taken, done in pieces and answered as the worker does it. The longest
 * breath is told, too: what a command leaves to be done later is done there.
 */
import { parseArgs } from 'node:util';
import { systemClock, TurnableClock } from '../src/base/clock.ts';
import { SeededRng } from '../src/base/rng.ts';
import { MemoryDevice } from '../src/device/memory.ts';
import { Engine } from '../src/engine/engine.ts';
import { inlineMore } from '../src/engine/inlining.ts';
import { readSettings } from '../src/engine/kept-settings.ts';
import { ownMemory } from '../src/engine/start.ts';
import type { IpCommand } from '../src/model/ip.ts';
import type { IpvsCommand, ServiceKey } from '../src/model/ipvs.ts';
import { mac } from '../src/wire/addr.ts';
import { type Ask, type Runs, Stops } from './stops.ts';

const SERVERS = 10;
const ADDRESSES = 1000;
const NEIGHBOURS = 1000;
/** As the control thread asks (server.ts): rows and commands at a time. */
const PAGE = 256;
const BATCH = 64;
const MINUTE = 250 * 60;

const low = (i: number): string => `${(i >> 16) & 255}.${(i >> 8) & 255}.${i & 255}`;

function serviceKey(i: number): ServiceKey {
  return { kind: 'address', protocol: 'tcp', address: `10.1${low(i).slice(1)}`, port: 80 };
}

function addService(service: ServiceKey, scheduler: string, servers: number, base = 0): IpvsCommand[] {
  return [
    { op: 'add-service', service: { key: service, scheduler, schedulerFlags: 0, ops: false } },
    ...Array.from({ length: servers }, (_, i): IpvsCommand => {
      const key = {
        address: `172.${16 + ((base + i) >> 16)}.${((base + i) >> 8) & 255}.${(base + i) & 255}`,
        port: 80,
      };
      return {
        op: 'add-server',
        service,
        server: { key, method: 'masq', weight: 1 + (i % 3), upperThreshold: 0, lowerThreshold: 0 },
      };
    }),
  ];
}

function send<C, R>(commands: readonly C[], batch: (commands: readonly C[]) => readonly R[]): void {
  for (let at = 0; at < commands.length; at += BATCH)
    for (const error of batch(commands.slice(at, at + BATCH))) if (error !== null) throw new Error(String(error));
}

const ipvs = (ask: Ask, commands: readonly IpvsCommand[]): void =>
  send(commands, (some) => ask('ipvs', { commands: some }));
const ip = (ask: Ask, commands: readonly IpCommand[]): void => send(commands, (some) => ask('ip', { commands: some }));

function listServices(ask: Ask): number {
  let servers = 0;
  for (let cursor = 0; cursor >= 0; ) {
    const page = ask('list-services', { cursor, limit: PAGE });
    for (const row of page.rows) servers += row.servers.length;
    cursor = page.next;
  }
  return servers;
}

function createEngine(): { engine: Engine; clock: TurnableClock } {
  const clock = new TurnableClock(systemClock);
  const sizes = { maxConnections: 65_536, maxPackets: 1024 };
  const engine = new Engine({ clock, rng: new SeededRng(7), ...sizes, allocate: ownMemory });
  for (const [name, address] of [
    ['front', '02:00:00:00:01:01'],
    ['back', '02:00:00:00:02:01'],
  ] as const) {
    const { hi, lo } = mac(address);
    engine.addDevice(
      new MemoryDevice(engine.pool, { name, macHi: hi, macLo: lo, drops: engine.drops, canOffload: false }),
    );
  }
  return { engine, clock };
}

function measureServices(stops: Stops, engine: Engine, clock: TurnableClock, services: number): void {
  const all = Array.from({ length: services }, (_, i) => addService(serviceKey(i), 'wlc', SERVERS, i * SERVERS)).flat();
  const what = (name: string): string => `${name}, ${services} services`;
  stops.command(what('ipvsadm -R'), (ask) => ipvs(ask, all));
  stops.breaths('two seconds later', 500, () => clock.advance(1));
  stops.command(what('ipvsadm -L'), (ask) => {
    if (listServices(ask) !== services * SERVERS) throw new Error('not all are listed');
  });
  stops.command(what('ipvsadm -Z'), (ask) => ipvs(ask, [{ op: 'zero' }]));
  const edited = Array.from({ length: services }, (_, i): IpvsCommand[] => [
    {
      op: 'delete-server',
      service: serviceKey(i),
      server: {
        address: `172.${16 + ((i * SERVERS) >> 16)}.${((i * SERVERS) >> 8) & 255}.${(i * SERVERS) & 255}`,
        port: 80,
      },
    },
    ...addService(serviceKey(i), 'wlc', 1, (services + 1) * SERVERS + i).slice(1),
  ]).flat();
  stops.command(what('ipvsadm --apply: one server of each is another'), (ask) => {
    const { generation } = engine.director;
    let at = 0;
    for (; edited.length - at > BATCH; at += BATCH) ask('stage-ipvs', { at, commands: edited.slice(at, at + BATCH) });
    const outcome = ask('ipvs-all', { commands: edited.slice(at), generation, at });
    if (outcome !== null) throw new Error(JSON.stringify(outcome));
  });
  stops.command(what('ipvsadm -C'), (ask) => ipvs(ask, [{ op: 'clear' }]));
  stops.breaths('five minutes later', MINUTE / 2, () => clock.advance(10));
  for (const scheduler of ['wlc', 'mh', 'sh']) {
    const one = addService(serviceKey(0), scheduler, 2000);
    stops.command(`ipvsadm -R of one service by ${scheduler}, 2,000 servers`, (ask) => ipvs(ask, one));
    stops.command(`ipvsadm -L of one service by ${scheduler}, 2,000 servers`, (ask) => void listServices(ask));
    stops.command(`ipvsadm -D of one service by ${scheduler}, 2,000 servers`, (ask) =>
      ipvs(ask, [{ op: 'delete-service', service: serviceKey(0) }]),
    );
    stops.breaths('five minutes later', MINUTE / 2, () => clock.advance(10));
  }
}

function measureIp(stops: Stops, engine: Engine, routes: number): void {
  const what = (name: string): string => `${name}, ${routes} routes`;
  stops.command(`tapvs ip addr add, ${ADDRESSES} addresses`, (ask) =>
    ip(ask, [
      { op: 'addr-add', device: 'front', address: '10.0.1.1', prefixLength: 24 },
      { op: 'addr-add', device: 'back', address: '10.128.0.1', prefixLength: 9 },
      ...Array.from(
        { length: ADDRESSES },
        (_, i): IpCommand => ({ op: 'addr-add', device: 'lo', address: `10.2.${i >> 8}.${i & 255}`, prefixLength: 32 }),
      ),
    ]),
  );
  const route = (i: number) => ({
    to: `20.${low(i).split('.').slice(0, 3).join('.')}`,
    via: '10.128.0.2',
    source: i % 2 === 0 ? '10.2.0.7' : undefined,
  });
  const all = Array.from({ length: routes }, (_, i): IpCommand => ({ op: 'route-add', route: route(i) }));
  stops.command(what('tapvs ip route add'), (ask) => ip(ask, all));
  stops.command(`tapvs ip neigh add, ${NEIGHBOURS} neighbours`, (ask) =>
    ip(
      ask,
      Array.from(
        { length: NEIGHBOURS },
        (_, i): IpCommand => ({
          op: 'neigh-add',
          device: 'back',
          address: `10.129.${i >> 8}.${i & 255}`,
          mac: '02:00:00:00:03:01',
        }),
      ),
    ),
  );
  stops.command(what('tapvs ip route'), (ask) => void ask('list-routes', {}));
  stops.command(`tapvs ip neigh, ${NEIGHBOURS} neighbours`, (ask) => void ask('list-neighbours', {}));
  stops.command(`tapvs ip addr, ${ADDRESSES} addresses`, (ask) => void ask('list-addresses', {}));
  stops.command('tapvs status', (ask) => {
    for (const name of [
      'ipvs-counts',
      'conntrack-counts',
      'list-links',
      'list-drops',
      'list-hooks',
      'list-sysctls',
    ] as const)
      ask(name, {});
  });
  const pieces = readSettings(engine, [])[Symbol.iterator]();
  stops.measure(what('settings kept for the next life'), () => ({
    result: null,
    next: pieces.next().done === true ? -1 : 0,
  }));
  stops.command(what('tapvs ip addr del that half of them name'), (ask) =>
    ip(ask, [{ op: 'addr-del', device: 'lo', address: '10.2.0.7', prefixLength: 32 }]),
  );
  stops.command(what('tapvs ip link set down'), (ask) => ip(ask, [{ op: 'link-set', device: 'back', up: false }]));
  stops.command(what('tapvs ip link set up'), (ask) => ip(ask, [{ op: 'link-set', device: 'back', up: true }]));
  stops.command(what('tapvs ip route add again'), (ask) =>
    ip(
      ask,
      all.map((command) =>
        command.op === 'route-add' ? { ...command, route: { ...command.route, source: undefined } } : command,
      ),
    ),
  );
  stops.command(what('device removed'), (ask) => void ask('del-device', { name: 'back' }));
}

function main(): number {
  const { values } = parseArgs({
    options: {
      services: { type: 'string', default: '10000' },
      routes: { type: 'string', default: '50000' },
      runs: { type: 'string', default: '3' },
    },
  });
  inlineMore();
  const runs: Runs = new Map();
  let isTooLong = false;
  for (let left = Number(values.runs); left > 0; left--) {
    const { engine, clock } = createEngine();
    const stops = new Stops(engine, runs);
    measureServices(stops, engine, clock, Number(values.services));
    measureIp(stops, engine, Number(values.routes));
    stops.close();
    if (left === 1) isTooLong = stops.report();
  }
  return isTooLong ? 1 : 0;
}

process.exitCode = main();
