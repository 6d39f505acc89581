import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { adjust, adjustPartial, diff16, diff32, fold, pseudoSum, sumBytes, sumWords } from './checksum.ts';

/** RFC 1071 §4.1 the slow way: 16-bit words added as big integers, carries folded at the end. */
function reference(bytes: Uint8Array): number {
  let sum = 0n;
  for (let i = 0; i < bytes.length; i += 2) sum += BigInt((bytes[i]! << 8) | (bytes[i + 1] ?? 0));
  while (sum > 0xffffn) sum = (sum & 0xffffn) + (sum >> 16n);
  return Number(sum);
}

const int32 = fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 });

describe('Internet checksum', () => {
  it('agrees with the definition for every length and alignment', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 2000 }), fc.integer({ min: 0, max: 8 }), (bytes, half) => {
        const at = half * 2;
        const buffer = new ArrayBuffer(2048);
        const m = new DataView(buffer);
        new Uint8Array(buffer).set(bytes, at);
        expect(sumBytes(m, at, bytes.length)).toBe(reference(bytes));
        expect(sumWords(m, new Uint16Array(buffer), at, bytes.length)).toBe(reference(bytes));
      }),
    );
  });

  it('does not overflow on 65,535 bytes of ones', () => {
    const bytes = new Uint8Array(65536).fill(255);
    expect(sumBytes(new DataView(bytes.buffer), 0, 65534)).toBe(0xffff);
    expect(sumWords(new DataView(bytes.buffer), new Uint16Array(bytes.buffer), 0, 65534)).toBe(0xffff);
    expect(sumBytes(new DataView(bytes.buffer), 0, 65535)).toBe(fold(0xffff + 0xff00));
  });

  it('is kept right by the incremental update (RFC 1624 eqn. 3)', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 40, maxLength: 40 }), int32, fc.nat(0xffff), (bytes, ip, port) => {
        const m = new DataView(bytes.slice().buffer);
        m.setUint16(10, 0);
        const before = ~sumBytes(m, 0, 40) & 0xffff;
        m.setUint16(10, before);
        const diff = diff32(m.getInt32(12), ip) + diff16(m.getUint16(22), port);
        m.setInt32(12, ip);
        m.setUint16(22, port);
        m.setUint16(10, adjust(before, diff));
        expect(sumBytes(m, 0, 40)).toBe(0xffff);
      }),
    );
  });

  it('keeps a partial checksum the sum of the pseudo-header', () => {
    fc.assert(
      fc.property(int32, int32, int32, fc.integer({ min: 8, max: 65535 }), (src, dst, to, length) => {
        const partial = fold(pseudoSum(src, dst, 6, length));
        expect(adjustPartial(partial, diff32(dst, to))).toBe(fold(pseudoSum(src, to, 6, length)));
      }),
    );
  });
});
