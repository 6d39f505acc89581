/** Connection tracking as the control API speaks of it: plain values, one way of writing each. */

/** What identifies one direction: `ports` for TCP, UDP, UDP-Lite, SCTP, DCCP; `icmp`; `gre` keys; none of them for other protocols. */
export interface CtTuple {
  readonly src: string;
  readonly dst: string;
  readonly proto: number;
  readonly ports?: { readonly src: number; readonly dst: number } | undefined;
  readonly icmp?: { readonly type: number; readonly code: number; readonly id: number } | undefined;
  readonly gre?: { readonly srcKey: number; readonly dstKey: number } | undefined;
}

export interface CtCounters {
  readonly packets: number;
  readonly bytes: number;
}

/** Zone ids; another number than in `original` only with `CT --zone-orig` or `--zone-reply`. */
export interface CtZones {
  readonly original: number;
  readonly reply: number;
}

export interface EntryRow {
  /** u32, as `-o id` prints it. */
  readonly id: number;
  readonly original: CtTuple;
  readonly reply: CtTuple;
  /** Bits of conntrack/entry.ts, Status. */
  readonly status: number;
  /** Whole seconds left. */
  readonly timeoutSeconds: number;
  /** State of TCP, SCTP or DCCP in the kernel's word (`SYN_SENT`). */
  readonly state?: string | undefined;
  /** Absent unless the entry accounts (nf_conntrack_acct). */
  readonly counters?: { readonly original: CtCounters; readonly reply: CtCounters } | undefined;
  readonly mark: number;
  readonly zones: CtZones;
  /** 128 bits, hexadecimal, highest first; absent when no label was ever set. */
  readonly labels?: string | undefined;
  readonly helper?: string | undefined;
  readonly master?: CtTuple | undefined;
  /** Nanoseconds since 1970 as decimal digits; absent unless the entry has timestamps. */
  readonly started?: string | undefined;
  readonly stopped?: string | undefined;
  readonly use: number;
}

export interface ExpectationRow {
  readonly id: number;
  readonly timeoutSeconds: number;
  readonly tuple: CtTuple;
  readonly mask: CtTuple;
  readonly master: CtTuple;
  readonly flags: number;
  readonly class: number;
  readonly helper: string;
  readonly zone: number;
  /** Whether, and how, the expected connection is to be translated. */
  readonly nat?: { readonly dir: number; readonly tuple: CtTuple } | undefined;
}

export type CtEventKind = 'new' | 'update' | 'destroy';

export interface EntryEvent {
  readonly kind: CtEventKind;
  readonly entry: EntryRow;
  /** Which parts the event tells of: what a listing line of it prints beyond tuples, timeout and state (`mark`, `helper`, `label`, …). */
  readonly changed: readonly string[];
  /** Nanoseconds since 1970, decimal digits. */
  readonly at: string;
  /** Made by a command, not by a packet. */
  readonly byUser?: boolean | undefined;
}

export interface ExpectationEvent {
  readonly kind: CtEventKind;
  readonly expectation: ExpectationRow;
  readonly at: string;
}
