/** What an earlier life of the daemon has left of connection tracking (base/keep.ts) becomes this one's: confirmed entries, with their masters. Not per packet. */
import type { Kept } from '../base/keep.ts';
import { Status } from '../model/entry-status.ts';
import { Col, ENTRY_SHIFT, type EntryTable, NO_ENTRY, Trait } from './entries.ts';

const CONFIRMED = Status.Confirmed;

export interface EntriesInheritance {
  /** Entry of now by entry of then; NO_ENTRY: it was not taken over. */
  readonly places: Int32Array;
  readonly dropped: number;
}

/** Helpers have the same numbers: they are part of the layout (engine/keeper.ts). */
export function inheritEntries(entries: EntryTable, kept: Kept, now: number): EntriesInheritance {
  const tables = {
    rows: kept.int32('entries.rows'),
    traits: kept.uint8('entries.traits'),
    muted: kept.uint16('entries.muted'),
    counters: kept.float64('entries.counters'),
    stamps: kept.float64('entries.stamps'),
    labels: kept.int32('entries.labels'),
  };
  const helpers = kept.uint8('entries.helper');
  const { rows, traits } = tables;
  const top = kept.int32('entries.fresh')[0] ?? 0;
  const places = new Int32Array(top > 0 && top <= traits.length ? top : 0);
  let dropped = 0;
  for (let old = 1; old < places.length; old++) {
    const from = old << ENTRY_SHIFT;
    // Who is not confirmed ended with its packet.
    if ((traits[old]! & Trait.Used) === 0 || (rows[from + Col.Status]! & (CONFIRMED | Status.Dying)) !== CONFIRMED)
      continue;
    const holds = rows[from + Col.Timeout]! >= 0 && rows[from + Col.Id] !== 0;
    places[old] = holds ? entries.inherit(tables, old, now, helpers[old]!) : NO_ENTRY;
    if (places[old] === NO_ENTRY) dropped++;
  }
  for (let old = 1; old < places.length; old++) {
    const master = places[rows[(old << ENTRY_SHIFT) + Col.Master]!] ?? NO_ENTRY;
    const entry = places[old]!;
    if (entry === NO_ENTRY || master === NO_ENTRY) continue;
    entries.rows[(entry << ENTRY_SHIFT) + Col.Master] = master;
    entries.use[master]!++;
  }
  return { places, dropped };
}
