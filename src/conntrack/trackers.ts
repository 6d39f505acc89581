/**
 * What is particular to each protocol: its tuple, what is no sound packet of it, what may begin a connection, states and timeouts
 * (nf_conntrack_proto_udp.c, _icmp.c, _generic.c, _gre.c; TCP and SCTP have files of their own).   @hot
 */
import { seconds } from '../base/clock.ts';
import { Status } from '../model/entry-status.ts';
import { Drop } from '../packet/drop.ts';
import type { Packet } from '../packet/packet.ts';
import { sum } from '../packet/sum.ts';
import { fold, pseudoSum } from '../wire/checksum.ts';
import * as icmp from '../wire/icmpv4.ts';
import * as ipv4 from '../wire/ipv4.ts';
import { UDP_CHECKSUM } from '../wire/udp.ts';
import { Change } from './changes.ts';
import type { Conntrack } from './conntrack.ts';
import { Col, ENTRY_SHIFT } from './entries.ts';
import { unsound } from './log-invalid.ts';
import { CtResult } from './result.ts';
import { beginSctp, isSctpSound, trackSctp } from './sctp.ts';
import { beginTcp, isTcpSound, trackTcp } from './tcp.ts';
import type { Tuple } from './tuple.ts';

const { Tcp: TCP, Udp: UDP, Icmp: ICMP, Sctp: SCTP, Gre: GRE } = ipv4.IpProto;
export const UDP_LITE = 136;
const UDPLITE = UDP_LITE;
const { Accept: ACCEPT, Invalid: INVALID } = CtResult;
const { SeenReply: SEEN_REPLY, Assured: ASSURED, Confirmed: CONFIRMED, NatClash: NAT_CLASH } = Status;
const { Status: STATUS, Word: WORD } = Col;
const NO_FAULT = Drop.None;
const BAD_ICMP_SUM = Drop.IcmpBadChecksum;
const BECAME_ASSURED = Change.Assured;
const PRE_ROUTING = 0;
const UDP_HEADER = 8;
const UDP_SUM = UDP_CHECKSUM;
const PPP = 0x880b;
const PPTP_HEADER = 8;
/** From when on a connection with answers is a stream. */
const STREAM_AFTER = seconds(2);
/** NR_ICMP_TYPES. */
const LAST_ICMP_TYPE = 18;
/** Types that begin something: echo, timestamp, information and address mask requests. */
const ICMP_REQUESTS = Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 1, 0, 1, 0);

/** The tuple of the packet; false: it has none. */
export function readTuple(p: Packet, t: Tuple): boolean {
  return tupleAt(p.view, p.l3, p.l4, p.end, p.proto, t);
}

/** The tuple of the packet with its headers at `l3` and `l4`, also of one that is quoted and cut short. */
export function tupleAt(view: DataView, l3: number, l4: number, end: number, proto: number, t: Tuple): boolean {
  t.src = ipv4.src(view, l3);
  t.dst = ipv4.dst(view, l3);
  t.proto = proto;
  t.ports = 0;
  const length = end - l4;
  switch (proto) {
    case TCP:
    case UDP:
    case UDPLITE:
    case SCTP:
      if (length < 4) return false;
      t.ports = view.getInt32(l4);
      return true;
    case ICMP:
      if (length < 8) return false;
      t.ports = (view.getUint16(l4 + 4) << 16) | view.getUint16(l4);
      return true;
    case GRE:
      return greKeys(view, l4, length, t);
    default:
      return true;
  }
}

/** Only PPTP's version has a key, the call's; without its helper the other direction's is not known. What is too short for one has none. */
function greKeys(view: DataView, l4: number, length: number, t: Tuple): boolean {
  if (length < PPTP_HEADER || (view.getUint16(l4) & 7) !== 1) return true;
  if (view.getUint16(l4 + 2) !== PPP) return false;
  t.ports = view.getUint16(l4 + 6);
  return true;
}

/** Is it a packet that could belong to a connection? `hook` tells whether checksums are looked at. */
export function isSound(ct: Conntrack, p: Packet, hook: number): boolean {
  switch (p.proto) {
    case TCP:
      return isTcpSound(ct, p, hook);
    case UDP:
      return isUdpSound(ct, p, hook);
    case UDPLITE:
      return isUdpLiteSound(ct, p, hook);
    case SCTP:
      return isSctpSound(ct, p, hook);
    case ICMP:
      return isIcmpSound(ct, p, hook);
    default:
      return true;
  }
}

function isIcmpSound(ct: Conntrack, p: Packet, hook: number): boolean {
  if (p.l4Fault !== NO_FAULT) {
    if (p.l4Fault !== BAD_ICMP_SUM) return unsound(ct, p, 'short packet');
    if (ct.sysctls.checksum !== 0 && hook === PRE_ROUTING) return unsound(ct, p, 'bad hw icmp checksum');
  }
  return icmp.type(p.view, p.l4) <= LAST_ICMP_TYPE || unsound(ct, p, 'invalid icmp type');
}

function isUdpSound(ct: Conntrack, p: Packet, hook: number): boolean {
  if (p.l4Fault !== NO_FAULT) {
    return unsound(ct, p, p.end - p.l4 < UDP_HEADER ? 'short packet' : 'truncated/malformed packet');
  }
  return isUdpSumRight(ct, p, hook) || unsound(ct, p, 'bad checksum');
}

/** A receiver sums as much as the length field says; the tracker sums the whole packet, link padding excepted (nf_ip_checksum). */
function isUdpSumRight(ct: Conntrack, p: Packet, hook: number): boolean {
  const { view, l3, l4 } = p;
  if (ct.sysctls.checksum === 0 || hook !== PRE_ROUTING || view.getUint16(l4 + UDP_SUM) === 0) return true;
  if (p.csumPartial !== 0 || p.csumValid !== 0 || p.gsoType !== 0) return true;
  const length = p.end - l4;
  const pseudo = fold(pseudoSum(ipv4.src(view, l3), ipv4.dst(view, l3), UDP, length));
  return fold(pseudo + sum(p, l4, length)) === 0xffff;
}

/** RFC 3828, but for the pseudo-header: the kernel sums it with UDP's protocol number, so a right checksum is a wrong one. */
function isUdpLiteSound(ct: Conntrack, p: Packet, hook: number): boolean {
  const { view, l3, l4 } = p;
  const length = p.end - l4;
  if (length < UDP_HEADER) return unsound(ct, p, 'short packet');
  const coverage = view.getUint16(l4 + 4) || length;
  if (coverage < UDP_HEADER || coverage > length) return unsound(ct, p, 'invalid checksum coverage');
  if (view.getUint16(l4 + 6) === 0) return unsound(ct, p, 'checksum missing');
  if (ct.sysctls.checksum === 0 || hook !== PRE_ROUTING) return true;
  const pseudo = pseudoSum(ipv4.src(view, l3), ipv4.dst(view, l3), UDP, length);
  return fold(pseudo + sum(p, l4, coverage)) === 0xffff || unsound(ct, p, 'bad checksum');
}

/** The first packet of an unconfirmed entry. False: no connection begins so. */
export function begin(ct: Conntrack, p: Packet, entry: number): boolean {
  const { rows } = ct.entries;
  switch (p.proto) {
    case TCP:
      return beginTcp(ct, p, entry);
    case SCTP:
      return beginSctp(ct, p, entry);
    case UDP:
      rows[(entry << ENTRY_SHIFT) + WORD] = (ct.now + STREAM_AFTER) | 0;
      return true;
    default:
      return true;
  }
}

/** A sound packet of an entry; CtResult. */
export function track(ct: Conntrack, p: Packet, entry: number, dir: number): number {
  const { sysctls } = ct;
  switch (p.proto) {
    case TCP:
      return trackTcp(ct, p, entry, dir);
    case UDP:
      return trackUdp(ct, p, entry, dir);
    case UDPLITE:
      return trackPair(ct, p, entry, dir, sysctls.udpTimeout, sysctls.udpStreamTimeout);
    case GRE:
      return trackPair(ct, p, entry, dir, sysctls.greTimeout, sysctls.greStreamTimeout);
    case SCTP:
      return trackSctp(ct, p, entry, dir);
    case ICMP:
      return trackIcmp(ct, p, entry, dir);
    default:
      ct.refresh(p, entry, dir, sysctls.genericTimeout);
      return ACCEPT;
  }
}

function trackUdp(ct: Conntrack, p: Packet, entry: number, dir: number): number {
  const { rows } = ct.entries;
  const at = entry << ENTRY_SHIFT;
  const status = rows[at + STATUS]!;
  const { udpTimeout, udpStreamTimeout } = ct.sysctls;
  const isStream = (status & SEEN_REPLY) !== 0 && ((ct.now - rows[at + WORD]!) | 0) > 0;
  // It stays one when time has gone half round.
  if (isStream) rows[at + WORD] = (ct.now - 1) | 0;
  ct.refresh(p, entry, dir, isStream ? udpStreamTimeout : udpTimeout);
  if (isStream && (status & (ASSURED | NAT_CLASH)) === 0) {
    rows[at + STATUS] = status | ASSURED;
    ct.changed(entry, BECAME_ASSURED);
  }
  return ACCEPT;
}

/** One timeout until there are answers, another one from then on. */
function trackPair(ct: Conntrack, p: Packet, entry: number, dir: number, lonely: number, both: number): number {
  const { rows } = ct.entries;
  const at = entry << ENTRY_SHIFT;
  const status = rows[at + STATUS]!;
  if ((status & SEEN_REPLY) === 0) {
    ct.refresh(p, entry, dir, lonely);
    return ACCEPT;
  }
  ct.refresh(p, entry, dir, both);
  if ((status & (ASSURED | NAT_CLASH)) === 0) {
    rows[at + STATUS] = status | ASSURED;
    ct.changed(entry, BECAME_ASSURED);
  }
  return ACCEPT;
}

function trackIcmp(ct: Conntrack, p: Packet, entry: number, dir: number): number {
  const { rows } = ct.entries;
  const at = entry << ENTRY_SHIFT;
  const isNew = (rows[at + STATUS]! & CONFIRMED) === 0;
  if (isNew && ICMP_REQUESTS[icmp.type(p.view, p.l4)] !== 1) return INVALID;
  ct.refresh(p, entry, dir, ct.sysctls.icmpTimeout);
  return ACCEPT;
}
