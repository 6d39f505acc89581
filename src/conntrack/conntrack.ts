/**
 * Connection tracking (net/netfilter/nf_conntrack_core.c).   @hot
 *
 *   PREROUTING, LOCAL_OUT  -200  conntrack/in        which connection is the packet's, and what is it to it
 *   LOCAL_IN, POSTROUTING   max  conntrack/confirm   its first packet has survived: now the entry is in the table
 *
 * A packet's entry and what it is to it are `Packet.entry` and `Packet.ctInfo`. An entry that is not confirmed is known to its packet alone and ends with it.
 * Nothing of this stands in the hooks until somebody needs it (`acquire`).
 */
import { seconds } from '../base/clock.ts';
import type { Allocate } from '../base/memory.ts';
import type { Rng } from '../base/rng.ts';
import { FlowColumn, type FlowTable, NO_FLOW } from '../flow/flow-table.ts';
import type { FlowTracking } from '../hooks/flow-tracking.ts';
import { Hook, type HookOp, type Hooks, Priority, Verdict } from '../hooks/hooks.ts';
import { Status } from '../model/entry-status.ts';
import { Drop } from '../packet/drop.ts';
import { FLOW_UNKNOWN, type Packet } from '../packet/packet.ts';
import type { PacketPool } from '../packet/pool.ts';
import { isTransportSumRight } from '../packet/sum.ts';
import * as icmp from '../wire/icmpv4.ts';
import * as ipv4 from '../wire/ipv4.ts';
import { Change } from './changes.ts';
import { CLAIMED, Col, ENTRY_SHIFT, EntryTable, MUTED_EXPECTATION, NO_ENTRY, Trait } from './entries.ts';
import { CtDir, CtInfo } from './entry.ts';
import { relatedEntry } from './icmp-error.ts';
import { CtResult } from './result.ts';
import { isSctpClosing } from './sctp.ts';
import { ConntrackSysctls } from './sysctl.ts';
import { isClosing } from './tcp.ts';
import { TcpCt } from './tcp-states.ts';
import { begin, isSound, readTuple, track, UDP_LITE } from './trackers.ts';
import { Tuple } from './tuple.ts';

const { Accept: ACCEPT, Drop: DROP } = Verdict;
const { Established: ESTABLISHED, EstablishedReply: ESTABLISHED_REPLY, New: NEW, Related: RELATED } = CtInfo;
const { Untracked: UNTRACKED } = CtInfo;
const { Original: ORIGINAL, Reply: REPLY } = CtDir;
const { SeenReply: SEEN_REPLY, Expected: EXPECTED, Confirmed: CONFIRMED, Dying: DYING, Assured: ASSURED } = Status;
const { FixedTimeout: FIXED_TIMEOUT, NatClash: NAT_CLASH, SrcNatDone: SRC_DONE, DstNatDone: DST_DONE } = Status;
const { Status: STATUS, Timeout: TIMEOUT, Mark: MARK, Master: MASTER, Word: WORD, End: END, FlowOriginal: FLOW } = Col;
const { Accept: TRACKED, Invalid: INVALID, Repeat: REPEAT } = CtResult;
const { Counts: COUNTS, Stamps: STAMPS, Events: EVENTS, Labels: LABELS } = Trait;
const { Tcp: TCP, Udp: UDP, Icmp: ICMP, Sctp: SCTP, Gre: GRE } = ipv4.IpProto;
const UDPLITE = UDP_LITE;
/** A connection of a clash lives this long; ticks. */
const CLASH_TIMEOUT = seconds(1);
const TIME_WAIT = TcpCt.TimeWait;
const UNKNOWN = FLOW_UNKNOWN;
const ABSENT = NO_FLOW;
const ENTRY_COLUMN = FlowColumn.Entry;
const PRE_ROUTING = Hook.PreRouting;
const MAX_REPEATS = 4;
/** Rows that a full table looks at for one to give up. */
const EVICTION_RANGE = 64;
/** Rows that a tick of the collector looks at while the table is nearly full. */
const COLLECTED = 4096;

const tuple = new Tuple();
const scratch = new Tuple();

/** What a rule of the raw table wants of the entry that is about to be made (xt_CT.c). */
export interface Template {
  readonly zone: number;
  /** Of which directions the zone is: 1 original, 2 reply, 3 both. */
  readonly zoneDirs: number;
  readonly helper: number;
  /** Events are asked for by the rule: all but `muted`, whatever nf_conntrack_events says. */
  readonly hasEvents: boolean;
  /** As in EntryTable. */
  readonly muted: number;
}

export interface ConntrackParts {
  readonly hooks: Hooks;
  readonly pool: PacketPool;
  readonly flows: FlowTable;
  readonly rng: Rng;
  readonly now: number;
  readonly maxEntries: number;
  readonly allocate?: Allocate | undefined;
  /** Milliseconds since 1970. */
  readonly wallClock: () => number;
  /** Whole datagrams are needed, or no longer. */
  readonly defrag: { acquire(): void; release(): void };
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

export class Conntrack implements FlowTracking {
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
  /** What rules of the raw table want, by `Packet.ctTemplate`; the first stands for nothing. */
  readonly templates: Template[] = [{ zone: 0, zoneDirs: 3, helper: 0, hasEvents: false, muted: 0 }];
  now: number;
  /** Told of changes (changes.ts), in their order; null: nobody asks. */
  sink: ((entry: number, changes: number) => void) | null = null;
  /** New entries have room for labels: a rule wants them. */
  keepsLabels = false;
  /** The hook at which a packet is being tracked. */
  hook: number = PRE_ROUTING;
  /** Told of packets that belong to no connection, in words, as far as nf_conntrack_log_invalid asks for it. */
  onInvalid: ((p: Packet, hook: number, text: string) => void) | null = null;
  /** Told of each packet that ends because the table is full. */
  onFull: (() => void) | null = null;
  /** Told of each new entry, before its first packet goes on: it may be expected, or get a helper. */
  onOpen: ((entry: number, t: Tuple, zone: number) => void) | null = null;
  /** Told of each entry that ends. */
  onEnd: ((entry: number) => void) | null = null;
  /** Told of an entry that is looked at by its number; null but in the copy on which `tapvs explain` answers. */
  onLook: ((entry: number) => void) | null = null;
  /** What a helper has added to the numbers of an entry's direction `dir`, at the number `seq`. */
  offset: ((entry: number, dir: number, seq: number) => number) | null = null;
  readonly #hooks: Hooks;
  readonly #flows: FlowTable;
  readonly #rng: Rng;
  readonly #wallClock: () => number;
  readonly #defrag: { acquire(): void; release(): void };
  readonly #ops: readonly HookOp[];
  /** Of a copy: entries that were taken over. */
  readonly #adopted = new Set<number>();
  #users = 0;
  /** The table was full: the collector ends what can be given up (gc_worker's early_drop). */
  #isPressed = false;
  #collectAt = 1;

  constructor(parts: ConntrackParts) {
    this.#hooks = parts.hooks;
    this.#flows = parts.flows;
    this.#rng = parts.rng;
    this.#wallClock = parts.wallClock;
    this.#defrag = parts.defrag;
    this.now = parts.now;
    this.entries = new EntryTable(parts.maxEntries, parts.flows, parts.now, parts.allocate);
    this.entries.onExpire = (entry) => this.kill(entry);
    this.sysctls = new ConntrackSysctls(() => this.entries.count, parts.maxEntries);
    parts.pool.onEntryEnd = (p) => this.put(p.entry);
    this.#ops = conntrackOps(this);
  }

  // -------------------------------------------------------------------------------------------------------------------
  // A packet

  /** nf_conntrack_in. */
  enter(p: Packet, hook: number): Verdict {
    if (p.entry !== NO_ENTRY || p.ctInfo === UNTRACKED) return ACCEPT;
    this.hook = hook;
    if (!isSound(this, p, hook)) return p.proto === ICMP ? this.#error() : this.#invalid();
    if (p.proto === ICMP && icmp.isError(icmp.type(p.view, p.l4))) {
      const value = relatedEntry(this, p);
      if (value === 0) return this.#error();
      this.#attach(p, (value - 1) >> 1, ((value - 1) & 1) === REPLY ? RELATED + ESTABLISHED_REPLY : RELATED);
      return ACCEPT;
    }
    for (let repeats = 0; repeats < MAX_REPEATS; repeats++) {
      const verdict = this.#resolve(p);
      if (verdict !== ACCEPT) return verdict;
      const { entry } = p;
      if (entry === NO_ENTRY) return this.#invalid();
      const result = this.#handle(p, entry);
      if (result === TRACKED) return ACCEPT;
      if (result === REPEAT) this.kill(entry);
      this.forget(p);
      if (result !== REPEAT) return this.#invalid();
      p.flow = UNKNOWN;
    }
    return this.#invalid();
  }

  #invalid(): Verdict {
    this.stats.invalid++;
    return ACCEPT;
  }

  /** An ICMP message that is INVALID is counted apart (nf_conntrack_handle_icmp). */
  #error(): Verdict {
    this.stats.error++;
    return ACCEPT;
  }

  /** resolve_normal_ct: the entry of the packet's tuple, or a new one. None: nothing can answer such a packet. */
  #resolve(p: Packet): Verdict {
    const template = this.templates[p.ctTemplate]!;
    const zone = (template.zoneDirs & 1) !== 0 ? template.zone : 0;
    const replyZone = (template.zoneDirs & 2) !== 0 ? template.zone : 0;
    if (!readTuple(p, tuple)) return ACCEPT;
    let value = this.#find(p, zone);
    if (value === 0 && zone !== replyZone) value = this.entries.lookup(tuple, replyZone);
    if (value !== 0 && this.entries.left((value - 1) >> 1, this.now) <= 0) {
      this.kill((value - 1) >> 1);
      p.flow = UNKNOWN;
      value = 0;
    }
    if (value === 0) return this.#open(p, template, zone, replyZone);
    const entry = (value - 1) >> 1;
    const status = this.entries.status(entry);
    let info: number = NEW;
    if (((value - 1) & 1) === REPLY) info = ESTABLISHED_REPLY;
    else if ((status & SEEN_REPLY) !== 0) info = ESTABLISHED;
    else if ((status & EXPECTED) !== 0) info = RELATED;
    this.#attach(p, entry, info);
    return ACCEPT;
  }

  /** The one probe; the director's hook functions use its answer. */
  #find(p: Packet, zone: number): number {
    if (zone !== 0) return this.entries.lookup(tuple, zone);
    let flow = p.flow;
    if (flow === UNKNOWN) {
      flow = this.#flows.find(tuple.src, tuple.dst, tuple.ports, tuple.proto);
      p.flow = flow;
    }
    return flow === ABSENT ? 0 : this.#flows.attached(flow, ENTRY_COLUMN);
  }

  /** init_conntrack. */
  #open(p: Packet, template: Template, zone: number, replyZone: number): Verdict {
    if (!tuple.canInvert()) return ACCEPT;
    const entry = this.open(tuple, zone, replyZone, template.helper);
    if (entry === NO_ENTRY) return this.#full(p);
    if (template.hasEvents && this.sysctls.events === 0) this.entries.traits[entry]! |= EVENTS;
    if (template.muted !== 0) this.entries.muted[entry] = template.muted;
    tuple.invert();
    if (this.onOpen !== null) this.onOpen(entry, tuple, zone);
    this.#attach(p, entry, (this.entries.status(entry) & EXPECTED) !== 0 ? RELATED : NEW);
    return ACCEPT;
  }

  /** A row for a connection that begins with `t`, and what the settings give it; NO_ENTRY when there is no room. */
  open(t: Tuple, zone: number, replyZone: number, helper: number): number {
    const { entries } = this;
    const { acct, timestamp, events } = this.sysctls;
    if (entries.count + 1 > this.#most && !this.#evict()) return NO_ENTRY;
    const entry = entries.open(t, zone, replyZone, this.#rng.next());
    if (entry === NO_ENTRY) return NO_ENTRY;
    entries.helper[entry] = helper;
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

  /** An entry that no packet made comes into the table; who put it there tells of it. False: no room. */
  insert(entry: number): boolean {
    if (!this.entries.insert(entry, this.now, false)) return false;
    this.#stamp(entry);
    return true;
  }

  /** Entries at most: nf_conntrack_max, where 0 means as many as there are rows. */
  get #most(): number {
    const { max } = this.sysctls;
    return max === 0 ? this.entries.capacity : max;
  }

  #full(p: Packet): Verdict {
    this.stats.drop++;
    this.#isPressed = true;
    if (this.onFull !== null) this.onFull();
    p.drop = Drop.ConntrackFull;
    return DROP;
  }

  /** early_drop: a connection that is not ASSURED gives way. */
  #evict(): boolean {
    const { entries } = this;
    const range = entries.highWater - 1;
    if (range < 1) return false;
    let entry = 1 + ((this.#rng.next() >>> 0) % range);
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

  /** nf_conntrack_handle_packet, and what follows it. */
  #handle(p: Packet, entry: number): number {
    const { entries } = this;
    const dir = p.ctInfo >= ESTABLISHED_REPLY ? REPLY : ORIGINAL;
    if ((entries.status(entry) & CONFIRMED) === 0 && !begin(this, p, entry)) return INVALID;
    const result = track(this, p, entry, dir);
    if (result !== TRACKED) return result;
    if (p.ctInfo === ESTABLISHED_REPLY && (entries.status(entry) & SEEN_REPLY) === 0) {
      entries.addStatus(entry, SEEN_REPLY);
      this.changed(entry, Change.Reply);
    }
    return TRACKED;
  }

  #attach(p: Packet, entry: number, info: number): void {
    p.entry = entry;
    p.ctInfo = info;
    this.entries.use[entry]!++;
  }

  /** The packet has no entry any more. */
  forget(p: Packet): void {
    const { entry } = p;
    p.entry = NO_ENTRY;
    p.ctInfo = ESTABLISHED;
    if (entry !== NO_ENTRY) this.put(entry);
  }

  /** Nobody tracks the packet (NOTRACK). */
  untrack(p: Packet): void {
    this.forget(p);
    p.ctInfo = UNTRACKED;
  }

  isConfirmed(p: Packet): boolean {
    return p.entry !== NO_ENTRY && (this.entries.status(p.entry) & CONFIRMED) !== 0;
  }

  answersComeFrom(p: Packet, ip: number, port: number): void {
    if (!this.#beginsWith(p)) return;
    this.entries.tuple(p.entry, REPLY, scratch);
    scratch.src = ip;
    if (p.proto !== ICMP) scratch.ports = (port << 16) | (scratch.ports & 0xffff);
    this.entries.alterReply(p.entry, scratch);
  }

  answersGoTo(p: Packet, ip: number, port: number): void {
    if (!this.#beginsWith(p)) return;
    this.entries.tuple(p.entry, REPLY, scratch);
    scratch.dst = ip;
    if (p.proto !== ICMP) scratch.ports = (scratch.ports & -0x10000) | port;
    this.entries.alterReply(p.entry, scratch);
  }

  /** Is it the first packet of a connection that is not in the table yet? */
  #beginsWith(p: Packet): boolean {
    if (p.entry === NO_ENTRY || p.ctInfo >= ESTABLISHED_REPLY) return false;
    return (this.entries.status(p.entry) & (CONFIRMED | DYING)) === 0;
  }

  end(src: number, dst: number, ports: number, proto: number): void {
    scratch.src = src;
    scratch.dst = dst;
    scratch.ports = ports;
    scratch.proto = proto;
    const value = this.entries.lookup(scratch, 0);
    if (value !== 0) this.kill((value - 1) >> 1);
  }

  /** A packet born here answers `about`: it belongs to the same connection (nf_ct_attach). */
  attachAnswer(p: Packet, about: Packet): void {
    if (about.entry === NO_ENTRY) return;
    this.#attach(p, about.entry, about.ctInfo >= ESTABLISHED_REPLY ? RELATED : RELATED + ESTABLISHED_REPLY);
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

  /** nf_conntrack_confirm. */
  confirm(p: Packet): Verdict {
    const { entry } = p;
    if (entry === NO_ENTRY) return ACCEPT;
    const { entries } = this;
    const status = entries.status(entry);
    if ((status & CONFIRMED) === 0 && p.ctInfo < ESTABLISHED_REPLY) {
      const verdict = this.#insert(p, entry, status);
      if (verdict !== ACCEPT) return verdict;
    }
    const pending = entries.pending[p.entry]!;
    // A reset that answers for a rule to a connection's first packet is seen before that is in the table, if it ever is: nothing is told of it.
    if (pending !== 0 && (entries.status(p.entry) & (CONFIRMED | DYING)) === CONFIRMED) {
      entries.pending[p.entry] = 0;
      if (this.sink !== null && (pending & ~entries.muted[p.entry]!) !== 0) this.sink(p.entry, pending);
    }
    return ACCEPT;
  }

  #insert(p: Packet, entry: number, status: number): Verdict {
    const { entries } = this;
    if ((status & DYING) !== 0) return this.#refuse(p);
    let holder = entries.claim(entry, this.now, false);
    // One whose time is over gives way, for each of the two tuples.
    while (holder > 0 && this.#living(holder) === 0) holder = entries.claim(entry, this.now, false);
    if (holder > 0) return this.#resolveClash(p, entry, (holder - 1) >> 1);
    if (holder !== CLAIMED) return this.#refuse(p);
    this.#confirmed(entry, status);
    return ACCEPT;
  }

  #confirmed(entry: number, status: number): void {
    this.#stamp(entry);
    this.changed(entry, (status & EXPECTED) !== 0 ? Change.Related : Change.New);
  }

  /** Its time begins. */
  #stamp(entry: number): void {
    if ((this.entries.traits[entry]! & STAMPS) !== 0) this.entries.stamps[entry * 2] = this.#wallClock();
  }

  /** What `lookup` found, unless its time is over. */
  #living(value: number): number {
    if (value === 0 || this.entries.left((value - 1) >> 1, this.now) > 0) return value;
    this.kill((value - 1) >> 1);
    return 0;
  }

  #refuse(p: Packet): Verdict {
    this.stats.insertFailed++;
    this.stats.drop++;
    p.drop = Drop.ConntrackClash;
    return DROP;
  }

  /** nf_ct_resolve_clash: two packets of a flow were under way before its entry was there. The second one takes the first one's, or answers find it alone. */
  #resolveClash(p: Packet, entry: number, winner: number): Verdict {
    const { entries } = this;
    const proto = entries.proto(entry);
    const allows = proto === UDP || proto === UDPLITE || proto === ICMP || proto === GRE;
    if (!allows || (entries.status(winner) & DYING) !== 0) return this.#refuse(p);
    entries.tuple(entry, ORIGINAL, tuple);
    entries.tuple(winner, ORIGINAL, scratch);
    const isSameOriginal = tuple.equals(scratch);
    entries.tuple(entry, REPLY, tuple);
    entries.tuple(winner, REPLY, scratch);
    if ((isSameOriginal && tuple.equals(scratch)) || (entries.status(winner) & (SRC_DONE | DST_DONE)) === 0) {
      if ((entries.traits[winner]! & entries.traits[entry]! & COUNTS) !== 0) {
        for (let i = 0; i < 4; i++) entries.counters[winner * 4 + i]! += entries.counters[entry * 4 + i]!;
      }
      this.forget(p);
      this.#attach(p, winner, (entries.status(winner) & SEEN_REPLY) !== 0 ? ESTABLISHED : NEW);
      return ACCEPT;
    }
    if (entries.lookup(tuple, entries.zoneOf(entry, REPLY)) !== 0) return this.#refuse(p);
    entries.rows[(entry << ENTRY_SHIFT) + TIMEOUT] = CLASH_TIMEOUT;
    entries.addStatus(entry, FIXED_TIMEOUT | NAT_CLASH);
    if (!entries.insert(entry, this.now, true)) return this.#refuse(p);
    this.stats.clashResolve++;
    return ACCEPT;
  }

  // -------------------------------------------------------------------------------------------------------------------
  // What trackers, translation and rules ask

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
    const value = entries.lookup(t, entries.zoneOf(except, REPLY));
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

  /** nf_nat_used_tuple_harder: a translated connection that is over, and numbers that lie behind its. */
  evictClosing(t: Tuple, entry: number): boolean {
    const { entries } = this;
    const value = entries.lookup(t, entries.zoneOf(entry, REPLY));
    const other = (value - 1) >> 1;
    if (value === 0 || entries.proto(other) !== TCP) return false;
    const { rows } = entries;
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
      if ((entries.traits[entry]! & STAMPS) !== 0) entries.stamps[entry * 2 + 1] = this.#wallClock();
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
    if (this.#isPressed) this.#collect();
  }

  /** gc_worker: a table that was full stays under 95 %, while there is somebody to give up. */
  #collect(): void {
    const { entries } = this;
    // Of fewer than a hundred there is no such share, as in the kernel: nobody is collected.
    const limit = Math.floor(this.#most / 100) * 95;
    for (let i = 0; i < COLLECTED; i++) {
      if (limit === 0 || entries.count < limit || this.#collectAt >= entries.highWater) {
        this.#collectAt = 1;
        this.#isPressed = false;
        return;
      }
      const entry = this.#collectAt++;
      if (!entries.isAlive(entry)) continue;
      if ((entries.status(entry) & ASSURED) === 0 || isOver(entries, entry)) this.kill(entry);
    }
  }

  // cold: registration
  /** One more who needs entries. */
  acquire(): void {
    if (this.#users++ > 0) return;
    this.#defrag.acquire();
    this.#hooks.register(this.#ops);
  }

  release(): void {
    if (--this.#users > 0) return;
    this.#hooks.unregister(this.#ops);
    this.#defrag.release();
  }

  /** Become a copy with none of the entries; `adopt` takes them over one by one. */
  copyFrom(live: Conntrack): void {
    this.now = live.now;
    this.sysctls.copyFrom(live.sysctls);
    this.keepsLabels = live.keepsLabels;
    this.templates.splice(0, Infinity, ...live.templates);
    this.entries.copyFrom(live.entries);
    if (live.isInUse) this.acquire();
  }

  /**
   * Take over the entry that a flow row of `live` carries, and with it what it stands for.
   * @param takeFlow takes over a flow row
   */
  adopt(live: Conntrack, row: number, takeFlow: (row: number) => void): void {
    const value = this.#flows.attached(row, ENTRY_COLUMN);
    if (value !== 0) this.adoptEntry(live, (value - 1) >> 1, takeFlow);
  }

  /** Take over an entry by its number, unless it was taken over before. */
  adoptEntry(live: Conntrack, entry: number, takeFlow: (row: number) => void): void {
    if (this.#adopted.has(entry) || !live.entries.isUsed(entry)) return;
    this.#adopted.add(entry);
    this.entries.adopt(live.entries, entry);
    const { rows } = live.entries;
    for (const flow of [rows[(entry << ENTRY_SHIFT) + FLOW]!, rows[(entry << ENTRY_SHIFT) + FLOW + 1]!]) {
      if (flow !== ABSENT) takeFlow(flow);
    }
    const master = this.entries.master(entry);
    if (master !== NO_ENTRY) this.adoptEntry(live, master, takeFlow);
  }

  get isInUse(): boolean {
    return this.#users > 0;
  }
  // hot again
}

/** May it give way to new connections though it is ASSURED (can_early_drop)? */
function isOver(entries: EntryTable, entry: number): boolean {
  const state = entries.rows[(entry << ENTRY_SHIFT) + WORD]! & 0xff;
  const proto = entries.proto(entry);
  return proto === TCP ? isClosing(state) : proto === SCTP && isSctpClosing(state);
}

// cold: registration
function conntrackOps(ct: Conntrack): readonly HookOp[] {
  const enter = (hook: Hook): HookOp => ({
    hook,
    priority: Priority.Conntrack,
    name: 'conntrack/in',
    why: 'finds the connection of a packet, before rules and translation ask for it',
    run: (p) => ct.enter(p, hook),
  });
  const confirm = (hook: Hook): HookOp => ({
    hook,
    priority: Priority.ConntrackConfirm,
    name: 'conntrack/confirm',
    why: 'a connection is one when its first packet has passed everything else',
    run: (p) => ct.confirm(p),
  });
  return [enter(Hook.PreRouting), enter(Hook.LocalOut), confirm(Hook.LocalIn), confirm(Hook.PostRouting)];
}
// hot again
