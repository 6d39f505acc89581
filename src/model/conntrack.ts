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
  /** SCTP: the verification tags. */
  readonly tags?: { readonly original: number; readonly reply: number } | undefined;
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

// ---------------------------------------------------------------------------------------------------------------------
// Commands

/** Parts of a tuple; what is absent does not matter. */
export interface PartialTuple {
  readonly src?: string | undefined;
  readonly dst?: string | undefined;
  readonly ports?: { readonly src?: number | undefined; readonly dst?: number | undefined } | undefined;
  readonly icmp?:
    | { readonly type?: number | undefined; readonly code?: number | undefined; readonly id?: number | undefined }
    | undefined;
}

/** What an entry is compared with: those bits of it that `mask` names must be those of `value`. */
export interface Bits {
  readonly value: number;
  readonly mask: number;
}

/** Whether an address, or a port, is translated; and to what. */
export interface NatFilter {
  readonly address?: string | undefined;
  readonly port?: number | undefined;
}

/** Which entries a command is about; what is absent does not matter. */
export interface EntryFilter {
  readonly family?: 4 | 6 | undefined;
  readonly proto?: number | undefined;
  readonly original?: PartialTuple | undefined;
  readonly reply?: PartialTuple | undefined;
  /** Networks of the original direction. */
  readonly sourceNet?: { readonly address: string; readonly mask: string } | undefined;
  readonly destinationNet?: { readonly address: string; readonly mask: string } | undefined;
  readonly status?: Bits | undefined;
  readonly mark?: Bits | undefined;
  readonly state?: string | undefined;
  readonly timeoutSeconds?: number | undefined;
  readonly id?: number | undefined;
  /** The zone of both directions; 0 when they differ. */
  readonly zone?: number | undefined;
  /** Of one direction, where they differ; else 0. */
  readonly originalZone?: number | undefined;
  readonly replyZone?: number | undefined;
  /** All these bits are set. */
  readonly labels?: string | undefined;
  readonly sourceNat?: NatFilter | undefined;
  readonly destinationNat?: NatFilter | undefined;
  /** One of the two translations is enough. */
  readonly eitherNat?: boolean | undefined;
}

/** Who asks: events tell it of what they made. A process id, and its program. */
export interface CtRequester {
  readonly portId: number;
  readonly program: string;
}

export type CtErrno =
  | 'EALREADY'
  | 'EBUSY'
  | 'EEXIST'
  | 'EINVAL'
  | 'ENOENT'
  | 'ENOMEM'
  | 'ENOSPC'
  | 'EOPNOTSUPP'
  | 'EPERM'
  | 'ERANGE'
  | 'EMFILE';

/** An entry that a command makes. */
export interface EntrySpec {
  readonly original: CtTuple;
  readonly reply: CtTuple;
  readonly timeoutSeconds: number;
  /** Bits that are set beside those that the making sets. */
  readonly status?: number | undefined;
  readonly state?: string | undefined;
  /** TCP: neither direction's window is looked at (IP_CT_TCP_FLAG_BE_LIBERAL), and closed, when a state says so. */
  readonly liberal?: boolean | undefined;
  /** SCTP: verification tags. */
  readonly tags?: { readonly original: number; readonly reply: number } | undefined;
  readonly mark?: number | undefined;
  readonly zones?: CtZones | undefined;
  readonly labels?: string | undefined;
  readonly helper?: string | undefined;
  /** Translations, as an address and, when it is not 0, a port. */
  readonly sourceNat?: { readonly address: string; readonly port: number } | undefined;
  readonly destinationNat?: { readonly address: string; readonly port: number } | undefined;
}

/** What an update changes. */
export interface EntryChange {
  readonly timeoutSeconds?: number | undefined;
  /** Bits to set; none can be cleared. */
  readonly status?: number | undefined;
  readonly state?: string | undefined;
  readonly liberal?: boolean | undefined;
  /** new = (old & ~mask) ^ value */
  readonly mark?: Bits | undefined;
  /** new = (old & ~mask) ^ value; both as in EntryRow. */
  readonly labels?: { readonly value: string; readonly mask: string } | undefined;
}

export interface ExpectationSpec {
  readonly tuple: CtTuple;
  readonly mask: CtTuple;
  /** Original direction of the entry that it belongs to. */
  readonly master: CtTuple;
  readonly timeoutSeconds: number;
}

export type CtCommand =
  | { readonly op: 'create'; readonly entry: EntrySpec }
  | { readonly op: 'get'; readonly tuple: CtTuple; readonly zone?: number | undefined }
  | { readonly op: 'flush'; readonly family?: 4 | 6 | undefined }
  | { readonly op: 'create-expectation'; readonly expectation: ExpectationSpec }
  | { readonly op: 'get-expectation' | 'delete-expectation'; readonly tuple: CtTuple }
  | { readonly op: 'flush-expectations' };

/** Those that are done in a moment, however full the table is. */
export type SmallCtCommand = Exclude<CtCommand, { readonly op: 'flush' | 'flush-expectations' }>;

export interface CtResult {
  readonly errno: CtErrno | null;
  readonly entry?: EntryRow | undefined;
  readonly expectation?: ExpectationRow | undefined;
}

/** An entry that an update met: as it is now, also when the change failed; no row when it is not there (any more). */
export interface UpdateResult {
  readonly errno: CtErrno | null;
  readonly entry?: EntryRow | undefined;
}

export type EntryTable = 'conntrack' | 'dying' | 'unconfirmed';

/** Counters of nf_conntrack's statistics (`conntrack -S`), by the kernel's names. */
export interface CtStatistics {
  readonly found: number;
  readonly invalid: number;
  readonly insert: number;
  readonly insertFailed: number;
  readonly drop: number;
  readonly earlyDrop: number;
  readonly error: number;
  readonly searchRestart: number;
  readonly clashResolve: number;
  readonly chainTooLong: number;
  readonly expectNew: number;
  readonly expectCreate: number;
  readonly expectDelete: number;
}

/** What there is, without listing it. */
export interface CtCounts {
  readonly entries: number;
  readonly expectations: number;
  readonly statistics: CtStatistics;
}

// ---------------------------------------------------------------------------------------------------------------------
// Events

export type CtEventKind = 'new' | 'update' | 'destroy';

/** Bits of what happened, include/uapi/linux/netfilter/nf_conntrack_common.h, enum ip_conntrack_events, by their names. */
export type CtChange =
  | 'new'
  | 'related'
  | 'destroy'
  | 'reply'
  | 'assured'
  | 'protoinfo'
  | 'helper'
  | 'mark'
  | 'seqadj'
  | 'label';

export interface EntryEvent {
  readonly kind: CtEventKind;
  readonly entry: EntryRow;
  /** What the event tells of. */
  readonly changed: readonly CtChange[];
  /** Nanoseconds since 1970, decimal digits. */
  readonly at: string;
  /** A command did it, not a packet. */
  readonly by?: CtRequester | undefined;
}

export interface ExpectationEvent {
  readonly kind: CtEventKind;
  readonly expectation: ExpectationRow;
  readonly at: string;
  readonly by?: CtRequester | undefined;
}

/** In a stream of events: so many were lost here, because the reader was slow. */
export interface EventsLost {
  readonly lost: number;
}
