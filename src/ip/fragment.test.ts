import { describe, expect, it } from 'vitest';
import { Hook, Verdict } from '../hooks/hooks.ts';
import type { Packet } from '../packet/packet.ts';
import { frame, verifyFrame } from '../wire/build.ts';
import { GsoType } from '../wire/virtio-net.ts';
import { MAC, Rig } from './rig.ts';

interface Piece {
  readonly header: Uint8Array;
  readonly data: Uint8Array;
  readonly offset: number;
  readonly more: boolean;
  readonly id: number;
}

function piece(bytes: Uint8Array): Piece {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const length = (view.getUint8(14) & 15) * 4;
  const word = view.getUint16(20);
  return {
    header: bytes.slice(14, 14 + length),
    data: bytes.slice(14 + length),
    offset: (word & 0x1fff) * 8,
    more: (word & 0x2000) !== 0,
    id: view.getUint16(18),
  };
}

/** Put fragments together again, checking that they follow each other without gap. */
function join(pieces: Piece[], at = 0): Uint8Array {
  const bytes: number[] = [];
  for (const { data, offset } of pieces) {
    expect(offset).toBe(at + bytes.length);
    bytes.push(...data);
  }
  return Uint8Array.from(bytes);
}

const head = (fields = {}) =>
  frame()
    .eth(MAC.front, MAC.client)
    .ipv4('10.0.1.2', '10.0.2.2', { id: 77, ...fields });
const udp = { srcPort: 1, dstPort: 2 };

describe('fragmentation', () => {
  it.each([1500, 1280, 577, 68])('cuts to an MTU of %i, in order, each piece sound, together the whole', (mtu) => {
    const rig = new Rig();
    rig.run({ op: 'link-set', device: 'back', mtu });
    const whole = head().udp(udp).payload(4001).build();
    rig.send(rig.front, whole);
    const pieces = rig.outBytes(rig.back).map(piece);
    expect(pieces.length).toBe(Math.ceil(4009 / ((mtu - 20) & ~7)));
    expect(pieces.every((f) => f.header.length + f.data.length <= mtu && f.id === 77)).toBe(true);
    expect(pieces.map((f) => f.more)).toEqual(pieces.map((_, i) => i < pieces.length - 1));
    expect(join(pieces)).toEqual(whole.slice(34));
    expect(rig.unaccounted()).toBe(0);
    expect(rig.pool.available).toBe(rig.pool.packets.length);
  });

  it('cuts fragments again and keeps their offset and MF', () => {
    const rig = new Rig();
    rig.run({ op: 'link-set', device: 'back', mtu: 600 });
    rig.send(rig.front, head({ offset: 1480, mf: true, proto: 17 }).payload(1000).build());
    const pieces = rig.outBytes(rig.back).map(piece);
    expect(pieces.map((f) => [f.offset, f.more])).toEqual([
      [1480, true],
      [1480 + 576, true],
    ]);
    expect(join(pieces, 1480).length).toBe(1000);
  });

  it('copies to later pieces only the options that say so, and no-ops in the place of others', () => {
    const rig = new Rig();
    rig.run({ op: 'link-set', device: 'back', mtu: 576 });
    // No-op, record route (not copied), router alert 148 (copied).
    const options = [1, 7, 7, 4, 0, 0, 0, 0, 148, 4, 0, 0];
    const whole = head({ options }).udp(udp).payload(1500).build();
    rig.send(rig.front, whole);
    const pieces = rig.outBytes(rig.back).map(piece);
    expect([...pieces[0]!.header.slice(20)]).toEqual([1, 7, 7, 8, 10, 0, 2, 1, 148, 4, 0, 0]);
    for (const later of pieces.slice(1))
      expect([...later.header.slice(20)]).toEqual([1, 1, 1, 1, 1, 1, 1, 1, 148, 4, 0, 0]);
    expect(join(pieces)).toEqual(whole.slice(14 + 32));
  });

  it('completes a partial checksum first', () => {
    const rig = new Rig();
    rig.run({ op: 'link-set', device: 'back', mtu: 576 });
    const partial = head()
      .udp({ ...udp, partialChecksum: true })
      .payload(1000)
      .build();
    rig.send(rig.front, partial, { csumPartial: 1 });
    const data = join(rig.outBytes(rig.back).map(piece));
    const complete = frame().ipv4('10.0.1.2', '10.0.2.2').udp(udp).payload(1000).build();
    expect(data).toEqual(complete.slice(20));
  });

  it('with DF tells the sender the MTU of the way out, and super-packets are judged by their segments', () => {
    const rig = new Rig();
    rig.run({ op: 'link-set', device: 'back', mtu: 1400 });
    rig.send(rig.front, head({ df: true }).udp(udp).payload(1400).build());
    expect(rig.out(rig.front)[0]).toContain('icmp error 3/4 mtu 1400 {');
    const tcp = head({ df: true }).tcp({ srcPort: 1, dstPort: 2, partialChecksum: true }).payload(8000).build();
    rig.send(rig.front, tcp, { csumPartial: 1, gsoType: GsoType.TcpV4, gsoSize: 1400 });
    expect(rig.out(rig.front)[0]).toContain('icmp error 3/4 mtu 1400 {');
    rig.send(rig.front, tcp, { csumPartial: 1, gsoType: GsoType.TcpV4, gsoSize: 1360 });
    expect(rig.back.sent.splice(0)).toMatchObject([{ gsoType: 1, gsoSize: 1360, csumPartial: 1 }]);
    expect(rig.drops()).toEqual({ FragmentationNeeded: 2 });
    expect(rig.unaccounted()).toBe(0);
  });
});

describe('software segmentation', () => {
  it('of TCP: sequence numbers, identification, FIN and PSH last, CWR first, all sums right', () => {
    const rig = new Rig();
    rig.back.canOffload = false;
    const fields = {
      srcPort: 1,
      dstPort: 2,
      seq: 0x7fffff00,
      flags: 'FP.W',
      options: [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2],
    };
    const whole = head({ df: true })
      .tcp({ ...fields, partialChecksum: true })
      .payload(5001)
      .build();
    rig.send(rig.front, whole, { csumPartial: 1, gsoType: GsoType.TcpV4, gsoSize: 1448 });
    const frames = rig.outBytes(rig.back);
    const segments = frames.map((bytes) => {
      const view = new DataView(bytes.buffer, bytes.byteOffset);
      return { id: view.getUint16(18), seq: view.getUint32(38), flags: view.getUint8(47), length: bytes.length - 66 };
    });
    expect(segments).toEqual([
      { id: 77, seq: 0x7fffff00, flags: 0x90, length: 1448 },
      { id: 78, seq: 0x7fffff00 + 1448, flags: 0x10, length: 1448 },
      { id: 79, seq: 0x7fffff00 + 2896, flags: 0x10, length: 1448 },
      { id: 80, seq: 0x7fffff00 + 4344, flags: 0x19, length: 657 },
    ]);
    const data = frames.flatMap((bytes) => [...bytes.slice(66)]);
    expect(Uint8Array.from(data)).toEqual(whole.slice(66));
    expect(rig.unaccounted()).toBe(0);
    expect(rig.pool.available).toBe(rig.pool.packets.length);
  });

  it('of TCP where identification and sequence numbers wrap, and segments are of odd length', () => {
    const rig = new Rig();
    rig.back.canOffload = false;
    const whole = head({ id: 0xfffe })
      .tcp({ srcPort: 1, dstPort: 2, seq: 0xfffffc00, partialChecksum: true })
      .payload(4003)
      .build();
    rig.send(rig.front, whole, { csumPartial: 1, gsoType: GsoType.TcpV4, gsoSize: 999 });
    const frames = rig.outBytes(rig.back);
    const numbers = frames.map((bytes) => {
      const view = new DataView(bytes.buffer, bytes.byteOffset);
      return [view.getUint16(18), view.getUint32(38), bytes.length - 54];
    });
    expect(numbers).toEqual([
      [0xfffe, 0xfffffc00, 999],
      [0xffff, 0xffffffe7, 999],
      [0, 974, 999],
      [1, 1973, 999],
      [2, 2972, 7],
    ]);
    expect(Uint8Array.from(frames.flatMap((bytes) => [...bytes.slice(54)]))).toEqual(whole.slice(54));
    expect(rig.unaccounted()).toBe(0);
  });

  it('of UDP: each datagram its length and checksum', () => {
    const rig = new Rig();
    rig.back.canOffload = false;
    const whole = head()
      .udp({ ...udp, partialChecksum: true })
      .payload(3001)
      .build();
    rig.send(rig.front, whole, { csumPartial: 1, gsoType: GsoType.UdpL4, gsoSize: 1000 });
    const frames = rig.outBytes(rig.back);
    expect(frames.map((bytes) => bytes.length - 42)).toEqual([1000, 1000, 1000, 1]);
    expect(rig.unaccounted()).toBe(0);
  });

  it('of segments that do not fit and may be fragmented: both, and the sums hold over the pieces', () => {
    const rig = new Rig();
    rig.run({ op: 'link-set', device: 'back', mtu: 1000 });
    const whole = head().tcp({ srcPort: 1, dstPort: 2, partialChecksum: true }).payload(2500).build();
    rig.send(rig.front, whole, { csumPartial: 1, gsoType: GsoType.TcpV4, gsoSize: 1200 });
    const byId = new Map<number, Piece[]>();
    for (const f of rig.outBytes(rig.back).map(piece)) byId.set(f.id, [...(byId.get(f.id) ?? []), f]);
    expect([...byId.keys()]).toEqual([77, 78, 79]);
    for (const [id, pieces] of byId) {
      const data = join(pieces);
      const joined = frame()
        .eth(MAC.server, MAC.back)
        .ipv4('10.0.1.2', '10.0.2.2', { id, proto: 6 })
        .payload(data)
        .build();
      expect(verifyFrame(joined)).toEqual([]);
    }
    expect(rig.unaccounted()).toBe(0);
  });

  it('of a tunnelled stream: outer and inner headers, for no device can', () => {
    const rig = new Rig();
    // What a hook function that wraps packets says of them.
    const wrapped = (p: Packet) => {
      p.inner = 20;
      return Verdict.Accept;
    };
    rig.hooks.register([{ hook: Hook.Forward, priority: 0, name: 'wrap', why: 'test', run: wrapped }]);
    const inner = head({ proto: 4 }).ipv4('10.0.1.2', '10.0.1.100', { id: 5, df: true });
    const whole = inner.tcp({ srcPort: 1, dstPort: 80, partialChecksum: true }).payload(3000).build();
    rig.send(rig.front, whole, { csumPartial: 1, gsoType: GsoType.TcpV4, gsoSize: 1400 });
    const lines = rig.out(rig.back);
    expect(lines).toHaveLength(3);
    expect(lines[1]).toMatch(
      /ipip { IP 10\.0\.1\.2\.1 > 10\.0\.1\.100\.80: tcp \[\.\] seq 1400 .* len 1400 \(ttl 64 id 6 DF\) } \(ttl 63 id 78\)/,
    );
    expect(rig.unaccounted()).toBe(0);
  });

  it('does not happen where the device takes super-packets; a small partial one is completed where it does not', () => {
    const rig = new Rig();
    const small = head().tcp({ srcPort: 1, dstPort: 2, partialChecksum: true }).payload(9).build();
    rig.send(rig.front, small, { csumPartial: 1 });
    expect(rig.back.sent.splice(0)).toMatchObject([{ csumPartial: 1 }]);
    rig.back.canOffload = false;
    rig.send(rig.front, small, { csumPartial: 1 });
    expect(rig.back.sent[0]).toMatchObject({ csumPartial: 0 });
    expect(rig.out(rig.back)).toHaveLength(1);
  });

  it('counts what it could not make when the pool runs dry', () => {
    const rig = new Rig({ slots: 4 });
    rig.back.canOffload = false;
    const whole = head().tcp({ srcPort: 1, dstPort: 2, partialChecksum: true }).payload(9000).build();
    rig.send(rig.front, whole, { csumPartial: 1, gsoType: GsoType.TcpV4, gsoSize: 1000 });
    expect(rig.drops()).toEqual({ PoolExhausted: 5 });
    expect(rig.back.sent.splice(0)).toHaveLength(4);
    expect(rig.unaccounted()).toBe(0);
  });
});
