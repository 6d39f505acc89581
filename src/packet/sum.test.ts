/** Transport checksums of whole packets: right, wrong, vouched for, absent; at odd and even places, of odd and even lengths. */
import { describe, expect, it } from 'vitest';
import { type FrameBuilder, frame, verifyFrame } from '../wire/build.ts';
import * as ipv4 from '../wire/ipv4.ts';
import type { Packet } from './packet.ts';
import { PacketPool } from './pool.ts';
import { completeChecksum, fillTransportChecksum, isTransportSumRight, isUdpLiteRight, sum } from './sum.ts';

const pool = new PacketPool(1);

/** @param shift moves the packet to an odd place */
function packet(builder: FrameBuilder, shift = 0): Packet {
  const bytes = builder.build();
  const p = pool.take(bytes.length + 14)!;
  p.l3 += shift;
  // What stood there before is no part of it.
  p.bytes.fill(0xa5, p.l2, p.end + 64);
  p.bytes.set(bytes, p.l3);
  p.l4 = p.l3 + ipv4.headerLength(p.view, p.l3);
  p.end = p.l3 + bytes.length;
  p.proto = ipv4.proto(p.view, p.l3);
  pool.free(p);
  return p;
}

const ip = () => frame().ipv4('10.0.2.11', '10.0.1.2');
const udp = (length: number, fields = {}) =>
  ip()
    .udp({ srcPort: 53, dstPort: 4000, ...fields })
    .payload(length);
const tcp = (length: number, fields = {}) =>
  ip()
    .tcp({ srcPort: 80, dstPort: 4000, ...fields })
    .payload(length);
const PLACES = [0, 1].flatMap((shift) => [0, 1, 2, 3, 31, 32, 33, 1459].map((length) => [shift, length] as const));

describe.each(PLACES)('%i bytes behind an even place, %i of payload', (shift, length) => {
  it.each([
    ['TCP', () => tcp(length)],
    ['UDP', () => udp(length)],
  ])('%s: right, and wrong with any other bit', (_, make) => {
    const p = packet(make(), shift);
    expect(isTransportSumRight(p)).toBe(true);
    for (const at of [p.l4, p.l4 + 1, p.end - 1]) {
      p.bytes[at]! ^= 0x10;
      expect(isTransportSumRight(p)).toBe(false);
      p.bytes[at]! ^= 0x10;
    }
  });

  it('a partial one is completed, and one that is made anew is the same', () => {
    for (const make of [tcp, udp]) {
      const p = packet(make(length, { partialChecksum: true }), shift);
      p.csumPartial = 1;
      completeChecksum(p);
      expect(p.csumPartial).toBe(0);
      const bytes = p.bytes.slice(p.l3, p.end);
      expect(verifyFrame(bytes, { isIp: true })).toEqual([]);
      fillTransportChecksum(p, p.l3, p.l4, p.proto);
      expect(p.bytes.slice(p.l3, p.end)).toEqual(bytes);
    }
  });

  it('words and bytes make one sum', () => {
    const p = packet(tcp(length), shift);
    let bytes = 0;
    for (let i = p.l3; i < p.end; i++) bytes += p.bytes[i]! << ((i - p.l3) & 1 ? 0 : 8);
    while (bytes > 0xffff) bytes = (bytes & 0xffff) + (bytes >>> 16);
    expect(sum(p, p.l3, p.end - p.l3)).toBe(bytes);
  });
});

describe('a wrong checksum', () => {
  it.each(['csumValid', 'csumPartial', 'gsoType'] as const)('passes where %s vouches for it', (field) => {
    const p = packet(tcp(3, { checksum: 1 }));
    expect(isTransportSumRight(p)).toBe(false);
    p[field] = 1;
    expect(isTransportSumRight(p)).toBe(true);
  });

  it('of UDP is none when it is 0 (RFC 768), and one that comes out as 0 is sent as all ones', () => {
    expect(isTransportSumRight(packet(udp(3, { checksum: 0 })))).toBe(true);
    expect(isTransportSumRight(packet(tcp(3, { checksum: 0 })))).toBe(false);
    const p = packet(udp(2));
    // The payload makes up for all else.
    p.view.setUint16(p.end - 2, p.view.getUint16(p.end - 2) + p.view.getUint16(p.l4 + 6));
    fillTransportChecksum(p, p.l3, p.l4, p.proto);
    expect(p.view.getUint16(p.l4 + 6)).toBe(0xffff);
  });

  it('of UDP speaks of as many bytes as the length field says', () => {
    const p = packet(udp(8));
    p.end += 3;
    expect(isTransportSumRight(p)).toBe(true);
  });
});

describe('UDP-Lite (RFC 3828)', () => {
  /** Protocol 136 in UDP's clothes: what is UDP's length is the coverage. */
  function lite(coverage: number, covered = coverage): Packet {
    const p = packet(udp(9));
    p.proto = 136;
    p.view.setUint16(p.l4 + 4, coverage);
    p.view.setUint16(p.l4 + 6, 0);
    const { end } = p;
    const pseudo = [10 << 8, (2 << 8) | 11, 10 << 8, (1 << 8) | 2, 136, end - p.l4].reduce((a, b) => a + b);
    let all = pseudo + sum(p, p.l4, covered);
    while (all > 0xffff) all = (all & 0xffff) + (all >>> 16);
    p.view.setUint16(p.l4 + 6, ~all & 0xffff);
    return p;
  }

  it.each([
    ['all of it (0)', 0, 17, true],
    ['all of it', 17, 17, true],
    ['the header alone', 8, 8, true],
    ['an odd length', 11, 11, true],
    ['less than the header', 7, 7, false],
    ['more than there is', 18, 17, false],
    ['other bytes than it says', 8, 17, false],
  ])('covers %s', (_, coverage, covered, isRight) => {
    expect(isUdpLiteRight(lite(coverage, covered))).toBe(isRight);
  });

  it('is never without a checksum, nor shorter than its header', () => {
    const p = lite(8);
    p.view.setUint16(p.l4 + 6, 0);
    expect(isUdpLiteRight(p)).toBe(false);
    const cut = lite(8);
    cut.end = cut.l4 + 7;
    expect(isUdpLiteRight(cut)).toBe(false);
  });
});
