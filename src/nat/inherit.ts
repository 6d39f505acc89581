/** What an earlier life of the daemon has left of translation and helpers (base/keep.ts) becomes this one's. Not per packet. */
import type { Kept } from '../base/keep.ts';
import type { Expectation } from '../conntrack/expectations.ts';
import { Helper } from '../conntrack/helper-names.ts';
import { entriesLeft } from '../conntrack/inherit.ts';
import type { Shift } from '../flow/sequence.ts';
import type { Translation } from './translation.ts';

/** What stands in no column. Numbers of entries are those of the life that wrote it. */
export interface TranslationRest {
  readonly expectations: readonly Expectation[];
  readonly shifts: readonly (readonly [entry: number, shifts: readonly [Shift, Shift]])[];
  readonly lineEnds: readonly (readonly [entry: number, lineEnds: readonly [number[], number[]]])[];
}

/** Changes when anything does that `restOf` tells, but for line ends, which come with every line: they are written with the others. */
export function restChanges({ expectations, helpers }: Translation): number {
  return expectations.changes + helpers.sequences.changes;
}

export function restOf({ expectations, helpers }: Translation): TranslationRest {
  return { expectations: expectations.list(), shifts: helpers.sequences.list(), lineEnds: helpers.ftp.list() };
}

/**
 * Answers what is to be done with each entry that was taken over.
 * @param deviceOf number of the device that had this number then; -1: it is gone
 */
export function heirOf(
  { nat, helpers }: Translation,
  kept: Kept,
  deviceOf: (device: number) => number,
): (entry: number, old: number) => void {
  const top = entriesLeft(kept);
  const helperOf = kept.uint8('entries.helper', top);
  const masqDevice = kept.int32('nat.masqDevice', top);
  return (entry, old) => {
    const device = masqDevice[old] ?? 0;
    nat.inherit(entry, device === 0 ? 0 : deviceOf(device - 1) + 1);
    if (helperOf[old] !== Helper.None) helpers.stand();
  };
}

/** @param places entry of now by entry of then, 0 for one that is gone; those with a helper are here */
export function inheritRest(
  { helpers, expectations }: Translation,
  kept: Kept,
  rest: TranslationRest,
  places: Int32Array,
): void {
  const helperOf = kept.uint8('entries.helper', entriesLeft(kept));
  // Only who has a helper has announced anything, and takes it along when it ends.
  const placeOf = (old: number): number => (helperOf[old] === Helper.None ? 0 : (places[old] ?? 0));
  for (const e of rest.expectations) {
    const master = placeOf(e.master);
    if (master !== 0) expectations.inherit({ ...e, master });
  }
  for (const [old, shifts] of rest.shifts) if (placeOf(old) !== 0) helpers.sequences.inherit(placeOf(old), shifts);
  for (const [old, lineEnds] of rest.lineEnds) if (placeOf(old) !== 0) helpers.ftp.inherit(placeOf(old), lineEnds);
}
