/** The director beside connection tracking: net.ipv4.vs.conntrack 0 and 1 (ip_vs_nfct.c). */
import { beforeEach, describe, expect, it } from 'vitest';
import { seconds } from '../base/clock.ts';
import { CtDir } from '../conntrack/entry.ts';
import { Tuple } from '../conntrack/tuple.ts';
import { Drop } from '../packet/drop.ts';
import { formatIp4 } from '../wire/addr.ts';
import { frame } from '../wire/build.ts';
import { ExplainRig, RIG_MAC } from './explain-rig.ts';

let rig: ExplainRig;
const VIP = '10.0.1.100';
const RIP = '10.0.2.11';

beforeEach(() => {
  rig = new ExplainRig();
  rig.engine.conntrack.acquire();
});

function entries(): string[] {
  const { entries: table } = rig.engine.conntrack;
  const t = new Tuple();
  const ends = (entry: number, dir: number) => {
    table.tuple(entry, dir, t);
    return `${formatIp4(t.src)}:${t.ports >>> 16} > ${formatIp4(t.dst)}:${t.ports & 0xffff}`;
  };
  const all = Array.from({ length: table.highWater - 1 }, (_, i) => i + 1).filter((entry) => table.isAlive(entry));
  return all.map((entry) => `${ends(entry, CtDir.Original)}, ${ends(entry, CtDir.Reply)}`);
}

const client = (flags: string, seq: number, ack = 0, port = 1234) =>
  rig.send(
    rig.front,
    frame()
      .eth(RIG_MAC.front, RIG_MAC.client)
      .ipv4('10.0.1.2', VIP)
      .tcp({ srcPort: port, dstPort: 80, flags, seq, ack })
      .build(),
  );
const server = (flags: string, seq: number, ack: number, port = 1234) =>
  rig.send(
    rig.back,
    frame()
      .eth(RIG_MAC.back, '02:00:00:00:02:11')
      .ipv4(RIP, '10.0.1.2')
      .tcp({ srcPort: 8080, dstPort: port, flags, seq, ack })
      .build(),
  );

function open(): void {
  expect(client('S', 100)[0]?.device).toBe('back');
  expect(server('S.', 900, 101)[0]?.device).toBe('front');
  client('.', 101, 901);
}

describe('net.ipv4.vs.conntrack', () => {
  it('0: what is balanced has no entry', () => {
    rig.run(`-A -t ${VIP}:80 -s rr`, `-a -t ${VIP}:80 -r ${RIP}:8080 -m`);
    open();
    expect(entries()).toEqual([]);
    expect(rig.engine.director.conns.count).toBe(1);
  });

  it('1, FTP: segments whose numbers the director has shifted are those of their connection', () => {
    rig.engine.setSysctl('net.ipv4.vs.conntrack', '1');
    rig.run(`-A -t ${VIP}:21 -s rr`, `-a -t ${VIP}:21 -r ${RIP}:21 -m`);
    const say = (isClient: boolean, flags: string, seq: number, ack: number, text = '') => {
      const [from, to] = isClient ? ['10.0.1.2', VIP] : [RIP, '10.0.1.2'];
      const [ours, theirs] = isClient ? [RIG_MAC.front, RIG_MAC.client] : [RIG_MAC.back, '02:00:00:00:02:11'];
      const ports = isClient ? { srcPort: 1234, dstPort: 21 } : { srcPort: 21, dstPort: 1234 };
      const packet = frame().eth(ours, theirs).ipv4(from, to);
      return rig.send(
        isClient ? rig.front : rig.back,
        packet
          .tcp({ ...ports, flags, seq, ack })
          .payload(text)
          .build(),
      );
    };
    say(true, 'S', 100, 0);
    say(false, 'S.', 900, 101);
    say(true, '.', 101, 901);
    say(true, 'P.', 101, 901, 'PASV\r\n');
    const answer = '227 Well (10,0,2,11,195,80)\r\n';
    say(false, 'P.', 901, 107, answer);
    // The client has got "10,0,1,100", which is one byte longer.
    const next = 901 + answer.length + 1;
    expect(say(true, 'P.', 107, next, 'LIST\r\n')).toHaveLength(1);
    expect(say(false, '.', next - 1, 113)).toHaveLength(1);
    expect(entries()).toHaveLength(1);
    expect(rig.engine.conntrack.stats).toMatchObject({ invalid: 0, insertFailed: 0 });
  });

  it.each([
    ['with a helper the client’s data connection is RELATED', '-p tcp --dport 21 -j CT --helper ftp', 1],
    ['without one it is new', '-p tcp --dport 21 -m comment --comment none', 0],
  ])('1, FTP: %s', (_, rule, related) => {
    const { engine } = rig;
    engine.setSysctl('net.ipv4.vs.conntrack', '1');
    rig.run(`-A -t ${VIP}:21 -s rr`, `-a -t ${VIP}:21 -r ${RIP}:21 -m`);
    const append = (chain: string, text: string) =>
      ({ op: 'append', chain, rule: { words: text.split(' ') } }) as const;
    const isNew = '-m conntrack --ctstate NEW';
    expect([
      engine.filter.change({ table: 'raw', commands: [append('PREROUTING', rule)] }),
      engine.filter.change({
        table: 'mangle',
        commands: [append('PREROUTING', '-m conntrack --ctstate RELATED'), append('PREROUTING', isNew)],
      }),
    ]).toEqual([null, null]);
    const say = (isClient: boolean, ports: [number, number], flags: string, seq: number, ack: number, text = '') => {
      const [from, to] = isClient ? ['10.0.1.2', VIP] : [RIP, '10.0.1.2'];
      const [ours, theirs] = isClient ? [RIG_MAC.front, RIG_MAC.client] : [RIG_MAC.back, '02:00:00:00:02:11'];
      const packet = frame().eth(ours, theirs).ipv4(from, to);
      const [srcPort, dstPort] = ports;
      const segment = packet.tcp({ srcPort, dstPort, flags, seq, ack }).payload(text).build();
      return rig.send(isClient ? rig.front : rig.back, segment);
    };
    say(true, [1234, 21], 'S', 100, 0);
    say(false, [21, 1234], 'S.', 900, 101);
    say(true, [1234, 21], '.', 101, 901);
    say(true, [1234, 21], 'P.', 101, 901, 'PASV\r\n');
    say(false, [21, 1234], 'P.', 901, 107, '227 Well (10,0,2,11,195,80)\r\n');
    expect(engine.translation.expectations.count).toBe(related);
    // Its answers come from the server, as those of the control connection do.
    expect(say(true, [5555, 50_000], 'S', 1, 0)).toHaveLength(1);
    expect(say(false, [50_000, 5555], 'S.', 1, 2)).toHaveLength(1);
    const chains = engine.filter.list('mangle').chains;
    expect(chains[0]!.rules.map(({ packets }) => packets)).toEqual([related, 2 - related]);
    expect(entries()).toContain(`10.0.1.2:5555 > ${VIP}:50000, ${RIP}:50000 > 10.0.1.2:5555`);
    expect(engine.translation.expectations.count).toBe(0);
    expect(engine.conntrack.stats.invalid).toBe(0);
    // What the helper needs stands in the hooks as long as its connection lives, whatever becomes of the rule.
    const stands = () => engine.hooks.postRouting.ops.filter(({ name }) => name === 'nat/helper').length;
    expect(engine.filter.change({ table: 'raw', commands: [{ op: 'flush' }] })).toBeNull();
    const pass = (time: number) => {
      rig.clock.advance(seconds(time));
      engine.breathe();
    };
    pass(1);
    expect(stands()).toBe(related);
    say(true, [1234, 21], 'R', 107, 0);
    pass(12);
    pass(1);
    expect([stands(), entries().filter((text) => text.includes(':21,'))]).toEqual([0, []]);
  });

  it('1, NAT: the entry’s answers come from the real server, to the end of the connection', () => {
    rig.engine.setSysctl('net.ipv4.vs.conntrack', '1');
    rig.run(`-A -t ${VIP}:80 -s rr`, `-a -t ${VIP}:80 -r ${RIP}:8080 -m`);
    open();
    expect(entries()).toEqual([`10.0.1.2:1234 > ${VIP}:80, ${RIP}:8080 > 10.0.1.2:1234`]);
    const { entries: table } = rig.engine.conntrack;
    expect(table.rows[(1 << 5) + 15]! & 0xff).toBe(3);
    client('R', 101);
    rig.clock.advance(seconds(12));
    rig.engine.breathe();
    expect([entries(), rig.engine.director.conns.count, rig.engine.flows.size]).toEqual([[], 0, 0]);
  });

  it('1, direct routing: answers are expected from the service', () => {
    rig.engine.setSysctl('net.ipv4.vs.conntrack', '1');
    rig.run(`-A -t ${VIP}:80 -s rr`, `-a -t ${VIP}:80 -r ${RIP}:80 -g`);
    client('S', 100);
    expect(entries()).toEqual([`10.0.1.2:1234 > ${VIP}:80, ${VIP}:80 > 10.0.1.2:1234`]);
  });

  it('1, a port that is used again, whose entry does not think so: the SYN ends both and is dropped, the next one begins anew', () => {
    rig.engine.setSysctl('net.ipv4.vs.conntrack', '1');
    rig.run(`-A -t ${VIP}:80 -s rr`, `-a -t ${VIP}:80 -r ${RIP}:8080 -m`);
    open();
    // A reset that is too old for tracking; the director believes every reset.
    client('R', 1);
    expect(client('S', 7000)).toEqual([]);
    expect(rig.engine.drops[Drop.DirectorOldEntry]).toBe(1);
    expect([entries(), rig.engine.director.conns.count]).toEqual([[], 0]);
    expect(client('S', 7000)[0]?.device).toBe('back');
    expect(entries()).toEqual([`10.0.1.2:1234 > ${VIP}:80, ${RIP}:8080 > 10.0.1.2:1234`]);
  });

  it('1, a port that is used again when both are over: tracking opens it again by itself', () => {
    rig.engine.setSysctl('net.ipv4.vs.conntrack', '1');
    rig.run(`-A -t ${VIP}:80 -s rr`, `-a -t ${VIP}:80 -r ${RIP}:8080 -m`);
    open();
    server('F.', 901, 101);
    client('F.', 101, 902);
    server('.', 902, 102);
    const before = rig.engine.director.conns.count;
    expect(client('S', 5000)[0]?.device).toBe('back');
    expect(entries()).toHaveLength(1);
    expect([before, rig.engine.director.conns.count]).toEqual([1, 1]);
  });

  it('a connection keeps what it began with', () => {
    rig.run(`-A -t ${VIP}:80 -s rr`, `-a -t ${VIP}:80 -r ${RIP}:8080 -m`);
    open();
    rig.engine.setSysctl('net.ipv4.vs.conntrack', '1');
    client('P.', 101, 901);
    expect(entries()).toEqual([]);
    client('S', 1, 0, 4321);
    expect(entries()).toHaveLength(1);
  });
});
