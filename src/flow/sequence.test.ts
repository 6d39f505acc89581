/** Shifted sequence numbers: a stream whose segments change their lengths on the way stays one stream on both sides. */
import { describe, expect, it } from 'vitest';
import type { Packet } from '../packet/packet.ts';
import { PacketPool } from '../packet/pool.ts';
import { isTransportSumRight } from '../packet/sum.ts';
import { frame, verifyFrame } from '../wire/build.ts';
import * as tcp from '../wire/tcp.ts';
import { adjustSequence, noShift, shiftBehind } from './sequence.ts';
import { payloadStart, replaceInPayload } from './tcp-payload.ts';

const pool = new PacketPool(1);

interface Given {
  readonly seq?: number;
  readonly ack?: number;
  readonly flags?: string;
  readonly options?: readonly number[];
  readonly payload?: string;
  readonly partial?: boolean;
}

function packet(given: Given): Packet {
  const { seq = 0, ack = 0, flags = 'A', options = [], payload = '', partial = false } = given;
  const bytes = frame()
    .ipv4('10.0.2.11', '10.0.1.2', { df: true })
    .tcp({ srcPort: 21, dstPort: 6000, seq, ack, flags, options, partialChecksum: partial })
    .payload(payload)
    .build();
  const p = pool.take(bytes.length + 14)!;
  p.bytes.fill(0x55, p.l2, p.slotStart + 4096);
  p.bytes.set(bytes, p.l3);
  p.proto = 6;
  p.csumPartial = partial ? 1 : 0;
  return p;
}

function done(p: Packet): Uint8Array {
  const bytes = p.bytes.slice(p.l3, p.end);
  expect(verifyFrame(bytes, { isIp: true, partialChecksum: p.csumPartial !== 0 })).toEqual([]);
  pool.free(p);
  return bytes;
}

function adjusted(given: Given, its = noShift(), other = noShift()): { seq: number; ack: number; bytes: Uint8Array } {
  const p = packet(given);
  adjustSequence(p, its, other);
  const found = { seq: tcp.seq(p.view, p.l4), ack: tcp.ack(p.view, p.l4) };
  return { ...found, bytes: done(p) };
}

describe('a shift', () => {
  it('moves what comes behind the segment that grew, not that segment nor what came before', () => {
    const shift = noShift();
    shiftBehind(shift, 1000, 5);
    expect([999, 1000, 1001, 2000].map((seq) => adjusted({ seq }, shift).seq)).toEqual([999, 1000, 1006, 2005]);
  });

  it('adds up, and a segment that comes again changes nothing', () => {
    const shift = noShift();
    shiftBehind(shift, 1000, 5);
    shiftBehind(shift, 1000, 5);
    shiftBehind(shift, 900, 7);
    shiftBehind(shift, 2000, -8);
    expect([1500, 2000, 2001].map((seq) => adjusted({ seq }, shift).seq)).toEqual([1505, 2005, 1998]);
  });

  it('is taken back from acknowledgments of the other side', () => {
    const shift = noShift();
    shiftBehind(shift, 1000, 5);
    expect([1000, 1001, 1006].map((ack) => adjusted({ ack }, noShift(), shift).ack)).toEqual([1000, 996, 1001]);
    expect(adjusted({ ack: 2000, flags: 'S' }, noShift(), shift).ack).toBe(2000);
  });

  it('holds across the end of the number space', () => {
    const shift = noShift();
    shiftBehind(shift, -3, 10);
    expect([-3, -2, 5, -1000].map((seq) => adjusted({ seq }, shift).seq)).toEqual([-3, 8, 15, -1000]);
  });

  it('is taken back from SACK blocks, wherever they stand', () => {
    const shift = noShift();
    shiftBehind(shift, 1000, 5);
    const block = (n: number) => [n >>> 24, (n >> 16) & 255, (n >> 8) & 255, n & 255];
    for (const before of [[1, 1], [1], [], [8, 10, 0, 0, 0, 1, 0, 0, 0, 2], [1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]]) {
      const sack = [5, 18, ...block(1100), ...block(1200), ...block(900), ...block(1000)];
      const wanted = [5, 18, ...block(1095), ...block(1195), ...block(900), ...block(1000)];
      const { bytes } = adjusted({ ack: 900, options: [...before, ...sack] }, noShift(), shift);
      const at = 40 + before.length;
      expect([...bytes.slice(at, at + 18)]).toEqual(wanted);
    }
  });

  it('leaves malformed options alone', () => {
    const shift = noShift();
    shiftBehind(shift, 0, 5);
    for (const options of [
      [5, 1, 0, 0],
      [5, 0, 0, 0],
      [5, 40, 0, 0],
      [1, 1, 1, 5],
      [0, 5, 10, 0],
      [5, 5, 9, 9, 9, 0, 0, 0],
    ]) {
      expect([...adjusted({ ack: 10, options }, noShift(), shift).bytes.slice(40, 40 + options.length)]).toEqual(
        options,
      );
    }
  });
});

describe('a payload', () => {
  it.each([false, true])('is replaced with right lengths and checksums (partial: %s)', (partial) => {
    for (const [text, result] of [
      ['longer than before', '227 (longer than before).\r\n'],
      ['x', '227 (x).\r\n'],
      ['12345', '227 (12345).\r\n'],
      ['', '227 ().\r\n'],
    ] as const) {
      const p = packet({ payload: '227 (abcde).\r\n', partial, options: [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2] });
      expect(isTransportSumRight(p)).toBe(true);
      const start = payloadStart(p);
      expect(replaceInPayload(p, start + 5, start + 10, text)).toBe(true);
      const bytes = done(p);
      expect(Buffer.from(bytes.slice(52)).toString('latin1')).toBe(result);
    }
  });

  it('that would make the packet too long is left as it was', () => {
    const p = packet({ payload: 'x'.repeat(65535 - 40) });
    const before = p.bytes.slice(p.l3, p.end);
    const start = payloadStart(p);
    expect(replaceInPayload(p, start, start + 1, 'xy')).toBe(false);
    expect(Buffer.compare(p.bytes.slice(p.l3, p.end), before)).toBe(0);
    expect(replaceInPayload(p, start, start + 1, 'y')).toBe(true);
    done(p);
  });
});
