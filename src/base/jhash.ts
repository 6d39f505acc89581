/** Bob Jenkins's lookup3 (2006, public domain) over 32-bit words, as include/linux/jhash.h has it: where a number must come out as the kernel's does.   @hot */

const GOLDEN = 0xdeadbeef | 0;

function rotate(x: number, by: number): number {
  return (x << by) | (x >>> (32 - by));
}

/** jhash2 of an address in the kernel's union of 16 bytes: `first` (as it lies in memory, read as a little-endian word) and three zeros. Answers an int32. */
export function jhashAddress(first: number, initial: number): number {
  let a = (GOLDEN + 16 + initial) | 0;
  let b = a;
  let c = a;
  a = (a + first) | 0;
  // __jhash_mix
  a = ((a - c) ^ rotate(c, 4)) | 0;
  c = (c + b) | 0;
  b = ((b - a) ^ rotate(a, 6)) | 0;
  a = (a + c) | 0;
  c = ((c - b) ^ rotate(b, 8)) | 0;
  b = (b + a) | 0;
  a = ((a - c) ^ rotate(c, 16)) | 0;
  c = (c + b) | 0;
  b = ((b - a) ^ rotate(a, 19)) | 0;
  a = (a + c) | 0;
  c = ((c - b) ^ rotate(b, 4)) | 0;
  b = (b + a) | 0;
  // __jhash_final; the last word is zero
  c = ((c ^ b) - rotate(b, 14)) | 0;
  a = ((a ^ c) - rotate(c, 11)) | 0;
  b = ((b ^ a) - rotate(a, 25)) | 0;
  c = ((c ^ b) - rotate(b, 16)) | 0;
  a = ((a ^ c) - rotate(c, 4)) | 0;
  b = ((b ^ a) - rotate(a, 14)) | 0;
  c = ((c ^ b) - rotate(b, 24)) | 0;
  return c;
}

/** The word with its bytes the other way round. */
export function swapBytes(x: number): number {
  return ((x & 0xff) << 24) | ((x & 0xff00) << 8) | ((x >>> 8) & 0xff00) | (x >>> 24);
}
