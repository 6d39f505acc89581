/**
 * The two hash functions of the kernel that decide which client lands on which server. They are part of the behaviour: a tapvs and a kernel director
 * beside each other send the same client to the same server.
 */

const GOLDEN_RATIO_32 = 0x61c88647;

/** The top `bits` bits of value · golden ratio (include/linux/hash.h, hash_32). @param value int32 */
export function hash32(value: number, bits: number): number {
  return Math.imul(value, GOLDEN_RATIO_32) >>> (32 - bits);
}

/**
 * SipHash-1-3 of one 32-bit word, the low half of the result as uint32, modulo `size`, so that it stays a small integer: what hsiphash of four bytes is
 * on a 64-bit machine (lib/siphash.c; Aumasson and Bernstein, SipHash: a fast short-input PRF). Both halves of the key are the same number, below 2^32,
 * as mh's keys are.
 *
 * The four 64-bit words of the state are kept as halves, `a1` the upper and `a0` the lower one.
 */
export function hsiphash(value: number, key: number, size: number): number {
  let a1 = 0x736f6d65;
  let a0 = 0x70736575 ^ key;
  let b1 = 0x646f7261;
  let b0 = 0x6e646f6d ^ key;
  let c1 = 0x6c796765;
  let c0 = 0x6e657261 ^ key;
  // The message is one word: its length in bytes on top, the value below.
  let d1 = 0x74656462 ^ 0x04000000;
  let d0 = 0x79746573 ^ key ^ value;
  for (let round = 0; round < 4; round++) {
    if (round === 1) {
      a1 ^= 0x04000000;
      a0 ^= value;
      c0 ^= 0xff;
    }
    let sum = (a0 >>> 0) + (b0 >>> 0);
    a1 = (a1 + b1 + (sum > 0xffffffff ? 1 : 0)) | 0;
    a0 = sum | 0;
    let upper = (b1 << 13) | (b0 >>> 19);
    b0 = ((b0 << 13) | (b1 >>> 19)) ^ a0;
    b1 = upper ^ a1;
    upper = a0;
    a0 = a1;
    a1 = upper;

    sum = (c0 >>> 0) + (d0 >>> 0);
    c1 = (c1 + d1 + (sum > 0xffffffff ? 1 : 0)) | 0;
    c0 = sum | 0;
    upper = (d1 << 16) | (d0 >>> 16);
    d0 = ((d0 << 16) | (d1 >>> 16)) ^ c0;
    d1 = upper ^ c1;

    sum = (a0 >>> 0) + (d0 >>> 0);
    a1 = (a1 + d1 + (sum > 0xffffffff ? 1 : 0)) | 0;
    a0 = sum | 0;
    upper = (d1 << 21) | (d0 >>> 11);
    d0 = ((d0 << 21) | (d1 >>> 11)) ^ a0;
    d1 = upper ^ a1;

    sum = (c0 >>> 0) + (b0 >>> 0);
    c1 = (c1 + b1 + (sum > 0xffffffff ? 1 : 0)) | 0;
    c0 = sum | 0;
    upper = (b1 << 17) | (b0 >>> 15);
    b0 = ((b0 << 17) | (b1 >>> 15)) ^ c0;
    b1 = upper ^ c1;
    upper = c0;
    c0 = c1;
    c1 = upper;
  }
  return ((a0 ^ b0 ^ c0 ^ d0) >>> 0) % size;
}
