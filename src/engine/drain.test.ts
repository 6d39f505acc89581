/** A server is drained to the end: what the engine sends, and what two strict TCP peers (RFC 5961) make of it. */
import { describe, expect, it } from 'vitest';
import { ManualClock, seconds } from '../base/clock.ts';
import { SeededRng } from '../base/rng.ts';
import { MemoryDevice } from '../device/memory.ts';
import type { DrainRow, IpvsCommand, ServiceKey } from '../model/ipvs.ts';
import { formatIp4, mac } from '../wire/addr.ts';
import { frame, verifyFrame } from '../wire/build.ts';
import { Engine } from './engine.ts';

const MAC = {
  front: '02:00:00:00:01:01',
  back: '02:00:00:00:02:01',
  client: '02:00:00:00:01:02',
  server: '02:00:00:00:02:11',
};
const VIP = '10.0.1.100';
const web: ServiceKey = { kind: 'address', protocol: 'tcp', address: VIP, port: 80 };
const ftp: ServiceKey = { kind: 'address', protocol: 'tcp', address: VIP, port: 21 };
const dns: ServiceKey = { kind: 'address', protocol: 'udp', address: VIP, port: 53 };
const rs = (n: number, port: number) => ({ address: `10.0.2.1${n}`, port });

interface Segment {
  readonly from: string;
  readonly to: string;
  readonly seq: number;
  readonly ack: number;
  readonly flags: number;
}
const RST = 4;
const ACK = 16;

/** What both ends of a connection know: whom they talk to, their next number and the one that they expect. */
interface End {
  open: boolean;
  readonly side: 'client' | 'server';
  readonly local: string;
  readonly remote: string;
  next: number;
  expected: number;
}

class Lab {
  readonly clock = new ManualClock(0);
  readonly engine = new Engine({ clock: this.clock, rng: new SeededRng(1), maxConnections: 8192, maxPackets: 4096 });
  readonly front: MemoryDevice;
  readonly back: MemoryDevice;
  readonly ends = new Map<string, End>();
  /** Resets by how exact they were. */
  exact = 0;
  wrong = 0;
  /** Ends that answer nothing. */
  readonly silent = new Set<End>();

  readonly method: 'masq' | 'route';

  constructor(method: 'masq' | 'route') {
    this.method = method;
    const device = (name: 'front' | 'back'): MemoryDevice => {
      const { hi, lo } = mac(MAC[name]);
      const d = new MemoryDevice(this.engine.pool, { name, macHi: hi, macLo: lo, drops: this.engine.drops });
      this.engine.addDevice(d);
      return d;
    };
    this.front = device('front');
    this.back = device('back');
    this.engine.executeIp([
      { op: 'addr-add', device: 'front', address: '10.0.1.1', prefixLength: 24 },
      { op: 'addr-add', device: 'back', address: '10.0.2.1', prefixLength: 24 },
      { op: 'addr-add', device: 'front', address: VIP, prefixLength: 32 },
      ...[2, 3, 4].map((n) => ({ op: 'neigh-add', device: 'front', address: `10.0.1.${n}`, mac: MAC.client }) as const),
      ...[1, 2].map((n) => ({ op: 'neigh-add', device: 'back', address: `10.0.2.1${n}`, mac: MAC.server }) as const),
    ]);
    this.engine.setSysctl('net.ipv4.ip_forward', '1');
    this.engine.breathe();
    this.front.takeSent();
    this.back.takeSent();
    const server = (n: number, port: number) => ({
      key: rs(n, port),
      method,
      weight: 3,
      upperThreshold: 0,
      lowerThreshold: 0,
    });
    this.run(
      { op: 'add-service', service: { key: web, scheduler: 'rr', schedulerFlags: 0, ops: false } },
      { op: 'add-server', service: web, server: server(1, 80) },
      { op: 'add-service', service: { key: dns, scheduler: 'rr', schedulerFlags: 0, ops: false } },
      { op: 'add-server', service: dns, server: server(1, 53) },
    );
  }

  run(...commands: IpvsCommand[]): void {
    expect(this.engine.executeIpvs(commands)).toEqual(commands.map(() => null));
  }

  get drains(): readonly DrainRow[] {
    return this.engine.director.listDrains();
  }

  get dropped(): number {
    return this.engine.drops[62]!;
  }

  /** Both ends as they stand after a handshake and some data, which the director has seen pass. */
  open(client: string, n = 1, port = 80): [End, End] {
    const [a, b] = [(Math.imul(client.length + this.ends.size, 0x9e3779b1) | 0) >>> 0, 0xfffffff0 + this.ends.size];
    const server = this.method === 'masq' ? `10.0.2.1${n}:${port}` : `${VIP}:${port}`;
    const [c, s] = [
      { open: true, side: 'client', local: client, remote: `${VIP}:${port}`, next: a | 0, expected: b | 0 } as End,
      { open: true, side: 'server', local: server, remote: client, next: b | 0, expected: a | 0 } as End,
    ];
    this.ends.set(`client ${client}`, c);
    this.ends.set(`server ${client}`, s);
    this.segment(c, 'S', (c.next - 1) | 0, 0);
    if (this.method === 'masq') this.segment(s, 'SA', (s.next - 1) | 0, c.next);
    this.segment(c, 'A', c.next, c.expected);
    return [c, s];
  }

  segment(end: End, flags: string, seq = end.next, ack = end.expected, data: number | string = 0): void {
    const [src, srcPort] = end.local.split(':') as [string, string];
    const [dst, dstPort] = end.remote.split(':') as [string, string];
    const device = end.side === 'client' ? this.front : this.back;
    const [to, from] = end.side === 'client' ? [MAC.front, MAC.client] : [MAC.back, MAC.server];
    const fields = { srcPort: Number(srcPort), dstPort: Number(dstPort), flags, seq, ack };
    device.inject(frame().eth(to, from).ipv4(src, dst, { df: true }).tcp(fields).payload(data).build());
    this.engine.wake();
    this.engine.breathe();
  }

  datagram(client: string): string {
    const [src, port] = client.split(':') as [string, string];
    const udp = { srcPort: Number(port), dstPort: 53 };
    this.front.inject(frame().eth(MAC.front, MAC.client).ipv4(src, VIP).udp(udp).payload(3).build());
    this.engine.wake();
    this.engine.breathe();
    const out = this.back.takeSent()[0];
    return out === undefined ? 'nothing' : parse(out.bytes).to;
  }

  /** Time passes; both networks deliver, and the ends answer as strict hosts do. */
  wait(secondsToWait: number): void {
    for (let left = seconds(secondsToWait); left > 0; left--) {
      this.clock.advance(1);
      this.engine.breathe();
      this.deliver();
    }
  }

  deliver(): void {
    for (const [side, device] of [
      ['client', this.front],
      ['server', this.back],
    ] as const) {
      for (const { bytes } of device.takeSent()) {
        const faults = verifyFrame(bytes);
        if (faults.length > 0) throw new Error(faults.join('; '));
        if (bytes[23] === 6) this.#arrive(side, parse(bytes));
      }
    }
  }

  #arrive(side: 'client' | 'server', segment: Segment): void {
    const client = side === 'client' ? segment.to : segment.from;
    const end = this.ends.get(`${side} ${client}`);
    if (end === undefined || !end.open || this.silent.has(end)) return;
    // With direct routing the server's address is the service's.
    if ((side === 'client' ? segment.from : segment.to) !== (side === 'client' ? end.remote : end.local))
      throw new Error(segment.to);
    if ((segment.flags & RST) !== 0) {
      if (segment.seq === end.expected) {
        end.open = false;
        this.exact++;
      } else {
        this.wrong++;
      }
    } else if (segment.flags === ACK && segment.seq !== end.expected) {
      // RFC 9293 §3.10.7.4: an unacceptable segment is answered with an ACK. With direct routing the server's goes another way.
      if (side === 'client' || this.method === 'masq') this.segment(end, 'A');
    }
  }
}

function parse(bytes: Uint8Array): Segment {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const at = (ip: number, port: number) => `${formatIp4(view.getInt32(ip))}:${view.getUint16(port)}`;
  const isTcp = view.getUint16(12) === 0x0800 && view.getUint8(23) === 6;
  const [seq, ack, flags] = isTcp ? [view.getInt32(38), view.getInt32(42), view.getUint8(47)] : [0, 0, 0];
  return { from: at(26, 34), to: at(30, 36), seq, ack, flags };
}

for (const method of ['masq', 'route'] as const) {
  describe(`--drain with ${method}`, () => {
    it('waits for the connections; at the deadline both ends of what is left get a reset with the exact number', () => {
      const lab = new Lab(method);
      const [gone, stays] = [lab.open('10.0.1.2:1001'), lab.open('10.0.1.3:1002')];
      lab.run({
        op: 'add-server',
        service: web,
        server: { key: rs(2, 80), method, weight: 1, upperThreshold: 0, lowerThreshold: 0 },
      });
      lab.run({ op: 'drain', service: web, server: rs(1, 80), deadline: 10 });
      const other = lab.open('10.0.1.4:1003', 2);
      lab.segment(gone[0], 'R', gone[0].next, 0);
      lab.wait(9);
      expect(lab.drains).toMatchObject([
        { state: 'draining', weight: 3, elapsedSeconds: 9, leftSeconds: 1, activeConns: 1, inactiveConns: 1 },
      ]);
      // The client's own, which passed.
      expect([lab.exact, lab.wrong]).toEqual([1, 0]);
      lab.wait(5);
      expect([stays[0].open, stays[1].open]).toEqual([false, false]);
      expect(lab.drains).toMatchObject([{ state: 'done', reset: 1, unanswered: 0, activeConns: 0, inactiveConns: 0 }]);
      expect(other.map((end) => end.open)).toEqual([true, true]);
      expect(lab.engine.director.conns.count).toBe(1);
      // Rows that a listing reads, and the service's new client, are as if nothing had been.
      expect(lab.open('10.0.1.2:1009', 2).every((end) => end.open)).toBe(true);
      expect(
        lab.engine.director
          .listServices(0, 9, web)
          .rows[0]!.servers.map((s) => [s.key.address, s.weight, s.activeConns]),
      ).toEqual([
        ['10.0.2.12', 1, 2],
        ['10.0.2.11', 0, 0],
      ]);
    });

    it('a segment under way at the deadline serves instead of the question, and goes no further', () => {
      const lab = new Lab(method);
      const [client] = lab.open('10.0.1.2:1001');
      lab.run({ op: 'drain', service: web, server: rs(1, 80), deadline: 1 });
      lab.silent.add(client);
      lab.wait(1.1);
      lab.silent.clear();
      lab.back.takeSent();
      lab.segment(client, 'PA', client.next, client.expected, 100);
      expect(lab.dropped).toBeGreaterThanOrEqual(1);
      lab.deliver();
      expect([...lab.ends.values()].map((end) => end.open)).toEqual([false, false]);
    });

    it('a retransmission whose first copy the server has: one of the two numbers is right', () => {
      const lab = new Lab(method);
      const [client, server] = lab.open('10.0.1.2:1001');
      server.expected = (server.expected + 100) | 0;
      lab.run({ op: 'drain', service: web, server: rs(1, 80), deadline: 0 });
      lab.silent.add(client).add(server);
      lab.wait(0.3);
      lab.silent.clear();
      lab.front.takeSent();
      lab.back.takeSent();
      lab.segment(client, 'PA', client.next, client.expected, 100);
      lab.deliver();
      expect([client.open, server.open]).toEqual([false, false]);
    });

    it('who never answers is asked three times, forgotten and counted', () => {
      const lab = new Lab(method);
      const ends = lab.open('10.0.1.2:1001');
      for (const end of ends) lab.silent.add(end);
      lab.run({ op: 'drain', service: web, server: rs(1, 80), deadline: 0 });
      lab.wait(2);
      expect(lab.drains[0]).toMatchObject({ state: 'resetting', reset: 0, unanswered: 0 });
      lab.wait(2);
      expect(lab.drains[0]).toMatchObject({ state: 'done', reset: 0, unanswered: 1 });
      expect([lab.engine.director.conns.count, lab.engine.director.resets.count]).toEqual([0, 0]);
    });

    it('hundreds of connections are reset in a second, so many packets a tick', () => {
      const lab = new Lab(method);
      for (let i = 0; i < 500; i++) lab.open(`10.0.1.2:${10000 + i}`);
      lab.deliver();
      lab.run({ op: 'drain', service: web, server: rs(1, 80), deadline: 0 });
      lab.clock.advance(1);
      lab.engine.breathe();
      expect(lab.front.takeSent().length + lab.back.takeSent().length).toBe(64);
      lab.wait(4);
      expect(lab.drains).toMatchObject([{ state: 'done', reset: 500, unanswered: 0 }]);
      expect([...lab.ends.values()].filter((end) => end.open)).toEqual([]);
    });
  });
}

describe('--drain', () => {
  it.each(['', '150 Here it comes.\r\n'])(
    'of FTP: numbers that a rewritten answer has shifted are exact on both sides (the server says %j)',
    (text) => {
      const lab = new Lab('masq');
      const server = { key: rs(1, 21), method: 'masq', weight: 1, upperThreshold: 0, lowerThreshold: 0 } as const;
      lab.run(
        { op: 'add-service', service: { key: ftp, scheduler: 'rr', schedulerFlags: 0, ops: false } },
        { op: 'add-server', service: ftp, server },
      );
      const [c, s] = lab.open('10.0.1.2:1001', 1, 21);
      const say = (from: End, to: End, words: string, growth: number) => {
        lab.segment(from, 'PA', from.next, from.expected, words);
        from.next = (from.next + words.length) | 0;
        to.expected = (to.expected + words.length + growth) | 0;
      };
      say(c, s, 'PASV\r\n', 0);
      // 10,0,1,100 is longer by one.
      say(s, c, '227 Entering Passive Mode (10,0,2,11,195,80).\r\n', 1);
      lab.segment(c, 'A');
      lab.run({ op: 'drain', service: ftp, server: rs(1, 21), deadline: 0 });
      lab.silent.add(c).add(s);
      lab.wait(0.3);
      lab.silent.clear();
      lab.front.takeSent();
      lab.back.takeSent();
      lab.segment(s, 'PA', s.next, s.expected, text);
      lab.deliver();
      expect([c.open, s.open, lab.exact]).toEqual([false, false, 2]);
    },
  );

  it('a UDP connection that is idle for too long ends early; at the deadline they all do', () => {
    const lab = new Lab('masq');
    expect(lab.datagram('10.0.1.2:2001')).toBe('10.0.2.11:53');
    expect(lab.datagram('10.0.1.2:2002')).toBe('10.0.2.11:53');
    lab.run({ op: 'drain', service: dns, server: rs(1, 53), deadline: 60, udpIdle: 5 });
    for (let i = 0; i < 4; i++) {
      lab.wait(2);
      expect(lab.datagram('10.0.1.2:2001')).toBe('10.0.2.11:53');
    }
    expect(lab.drains).toMatchObject([{ idled: 1, inactiveConns: 1, state: 'draining' }]);
    for (let i = 0; i < 26; i++) {
      lab.wait(2);
      lab.datagram('10.0.1.2:2001');
    }
    lab.wait(1);
    expect(lab.drains).toMatchObject([{ idled: 1, removed: 1, inactiveConns: 0, state: 'done' }]);
    expect(lab.datagram('10.0.1.2:2001')).toBe('nothing');
    expect(parse(lab.front.takeSent().at(-1)!.bytes).to.split(':')[0]).toBe('10.0.1.2'); // port unreachable
  });

  it('templates are refused and go: the client gets another server at once', () => {
    const lab = new Lab('masq');
    lab.run({
      op: 'edit-service',
      service: { key: web, scheduler: 'rr', schedulerFlags: 0, ops: false, persistenceTimeout: 600 },
    });
    lab.open('10.0.1.2:1001');
    lab.run(
      {
        op: 'add-server',
        service: web,
        server: { key: rs(2, 80), method: 'masq', weight: 1, upperThreshold: 0, lowerThreshold: 0 },
      },
      { op: 'drain', service: web, server: rs(1, 80) },
    );
    lab.back.takeSent();
    lab.open('10.0.1.2:1002', 2);
    expect(parse(lab.back.takeSent()[0]!.bytes).to).toBe('10.0.2.12:80');
    lab.wait(1);
    // The old template waits for its connection, and is found by nobody.
    expect(lab.drains).toMatchObject([{ activeConns: 1, persistentConns: 1, leftSeconds: null, udpIdleSeconds: null }]);
    const [client] = [lab.ends.get('client 10.0.1.2:1001')!];
    lab.segment(client, 'R', client.next, 0);
    lab.wait(13);
    expect(lab.drains).toMatchObject([{ state: 'done', persistentConns: 0 }]);
  });

  it('is taken back by undrain, by an edit with a weight, and ends with the server', () => {
    const lab = new Lab('masq');
    const weights = () => lab.engine.director.listServices(0, 9, web).rows[0]!.servers.map((s) => s.weight);
    const drain = { op: 'drain', service: web, server: rs(1, 80) } as const;
    const server = { key: rs(1, 80), method: 'masq', weight: 0, upperThreshold: 0, lowerThreshold: 0 } as const;
    lab.run(drain, { op: 'undrain', service: web, server: rs(1, 80) });
    expect([lab.drains.length, weights()]).toEqual([0, [3]]);
    lab.run(drain, { op: 'edit-server', service: web, server });
    expect([lab.drains.length, weights()]).toEqual([1, [0]]);
    lab.run({ op: 'edit-server', service: web, server: { ...server, weight: 7 } });
    expect([lab.drains.length, weights()]).toEqual([0, [7]]);
    lab.run(drain, { op: 'delete-server', service: web, server: rs(1, 80) });
    expect(lab.drains).toEqual([]);
    const others = (op: 'drain' | 'undrain') =>
      lab.engine.executeIpvs([
        { op, service: web, server: rs(1, 80) },
        { op, service: { ...dns, port: 1 }, server: rs(1, 80) },
      ]);
    expect(others('drain')).toEqual(['ENOENT', 'ESRCH']);
    expect(others('undrain')).toEqual(['ENOENT', 'ESRCH']);
    lab.run({ op: 'add-server', service: web, server: { ...server, weight: 1 } });
    expect(lab.engine.executeIpvs([{ op: 'undrain', service: web, server: rs(1, 80) }])).toEqual(['ENODATA']);
  });

  it('taken back amid the resets, the connections live on', () => {
    const lab = new Lab('masq');
    const [client, server] = lab.open('10.0.1.2:1001');
    lab.silent.add(client).add(server);
    lab.run({ op: 'drain', service: web, server: rs(1, 80), deadline: 0 });
    lab.wait(0.5);
    expect(lab.engine.director.resets.count).toBe(1);
    lab.run({ op: 'undrain', service: web, server: rs(1, 80) });
    lab.back.takeSent();
    lab.segment(client, 'PA', client.next, client.expected, 100);
    expect(lab.back.takeSent()).toHaveLength(1);
    expect([lab.dropped, lab.engine.director.resets.count]).toEqual([0, 0]);
  });

  it('of a server that is not there yet begins when it comes; the deadline runs meanwhile', () => {
    const lab = new Lab('masq');
    const key = rs(2, 80);
    lab.run({ op: 'drain', service: web, server: key, deadline: 30, whenAdded: true });
    lab.run({ op: 'drain', service: { ...web, port: 81 }, server: key, whenAdded: true });
    lab.wait(10);
    expect(lab.drains.map((row) => [row.state, row.leftSeconds])).toEqual([
      ['awaiting', 20],
      ['awaiting', null],
    ]);
    lab.run({
      op: 'add-server',
      service: web,
      server: { key, method: 'masq', weight: 9, upperThreshold: 0, lowerThreshold: 0 },
    });
    expect(lab.drains).toMatchObject([{ state: 'done', weight: 9, leftSeconds: 20 }, { state: 'awaiting' }]);
    lab.run({ op: 'undrain', service: { ...web, port: 81 }, server: key });
    expect(lab.drains).toHaveLength(1);
    expect(lab.open('10.0.1.2:1001').every((end) => end.open)).toBe(true);
    expect(lab.engine.director.listConnections(0, 9).rows.map((row) => row.destination.address)).toEqual(['10.0.2.11']);
  });
});
