/**
 * Keyed integer hashing for tables that a stranger fills.   @hot
 *
 * The finalizer of MurmurHash3 (full avalanche of 32 bits) over a sum in which each word has an odd multiplier of its own.
 * The seed is random per start, so that a sender can't aim at one bucket.
 */
export function hash4(seed: number, a: number, b: number, c: number, d: number): number {
  let h = seed ^ Math.imul(a, 0x9e3779b1);
  h = Math.imul((h << 15) | (h >>> 17), 0x85ebca6b) ^ Math.imul(b, 0xc2b2ae35);
  h = Math.imul((h << 13) | (h >>> 19), 0x27d4eb2f) ^ Math.imul(c, 0x165667b1);
  h ^= Math.imul(d, 0x2545f491);
  h ^= h >>> 16;
  h = Math.imul(h, 0x85ebca6b);
  h ^= h >>> 13;
  h = Math.imul(h, 0xc2b2ae35);
  return h ^ (h >>> 16);
}
