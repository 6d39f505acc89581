/**
 * Which rules of a long chain can match a packet at all: found by address, protocol, port and device, so that a thousand rules are not asked one by one.   @hot
 *
 *   source      0.0.0.0 ──── 10.9.0.1 ─ 10.9.0.2 ──── …         intervals between all bounds that the rules name, found by halving;
 *   rules       1100…        1110…      1100…                   each with one bit per rule of the block: can it match there?
 *   words       1            1          1                       and one bit per 32 rules: can any of them?
 *
 * The bits of all dimensions ANDed are the candidates, first those of the words, so that mostly nothing is left to look at; the rest of a rule (inversions, its
 * matches) is then asked as ever. Rules that a dimension does not narrow are set everywhere in it. This is the bit vector scheme of Lakshman and Stiliadis
 * (SIGCOMM 1998) with the aggregates of Baboescu and Varghese (SIGCOMM 2001). Most packets fall into few combinations of intervals, and what these leave over is
 * remembered. Devices are known to the walk only: device-bits.ts.
 */

/** Rules of one block at most: 32 words of 32. */
export const BLOCK_RULES = 1024;
/** Shorter chains are walked through. */
export const WORTH_IT = 24;

/** Order of unsigned numbers kept in int32. */
const SIGN = -0x80000000;
const PROTOCOLS = 256;
/** Combinations of intervals that are remembered; a power of two. */
const REMEMBERED = 64;
/** Rows that a combination is made of. */
const KEY = 5;

/** Inclusive bounds in the order of unsigned numbers; null: any. */
export type Range = readonly [number, number] | null;

/** A device that a rule names with -i or -o. */
export interface DeviceHint {
  /** With `+` at its end: any that begins so. */
  readonly pattern: string;
  readonly isInverted: boolean;
}

/** What is known of a rule beforehand. Addresses are int32, by their lowest and highest. */
export interface Hints {
  readonly src: Range;
  readonly dst: Range;
  /** 0: any. */
  readonly proto: number;
  readonly srcPort: Range;
  readonly dstPort: Range;
  /** Null: any. */
  readonly inDevice: DeviceHint | null;
  readonly outDevice: DeviceHint | null;
}

/** One dimension: interval i begins at starts[i]. Its bits stand at i × stride: `words` ints, and behind them which of those are not 0. */
interface Dimension {
  readonly starts: Int32Array;
  readonly bits: Int32Array;
  /** Where a row stands for whoever has no such value, as a packet without ports. */
  readonly any: number;
}

/** A row that leaves all over. */
const ALL = new Int32Array(BLOCK_RULES / 32 + 1).fill(-1);

export class BlockIndex {
  readonly count: number;
  readonly words: number;
  /** By rule; null when none of them names a device. */
  readonly inDevices: readonly (DeviceHint | null)[] | null;
  readonly outDevices: readonly (DeviceHint | null)[] | null;
  readonly #src: Dimension;
  readonly #dst: Dimension;
  readonly #srcPort: Dimension;
  readonly #dstPort: Dimension;
  /** By protocol: where its bits are in `protoBits`. */
  readonly #protoAt = new Int32Array(PROTOCOLS);
  readonly #protoBits: Int32Array;
  /** Combinations that were met: KEY rows of dimensions, and what they leave over together. A combination has one place. */
  readonly #keys = new Int32Array(REMEMBERED * KEY).fill(-1);
  readonly #known: Int32Array;
  // Of the packet that was asked last: rows in #known and of devices, and the words in which they leave something over.
  #row = 0;
  #inBits: Int32Array = ALL;
  #inRow = 0;
  #outBits: Int32Array = ALL;
  #outRow = 0;
  #left = 0;

  // cold: building
  constructor(rules: readonly Hints[]) {
    this.count = rules.length;
    this.words = (rules.length + 31) >> 5;
    const { words } = this;
    const address = (range: Range): Range => range && [range[0] ^ SIGN, range[1] ^ SIGN];
    this.#src = dimension(
      rules.map(({ src }) => address(src)),
      words,
      SIGN,
    );
    this.#dst = dimension(
      rules.map(({ dst }) => address(dst)),
      words,
      SIGN,
    );
    this.#srcPort = dimension(
      rules.map(({ srcPort }) => srcPort),
      words,
      0,
    );
    this.#dstPort = dimension(
      rules.map(({ dstPort }) => dstPort),
      words,
      0,
    );
    this.inDevices = hintsOrNone(rules.map(({ inDevice }) => inDevice));
    this.outDevices = hintsOrNone(rules.map(({ outDevice }) => outDevice));
    const stride = words + 1;
    this.#known = new Int32Array(REMEMBERED * stride);
    const protos = [...new Set(rules.map(({ proto }) => proto))].filter((proto) => proto !== 0);
    this.#protoBits = new Int32Array((protos.length + 1) * stride);
    for (const [i, proto] of protos.entries()) this.#protoAt[proto] = (i + 1) * stride;
    for (const [rule, { proto }] of rules.entries()) {
      if (proto !== 0) setBit(this.#protoBits, this.#protoAt[proto]!, words, rule);
      else for (let at = 0; at < this.#protoBits.length; at += stride) setBit(this.#protoBits, at, words, rule);
    }
  }
  // hot again

  /** Find the candidates for such a packet. @param ports source << 16 | destination; not asked when `hasPorts` is false */
  ask(src: number, dst: number, proto: number, ports: number, hasPorts: boolean): void {
    const { words } = this;
    const stride = words + 1;
    const byProto = this.#protoAt[proto]!;
    const bySrc = placeOf(this.#src.starts, src ^ SIGN) * stride;
    const byDst = placeOf(this.#dst.starts, dst ^ SIGN) * stride;
    const bySrcPort = hasPorts ? placeOf(this.#srcPort.starts, ports >>> 16) * stride : this.#srcPort.any;
    const byDstPort = hasPorts ? placeOf(this.#dstPort.starts, ports & 0xffff) * stride : this.#dstPort.any;
    const sum = bySrc + Math.imul(byDst, 0x9e5) + Math.imul(bySrcPort, 0x3c7) + Math.imul(byDstPort, 0x1f3) + byProto;
    const place = (Math.imul(sum, 0x9e3779b1) >>> 16) & (REMEMBERED - 1);
    const keys = this.#keys;
    const at = place * KEY;
    const row = place * stride;
    if (
      keys[at] !== bySrc ||
      keys[at + 1] !== byDst ||
      keys[at + 2] !== byProto ||
      keys[at + 3] !== bySrcPort ||
      keys[at + 4] !== byDstPort
    ) {
      keys[at] = bySrc;
      keys[at + 1] = byDst;
      keys[at + 2] = byProto;
      keys[at + 3] = bySrcPort;
      keys[at + 4] = byDstPort;
      this.#remember(row, at);
    }
    this.#row = row;
    this.#left = this.#known[row + words]!;
    this.#inBits = ALL;
    this.#inRow = 0;
    this.#outBits = ALL;
    this.#outRow = 0;
  }

  /** What the combination at `key` leaves over. */
  #remember(row: number, key: number): void {
    const { words } = this;
    const known = this.#known;
    const keys = this.#keys;
    const src = this.#src.bits;
    const dst = this.#dst.bits;
    const proto = this.#protoBits;
    const srcPort = this.#srcPort.bits;
    const dstPort = this.#dstPort.bits;
    const bySrc = keys[key]!;
    const byDst = keys[key + 1]!;
    const byProto = keys[key + 2]!;
    const bySrcPort = keys[key + 3]!;
    const byDstPort = keys[key + 4]!;
    let left =
      src[bySrc + words]! &
      dst[byDst + words]! &
      proto[byProto + words]! &
      srcPort[bySrcPort + words]! &
      dstPort[byDstPort + words]!;
    for (let i = 0; i < words; i++) {
      if ((left & (1 << i)) === 0) continue;
      const word =
        src[bySrc + i]! & dst[byDst + i]! & proto[byProto + i]! & srcPort[bySrcPort + i]! & dstPort[byDstPort + i]!;
      known[row + i] = word;
      if (word === 0) left &= ~(1 << i);
    }
    known[row + words] = left;
  }

  /** After `ask`: only those that the device leaves over by which the packet came in; its row stands in `bits` at `row`. */
  cameIn(bits: Int32Array, row: number): void {
    this.#inBits = bits;
    this.#inRow = row;
    this.#left &= bits[row + this.words]!;
  }

  /** The same of the device by which it leaves. */
  leaves(bits: Int32Array, row: number): void {
    this.#outBits = bits;
    this.#outRow = row;
    this.#left &= bits[row + this.words]!;
  }

  /** The first candidate from `rule` on; `count` when there is none. */
  next(rule: number): number {
    const first = rule >> 5;
    if (first >= this.words) return this.count;
    let left = this.#left & (-1 << first);
    while (left !== 0) {
      // The lowest set bit stands alone in left & -left.
      const i = 31 - Math.clz32(left & -left);
      let word = this.#known[this.#row + i]! & this.#inBits[this.#inRow + i]! & this.#outBits[this.#outRow + i]!;
      if (i === first) word &= -1 << (rule & 31);
      if (word !== 0) return (i << 5) + 31 - Math.clz32(word & -word);
      left &= left - 1;
    }
    return this.count;
  }
}

/** The interval that begins at or before `value`. */
function placeOf(starts: Int32Array, value: number): number {
  let low = 0;
  let high = starts.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (starts[middle]! <= value) low = middle;
    else high = middle - 1;
  }
  return low;
}

// cold: building
function hintsOrNone(hints: readonly (DeviceHint | null)[]): readonly (DeviceHint | null)[] | null {
  return hints.some((hint) => hint !== null) ? hints : null;
}

/** The rule's bit in the row at `at`, and its word's. */
export function setBit(bits: Int32Array, at: number, words: number, rule: number): void {
  bits[at + (rule >> 5)]! |= 1 << (rule & 31);
  bits[at + words]! |= 1 << (rule >> 5);
}

function dimension(ranges: readonly Range[], words: number, lowest: number): Dimension {
  const starts = startsOf(ranges, lowest);
  const stride = words + 1;
  const any = starts.length * stride;
  const bits = new Int32Array(any + stride);
  for (const [rule, range] of ranges.entries()) if (range === null) setBit(bits, 0, words, rule);
  for (let i = 1; i < starts.length; i++) bits.copyWithin(i * stride, 0, stride);
  bits.fill(-1, any);
  for (const [rule, range] of ranges.entries()) {
    if (range === null) continue;
    for (let i = placeOf(starts, range[0]); i < starts.length && starts[i]! <= range[1]; i++) {
      setBit(bits, i * stride, words, rule);
    }
  }
  return { starts, bits, any };
}

/** Where an interval begins, in order, each once. */
function startsOf(ranges: readonly Range[], lowest: number): Int32Array {
  const bounds = new Int32Array(2 * ranges.length + 1);
  let count = 0;
  bounds[count++] = lowest;
  for (const range of ranges) {
    if (range === null) continue;
    bounds[count++] = range[0];
    // Behind the highest number nothing begins.
    if (range[1] !== 0x7fffffff) bounds[count++] = range[1] + 1;
  }
  const sorted = bounds.slice(0, count).sort();
  let kept = 1;
  for (let i = 1; i < count; i++) if (sorted[i] !== sorted[kept - 1]) sorted[kept++] = sorted[i]!;
  return sorted.slice(0, kept);
}
