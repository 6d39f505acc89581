/**
 * Connection tracking (net/netfilter/nf_conntrack_core.c).   @hot
 *
 *   PREROUTING, LOCAL_OUT  -200  conntrack/in        which connection is the packet's, and what is it to it
 *   LOCAL_IN, POSTROUTING   max  conntrack/confirm   its first packet has survived: now the entry is in the table
 *
 * A packet's entry and what it is to it are `Packet.entry` and `Packet.ctInfo`. An entry that is not confirmed is known to its packet alone and ends with it.
 * Nothing of this stands in the hooks until somebody needs it (`acquire`). What others ask of entries, and do to them, is tracked-entries.ts.
 */
import { seconds } from '../base/clock.ts';
import { FlowColumn, type FlowTable, NO_FLOW } from '../flow/flow-table.ts';
import type { FlowTracking } from '../hooks/flow-tracking.ts';
import { Hook, type HookOp, type Hooks, Priority, Verdict } from '../hooks/hooks.ts';
import { Status } from '../model/entry-status.ts';
import { Drop } from '../packet/drop.ts';
import { FLOW_UNKNOWN, type Packet } from '../packet/packet.ts';
import type { PacketPool } from '../packet/pool.ts';
import * as icmp from '../wire/icmpv4.ts';
import * as ipv4 from '../wire/ipv4.ts';
import { Change } from './changes.ts';
import { CHAIN_TOO_LONG, CLAIMED, Col, ENTRY_SHIFT, NO_ENTRY, Trait } from './entries.ts';
import { CtDir, CtInfo } from './entry.ts';
import { relatedEntry } from './icmp-error.ts';
import { CtResult } from './result.ts';
import { closeTcp } from './tcp.ts';
import { TrackedEntries, type TrackedParts } from './tracked-entries.ts';
import { begin, isSound, readTuple, track, UDP_LITE } from './trackers.ts';
import { Tuple } from './tuple.ts';

const { Accept: ACCEPT, Drop: DROP } = Verdict;
const { Established: ESTABLISHED, EstablishedReply: ESTABLISHED_REPLY, New: NEW, Related: RELATED } = CtInfo;
const { Untracked: UNTRACKED } = CtInfo;
const { Original: ORIGINAL, Reply: REPLY } = CtDir;
const { SeenReply: SEEN_REPLY, Expected: EXPECTED, Confirmed: CONFIRMED, Dying: DYING } = Status;
const { FixedTimeout: FIXED_TIMEOUT, NatClash: NAT_CLASH } = Status;
const { Timeout: TIMEOUT, FlowOriginal: FLOW } = Col;
const { Accept: TRACKED, Invalid: INVALID, Repeat: REPEAT } = CtResult;
const { Counts: COUNTS, Events: EVENTS } = Trait;
const { Tcp: TCP, Udp: UDP, Icmp: ICMP, Gre: GRE } = ipv4.IpProto;
const UDPLITE = UDP_LITE;
/** A connection of a clash lives this long; ticks. */
const CLASH_TIMEOUT = seconds(1);
const UNKNOWN = FLOW_UNKNOWN;
const ABSENT = NO_FLOW;
const ENTRY_COLUMN = FlowColumn.Entry;
const PRE_ROUTING = Hook.PreRouting;
const MAX_REPEATS = 4;
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

export interface ConntrackParts extends TrackedParts {
  readonly hooks: Hooks;
  readonly pool: PacketPool;
  /** Whole datagrams are needed, or no longer. */
  readonly defrag: { acquire(): void; release(): void };
}

export class Conntrack extends TrackedEntries implements FlowTracking {
  /** What rules of the raw table want, by `Packet.ctTemplate`; the first stands for nothing. */
  readonly templates: Template[] = [{ zone: 0, zoneDirs: 3, helper: 0, hasEvents: false, muted: 0 }];
  /** The hook at which a packet is being tracked. */
  hook: number = PRE_ROUTING;
  /** Told of packets that belong to no connection, in words, as far as nf_conntrack_log_invalid asks for it. */
  onInvalid: ((p: Packet, hook: number, text: string) => void) | null = null;
  /** Told of each packet that ends because the table is full. */
  onFull: (() => void) | null = null;
  /** Told of each TCP connection that is announced otherwise than by a helper: of the entry of the packet that has announced it. */
  onAnnounce: ((master: number, src: number, dst: number, port: number) => void) | null = null;
  /** Told of each new entry, before its first packet goes on: it may be expected, or get a helper. */
  onOpen: ((entry: number, t: Tuple, zone: number) => void) | null = null;
  readonly #hooks: Hooks;
  readonly #flows: FlowTable;
  readonly #defrag: { acquire(): void; release(): void };
  readonly #ops: readonly HookOp[];
  /** Of a copy: entries that were taken over. */
  readonly #adopted = new Set<number>();
  #users = 0;

  constructor(parts: ConntrackParts) {
    super(parts);
    this.#hooks = parts.hooks;
    this.#flows = parts.flows;
    this.#defrag = parts.defrag;
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
    let value = zone === replyZone ? this.#find(p, zone) : this.entries.lookupApart(tuple, zone, replyZone);
    if (value !== 0 && this.entries.isOver((value - 1) >> 1, this.now)) {
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
    if (this.onOpen !== null) this.onOpen(entry, tuple, template.zone);
    this.#attach(p, entry, (this.entries.status(entry) & EXPECTED) !== 0 ? RELATED : NEW);
    return ACCEPT;
  }

  #full(p: Packet): Verdict {
    this.stats.drop++;
    this.isPressed = true;
    if (this.onFull !== null) this.onFull();
    p.drop = Drop.ConntrackFull;
    return DROP;
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

  announce(p: Packet, src: number, dst: number, port: number): void {
    const { entry } = p;
    if (entry !== NO_ENTRY && this.helper(entry) !== 0 && this.onAnnounce !== null)
      this.onAnnounce(entry, src, dst, port);
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
    if (p.proto === TCP) closeTcp(this, about.entry);
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
    if (holder === CHAIN_TOO_LONG) return this.#crowd(p);
    if (holder !== CLAIMED) return this.#refuse(p);
    this.#confirmed(entry, status);
    return ACCEPT;
  }

  #confirmed(entry: number, status: number): void {
    this.stamp(entry);
    this.changed(entry, (status & EXPECTED) !== 0 ? Change.Related : Change.New);
  }

  /** What `lookup` found, unless its time is over. */
  #living(value: number): number {
    if (value === 0 || !this.entries.isOver((value - 1) >> 1, this.now)) return value;
    this.kill((value - 1) >> 1);
    return 0;
  }

  #refuse(p: Packet): Verdict {
    this.stats.insertFailed++;
    this.stats.drop++;
    p.drop = Drop.ConntrackClash;
    return DROP;
  }

  #crowd(p: Packet): Verdict {
    this.stats.chainTooLong++;
    this.stats.insertFailed++;
    p.drop = Drop.ConntrackChainTooLong;
    return DROP;
  }

  /** nf_ct_resolve_clash: two packets of a flow were under way before its entry was there. The second one takes the first one's, or answers find it alone. */
  #resolveClash(p: Packet, entry: number, winner: number): Verdict {
    const { entries } = this;
    const proto = entries.proto(entry);
    const allows = proto === UDP || proto === UDPLITE || proto === ICMP || proto === GRE;
    if (!allows || (entries.status(winner) & DYING) !== 0) return this.#refuse(p);
    if (this.areSame(entry, winner, ORIGINAL) || this.areSame(entry, winner, REPLY)) {
      if ((entries.traits[winner]! & entries.traits[entry]! & COUNTS) !== 0) {
        for (let i = 0; i < 4; i++) entries.counters[winner * 4 + i]! += entries.counters[entry * 4 + i]!;
      }
      const info = p.ctInfo;
      this.forget(p);
      this.#attach(p, winner, info);
      this.stats.clashResolve++;
      return ACCEPT;
    }
    entries.tuple(entry, REPLY, tuple);
    if (entries.lookupRival(tuple, entry) !== 0) return this.#refuse(p);
    entries.rows[(entry << ENTRY_SHIFT) + TIMEOUT] = CLASH_TIMEOUT;
    entries.addStatus(entry, FIXED_TIMEOUT | NAT_CLASH);
    if (!entries.insert(entry, this.now, true)) return this.#refuse(p);
    this.stats.clashResolve++;
    return ACCEPT;
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
