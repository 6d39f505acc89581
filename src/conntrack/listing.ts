/** Entries and expectations as the control API shows them: ctnetlink_fill_info (net/netfilter/nf_conntrack_netlink.c). Cold. */
import { TICKS_PER_SECOND } from '../base/clock.ts';
import type { CtTuple, EntryRow, ExpectationRow } from '../model/conntrack.ts';
import { SCTP_CT_NAMES, TCP_CT_NAMES } from '../model/entry-states.ts';
import { formatIp4 } from '../wire/addr.ts';
import { IpProto } from '../wire/ipv4.ts';
import { Col, ENTRY_SHIFT, type EntryTable, Trait } from './entries.ts';
import { CtDir } from './entry.ts';
import type { Expectation } from './expectations.ts';
import { HELPER_NAMES } from './helper-names.ts';
import { Tuple } from './tuple.ts';

const GRE = 47;
const UDP_LITE = 136;
/** SCTP: verification tags of the two directions (sctp.ts). */
export const TAG = Col.End;

const scratch = new Tuple();

export function tupleRow(t: Tuple): CtTuple {
  const { proto, ports } = t;
  const src = formatIp4(t.src);
  const dst = formatIp4(t.dst);
  const high = ports >>> 16;
  const low = ports & 0xffff;
  switch (proto) {
    case IpProto.Tcp:
    case IpProto.Udp:
    case IpProto.Sctp:
    case UDP_LITE:
      return { src, dst, proto, ports: { src: high, dst: low } };
    case IpProto.Icmp:
      return { src, dst, proto, icmp: { type: low >>> 8, code: low & 0xff, id: high } };
    case GRE:
      return { src, dst, proto, gre: { srcKey: high, dstKey: low } };
    default:
      return { src, dst, proto };
  }
}

/** @param now ticks */
export function entryRow(entries: EntryTable, entry: number, now: number): EntryRow {
  const { rows, traits, counters, stamps } = entries;
  const at = entry << ENTRY_SHIFT;
  const master = entries.master(entry);
  const helper = entries.helper[entry]!;
  const c = entry * 4;
  const s = entry * 2;
  return {
    id: rows[at + Col.Id]! >>> 0,
    original: tupleOf(entries, entry, CtDir.Original),
    reply: tupleOf(entries, entry, CtDir.Reply),
    status: entries.status(entry),
    timeoutSeconds: Math.floor(entries.left(entry, now) / TICKS_PER_SECOND),
    state: stateName(entries.proto(entry), rows[at + Col.Word]!),
    tags:
      entries.proto(entry) === IpProto.Sctp
        ? { original: rows[at + TAG]! >>> 0, reply: rows[at + TAG + 1]! >>> 0 }
        : undefined,
    counters:
      traits[entry]! & Trait.Counts
        ? {
            original: { packets: counters[c]!, bytes: counters[c + 1]! },
            reply: { packets: counters[c + 2]!, bytes: counters[c + 3]! },
          }
        : undefined,
    mark: entries.mark(entry) >>> 0,
    zones: { original: entries.zoneOf(entry, CtDir.Original), reply: entries.zoneOf(entry, CtDir.Reply) },
    labels: labelsOf(entries, entry),
    helper: helper === 0 ? undefined : HELPER_NAMES[helper],
    master: master === 0 ? undefined : tupleOf(entries, master, CtDir.Original),
    started: traits[entry]! & Trait.Stamps ? nanoseconds(stamps[s]!) : undefined,
    stopped: traits[entry]! & Trait.Stamps && stamps[s + 1]! !== 0 ? nanoseconds(stamps[s + 1]!) : undefined,
    use: entries.use[entry]! + 1,
  };
}

function tupleOf(entries: EntryTable, entry: number, dir: number): CtTuple {
  entries.tuple(entry, dir, scratch);
  return tupleRow(scratch);
}

function stateName(proto: number, word: number): string | undefined {
  if (proto === IpProto.Tcp) return TCP_CT_NAMES[word & 0xff];
  return proto === IpProto.Sctp ? SCTP_CT_NAMES[word & 0xff] : undefined;
}

function labelsOf({ labels, traits }: EntryTable, entry: number): string | undefined {
  if ((traits[entry]! & Trait.Labels) === 0) return undefined;
  const at = entry * 4;
  if ((labels[at]! | labels[at + 1]! | labels[at + 2]! | labels[at + 3]!) === 0) return undefined;
  return [3, 2, 1, 0].map((i) => (labels[at + i]! >>> 0).toString(16).padStart(8, '0')).join('');
}

/** @param ms since 1970 */
export function nanoseconds(ms: number): string {
  return String(BigInt(Math.round(ms * 1000)) * 1000n);
}

const ALL_ONES = -1;
const PORT_MASK = 0xffff;

export function expectationRow(entries: EntryTable, e: Expectation, now: number): ExpectationRow {
  return {
    id: e.id,
    timeoutSeconds: Math.max(0, Math.floor(((e.expires - now) | 0) / TICKS_PER_SECOND)),
    tuple: endsRow(e.proto, e.src, e.srcPort, e.dst, e.dstPort),
    mask: endsRow(e.proto, e.srcMask, e.srcPortMask, ALL_ONES, PORT_MASK),
    master: tupleOf(entries, e.master, CtDir.Original),
    flags: e.flags,
    class: e.class,
    helper: e.helper,
    zone: e.zone,
    nat: e.nat === null ? undefined : { dir: e.nat.dir, tuple: endsRow(e.proto, 0, e.nat.port, 0, 0) },
  };
}

function endsRow(proto: number, src: number, srcPort: number, dst: number, dstPort: number): CtTuple {
  scratch.src = src;
  scratch.dst = dst;
  scratch.ports = (srcPort << 16) | dstPort;
  scratch.proto = proto;
  return tupleRow(scratch);
}
