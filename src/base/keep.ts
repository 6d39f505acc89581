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
import type { Allocate } from './memory.ts';

/** Maps `bytes` of the memory from `offset` on, a multiple of the page size. */
export type MapMemory = (offset: number, bytes: number) => ArrayBuffer;

/** Bytes of the sparse file: more than all tables can need. */
export const KEEP_SIZE = 2 ** 38;

const PAGE = 4096;
const HEADER_SIZE = 65536;
const MAGIC = 0x74617076;
/** Of this file's own structures. */
const FORMAT = 1;
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

/** Texts, and the bytes that each may have. Untouched bytes cost nothing. */
const SLOTS = { control: 2 ** 20, settings: 2 ** 22, rules: 2 ** 24, side: 2 ** 22 } as const;
export type SlotName = keyof typeof SLOTS;
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

/** This life's, to be written. */
export class Keep {
  /** Of how many lives this is: one more than the life that it goes on from. */
  readonly life: number;
  readonly #map: MapMemory;
  readonly #head: Int32Array;
  readonly #headBytes: Buffer;
  readonly #settings: KeepSettings;
  readonly #slots: Readonly<Record<SlotName, Slot>>;
  readonly #columns: Record<string, readonly [number, number]> = {};
  #end: number;

  /**
   * @param layout what the columns mean: a life with another layout can't read them
   * @param end where the columns begin, when something else lies in their place already: `end` of an earlier attempt
   */
  constructor(map: MapMemory, settings: KeepSettings, layout: number, life: number, end = 0) {
    this.#map = map;
    this.#settings = settings;
    this.life = life;
    const header = map(0, HEADER_SIZE);
    this.#head = new Int32Array(header, 0, DIRECTORY / 4);
    this.#headBytes = Buffer.from(header);
    const slots = openSlots(map);
    this.#slots = slots.byName;
    this.#end = Math.max(slots.end, end);
    this.#head[Head.Format] = FORMAT;
    this.#head[Head.Layout] = layout;
    this.#head[Head.Life] = life;
    this.#head[Head.Magic] = MAGIC;
  }

  /** Memory of a column, all zero. */
  readonly allocate = (bytes: number, name: string): ArrayBuffer => {
    const offset = this.#end;
    this.#end += Math.ceil(bytes / PAGE) * PAGE;
    this.#columns[name] = [offset, bytes];
    return this.#map(offset, bytes);
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
    return this.#slots[name].write(text);
  }

  /** The first byte that nobody has. */
  get end(): number {
    return this.#end;
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
  readonly #columns: Directory['columns'];
  readonly #slots: Readonly<Record<SlotName, Slot>>;

  private constructor(map: MapMemory, head: Int32Array, directory: Directory) {
    this.#map = map;
    this.life = head[Head.Life]!;
    this.tick = head[Head.Tick]!;
    this.settings = directory.settings;
    this.#columns = directory.columns;
    this.#slots = openSlots(map).byName;
  }

  /**
   * Answers why it cannot be read when it cannot: one line for the log.
   * @param layout of this program, as for `Keep`; undefined: whoever only asks for settings and texts takes any
   */
  static open(map: MapMemory, layout?: number): Kept | string {
    const header = map(0, HEADER_SIZE);
    const head = new Int32Array(header, 0, DIRECTORY / 4);
    if (head[Head.Magic] !== MAGIC) return 'it is no memory of tapvs';
    if (head[Head.Format] !== FORMAT) return `its format is ${head[Head.Format]}, and this version reads ${FORMAT}`;
    if (head[Head.IsWhole] !== 1) return 'its daemon ended before it was ready';
    if (layout !== undefined && head[Head.Layout] !== layout)
      return 'its tables have another layout: another version wrote them';
    const length = head[Head.DirectoryBytes]!;
    if (length < 2 || length > HEADER_SIZE - DIRECTORY) return 'its directory is damaged';
    const text = Buffer.from(header, DIRECTORY, length);
    if ((crc32(text) | 0) !== head[Head.DirectorySum]) return 'its directory is damaged';
    return new Kept(map, head, JSON.parse(text.toString()) as Directory);
  }

  /** The text of a slot, '' when none was written. */
  read(name: SlotName): string {
    return this.#slots[name].read();
  }

  int32(name: string): Int32Array {
    return new Int32Array(this.#column(name));
  }

  uint32(name: string): Uint32Array {
    return new Uint32Array(this.#column(name));
  }

  uint16(name: string): Uint16Array {
    return new Uint16Array(this.#column(name));
  }

  uint8(name: string): Uint8Array {
    return new Uint8Array(this.#column(name));
  }

  float64(name: string): Float64Array {
    return new Float64Array(this.#column(name));
  }

  #column(name: string): ArrayBuffer {
    const place = this.#columns[name];
    return place === undefined ? new ArrayBuffer(0) : this.#map(place[0], place[1]);
  }
}

/** A text that is written while others may be ended in the middle of it: two places, of which the one with the higher serial number and the right sum is valid. */
class Slot {
  readonly #halves: readonly { readonly head: Int32Array; readonly bytes: Buffer }[];

  constructor(memory: ArrayBuffer, bytes: number) {
    this.#halves = [0, bytes].map((at) => ({
      head: new Int32Array(memory, at, SLOT_HEAD / 4),
      bytes: Buffer.from(memory, at + SLOT_HEAD, bytes - SLOT_HEAD),
    }));
  }

  write(text: string): boolean {
    const [a, b] = this.#halves;
    const half = a!.head[0]! <= b!.head[0]! ? a! : b!;
    const length = Buffer.byteLength(text);
    if (length > half.bytes.length) return false;
    const serial = Math.max(a!.head[0]!, b!.head[0]!) + 1;
    half.head[0] = 0;
    half.bytes.write(text);
    half.head[1] = length;
    half.head[2] = crc32(half.bytes.subarray(0, length)) | 0;
    half.head[0] = serial;
    return true;
  }

  read(): string {
    const halves = [...this.#halves].sort((a, b) => b.head[0]! - a.head[0]!);
    for (const { head, bytes } of halves) {
      const text = bytes.subarray(0, head[1]!);
      if (head[0] !== 0 && text.length === head[1] && (crc32(text) | 0) === head[2]) return text.toString();
    }
    return '';
  }
}

function openSlots(map: MapMemory): { byName: Readonly<Record<SlotName, Slot>>; end: number } {
  let end = HEADER_SIZE;
  const open = (bytes: number): Slot => {
    const slot = new Slot(map(end, 2 * bytes), bytes);
    end += 2 * bytes;
    return slot;
  };
  const { control, settings, rules, side } = SLOTS;
  const byName = { control: open(control), settings: open(settings), rules: open(rules), side: open(side) };
  return { byName, end };
}

/** Memory with a name is kept, the rest comes from `others`. */
export function keptOr(keep: Keep | null, others: Allocate): Allocate {
  return (bytes, name) => (keep === null || name === undefined ? others(bytes) : keep.allocate(bytes, name));
}
