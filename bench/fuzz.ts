/** Over 400 lines: mutator, twin engines and the books that must agree are read together. */
/**
 * Mutated frames through the whole pipeline on memory devices.
 *
 *   node dist/bench/fuzz.js [--frames 10000000] [--seed 1] [--corpus ../shared/corpus] [--rules]
 *
 * Two engines get the same frames; before each frame the bytes around it in its slot are filled with 0x55 in one and 0xaa in the other. So besides "no exception"
 * and "every frame is accounted for" this shows that no byte from outside a frame ever decides or leaves: whatever one engine sends, the other must send too.
 * In the end everything times out, and all memory must have come back. With `--rules` fragments, tracking, NAT, helpers and rules are on (fuzz-rules.ts).
 */
import { parseArgs } from 'node:util';
import { ManualClock, seconds } from '../src/base/clock.ts';
import { SeededRng } from '../src/base/rng.ts';
import { corpusFrames } from '../src/device/corpus.ts';
import type { Device } from '../src/device/device.ts';
import { Medium } from '../src/device/device.ts';
import { MemoryDevice, type Offload } from '../src/device/memory.ts';
import { Engine } from '../src/engine/engine.ts';
import type { IpvsCommand } from '../src/model/ipvs.ts';
import type { Burst } from '../src/packet/burst.ts';
import { ip4, mac } from '../src/wire/addr.ts';
import { frame } from '../src/wire/build.ts';
import { sumBytes } from '../src/wire/checksum.ts';
import { answerTo, changeSettings, setUpRules, translatedFrames } from './fuzz-rules.ts';

const CLIENT_MAC = '02:00:00:00:01:02';
const FRONT_MAC = '02:00:00:00:01:01';
const BACK_MAC = '02:00:00:00:02:01';
const SERVER_MAC = '02:00:00:00:02:0b';
const VIP = '10.0.1.100';

/** Port of a service, and how its server is tunnelled. */
const TUNNELS = [
  [1001, 'ipip', 'none'],
  [1002, 'gue', 'none'],
  [1003, 'gue', 'csum'],
  [1004, 'gue', 'remcsum'],
  [1005, 'gre', 'none'],
  [1006, 'gre', 'csum'],
] as const;

/** Frames that are remembered to be answered. */
const ANSWERS = 256;
const DEVICES = ['front', 'back', 'host'] as const;

/** What a frame arrives as. */
interface Seed {
  readonly device: 'front' | 'back' | 'host';
  readonly bytes: Uint8Array;
}

/** What a frame left by. */
type Sent = Seed;

export interface FuzzResult {
  readonly frames: number;
  readonly sent: number;
  /** Drop reasons that were reached. */
  readonly reasons: number;
  /** What is not as it must be; empty when all is well. */
  readonly faults: readonly string[];
}

/** Good traffic of every kind that the pipeline knows: mutations of it reach deeper than noise. */
function* goodFrames(): Generator<Seed> {
  const front = (): ReturnType<typeof frame> => frame().eth(FRONT_MAC, CLIENT_MAC);
  const back = (): ReturnType<typeof frame> => frame().eth(BACK_MAC, SERVER_MAC);
  for (const flags of ['S', '.', 'P.', 'F.', 'R', 'S.', '']) {
    for (const port of [1024, 1025]) {
      const toVip = front().ipv4('10.0.1.2', VIP, { df: true }).tcp({ srcPort: port, dstPort: 80, flags, seq: 100 });
      yield { device: 'front', bytes: toVip.payload(flags.includes('P') ? 700 : 0).build() };
      for (const server of ['10.0.2.11', '10.0.2.12']) {
        yield {
          device: 'back',
          bytes: back().ipv4(server, '10.0.1.2').tcp({ srcPort: 80, dstPort: port, flags }).payload(32).build(),
        };
      }
    }
  }
  yield {
    device: 'front',
    bytes: front().ipv4('10.0.1.2', VIP).udp({ srcPort: 2000, dstPort: 53 }).payload('question').build(),
  };
  yield {
    device: 'back',
    bytes: back().ipv4('10.0.2.11', '10.0.1.2').udp({ srcPort: 53, dstPort: 2000 }).payload('answer').build(),
  };
  yield {
    device: 'front',
    bytes: front().ipv4('10.0.1.2', VIP).udp({ srcPort: 2000, dstPort: 999 }).payload('closed').build(),
  };
  const lines = ['PASV\r\n', 'EPSV\r\n', 'EPSV 1\r\n', 'PORT 10,0,1,2,24,1\r\n', 'EPRT |1|10.0.1.2|6145|\r\n'];
  for (const [flags, line] of [['S', ''], ['.', ''], ...lines.map((text) => ['P.', text] as const)] as const) {
    const toVip = front().ipv4('10.0.1.2', VIP, { df: true });
    yield { device: 'front', bytes: toVip.tcp({ srcPort: 6000, dstPort: 21, flags, seq: 100 }).payload(line).build() };
  }
  for (const server of ['10.0.2.11', '10.0.2.12']) {
    for (const line of [
      '',
      '227 ok (10,0,2,11,195,80).\r\n',
      '229 ok (|||50001|)\r\n',
      '229 ok (|1|10.0.2.11|50001|)\r\n',
    ]) {
      const answer = back().ipv4(server, '10.0.1.2', { df: true });
      const flags = line === '' ? 'S.' : 'P.';
      yield {
        device: 'back',
        bytes: answer.tcp({ srcPort: 21, dstPort: 6000, flags, seq: 100 }).payload(line).build(),
      };
    }
  }
  for (const header of ['Call-ID: a@h', 'i:a', 'Call-ID:\r\n a@h', 'Call-ID: #\r\nCall-ID: b@h']) {
    const text = `INVITE sip:x SIP/2.0\r\n${header}\r\nCSeq: 1\r\n`;
    const toVip = front().ipv4('10.0.1.2', VIP).udp({ srcPort: 7000, dstPort: 5060 });
    yield { device: 'front', bytes: toVip.payload(text).build() };
    const fromServer = back().ipv4('10.0.2.11', '10.0.1.2').udp({ srcPort: 5060, dstPort: 7001 });
    yield { device: 'back', bytes: fromServer.payload(text).build() };
  }
  for (const chunks of [[1], [10, 0], [10, 6], [0], [3], [7], [14], [6], [255], []]) {
    const list = chunks.map((type) => ({ type, value: 9 }));
    const toVip = front().ipv4('10.0.1.2', VIP).sctp({ srcPort: 5000, dstPort: 9899, chunks: list });
    yield { device: 'front', bytes: toVip.build() };
    const answer = back().ipv4('10.0.2.11', '10.0.1.2').sctp({ srcPort: 9900, dstPort: 5000, chunks: list });
    yield { device: 'back', bytes: answer.build() };
  }
  yield { device: 'front', bytes: front().ipv4('10.0.1.2', VIP).icmp({ type: 8, id: 1, seq: 1 }).payload(56).build() };
  yield {
    device: 'front',
    bytes: front().ipv4('10.0.1.2', '10.0.2.11', { ttl: 1 }).icmp({ type: 8 }).payload(56).build(),
  };
  yield { device: 'front', bytes: front().ipv4('10.0.1.2', '10.0.2.11').icmp({ type: 8 }).payload(2900).build() };
  yield {
    device: 'front',
    bytes: front().ipv4('10.0.1.2', '10.0.2.11', { mf: true }).udp({ srcPort: 9, dstPort: 9 }).payload(64).build(),
  };
  yield {
    device: 'front',
    bytes: front().ipv4('10.0.1.2', '10.0.2.11', { offset: 64, proto: 17 }).payload(64).build(),
  };
  yield {
    device: 'front',
    bytes: front()
      .ipv4('10.0.1.2', '10.0.2.11', { options: [7, 7, 4, 0, 0, 0, 0] })
      .udp({ srcPort: 9, dstPort: 9 })
      .payload(64)
      .build(),
  };
  for (const [type, code] of [
    [3, 3],
    [3, 4],
    [11, 0],
    [5, 1],
    [12, 0],
  ] as const) {
    const quoteBack = back().ipv4('10.0.2.11', '10.0.1.2').icmp({ type, code, mtu: 1400 });
    yield {
      device: 'back',
      bytes: quoteBack.ipv4('10.0.1.2', '10.0.2.11').tcp({ srcPort: 1024, dstPort: 80 }).build(),
    };
    const quoteFront = front().ipv4('10.0.1.2', VIP).icmp({ type, code, mtu: 1400 });
    yield { device: 'front', bytes: quoteFront.ipv4(VIP, '10.0.1.2').tcp({ srcPort: 80, dstPort: 1024 }).build() };
  }
  yield* tunnelFrames();
  const arp = { senderMac: CLIENT_MAC, sender: '10.0.1.2', target: '10.0.1.1' };
  yield {
    device: 'front',
    bytes: frame()
      .eth('ff:ff:ff:ff:ff:ff', CLIENT_MAC)
      .arp({ op: 'request', ...arp })
      .pad(60)
      .build(),
  };
  yield {
    device: 'front',
    bytes: front()
      .arp({ op: 'reply', targetMac: FRONT_MAC, ...arp })
      .pad(60)
      .build(),
  };
  yield {
    device: 'host',
    bytes: frame().ipv4('10.0.3.2', VIP).tcp({ srcPort: 3000, dstPort: 80, flags: 'S' }).build(),
  };
  yield { device: 'host', bytes: frame().ipv4('10.0.3.2', '10.0.1.2').icmp({ type: 8 }).payload(56).build() };
  yield {
    device: 'host',
    bytes: frame().ipv4('10.0.3.2', '10.0.2.11').udp({ srcPort: 5, dstPort: 6 }).payload(3000).build(),
  };
}

/** To servers behind tunnels, and errors about the outer packets; datagrams in pieces. */
function* tunnelFrames(): Generator<Seed> {
  const front = (): ReturnType<typeof frame> => frame().eth(FRONT_MAC, CLIENT_MAC);
  for (const [port, type, checksum] of TUNNELS) {
    const ports = { srcPort: 4000, dstPort: port };
    const inner = () => frame().ipv4('10.0.1.2', VIP, { df: true, ttl: 63 }).udp(ports).payload(32).build();
    yield { device: 'front', bytes: front().ipv4('10.0.1.2', VIP, { df: true }).udp(ports).payload(32).build() };
    yield {
      device: 'front',
      bytes: front()
        .ipv4('10.0.1.2', VIP)
        .tcp({ ...ports, flags: 'S' })
        .payload(1440)
        .build(),
    };
    const error = frame().eth(BACK_MAC, SERVER_MAC).ipv4('10.0.2.11', '10.0.2.1');
    const [kind, code, mtu] = port % 2 === 0 ? [3, 4, 1000 + port] : [3, 1, 0];
    const quote = error.icmp({ type: kind, code, mtu }).ipv4('10.0.2.1', '10.0.2.11', { proto: OUTER_PROTOCOL[type] });
    if (type === 'gue') quote.udp({ srcPort: 40000, dstPort: 6080, checksum: 0 }).payload(new Uint8Array([0, 4, 0, 0]));
    if (type === 'gre') quote.payload(new Uint8Array(checksum === 'csum' ? [128, 0, 8, 0, 0, 0, 0, 0] : [0, 0, 8, 0]));
    yield { device: 'back', bytes: quote.payload(inner()).build() };
    for (const offset of [0, 704]) {
      const piece = { id: port, offset, mf: offset === 0, proto: 17 };
      const datagram = frame().ipv4('10.0.1.2', VIP).udp(ports).payload(1000).build().slice(20);
      const bytes = datagram.slice(offset, offset === 0 ? 704 : undefined);
      yield { device: 'front', bytes: front().ipv4('10.0.1.2', VIP, piece).payload(bytes).build() };
    }
  }
}

const OUTER_PROTOCOL = { ipip: 4, gue: 17, gre: 47 } as const;

/** Fills what lies around each received frame with one byte. */
class Surrounded implements Device {
  readonly inner: MemoryDevice;
  readonly #filler: number;
  constructor(inner: MemoryDevice, filler: number) {
    this.inner = inner;
    this.#filler = filler;
  }
  get name(): string {
    return this.inner.name;
  }
  get kind(): 'memory' {
    return 'memory';
  }
  get medium(): Medium {
    return this.inner.medium;
  }
  get mtu(): number {
    return this.inner.mtu;
  }
  get macHi(): number {
    return this.inner.macHi;
  }
  get macLo(): number {
    return this.inner.macLo;
  }
  get canOffload(): boolean {
    return this.inner.canOffload;
  }
  get stats(): Device['stats'] {
    return this.inner.stats;
  }
  get fd(): number {
    return -1;
  }
  receive(burst: Burst): number {
    const before = burst.count;
    this.inner.receive(burst);
    for (let i = before; i < burst.count; i++) {
      const p = burst.packets[i]!;
      const start = this.medium === Medium.Ethernet ? p.l2 : p.l3;
      p.bytes.fill(this.#filler, p.slotStart, start);
      p.bytes.fill(this.#filler, p.end, p.end + 2048);
    }
    return burst.count;
  }
  transmit(burst: Burst): void {
    this.inner.transmit(burst);
  }
  close(): void {
    this.inner.close();
  }
}

/** One director with three memory devices. */
class Subject {
  readonly clock = new ManualClock(1000);
  readonly engine: Engine;
  readonly devices: Readonly<Record<Seed['device'], MemoryDevice>>;

  constructor(filler: number, hasRules: boolean) {
    this.engine = new Engine({ clock: this.clock, rng: new SeededRng(77), maxConnections: 4096, maxPackets: 1024 });
    const { pool } = this.engine;
    const device = (name: Seed['device'], address: string, medium: Medium, canOffload: boolean): MemoryDevice => {
      const { hi, lo } = address === '' ? { hi: 0, lo: 0 } : mac(address);
      const inner = new MemoryDevice(pool, {
        name,
        medium,
        macHi: hi,
        macLo: lo,
        canOffload,
        drops: this.engine.drops,
      });
      this.engine.addDevice(new Surrounded(inner, filler), {
        isHost: name === 'host',
        peer: name === 'host' ? ip4('10.0.3.2') : 0,
      });
      return inner;
    };
    this.devices = {
      front: device('front', FRONT_MAC, Medium.Ethernet, true),
      back: device('back', BACK_MAC, Medium.Ethernet, false),
      host: device('host', '', Medium.Ip, true),
    };
    this.engine.executeIp([
      { op: 'addr-add', device: 'front', address: '10.0.1.1', prefixLength: 24 },
      { op: 'addr-add', device: 'back', address: '10.0.2.1', prefixLength: 24 },
      { op: 'addr-add', device: 'host', address: '10.0.3.1', prefixLength: 30 },
      { op: 'addr-add', device: 'lo', address: VIP, prefixLength: 32 },
      { op: 'neigh-add', device: 'front', address: '10.0.1.2', mac: CLIENT_MAC },
      { op: 'neigh-add', device: 'back', address: '10.0.2.11', mac: SERVER_MAC },
    ]);
    this.engine.setSysctl('net.ipv4.ip_forward', '1');
    const commands: IpvsCommand[] = [];
    for (const [protocol, port] of [
      ['tcp', 80],
      ['udp', 53],
      ['sctp', 9899],
      ['tcp', 21],
      ['udp', 5060],
    ] as const) {
      const service = { kind: 'address', protocol, address: VIP, port } as const;
      const engine = port === 5060 ? { pe: 'sip', persistenceTimeout: 60 } : {};
      commands.push({
        op: 'add-service',
        service: { key: service, scheduler: 'rr', schedulerFlags: 0, ops: false, ...engine },
      });
      for (const address of ['10.0.2.11', '10.0.2.12']) {
        const server = {
          key: { address, port: protocol === 'sctp' ? port + 1 : port },
          method: 'masq',
          weight: 1,
          upperThreshold: 0,
          lowerThreshold: 0,
        } as const;
        commands.push({ op: 'add-server', service, server });
      }
    }
    for (const [port, type, checksum] of TUNNELS) {
      for (const protocol of ['tcp', 'udp'] as const) {
        const service = { kind: 'address', protocol, address: VIP, port } as const;
        const tunnel = { type, port: type === 'gue' ? 6080 : 0, checksum };
        const server = { key: { address: '10.0.2.11', port }, method: 'tunnel', weight: 1, tunnel } as const;
        commands.push(
          { op: 'add-service', service: { key: service, scheduler: 'rr', schedulerFlags: 0, ops: false } },
          { op: 'add-server', service, server: { ...server, upperThreshold: 0, lowerThreshold: 0 } },
        );
      }
    }
    for (const error of this.engine.executeIpvs(commands)) if (error !== null) throw new Error(`set-up: ${error}`);
    if (hasRules) setUpRules(this.engine);
    this.turn();
  }

  turn(): void {
    for (let i = 0; i < 100 && this.engine.breathe() > 0; i++);
  }

  takeSent(): Sent[] {
    return DEVICES.flatMap((device) => this.devices[device].takeSent().map(({ bytes }) => ({ device, bytes })));
  }

  /** Hours later: what has not ended by now never will. */
  whatIsLeft(): string[] {
    const { engine } = this;
    for (let i = 0; i < 48; i++) {
      this.clock.advance(seconds(15_000));
      this.turn();
      this.takeSent();
    }
    const left = {
      entries: engine.conntrack.entries.count,
      connections: engine.director.conns.count,
      expectations: engine.translation.expectations.count,
      flows: engine.flows.size,
      fragments: engine.stack.fragments.held,
      'packets held': engine.stack.stats.held,
      'packets out of the pool': engine.pool.packets.length - engine.pool.available,
    };
    return Object.entries(left).flatMap(([what, n]) => (n === 0 ? [] : [`${n} ${what} are left`]));
  }
}

const INTERESTING = [0, 1, 2, 4, 5, 6, 8, 15, 16, 17, 20, 0x40, 0x45, 0x4f, 0x7f, 0x80, 0xff];

function mutate(seed: Uint8Array, other: Uint8Array, isEthernet: boolean, rng: SeededRng): Uint8Array {
  const below = (n: number): number => (rng.next() >>> 1) % n;
  let bytes = Uint8Array.from(seed);
  // The Ethernet header is spared most times: a frame for somebody else ends at once.
  const first = isEthernet && below(8) !== 0 ? 14 : 0;
  for (let n = below(4); n > 0 && bytes.length > first; n--) {
    const at = first + below(Math.min(bytes.length - first, below(3) === 0 ? 1600 : 64));
    switch (below(6)) {
      case 0:
        bytes[at] = bytes[at]! ^ (1 << below(8));
        break;
      case 1:
        bytes[at] = INTERESTING[below(INTERESTING.length)]!;
        break;
      case 2:
        bytes[at] = below(256);
        break;
      case 3:
        bytes = bytes.slice(0, below(bytes.length + 1));
        break;
      case 4: {
        const more = new Uint8Array(bytes.length + below(40));
        more.set(bytes);
        bytes = more;
        break;
      }
      default: {
        const tail = other.subarray(Math.min(at, other.length));
        const spliced = new Uint8Array(at + tail.length);
        spliced.set(bytes.subarray(0, at));
        spliced.set(tail, at);
        bytes = spliced;
      }
    }
  }
  // A wrong header checksum ends most mutants at the first gate: mend it in seven of eight.
  const l3 = isEthernet ? 14 : 0;
  if (below(8) !== 0 && bytes.length >= l3 + 20) {
    const view = new DataView(bytes.buffer);
    const header = Math.min((bytes[l3]! & 15) << 2, bytes.length - l3);
    if (header >= 20) {
      view.setUint16(l3 + 10, 0);
      view.setUint16(l3 + 10, ~sumBytes(view, l3, header) & 0xffff);
      const total = Math.min(view.getUint16(l3 + 2), bytes.length - l3);
      if (bytes[l3 + 9] === 1 && total >= header + 8 && below(4) !== 0) {
        view.setUint16(l3 + header + 2, 0);
        view.setUint16(l3 + header + 2, ~sumBytes(view, l3 + header, total - header) & 0xffff);
      }
    }
  }
  return bytes;
}

/** Offload fields as a kernel may give them, and as it must not; devices check them, what comes behind must survive them. */
function offloadOf(bytes: Uint8Array, isEthernet: boolean, rng: SeededRng): Offload {
  const l3 = isEthernet ? 14 : 0;
  const proto = bytes[l3 + 9];
  if ((proto !== 6 && proto !== 17) || (rng.next() & 7) !== 0) return {};
  const gso = (rng.next() & 3) === 0;
  return {
    csumPartial: 1,
    gsoType: gso ? (proto === 6 ? 1 : 5) : 0,
    gsoSize: gso ? 1 + ((rng.next() >>> 1) % 1460) : 0,
  };
}

/** Sum of everything a received or born packet can become. */
function accounting(subject: Subject): string | null {
  const { stats, drops } = subject.engine.stack;
  const received = stats.received + stats.born;
  const dropped = drops.reduce((sum, n) => sum + n, 0);
  const gone = stats.transmitted + stats.deliveredToHost + stats.held + dropped;
  return received === gone
    ? null
    : `received ${stats.received} + born ${stats.born} ≠ transmitted ${stats.transmitted} + to host ${stats.deliveredToHost} + held ${stats.held} + dropped ${dropped}`;
}

function sameFrames(a: readonly Sent[], b: readonly Sent[]): boolean {
  return (
    a.length === b.length && a.every((f, i) => f.device === b[i]!.device && Buffer.compare(f.bytes, b[i]!.bytes) === 0)
  );
}

/** Runs `frames` mutants; stops at the first fault. */
export function fuzz(options: {
  frames: number;
  seed: number;
  corpus?: string;
  /** Fragments, tracking, NAT, helpers and rules. */
  rules?: boolean;
  progress?: (done: number) => void;
}): FuzzResult {
  const hasRules = options.rules ?? false;
  const seeds: Seed[] = [...goodFrames(), ...(hasRules ? translatedFrames(FRONT_MAC, CLIENT_MAC) : [])];
  if (options.corpus !== undefined) {
    for (const { bytes, medium } of corpusFrames(options.corpus)) {
      if (medium === Medium.Ethernet) seeds.push({ device: 'front', bytes });
      else if (medium === Medium.Ip) seeds.push({ device: 'host', bytes });
    }
  }
  const rng = new SeededRng(options.seed);
  const [left, right] = [new Subject(0x55, hasRules), new Subject(0xaa, hasRules)];
  /** What the ends of the conversations say to what they last got, by place. */
  const answers: Seed[] = [];
  const faults: string[] = [];
  let sent = 0;
  let done = 0;
  let batches = 0;
  while (done < options.frames && faults.length === 0) {
    const batch: string[] = [];
    for (let i = 0; i < 32 && done < options.frames; i++, done++) {
      const wantsAnswer = answers.length > 0 && (rng.next() & 1) === 0;
      const pick = wantsAnswer ? answers : seeds;
      const seed = pick[(rng.next() >>> 1) % pick.length]!;
      const other = seeds[(rng.next() >>> 1) % seeds.length]!;
      const isEthernet = seed.device !== 'host';
      const bytes = mutate(seed.bytes, other.bytes, isEthernet, rng);
      const offload = offloadOf(bytes, isEthernet, rng);
      batch.push(`${seed.device} ${Buffer.from(bytes).toString('hex')} ${JSON.stringify(offload)}`);
      for (const subject of [left, right]) subject.devices[seed.device].inject(bytes, offload);
    }
    batches++;
    try {
      for (const subject of [left, right]) {
        subject.clock.advance(1 + (done % 7));
        if (hasRules && batches % 64 === 0) changeSettings(subject.engine, batches / 64);
        if (hasRules && batches % 512 === 0) subject.clock.advance(seconds(batches % 307));
        subject.turn();
      }
    } catch (error) {
      faults.push(`exception: ${error instanceof Error ? error.stack : String(error)}`);
    }
    const [ours, theirs] = [left.takeSent(), right.takeSent()];
    sent += ours.length;
    if (!sameFrames(ours, theirs)) faults.push('bytes from outside a frame were read or sent');
    if (hasRules) {
      for (const { device, bytes } of ours) {
        const answer = answerTo(bytes, device !== 'host', (rng.next() & 31) === 0);
        const at = answers.length < ANSWERS ? answers.length : (rng.next() >>> 1) % ANSWERS;
        if (answer !== null) answers[at] = { device, bytes: answer };
      }
    }
    const unbalanced = accounting(left);
    if (unbalanced !== null) faults.push(unbalanced);
    if (faults.length > 0) faults.push(`after frame ${done}; the last batch was:\n${batch.join('\n')}`);
    if (options.progress !== undefined && done % 100_000 < 32) options.progress(done);
  }
  if (faults.length === 0) faults.push(...left.whatIsLeft());
  return { frames: done, sent, reasons: left.engine.drops.reduce((n, count) => n + (count > 0 ? 1 : 0), 0), faults };
}

if (process.argv[1]?.endsWith('fuzz.js')) {
  const { values } = parseArgs({
    options: {
      frames: { type: 'string', default: '10000000' },
      seed: { type: 'string', default: '1' },
      corpus: { type: 'string' },
      rules: { type: 'boolean', default: false },
    },
  });
  const started = Date.now();
  const result = fuzz({
    frames: Number(values.frames),
    seed: Number(values.seed),
    rules: values.rules,
    ...(values.corpus !== undefined && { corpus: values.corpus }),
    progress: (done) => process.stderr.write(`\r${done} frames`),
  });
  process.stderr.write('\n');
  console.log(
    `${result.frames} frames, ${result.sent} sent, ${result.reasons} drop reasons reached, ${Math.round((Date.now() - started) / 1000)} s`,
  );
  for (const fault of result.faults) console.log(fault);
  process.exit(result.faults.length === 0 ? 0 : 1);
}
