/** Fragments of what is forwarded while somebody needs whole datagrams: what the hooks see, and in which pieces it leaves. */
import { beforeEach, describe, expect, it } from 'vitest';
import { Hook, Verdict } from '../hooks/hooks.ts';
import type { Packet } from '../packet/packet.ts';
import { frame } from '../wire/build.ts';
import { MAC, Rig } from './rig.ts';

let rig: Rig;
/** Lengths of what PREROUTING saw behind `ip/defrag`. */
let seen: number[];

interface Piece {
  readonly from: number;
  readonly to: number;
  readonly mf?: boolean;
  readonly df?: boolean;
  readonly ttl?: number;
  readonly flip?: boolean;
}

const LENGTH = 3008;
const udpBody = frame()
  .ipv4('10.0.1.2', '10.0.2.2')
  .udp({ srcPort: 40000, dstPort: 53 })
  .payload(3000)
  .build()
  .slice(20);
const tcpBody = frame().ipv4('10.0.1.2', '10.0.2.2').tcp({ srcPort: 40000, dstPort: 80 }).payload(80).build().slice(20);

function piece(f: Piece, body = udpBody, proto = 17, dst = '10.0.2.2', id = 77): Uint8Array {
  const data = body.slice(f.from, f.to);
  if (f.flip === true) data[0]! ^= 1;
  return frame()
    .eth(MAC.front, MAC.client)
    .ipv4('10.0.1.2', dst, {
      id,
      proto,
      offset: f.from,
      mf: f.mf ?? f.to < body.length,
      df: f.df ?? false,
      ttl: f.ttl ?? 64,
    })
    .payload(data)
    .build();
}

/** What left at the back: offset, length, flags and TTL of each piece; and their bytes put together. */
function out(): { pieces: string[]; body: Uint8Array } {
  const body: number[] = [];
  const pieces = rig.outBytes(rig.back).map((bytes) => {
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    const word = view.getUint16(20);
    const data = bytes.slice(34);
    body.push(...data);
    const flags = `${(word & 0x4000) !== 0 ? ' DF' : ''}${(word & 0x2000) !== 0 ? ' MF' : ''}`;
    return `${(word & 0x1fff) * 8}+${data.length}${flags} ttl ${view.getUint8(22)}`;
  });
  return { pieces, body: Uint8Array.from(body) };
}

const ends = (...pieces: [number, number][]): Piece[] => pieces.map(([from, to]) => ({ from, to }));

beforeEach(() => {
  rig = new Rig();
  seen = [];
  rig.stack.defrag.acquire();
  const run = (p: Packet) => {
    seen.push(p.end - p.l3);
    expect([p.l4Fault, p.isLaterFragment]).toEqual([0, 0]);
    return Verdict.Accept;
  };
  rig.hooks.register([{ hook: Hook.PreRouting, priority: -300, name: 'see', why: 'test', run }]);
});

describe('a datagram leaves in the pieces that it came in', () => {
  it.each([
    ['in order', ends([0, 1480], [1480, 2960], [2960, LENGTH]), ['0+1480 MF', '1480+1480 MF', '2960+48']],
    ['shuffled', ends([1480, 2960], [2960, LENGTH], [0, 1480]), ['0+1480 MF', '1480+1480 MF', '2960+48']],
    ['of different lengths', ends([0, 208], [208, 1000], [1000, LENGTH]), ['0+208 MF', '208+792 MF', '1000+2008']],
    [
      'with a middle one that is no multiple of 8',
      [...ends([0, 1000]), { from: 1000, to: 1501, mf: true }, ...ends([1496, 2496], [2496, LENGTH])],
      ['0+1000 MF', '1000+496 MF', '1496+1000 MF', '2496+512'],
    ],
    [
      'with one inside another, whose bytes do not count',
      [...ends([0, 1480]), { from: 800, to: 1200, flip: true }, ...ends([1480, 2960], [2960, LENGTH])],
      ['0+1480 MF', '1480+1480 MF', '2960+48'],
    ],
    [
      'with a copy that spans pieces which came one after the other',
      ends([0, 800], [800, 1600], [0, 1600], [1600, LENGTH]),
      ['0+800 MF', '800+800 MF', '1600+1408'],
    ],
    [
      'without DF, when it had that',
      [
        { from: 0, to: 1000, df: true },
        { from: 1000, to: 2000, df: true },
        { from: 2000, to: LENGTH, df: true },
      ],
      ['0+1000 MF', '1000+1000 MF', '2000+1008'],
    ],
  ] as [string, Piece[], string[]][])('%s', (_name, pieces, expected) => {
    rig.run({ op: 'link-set', device: 'back', mtu: 2100 });
    for (const f of pieces) rig.send(rig.front, piece(f));
    const { pieces: left, body } = out();
    expect(left).toEqual(expected.map((line) => `${line} ttl 63`));
    expect(body).toEqual(udpBody);
    expect(seen).toEqual([LENGTH + 20]);
    expect([rig.unaccounted(), rig.stack.fragments.held, rig.stack.fragments.memory]).toEqual([0, 0, 0]);
    expect(rig.pool.available).toBe(rig.pool.packets.length);
  });

  it('with the TTL of the first one, whichever came last', () => {
    rig.send(rig.front, piece({ from: 1480, to: LENGTH, ttl: 9, mf: false }));
    rig.send(rig.front, piece({ from: 0, to: 1480, ttl: 50 }));
    // 1528 bytes do not fit an MTU of 1500: pieces as long as the MTU.
    expect(out().pieces).toEqual(['0+1480 MF ttl 49', '1480+1480 MF ttl 49', '2960+48 ttl 49']);
  });

  it('not when they do not fit: then in pieces of the MTU', () => {
    rig.run({ op: 'link-set', device: 'back', mtu: 1000 });
    for (const f of ends([0, 1480], [1480, 2960], [2960, LENGTH])) rig.send(rig.front, piece(f));
    expect(out().pieces.map((line) => line.split(' ttl')[0])).toEqual([
      '0+976 MF',
      '976+976 MF',
      '1952+976 MF',
      '2928+80',
    ]);
  });

  it.each([
    ['8 and the rest', ends([0, 8], [8, 100]), ['0+88 MF', '88+12']],
    ['16 and the rest', ends([0, 16], [16, 100]), ['0+80 MF', '80+20']],
    ['whole', ends([0, 24], [24, 100]), ['0+24 MF', '24+76']],
  ])('nor when a TCP header was cut in two (%s): then in pieces as long as the longest', (_name, pieces, expected) => {
    for (const f of pieces) rig.send(rig.front, piece(f, tcpBody, 6));
    const { pieces: left, body } = out();
    expect(left).toEqual(expected.map((line) => `${line} ttl 63`));
    expect(body).toEqual(tcpBody);
  });
});

it('SCTP whose header was cut in two is cut anew, too', () => {
  for (const f of ends([0, 8], [8, 32])) rig.send(rig.front, piece(f, new Uint8Array(32).fill(7), 132));
  expect(out().pieces).toEqual(['0+24 MF ttl 63', '24+8 ttl 63']);
});

describe('what is not put together', () => {
  it('passes as it came while nobody needs it whole', () => {
    rig.stack.defrag.release();
    rig.hooks.chains[Hook.PreRouting]!.unregister(rig.hooks.preRouting.ops[0]!);
    rig.send(rig.front, piece({ from: 1480, to: 2960, df: true }));
    expect(out().pieces).toEqual(['1480+1480 DF MF ttl 63']);
    expect(rig.stack.fragments.held).toBe(0);
  });

  it('two ends: nothing comes out, and what follows waits for the rest of another datagram', () => {
    const pieces: Piece[] = [
      ...ends([0, 1480], [2960, LENGTH]),
      { from: 2960, to: 3000, mf: false },
      ...ends([1480, 2960]),
    ];
    for (const f of pieces) rig.send(rig.front, piece(f));
    expect([out().pieces, seen, rig.stack.fragments.held]).toEqual([[], [], 1]);
  });

  it('says fragmentation needed for one that had DF and does not fit, and time exceeded once for a TTL of 1', () => {
    rig.run({ op: 'link-set', device: 'back', mtu: 1000 });
    rig.send(rig.front, piece({ from: 0, to: 1200, df: true }));
    rig.send(rig.front, piece({ from: 1200, to: LENGTH, df: true }));
    expect(rig.out(rig.front)).toEqual([expect.stringContaining('icmp error 3/4 mtu 1000 {')]);
    rig.send(rig.front, piece({ from: 0, to: 1480, ttl: 1 }));
    rig.send(rig.front, piece({ from: 1480, to: LENGTH, ttl: 1 }));
    expect(rig.out(rig.front)).toEqual([expect.stringContaining('icmp error 11/0')]);
    expect(out().pieces).toEqual([]);
  });

  it('is told to its sender only when it was for us', () => {
    rig.send(rig.front, piece({ from: 0, to: 1480 }));
    rig.send(rig.front, piece({ from: 0, to: 1480 }, udpBody, 17, '10.0.1.1'));
    rig.send(rig.front, piece({ from: 1480, to: LENGTH }, udpBody, 17, '10.0.1.1', 99));
    rig.pass(31);
    expect(rig.drops()).toEqual({ ReassemblyTimeout: 3 });
    expect(rig.out(rig.front)).toEqual([expect.stringMatching(/10\.0\.1\.1 > 10\.0\.1\.2: icmp error 11\/1/)]);
    expect(rig.unaccounted()).toBe(0);
  });
});
