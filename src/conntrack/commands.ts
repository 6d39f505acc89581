/**
 * Commands on connection tracking's tables, with the kernel's checks and errno words: ctnetlink_new_conntrack, _create_, _change_, _del_ and _get_conntrack
 * (net/netfilter/nf_conntrack_netlink.c). Cold: between two breaths.
 */
import { TICKS_PER_SECOND } from '../base/clock.ts';
import type { CtErrno, CtTuple, EntryChange, EntrySpec, ExpectationSpec } from '../model/conntrack.ts';
import { changedMark } from '../model/entry-change.ts';
import { SCTP_CT_NAMES, TCP_CT_NAMES } from '../model/entry-states.ts';
import { Status } from '../model/entry-status.ts';
import { parseIp4 } from '../wire/addr.ts';
import { IpProto } from '../wire/ipv4.ts';
import { Change } from './changes.ts';
import type { Conntrack } from './conntrack.ts';
import { Col, ENTRY_SHIFT, NO_ENTRY, Trait } from './entries.ts';
import { CtDir } from './entry.ts';
import { EXPECT_POLICIES, type Expectations } from './expectations.ts';
import { HELPER_NAMES, HELPER_PROTOCOLS } from './helper-names.ts';
import { TAG } from './listing.ts';
import { TcpCt } from './tcp-states.ts';
import { WindowFlag } from './tcp-window.ts';
import { Tuple } from './tuple.ts';

/** Seconds that fit into the ticks of a timeout (INT_MAX / HZ). */
const LONGEST_SECONDS = Math.floor(0x7fffffff / TICKS_PER_SECOND);
/** Bits that nobody may set by hand and that are refused (ctnetlink_change_status) … */
const REFUSED = Status.Expected | Status.Dying;
/** … and those that can be set; all others stay as they are (IPS_UNCHANGEABLE_MASK). */
const SETTABLE = Status.SeenReply | Status.Assured | Status.FixedTimeout;
const WINDOW_COLUMNS = 5;
const GRE = 47;
const ICMP_INFO = 0xffff;

/** What a new entry tells of. */
const MADE = Change.New | Change.Assured | Change.Helper | Change.Protoinfo | Change.Seqadj | Change.Mark;
const CHANGED = Change.Reply | Change.Assured | Change.Helper | Change.Protoinfo | Change.Seqadj | Change.Mark;
const LABEL_WORDS = 4;

const original = new Tuple();
const reply = new Tuple();

/** A tuple as numbers; false when its addresses are none. */
export function readTuple(row: CtTuple, t: Tuple): boolean {
  const src = parseIp4(row.src);
  const dst = parseIp4(row.dst);
  if (src === undefined || dst === undefined) return false;
  const { proto, ports, icmp, gre } = row;
  t.src = src;
  t.dst = dst;
  t.proto = proto;
  t.ports = 0;
  if (ports !== undefined) t.ports = (ports.src << 16) | ports.dst;
  else if (icmp !== undefined) t.ports = (icmp.id << 16) | (((icmp.type << 8) | icmp.code) & ICMP_INFO);
  else if (gre !== undefined) t.ports = (gre.srcKey << 16) | gre.dstKey;
  return true;
}

/** Has the protocol a tracker that reads more than addresses? Only its tuples have ports. */
function hasPorts(proto: number): boolean {
  return proto === IpProto.Tcp || proto === IpProto.Udp || proto === IpProto.Sctp || proto === 136 || proto === GRE;
}

function ticks(seconds: number): number {
  return Math.min(seconds, LONGEST_SECONDS) * TICKS_PER_SECOND;
}

/** The entry that has the tuple in one of its directions; one whose time is over ends on sight. */
function find(ct: Conntrack, t: Tuple, zone: number): number {
  const value = ct.entries.lookup(t, zone);
  if (value === 0) return NO_ENTRY;
  const entry = (value - 1) >> 1;
  if (ct.entries.left(entry, ct.now) > 0) return entry;
  ct.kill(entry);
  return NO_ENTRY;
}

/** The entry of a tuple. */
export function findEntry(ct: Conntrack, row: CtTuple, zone: number): number {
  if (!readTuple(row, original)) return NO_ENTRY;
  if (row.proto !== IpProto.Icmp && !hasPorts(row.proto)) original.ports = 0;
  return find(ct, original, zone);
}

/** Whom an update of the entry is for: the tool asks for it by its original tuple, and never names a zone. */
export function namesake(ct: Conntrack, entry: number): number {
  ct.tuple(entry, CtDir.Original, original);
  return find(ct, original, 0);
}

/** Where one end of a new entry is to be translated to; port 0: as the connection's own, where that is free. */
export interface NatTarget {
  readonly ip: number;
  readonly port: number;
}

/** NAT's part in a new entry (ctnetlink_setup_nat); null: to what it is, moved only where that is taken. */
export type BindNat = (entry: number, isSource: boolean, target: NatTarget | null) => void;

export function createEntry(ct: Conntrack, spec: EntrySpec, bind: BindNat): CtErrno | null {
  if (!readTuple(spec.original, original) || !readTuple(spec.reply, reply)) return 'EINVAL';
  if (spec.original.proto !== spec.reply.proto) return 'EINVAL';
  if (!original.canInvert()) return 'EINVAL';
  const isPlain = original.proto !== IpProto.Icmp && !hasPorts(original.proto);
  if (isPlain) {
    original.ports = 0;
    reply.ports = 0;
  }
  const zones = spec.zones ?? { original: 0, reply: 0 };
  const state = stateNumber(original.proto, spec.state);
  if (state === undefined) return 'EINVAL';
  const errno = statusErrno(spec.status ?? 0);
  if (find(ct, original, zones.original) !== NO_ENTRY) return 'EEXIST';
  if (errno !== null) return errno;
  const helper = spec.helper === undefined ? 0 : helperNumber(spec.helper, original.proto);
  if (helper === undefined) return 'EOPNOTSUPP';
  const entry = ct.open(original, zones.original, zones.reply, helper);
  if (entry === NO_ENTRY) return 'ENOMEM';
  const { entries } = ct;
  const at = entry << ENTRY_SHIFT;
  entries.alterReply(entry, reply);
  const { sourceNat, destinationNat } = spec;
  if (sourceNat !== undefined || destinationNat !== undefined) {
    bind(entry, false, natTarget(destinationNat));
    bind(entry, true, natTarget(sourceNat));
    entries.tuple(entry, CtDir.Reply, reply);
  }
  if (find(ct, reply, zones.reply) !== NO_ENTRY) {
    ct.kill(entry);
    return 'EEXIST';
  }
  entries.addStatus(entry, ((spec.status ?? 0) & SETTABLE) | (helper === 0 ? 0 : Status.Helper));
  entries.rows[at + Col.Mark] = (spec.mark ?? 0) | 0;
  setProtoinfo(ct, entry, state, spec.liberal === true);
  if (spec.tags !== undefined && original.proto === IpProto.Sctp) {
    entries.rows[at + TAG] = spec.tags.original | 0;
    entries.rows[at + TAG + 1] = spec.tags.reply | 0;
  }
  // With answers it is a stream at once.
  if (original.proto === IpProto.Udp) entries.rows[at + Col.Word] = (ct.now - 1) | 0;
  entries.rows[at + Col.Timeout] = ticks(spec.timeoutSeconds);
  const refused = ct.insert(entry);
  if (refused !== null) {
    ct.kill(entry);
    return refused;
  }
  ct.stats.insert++;
  const isLabelled = spec.labels !== undefined && setLabels(ct, entry, { value: spec.labels, mask: spec.labels });
  tell(ct, entry, isLabelled ? MADE | Change.Label : MADE);
  return null;
}

function natTarget(nat: EntrySpec['sourceNat']): NatTarget | null {
  const ip = nat === undefined ? undefined : parseIp4(nat.address);
  return nat === undefined || ip === undefined ? null : { ip, port: nat.port };
}

/** Undefined: there is no such helper for connections of the protocol. */
function helperNumber(name: string, proto: number): number | undefined {
  const number = (HELPER_NAMES as readonly string[]).indexOf(name);
  return number > 0 && HELPER_PROTOCOLS[number] === proto ? number : undefined;
}

/** Null: the bits can be set. */
function statusErrno(status: number): CtErrno | null {
  return (status & REFUSED) !== 0 ? 'EBUSY' : null;
}

/** -1: none was said; undefined: there is no such state. */
function stateNumber(proto: number, name: string | undefined): number | undefined {
  if (name === undefined) return -1;
  const names: readonly string[] = proto === IpProto.Tcp ? TCP_CT_NAMES : proto === IpProto.Sctp ? SCTP_CT_NAMES : [];
  // A protocol without states does not look at it.
  if (names.length === 0) return -1;
  const number = names.indexOf(name);
  return number < 0 ? undefined : number;
}

/** @param state -1 leaves it */
function setProtoinfo({ entries }: Conntrack, entry: number, state: number, isLiberal: boolean): void {
  const { rows } = entries;
  const at = entry << ENTRY_SHIFT;
  if (state >= 0) rows[at + Col.Word] = (rows[at + Col.Word]! & ~0xff) | state;
  if (!isLiberal || entries.proto(entry) !== IpProto.Tcp) return;
  // A connection that is closed already may be opened again (libct_proto_tcp.c, final_check).
  const closes = state >= TcpCt.TimeWait ? WindowFlag.CloseInit : 0;
  const flags = (WindowFlag.Liberal | WindowFlag.SackPermitted | closes) << 8;
  rows[at + Col.Scale]! |= flags;
  rows[at + Col.Scale + WINDOW_COLUMNS]! |= flags;
}

/** Null: it is done, and told. Else what was before the mistake stays done, as in the kernel. */
export function changeEntry(ct: Conntrack, entry: number, change: EntryChange): CtErrno | null {
  const { entries } = ct;
  const at = entry << ENTRY_SHIFT;
  const { timeoutSeconds, status, state, mark } = change;
  if (timeoutSeconds !== undefined) {
    if ((entries.status(entry) & Status.FixedTimeout) !== 0) return 'EPERM';
    entries.refresh(entry, ticks(timeoutSeconds), ct.now);
  }
  if (status !== undefined) {
    const isNew = status & ~entries.status(entry);
    const errno = statusErrno(isNew);
    if (errno !== null) return errno;
    entries.addStatus(entry, isNew & SETTABLE);
  }
  const number = stateNumber(entries.proto(entry), state);
  if (number === undefined) return 'EINVAL';
  setProtoinfo(ct, entry, number, change.liberal === true);
  if (mark !== undefined) entries.rows[at + Col.Mark] = changedMark(entries.mark(entry) >>> 0, mark) | 0;
  if (change.labels !== undefined && !setLabels(ct, entry, change.labels)) return 'ENOSPC';
  tell(ct, entry, change.labels === undefined ? CHANGED : CHANGED | Change.Label);
  return null;
}

/** new = (old & ~mask) ^ value, hexadecimal, the highest first (nf_connlabels_replace). False: it was made while no rule wanted labels. */
function setLabels({ entries }: Conntrack, entry: number, { value, mask }: { value: string; mask: string }): boolean {
  if (!entries.canHaveLabels(entry)) return false;
  for (let i = 0; i < LABEL_WORDS; i++) {
    const at = 8 * (LABEL_WORDS - 1 - i);
    const word = (text: string): number => Number.parseInt(text.slice(at, at + 8), 16);
    const place = entry * LABEL_WORDS + i;
    entries.labels[place] = (entries.labels[place]! & ~word(mask)) ^ word(value);
  }
  return true;
}

/** ctnetlink_create_expect: only for a connection that has a helper, whose limits and time it gets; -t is not looked at. */
export function createExpectation(ct: Conntrack, expectations: Expectations, spec: ExpectationSpec): CtErrno | null {
  if (!readTuple(spec.tuple, original) || !readTuple(spec.mask, reply)) return 'EINVAL';
  const { src, dst, ports, proto } = original;
  const { src: srcMask, ports: portMasks } = reply;
  const master = findEntry(ct, spec.master, 0);
  if (master === NO_ENTRY) return 'ENOENT';
  const helper = ct.helper(master);
  if (helper === 0) return 'EOPNOTSUPP';
  const wanted = {
    master,
    proto,
    src,
    srcMask,
    srcPort: ports >>> 16,
    srcPortMask: portMasks >>> 16,
    dst,
    dstPort: ports & 0xffff,
    zone: ct.zoneId(master),
    helper: HELPER_NAMES[helper]!,
    class: 0,
    flags: 0,
    nat: null,
  };
  return expectations.add(ct.now, wanted, EXPECT_POLICIES[helper]!);
}

/** An event at once, as commands tell theirs (nf_conntrack_eventmask_report). */
function tell({ entries, sink }: Conntrack, entry: number, changes: number): void {
  if (sink !== null && (entries.traits[entry]! & Trait.Events) !== 0) sink(entry, changes);
}
