/**
 * The tuple that a connection gets: the one it has if that is allowed and free, else the one that its source has elsewhere, else another address, port or id of
 * the range (nf_nat_core.c: get_unique_tuple).   @hot
 *
 * "Free" asks for the reply: no entry must expect the same answers. When nothing is free the last try stays; confirmation then drops the packet.
 */
import { jhashAddress, swapBytes } from '../base/jhash.ts';
import type { Rng } from '../base/rng.ts';
import { CtDir } from '../conntrack/entry.ts';
import { Tuple } from '../conntrack/tuple.ts';
import { IpProto } from '../wire/ipv4.ts';
import type { BySource } from './by-source.ts';
import type { Entries } from './entries.ts';
import { Manip, type NatRange, RangeFlag } from './range.ts';

const { Tcp: TCP, Udp: UDP, UdpLite: UDPLITE, Icmp: ICMP, Sctp: SCTP, Gre: GRE } = IpProto;
const { MapIps: MAP_IPS, ProtoSpecified: SPECIFIED, Persistent: PERSISTENT, ProtoOffset: OFFSET } = RangeFlag;
const RANDOM = RangeFlag.ProtoRandom | RangeFlag.ProtoRandomFully;
const SRC = Manip.Src;
const REPLY = CtDir.Reply;
/** Ports that are tried one after the other; then half as many from another place, down to LEAST_ATTEMPTS (NF_NAT_MAX_ATTEMPTS). */
const MOST_ATTEMPTS = 128;
const LEAST_ATTEMPTS = 16;
/** The last tries may take the port of a connection that is closed (NF_NAT_HARDER_THRESH). */
const HARD_ATTEMPTS = MOST_ATTEMPTS / 4;

/** The reply of a tuple that is tried, and of an entry that is looked at. */
const scratch = new Tuple();
const original = new Tuple();

/** Is an answer to `t` taken for another connection's? */
function isTaken(entries: Entries, t: Tuple, entry: number): boolean {
  scratch.copyFrom(t);
  scratch.invert();
  return entries.isTaken(scratch, entry);
}

/** The same of a tuple that is as the packet has it: where it answers another connection that is only just beginning, confirmation makes both one (nf_nat_used_tuple_new). */
function isTakenAnew(entries: Entries, t: Tuple, entry: number): boolean {
  return isTaken(entries, t, entry) && !(allowsClash(t.proto) && entries.isAnswer(entry));
}

/** Protocols of which two first packets may be under way at once (nf_conntrack_l4proto.allow_clash). */
function allowsClash(proto: number): boolean {
  return proto === UDP || proto === UDPLITE || proto === ICMP || proto === GRE;
}

/** The same when tries run out: a connection that is over gives way. */
function isTakenStill(entries: Entries, t: Tuple, entry: number, attemptsLeft: number): boolean {
  if (attemptsLeft > HARD_ATTEMPTS || t.proto !== TCP) return isTaken(entries, t, entry);
  scratch.copyFrom(t);
  scratch.invert();
  return entries.isTaken(scratch, entry) && !entries.evictClosing(scratch, entry);
}

/** What of `t` the manipulation changes besides the address; ICMP has one id for both ends. */
function partOf(t: Tuple, manip: number): number {
  return manip === SRC || t.proto === ICMP ? t.ports >>> 16 : t.ports & 0xffff;
}

function setPart(t: Tuple, manip: number, part: number): void {
  if (manip === SRC || t.proto === ICMP) t.ports = (part << 16) | (t.ports & 0xffff);
  else t.ports = (t.ports & -0x10000) | part;
}

function hasPart(proto: number): boolean {
  return proto === TCP || proto === UDP || proto === ICMP || proto === SCTP || proto === UDPLITE || proto === GRE;
}

function isPartInRange(t: Tuple, manip: number, range: NatRange): boolean {
  if (!hasPart(t.proto)) return true;
  const part = partOf(t, manip);
  return part >= range.minPort && part <= range.maxPort;
}

/** Is the source of `t` one that the range allows? */
export function isSourceInRange(t: Tuple, range: NatRange): boolean {
  const ip = t.src >>> 0;
  if ((range.flags & MAP_IPS) !== 0 && (ip < range.minIp >>> 0 || ip > range.maxIp >>> 0)) return false;
  return (range.flags & SPECIFIED) === 0 || isPartInRange(t, SRC, range);
}

/** Change `t` into the tuple of the connection; it holds the present one. `original` of the entry tells whose other connections may be followed. */
export function chooseTuple(
  entries: Entries,
  bySource: BySource,
  rng: Rng,
  t: Tuple,
  entry: number,
  range: NatRange,
  manip: number,
): void {
  const { flags } = range;
  if (manip === SRC && (flags & RANDOM) === 0) {
    if (isSourceInRange(t, range)) {
      if (!isTakenAnew(entries, t, entry)) return;
    } else {
      original.copyFrom(t);
      if (bySource.follow(entries, t, entries.zone(entry), range) && !isTaken(entries, t, entry)) return;
      t.copyFrom(original);
    }
  }
  chooseAddress(entries, t, entry, range, manip);
  if ((flags & RANDOM) === 0) {
    if ((flags & SPECIFIED) === 0) {
      if (!isTaken(entries, t, entry)) return;
    } else if ((flags & OFFSET) === 0 && isPartInRange(t, manip, range)) {
      if (range.minPort === range.maxPort || !isTaken(entries, t, entry)) return;
    }
  }
  choosePart(entries, rng, t, entry, range, manip);
}

/** find_best_ips_proto: the same client gets the same address, by a hash without a seed. */
function chooseAddress(entries: Entries, t: Tuple, entry: number, range: NatRange, manip: number): void {
  if ((range.flags & MAP_IPS) === 0) return;
  let ip = range.minIp;
  if (range.minIp !== range.maxIp) {
    const mix = (range.flags & PERSISTENT) !== 0 ? 0 : swapBytes(t.dst) ^ entries.zoneId(entry);
    const hash = jhashAddress(swapBytes(t.src), mix);
    ip = (range.minIp + scale(hash, (range.maxIp - range.minIp + 1) >>> 0)) | 0;
  }
  if (manip === SRC) t.src = ip;
  else t.dst = ip;
}

/** reciprocal_scale: `hash` as a fraction of 2^32, of `size`; in halves, for the product does not fit a double. */
function scale(hash: number, size: number): number {
  const low = Math.floor(((hash & 0xffff) * size) / 0x10000);
  return Math.floor(((hash >>> 16) * size + low) / 0x10000);
}

/** nf_nat_l4proto_unique_tuple: another port (id, key) that is free. */
function choosePart(entries: Entries, rng: Rng, t: Tuple, entry: number, range: NatRange, manip: number): void {
  const { proto } = t;
  const isGiven = (range.flags & SPECIFIED) !== 0;
  // Without PPTP's helper a GRE key stands for the connection's two ends, and no protocol without ports can be told apart.
  if (!hasPart(proto) || (proto === GRE && entries.master(entry) === 0)) return;
  let min = range.minPort;
  let size = range.maxPort - min + 1;
  if (isGiven) {
    if (size < 1 && proto !== ICMP && proto !== GRE) {
      min = range.maxPort;
      size = range.minPort - min + 1;
    }
  } else if (proto === ICMP) {
    min = 0;
    size = 65536;
  } else if (proto === GRE) {
    min = 1;
    size = 65535;
  } else {
    // Another destination port would be another service.
    if (manip !== SRC) return;
    const port = partOf(t, SRC);
    // Below 512 rsh and its kin prove who they are by their port, below 1024 others do.
    min = port < 512 ? 1 : port < 1024 ? 600 : 1024;
    size = (port < 512 ? 511 : port < 1024 ? 1023 : 65535) - min + 1;
  }
  if (size < 1) return;
  let offset = firstOffset(rng, t, range, manip);
  let attempts = Math.min(size, MOST_ATTEMPTS);
  for (;;) {
    for (let i = 0; i < attempts; i++) {
      setPart(t, manip, min + (offset % size));
      if (!isTakenStill(entries, t, entry, attempts - i)) return;
      offset = (offset + 1) & 0xffff;
    }
    if (attempts >= size || attempts < LEAST_ATTEMPTS) return;
    attempts >>= 1;
    offset = rng.next() & 0xffff;
  }
}

/** Where the search begins: at the range's offset; else for a source at a random place, for a destination at the range's begin unless its rule says otherwise. */
function firstOffset(rng: Rng, t: Tuple, { flags, basePort }: NatRange, manip: number): number {
  if ((flags & OFFSET) !== 0) return (partOf(t, manip) - basePort) & 0xffff;
  return manip === SRC || (flags & RANDOM) !== 0 ? rng.next() & 0xffff : 0;
}

/** The tuple that the entry's answers show it to have. */
export function presentTuple(entries: Entries, entry: number, t: Tuple): void {
  entries.tuple(entry, REPLY, t);
  t.invert();
}
