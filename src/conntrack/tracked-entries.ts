/**
 * Tracked entries as others ask for them: what trackers, translation, rules and commands read of an entry and do to it, its beginning and its end, and who gives way
 * when the table is full. The packet's way is conntrack.ts.   @hot
 */
import type { Allocate } from '../base/memory.ts';
import type { Rng } from '../base/rng.ts';
import type { FlowTable } from '../flow/flow-table.ts';
import { Hook } from '../hooks/hooks.ts';
import { Status } from '../model/entry-status.ts';
import type { Packet } from '../packet/packet.ts';
import { isTransportSumRight } from '../packet/sum.ts';
import * as ipv4 from '../wire/ipv4.ts';
import { Change } from './changes.ts';
import {
  CHAIN_TOO_LONG,
  CLAIMED,
  Col,
  ENTRY_SHIFT,
  EntryTable,
  MOST_ENDS,
  MUTED_EXPECTATION,
  NO_ENTRY,
  SHORT_CHAIN,
  Trait,
} from './entries.ts';
import { CtDir } from './entry.ts';
import { isSctpClosing } from './sctp.ts';
import { ConntrackSysctls } from './sysctl.ts';
import { isClosing } from './tcp.ts';
import { TcpCt } from './tcp-states.ts';
import { Tuple } from './tuple.ts';

const { Original: ORIGINAL, Reply: REPLY } = CtDir;
const TRANSLATED = Status.SrcNat | Status.DstNat | Status.SeqAdjust;
const { Confirmed: CONFIRMED, Dying: DYING, Assured: ASSURED, Expected: EXPECTED } = Status;
const { FixedTimeout: FIXED_TIMEOUT, NatClash: NAT_CLASH } = Status;
const { Status: STATUS, Mark: MARK, Master: MASTER, Word: WORD, End: END } = Col;
const { Counts: COUNTS, Stamps: STAMPS, Events: EVENTS, Labels: LABELS } = Trait;
const { Tcp: TCP, Sctp: SCTP } = ipv4.IpProto;
const { SynSent: SYN_SENT, TimeWait: TIME_WAIT } = TcpCt;
const PRE_ROUTING = Hook.PreRouting;
/** Rows that a full table looks at for one to give up. */
const EVICTION_RANGE = 64;
/** Rows that a tick of the collector looks at while the table is nearly full. */
const COLLECTED = 4096;

/** The bound of a chain is another one each time, so that nobody learns by refusals which tuples share a bucket (MAX_CHAINLEN). */
const CHAIN_RANGE = 30;

const scratch = new Tuple();
const present = new Tuple();

export interface TrackedParts {
  readonly flows: FlowTable;
  readonly rng: Rng;
  readonly now: number;
  readonly maxEntries: number;
  readonly allocate?: Allocate | undefined;
  /** Milliseconds since 1970. */
  readonly wallClock: () => number;
}

/** Counters of `conntrack -S`. */
export interface CtStats {
  found: number;
  invalid: number;
  insert: number;
  insertFailed: number;
  drop: number;
  earlyDrop: number;
  error: number;
  searchRestart: number;
  clashResolve: number;
  chainTooLong: number;
}

export class TrackedEntries {
  readonly entries: EntryTable;
  readonly sysctls: ConntrackSysctls;
  readonly stats: CtStats = {
    found: 0,
    invalid: 0,
    insert: 0,
    insertFailed: 0,
    drop: 0,
    earlyDrop: 0,
    error: 0,
    searchRestart: 0,
    clashResolve: 0,
    chainTooLong: 0,
  };
  now: number;
  /** Told of changes (changes.ts), in their order; null: nobody asks. */
  sink: ((entry: number, changes: number) => void) | null = null;
  /** New entries have room for labels: a rule wants them. */
  keepsLabels = false;
  /** Told when an entry gets a helper. */
  onHelper: (() => void) | null = null;
  /** Told of each entry that ends. */
  onEnd: ((entry: number) => void) | null = null;
  /** Told of an entry that is looked at by its number; null but in the copy on which `tapvs explain` answers. */
  onLook: ((entry: number) => void) | null = null;
  /** What a helper has added to the numbers of an entry's direction `dir`, at the number `seq`. */
  offset: ((entry: number, dir: number, seq: number) => number) | null = null;
  protected readonly rng: Rng;
  protected readonly wallClock: () => number;
  /** The table was full: the collector ends what can be given up (gc_worker's early_drop). */
  protected isPressed = false;
  #collectAt = 1;

  constructor(parts: TrackedParts) {
    this.rng = parts.rng;
    this.wallClock = parts.wallClock;
    this.now = parts.now;
    this.entries = new EntryTable(parts.maxEntries, parts.flows, parts.now, parts.allocate);
    this.entries.onExpire = (entry) => this.kill(entry);
    this.entries.longestChain = () => SHORT_CHAIN + ((this.rng.next() >>> 0) % CHAIN_RANGE);
    this.sysctls = new ConntrackSysctls(() => this.entries.count, parts.maxEntries);
  }

  /** A row for a connection that begins with `t`, and what the settings give it; NO_ENTRY when there is no room. */
  open(t: Tuple, zone: number, replyZone: number, helper: number): number {
    const { entries } = this;
    const { acct, timestamp, events } = this.sysctls;
    if (entries.count + 1 > this.most && !this.evict()) return NO_ENTRY;
    const entry = entries.open(t, zone, replyZone, this.rng.next());
    if (entry === NO_ENTRY) return NO_ENTRY;
    entries.helper[entry] = helper;
    if (helper !== 0 && this.onHelper !== null) this.onHelper();
    let traits = entries.traits[entry]!;
    if (acct !== 0) traits |= COUNTS;
    if (timestamp !== 0) traits |= STAMPS;
    if (events === 1 || (events === 2 && this.sink !== null)) traits |= EVENTS;
    if (this.keepsLabels) traits |= LABELS;
    entries.traits[entry] = traits;
    // Whoever does not need these columns does not touch their pages.
    if (acct !== 0) entries.counters.fill(0, entry * 4, entry * 4 + 4);
    if (timestamp !== 0) entries.stamps.fill(0, entry * 2, entry * 2 + 2);
    if (this.keepsLabels) entries.labels.fill(0, entry * 4, entry * 4 + 4);
    return entry;
  }

  /** nf_conntrack_hash_check_insert: an entry that no packet made comes into the table; who put it there tells of it. Null: it is there. */
  insert(entry: number): 'ENOMEM' | 'ENOSPC' | null {
    const answer = this.entries.claim(entry, this.now, false);
    if (answer === CLAIMED) {
      this.stamp(entry);
      return null;
    }
    if (answer !== CHAIN_TOO_LONG) return 'ENOMEM';
    this.stats.chainTooLong++;
    return 'ENOSPC';
  }

  /** Entries at most: nf_conntrack_max, where 0 means as many as there are rows. */
  protected get most(): number {
    const { max } = this.sysctls;
    return max === 0 ? this.entries.capacity : max;
  }

  /** early_drop: a connection that is not ASSURED gives way. */
  protected evict(): boolean {
    const { entries } = this;
    const range = entries.highWater - 1;
    if (range < 1) return false;
    let entry = 1 + ((this.rng.next() >>> 0) % range);
    for (let i = 0; i < EVICTION_RANGE && i < range; i++) {
      if (this.onLook !== null) this.onLook(entry);
      if (entries.isAlive(entry) && (entries.status(entry) & ASSURED) === 0) {
        this.kill(entry);
        this.stats.earlyDrop++;
        return true;
      }
      if (++entry > range) entry = 1;
    }
    return false;
  }

  /** One reference less. */
  put(entry: number): void {
    const { entries } = this;
    if (--entries.use[entry]! > 0) return;
    const status = entries.status(entry);
    if ((status & DYING) === 0) {
      if ((status & CONFIRMED) !== 0) return;
      if (this.onEnd !== null) this.onEnd(entry);
    }
    const master = entries.master(entry);
    entries.release(entry);
    if (master !== NO_ENTRY) this.put(master);
  }

  /** Its time begins. */
  protected stamp(entry: number): void {
    if ((this.entries.traits[entry]! & STAMPS) !== 0) this.entries.stamps[entry * 2] = this.wallClock();
  }

  get capacity(): number {
    return this.entries.capacity;
  }

  get highWater(): number {
    return this.entries.highWater;
  }

  isAlive(entry: number): boolean {
    return this.entries.isAlive(entry);
  }

  status(entry: number): number {
    return this.entries.status(entry);
  }

  addStatus(entry: number, bits: number): void {
    this.entries.addStatus(entry, bits);
  }

  tuple(entry: number, dir: number, t: Tuple): void {
    this.entries.tuple(entry, dir, t);
  }

  zone(entry: number): number {
    return this.entries.zoneOf(entry, ORIGINAL);
  }

  /** Its zone, if of one direction only (nf_ct_zone_equal_any). */
  zoneId(entry: number): number {
    return this.entries.zoneOf(entry, ORIGINAL) || this.entries.zoneOf(entry, REPLY);
  }

  master(entry: number): number {
    return this.entries.master(entry);
  }

  /** Number of its helper; 0: none. */
  helper(entry: number): number {
    return this.entries.helper[entry]!;
  }

  alterReply(entry: number, t: Tuple): void {
    this.entries.alterReply(entry, t);
  }

  /** Does a rule want no events about expectations of this connection? */
  isExpectationMuted(master: number, kind: 'new' | 'destroy'): boolean {
    return (this.entries.muted[master]! & (kind === 'new' ? MUTED_EXPECTATION : MUTED_EXPECTATION << 1)) !== 0;
  }

  mark(entry: number): number {
    return this.entries.mark(entry);
  }

  setMark(entry: number, mark: number): void {
    const at = (entry << ENTRY_SHIFT) + MARK;
    if (this.entries.rows[at] === mark) return;
    this.entries.rows[at] = mark;
    this.changed(entry, Change.Mark);
  }

  setLabel(entry: number, bit: number): void {
    this.entries.setLabel(entry, bit);
    this.changed(entry, Change.Label);
  }

  /** The new entry was announced by `master`. */
  expect(entry: number, master: number): void {
    const { rows, use } = this.entries;
    rows[(entry << ENTRY_SHIFT) + MASTER] = master;
    rows[(entry << ENTRY_SHIFT) + MARK] = this.entries.mark(master);
    use[master]!++;
    this.entries.addStatus(entry, EXPECTED);
  }

  /** nf_conntrack_tuple_taken. */
  isTaken(t: Tuple, except: number): boolean {
    const { entries } = this;
    const value = entries.lookupRival(t, except);
    const other = (value - 1) >> 1;
    if (value === 0 || other === except || entries.left(other, this.now) <= 0) return false;
    entries.tuple(other, ORIGINAL, scratch);
    const { src, dst, ports, proto } = scratch;
    entries.tuple(except, ORIGINAL, scratch);
    const isSame = scratch.src === src && scratch.dst === dst && scratch.ports === ports && scratch.proto === proto;
    if (isSame && this.zone(other) === this.zone(except)) return false;
    this.stats.found++;
    return true;
  }

  isAnswer(entry: number): boolean {
    const { entries } = this;
    entries.tuple(entry, ORIGINAL, scratch);
    const value = entries.lookupApart(scratch, entries.zoneOf(entry, ORIGINAL), entries.zoneOf(entry, REPLY));
    if (value === 0 || ((value - 1) & 1) === ORIGINAL) return false;
    const other = (value - 1) >> 1;
    return (entries.status(other) & TRANSLATED) === 0 && this.areSame(entry, other, REPLY);
  }

  /** Are both one connection (nf_ct_match), or one seen from its two ends (nf_ct_match_reverse)? @param dir what the first one's original is of the other */
  protected areSame(entry: number, other: number, dir: number): boolean {
    const { entries } = this;
    for (let own = ORIGINAL; own <= REPLY; own++) {
      const its = own ^ dir;
      entries.tuple(entry, own, present);
      entries.tuple(other, its, scratch);
      if (!present.equals(scratch) || entries.zoneOf(entry, own) !== entries.zoneOf(other, its)) return false;
    }
    return true;
  }

  /** nf_nat_used_tuple_harder: the answers' tuple of a translated connection that is over goes to a SYN whose numbers lie behind its. */
  evictClosing(t: Tuple, entry: number): boolean {
    const { entries } = this;
    const value = entries.lookupRival(t, entry);
    const other = (value - 1) >> 1;
    if (value === 0 || ((value - 1) & 1) === ORIGINAL || entries.proto(other) !== TCP) return false;
    const { rows } = entries;
    if ((rows[(entry << ENTRY_SHIFT) + WORD]! & 0xff) !== SYN_SENT) return false;
    const at = other << ENTRY_SHIFT;
    const status = rows[at + STATUS]!;
    if ((status & (FIXED_TIMEOUT | DYING)) !== 0 || (status & Status.SrcNat) === 0) return false;
    if ((rows[at + WORD]! & 0xff) < TIME_WAIT) return false;
    if (((rows[(entry << ENTRY_SHIFT) + END]! - rows[at + END]!) | 0) <= 0) return false;
    this.kill(other);
    return true;
  }

  /** nf_ct_kill: the entry ends; packets that refer to it keep it to their end. */
  kill(entry: number): void {
    const { entries } = this;
    const status = entries.status(entry);
    if ((status & DYING) !== 0) return;
    if ((status & CONFIRMED) !== 0) {
      if ((entries.traits[entry]! & STAMPS) !== 0) entries.stamps[entry * 2 + 1] = this.wallClock();
      const tells = (entries.traits[entry]! & EVENTS) !== 0 && (status & NAT_CLASH) === 0;
      const isMuted = (entries.muted[entry]! & Change.Destroy) !== 0;
      if (tells && !isMuted && this.sink !== null) this.sink(entry, Change.Destroy);
    }
    if (this.onEnd !== null) this.onEnd(entry);
    entries.use[entry]!++;
    entries.remove(entry);
    this.put(entry);
  }

  /** What an event will tell when the next packet of the entry is through. */
  changed(entry: number, change: number): void {
    if ((this.entries.traits[entry]! & EVENTS) !== 0) this.entries.pending[entry]! |= change;
  }

  account(p: Packet, entry: number, dir: number): void {
    if ((this.entries.traits[entry]! & COUNTS) === 0) return;
    const at = entry * 4 + dir * 2;
    this.entries.counters[at]! += 1;
    this.entries.counters[at + 1]! += p.end - p.l3;
  }

  /** nf_ct_refresh_acct. @param timeout ticks */
  refresh(p: Packet, entry: number, dir: number, timeout: number): void {
    if ((this.entries.status(entry) & FIXED_TIMEOUT) === 0) this.entries.refresh(entry, timeout, this.now);
    this.account(p, entry, dir);
  }

  /** Of the numbers that `dir` acknowledges: what a helper has added to the other direction's. */
  offsetOf(entry: number, dir: number, ack: number): number {
    return this.offset === null ? 0 : this.offset(entry, 1 - dir, (ack - 1) | 0);
  }

  /** Is the transport checksum right, where it is looked at? */
  isSumRight(p: Packet, hook: number): boolean {
    return this.sysctls.checksum === 0 || hook !== PRE_ROUTING || isTransportSumRight(p);
  }

  /** Once per tick. */
  advance(now: number): void {
    this.now = now;
    this.entries.advance(now);
    if (this.isPressed) this.#collect();
  }

  /** gc_worker: a table that was full stays under 95 %, while there is somebody to give up. */
  #collect(): void {
    const { entries } = this;
    // Of fewer than a hundred there is no such share, as in the kernel: nobody is collected.
    const limit = Math.floor(this.most / 100) * 95;
    let ends = 0;
    for (let i = 0; i < COLLECTED && ends < MOST_ENDS; i++) {
      if (limit === 0 || entries.count < limit || this.#collectAt >= entries.highWater) {
        this.#collectAt = 1;
        this.isPressed = false;
        return;
      }
      const entry = this.#collectAt++;
      if (!entries.isAlive(entry)) continue;
      if ((entries.status(entry) & ASSURED) !== 0 && !isOver(entries, entry)) continue;
      this.kill(entry);
      ends++;
    }
  }
}

/** May it give way to new connections though it is ASSURED (can_early_drop)? */
function isOver(entries: EntryTable, entry: number): boolean {
  const state = entries.rows[(entry << ENTRY_SHIFT) + WORD]! & 0xff;
  const proto = entries.proto(entry);
  return proto === TCP ? isClosing(state) : proto === SCTP && isSctpClosing(state);
}
