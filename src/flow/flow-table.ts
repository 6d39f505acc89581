/**
 * The one flow table: tuple → row, a row for each direction.   @hot
 *
 * A row belongs to everybody and to nobody: the director and conntrack each own one *column* of it, attach what they keep for that tuple
 * and detach it without knowing of each other; the row goes when all columns are empty. So a packet finds with one probe everything that later
 * stages need, and `Packet.flow` carries it.
 *
 *   row = 8 ints = half a cache line:   src | dst | ports | kind | next | hash | connection | entry
 *
 * Rows are interleaved, not one array per column: a probe touches a bucket and one line per row, where columns would touch six
 * (bench/micro: flow). All memory is reserved at the start and touched only as rows come into use, so the table never grows, moves or pauses.
 */
import { hash4 } from '../base/hash.ts';
import { type Allocate, int32Of, plainMemory } from '../base/memory.ts';

const STRIDE_SHIFT = 3;
const SRC = 0;
const DST = 1;
const PORTS = 2;
const KIND = 3;
const NEXT = 4;
const HASH = 5;
/** First of the attachable columns. */
const COLUMNS = 6;

export const NO_FLOW = -1;
/** Rows that a bucket takes from whoever sets no bound of his own. */
const LONGEST_CHAIN = 100;

const COPIED_FREE = 64;

/** Columns that owners attach to a row. A value is the owner's own id, > 0; 0 is empty. */
export const FlowColumn = { Connection: 0, Entry: 1 } as const;
export type FlowColumn = (typeof FlowColumn)[keyof typeof FlowColumn];

/** Where a table that stands in for another one gets what it does not have yet. Answers a row that it has put into the table, or NO_FLOW. */
export interface FlowSource {
  take(src: number, dst: number, ports: number, kind: number): number;
  /** Rows in the bucket of a tuple, there. */
  chainLength(src: number, dst: number, ports: number, kind: number): number;
}

export class FlowTable {
  readonly capacity: number;
  /** Asked when a tuple is not found; null but for the copy on which `tapvs explain` answers, and for a while after a restart (inheritance.ts). */
  source: FlowSource | null = null;
  readonly #rows: Int32Array;
  /** First row + 1 of each bucket, 0 when empty (fresh pages are zero and stay untouched). */
  readonly #buckets: Int32Array;
  readonly #mask: number;
  #seed: number;
  /** Row + 1 of the free list through NEXT; rows from #fresh on were never used. */
  #free = 0;
  #fresh = 0;
  #count = 0;

  /** @param capacity rows (two for a translated connection)  @param seed random per start, against chosen collisions */
  constructor(capacity: number, seed: number, allocate: Allocate = plainMemory) {
    const buckets = 2 ** Math.ceil(Math.log2(Math.max(capacity, 16)));
    this.capacity = capacity;
    this.#rows = int32Of(allocate((capacity << STRIDE_SHIFT) * 4), capacity << STRIDE_SHIFT);
    this.#buckets = int32Of(allocate(buckets * 4), buckets);
    this.#mask = buckets - 1;
    this.#seed = seed | 0;
  }

  /** Rows below this one may be in use. */
  get highWater(): number {
    return this.#fresh;
  }

  /** Rows in use. */
  get size(): number {
    return this.#count;
  }

  /**
   * The row of a tuple, or NO_FLOW.
   * @param src,dst int32 addresses  @param ports source << 16 | destination  @param kind IP protocol (higher bits: for zones)
   */
  find(src: number, dst: number, ports: number, kind: number): number {
    const hash = hash4(this.#seed, src, dst, ports, kind);
    let row = this.#buckets[hash & this.#mask]! - 1;
    while (row >= 0) {
      const at = row << STRIDE_SHIFT;
      if (this.#isAt(at, src, dst, ports, kind)) return row;
      row = this.#rows[at + NEXT]! - 1;
    }
    return this.source === null ? NO_FLOW : this.source.take(src, dst, ports, kind);
  }

  #isAt(at: number, src: number, dst: number, ports: number, kind: number): boolean {
    const rows = this.#rows;
    return rows[at + PORTS] === ports && rows[at + SRC] === src && rows[at + DST] === dst && rows[at + KIND] === kind;
  }

  /** Rows in the bucket of a tuple: as many look-ups must go past at worst. */
  chainLength(src: number, dst: number, ports: number, kind: number): number {
    if (this.source !== null) return this.source.chainLength(src, dst, ports, kind);
    return this.ownChainLength(src, dst, ports, kind);
  }

  /** The same, whatever the source has. */
  ownChainLength(src: number, dst: number, ports: number, kind: number): number {
    return this.#chainLength(hash4(this.#seed, src, dst, ports, kind) & this.#mask);
  }

  #chainLength(bucket: number): number {
    let length = 0;
    let next = this.#buckets[bucket]!;
    while (next !== 0) {
      length++;
      next = this.#rows[((next - 1) << STRIDE_SHIFT) + NEXT]!;
    }
    return length;
  }

  get isFull(): boolean {
    return this.#count === this.capacity;
  }

  /**
   * The row of a tuple, made when absent; NO_FLOW when the table is full, or more than `longest` rows are in its bucket. A new row must get a column attached,
   * or it leaks.
   */
  obtain(src: number, dst: number, ports: number, kind: number, longest: number = LONGEST_CHAIN): number {
    const hash = hash4(this.#seed, src, dst, ports, kind);
    const bucket = hash & this.#mask;
    const rows = this.#rows;
    let length = 0;
    let row = this.#buckets[bucket]! - 1;
    while (row >= 0) {
      const at = row << STRIDE_SHIFT;
      if (this.#isAt(at, src, dst, ports, kind)) return row;
      length++;
      row = rows[at + NEXT]! - 1;
    }
    const { source } = this;
    if (source !== null) {
      const taken = source.take(src, dst, ports, kind);
      if (taken !== NO_FLOW) return taken;
      length = source.chainLength(src, dst, ports, kind);
    }
    if (length > longest) return NO_FLOW;
    if (this.#free !== 0) {
      row = this.#free - 1;
      this.#free = rows[(row << STRIDE_SHIFT) + NEXT]!;
    } else {
      if (this.#fresh === this.capacity) return NO_FLOW;
      row = this.#fresh++;
    }
    const at = row << STRIDE_SHIFT;
    rows[at + SRC] = src;
    rows[at + DST] = dst;
    rows[at + PORTS] = ports;
    rows[at + KIND] = kind;
    rows[at + NEXT] = this.#buckets[bucket]!;
    rows[at + HASH] = hash;
    rows[at + COLUMNS] = 0;
    rows[at + COLUMNS + 1] = 0;
    this.#buckets[bucket] = row + 1;
    this.#count++;
    return row;
  }

  /** What `column` holds for the row; 0 when nothing. */
  attached(row: number, column: FlowColumn): number {
    return this.#rows[(row << STRIDE_SHIFT) + COLUMNS + column]!;
  }

  /** Attach `value` (> 0), replacing what was there. */
  attach(row: number, column: FlowColumn, value: number): void {
    this.#rows[(row << STRIDE_SHIFT) + COLUMNS + column] = value;
  }

  /** Empty the column; the row goes with its last one. */
  detach(row: number, column: FlowColumn): void {
    const rows = this.#rows;
    const at = row << STRIDE_SHIFT;
    rows[at + COLUMNS + column] = 0;
    if (rows[at + COLUMNS] === 0 && rows[at + COLUMNS + 1] === 0) this.#remove(row);
  }

  // cold: copies
  /** Become a copy, for a packet's worth of new rows, that has none of its rows yet; `adopt` takes them over one by one. */
  copyFrom(live: FlowTable): void {
    this.#seed = live.#seed;
    this.#free = live.#free;
    this.#fresh = live.#fresh;
    this.#count = live.#count;
    // The next rows of the free list: more than one packet can need.
    for (let i = 0, free = live.#free; i < COPIED_FREE && free !== 0; i++) {
      const next = ((free - 1) << STRIDE_SHIFT) + NEXT;
      this.#rows[next] = live.#rows[next]!;
      free = live.#rows[next]!;
    }
  }

  /** Take over a row that is in use, at the same place. */
  adopt(live: FlowTable, row: number): void {
    const at = row << STRIDE_SHIFT;
    for (let i = at; i < at + (1 << STRIDE_SHIFT); i++) this.#rows[i] = live.#rows[i]!;
    const bucket = this.#rows[at + HASH]! & this.#mask;
    this.#rows[at + NEXT] = this.#buckets[bucket]!;
    this.#buckets[bucket] = row + 1;
  }
  // hot again

  #remove(row: number): void {
    const rows = this.#rows;
    const at = row << STRIDE_SHIFT;
    const bucket = rows[at + HASH]! & this.#mask;
    let link = this.#buckets[bucket]!;
    if (link === row + 1) {
      this.#buckets[bucket] = rows[at + NEXT]!;
    } else {
      while (rows[((link - 1) << STRIDE_SHIFT) + NEXT] !== row + 1) link = rows[((link - 1) << STRIDE_SHIFT) + NEXT]!;
      rows[((link - 1) << STRIDE_SHIFT) + NEXT] = rows[at + NEXT]!;
    }
    rows[at + NEXT] = this.#free;
    this.#free = row + 1;
    this.#count--;
  }
}
