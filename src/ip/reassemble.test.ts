/** Fragments to us: what a hook function on LOCAL_IN sees is the whole datagram, or a named drop. */
import { beforeEach, describe, expect, it } from 'vitest';
import { Hook, Verdict } from '../hooks/hooks.ts';
import type { Packet } from '../packet/packet.ts';
import { describePacket, frame, verifyFrame } from '../wire/build.ts';
import { MAC, Rig } from './rig.ts';

let rig: Rig;
/** What LOCAL_IN saw. */
let seen: Uint8Array[];
/** A datagram of 3 KB to us, and its payload behind the IPv4 header. */
const whole = frame().ipv4('10.0.1.2', '10.0.1.1', { id: 77 }).udp({ srcPort: 5, dstPort: 6 }).payload(3000).build();
const body = whole.slice(20);

interface Fields {
  readonly id?: number;
  readonly tos?: number;
  readonly df?: boolean;
  readonly mf?: boolean;
}

function piece(from: number, to: number, fields: Fields = {}): Uint8Array {
  const { id = 77, ...rest } = fields;
  return frame()
    .eth(MAC.front, MAC.client)
    .ipv4('10.0.1.2', '10.0.1.1', { id, proto: 17, offset: from, mf: to < body.length, ...rest })
    .payload(body.slice(from, to))
    .build();
}

const send = (...pieces: Uint8Array[]) => {
  for (const bytes of pieces) rig.send(rig.front, bytes);
};

beforeEach(() => {
  rig = new Rig();
  seen = [];
  const run = (p: { bytes: Uint8Array; l3: number; end: number; l4Fault: number }) => {
    expect(p.l4Fault).toBe(0);
    seen.push(p.bytes.slice(p.l3, p.end));
    return Verdict.Accept;
  };
  rig.hooks.register([{ hook: Hook.LocalIn, priority: 0, name: 'see', why: 'test', run }]);
});

describe('reassembly', () => {
  it.each([
    [0, 1, 2],
    [0, 2, 1],
    [1, 0, 2],
    [1, 2, 0],
    [2, 0, 1],
    [2, 1, 0],
  ])('in the order %i %i %i', (...order) => {
    const pieces = [piece(0, 1480), piece(1480, 2400), piece(2400, body.length)];
    send(...order.map((i) => pieces[i]!));
    expect(seen).toEqual([whole]);
    expect(verifyFrame(seen[0]!, { isIp: true })).toEqual([]);
    expect(rig.drops()).toEqual({ FragmentJoined: 2, UnreachableSent: 1 });
    expect([rig.unaccounted(), rig.stack.stats.held, rig.pool.available]).toEqual([0, 0, rig.pool.packets.length]);
  });

  it.each(['first', 'last'])(
    'finds room for the longest when the %s piece comes last, far behind in its slot',
    (which) => {
      const run = (p: Packet) => {
        p.bytes.copyWithin(p.l3 + 1000, p.l3, p.end);
        p.bytes.fill(0xee, p.l3, p.l3 + 1000);
        p.l3 += 1000;
        p.l4 += 1000;
        p.end += 1000;
        return Verdict.Accept;
      };
      rig.hooks.register([{ hook: Hook.PreRouting, priority: -500, name: 'shift', why: 'test', run }]);
      const longest = frame()
        .ipv4('10.0.1.2', '10.0.1.1', { id: 5 })
        .udp({ srcPort: 5, dstPort: 6 })
        .payload(65000)
        .build();
      const part = (from: number) => {
        const bytes = longest.slice(20 + from, 20 + from + 1480);
        const fields = { id: 5, proto: 17, offset: from, mf: 20 + from + 1480 < longest.length };
        return frame().eth(MAC.front, MAC.client).ipv4('10.0.1.2', '10.0.1.1', fields).payload(bytes).build();
      };
      const parts = Array.from({ length: Math.ceil((longest.length - 20) / 1480) }, (_, i) => part(i * 1480));
      send(...(which === 'first' ? parts.toReversed() : parts));
      expect(seen).toHaveLength(1);
      expect(Buffer.compare(seen[0]!, longest)).toBe(0);
    },
  );

  it('keeps datagrams apart by identification, and ignores copies', () => {
    send(piece(0, 1480), piece(0, 1480, { id: 78 }), piece(0, 1480), piece(1480, body.length, { id: 78 }));
    expect(seen.map(describePacket)).toEqual([
      expect.stringContaining('10.0.1.2.5 > 10.0.1.1.6: udp len 3000 (ttl 64 id 78)'),
    ]);
    expect(rig.drops()).toMatchObject({ FragmentDuplicate: 1, FragmentJoined: 1 });
    send(piece(1480, body.length));
    expect(seen).toHaveLength(2);
  });

  it.each([
    ['an overlap', [piece(0, 1480), piece(1472, 2400)]],
    ['an overlap from before', [piece(1480, 2400), piece(0, 1488)]],
    [
      'bytes behind the end',
      [
        piece(2400, body.length),
        frame()
          .eth(MAC.front, MAC.client)
          .ipv4('10.0.1.2', '10.0.1.1', { id: 77, proto: 17, offset: 3008, mf: true })
          .payload(8)
          .build(),
      ],
    ],
  ])('%s ends the datagram', (_what, pieces) => {
    send(...pieces);
    expect(rig.drops()).toEqual({ FragmentBad: 2 });
    expect(rig.stack.stats.held).toBe(0);
  });

  it('trims a middle piece to a multiple of 8; an empty one ends the datagram, and one beyond 65535 bytes never becomes whole', () => {
    const odd = (offset: number, length: number) =>
      frame()
        .eth(MAC.front, MAC.client)
        .ipv4('10.0.1.2', '10.0.1.1', { proto: 17, offset, mf: true })
        .payload(length)
        .build();
    send(odd(0, 9), odd(8, 0), odd(65528, 8));
    expect(rig.drops()).toEqual({ FragmentBad: 2 });
    expect(rig.stack.fragments.held).toBe(1);
    rig.pass(31);
    expect(rig.drops()).toEqual({ FragmentBad: 2, ReassemblyTimeout: 1 });
    send(piece(0, 1480), piece(1480, 2405, { mf: true }), piece(2400, body.length));
    expect(seen).toEqual([whole]);
  });

  it('takes nothing above ipfrag_high_thresh, and starts anew after ipfrag_max_dist others of the same sender', () => {
    rig.sysctl('net.ipv4.ipfrag_low_thresh', 0);
    rig.sysctl('net.ipv4.ipfrag_high_thresh', 4000);
    for (let id = 1; id <= 5; id++) send(piece(0, 1480, { id }));
    expect(rig.drops()).toEqual({ ReassemblyFull: 3 });
    expect(rig.control.sysctls.set('net.ipv4.ipfrag_low_thresh', '4001')).toBe('EINVAL');
    rig.pass(31);
    expect([rig.stack.fragments.held, rig.stack.fragments.memory]).toEqual([0, 0]);

    rig.sysctl('net.ipv4.ipfrag_high_thresh', 4194304);
    rig.sysctl('net.ipv4.ipfrag_max_dist', 3);
    const before = rig.drops().ReassemblyTimeout!;
    send(piece(0, 1480, { id: 50 }), piece(0, 8, { id: 51 }), piece(0, 8, { id: 52 }));
    send(piece(1480, body.length, { id: 50 }));
    expect(seen).toHaveLength(1);
    send(piece(0, 1480, { id: 60 }), piece(0, 8, { id: 61 }), piece(0, 8, { id: 62 }), piece(0, 8, { id: 63 }));
    send(piece(1480, body.length, { id: 60 }));
    expect(seen).toHaveLength(1);
    expect(rig.drops()).toMatchObject({ FragmentTooFar: 1, ReassemblyTimeout: before });
    send(piece(0, 1480, { id: 60 }));
    expect(seen).toHaveLength(2);
  });

  it('brings congestion marks together, and refuses a mixture with what knows none (RFC 3168 §5.3)', () => {
    send(piece(0, 1480, { tos: 2 }), piece(1480, body.length, { tos: 3 }));
    expect(seen[0]![1]).toBe(3);
    send(piece(0, 1480, { id: 9, tos: 0 }), piece(1480, body.length, { id: 9, tos: 3 }));
    expect(seen).toHaveLength(1);
    expect(rig.drops()).toMatchObject({ FragmentBad: 2 });
  });

  it('gives up after 30 seconds, and says so only when it has the first piece (RFC 792 p. 6)', () => {
    send(piece(0, 1480), piece(1480, body.length, { id: 99 }));
    rig.pass(29);
    expect(rig.stack.stats.held).toBe(2);
    rig.pass(2);
    expect(rig.drops()).toEqual({ ReassemblyTimeout: 2 });
    expect(rig.out(rig.front)).toEqual([expect.stringMatching(/10\.0\.1\.1 > 10\.0\.1\.2: icmp error 11\/1/)]);
    send(piece(1480, body.length));
    expect(seen).toEqual([]);
    rig.sysctl('net.ipv4.ipfrag_time', 5);
    send(piece(0, 8, { id: 100 }));
    rig.pass(6);
    expect(rig.drops()).toMatchObject({ ReassemblyTimeout: 3 });
  });

  it('holds a quarter of the pool at most: the oldest datagram gives way', () => {
    for (let id = 1000; id < 1100; id++) send(piece(0, 1480, { id }));
    expect(rig.stack.stats.held).toBe(rig.pool.packets.length / 4);
    expect(rig.drops()).toEqual({ ReassemblyFull: 100 - rig.pool.packets.length / 4 });
    send(piece(1480, body.length, { id: 1000 }), piece(1480, body.length, { id: 1099 }));
    expect(seen).toHaveLength(1);
  });

  it('what a hook sends on leaves in pieces no longer than it came', () => {
    const onward = (p: { nexthop: number; outDevice: number; reroutes: number }) => {
      p.nexthop = 0x0a000202;
      p.outDevice = 2;
      return Verdict.Reroute;
    };
    rig.hooks.register([{ hook: Hook.LocalIn, priority: 1, name: 'onward', why: 'test', run: onward }]);
    send(piece(0, 1000), piece(1000, 2000), piece(2000, body.length));
    expect(rig.outBytes(rig.back).map((f) => f.length - 34)).toEqual([1008, 1008, 992]);
    expect(rig.unaccounted()).toBe(0);
  });
});
