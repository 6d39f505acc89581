/** What an earlier life of the daemon has left of connection tracking (base/keep.ts) becomes this one's: confirmed entries, with their masters. Not per packet. */
import type { Kept } from '../base/keep.ts';
import { FlowColumn } from '../flow/flow-table.ts';
import type { Heir, Inheritance } from '../flow/inheritance.ts';
import { Status } from '../model/entry-status.ts';
import { Col, ENTRY_SHIFT, type EntryTable, type KeptEntries, NO_ENTRY, Trait } from './entries.ts';

const CONFIRMED = Status.Confirmed;
/** Of an entry: both tuples, and its source. */
export const ENTRY_TUPLES = 3;

/** How many rows were ever in use. */
export function entriesLeft(kept: Kept): number {
  return kept.rowsOf('entries', kept.bytesOf('entries.traits'));
}

/** Entries of then: known by their tuples at once, taken over one by one. */
export class EntryHeir implements Heir {
  /** Entry of now by entry of then; NO_ENTRY: it was not taken over. */
  readonly places: Int32Array;
  /** How many were taken over, and how many could not be. */
  count = 0;
  dropped = 0;
  readonly #entries: EntryTable;
  readonly #now: number;
  readonly #tables: KeptEntries;
  /** Helpers have the same numbers: they are part of the layout (engine/keeper.ts). */
  readonly #helpers: Uint8Array;
  readonly #inheritance: Inheritance;
  readonly #onEntry: (entry: number, old: number) => void;
  /** Those with a helper or a master. */
  readonly #related: number[] = [];

  /** @param onEntry told of each one that is here */
  constructor(
    entries: EntryTable,
    kept: Kept,
    now: number,
    inheritance: Inheritance,
    onEntry: (entry: number, old: number) => void,
  ) {
    this.#entries = entries;
    this.#now = now;
    this.#onEntry = onEntry;
    const top = entriesLeft(kept);
    this.#tables = {
      rows: kept.int32('entries.rows', top << ENTRY_SHIFT),
      traits: kept.uint8('entries.traits', top),
      muted: kept.uint16('entries.muted', top),
      counters: kept.float64('entries.counters', top * 4),
      stamps: kept.float64('entries.stamps', top * 2),
      labels: kept.int32('entries.labels', top * 4),
    };
    this.#helpers = kept.uint8('entries.helper', top);
    this.places = new Int32Array(top);
    this.#inheritance = inheritance;
    this.#announceAll();
  }

  /** All rows that hold, by their tuples. */
  #announceAll(): void {
    const inheritance = this.#inheritance;
    const { rows, traits } = this.#tables;
    for (let old = 1; old < this.places.length; old++) {
      const from = old << ENTRY_SHIFT;
      const status = rows[from + Col.Status]!;
      // Who is not confirmed ended with its packet.
      if ((traits[old]! & Trait.Used) === 0 || (status & (CONFIRMED | Status.Dying)) !== CONFIRMED) continue;
      if (rows[from + Col.Timeout]! < 0 || rows[from + Col.Id] === 0) {
        this.dropped++;
        continue;
      }
      for (let at = from; at < from + 8; at += 4)
        inheritance.add(FlowColumn.Entry, old, rows[at]!, rows[at + 1]!, rows[at + 2]!, rows[at + 3]!);
      if (this.#helpers[old] !== 0 || rows[from + Col.Master] !== NO_ENTRY) this.#related.push(old);
      if ((status & Status.SrcNatDone) !== 0)
        inheritance.addBySource(FlowColumn.Entry, old, rows[from]!, rows[from + 2]!, rows[from + 3]! & 0xff);
    }
  }

  /** Those that refer to each other, or to which something refers that stands in no column: who has a helper or a master, and masters. */
  takeRelated(): void {
    const inheritance = this.#inheritance;
    const masterOf = (old: number): number => this.#tables.rows[(old << ENTRY_SHIFT) + Col.Master]!;
    for (const old of this.#related) {
      inheritance.takeRow(FlowColumn.Entry, old);
      if (masterOf(old) !== NO_ENTRY) inheritance.takeRow(FlowColumn.Entry, masterOf(old));
    }
    for (const old of this.#related) {
      const entry = this.places[old]!;
      const master = this.places[masterOf(old)] ?? NO_ENTRY;
      if (entry === NO_ENTRY || master === NO_ENTRY) continue;
      this.#entries.rows[(entry << ENTRY_SHIFT) + Col.Master] = master;
      this.#entries.use[master]!++;
    }
  }

  inherit(old: number): void {
    const entry = this.#entries.inherit(this.#tables, old, this.#now, this.#helpers[old]!);
    this.places[old] = entry;
    if (entry === NO_ENTRY) {
      this.dropped++;
      return;
    }
    this.count++;
    this.#onEntry(entry, old);
  }
}
