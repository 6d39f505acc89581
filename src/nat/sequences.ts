/** Sequence numbers of connections whose payload a helper has changed in length (nf_conntrack_seqadj.c; flow/sequence.ts). Few connections are: a map. */

import { adjustSequence, noShift, type Shift, shiftBehind } from '../flow/sequence.ts';
import { Status } from '../model/entry-status.ts';
import type { Packet } from '../packet/packet.ts';
import type { Entries } from './entries.ts';

export class Sequences {
  readonly #entries: Entries;
  /** Of both directions, by entry. */
  readonly #shifts = new Map<number, readonly [Shift, Shift]>();
  /** Grows with each change. */
  changes = 0;

  constructor(entries: Entries) {
    this.#entries = entries;
  }

  /** The segment with `seq`, as its sender counts, has grown in direction `dir`. */
  shift(entry: number, dir: number, seq: number, growth: number): void {
    if (growth === 0) return;
    let both = this.#shifts.get(entry);
    if (both === undefined) {
      both = [noShift(), noShift()];
      this.#shifts.set(entry, both);
    }
    shiftBehind(both[dir]!, seq, growth);
    this.changes++;
    this.#entries.addStatus(entry, Status.SeqAdjust);
  }

  adjust(p: Packet, dir: number): void {
    const both = this.#shifts.get(p.entry);
    if (both !== undefined) adjustSequence(p, both[dir]!, both[1 - dir]!);
  }

  /** What is added to the number `seq` of direction `dir` on its way (nf_ct_seq_offset): whoever compares both directions must know. */
  offset(entry: number, dir: number, seq: number): number {
    // Asked with each segment: almost always nothing is shifted at all.
    if (this.#shifts.size === 0) return 0;
    const shift = this.#shifts.get(entry)?.[dir];
    if (shift === undefined) return 0;
    return ((seq - shift.correction) | 0) > 0 ? shift.after : shift.before;
  }

  forget(entry: number): void {
    if (this.#shifts.size !== 0 && this.#shifts.delete(entry)) this.changes++;
  }

  /** All of them, for another life of the daemon. */
  list(): readonly (readonly [entry: number, shifts: readonly [Shift, Shift]])[] {
    return [...this.#shifts];
  }

  inherit(entry: number, shifts: readonly [Shift, Shift]): void {
    this.#shifts.set(entry, shifts);
  }

  /** Become a copy. */
  copyFrom(live: Sequences): void {
    this.#shifts.clear();
    for (const [entry, [a, b]] of live.#shifts) this.#shifts.set(entry, [{ ...a }, { ...b }]);
  }
}
