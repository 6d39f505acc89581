/**
 * Translation through a whole host: what leaves, with every checksum verified, and what comes back.
 *
 *   client 10.0.1.2 ── front 10.0.1.1 ─ host ─ back 10.0.2.1 ── server 10.0.2.2
 */
import { beforeEach, describe, expect, it } from 'vitest';
import { Hook, Verdict } from '../hooks/hooks.ts';
import { reinject } from '../ip/receive.ts';
import { MAC } from '../ip/rig.ts';
import type { Nat } from '../nat/nat.ts';
import { Manip, type NatRange, RangeFlag } from '../nat/range.ts';
import type { Packet } from '../packet/packet.ts';
import { ip4 } from '../wire/addr.ts';
import { type FrameBuilder, frame } from '../wire/build.ts';
import { TrackedRig } from './tracked-rig.ts';

let rig: TrackedRig;
let nat: Nat;
let rules: TrackedRig['rules'];

const to = (ip: string, port = 0, flags = 0): NatRange => ({
  flags: flags | (ip === '' ? 0 : RangeFlag.MapIps) | (port === 0 ? 0 : RangeFlag.ProtoSpecified),
  minIp: ip4(ip === '' ? '0.0.0.0' : ip),
  maxIp: ip4(ip === '' ? '0.0.0.0' : ip),
  minPort: port,
  maxPort: port,
  basePort: 0,
});
const ANY = to('');
const { PreRouting, LocalIn, LocalOut, PostRouting } = Hook;
const dnat = (range: NatRange) => (p: Packet) => nat.setup(p.entry, range, Manip.Dst);
const snat = (range: NatRange) => (p: Packet) => nat.setup(p.entry, range, Manip.Src);

function start(options: { readonly hostPort?: boolean } = {}): void {
  rig = new TrackedRig(options);
  nat = rig.translation.nat;
  rules = rig.rules;
}

beforeEach(() => start());

const fromClient = (dst: string) => frame().eth(MAC.front, MAC.client).ipv4('10.0.1.2', dst);
const fromServer = (dst: string) => frame().eth(MAC.back, MAC.server).ipv4('10.0.2.2', dst);
const udp = (srcPort: number, dstPort: number) => ({ srcPort, dstPort });

/** What leaves at the far side of the device where it came in. */
function through(packet: FrameBuilder): string[] {
  rig.send(rig.front, packet.build());
  return rig
    .out(rig.back)
    .map(short)
    .filter((line) => !line.includes('ARP'));
}
function back(packet: FrameBuilder): string[] {
  rig.send(rig.back, packet.build());
  return rig.out(rig.front).map(short);
}

/** Without frame header, TTL and identification. */
function short(line: string): string {
  return line
    .replace(/^\S+ > \S+ IP /, '')
    .replace('{ IP ', '{')
    .replace(/ \(ttl .*$/, '');
}

describe('a connection', () => {
  it('is translated at both ends, its answers back, and no rule is asked twice', () => {
    rules.set(PreRouting, dnat(to('10.0.2.2', 5353)));
    rules.set(PostRouting, snat(to('10.0.2.100')));
    for (let i = 0; i < 3; i++) {
      expect(through(fromClient('10.0.1.1').udp(udp(40000, 53)).payload('q'))).toEqual([
        expect.stringContaining('10.0.2.100.40000 > 10.0.2.2.5353: udp len 1'),
      ]);
      expect(back(fromServer('10.0.2.100').udp(udp(5353, 40000)).payload('a'))).toEqual([
        expect.stringContaining('10.0.1.1.53 > 10.0.1.2.40000: udp len 1'),
      ]);
    }
    expect(rig.asked).toEqual([PreRouting, PostRouting]);
    expect(rig.replyOf(1)).toBe('10.0.2.2:5353 > 10.0.2.100:40000');
  });

  it('that no rule takes stays as it is, and its port moves only out of the way', () => {
    rules.set(PreRouting, (p) =>
      p.view.getUint16(p.l4 + 2) === 54 ? nat.setup(p.entry, to('10.0.2.2', 53), Manip.Dst) : Verdict.Accept,
    );
    expect(through(fromClient('10.0.1.1').udp(udp(40000, 54)))[0]).toContain('10.0.1.2.40000 > 10.0.2.2.53');
    const moved = through(fromClient('10.0.2.2').udp(udp(40000, 53)))[0]!;
    expect(moved).toMatch(/^10\.0\.1\.2\.(?!40000)\d+ > 10\.0\.2\.2\.53/);
    const port = Number(/10\.0\.1\.2\.(\d+)/.exec(moved)![1]);
    expect(back(fromServer('10.0.1.2').udp(udp(53, port)))[0]).toContain('10.0.2.2.53 > 10.0.1.2.40000');
    expect(back(fromServer('10.0.1.2').udp(udp(53, 40000)))[0]).toContain('10.0.1.1.54 > 10.0.1.2.40000');
    expect(through(fromClient('10.0.2.3').udp(udp(1, 2)))).toEqual([]);
  });

  it('whose rules drop it is dropped', () => {
    rules.set(PreRouting, () => Verdict.Drop);
    expect(through(fromClient('10.0.2.2').udp(udp(1, 2)))).toEqual([]);
    expect(rig.drops()).toEqual({ Policy: 1 });
  });

  it('super-packets and partial checksums stay what they are', () => {
    rules.set(PostRouting, snat(to('10.0.2.100', 7)));
    const big = fromClient('10.0.2.2').tcp({ srcPort: 1, dstPort: 2, partialChecksum: true }).payload(4000).build();
    rig.send(rig.front, big, { csumPartial: 1, gsoType: 1, gsoSize: 1400 });
    expect(rig.back.sent[0]).toMatchObject({ csumPartial: 1, gsoSize: 1400 });
    expect(rig.out(rig.back)[0]).toContain('10.0.2.100.7 > 10.0.2.2.2');
  });

  it('to one of the client’s own network comes back through us (hairpin)', () => {
    rules.set(PreRouting, dnat(to('10.0.1.3', 8080)));
    rules.set(PostRouting, (p) => nat.masquerade(p, ANY));
    rig.neighbour('front', '10.0.1.3', '02:00:00:00:01:03');
    rig.send(rig.front, fromClient('10.0.1.1').udp(udp(40000, 80)).build());
    expect(short(rig.out(rig.front)[0]!)).toContain('10.0.1.1.40000 > 10.0.1.3.8080');
    const answer = frame().eth(MAC.front, '02:00:00:00:01:03').ipv4('10.0.1.3', '10.0.1.1').udp(udp(8080, 40000));
    rig.send(rig.front, answer.build());
    expect(short(rig.out(rig.front)[0]!)).toContain('10.0.1.1.80 > 10.0.1.2.40000');
  });
});

describe('first packets that wait in a queue at the same time', () => {
  const held: Packet[] = [];
  const tcp = (srcPort: number, dstPort: number) => ({ srcPort, dstPort, flags: 'S' });
  /** Hold each packet behind `priority` of a hook. */
  function queueAt(hook: Hook, priority: number): void {
    held.length = 0;
    rig.hooks.queues.set(0, (p) => held.push(p) > 0);
    rig.hooks.register([{ hook, priority, name: 'test/queue', why: 'test', run: () => Verdict.Queue }]);
  }
  /** They go on, in their order: what leaves by either device. */
  function goOn(): string[] {
    for (const p of held) reinject(rig.stack, p, Verdict.Accept);
    rig.flush();
    return [...rig.out(rig.back), ...rig.out(rig.front)].map(short);
  }

  it('of both ends of one connection: the second is an answer to the first', () => {
    queueAt(Hook.Forward, 0);
    rig.send(rig.front, fromClient('10.0.2.2').udp(udp(40000, 53)).build());
    rig.send(rig.back, fromServer('10.0.1.2').udp(udp(53, 40000)).build());
    expect(goOn()).toEqual([
      expect.stringContaining('10.0.1.2.40000 > 10.0.2.2.53'),
      expect.stringContaining('10.0.2.2.53 > 10.0.1.2.40000'),
    ]);
    expect([rig.conntrack.entries.count, rig.conntrack.stats.clashResolve]).toEqual([1, 1]);
  });

  it('of both ends, where two connections cannot become one: the second of TCP is dropped', () => {
    queueAt(Hook.Forward, 0);
    rig.send(rig.front, fromClient('10.0.2.2').tcp(tcp(40000, 53)).build());
    rig.send(rig.back, fromServer('10.0.1.2').tcp(tcp(53, 40000)).build());
    expect(goOn()).toEqual([expect.stringContaining('10.0.1.2.40000 > 10.0.2.2.53')]);
    expect(rig.drops()).toEqual({ ConntrackClash: 1 });
  });

  it('of both ends, where the first is translated: the other is no answer to it, and its port moves', () => {
    const { id } = rig.interfaceOf(rig.front);
    rules.set(PostRouting, (p) => (p.inDevice === id ? snat(to('10.0.2.100'))(p) : Verdict.Accept));
    queueAt(Hook.Forward, 0);
    rig.send(rig.front, fromClient('10.0.2.2').udp(udp(40000, 53)).build());
    rig.send(rig.back, fromServer('10.0.1.2').udp(udp(53, 40000)).build());
    expect(goOn()).toEqual([
      expect.stringContaining('10.0.2.100.40000 > 10.0.2.2.53'),
      expect.stringMatching(/^10\.0\.2\.2\.(?!53 )\d+ > 10\.0\.1\.2\.40000/),
    ]);
    expect(rig.conntrack.entries.confirmed).toBe(2);
  });

  it('of one flow get one translation', () => {
    rules.set(PostRouting, snat(to('10.0.2.100')));
    queueAt(Hook.Forward, 0);
    for (let i = 0; i < 2; i++) rig.send(rig.front, fromClient('10.0.2.2').udp(udp(40000, 53)).payload('q').build());
    const line = '10.0.2.100.40000 > 10.0.2.2.53: udp len 1';
    expect(goOn()).toEqual([line, line]);
    expect([rig.conntrack.entries.count, rig.conntrack.stats.clashResolve]).toEqual([1, 1]);
  });

  it.each(['udp', 'tcp'] as const)('of two clients that were given one tuple: the second is dropped (%s)', (proto) => {
    rules.set(PostRouting, snat(to('10.0.2.100')));
    queueAt(Hook.PostRouting, 200);
    for (const src of ['10.0.1.2', '10.0.1.3']) {
      const head = frame().eth(MAC.front, MAC.client).ipv4(src, '10.0.2.2');
      rig.send(rig.front, (proto === 'udp' ? head.udp(udp(40000, 53)) : head.tcp(tcp(40000, 53))).build());
    }
    expect(goOn()).toEqual([expect.stringContaining('10.0.2.100.40000 > 10.0.2.2.53')]);
    expect([rig.conntrack.entries.count, rig.conntrack.stats.insertFailed]).toEqual([1, 1]);
    expect(rig.drops()).toEqual({ ConntrackClash: 1 });
  });
});

describe('MASQUERADE', () => {
  beforeEach(() => rules.set(PostRouting, (p) => nat.masquerade(p, ANY)));

  it('takes the address of the device in the network of the next hop, else its first; other devices’ when it has none', () => {
    rig.run({ op: 'addr-add', device: 'back', address: '172.16.0.9', prefixLength: 24 });
    rig.run({ op: 'addr-add', device: 'back', address: '10.0.2.77', prefixLength: 24 });
    rig.neighbour('back', '172.16.0.5', MAC.server);
    rig.run({ op: 'route-add', route: { to: '192.0.2.0/24', via: '172.16.0.5' } });
    expect(through(fromClient('10.0.2.2').udp(udp(1, 2)))[0]).toContain('10.0.2.1.1 > 10.0.2.2.2');
    expect(through(fromClient('192.0.2.8').udp(udp(1, 2)))[0]).toContain('172.16.0.9.1 > 192.0.2.8.2');
  });

  it('ends with its address, with its device, and when it would leave by another one', () => {
    const open = (n: number) => through(fromClient('10.0.2.2').udp(udp(n, 53)));
    open(1);
    rig.run({ op: 'addr-del', device: 'back', address: '10.0.2.1', prefixLength: 24 });
    expect(rig.conntrack.entries.confirmed).toBe(0);
    rig.run({ op: 'addr-add', device: 'back', address: '10.0.2.5', prefixLength: 24 });
    open(2);
    rig.run({ op: 'addr-add', device: 'back', address: '10.9.9.9', prefixLength: 24 });
    rig.run({ op: 'addr-del', device: 'back', address: '10.9.9.9', prefixLength: 24 });
    expect(rig.conntrack.entries.confirmed).toBe(1);
    rig.run({ op: 'route-add', route: { to: '10.0.2.2/32', device: 'front' } });
    rig.neighbour('front', '10.0.2.2', MAC.client);
    expect(open(2)).toEqual([]);
    expect(rig.out(rig.front)).toEqual([]);
    expect(rig.conntrack.entries.confirmed).toBe(0);
    expect(rig.drops()).toMatchObject({ NatDeviceChanged: 1 });
  });
});

describe('other targets', () => {
  it('REDIRECT goes to the address of the device, and to loopback for what starts here', () => {
    start({ hostPort: true });
    rules.set(PreRouting, (p, hook) => nat.redirect(p, to('', 8080), hook));
    rules.set(LocalOut, (p, hook) => nat.redirect(p, ANY, hook));
    rig.send(rig.front, fromClient('10.0.2.2').tcp({ srcPort: 1, dstPort: 80, flags: 'S' }).build());
    expect(rig.replyOf(1)).toBe('10.0.1.1:8080 > 10.0.1.2:1');
    expect(rig.out(rig.back)).toEqual([]);
    rig.send(rig.host, frame().ipv4('10.0.3.2', '10.0.2.2').udp(udp(5, 6)).build());
    expect(rig.replyOf(2)).toBe('127.0.0.1:6 > 10.0.3.2:5');
    rig.run({ op: 'addr-del', device: 'front', address: '10.0.1.1', prefixLength: 24 });
    rig.send(rig.front, fromClient('10.0.2.2').udp(udp(1, 80)).build());
    expect(rig.drops()).toMatchObject({ NatNoAddress: 1 });
  });

  it('DNAT of what starts here is routed anew, and keeps its source', () => {
    start({ hostPort: true });
    rules.set(LocalOut, dnat(to('10.0.2.2', 80)));
    rig.send(rig.host, frame().ipv4('10.0.3.2', '10.0.1.2').udp(udp(5, 6)).build());
    expect(rig.out(rig.front)).toEqual([]);
    expect(short(rig.out(rig.back)[0]!)).toContain('10.0.3.2.5 > 10.0.2.2.80');
    rig.send(rig.back, fromServer('10.0.3.2').udp(udp(80, 5)).build());
    expect(rig.out(rig.host)[0]).toContain('10.0.1.2.6 > 10.0.3.2.5');
  });

  it('an answer to a source that was changed on the way in goes where that is, or nowhere before rules see it', () => {
    rules.set(LocalIn, snat(to('10.0.2.77')));
    let seen = 0;
    const run = () => {
      seen++;
      return Verdict.Accept;
    };
    rig.hooks.register([{ hook: LocalOut, priority: 0, name: 'test/rule', why: 'test', run }]);
    const ping = (src: string) =>
      frame().eth(MAC.front, MAC.client).ipv4(src, '10.0.1.1').icmp({ type: 8, id: 1 }).build();
    rig.send(rig.front, ping('10.0.1.2'));
    expect(short(rig.out(rig.front)[0]!)).toContain('10.0.1.1 > 10.0.1.2: icmp echo reply');
    rig.send(rig.front, ping('192.168.5.5'));
    expect([rig.out(rig.front), rig.out(rig.back), seen]).toEqual([[], [], 1]);
    expect(rig.drops()).toEqual({ EchoAnswered: 2, NoRoute: 1 });
  });

  it.each([
    ['192.168.5.5', 'NoRoute', ['icmp error 3/0']],
    ['10.9.1.1', 'RouteUnreachable', ['icmp error 3/13']],
    ['10.9.2.1', 'RouteUnreachable', []],
  ])(
    'what the host port sends to where there is no way (%s) ends before rules see it, and its sender hears why',
    (target, drop, said) => {
      start({ hostPort: true });
      rig.run({ op: 'route-add', route: { to: '10.9.1.0/24', type: 'prohibit' } });
      rig.run({ op: 'route-add', route: { to: '10.9.2.0/24', type: 'blackhole' } });
      rules.set(LocalOut, dnat(to(target, 80)));
      let seen = 0;
      const run = () => {
        seen++;
        return Verdict.Accept;
      };
      rig.hooks.register([{ hook: LocalOut, priority: 0, name: 'test/rule', why: 'test', run }]);
      rig.send(rig.host, frame().ipv4('10.0.3.2', '10.0.1.2').udp(udp(5, 6)).build());
      const heard = rig.out(rig.host);
      expect(heard).toHaveLength(said.length);
      for (const [i, text] of said.entries()) expect(heard[i]).toContain(text);
      // What is said is seen, what it is said of is not.
      expect([seen, rig.drops()]).toEqual([said.length, { [drop]: 1 }]);
    },
  );

  it('NETMAP exchanges the network and keeps the host', () => {
    const net = { ...ANY, flags: RangeFlag.MapIps, minIp: ip4('10.0.2.0'), maxIp: ip4('10.0.2.255') };
    rules.set(PreRouting, (p, hook) => nat.netmap(p, net, hook));
    rules.set(PostRouting, (p, hook) =>
      nat.netmap(p, { ...net, minIp: ip4('10.0.2.64'), maxIp: ip4('10.0.2.127') }, hook),
    );
    expect(through(fromClient('192.0.2.2').udp(udp(1, 2)))[0]).toContain('10.0.2.66.1 > 10.0.2.2.2');
  });

  it('SNAT on the way in shows another source to this host, and its answer finds the client', () => {
    start({ hostPort: true });
    rules.set(LocalIn, snat(to('10.0.1.77')));
    rig.send(rig.front, fromClient('10.0.3.2').udp(udp(5, 6)).build());
    expect(rig.out(rig.host)[0]).toContain('10.0.1.77.5 > 10.0.3.2.6');
    rig.send(rig.host, frame().ipv4('10.0.3.2', '10.0.1.77').udp(udp(6, 5)).build());
    expect(short(rig.out(rig.front)[0]!)).toContain('10.0.3.2.6 > 10.0.1.2.5');
  });
});

describe('ICMP', () => {
  it('echo ids are kept apart', () => {
    rules.set(PostRouting, snat(to('10.0.2.100')));
    const ping = (client: string) =>
      frame().eth(MAC.front, MAC.client).ipv4(client, '10.0.2.2').icmp({ type: 8, id: 77, seq: 1 }).payload('ping');
    expect(through(ping('10.0.1.2'))[0]).toContain('id 77');
    const other = through(ping('10.0.1.3'))[0]!;
    const id = Number(/id (\d+)/.exec(other)![1]);
    expect(id).not.toBe(77);
    rig.neighbour('front', '10.0.1.3', MAC.client);
    const answer = fromServer('10.0.2.100').icmp({ type: 0, id, seq: 1 }).payload('ping');
    expect(back(answer)[0]).toMatch(/10\.0\.2\.2 > 10\.0\.1\.3: icmp .*id 77/);
  });

  it.each(['udp', 'tcp'])('errors about %s tell each side what it knows', (proto) => {
    rules.set(PreRouting, dnat(to('10.0.2.2', 80)));
    rules.set(PostRouting, snat(to('10.0.2.100', 7)));
    const build = (f: FrameBuilder, a: number, b: number) =>
      proto === 'udp' ? f.udp(udp(a, b)).payload('x') : f.tcp({ srcPort: a, dstPort: b, flags: 'S' });
    const request = build(fromClient('10.0.1.1'), 40000, 8080);
    rig.send(rig.front, request.build());
    const sent = rig.outBytes(rig.back)[0]!.slice(14);
    const fromHop = frame().eth(MAC.back, MAC.server).ipv4('10.0.2.9', '10.0.2.100').icmp({ type: 11 }).payload(sent);
    // The kernel gives the error of a router on the way the address that the client asked for, too.
    const [error] = back(fromHop);
    expect(error).toContain('10.0.1.1 > 10.0.1.2: icmp error 11/0 {10.0.1.2.40000 > 10.0.1.1.8080');
    const fromTarget = fromServer('10.0.2.100').icmp({ type: 3, code: 3 }).payload(sent.slice(0, 28));
    expect(back(fromTarget)[0]).toContain('10.0.1.1 > 10.0.1.2: icmp error 3/3 {10.0.1.2.40000 > 10.0.1.1.8080');
    const redirect = fromServer('10.0.2.100').icmp({ type: 5, code: 1 }).payload(sent.slice(0, 28));
    expect(back(redirect)).toEqual([]);
    expect(rig.drops()).toMatchObject({ NatIcmpRedirect: 1 });
  });

  it('errors that we send ourselves about what we translated', () => {
    rules.set(PreRouting, dnat(to('10.0.2.2', 80)));
    rig.run({ op: 'link-set', device: 'back', mtu: 1000 });
    const big = frame()
      .eth(MAC.front, MAC.client)
      .ipv4('10.0.1.2', '10.0.1.1', { df: true })
      .udp(udp(1, 2))
      .payload(1200);
    // The connection must be known before: an error about one that never was has nothing to follow.
    rig.send(rig.front, fromClient('10.0.1.1').udp(udp(1, 2)).build());
    rig.out(rig.back);
    rig.send(rig.front, big.build());
    expect(short(rig.out(rig.front)[0]!)).toContain(
      '10.0.1.1 > 10.0.1.2: icmp error 3/4 mtu 1000 {10.0.1.2.1 > 10.0.1.1.2',
    );
  });
});
