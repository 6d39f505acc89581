/** What rules need of connection tracking. Entries are rows > 0; a packet's is `Packet.entry`, what it is to it `Packet.ctInfo`. */

import type { Tuple } from '../conntrack/tuple.ts';
import type { Packet } from '../packet/packet.ts';

/** What `-j CT` wants of the entry that a packet will have (struct xt_ct_target_info_v1). */
export interface Template {
  /** Ids; both are `zone` with `--zone`. */
  readonly originalZone: number;
  readonly replyZone: number;
  /** The packet's mark is the id: of both directions (''), of one, or not at all. */
  readonly zoneOfMark: '' | '-orig' | '-reply' | null;
  /** '' for none. */
  readonly helper: string;
  /** Bits of IPCT_* and IPEXP_*; null for all. */
  readonly events: number | null;
  readonly expectationEvents: number | null;
}

export interface Tracking {
  /** Count one who needs entries, or one less. */
  acquire(): void;
  release(): void;
  /** Bits of Status (conntrack/entry.ts). */
  status(entry: number): number;
  tuple(entry: number, dir: number, t: Tuple): void;
  mark(entry: number): number;
  /** Tells of the change, if it is one. */
  setMark(entry: number, mark: number): void;
  /** New entries have room for labels, or no longer. */
  keepLabels(keeps: boolean): void;
  canHaveLabels(entry: number): boolean;
  hasLabel(entry: number, bit: number): boolean;
  /** Tells of it. */
  setLabel(entry: number, bit: number): void;
  /** Whole seconds until the entry ends; 0 before it is confirmed, when its time has not begun. */
  secondsLeft(entry: number): number;
  /** Of the entry; '' for none. */
  helperName(entry: number): string;
  /** Of the entry that expected this one; 0: none. */
  master(entry: number): number;
  /** Is there such a helper for flows of the protocol? */
  hasHelper(name: string, proto: number): boolean;
  /** Let the packet's entry, when it gets one, be like this. The same template is given each time. */
  attach(p: Packet, template: Template): void;
}
