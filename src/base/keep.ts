/**
 * Memory that outlives the process: tables in which a later life of the daemon finds what this one knew, also when this one is killed in the middle of a packet.
 *
 *   64 KiB   header: magic, format, layout, life, tick | directory: settings, and where which column lies, as JSON with its checksum
 *   slots    texts, each twice: the one that is written is never the one that is valid
 *   columns  as they were asked for, each on a page of its own; sparse, so that what was never touched costs nothing
 *
 * One life writes, the next one reads and copies what holds into memory of its own: nothing that was left half-written is ever used in place. What a row means is
 * the business of whoever has the table (inherit.ts of director and conntrack); here it is bytes with names.
 */
import { crc32 } from 'node:zlib';
import { type Allocate, int32Of, type Span, wholeOf } from './memory.ts';
import { finish, type Steps } from './slices.ts';

/** Maps `bytes` of the memory from `offset` on, a multiple of the page size. */
export type MapMemory = (offset: number, bytes: number) => Span;

/** Bytes of the sparse file: more than all tables can need. */
export const KEEP_SIZE = 2 ** 38;

const PAGE = 4096;
/**
 * Columns are mapped many at once, as much address space as this. The garbage collector counts the bytes of each buffer and runs more often for them: a buffer for
 * each column of a million rows was a dozen collections.
 */
const REACH = 2 ** 28;
const HEADER_SIZE = 65536;
const MAGIC = 0x74617076;
/** Of this file's own structures. */
const FORMAT = 2;
/** Ints of the header. */
const Head = {
  Magic: 0,
  Format: 1,
  Layout: 2,
  IsWhole: 3,
  Life: 4,
  Tick: 5,
  DirectoryBytes: 6,
  DirectorySum: 7,
} as const;
const DIRECTORY = 64;

/** Texts, behind the header in this order; the columns come next. */
const SLOT_NAMES = ['control', 'settings', 'rules', 'side'] as const;
export type SlotName = (typeof SLOT_NAMES)[number];
/** Bytes that each may have. */
export type SlotSizes = Readonly<Record<SlotName, number>>;
/** Untouched bytes cost nothing. */
const SLOTS: SlotSizes = { control: 2 ** 20, settings: 2 ** 22, rules: 2 ** 24, side: 2 ** 22 };
/** Ints before each of the two texts of a slot: serial number (0: none), bytes, checksum. */
const SLOT_HEAD = 16;

/** With what the tables were made. */
export interface KeepSettings {
  readonly maxConnections: number;
  readonly maxEntries?: number | undefined;
  readonly maxPackets: number;
  readonly spin: number;
  readonly testClock: boolean;
}

interface Directory {
  readonly settings: KeepSettings;
  readonly columns: Readonly<Record<string, readonly [offset: number, bytes: number]>>;
}

function slotAt(sizes: SlotSizes, name: SlotName): number {
  return SLOT_NAMES.slice(0, SLOT_NAMES.indexOf(name)).reduce((at, other) => at + 2 * sizes[other], HEADER_SIZE);
}

function slotsEnd(sizes: SlotSizes): number {
  return SLOT_NAMES.reduce((at, name) => at + 2 * sizes[name], HEADER_SIZE);
}

/** This life's, to be written. */
export class Keep {
  readonly #map: MapMemory;
  readonly #head: Int32Array;
  readonly #headBytes: Buffer;
  readonly #settings: KeepSettings;
  readonly #slots: Slots;
  readonly #columns: Record<string, readonly [number, number]> = {};
  #end: number;
  /** What is mapped from `#mappedFrom` to `#mappedEnd`. */
  #mapped: Span | null = null;
  #mappedFrom = 0;
  #mappedEnd = 0;

  /**
   * @param layout what the columns mean: a life with another layout can't read them
   * @param end where the columns begin, when something else lies in their place already: `end` of an earlier attempt
   */
  constructor(
    map: MapMemory,
    settings: KeepSettings,
    layout: number,
    life: number,
    { end = 0, sizes = SLOTS }: { readonly end?: number | undefined; readonly sizes?: SlotSizes } = {},
  ) {
    this.#map = map;
    this.#settings = settings;
    const header = map(0, HEADER_SIZE);
    this.#head = int32Of(header, DIRECTORY / 4);
    this.#headBytes = Buffer.from(header.buffer, header.at, HEADER_SIZE);
    this.#slots = new Slots(map, sizes);
    this.#end = Math.max(slotsEnd(sizes), end);
    this.#head[Head.Format] = FORMAT;
    this.#head[Head.Layout] = layout;
    this.life = life;
    this.#head[Head.Magic] = MAGIC;
  }

  /** Memory of a column, all zero. */
  readonly allocate = (bytes: number, name: string): Span => {
    const offset = this.#end;
    this.#end += Math.ceil(bytes / PAGE) * PAGE;
    this.#columns[name] = [offset, bytes];
    if (this.#mapped === null || this.#end > this.#mappedEnd) {
      const reach = Math.max(REACH, this.#end - offset);
      this.#mapped = this.#map(offset, reach);
      this.#mappedFrom = offset;
      this.#mappedEnd = offset + reach;
    }
    return { buffer: this.#mapped.buffer, at: this.#mapped.at + offset - this.#mappedFrom };
  };

  /** The tables are there, with all that they begin with. Until then the memory is good for nobody. */
  complete(): void {
    const directory: Directory = { settings: this.#settings, columns: this.#columns };
    const text = Buffer.from(JSON.stringify(directory));
    text.copy(this.#headBytes, DIRECTORY);
    this.#head[Head.DirectoryBytes] = text.length;
    this.#head[Head.DirectorySum] = crc32(text) | 0;
    this.#head[Head.IsWhole] = 1;
  }

  /** A text that replaces the one in the slot. False: it is too long to be kept, and the one before stays. */
  write(name: SlotName, text: string): boolean {
    return finish(this.writeInSteps(name, [text]));
  }

  /** The same of a text in pieces, with a pause behind each. Nobody else may write it meanwhile; until the end the text before is valid. */
  writeInSteps(name: SlotName, pieces: Iterable<string>): Steps<boolean> {
    return this.#slots.open(name).write(pieces);
  }

  /** The first byte that nobody has. */
  get end(): number {
    return this.#end;
  }

  /** The how many-th life this is: one more than the life that it goes on from. */
  set life(life: number) {
    this.#head[Head.Life] = life;
  }

  set tick(now: number) {
    this.#head[Head.Tick] = now;
  }
}

/** What an earlier life has left. */
export class Kept {
  readonly life: number;
  readonly tick: number;
  readonly settings: KeepSettings;
  readonly #map: MapMemory;
  readonly #directory: Directory;
  readonly #sizes: SlotSizes;

  private constructor(map: MapMemory, head: Int32Array, directory: Directory, sizes: SlotSizes) {
    this.#map = map;
    this.#sizes = sizes;
    this.#directory = directory;
    this.life = head[Head.Life]!;
    this.tick = head[Head.Tick]!;
    this.settings = directory.settings;
  }

  /**
   * Answers why it cannot be read when it cannot: one line for the log.
   * @param layout of this program, as for `Keep`; undefined: whoever only asks for settings and texts takes any
   */
  static open(map: MapMemory, layout?: number, sizes = SLOTS): Kept | string {
    const header = map(0, HEADER_SIZE);
    const head = int32Of(header, DIRECTORY / 4);
    if (head[Head.Magic] !== MAGIC) return 'it is no memory of tapvs';
    if (head[Head.Format] !== FORMAT) return `its format is ${head[Head.Format]}, and this version reads ${FORMAT}`;
    if (head[Head.IsWhole] !== 1) return 'its daemon ended before it was ready';
    if (layout !== undefined && head[Head.Layout] !== layout)
      return 'its tables have another layout: another version wrote them';
    const length = head[Head.DirectoryBytes]!;
    if (length < 2 || length > HEADER_SIZE - DIRECTORY) return 'its directory is damaged';
    const text = Buffer.from(header.buffer, header.at + DIRECTORY, length);
    if ((crc32(text) | 0) !== head[Head.DirectorySum]) return 'its directory is damaged';
    return new Kept(map, head, JSON.parse(text.toString()) as Directory, sizes);
  }

  /** The text of a slot, '' when none was written. */
  read(name: SlotName): string {
    const from = slotAt(this.#sizes, name);
    const size = this.#sizes[name];
    const halves = [from, from + size].map((at) => ({ at, head: int32Of(this.#map(at, SLOT_HEAD), 3) }));
    for (const { at, head } of halves.sort((a, b) => b.head[0]! - a.head[0]!)) {
      const length = head[1]!;
      if (head[0] === 0 || length < 0 || length > size - SLOT_HEAD) continue;
      const text = this.#map(at, SLOT_HEAD + length);
      const bytes = Buffer.from(text.buffer, text.at + SLOT_HEAD, length);
      if ((crc32(bytes) | 0) === head[2]) return bytes.toString();
    }
    return '';
  }

  /** How many rows of a table were ever in use; 0 when that cannot be. */
  rowsOf(table: string, capacity: number): number {
    const rows = this.int32(`${table}.fresh`)[0] ?? 0;
    return rows > 0 && rows <= capacity ? rows : 0;
  }

  /** Bytes of a column. */
  bytesOf(name: string): number {
    return this.#directory.columns[name]?.[1] ?? 0;
  }

  /** A column, or its first `length` values alone: what is mapped is counted by the garbage collector, which runs for it (REACH). */
  int32(name: string, length = this.bytesOf(name) >> 2): Int32Array {
    const { buffer, at } = this.#column(name, length * 4);
    return new Int32Array(buffer, at, length);
  }

  uint32(name: string, length = this.bytesOf(name) >> 2): Uint32Array {
    const { buffer, at } = this.#column(name, length * 4);
    return new Uint32Array(buffer, at, length);
  }

  uint16(name: string, length = this.bytesOf(name) >> 1): Uint16Array {
    const { buffer, at } = this.#column(name, length * 2);
    return new Uint16Array(buffer, at, length);
  }

  uint8(name: string, length = this.bytesOf(name)): Uint8Array {
    const { buffer, at } = this.#column(name, length);
    return new Uint8Array(buffer, at, length);
  }

  float64(name: string, length = this.bytesOf(name) >> 3): Float64Array {
    const { buffer, at } = this.#column(name, length * 8);
    return new Float64Array(buffer, at, length);
  }

  #column(name: string, bytes: number): Span {
    const place = this.#directory.columns[name];
    if (place === undefined || bytes === 0) return wholeOf(new ArrayBuffer(bytes));
    return this.#map(place[0], bytes);
  }
}

/** A text that is written while others may be ended in the middle of it: two places, of which the one with the higher serial number and the right sum is valid. */
class Slot {
  readonly #halves: readonly { readonly head: Int32Array; readonly bytes: Buffer }[];

  constructor({ buffer, at }: Span, bytes: number) {
    this.#halves = [at, at + bytes].map((from) => ({
      head: new Int32Array(buffer, from, SLOT_HEAD / 4),
      bytes: Buffer.from(buffer, from + SLOT_HEAD, bytes - SLOT_HEAD),
    }));
  }

  *write(pieces: Iterable<string>): Steps<boolean> {
    const [a, b] = this.#halves;
    const half = a!.head[0]! <= b!.head[0]! ? a! : b!;
    const serial = Math.max(a!.head[0]!, b!.head[0]!) + 1;
    half.head[0] = 0;
    let length = 0;
    let sum = 0;
    for (const piece of pieces) {
      if (length > 0) yield;
      if (length + Buffer.byteLength(piece) > half.bytes.length) return false;
      const end = length + half.bytes.write(piece, length);
      sum = crc32(half.bytes.subarray(length, end), sum);
      length = end;
    }
    half.head[1] = length;
    half.head[2] = sum | 0;
    half.head[0] = serial;
    return true;
  }
}

/** Each is mapped when it is wanted. */
class Slots {
  readonly #map: MapMemory;
  readonly #sizes: SlotSizes;
  readonly #byName = new Map<SlotName, Slot>();

  constructor(map: MapMemory, sizes: SlotSizes) {
    this.#map = map;
    this.#sizes = sizes;
  }

  open(name: SlotName): Slot {
    const known = this.#byName.get(name);
    if (known !== undefined) return known;
    const size = this.#sizes[name];
    const slot = new Slot(this.#map(slotAt(this.#sizes, name), 2 * size), size);
    this.#byName.set(name, slot);
    return slot;
  }
}

/** Memory with a name is kept, the rest comes from `others`. */
export function keptOr(keep: Keep | null, others: Allocate): Allocate {
  return (bytes, name) => (keep === null || name === undefined ? others(bytes) : keep.allocate(bytes, name));
}
