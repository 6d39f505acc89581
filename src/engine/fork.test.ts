/**
 * Explain keeps two promises, and both are held to here without a list of fields: it changes nothing (all that the engine remembers is the same afterwards, down to
 * private fields and variables of closures), and it says what the next packet gets (the next packet is sent, and what left is compared byte for byte).
 */
import { describe, expect, it } from 'vitest';
import { SeededRng } from '../base/rng.ts';
import { CtInfo } from '../conntrack/entry.ts';
import { SCHEDULERS } from '../director/sched/index.ts';
import { Hook, Priority, Verdict } from '../hooks/hooks.ts';
import type { ExplainSpec, Explanation, Way } from '../model/way.ts';
import { Drop } from '../packet/drop.ts';
import type { Packet } from '../packet/packet.ts';
import { frame } from '../wire/build.ts';
import { headerChanges, packetLine } from '../wire/header-fields.ts';
import { CopyMemory } from './copy-memory.ts';
import type { Engine } from './engine.ts';
import { explain } from './explain.ts';
import { ExplainRig, explainSpec, RIG_MAC } from './explain-rig.ts';
import { forkEngine } from './fork.ts';
import { differences, inspectState } from './inspect-state.ts';

/** Memory of what was asked before, which answers the same when it is asked anew. */
const CACHES = /routes\.#cache|neighbours\.#cache|pool\.packets/;

const copies = new CopyMemory();

/** As the daemon asks: copies have the same memory, one after the other. */
function ask(engine: Engine, spec: ExplainSpec): Explanation | string {
  const answer = explain(engine, spec, copies.allocate);
  copies.clear();
  return answer;
}

function random(seed: number): (n: number) => number {
  const rng = new SeededRng(seed);
  return (n) => (rng.next() >>> 4) % n;
}

/** A rig in the middle of its life: services of all kinds, servers that come and go, connections, neighbours that are not known. */
class Life {
  readonly rig: ExplainRig;
  readonly pick: (n: number) => number;
  readonly #service: string;
  readonly #isMarked: boolean;
  readonly mark: number;
  /** Full NAT is never tracked. */
  readonly #methods: readonly string[];

  constructor(scheduler: string, seed: number, isRoomy = false) {
    this.pick = random(seed);
    this.#methods = ['-g', '-m', isRoomy ? '-m' : '-b'];
    this.rig = new ExplainRig({
      hostPort: this.pick(2) === 0,
      maxConnections: this.pick(3) === 0 && !isRoomy ? 12 : 500,
    });
    this.#isMarked = this.pick(4) === 0;
    this.mark = this.#isMarked ? 5 : 0;
    const isUdp = this.pick(4) === 0;
    this.#service = this.#isMarked ? '-f 5' : `${isUdp ? '-u' : '-t'} 10.0.1.100:80`;
    const persistence = this.pick(3) === 0 ? ` -p ${1 + this.pick(400)} -M 255.255.255.${this.pick(2) * 255}` : '';
    const ops = isUdp && this.pick(2) === 0 ? ' -o' : '';
    expect(this.rig.run(`-A ${this.#service} -s ${scheduler}${persistence}${ops}`)).toEqual([null]);
    this.rig.run(
      '-A -t 10.0.1.101:0 -s rr -p 60',
      '-a -t 10.0.1.101:0 -r 10.0.2.12:0 -m',
      '-A -t 10.0.1.102:21 -s wlc -p 60',
    );
    // As few ports as make them scarce.
    this.rig.run(`-P ${this.#service} -z 10.0.2.1:1025-${1025 + this.pick(4)}`);
    for (let i = 0; i < 3; i++) this.command();
  }

  command(): void {
    const { pick } = this;
    const server = `-r 10.0.2.${11 + pick(7)}${this.#isMarked ? '' : ':80'} ${this.#methods[pick(3)]} -w ${pick(4)} -x ${pick(3) * 2}`;
    const sysctls = [
      'expire_nodest_conn',
      'sloppy_tcp',
      'conn_reuse_mode',
      'expire_quiescent_template',
      'lblcr_expiration',
    ];
    const choice = pick(10);
    if (choice < 4) this.rig.run(`-a ${this.#service} ${server}`);
    else if (choice < 7) this.rig.run(`-e ${this.#service} ${server}`);
    else if (choice < 8) this.rig.run(`-d ${this.#service} ${server}`);
    else if (choice < 9) this.rig.engine.setSysctl(`net.ipv4.vs.${sysctls[pick(sysctls.length)]}`, String(pick(2)));
    else this.rig.engine.executeIp([{ op: 'link-set', device: 'back', mtu: [1500, 1400, 576][pick(3)]! }]);
  }

  wait(): void {
    for (let i = this.pick(40); i > 0; i--) {
      this.rig.clock.advance(this.pick(2) === 0 ? 1 : 250);
      this.rig.engine.breathe();
    }
    this.rig.takeSent();
  }

  /** A packet as explain is asked for it, from either side. */
  packet() {
    const { pick } = this;
    const isReply = pick(4) === 0;
    const flags = ['S', 'S', 'S', '.', 'F.', 'R', 'S.'][pick(7)]!;
    const more = {
      flags,
      mark: this.mark,
      ttl: pick(8) === 0 ? 1 : 64,
      df: pick(2) === 0,
      length: pick(5) === 0 ? 1450 : 0,
      device: isReply ? 'back' : 'front',
    };
    const client = `10.0.1.${2 + pick(3)}:${1024 + pick(6)}`;
    const protocol = pick(9) === 0 ? 'icmp' : this.#service.startsWith('-u') ? 'udp' : pick(8) === 0 ? 'udp' : 'tcp';
    const vip = pick(6) === 0 ? `10.0.1.10${pick(3)}:${[80, 21, 5000][pick(3)]}` : '10.0.1.100:80';
    const server = `10.0.2.${11 + pick(7)}:80`;
    const back = pick(2) === 0 ? client : `10.0.2.1:${1025 + pick(3)}`;
    const [from, to] = isReply ? [server, protocol === 'icmp' ? client : back] : [client, vip];
    if (protocol === 'icmp') return explainSpec(`icmp ${from.split(':')[0]} ${to.split(':')[0]}`, more);
    return explainSpec(`${protocol} ${from} ${to}`, more);
  }

  /** The same packet for real: what left, and the counters that moved. */
  send(spec: ReturnType<Life['packet']>) {
    const { rig } = this;
    const isFront = spec.device === 'front';
    const neighbours = rig.engine.ip.listNeighbours();
    const known = neighbours.find((n) => n.device === spec.device && n.address === spec.source)?.mac;
    const builder = frame()
      .eth(isFront ? RIG_MAC.front : RIG_MAC.back, known ?? '00:00:00:00:00:00')
      .ipv4(spec.source, spec.destination, { ttl: spec.ttl, df: spec.df });
    const ports = { srcPort: spec.sourcePort, dstPort: spec.destinationPort };
    if (spec.protocol === 'tcp') builder.tcp({ ...ports, flags: spec.flags, seq: 1 });
    else if (spec.protocol === 'udp') builder.udp(ports);
    else builder.icmp({ type: 8, id: 1, seq: 1 });
    const shortest = spec.protocol === 'tcp' ? 40 : 28;
    const bytes = builder.payload(spec.length === 0 ? 0 : spec.length - shortest).build();
    const before = rig.engine.drops.slice();
    const sent = rig.send(isFront ? rig.front : rig.back, bytes);
    const drops = Object.entries(Drop)
      .filter(([, reason]) => rig.engine.drops[reason] !== before[reason])
      .map(([name]) => name);
    return { bytes, sent, drops };
  }
}

/** What an explanation says of what leaves and what ends. */
function told({ ways }: Explanation) {
  const sent = ways.flatMap((way) =>
    way.end.kind === 'sent' || way.end.kind === 'host' ? [`${way.end.device} ${way.sent}`] : [],
  );
  const drops = ways.flatMap((way) =>
    way.end.kind === 'dropped' || way.end.kind === 'answered' ? [way.end.reason] : [],
  );
  return { sent: sent.sort(), drops: drops.sort() };
}

const CASES = [
  ...SCHEDULERS.map((s) => s.name),
  'sh -b sh-port',
  'sh -b sh-fallback',
  'mh -b mh-port',
  'mh -b mh-fallback',
];

/** Forty packets, each explained before it is sent. */
function expectForesight(life: Life): void {
  for (let step = 0; step < 40; step++) {
    if (life.pick(3) === 0) life.command();
    if (life.pick(6) === 0) life.wait();
    const spec = life.packet();
    const answer = ask(life.rig.engine, spec);
    if (typeof answer === 'string') throw new Error(answer);
    const { bytes, sent, drops } = life.send(spec);
    const first: Way = answer.ways[0]!;
    const isIp = (device: string) => device === 'host';
    const lines = sent.map(({ device, frame: f }) => `${device} ${packetLine(f.bytes, isIp(device), f.bytes.length)}`);
    const cut = first.end.kind === 'sent' ? first.end.pieces : 1;
    const expected = told(answer);
    expect(cut > 1 ? lines.slice(0, 1) : lines.sort(), `step ${step}: ${first.packet}`).toEqual(expected.sent);
    expect(lines.length).toBe(expected.sent.length + cut - 1);
    expect(drops.sort(), `step ${step}: ${first.packet}`).toEqual([...new Set(expected.drops)]);
    if (first.end.kind === 'sent' && cut === 1) {
      const left = sent.find(
        (s) =>
          s.device === (first.end as { device: string }).device &&
          first.sent === packetLine(s.frame.bytes, false, s.frame.bytes.length),
      )!;
      expect(headerChanges(bytes, left.frame.bytes, { before: false, after: false })).toEqual(first.changes);
    }
  }
}

/** Marks are set by a hook function, as a filter would. */
function setMarks(life: Life): void {
  const run = (p: Packet) => {
    p.mark = life.mark;
    return Verdict.Accept;
  };
  const op = { priority: Priority.Mangle, name: 'test/mark', why: 'sets the mark of the service', run };
  life.rig.engine.hooks.register([{ hook: Hook.PreRouting, ...op }]);
}

/** As a rule of a firewall: what belongs to no connection, and what servers begin, is dropped. Answers how many packets had an entry. */
function guard(life: Life): () => number {
  let tracked = 0;
  const { engine } = life.rig;
  engine.conntrack.acquire();
  const isWanted = (p: Packet) =>
    p.entry !== 0 && (p.ctInfo !== CtInfo.New || engine.stack.link.interfaces[p.inDevice]?.name !== 'back');
  const run = (p: Packet) => {
    if (p.entry !== 0) tracked++;
    return isWanted(p) ? Verdict.Accept : Verdict.Drop;
  };
  const op = { priority: Priority.Mangle, name: 'test/guard', why: 'drops what no connection is', run };
  engine.hooks.register([{ hook: Hook.PreRouting, ...op }]);
  return () => tracked;
}

describe.each(CASES)('explain, %s', (scheduler) => {
  it.each([1, 2])('says what the next packet gets (life %i)', (seed) => {
    const life = new Life(scheduler, seed * 7919 + CASES.indexOf(scheduler));
    setMarks(life);
    expectForesight(life);
  });

  it('says so with connection tracking', () => {
    const life = new Life(scheduler, 3 * 7919 + CASES.indexOf(scheduler));
    setMarks(life);
    const tracked = guard(life);
    expectForesight(life);
    expect(tracked()).toBeGreaterThan(10);
  });
});

/** One service of each scheduler at a port of its own, and what has happened to them. */
function fullLife(isTracked = false): Life {
  const life = new Life('wlc', 104729, true);
  if (isTracked) life.rig.engine.conntrack.acquire();
  const pick = random(31);
  CASES.forEach((scheduler, i) => {
    const service = `-t 10.0.1.100:${8000 + i}`;
    life.rig.run(`-A ${service} -s ${scheduler}${i % 4 === 0 ? ' -p 300' : ''}`);
    for (let n = 11; n < 15; n++) life.rig.run(`-a ${service} -r 10.0.2.${n}:80 -m -w ${1 + pick(3)}`);
  });
  for (let step = 0; step < 400; step++) {
    if (pick(4) === 0) life.command();
    if (pick(30) === 0) life.wait();
    if (pick(40) === 0) life.rig.run(`-d -t 10.0.1.100:${8000 + pick(CASES.length)} -r 10.0.2.${11 + pick(4)}:80`);
    const spec = { ...life.packet(), mark: 0, protocol: 'tcp' as const, destinationPort: 8000 + pick(CASES.length) };
    life.send(pick(3) === 0 ? life.packet() : spec);
  }
  // Calls that a persistence engine follows.
  const sip = '-u 10.0.1.102:5060';
  expect(life.rig.run(`-A ${sip} -s rr -p 60 --pe sip`, `-a ${sip} -r 10.0.2.11:5060 -m`)).toEqual([null, null]);
  for (const [srcPort, call] of ['one', 'two'].entries()) {
    const message = `OPTIONS sip:a@b SIP/2.0\r\nCall-ID: ${call}\r\n\r\n`;
    const packet = frame().eth(RIG_MAC.front, RIG_MAC.client).ipv4('10.0.1.2', '10.0.1.102');
    life.rig.send(life.rig.front, packet.udp({ srcPort, dstPort: 5060 }).payload(message).build());
  }
  expect(life.rig.engine.director.engines.size).toBe(2);
  // A server that is drained, and whose deadline is over: its connections are being reset.
  const { dests, drains } = life.rig.engine.director;
  const busy = dests.active.findIndex((n, d) => n > 0 && dests.isAvailable(d));
  drains.begin(busy, { deadline: 0 });
  life.wait();
  life.rig.engine.keepTime();
  return life;
}

describe('explain', () => {
  it.each([false, true])('changes nothing (connections are tracked: %s)', (isTracked) => {
    const { rig, packet } = bound(fullLife(isTracked));
    const before = inspectState(rig.engine, CACHES);
    expect(before.size).toBeGreaterThan(500);
    for (let i = 0; i < 40; i++) ask(rig.engine, packet());
    expect(differences(before, inspectState(rig.engine, CACHES))).toEqual([]);
  });

  it('asks a copy that lacks nothing', () => {
    const { rig } = fullLife();
    expect(rig.engine.director.conns.count).toBeGreaterThan(20);
    expect(rig.engine.director.drains.count).toBe(1);
    expect(missing(rig)).toEqual([]);
    for (const live of rig.engine.director.services.schedulers) {
      if (live === null) continue;
      const all = inspectState(live, /#dests/);
      expect(differences(all, inspectState(live.fork(rig.engine.director), /#dests/))).toEqual([]);
    }
  });

  it('sees in a copy what is missing in it', () => {
    const rig = new ExplainRig();
    expect(missing(rig)).toEqual([]);
    const director = rig.engine.director as unknown as { novelty: { count: number } };
    director.novelty = { count: 7 };
    expect(missing(rig)).toEqual(['.director.novelty.count: 7 | undefined']);
  });
});

function bound(life: Life) {
  return { rig: life.rig, packet: () => life.packet() };
}

/** Not in a copy, and no packet's way depends on it: counters and rates, what is on the wire, memory of its own, timers (a copy lives for one packet), fragments that wait (it is asked about whole packets). */
const NOT_COPIED =
  /counters|total\.|#estimators|#wheel|#fire|#collectAt|collectors|\.notes|\.source\b|onFound|flows\.#buckets|schedulers|\.device\b|\.tx\b|\.stats\b|\.pool|\.rng$|routing|#taps|hooks|addresses$|#cache|\.capacity$|dests\.unbound|dests\.(flags|weight)$|flows\.#mask|neighbours\.(wait|totalWaiting)|\.drains|\.sync\b|datagrams|\.master$|resets\.(isDue|#left|#resets|#questions)|#director$|reassembly|fragments|tracking\.(onLook|sysctls\.#keys)/;

/** Where a copy that has taken over all connections differs from what it is a copy of. */
function missing(rig: ExplainRig): string[] {
  const { engine } = rig;
  const fork = forkEngine(engine);
  const { conns, flows } = fork.director;
  for (let conn = 0; conn < engine.director.conns.highWater; conn++) {
    const at = conn << 4;
    const { rows } = engine.director.conns;
    if (!engine.director.conns.isUsed(conn)) {
      conns.adopt(engine.director.conns, conn);
      continue;
    }
    const kind = ((rows[at + 4]! >> 8) & 0xff) | ((rows[at + 5]! & 0x40) !== 0 ? 0x100 : 0);
    flows.find(rows[at]!, rows[at + 1]!, rows[at + 3]!, kind);
  }
  const parts = (e: typeof engine) => ({ director: e.director, stack: e.stack });
  const skips = new RegExp(`${NOT_COPIED.source}|flows\\.#rows`);
  return differences(inspectState(parts(engine), skips), inspectState(parts(fork), skips));
}
