import { describe, expect, it } from 'vitest';
import { seconds } from '../base/clock.ts';
import { SeededRng } from '../base/rng.ts';
import { MATCHES, TARGETS } from '../filter/registry.ts';
import { BUILT_IN_CHAINS, TABLE_NAMES, type TableCommand } from '../model/iptables.ts';
import { frame } from '../wire/build.ts';
import { CLIENT, FilterRig, OURS } from './filter-rig.ts';

const VALUES = [
  '0', '1', '5', '80', '80:90', '1,2,3', '64', '255', '256', '0x10/0xff', '-1', '', 'x', 'tcp', 'udp', 'icmp', 'sctp', '17', '10.0.1.2',
  '10.0.0.0/8', '10.0.2.2-10.0.2.9:80-90', ':5', '1.2.3.4:80', 'ACCEPT', 'DROP', 'U', 'INPUT', 'NEW', 'ESTABLISHED,RELATED', 'SNAT', 'LOCAL',
  'REPLY', 'SYN', 'ALL', 'NONE', 'FIN,SYN', 'any', 'only', 'INIT,DATA:Be', 'ftp', 'mark', 'new,destroy', 'tcp-reset', 'icmp-port-unreachable', '8/0',
  'front', 'ba+', '+', '\u0000', '💥', 'a b', '"', '!',
]; // biome-ignore format: a list
const HEADER = [
  '-s',
  '-d',
  '-p',
  '-i',
  '-o',
  '-f',
  '-j',
  '-g',
  '-m',
  '!',
  '-c',
  '--',
  '-t',
  '-A',
  '-L',
  '-h',
  '-V',
  '-w',
];

function vocabulary(): string[] {
  const extensions = [...MATCHES, ...TARGETS];
  return [
    ...VALUES,
    ...HEADER,
    ...HEADER,
    ...extensions.map(({ name }) => name),
    ...extensions.flatMap(({ options }) => options.map(({ name }) => `--${name}`)),
  ];
}

describe('whatever is said', () => {
  it('is a rule or is refused, and no packet meets a rule that throws', () => {
    const rng = new SeededRng(7);
    const below = (n: number): number => (rng.next() >>> 0) % n;
    const one = <T>(list: readonly T[]): T => list[below(list.length)]!;
    const words = vocabulary();
    const extensions = { '-m': MATCHES, '-j': TARGETS } as const;
    /** Half nonsense, half an extension with options of its own and random values. */
    const rule = (): string[] => {
      if (below(4) === 0) return Array.from({ length: below(6) }, () => one(words));
      const kind = one(['-m', '-j'] as const);
      const { name, options } = one<(typeof MATCHES)[number] | (typeof TARGETS)[number]>(extensions[kind]);
      const own = Array.from({ length: below(3) }, () =>
        options.length === 0 ? [] : [`--${one(options).name}`, one(VALUES)],
      );
      const proto = below(2) === 0 ? [] : ['-p', one(['tcp', 'udp', 'icmp', 'sctp'])];
      return [...proto, kind, name, ...own.flat(), ...(below(3) === 0 ? ['-j', one(['ACCEPT', 'RETURN', 'U'])] : [])];
    };
    const rig = new FilterRig();
    const free = rig.engine.pool.available;
    let taken = 0;
    for (let round = 0; round < 40; round++) {
      const table = one(TABLE_NAMES);
      rig.engine.filter.change({ table, commands: [{ op: 'make-chain', chain: 'U' }] });
      for (let i = 0; i < 60; i++) {
        const chain = one([...BUILT_IN_CHAINS[table], 'U', 'nowhere']);
        const command: TableCommand = { op: 'append', chain, rule: { words: rule() } };
        const outcome = rig.engine.filter.change({ table, commands: [command] });
        if (outcome === null) taken++;
        else expect(outcome.fault).toMatch(/^(E[A-Z0-9]+|NO-[A-Z]+|BAD-WORDS)$/);
      }
      for (let i = 0; i < 20; i++) {
        const proto = one([1, 6, 17, 132, 47, 50, 51, 136, 99]);
        const packet = frame()
          .eth(OURS, CLIENT)
          .ipv4('10.0.1.2', one(['10.0.2.2', '10.0.1.1', '10.0.2.3', '255.255.255.255']), {
            proto,
            ttl: 1 + below(80),
          });
        rig.send(packet.payload(Uint8Array.from({ length: below(60) }, () => below(256))));
      }
    }
    expect(taken).toBeGreaterThan(100);
    // Nothing stays behind: what waits for a neighbour that does not answer has ended by then.
    for (let i = 0; i < 100; i++) {
      rig.clock.advance(seconds(1));
      rig.engine.breathe();
    }
    rig.front.takeSent();
    rig.back.takeSent();
    expect(rig.engine.pool.available).toBe(free);
  });
});
