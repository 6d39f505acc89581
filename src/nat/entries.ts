/** What translation needs of connection tracking's entries. Entries are rows > 0. */
import type { Tuple } from '../conntrack/tuple.ts';

export interface Entries {
  /** Entries at most; rows are below `highWater` at present. */
  readonly capacity: number;
  readonly highWater: number;
  /** Bits of Status (conntrack/entry.ts). */
  status(entry: number): number;
  addStatus(entry: number, bits: number): void;
  /** The tuple of a direction into `t`. */
  tuple(entry: number, dir: number, t: Tuple): void;
  /** Zone of the original direction. */
  zone(entry: number): number;
  /** Its zone, if of one direction only. */
  zoneId(entry: number): number;
  /** The entry that expected this one; 0: none. */
  master(entry: number): number;
  /** Number of its helper (conntrack/helper-names.ts); 0: none. */
  helper(entry: number): number;
  /** Does another entry than `except` expect such packets? Not one of the same original tuple (nf_conntrack_tuple_taken). */
  isTaken(t: Tuple, except: number): boolean;
  /** Is the entry, which is new, another one that is not translated, seen from its other end? */
  isAnswer(entry: number): boolean;
  /** End the closed TCP connection that expects such packets, if what `entry` starts cannot be taken for its (nf_nat_used_tuple_harder). False: it stays. */
  evictClosing(t: Tuple, entry: number): boolean;
  /** Only before confirmation. */
  alterReply(entry: number, t: Tuple): void;
  kill(entry: number): void;
  /** Count one who needs entries, or one less. */
  acquire(): void;
  release(): void;
}
