/**
 * Which rules of a long chain can match a packet at all: found by address, protocol and port, so that a thousand rules are not asked one by one.   @hot
 *
 *   source      0.0.0.0 ──── 10.9.0.1 ─ 10.9.0.2 ──── …         intervals between all bounds that the rules name, found by halving;
 *   rules       1100…        1110…      1100…                   each with one bit per rule of the block: can it match there?
 *
 * The bits of source, destination, protocol and ports ANDed are the candidates; the rest of a rule (devices, inversions, its matches) is then asked as ever. Rules that
 * a dimension does not narrow are set everywhere in it. This is the bit vector scheme of Lakshman and Stiliadis (SIGCOMM 1998).
 */

/** Rules of one block at most. Larger ones are asked less often per packet, smaller ones are made anew sooner when a rule comes or goes. */
export const BLOCK_RULES = 512;
/** Shorter chains are walked through. */
export const WORTH_IT = 24;

/** Order of unsigned numbers kept in int32. */
const SIGN = -0x80000000;

/** Inclusive bounds in the order of unsigned numbers; null: any. */
export type Range = readonly [number, number] | null;

/** What is known of a rule beforehand. Addresses are int32, by their lowest and highest. */
export interface Hints {
  readonly src: Range;
  readonly dst: Range;
  /** 0: any. */
  readonly proto: number;
  readonly srcPort: Range;
  readonly dstPort: Range;
}

/** One dimension: interval i begins at starts[i], its bits stand at i × words. */
interface Dimension {
  readonly starts: Int32Array;
  readonly bits: Int32Array;
}

export class BlockIndex {
  readonly count: number;
  readonly words: number;
  readonly #src: Dimension | null;
  readonly #dst: Dimension | null;
  readonly #srcPort: Dimension | null;
  readonly #dstPort: Dimension | null;
  /** By protocol: where its bits are in `protoBits`. */
  readonly #protoAt = new Int32Array(256);
  readonly #protoBits: Int32Array;
  /** Candidates of the packet that was asked last. */
  readonly #found: Int32Array;

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
    this.#found = new Int32Array(words);
    const protos = [...new Set(rules.map(({ proto }) => proto))].filter((proto) => proto !== 0);
    this.#protoBits = new Int32Array((protos.length + 1) * words);
    for (const [i, proto] of protos.entries()) this.#protoAt[proto] = (i + 1) * words;
    for (const [rule, { proto }] of rules.entries()) {
      for (let at = 0; at < this.#protoBits.length; at += words) {
        if (proto === 0 || at === this.#protoAt[proto]) setBit(this.#protoBits, at, rule);
      }
    }
  }
  // hot again

  /** Find the candidates for such a packet. @param ports source << 16 | destination; not asked when `hasPorts` is false */
  ask(src: number, dst: number, proto: number, ports: number, hasPorts: boolean): void {
    const { words } = this;
    const found = this.#found;
    const first = this.#protoAt[proto]!;
    for (let i = 0; i < words; i++) found[i] = this.#protoBits[first + i]!;
    if (this.#src !== null) this.#and(this.#src, src ^ SIGN);
    if (this.#dst !== null) this.#and(this.#dst, dst ^ SIGN);
    if (!hasPorts) return;
    if (this.#dstPort !== null) this.#and(this.#dstPort, ports & 0xffff);
    if (this.#srcPort !== null) this.#and(this.#srcPort, ports >>> 16);
  }

  #and(dim: Dimension, value: number): void {
    const { words } = this;
    const found = this.#found;
    const { bits } = dim;
    const at = placeOf(dim.starts, value) * words;
    for (let i = 0; i < words; i++) found[i]! &= bits[at + i]!;
  }

  /** The first candidate from `rule` on; `count` when there is none. */
  next(rule: number): number {
    const { words } = this;
    const found = this.#found;
    let i = rule >> 5;
    if (i >= words) return this.count;
    let word = found[i]! & (-1 << (rule & 31));
    while (word === 0) {
      if (++i >= words) return this.count;
      word = found[i]!;
    }
    // The lowest set bit stands alone in word & -word.
    return (i << 5) + 31 - Math.clz32(word & -word);
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
function setBit(bits: Int32Array, at: number, rule: number): void {
  bits[at + (rule >> 5)]! |= 1 << (rule & 31);
}

/** Null when no rule is narrowed by it. */
function dimension(ranges: readonly Range[], words: number, lowest: number): Dimension | null {
  if (ranges.every((range) => range === null)) return null;
  const starts = startsOf(ranges, lowest);
  const bits = new Int32Array(starts.length * words);
  for (const [rule, range] of ranges.entries()) if (range === null) setBit(bits, 0, rule);
  for (let i = 1; i < starts.length; i++) bits.copyWithin(i * words, 0, words);
  for (const [rule, range] of ranges.entries()) {
    if (range === null) continue;
    for (let i = placeOf(starts, range[0]); i < starts.length && starts[i]! <= range[1]; i++) {
      setBit(bits, i * words, rule);
    }
  }
  return { starts, bits };
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
