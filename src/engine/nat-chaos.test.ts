/** Anything at all through tracking, translation, helpers and reassembly: nothing throws, every packet is accounted for, and all memory comes back. */
import { describe, expect, it } from 'vitest';
import { seconds } from '../base/clock.ts';
import { SeededRng } from '../base/rng.ts';
import { type FrameBuilder, frame } from '../wire/build.ts';
import { ExplainRig, RIG_MAC } from './explain-rig.ts';

const RULES: readonly (readonly ['raw' | 'nat' | 'filter', string])[] = [
  ['raw', '-A PREROUTING -p tcp --dport 21 -j CT --helper ftp'],
  ['raw', '-A PREROUTING -p udp --dport 69 -j CT --helper tftp'],
  ['nat', '-A PREROUTING -d 10.0.1.100 -p udp --dport 53 -j DNAT --to-destination 10.0.2.11-10.0.2.13:5000-5002'],
  ['nat', '-A PREROUTING -d 10.0.1.101 -j REDIRECT'],
  ['nat', '-A POSTROUTING -o back -p udp -j SNAT --to-source 10.0.2.100-10.0.2.101:4000-4003'],
  ['nat', '-A POSTROUTING -o back -j MASQUERADE --random'],
  ['nat', '-A POSTROUTING -o front -j SNAT --to-source 10.0.1.77'],
  ['filter', '-A FORWARD -m conntrack --ctstate INVALID -j DROP'],
];
const LINES = [
  'PORT 10,0,1,2,195,80\r\n',
  '227 (10,0,2,11,195,81)\r\n',
  'EPRT |1|10.0.1.2|50000|\r\n',
  '229 (|||5|)\r\n',
  'PORT 1,2',
  'x',
];

describe.each([1, 2, 3, 4, 5, 6])('seed %i', (seed) => {
  it('everything ends', () => {
    const rig = new ExplainRig({ maxConnections: 40 });
    const { engine } = rig;
    for (const [table, line] of RULES) {
      const [, chain, ...words] = line.split(' ');
      expect(engine.filter.change({ table, commands: [{ op: 'append', chain: chain!, rule: { words } }] })).toBeNull();
    }
    const rng = new SeededRng(seed);
    const pick = (n: number) => (rng.next() >>> 4) % n;
    const one = <T>(all: readonly T[]): T => all[pick(all.length)]!;
    const hosts = [
      '10.0.1.2',
      '10.0.1.3',
      '10.0.1.100',
      '10.0.1.101',
      '10.0.1.77',
      '10.0.1.1',
      '10.0.2.11',
      '10.0.2.12',
      '10.0.2.1',
      '10.0.2.100',
    ];
    const port = () => one([21, 53, 69, 80, 4000, 5000, 50000, 50001]);

    function transport(f: FrameBuilder): FrameBuilder {
      const ports = { srcPort: port(), dstPort: port() };
      switch (pick(6)) {
        case 0:
          return f.udp(ports).payload(pick(4) === 0 ? '\0\x01a\0' : pick(60));
        case 1:
          return f.icmp({ type: one([0, 8, 13]), id: pick(3), seq: 1 }).payload(pick(20));
        case 2:
          return f.icmp({ type: one([3, 4, 5, 11, 12]), code: pick(5) }).payload(quoted());
        case 3:
          return f.sctp({ ...ports, chunks: [{ type: pick(15), value: 16 }] });
        default:
          return f
            .tcp({ ...ports, flags: one(['S', 'S.', '.', '.', 'P.', 'F.', 'R']), seq: pick(80), ack: pick(80) })
            .payload(pick(2) === 0 ? one(LINES) : '');
      }
    }
    function quoted(): Uint8Array {
      const bytes = transport(frame().ipv4(one(hosts), one(hosts))).build();
      return bytes.slice(0, 20 + pick(bytes.length - 19));
    }
    function packet(lladdr: readonly [string, string]): Uint8Array {
      const isPiece = pick(5) === 0;
      const fields = isPiece
        ? { id: pick(4), offset: pick(4) * 8, mf: pick(2) === 0, proto: one([1, 6, 17, 47, 99]) }
        : {};
      const f = frame()
        .eth(...lladdr)
        .ipv4(one(hosts), one(hosts), fields);
      const bytes = isPiece ? f.payload(pick(40)).build() : transport(f).build();
      if (pick(12) === 0) bytes[14 + pick(bytes.length - 14)]! ^= 1 << pick(8);
      return pick(20) === 0 ? bytes.slice(0, 14 + pick(bytes.length - 14)) : bytes;
    }

    for (let step = 0; step < 6000; step++) {
      const isFront = pick(2) === 0;
      const bytes = packet(isFront ? [RIG_MAC.front, RIG_MAC.client] : [RIG_MAC.back, '02:00:00:00:02:11']);
      rig.send(isFront ? rig.front : rig.back, bytes);
      if (pick(40) === 0) rig.clock.advance(pick(seconds(20)));
      if (pick(500) === 0) {
        const op = one(['addr-del', 'addr-add'] as const);
        engine.executeIp([{ op, device: 'back', address: '10.0.2.1', prefixLength: 24 }]);
      }
    }
    expect(engine.conntrack.entries.count).toBeLessThanOrEqual(40);
    const { received, born, transmitted, deliveredToHost, held } = engine.stack.stats;
    const dropped = engine.drops.reduce((sum, n) => sum + n, 0);
    expect(received + born - transmitted - deliveredToHost - held - dropped).toBe(0);
    // In the end everything has timed out.
    for (let i = 0; i < 40; i++) {
      rig.clock.advance(seconds(15_000));
      engine.breathe();
      rig.takeSent();
    }
    expect([engine.conntrack.entries.count, engine.translation.expectations.count, engine.flows.size]).toEqual([
      0, 0, 0,
    ]);
    expect([engine.stack.fragments.held, engine.stack.fragments.memory, engine.stack.stats.held]).toEqual([0, 0, 0]);
    expect(engine.pool.available).toBe(engine.pool.packets.length);
  });
});
