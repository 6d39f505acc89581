/**
 * The table of tracked connections: one row of 32 ints, columns beside it for what few entries have. One piece, for a row, its two places in the flow table and its
 * timer come and go together.   @hot
 *
 *   src | dst | ports | kind  of the original direction, the same of the reply | status | timeout | expires | due | mark | flow rows (2) | word |
 *   original: end, maxend, maxwin, maxack, scale and flags | reply: the same | last seq, ack, end, window | id | master
 *
 * Entries are ids > 0. A confirmed entry is found by the flow rows of its two tuples (flow-table.ts, FlowColumn.Entry: (id << 1 | direction) + 1); one that is
 * not confirmed yet has none and is known to its packet alone. A row is given back when the entry is dead and no packet refers to it (`use`).
 *
 * Timers: a packet only stores `expires`; the wheel fires at `due` or later and is started again for what is left.
 */
import { adoptRow } from '../base/copy-state.ts';
import { type Allocate, Columns, int32Of, plainMemory, uint16Of } from '../base/memory.ts';
import { TimerWheel } from '../base/timer-wheel.ts';
import { FlowColumn, type FlowTable, NO_FLOW } from '../flow/flow-table.ts';
import { Status } from '../model/entry-status.ts';
import { CtDir } from './entry.ts';
import { Tuple } from './tuple.ts';

export const ENTRY_SHIFT = 5;
/** Columns of a row. Tuple columns of the reply are those of the original + 4; window columns + 5. */
export const Col = {
  Src: 0,
  Dst: 1,
  Ports: 2,
  /** Protocol | zone << 16. */
  Kind: 3,
  Status: 8,
  /** Ticks; what the last packet added to now. */
  Timeout: 9,
  /** Tick; of an unconfirmed entry the ticks that it will have. */
  Expires: 10,
  Due: 11,
  Mark: 12,
  FlowOriginal: 13,
  FlowReply: 14,
  /** The tracker's: TCP state | last index << 8 | last direction << 12 | last flags << 16 | retransmissions << 24; UDP: tick from which it is a stream. */
  Word: 15,
  End: 16,
  MaxEnd: 17,
  MaxWin: 18,
  MaxAck: 19,
  /** Window scale | flags << 8. */
  Scale: 20,
  LastSeq: 26,
  LastAck: 27,
  LastEnd: 28,
  /** Window | scale << 16. */
  LastWin: 29,
  Id: 30,
  Master: 31,
} as const;

/** Bit of `muted`: a new expectation; the bit above it: one that ends. */
export const MUTED_EXPECTATION = 1 << 14;
export const NO_ENTRY = 0;
/** Answers of `claim`. */
export const CLAIMED = 0;
export const NO_ROOM = -1;
export const CHAIN_TOO_LONG = -2;
/** Rows that a bucket of the flow table may have before another one may be refused (MIN_CHAINLEN, which the kernel counts from 0 and exceeds by one). */
export const SHORT_CHAIN = 51;
const ZONE_SHIFT = 16;
/** Added to the kind of a row that stands behind another one of the same tuple; see `#link`. Bits 8–14 of a kind are the director's. */
const APART = 0x8000;
/** Entries that end in one tick: of a million idle ones the time is over at once (timer-wheel.ts), and packets shall not wait for all. */
export const MOST_ENDS = 1024;
const COPIED_FREE = 64;

const { Src: SRC, Dst: DST, Ports: PORTS, Kind: KIND, Status: STATUS, Expires: EXPIRES, Due: DUE } = Col;
const { FlowOriginal: FLOW, Master: MASTER, Id: ID, Mark: MARK, Timeout: TIMEOUT } = Col;
const { Confirmed: CONFIRMED, Dying: DYING } = Status;
const ENTRY = FlowColumn.Entry;
const { Original: ORIGINAL, Reply: REPLY } = CtDir;

/** Bits of `traits`: what an entry was given when it was made. */
export const Trait = { Counts: 1, Stamps: 2, Events: 4, Used: 8, Labels: 16 } as const;
const { Used: USED, Labels: LABELS } = Trait;

/** The columns of an entry that outlive the process. */
export type KeptEntries = Pick<EntryTable, 'rows' | 'traits' | 'muted' | 'counters' | 'stamps' | 'labels'>;

const NOBODY = new Tuple();

export class EntryTable {
  /** Entries at most. */
  readonly capacity: number;
  /** Hot code indexes them with `(entry << ENTRY_SHIFT) + Col.X`. */
  readonly rows: Int32Array;
  /** Packets, and entries that it is the master of, that refer to the entry. */
  readonly use: Int32Array;
  readonly traits: Uint8Array;
  /** Changes (events.ts) that were not told yet. */
  readonly pending: Uint16Array;
  /** Changes that its events shall not tell alone (`CT --ctevents`); MUTED_EXPECTATION and the next bit: comings and goings of what it expects. */
  readonly muted: Uint16Array;
  /** Packets and bytes of the original, then of the reply direction. */
  readonly counters: Float64Array;
  /** Milliseconds since 1970: begin and end. */
  readonly stamps: Float64Array;
  /** 128 bits each, the lowest word first. */
  readonly labels: Int32Array;
  /** Number of the helper, 0 for none. */
  readonly helper: Uint8Array;
  onExpire: (entry: number) => void = () => {};
  /** How many rows a bucket may have this time, if it has more than SHORT_CHAIN. */
  longestChain: () => number = () => SHORT_CHAIN;
  readonly #flows: FlowTable;
  readonly #wheel: TimerWheel;
  readonly #fire: (entry: number) => void;
  #now: number;
  /** Entry at the head of the free list through MASTER, 0 when empty; ids from #fresh on were never used. */
  #free = 0;
  /** One int. */
  readonly #fresh: Int32Array;
  #count = 0;
  #confirmed = 0;
  /** Flow rows that stand behind another one. */
  #apart = 0;

  constructor(capacity: number, flows: FlowTable, now: number, allocate: Allocate = plainMemory) {
    const rows = capacity + 1;
    const columns = new Columns('entries', allocate);
    this.capacity = capacity;
    this.rows = columns.int32('rows', rows << ENTRY_SHIFT);
    this.use = int32Of(allocate(rows * 4), rows);
    this.traits = columns.uint8('traits', rows);
    this.pending = uint16Of(allocate(rows * 2), rows);
    this.muted = columns.uint16('muted', rows);
    this.counters = columns.float64('counters', rows * 4);
    this.stamps = columns.float64('stamps', rows * 2);
    this.labels = columns.int32('labels', rows * 4);
    this.helper = columns.uint8('helper', rows);
    this.#fresh = columns.int32('fresh', 1);
    this.#fresh[0] = 1;
    this.#flows = flows;
    this.#wheel = new TimerWheel(rows, now, allocate);
    this.#now = now;
    this.#fire = (entry) => {
      const expires = this.rows[(entry << ENTRY_SHIFT) + EXPIRES]!;
      if (((expires - this.#now) | 0) > 0) this.#start(entry, expires);
      else this.onExpire(entry);
    };
  }

  /** Entries, unconfirmed ones too. */
  get count(): number {
    return this.#count;
  }

  get confirmed(): number {
    return this.#confirmed;
  }

  /** Ids below this one may be in use. */
  get highWater(): number {
    return this.#fresh[0]!;
  }

  isUsed(entry: number): boolean {
    return (this.traits[entry]! & USED) !== 0;
  }

  /** In the flow table, and not on its way out. */
  isAlive(entry: number): boolean {
    return this.isUsed(entry) && (this.rows[(entry << ENTRY_SHIFT) + STATUS]! & (CONFIRMED | DYING)) === CONFIRMED;
  }

  /** A row for a connection that begins with `t`; NO_ENTRY when there is none left. Only the tuples' words are set, all else is 0. `t` is inverted afterwards. */
  open(t: Tuple, zone: number, replyZone: number, id: number): number {
    let entry: number;
    if (this.#free !== 0) {
      entry = this.#free;
      this.#free = this.rows[(entry << ENTRY_SHIFT) + MASTER]!;
    } else {
      entry = this.#fresh[0]!;
      if (entry > this.capacity) return NO_ENTRY;
      this.#fresh[0] = entry + 1;
    }
    this.#count++;
    const { rows } = this;
    const at = entry << ENTRY_SHIFT;
    // Not `fill`, which is a call out of compiled code: longer than these few stores.
    for (let i = at + STATUS; i < at + (1 << ENTRY_SHIFT); i++) rows[i] = 0;
    this.traits[entry] = USED;
    this.use[entry] = 0;
    // Pages of what few entries have are not there until something is written to them, be it 0.
    if (this.pending[entry] !== 0) this.pending[entry] = 0;
    if (this.muted[entry] !== 0) this.muted[entry] = 0;
    if (this.helper[entry] !== 0) this.helper[entry] = 0;
    this.#setTuple(at, t, zone);
    t.invert();
    this.#setTuple(at + 4, t, replyZone);
    rows[at + FLOW] = NO_FLOW;
    rows[at + FLOW + 1] = NO_FLOW;
    rows[at + ID] = id;
    return entry;
  }

  #setTuple(at: number, t: Tuple, zone: number): void {
    const { rows } = this;
    rows[at + SRC] = t.src;
    rows[at + DST] = t.dst;
    rows[at + PORTS] = t.ports;
    rows[at + KIND] = t.proto | (zone << ZONE_SHIFT);
  }

  /** The tuple of a direction into `t`. */
  tuple(entry: number, dir: number, t: Tuple): void {
    const { rows } = this;
    const at = (entry << ENTRY_SHIFT) + (dir << 2);
    t.src = rows[at + SRC]!;
    t.dst = rows[at + DST]!;
    t.ports = rows[at + PORTS]!;
    t.proto = rows[at + KIND]! & 0xff;
  }

  zoneOf(entry: number, dir: number): number {
    return this.rows[(entry << ENTRY_SHIFT) + (dir << 2) + KIND]! >>> ZONE_SHIFT;
  }

  proto(entry: number): number {
    return this.rows[(entry << ENTRY_SHIFT) + KIND]! & 0xff;
  }

  status(entry: number): number {
    return this.rows[(entry << ENTRY_SHIFT) + STATUS]!;
  }

  addStatus(entry: number, bits: number): void {
    this.rows[(entry << ENTRY_SHIFT) + STATUS]! |= bits;
  }

  mark(entry: number): number {
    return this.rows[(entry << ENTRY_SHIFT) + MARK]!;
  }

  master(entry: number): number {
    return this.rows[(entry << ENTRY_SHIFT) + MASTER]!;
  }

  /** Was it made while somebody wanted labels? */
  canHaveLabels(entry: number): boolean {
    return (this.traits[entry]! & LABELS) !== 0;
  }

  hasLabel(entry: number, bit: number): boolean {
    return ((this.labels[entry * 4 + (bit >> 5)]! >>> (bit & 31)) & 1) !== 0;
  }

  setLabel(entry: number, bit: number): void {
    this.labels[entry * 4 + (bit >> 5)]! |= 1 << (bit & 31);
  }

  /** Other answers are expected than the inverse of the original; only before confirmation. */
  alterReply(entry: number, t: Tuple): void {
    const at = (entry << ENTRY_SHIFT) + 4;
    this.#setTuple(at, t, this.rows[at + KIND]! >>> ZONE_SHIFT);
  }

  /** (id << 1 | direction) + 1 of the entry that has this tuple, the newer of two; 0 when none has. */
  lookup(t: Tuple, zone: number): number {
    return this.#attached(this.#flows.find(t.src, t.dst, t.ports, t.proto | (zone << ZONE_SHIFT)));
  }

  #attached(row: number): number {
    return row === NO_FLOW ? 0 : this.#flows.attached(row, ENTRY);
  }

  /** The same of the entry whose direction `dir` it is. */
  #lookupOf(t: Tuple, zone: number, dir: number): number {
    let value = this.lookup(t, zone);
    if (value !== 0 && ((value - 1) & 1) !== dir) {
      if (this.#apart === 0) return 0;
      // Of two entries of one tuple it is the original of one and the reply of the other.
      value = this.#attached(this.#flows.find(t.src, t.dst, t.ports, t.proto | (zone << ZONE_SHIFT) | APART));
    }
    return value;
  }

  /**
   * The same where packets of a zone are met whose answers are of another one: an entry is the one only if its own direction is of the packet's zone for that
   * direction (nf_ct_key_equal).
   */
  lookupApart(t: Tuple, zone: number, replyZone: number): number {
    if (zone === replyZone) return this.lookup(t, zone);
    const value = this.#lookupOf(t, zone, ORIGINAL);
    return value !== 0 ? value : this.#lookupOf(t, replyZone, REPLY);
  }

  /** The entry in whose way another one with the zones of `entry` would be that expected such packets as answers; 0: nobody's. */
  lookupRival(t: Tuple, entry: number): number {
    const zone = this.zoneOf(entry, ORIGINAL);
    const replyZone = this.zoneOf(entry, REPLY);
    return zone === replyZone ? this.lookup(t, zone) : this.#lookupOf(t, replyZone, REPLY);
  }

  /** Put both tuples, or the reply's alone, into the flow table and start the timer. False: no room, or somebody has one of them. */
  insert(entry: number, now: number, isReplyOnly: boolean): boolean {
    return this.claim(entry, now, isReplyOnly) === CLAIMED;
  }

  /** The same; answers CLAIMED, NO_ROOM, CHAIN_TOO_LONG, or the value (`lookup`) of the entry that has one of the tuples. */
  claim(entry: number, now: number, isReplyOnly: boolean): number {
    const { rows } = this;
    const at = entry << ENTRY_SHIFT;
    if (!isReplyOnly) {
      const holder = this.#link(entry, at, ORIGINAL);
      if (holder !== CLAIMED) return holder;
    }
    const holder = this.#link(entry, at, REPLY);
    if (holder !== CLAIMED) {
      this.#unlink(at, ORIGINAL);
      return holder;
    }
    // Who sends to itself has one tuple for both directions; it counts as the reply's, and there is one row to give back.
    if (rows[at + FLOW] === rows[at + FLOW + 1]) rows[at + FLOW] = NO_FLOW;
    rows[at + EXPIRES] = (now + rows[at + TIMEOUT]!) | 0;
    this.#start(entry, rows[at + EXPIRES]!);
    rows[at + STATUS]! |= CONFIRMED;
    this.#confirmed++;
    return CLAIMED;
  }

  #link(entry: number, at: number, dir: number): number {
    const { rows } = this;
    const from = at + (dir << 2);
    const flows = this.#flows;
    const src = rows[from + SRC]!;
    const dst = rows[from + DST]!;
    const ports = rows[from + PORTS]!;
    const kind = rows[from + KIND]!;
    let row = flows.obtain(src, dst, ports, kind, SHORT_CHAIN);
    if (row === NO_FLOW) {
      if (flows.isFull) return NO_ROOM;
      row = flows.obtain(src, dst, ports, kind, this.longestChain());
      if (row === NO_FLOW) return CHAIN_TOO_LONG;
    }
    const holder = flows.attached(row, ENTRY);
    if (holder !== 0 && (holder - 1) >> 1 !== entry) {
      const answer = this.#moveBehind(entry, holder, src, dst, ports, kind);
      if (answer !== CLAIMED) return answer;
    }
    rows[at + FLOW + dir] = row;
    flows.attach(row, ENTRY, ((entry << 1) | dir) + 1);
    return CLAIMED;
  }

  // cold: two entries of one tuple
  /**
   * A tuple may be an entry's original and another's reply when the two directions of one of them are in different zones (nf_ct_key_equal): the newer one is found
   * first, as at the head of the kernel's chain, and the older one's row goes behind it. Answers as `claim` does.
   */
  #moveBehind(entry: number, holder: number, src: number, dst: number, ports: number, kind: number): number {
    if (!this.#areApart(entry, holder)) return holder;
    const flows = this.#flows;
    const behind = flows.find(src, dst, ports, kind | APART);
    if (behind !== NO_FLOW) return flows.attached(behind, ENTRY);
    const moved = flows.obtain(src, dst, ports, kind | APART);
    if (moved === NO_FLOW) return NO_ROOM;
    flows.attach(moved, ENTRY, holder);
    this.rows[(((holder - 1) >> 1) << ENTRY_SHIFT) + FLOW + ((holder - 1) & 1)] = moved;
    this.#apart++;
    return CLAIMED;
  }

  /** Is the zone of the holder's direction another one than the entry's of the same direction? */
  #areApart(entry: number, holder: number): boolean {
    const dir = (holder - 1) & 1;
    return this.zoneOf(entry, dir) !== this.zoneOf((holder - 1) >> 1, dir);
  }

  /** The entry's row goes. True: another one stood behind it and has its row now, or it stood behind another one. */
  #unlinkApart(at: number, dir: number, row: number): boolean {
    const { rows } = this;
    const flows = this.#flows;
    const from = at + (dir << 2);
    const behind = flows.find(rows[from + SRC]!, rows[from + DST]!, rows[from + PORTS]!, rows[from + KIND]! | APART);
    if (behind === NO_FLOW) return false;
    this.#apart--;
    const holder = flows.attached(behind, ENTRY);
    flows.detach(behind, ENTRY);
    if (behind === row) return true;
    flows.attach(row, ENTRY, holder);
    rows[(((holder - 1) >> 1) << ENTRY_SHIFT) + FLOW + ((holder - 1) & 1)] = row;
    return true;
  }
  // hot again

  #unlink(at: number, dir: number): void {
    const row = this.rows[at + FLOW + dir]!;
    if (row === NO_FLOW) return;
    this.rows[at + FLOW + dir] = NO_FLOW;
    if (this.#apart !== 0 && this.#unlinkApart(at, dir, row)) return;
    this.#flows.detach(row, ENTRY);
  }

  /** Out of the flow table: nobody finds it any more. The row stays while packets refer to it. */
  remove(entry: number): void {
    const at = entry << ENTRY_SHIFT;
    this.#wheel.cancel(entry);
    this.#unlink(at, ORIGINAL);
    this.#unlink(at, REPLY);
    if ((this.rows[at + STATUS]! & CONFIRMED) !== 0) this.#confirmed--;
    this.rows[at + STATUS]! |= DYING;
  }

  /** The row is free again; the entry was removed, or never confirmed. */
  release(entry: number): void {
    this.traits[entry] = 0;
    this.rows[(entry << ENTRY_SHIFT) + MASTER] = this.#free;
    this.#free = entry;
    this.#count--;
  }

  /** Its time starts anew: `timeout` ticks from now on. */
  refresh(entry: number, timeout: number, now: number): void {
    const { rows } = this;
    const at = entry << ENTRY_SHIFT;
    rows[at + TIMEOUT] = timeout;
    if ((rows[at + STATUS]! & CONFIRMED) === 0) return;
    const expires = (now + timeout) | 0;
    rows[at + EXPIRES] = expires;
    if (((expires - rows[at + DUE]!) | 0) < 0) this.#start(entry, expires);
  }

  #start(entry: number, expires: number): void {
    this.rows[(entry << ENTRY_SHIFT) + DUE] = expires;
    this.#wheel.add(entry, expires);
  }

  /** Ticks left. */
  left(entry: number, now: number): number {
    const { rows } = this;
    const at = entry << ENTRY_SHIFT;
    if ((rows[at + STATUS]! & CONFIRMED) === 0) return rows[at + TIMEOUT]!;
    const left = (rows[at + EXPIRES]! - now) | 0;
    return Math.max(left, 0);
  }

  /** Is the time of an entry over that is in the flow table? */
  isOver(entry: number, now: number): boolean {
    return ((this.rows[(entry << ENTRY_SHIFT) + EXPIRES]! - now) | 0) <= 0;
  }

  /** Are there more entries whose time is over than one tick may end? */
  get isBehind(): boolean {
    return this.#wheel.isBehind;
  }

  /** `onExpire` is called for each entry whose time is over by `now`, as many as a tick may end. */
  advance(now: number): void {
    this.#now = now;
    this.#wheel.advance(now, this.#fire, MOST_ENDS);
  }

  // cold: copies
  /**
   * A confirmed entry as an earlier life of the daemon had it: row `old` of its tables. Who is its master, the caller says.
   * @returns NO_ENTRY when there is no room, or one of its tuples is another's
   */
  inherit(tables: KeptEntries, old: number, now: number, helper: number): number {
    const from = old << ENTRY_SHIFT;
    const status = tables.rows[from + STATUS]!;
    const entry = this.open(NOBODY, 0, 0, 0);
    if (entry === NO_ENTRY) return NO_ENTRY;
    const { rows } = this;
    const at = entry << ENTRY_SHIFT;
    for (let i = 0; i < 1 << ENTRY_SHIFT; i++) rows[at + i] = tables.rows[from + i]!;
    rows[at + STATUS] = status & ~CONFIRMED;
    rows[at + FLOW] = NO_FLOW;
    rows[at + FLOW + 1] = NO_FLOW;
    rows[at + MASTER] = NO_ENTRY;
    if (this.claim(entry, now, (status & Status.NatClash) !== 0) !== CLAIMED) {
      this.release(entry);
      return NO_ENTRY;
    }
    const expires = tables.rows[from + EXPIRES]!;
    rows[at + EXPIRES] = expires;
    this.#start(entry, expires);
    this.traits[entry] = tables.traits[old]!;
    this.muted[entry] = tables.muted[old]!;
    this.helper[entry] = helper;
    // Pages that nobody has touched stay so.
    const traits = tables.traits[old]!;
    if ((traits & Trait.Counts) !== 0) copy(this.counters, entry, tables.counters, old, 4);
    if ((traits & Trait.Stamps) !== 0) copy(this.stamps, entry, tables.stamps, old, 2);
    if ((traits & Trait.Labels) !== 0) copy(this.labels, entry, tables.labels, old, 4);
    return entry;
  }

  /** Become as full as `live`, with none of its entries; `adopt` takes them over one by one. */
  copyFrom(live: EntryTable): void {
    this.#free = live.#free;
    this.#fresh[0] = live.highWater;
    this.#count = live.#count;
    this.#confirmed = live.#confirmed;
    this.#apart = live.#apart;
    // The next rows of the free list: more than one packet can need.
    for (let i = 0, free = live.#free; i < COPIED_FREE && free !== 0; i++) {
      const next = live.rows[(free << ENTRY_SHIFT) + MASTER]!;
      this.rows[(free << ENTRY_SHIFT) + MASTER] = next;
      free = next;
    }
  }

  /** Take over an entry, at the same place, held by as many; its flow rows are taken over by who calls. */
  adopt(live: EntryTable, entry: number): void {
    adoptRow<EntryTable>(this, live, entry, live.capacity + 1);
  }
  // hot again
}

// cold: copies
function copy<T extends Int32Array | Float64Array>(to: T, row: number, from: T, old: number, width: number): void {
  for (let i = 0; i < width; i++) to[row * width + i] = from[old * width + i]!;
}
