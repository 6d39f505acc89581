/** Rules of the five tables on packets that go through the whole engine: what they see, what they decide, and what they count. */
import { describe, expect, it } from 'vitest';
import { seconds } from '../base/clock.ts';
import { SeededRng } from '../base/rng.ts';
import { MemoryDevice } from '../device/memory.ts';
import type { TableCommand, TableOutcome } from '../model/iptables.ts';
import { Drop } from '../packet/drop.ts';
import { type FrameBuilder, frame, verifyFrame } from '../wire/build.ts';
import { explain } from './explain.ts';
import { CLIENT, FilterRig, OURS, SERVER, withRules } from './filter-rig.ts';

const ip = (src = '10.0.1.2', dst = '10.0.2.2'): FrameBuilder => frame().eth(OURS, CLIENT).ipv4(src, dst);
const tcp = (dstPort: number, flags = 'S', srcPort = 40000): FrameBuilder => ip().tcp({ srcPort, dstPort, flags });
const NONSENSE: TableCommand[] = [{ op: 'append', chain: 'FORWARD', rule: { words: ['--nonsense'] } }];
const udp = (dstPort: number, srcPort = 40000): FrameBuilder => ip().udp({ srcPort, dstPort });

describe('rules', () => {
  /** A rule of FORWARD, and which of these packets it counts: t80 TCP SYN to 80, t81 TCP ACK to 81, u53, ping. */
  const packets = { t80: tcp(80), t81: tcp(81, '.'), u53: udp(53), ping: ip().icmp({ type: 8, id: 1, seq: 1 }) };
  it.each([
    ['', 't80 t81 u53 ping'],
    ['-p tcp', 't80 t81'],
    ['! -p tcp', 'u53 ping'],
    ['-s 10.0.1.0/24', 't80 t81 u53 ping'],
    ['-s 10.0.1.3/32', ''],
    ['! -s 10.0.1.3/32', 't80 t81 u53 ping'],
    ['! -s 0.0.0.0/0', ''],
    ['-d 10.0.0.2/255.0.0.255', 't80 t81 u53 ping'],
    ['-i front', 't80 t81 u53 ping'],
    ['-i fr+ -o back', 't80 t81 u53 ping'],
    ['! -i front', ''],
    ['! -o front', 't80 t81 u53 ping'],
    ['-i back', ''],
    ['-f', ''],
    ['! -f', 't80 t81 u53 ping'],
    ['-p tcp -m tcp --dport 80', 't80'],
    ['-p tcp -m tcp ! --dport 80', 't81'],
    ['-p tcp -m tcp --sport 40000:40001 --dport 81:65535', 't81'],
    ['-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN', 't80'],
    ['-p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN', 't81'],
    ['-p tcp -m tcp --tcp-option 2', ''],
    ['-p tcp -m tcp ! --tcp-option 2', 't80 t81'],
    ['-p udp -m udp --dport 53', 'u53'],
    ['-p udp -m udp --sport 0:39999', ''],
    ['-p icmp -m icmp --icmp-type 8', 'ping'],
    ['-p icmp -m icmp --icmp-type any', 'ping'],
    ['-p icmp -m icmp ! --icmp-type 8', ''],
    ['-p tcp -m multiport --dports 79,80', 't80'],
    ['-p tcp -m multiport ! --ports 80,90:100', 't81'],
    ['-m mark --mark 0x0', 't80 t81 u53 ping'],
    ['-m mark ! --mark 0x0/0xff', ''],
    ['-m comment --comment x', 't80 t81 u53 ping'],
    ['-m ttl --ttl-eq 63', 't80 t81 u53 ping'],
    ['-m ttl ! --ttl-eq 63', ''],
    ['-m ttl --ttl-lt 63', ''],
    ['-m ttl --ttl-gt 62', 't80 t81 u53 ping'],
    ['-m addrtype --src-type UNICAST --dst-type UNICAST', 't80 t81 u53 ping'],
    ['-m addrtype --dst-type LOCAL,BROADCAST', ''],
    ['-m addrtype ! --dst-type MULTICAST', 't80 t81 u53 ping'],
  ])('%s: %s', (words, expected) => {
    const rig = withRules('filter', `-A FORWARD${words === '' ? '' : ` ${words}`}`);
    const counted: string[] = [];
    for (const [name, packet] of Object.entries(packets)) {
      const [before] = rig.counts('filter', 'FORWARD');
      expect(rig.send(packet)).toHaveLength(1);
      if (rig.counts('filter', 'FORWARD')[0]! > before!) counted.push(name);
    }
    expect(counted.join(' ')).toBe(expected);
    expect(rig.counts('filter', 'FORWARD')[1]).toBe(4);
  });

  it('ends a packet that is cut off where a match looks', () => {
    const rig = withRules('filter', '-A FORWARD -p tcp -m tcp --dport 80 -j ACCEPT');
    const whole = frame().eth(OURS, CLIENT).ipv4('10.0.1.2', '10.0.2.2', { proto: 6 }).payload(8);
    expect(rig.send(whole)).toEqual([]);
    expect(rig.engine.drops[Drop.FilterHotDrop]).toBe(1);
  });

  const sctpOf = (...chunks: number[]) => [0, 7, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, ...chunks];
  const init = [1, 0, 0, 4];
  it.each([
    ['an ICMP header', 1, '-m icmp --icmp-type 8', [8, 0, 0, 0], 'ends'],
    ['no chunk at all', 132, '-m sctp --chunk-types any INIT', sctpOf(), 'ends'],
    ['no chunk at all, and nobody asks', 132, '-m sctp --sport 7', sctpOf(), 'counts'],
    ['a chunk of no length', 132, '-m sctp --chunk-types only INIT', sctpOf(1, 0, 0, 0, ...init), 'ends'],
    ['a chunk shorter than its header', 132, '-m sctp --chunk-types all INIT', sctpOf(3, 0, 0, 2, ...init), 'counts'],
    ['half a chunk header behind others', 132, '-m sctp --chunk-types only INIT', sctpOf(...init, 1, 0), 'ends'],
    ['half a chunk header behind what was wanted', 132, '-m sctp --chunk-types any INIT', sctpOf(...init, 1), 'counts'],
    ['less than all', 132, '-m sctp --chunk-types all INIT,SACK', sctpOf(...init), 'passes'],
  ])('%s', (_, proto, words, bytes, what) => {
    const rig = withRules('filter', `-A FORWARD -p ${proto} ${words}`);
    const packet = frame().eth(OURS, CLIENT).ipv4('10.0.1.2', '10.0.2.2', { proto }).payload(Uint8Array.from(bytes));
    expect(rig.send(packet)).toHaveLength(what === 'ends' ? 0 : 1);
    expect(rig.engine.drops[Drop.FilterHotDrop]).toBe(what === 'ends' ? 1 : 0);
    expect(rig.counts('filter', 'FORWARD')[0]).toBe(what === 'counts' ? 1 : 0);
  });
});

describe('chains', () => {
  it('returns behind a jump, and from a goto to where its caller would have returned', () => {
    const rig = withRules(
      'filter',
      '-N a',
      '-N b',
      '-N c',
      '-A FORWARD -j a',
      '-A FORWARD -m comment --comment after-a',
      '-A a -g b',
      '-A a -m comment --comment skipped',
      '-A b -j c',
      '-A b -m comment --comment after-c',
      '-A c -p udp -j RETURN',
      '-A c -j ACCEPT',
    );
    expect(rig.send(udp(53))).toHaveLength(1);
    expect(rig.counts('filter', 'FORWARD')).toEqual([1, 1, 1]);
    expect(rig.counts('filter', 'a')).toEqual([1, 0]);
    expect(rig.counts('filter', 'b')).toEqual([1, 1]);
    expect(rig.counts('filter', 'c')).toEqual([1, 0]);
    // ACCEPT ends it at any depth, and no policy counts it.
    expect(rig.send(tcp(80))).toHaveLength(1);
    expect(rig.counts('filter', 'FORWARD')).toEqual([2, 1, 1]);
    expect(rig.counts('filter', 'c')).toEqual([1, 1]);
  });

  it('takes chains as deep as there are many, and refuses a loop through all of them', () => {
    const rig = new FilterRig();
    const deepest = 9999;
    const chains = Array.from({ length: deepest + 1 }, (_, i) => `-N c${i}`);
    const jumps = Array.from({ length: deepest }, (_, i) => `-A c${i} -j c${i + 1}`);
    rig.rules('filter', ...chains, ...jumps, '-A FORWARD -j c0', `-A c${deepest} -p tcp -j DROP`, '-A FORWARD');
    expect(rig.send(tcp(80))).toEqual([]);
    expect(rig.send(udp(53))).toHaveLength(1);
    expect(rig.counts('filter', `c${deepest}`)).toEqual([1]);
    expect(rig.counts('filter', 'FORWARD')).toEqual([2, 1, 1]);
    const loop = [{ op: 'append', chain: `c${deepest}`, rule: { words: ['-j', 'c0'] } }] as const;
    expect(rig.engine.filter.change({ table: 'filter', commands: loop })).toEqual({ index: -1, fault: 'ELOOP' });
    expect(rig.counts('filter', `c${deepest}`)).toEqual([1]);
  });

  it('says the policy at RETURN in a built-in chain, and at the end of a goto from one', () => {
    const rig = withRules(
      'filter',
      '-N a',
      '-P FORWARD DROP',
      '-A FORWARD -p tcp -j RETURN',
      '-A FORWARD -g a',
      '-A FORWARD',
    );
    expect(rig.send(tcp(80))).toEqual([]);
    expect(rig.send(udp(53))).toEqual([]);
    expect(rig.counts('filter', 'FORWARD')).toEqual([1, 1, 0, 2]);
    expect(rig.engine.drops[Drop.FilterPolicy]).toBe(2);
  });

  it('asks the tables in their order, and drops by name', () => {
    const rig = withRules('raw', '-A PREROUTING -j MARK --set-xmark 0x1/0xffffffff');
    rig.rules('mangle', '-A PREROUTING -m mark --mark 0x1 -j MARK --set-xmark 0x2/0x0', '-A FORWARD', '-A POSTROUTING');
    rig.rules('filter', '-A FORWARD -m mark --mark 0x3 -j ACCEPT');
    rig.rules('security', '-A FORWARD -p tcp -j DROP');
    expect(rig.send(udp(53))).toHaveLength(1);
    expect(rig.send(tcp(80))).toEqual([]);
    expect(rig.counts('filter', 'FORWARD')).toEqual([2, 0]);
    expect(rig.counts('mangle', 'FORWARD')).toEqual([2, 2]);
    expect(rig.counts('mangle', 'POSTROUTING')).toEqual([1, 1]);
    expect(rig.engine.drops[Drop.FilterRule]).toBe(1);
  });

  it.each([
    ['a list', (rig: FilterRig) => rig.counts('mangle', 'FORWARD')],
    ['a change that is refused', (rig: FilterRig) => rig.engine.filter.change({ table: 'mangle', commands: NONSENSE })],
    ['rules that are gone again', (rig: FilterRig) => rig.rules('mangle', '-A FORWARD -j ACCEPT', '-F')],
  ])('a table is there, and its policies count, from the first question for it on: %s', (_, ask) => {
    const rig = new FilterRig();
    const names = (): string[] => rig.engine.hooks.forward.ops.map(({ name }) => name);
    rig.send(udp(53));
    expect(names()).not.toContain('filter/mangle');
    ask(rig);
    expect(names()).toContain('filter/mangle');
    expect(names()).not.toContain('filter/filter');
    rig.send(udp(53));
    expect(rig.counts('mangle', 'FORWARD')).toEqual([1]);
    expect(rig.engine.filter.knownTables).toEqual(['mangle']);
  });

  it('finds its way through long chains, and out of others into them again', () => {
    const rig = new FilterRig();
    const others = Array.from({ length: 60 }, (_, i) => `-A FORWARD -s 10.9.0.${i}/32 -j DROP`);
    const ports = Array.from({ length: 60 }, (_, i) => `-A long -p tcp -m tcp --dport ${1000 + i} -j DROP`);
    rig.rules(
      'filter',
      '-N long',
      ...others,
      '-A FORWARD -p tcp -j long',
      ...others,
      '-A FORWARD',
      ...ports,
      '-A long -i front',
    );
    expect(rig.send(tcp(80))).toHaveLength(1);
    expect(rig.send(tcp(1059))).toEqual([]);
    expect(rig.send(udp(1059))).toHaveLength(1);
    const forward = rig.counts('filter', 'FORWARD');
    expect(forward.map((count, i) => [i, count]).filter(([, count]) => count !== 0)).toEqual([
      [60, 2],
      [121, 2],
      [122, 2],
    ]);
    const long = rig.counts('filter', 'long');
    expect(long.map((count, i) => [i, count]).filter(([, count]) => count !== 0)).toEqual([
      [59, 1],
      [60, 1],
    ]);
    // What is cut off ends at the first match that looks where nothing is, as without an index.
    expect(rig.send(frame().eth(OURS, CLIENT).ipv4('10.0.1.2', '10.0.2.2', { proto: 6 }).payload(8))).toEqual([]);
    expect(rig.engine.drops[Drop.FilterHotDrop]).toBe(1);
  });

  it('finds rules by devices as if it asked them one by one, whatever devices come and go', () => {
    const rig = new FilterRig();
    const { engine } = rig;
    const rng = new SeededRng(5);
    const one = (of: readonly string[]): string => of[(rng.next() >>> 0) % of.length]!;
    const names = ['front', 'back', 'fr+', 'f+', 'b+', '+', 'spare', 'spare+', 'eth0'];
    const option = (flag: string): string => one([`${flag} ${one(names)} `, `! ${flag} ${one(names)} `, '']);
    const rules = Array.from({ length: 600 }, () => {
      const words = `${option('-i')}${option('-o')}${one(['-p tcp', '-p udp', '-s 10.0.1.0/24', ''])}`.trim();
      return words === '' ? '-p tcp' : words;
    });
    rig.rules('mangle', ...rules.map((words) => `-A FORWARD ${words}`), ...rules.map((words) => `-A INPUT ${words}`));
    // The same in chains that are too short for an index.
    const parts = Array.from({ length: 30 }, (_, i) => rules.slice(20 * i, 20 * i + 20));
    const inParts = parts.flatMap((some, i) => [
      `-N c${i}`,
      ...some.map((words) => `-A c${i} ${words}`),
      `-A FORWARD -j c${i}`,
      `-A INPUT -j c${i}`,
    ]);
    rig.rules('filter', ...inParts);
    const send = (): void => {
      for (const port of [80, 81]) {
        rig.send(tcp(port));
        rig.send(ip('10.0.1.2', '10.0.1.1').udp({ srcPort: 1, dstPort: port }));
        rig.sendBack(
          frame().eth('02:00:00:00:02:01', SERVER).ipv4('10.0.2.2', '10.0.1.2').udp({ srcPort: 1, dstPort: port }),
        );
      }
    };
    const spare = (name: string): void => {
      engine.addDevice(new MemoryDevice(engine.pool, { name, macHi: 0x0200, macLo: 9, drops: engine.drops }));
    };
    const through = (): [number[], number[]] => {
      const [forward, input] = [rig.counts('mangle', 'FORWARD'), rig.counts('mangle', 'INPUT')];
      const indexed = rules.map((_, i) => forward[i]! + input[i]!);
      return [indexed, parts.flatMap((_, i) => rig.counts('filter', `c${i}`))];
    };
    send();
    spare('spare');
    send();
    engine.removeDevice('spare');
    spare('front2');
    send();
    const [indexed, walked] = through();
    expect(indexed).toEqual(walked);
    expect(indexed.filter((count) => count > 0).length).toBeGreaterThan(100);
    expect(indexed.filter((count) => count === 0).length).toBeGreaterThan(50);
  });

  it('counts a super-packet once, with all its bytes', () => {
    const rig = withRules('filter', '-A FORWARD');
    rig.send(tcp(80).payload(1000));
    const [rule] = rig.engine.filter.list('filter').chains.find(({ name }) => name === 'FORWARD')!.rules;
    expect(rule).toMatchObject({ packets: 1, bytes: 1040 });
  });
});

describe('REJECT', () => {
  it.each([
    ['', 'unreachable 3/3'],
    ['--reject-with icmp-net-unreachable', 'unreachable 3/0'],
    ['--reject-with icmp-host-prohibited', 'unreachable 3/10'],
    ['--reject-with icmp-admin-prohibited', 'unreachable 3/13'],
  ])('%s', (option, expected) => {
    const rig = withRules('filter', `-A FORWARD -p udp -j REJECT${option === '' ? '' : ` ${option}`}`);
    const [answer] = rig.send(udp(53));
    const [type, code] = expected.split(' ')[1]!.split('/');
    expect(answer).toContain('10.0.1.1 > 10.0.1.2');
    expect(answer).toMatch(new RegExp(`icmp.*${type}.*${code}`, 'i'));
    expect(rig.engine.drops[Drop.FilterRejected]).toBe(1);
  });

  it('resets a TCP connection, but never answers a reset', () => {
    const rig = withRules('filter', '-A FORWARD -p tcp -j REJECT --reject-with tcp-reset');
    const [answer, ...others] = rig.send(tcp(80));
    expect(others).toEqual([]);
    expect(answer).toContain('10.0.2.2.80 > 10.0.1.2.40000');
    expect(answer).toContain('[R.]');
    expect(rig.send(tcp(80, 'R'))).toEqual([]);
  });

  it('tells nobody of the connection that its reset ends, and gives the reset no type of service', () => {
    const rig = withRules('filter', '-A FORWARD -p tcp -m conntrack --ctstate NEW -j REJECT --reject-with tcp-reset');
    const told: number[] = [];
    rig.engine.conntrack.sink = (_entry, changes) => told.push(changes);
    const packet = frame().eth(OURS, CLIENT).ipv4('10.0.1.2', '10.0.2.2', { tos: 0x10 });
    const [answer] = rig.send(packet.tcp({ srcPort: 40000, dstPort: 80, flags: 'S' }));
    expect(answer).toMatch(/IP 10\.0\.2\.2\.80 > 10\.0\.1\.2\.40000: tcp \[R\.\] .*\(ttl 64 id 0 DF\)/);
    expect(told).toEqual([]);
    expect(rig.engine.conntrack.entries.count).toBe(0);
  });

  it('says nothing about a datagram with a wrong checksum', () => {
    const rig = withRules('filter', '-A FORWARD -j REJECT');
    const bytes = udp(53).payload(4).build();
    bytes[bytes.length - 1]! ^= 1;
    rig.front.inject(bytes);
    rig.engine.breathe();
    expect(rig.front.takeSent()).toEqual([]);
    expect(rig.engine.drops[Drop.FilterRejected]).toBe(1);
  });
});

describe('addrtype', () => {
  it.each([
    ['10.0.1.1', '--dst-type LOCAL', 1],
    ['10.0.1.1', '--dst-type LOCAL --limit-iface-in', 1],
    ['10.0.2.1', '--dst-type LOCAL', 1],
    ['10.0.2.1', '--dst-type LOCAL --limit-iface-in', 0],
    ['10.0.2.1', '--dst-type UNICAST --limit-iface-in', 1],
    ['10.0.2.255', '--dst-type BROADCAST', 1],
    ['255.255.255.255', '--dst-type BROADCAST', 1],
    ['224.0.0.1', '--dst-type MULTICAST', 1],
    ['10.9.9.9', '--dst-type UNICAST', 1],
  ])('%s %s: %d', (dst, words, expected) => {
    const rig = withRules('mangle', `-A PREROUTING -m addrtype ${words}`);
    rig.send(ip('10.0.1.2', dst).udp({ srcPort: 1, dstPort: 2 }));
    expect(rig.counts('mangle', 'PREROUTING')[0]).toBe(expected);
  });
});

describe('LOG', () => {
  function lines(rule: string, packet: FrameBuilder): [number, string][] {
    const rig = new FilterRig();
    const said: [number, string][] = [];
    rig.engine.logLines.sink = (level, text) => said.push([level, text]);
    rig.rules('filter', rule);
    expect(rig.send(packet)).toHaveLength(1);
    return said;
  }

  it('says a packet as the kernel does, and lets it go on', () => {
    const mac = '02:00:00:00:01:01:02:00:00:00:01:02:08:00';
    expect(lines('-A FORWARD -j LOG --log-prefix x:', tcp(80))).toEqual([
      [
        4,
        `x:IN=front OUT=back MAC=${mac} SRC=10.0.1.2 DST=10.0.2.2 LEN=40 TOS=0x00 PREC=0x00 TTL=63 ID=0 PROTO=TCP SPT=40000 DPT=80 WINDOW=65535 RES=0x00 SYN URGP=0 `,
      ],
    ]);
    expect(lines('-A FORWARD -j LOG --log-level 6', udp(53).payload(4))).toEqual([
      [
        6,
        `IN=front OUT=back MAC=${mac} SRC=10.0.1.2 DST=10.0.2.2 LEN=32 TOS=0x00 PREC=0x00 TTL=63 ID=0 PROTO=UDP SPT=40000 DPT=53 LEN=12 `,
      ],
    ]);
    const [[, ping] = []] = lines('-A FORWARD -j LOG', ip().icmp({ type: 8, id: 7, seq: 2 }));
    expect(ping).toContain('PROTO=ICMP TYPE=8 CODE=0 ID=7 SEQ=2 ');
  });

  it('does not let a flood through, and says how much it left out', () => {
    const rig = new FilterRig();
    let count = 0;
    rig.engine.logLines.sink = () => count++;
    rig.rules('filter', '-A FORWARD -p udp -j LOG', '-A FORWARD -p udp -j DROP');
    for (let i = 0; i < 1100; i++) rig.send(udp(53));
    expect(count).toBe(1000);
    rig.clock.advance(seconds(1));
    const said: string[] = [];
    rig.engine.logLines.sink = (_level, text) => said.push(text);
    rig.send(udp(53));
    expect(said[0]).toContain('100 lines about packets were left out');
    expect(said).toHaveLength(2);
  });
});

describe('TCPMSS', () => {
  const MSS_1460 = [2, 4, 5, 0xb4];
  const syn = (options: number[]): FrameBuilder => ip().tcp({ srcPort: 40000, dstPort: 80, flags: 'S', options });
  it.each([
    ['--set-mss 1400', MSS_1460, [2, 4, 5, 0x78]],
    ['--set-mss 1500', MSS_1460, MSS_1460],
    ['--clamp-mss-to-pmtu', [2, 4, 0xff, 0xff], MSS_1460],
    ['--clamp-mss-to-pmtu', [1, 2, 4, 0xff, 0xff, 1, 1, 1], [1, ...MSS_1460, 1, 1, 1]],
    ['--set-mss 1400', [], [2, 4, 2, 0x18]],
    ['--set-mss 400', [4, 2, 1, 1], [2, 4, 1, 0x90, 4, 2, 1, 1]],
  ])('%s: options %j become %j', (words, options, expected) => {
    const rig = withRules('mangle', `-A FORWARD -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS ${words}`);
    rig.front.inject(syn([...options]).build());
    rig.engine.breathe();
    const [sent] = rig.back.takeSent();
    expect(verifyFrame(sent!.bytes)).toEqual([]);
    expect([...sent!.bytes.subarray(54)]).toEqual(expected);
  });
});

it('TCPMSS drops a segment whose header says that it is shorter than one', () => {
  const rig = withRules('mangle', '-A FORWARD -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --set-mss 1400');
  const bytes = tcp(80).build();
  bytes[46] = 0x40;
  rig.front.inject(bytes);
  rig.engine.breathe();
  expect(rig.back.takeSent()).toEqual([]);
  expect(rig.engine.drops[Drop.FilterRule]).toBe(1);
});

describe('marks and services', () => {
  it('balances what mangle marks (iptables -j MARK, ipvsadm -A -f)', () => {
    const rig = withRules(
      'mangle',
      '-A PREROUTING -d 10.0.1.1/32 -p tcp -m tcp --dport 80 -j MARK --set-xmark 0x1/0xffffffff',
    );
    const service = { kind: 'fwmark', fwmark: 1, family: 4 } as const;
    expect(
      rig.engine.executeIpvs([
        { op: 'add-service', service: { key: service, scheduler: 'rr', schedulerFlags: 0, ops: false } },
        {
          op: 'add-server',
          service,
          server: {
            key: { address: '10.0.2.2', port: 0 },
            method: 'masq',
            weight: 1,
            upperThreshold: 0,
            lowerThreshold: 0,
          },
        },
      ]),
    ).toEqual([null, null]);
    const syn = (dstPort: number): FrameBuilder =>
      ip('10.0.1.2', '10.0.1.1').tcp({ srcPort: 40000, dstPort, flags: 'S' });
    expect(rig.send(syn(80))[0]).toContain('10.0.1.2.40000 > 10.0.2.2.80');
    expect(rig.send(syn(81)).join()).not.toContain('10.0.2.2');
  });
});

describe('explain', () => {
  it('meets the rules, changes no counter, and names the rule that drops', () => {
    const rig = withRules('filter', '-A FORWARD -p udp', '-A FORWARD -p tcp -m tcp --dport 80 -j DROP');
    const answer = explain(rig.engine, {
      protocol: 'tcp',
      source: '10.0.1.2',
      destination: '10.0.2.2',
      sourcePort: 1,
      destinationPort: 80,
      flags: 'S',
      chunk: 1,
      mark: 0,
      ttl: 64,
      length: 0,
      df: false,
    });
    expect(JSON.stringify(answer)).toContain('-A FORWARD -p tcp -m tcp --dport 80 -j DROP');
    expect(rig.counts('filter', 'FORWARD')).toEqual([0, 0, 0]);
  });
});

describe('changes', () => {
  it('takes all commands or none', () => {
    const rig = new FilterRig();
    const append = (chain: string, ...words: string[]): TableCommand => ({ op: 'append', chain, rule: { words } });
    const change = (...commands: TableCommand[]) => rig.engine.filter.change({ table: 'filter', commands });
    expect(change(append('INPUT', '-j', 'DROP'), append('nowhere', '-j', 'DROP'))).toEqual({
      index: 1,
      fault: 'ENOENT',
    });
    expect(rig.counts('filter', 'INPUT')).toEqual([0]);
    expect(change(append('INPUT', '-j', 'nothing'))).toMatchObject({ index: 0, fault: 'NO-TARGET', what: 'nothing' });
    expect(change(append('INPUT', '--nonsense'))).toMatchObject({ index: 0, fault: 'BAD-WORDS' });
    expect(change(append('INPUT', '-L'))).toMatchObject({ fault: 'BAD-WORDS' });
    expect(change(append('INPUT', '-m', 'tcp'))).toEqual({ index: -1, fault: 'EINVAL' });
  });

  it('looks at no rule behind one that ends every packet; `-i +` is a condition, though it saves as none', () => {
    const tryBehind = (...words: string[]) => {
      const rules = [words, ['-j', 'MASQUERADE']];
      const commands = rules.map(
        (rule): TableCommand => ({ op: 'append', chain: 'PREROUTING', rule: { words: rule } }),
      );
      return new FilterRig().engine.filter.change({ table: 'nat', commands });
    };
    expect(tryBehind('-j', 'ACCEPT')).toBeNull();
    expect(tryBehind('-j', 'RETURN')).toBeNull();
    expect(tryBehind('-i', '+', '-j', 'ACCEPT')).toEqual({ index: -1, fault: 'EINVAL' });
    expect(tryBehind('-o', '+', '-j', 'RETURN')).toEqual({ index: -1, fault: 'EINVAL' });
    expect(tryBehind('-p', 'tcp', '-j', 'ACCEPT')).toEqual({ index: -1, fault: 'EINVAL' });
    expect(tryBehind('-m', 'comment', '--comment', 'x', '-j', 'ACCEPT')).toEqual({ index: -1, fault: 'EINVAL' });
  });

  it('takes no rule larger than a rule can be, and finds a list of addresses out before it makes a rule for each', () => {
    const { engine } = new FilterRig();
    const add = (...words: string[]) => {
      const commands: TableCommand[] = [{ op: 'append', chain: 'INPUT', rule: { words } }];
      return engine.filter.change({ table: 'filter', commands });
    };
    const matches = (count: number) => Array.from({ length: count }, () => ['-m', 'ttl', '--ttl-eq', '5']).flat();
    expect(add(...matches(1634), '-j', 'DROP')).toBeNull();
    expect(add(...matches(1635), '-j', 'DROP')).toEqual({ index: -1, fault: 'EINVAL' });
    const hosts = Array.from({ length: 5000 }, (_, i) => `10.0.${i >> 8}.${i & 255}`).join(',');
    const notOne = { index: 0, fault: 'BAD-WORDS', what: 'not one rule' };
    expect(add('-s', hosts, '-d', hosts, '-j', 'DROP')).toEqual(notOne);
    expect(add('-m', 'comment', '--comment', 'x'.repeat(2 ** 19))).toEqual({ index: 0, fault: 'EINVAL' });
  });

  it('are made in small steps, between which packets meet and count at the old rules', () => {
    const rig = new FilterRig();
    const { filter } = rig.engine;
    rig.rules('filter', '-A FORWARD -p tcp', '-A FORWARD -p udp -j DROP');
    const commands = Array.from(
      { length: 5000 },
      (_, i): TableCommand => ({
        op: 'append',
        chain: i % 2 === 0 ? 'FORWARD' : 'INPUT',
        rule: { words: `-s 10.9.${i >> 8}.${i & 255} -p udp -j ACCEPT`.split(' ') },
      }),
    );
    const steps = filter.changeInSteps({
      table: 'filter',
      commands: [{ op: 'delete-at', chain: 'FORWARD', at: 2 }, ...commands],
    });
    let pauses = 0;
    let passed = 0;
    while (steps.next().done !== true) {
      if (pauses++ % 20 !== 0) continue;
      passed += rig.send(tcp(80)).length;
      expect(rig.send(udp(53))).toEqual([]);
    }
    // 64 commands between two pauses, as many rules that are checked, and blocks of 1,024.
    expect(pauses).toBeGreaterThan(2 * (5000 / 64 - 1));
    expect(rig.send(udp(53))).toHaveLength(1);
    expect(passed).toBeGreaterThan(5);
    expect(rig.counts('filter', 'FORWARD')[0]).toBe(passed);
    expect(rig.counts('filter', 'FORWARD')).toHaveLength(2502);
  });

  it('look at a long chain some rules at a time', () => {
    const rig = new FilterRig();
    const { filter } = rig.engine;
    const rule = (i: number) => ({ words: `-s 10.9.${i >> 8}.${i & 255}/32 -i eth${i} -j DROP`.split(' ') });
    const appends = Array.from(
      { length: 10_000 },
      (_, i): TableCommand => ({ op: 'append', chain: 'FORWARD', rule: rule(i) }),
    );
    expect(filter.change({ table: 'filter', commands: appends })).toBeNull();
    const pausesOf = (command: TableCommand, outcome: TableOutcome): number => {
      const steps = filter.changeInSteps({ table: 'filter', commands: [command] });
      for (let pauses = 0; ; pauses++) {
        const { done, value } = steps.next();
        if (done !== true) continue;
        expect(value).toEqual(outcome);
        return pauses;
      }
    };
    const chain = 'FORWARD';
    const first = pausesOf({ op: 'check', chain, rule: rule(0) }, null);
    const pieces = Math.floor(10_000 / 1024);
    expect(pausesOf({ op: 'check', chain, rule: rule(9999) }, null)).toBe(first + pieces);
    const none = pausesOf({ op: 'delete', chain, rule: rule(20_000) }, { index: 0, fault: 'NO-RULE' });
    expect(none).toBeGreaterThanOrEqual(pieces);
    const deleted = pausesOf({ op: 'delete-at', chain, at: 1 }, null);
    expect(pausesOf({ op: 'delete', chain, rule: rule(9999) }, null)).toBe(deleted + pieces);
    expect(pausesOf({ op: 'zero', chain }, null)).toBe(deleted + pieces);
    expect(rig.counts('filter', 'FORWARD')).toHaveLength(9999);
    // One device of the ten thousand that rules name is there.
    rig.engine.addDevice(new MemoryDevice(rig.engine.pool, { name: 'eth777', macHi: 0x0200, macLo: 9 }));
    expect(rig.send(udp(53))).toHaveLength(1);
    expect(rig.rules('filter', '-I FORWARD -i fro+ -j DROP')).toBeUndefined();
    expect(rig.send(udp(53))).toEqual([]);
  });

  it('keeps what rules have counted while others come and go', () => {
    const rig = withRules('filter', '-A FORWARD -p udp');
    rig.send(udp(53));
    rig.rules('filter', '-A FORWARD -p tcp');
    expect(rig.counts('filter', 'FORWARD')).toEqual([1, 0, 0]);
    // Where they stand, and what their chain is called, makes no difference; a rule that is set to zero, or made anew, begins again.
    rig.rules('filter', '-N a', '-A a -p udp', '-A FORWARD -j a');
    rig.send(udp(53));
    const { filter } = rig.engine;
    const rule = { words: ['-p', 'icmp'], counters: { packets: 7, bytes: 8 } };
    const change = (...commands: TableCommand[]) => expect(filter.change({ table: 'filter', commands })).toBeNull();
    change(
      { op: 'insert', chain: 'FORWARD', at: 1, rule },
      { op: 'delete-at', chain: 'FORWARD', at: 3 },
      { op: 'rename-chain', chain: 'a', to: 'b' },
    );
    rig.send(udp(53));
    expect([rig.counts('filter', 'FORWARD'), rig.counts('filter', 'b')]).toEqual([[7, 3, 2, 1], [2]]);
    change({ op: 'zero', chain: 'FORWARD', at: 2 });
    rig.send(udp(53));
    expect([rig.counts('filter', 'FORWARD'), rig.counts('filter', 'b')]).toEqual([[7, 1, 3, 1], [3]]);
  });

  it('are listed in pages, which together are the list, and stay what they were while the table changes', () => {
    const rig = new FilterRig();
    const { filter } = rig.engine;
    const lines = Array.from(
      { length: 50 },
      (_, i) => `-A ${['INPUT', 'FORWARD', 'a'][i % 3]} -s 10.9.0.${i} -j RETURN`,
    );
    rig.rules('filter', '-N a', '-N empty', ...lines, '-A FORWARD -p udp -j a', '-P OUTPUT DROP');
    rig.send(udp(53));
    const whole = filter.list('filter').chains;
    expect(whole.map(({ rules, references }) => [rules.length, references])).toEqual([
      [17, 0],
      [18, 0],
      [0, 0],
      [16, 1],
      [0, 0],
    ]);
    for (const limit of [1, 2, 7, 18, 56, 57, 1000]) {
      const chains = [...filter.pages('filter', limit)].flat();
      const names = [...new Set(chains.map(({ name }) => name))];
      const joined = names.map((name) => {
        const parts = chains.filter((chain) => chain.name === name);
        return { ...parts[0]!, rules: parts.flatMap(({ rules }) => rules) };
      });
      expect(joined).toEqual(whole);
    }
    const pages = filter.pages('filter', 10)[Symbol.iterator]();
    const seen = [...(pages.next().value as typeof whole)];
    expect(filter.change({ table: 'filter', commands: [{ op: 'flush' }] })).toBeNull();
    for (let page = pages.next(); page.done !== true; page = pages.next()) seen.push(...page.value);
    expect(seen.flatMap(({ rules }) => rules)).toEqual(whole.flatMap(({ rules }) => rules));
  });
});
