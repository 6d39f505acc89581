/** A new life of the daemon: what the one before knew is there again, its packets go on, and memory that was damaged harms nobody. */
import { beforeEach, describe, expect, it } from 'vitest';
import { ManualClock, seconds } from '../base/clock.ts';
import { Kept } from '../base/keep.ts';
import type { MemoryFile } from '../base/keep-rig.ts';
import { SeededRng } from '../base/rng.ts';
import { finish } from '../base/slices.ts';
import { parseCommand } from '../director/test-rig.ts';
import type { TableName } from '../model/iptables.ts';
import { formatIp4, mac } from '../wire/addr.ts';
import { type FrameBuilder, frame, verifyFrame } from '../wire/build.ts';
import * as ipv4 from '../wire/ipv4.ts';
import * as tcp from '../wire/tcp.ts';
import { LAYOUT } from './keeper.ts';
import { Lives, type LivesOptions, TEXTS } from './lives-rig.ts';

const MAC = { front: '02:00:00:00:01:01', back: '02:00:00:00:02:01', client: '02:00:00:00:01:02' };
const serverMac = (n: number) => `02:00:00:00:02:${n}`;

const SERVICES = [
  '-A -t 10.0.1.100:80 -s wlc',
  '-a -t 10.0.1.100:80 -r 10.0.2.11:8080 -m -w 3 -x 100 -y 50',
  '-a -t 10.0.1.100:80 -r 10.0.2.12 -m',
  '-a -t 10.0.1.100:80 -r 10.0.2.13 -m -w 0',
  '-A -u 10.0.1.100:53 -s rr -p 300 -M 255.255.255.0',
  '-a -u 10.0.1.100:53 -r 10.0.2.11 -m',
  '-a -u 10.0.1.100:53 -r 10.0.2.12 -m',
  '-A -f 5 -s sh',
  '-a -f 5 -r 10.0.2.14 -m',
  '-A -t 10.0.1.101:80 -s mh -b sh-fallback,sh-port',
  '-a -t 10.0.1.101:80 -r 10.0.2.15 -i --tun-type gue --tun-port 6080 --tun-csum',
  '-a -t 10.0.1.101:80 -r 10.0.2.16 -g',
  '-A -u 10.0.1.101:5060 -s rr -p 60 --pe sip',
  '-a -u 10.0.1.101:5060 -r 10.0.2.12 -m',
  '-A -t 10.0.1.102:80 -s rr',
  '-a -t 10.0.1.102:80 -r 10.0.2.11 -b',
];

const RULES: readonly (readonly [TableName, string])[] = [
  ['raw', '-A PREROUTING -p tcp --dport 21 -j CT --helper ftp'],
  ['mangle', '-A PREROUTING -p udp -m udp --dport 4000 -m connlabel --label 100 --set'],
  ['mangle', '-A PREROUTING -d 10.0.1.102/32 -p tcp --dport 8080 -j MARK --set-xmark 0x5/0xffffffff'],
  ['nat', '-A PREROUTING -d 10.0.1.100/32 -p tcp --dport 21 -j DNAT --to-destination 10.0.2.14'],
  ['nat', '-A POSTROUTING -o back -p udp --dport 4000 -j MASQUERADE'],
  ['filter', '-A FORWARD -m conntrack --ctstate INVALID -j DROP'],
  ['filter', '-A FORWARD -p tcp -m comment --comment "two words" -j ACCEPT'],
];

let clock: ManualClock;
let options: { -readonly [K in keyof LivesOptions]: LivesOptions[K] };
let lives: Lives;

beforeEach(() => {
  clock = new ManualClock(1000);
  options = { clock, maxConnections: 200, maxServices: 32, maxDestinations: 64, maxPackets: 128 };
  lives = new Lives(options);
  for (const name of ['front', 'back'] as const) {
    const { hi, lo } = mac(MAC[name]);
    lives.addDevice({ name, macHi: hi, macLo: lo });
  }
  const { engine } = lives;
  const errors = engine.executeIp([
    { op: 'addr-add', device: 'front', address: '10.0.1.1', prefixLength: 24 },
    { op: 'addr-add', device: 'back', address: '10.0.2.1', prefixLength: 24 },
    ...[100, 101, 102].map((n) => ({
      op: 'addr-add' as const,
      device: 'lo',
      address: `10.0.1.${n}`,
      prefixLength: 32,
    })),
    { op: 'route-add', route: { to: '10.9.0.0/16', via: '10.0.2.12' } },
    { op: 'route-del', route: { to: '10.0.1.255', type: 'broadcast' } },
    { op: 'link-set', device: 'back', mtu: 1400 },
    { op: 'neigh-add', device: 'front', address: '10.0.1.2', mac: MAC.client },
    ...[11, 12, 13, 14, 15, 16].map((n) => ({
      op: 'neigh-add' as const,
      device: 'back',
      address: `10.0.2.${n}`,
      mac: serverMac(n),
    })),
  ]);
  expect(errors.filter((e) => e !== null)).toEqual([]);
  for (const [key, value] of [
    ['net.ipv4.ip_forward', '1'],
    ['net.ipv4.vs.conntrack', '1'],
    ['net.ipv4.vs.sloppy_tcp', '1'],
    ['net.ipv4.conf.back.arp_ignore', '1'],
    ['net.netfilter.nf_conntrack_acct', '1'],
    ['net.netfilter.nf_conntrack_timestamp', '1'],
    ['net.netfilter.nf_conntrack_udp_timeout', '77'],
    ['net.netfilter.nf_conntrack_expect_max', '9'],
    ['net.netfilter.nf_log.2', 'NONE'],
    ['nf_conntrack_ftp.loose', 'Y'],
    // Each bounds the other: the lower one must come first.
    ['net.ipv4.ipfrag_low_thresh', '1000'],
    ['net.ipv4.ipfrag_high_thresh', '2000'],
  ] as const) {
    expect(engine.setSysctl(key, value), key).toBeNull();
  }
  expect(engine.executeIpvs(SERVICES.map(parseCommand)).filter((e) => e !== null)).toEqual([]);
  expect(
    engine.executeIpvs([
      { op: 'set-timeouts', tcp: 1000, tcpFin: 0, udp: 200 },
      {
        op: 'add-local-address',
        service: { kind: 'address', protocol: 'tcp', address: '10.0.1.102', port: 80 },
        local: { address: '10.0.2.1', ports: { from: 20000, to: 20009 } },
      },
    ]),
  ).toEqual([null, null]);
  for (const [table, line] of RULES) {
    const [, chain, ...words] = line.match(/"[^"]*"|\S+/g)!.map((word) => word.replaceAll('"', ''));
    const outcome = engine.filter.change({ table, commands: [{ op: 'append', chain: chain!, rule: { words } }] });
    expect(outcome, line).toBeNull();
  }
  const own = [
    { op: 'new-chain', chain: 'own' },
    { op: 'append', chain: 'own', rule: { words: ['-s', '10.0.1.9/32', '-j', 'RETURN'] } },
    { op: 'append', chain: 'INPUT', rule: { words: ['-j', 'own'] } },
    { op: 'policy', chain: 'OUTPUT', policy: 'ACCEPT', counters: { packets: 7, bytes: 700 } },
  ] as const;
  expect(engine.filter.change({ table: 'filter', commands: own })).toBeNull();
  lives.keeper.settingsChanged();
  lives.keeper.rulesChanged();
  settle();
});

/** Time for what is not written at once: the longer, the slower this machine is. */
function settle(): void {
  do {
    clock.advance(seconds(2));
    breathe();
  } while (lives.keeper.isBehind);
}

function breathe(): string[] {
  lives.engine.wake();
  lives.engine.breathe();
  lives.keeper.advance();
  return [...lives.devices.values()].flatMap((device) =>
    device.takeSent().flatMap(({ bytes }) => {
      expect(verifyFrame(bytes)).toEqual([]);
      // A new life tells its neighbours which addresses are its.
      const isArp = bytes[12] === 8 && bytes[13] === 6;
      return isArp ? [] : [`${device.name}: ${show(bytes)}`];
    }),
  );
}

/** `10.0.1.2:40000 > 10.0.2.11:8080 seq 1 "text"`; another protocol by its number. */
function show(bytes: Uint8Array): string {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const l4 = 14 + ipv4.headerLength(view, 14);
  const proto = ipv4.proto(view, 14);
  const [from, to] = [formatIp4(ipv4.src(view, 14)), formatIp4(ipv4.dst(view, 14))];
  if (proto !== 6) return `${from}:${view.getUint16(l4)} > ${to}:${view.getUint16(l4 + 2)} proto ${proto}`;
  const text = String.fromCharCode(...bytes.slice(l4 + tcp.headerLength(view, l4)));
  const said = text === '' ? '' : ` ${JSON.stringify(text)}`;
  return `${from}:${view.getUint16(l4)} > ${to}:${view.getUint16(l4 + 2)} seq ${tcp.seq(view, l4)}${said}`;
}

function fromClient(build: (f: FrameBuilder) => FrameBuilder, dst: string, src = '10.0.1.2'): string[] {
  lives.devices.get('front')!.inject(build(frame().eth(MAC.front, MAC.client).ipv4(src, dst)).build());
  return breathe();
}

function fromServer(n: number, build: (f: FrameBuilder) => FrameBuilder, dst = '10.0.1.2'): string[] {
  const f = frame().eth(MAC.back, serverMac(n)).ipv4(`10.0.2.${n}`, dst);
  lives.devices.get('back')!.inject(build(f).build());
  return breathe();
}

const segment =
  (srcPort: number, dstPort: number, flags: string, seq: number, ack: number, text = '') =>
  (f: FrameBuilder) =>
    f.tcp({ srcPort, dstPort, flags, seq, ack }).payload(text);

/** Connections of every kind, in the middle of what they do. */
function talk(): void {
  for (let port = 40000; port < 40008; port++) {
    fromClient(segment(port, 80, 'S', 0, 0), '10.0.1.100');
    for (const n of [11, 12]) fromServer(n, segment(n === 11 ? 8080 : 80, port, 'S.', 100, 1));
    fromClient(segment(port, 80, '.', 1, 101), '10.0.1.100');
  }
  for (const src of ['10.0.1.2', '10.0.1.3', '10.0.7.2']) {
    fromClient((f) => f.udp({ srcPort: 5000, dstPort: 53 }).payload('?'), '10.0.1.100', src);
  }
  fromClient(segment(41000, 8080, 'S', 0, 0), '10.0.1.102');
  fromClient(segment(41001, 80, 'S', 0, 0), '10.0.1.101');
  fromClient(segment(41002, 80, 'S', 0, 0), '10.0.1.101');
  for (let port = 41003; port < 41006; port++) fromClient(segment(port, 80, 'S', 0, 0), '10.0.1.102');
  const call = 'OPTIONS sip:a SIP/2.0\r\nCall-ID: one@two\r\n\r\n';
  fromClient((f) => f.udp({ srcPort: 5060, dstPort: 5060 }).payload(call), '10.0.1.101');
  fromClient((f) => f.udp({ srcPort: 4001, dstPort: 4000 }).payload('x'), '10.0.2.11');
  // FTP by a rule: an answer has grown, and a data connection is expected.
  fromClient(segment(42000, 21, 'S', 0, 0), '10.0.1.100');
  fromServer(14, segment(21, 42000, 'S.', 500, 1));
  fromClient(segment(42000, 21, '.', 1, 501), '10.0.1.100');
  fromServer(14, segment(21, 42000, 'P.', 501, 1, '220 hello\r\n'));
  fromClient(segment(42000, 21, 'P.', 1, 512, 'PASV\r\n'), '10.0.1.100');
  fromServer(14, segment(21, 42000, 'P.', 512, 7, '227 (10,0,2,14,195,80)\r\n'));
  settle();
}

/** All that a listing can tell. Rows have no order. */
function known(): Record<string, unknown> {
  const { engine } = lives;
  const sorted = (rows: readonly unknown[]) => rows.map((row) => JSON.stringify(row)).sort();
  const all = { cursor: 0, limit: 1000, filter: {} };
  return {
    services: engine.director.listServices(0, 100).rows,
    connections: sorted(engine.director.listConnections(0, 1000).rows),
    entries: sorted(engine.tracking.list({ ...all, table: 'conntrack', zero: false }).rows),
    expectations: engine.tracking.listExpectations({ cursor: 0, limit: 100 }).rows,
    rules: engine.filter.knownTables.map((name) => engine.filter.list(name)),
    addresses: engine.ip.listAddresses(),
    routes: sorted(engine.ip.listRoutes()),
    links: engine.ip.listLinks().map(({ stats: _, ...row }) => row),
    neighbours: sorted(engine.ip.listNeighbours()),
    sysctls: engine.listSysctls(),
    info: engine.director.info(),
    total: engine.director.totals(),
  };
}

describe.each(['ends', 'killed'] as const)('the life before %s', (how) => {
  it('everything is there again', () => {
    talk();
    // Counters of rules are written now and then.
    if (how === 'killed') lives.keeper.rulesChanged();
    settle();
    const before = known();
    expect((before.connections as unknown[]).length).toBeGreaterThan(20);
    expect((before.entries as unknown[]).length).toBeGreaterThan(15);
    expect(before.expectations).toHaveLength(1);
    expect((before.entries as string[]).filter((row) => row.includes('"labels":"0000001'))).toHaveLength(1);
    const report = lives.restart(how);
    expect(report).toMatchObject({ adopted: true, services: 6, dropped: 0 });
    expect(known()).toEqual(before);
    const { conntrack, translation } = lives.engine;
    expect([conntrack.keepsLabels, conntrack.sysctls.hasLogger]).toEqual([true, false]);
    expect([translation.helpers.ftp.isLoose, translation.expectations.max]).toEqual([true, 9]);
  });

  it('what rules translated goes on without them', () => {
    talk();
    const { filter } = lives.engine;
    expect(filter.change({ table: 'nat', commands: [{ op: 'flush' }] })).toBeNull();
    lives.keeper.rulesChanged();
    settle();
    const answer = () => fromServer(11, (f) => f.udp({ srcPort: 4000, dstPort: 4001 }).payload('y'), '10.0.2.1');
    expect(answer()).toEqual(['front: 10.0.2.11:4000 > 10.0.1.2:4001 proto 17']);
    lives.restart(how);
    expect(answer()).toEqual(['front: 10.0.2.11:4000 > 10.0.1.2:4001 proto 17']);
  });

  it.each(['here', 'still coming'])('connections go on where they were, rows are %s', (when) => {
    talk();
    const before = known();
    const told = lives.engine.director.listConnections(0, 100).rows.map((row) => JSON.stringify(row));
    const isAt = (port: number, server: string) =>
      told.some((row) => row.includes(`"port":${port}`) && row.includes(server));
    const steps = lives.restartInSteps(how);
    if (when === 'here') finish(steps);
    for (let port = 40000; port < 40008; port++) {
      const server = isAt(port, '10.0.2.11') ? '10.0.2.11:8080' : '10.0.2.12:80';
      const sent = fromClient(segment(port, 80, 'P.', 1, 101, 'GET'), '10.0.1.100');
      expect(sent).toEqual([`back: 10.0.1.2:${port} > ${server} seq 1 "GET"`]);
    }
    // Of full NAT, the address and port that the servers know.
    const local = fromClient(segment(41003, 80, '.', 1, 1), '10.0.1.102');
    expect(local).toHaveLength(1);
    const port = Number(/10\.0\.2\.1:(200\d\d) > 10\.0\.2\.11:80/.exec(local[0]!)![1]);
    expect(fromServer(11, segment(80, port, 'S.', 9, 1), '10.0.2.1')).toEqual([
      'front: 10.0.1.102:80 > 10.0.1.2:41003 seq 9',
    ]);
    // The server's numbers are shifted by what the helper has added to its answer.
    expect(fromServer(14, segment(21, 42000, 'P.', 536, 7, '200 ok\r\n'))).toEqual([
      'front: 10.0.1.100:21 > 10.0.1.2:42000 seq 537 "200 ok\\r\\n"',
    ]);
    expect(fromClient(segment(42001, 50000, 'S', 0, 0), '10.0.1.100')).toEqual([
      'back: 10.0.1.2:42001 > 10.0.2.14:50000 seq 0',
    ]);
    // Masqueraded, and its port is nobody else's.
    expect(fromServer(11, (f) => f.udp({ srcPort: 4000, dstPort: 4001 }).payload('y'), '10.0.2.1')).toEqual([
      'front: 10.0.2.11:4000 > 10.0.1.2:4001 proto 17',
    ]);
    if (when === 'here') return;
    const report = finish(steps);
    expect(report).toMatchObject({ dropped: 0, connections: (before.connections as unknown[]).length });
    expect(report.entries).toBe((before.entries as unknown[]).length);
    expect(lives.engine.flows.source).toBeNull();
  });

  it('what is still coming has its ports, and sources that others follow', () => {
    talk();
    const ask = (server: number, src: string) => {
      const ports = { srcPort: 4001, dstPort: 4000 };
      const [sent] = fromClient((f) => f.udp(ports).payload('x'), `10.0.2.${server}`, src);
      return new RegExp(`^back: 10.0.2.1:(\\d+) > 10.0.2.${server}:4000 `).exec(sent!)![1];
    };
    const other = ask(11, '10.0.1.3');
    expect(other).not.toBe('4001');
    settle();
    const steps = lives.restartInSteps(how);
    const third = ask(11, '10.0.1.4');
    expect([third === other, third]).toEqual([false, expect.not.stringMatching('^4001$')]);
    expect([ask(12, '10.0.1.3'), ask(11, '10.0.1.3'), ask(11, '10.0.1.2')]).toEqual([other, other, '4001']);
    expect(finish(steps)).toMatchObject({ dropped: 0 });
  });

  it('and end when their time is over', () => {
    talk();
    lives.restart(how);
    for (let i = 0; i < 60; i++) {
      clock.advance(seconds(15_000));
      breathe();
    }
    const { director, conntrack, translation, flows } = lives.engine;
    expect([director.conns.count, conntrack.entries.count, translation.expectations.count, flows.size]).toEqual([
      0, 0, 0, 0,
    ]);
    for (let d = 0; d < director.dests.highWater; d++) expect(director.dests.references(d)).toBe(0);
  });
});

it.each([
  ['as many as there are rows', undefined, 400],
  ['what it was told', '150', 150],
])('a next life with more rows takes %s for entries at most', (_, told, most) => {
  const key = 'net.netfilter.nf_conntrack_max';
  if (told !== undefined) lives.engine.setSysctl(key, told);
  options.maxConnections = 400;
  lives.restart('ends');
  expect(lives.engine.getSysctl(key)).toBe(String(most));
});

it('a server that was removed keeps its connections in the next life, and comes back with them', () => {
  talk();
  const { engine } = lives;
  const remove = parseCommand('-d -t 10.0.1.100:80 -r 10.0.2.12');
  expect(engine.executeIpvs([remove])).toEqual([null]);
  const connections = engine.director.conns.count;
  lives.restart('killed');
  expect(lives.engine.director.conns.count).toBe(connections);
  expect(lives.engine.executeIpvs([parseCommand('-a -t 10.0.1.100:80 -r 10.0.2.12 -m')])).toEqual([null]);
  const [row] = lives.engine.director.listServices(0, 1).rows;
  expect(row!.servers[0]).toMatchObject({ key: { address: '10.0.2.12' } });
  expect(row!.servers[0]!.activeConns + row!.servers[0]!.inactiveConns).toBeGreaterThan(0);
});

it('a row that was being written is left out, alone', () => {
  talk();
  const rows = lives.engine.director.conns.rows;
  // Its server is none.
  rows[9] = 7777;
  const { count } = lives.engine.director.conns;
  expect(lives.restart('killed').dropped).toBe(1);
  expect(lives.engine.director.conns.count).toBe(count - 1);
});

const HEADER_SIZE = 65536;

function headOf(memory: MemoryFile): Int32Array {
  return new Int32Array(memory.map(0, HEADER_SIZE).buffer, 0, 16);
}

/** The columns that a life has left, as ints. */
function columnsOf(memory: MemoryFile): Int32Array[] {
  const directory = Buffer.from(memory.map(0, HEADER_SIZE).buffer, 64, headOf(memory)[6]!).toString();
  const { columns } = JSON.parse(directory) as { columns: Record<string, readonly [offset: number, bytes: number]> };
  return Object.values(columns).map(([offset, bytes]) => {
    const { buffer, at } = memory.map(offset, bytes);
    return new Int32Array(buffer, at, bytes >> 2);
  });
}

describe('memory that cannot be used says why', () => {
  it.each([
    ['it is no memory of tapvs', 0, 1],
    ['its format is 9, and this version reads 2', 1, 9],
    ['its tables have another layout: another version wrote them', 2, 1],
    ['its daemon ended before it was ready', 3, 0],
    ['its directory is damaged', 7, 1],
  ])('%s', (why, word, value) => {
    headOf(lives.memory)[word] = value;
    expect(Kept.open(lives.memory.map, LAYOUT, TEXTS)).toBe(why);
  });
});

it('whatever columns hold, nothing throws, and all ends', () => {
  talk();
  lives.keeper.finish();
  const rng = new SeededRng(5);
  const pick = (n: number) => (rng.next() >>> 4) % n;
  for (let round = 0; round < 20; round++) {
    // Slots have sums of their own; columns have not.
    const columns = columnsOf(lives.memory).filter(({ length }) => length < 2 ** 18);
    for (let i = 0; i < 1 + pick(30); i++) {
      const ints = columns[pick(columns.length)]!;
      if (ints.length > 0) ints[pick(Math.min(ints.length, 1200))] = pick(3) === 0 ? pick(300) : rng.next();
    }
    lives.restart('killed');
    talk();
    lives.keeper.finish();
  }
  for (let i = 0; i < 60; i++) {
    clock.advance(seconds(400_000));
    breathe();
  }
  const { director, conntrack, flows, pool } = lives.engine;
  expect([director.conns.count, conntrack.entries.count, flows.size]).toEqual([0, 0, 0]);
  expect(pool.available).toBe(pool.packets.length);
});

describe('a long table of rules', () => {
  const long = (count: number) => {
    const words = (i: number) => ['-s', `10.9.${i >> 8}.${i & 255}/32`, '-j', 'RETURN'];
    const commands = Array.from({ length: count }, (_, i) => ({
      op: 'append' as const,
      chain: i % 2 === 0 ? 'own' : 'INPUT',
      rule: { words: words(i) },
    }));
    const { filter } = lives.engine;
    expect(filter.change({ table: 'security', commands: [{ op: 'new-chain', chain: 'own' }, ...commands] })).toBeNull();
  };

  it('is whole again in the next life, chains in their order', () => {
    long(3000);
    const before = lives.engine.filter.list('security');
    lives.restart('ends');
    expect(lives.engine.filter.list('security')).toEqual(before);
  });

  it('is written a little at a time: who is killed meanwhile has the one before', () => {
    const empty = lives.engine.filter.knownTables.map((name) => lives.engine.filter.list(name));
    lives.keeper.finish();
    long(5000);
    lives.keeper.rulesChanged();
    lives.restart('killed');
    expect(lives.engine.filter.knownTables.map((name) => lives.engine.filter.list(name))).toEqual(empty);
    long(5000);
    const whole = lives.engine.filter.list('security');
    lives.keeper.rulesChanged();
    // Not in one go, whatever the first one took.
    for (let breath = 0; breath < 2000; breath++) {
      clock.advance(25);
      lives.engine.breathe();
      lives.keeper.advance();
    }
    lives.restart('killed');
    expect(lives.engine.filter.list('security')).toEqual(whole);
  });
});
