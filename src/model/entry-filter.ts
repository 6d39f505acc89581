/**
 * Whether an entry is one that a filter means: what conntrack(8) compares (nfct_filter in its source, nfct_cmp of libnetfilter_conntrack with
 * NFCT_CMP_ALL and NFCT_CMP_MASK).
 */
import { parseIp4 } from '../wire/addr.ts';
import type { CtTuple, EntryEvent, EntryFilter, EntryRow, NatFilter, PartialTuple } from './conntrack.ts';
import { Status } from './entry-status.ts';

export function isMeant(row: EntryRow, filter: EntryFilter): boolean {
  const { original, reply, status, mark } = row;
  if (filter.family === 6) return false;
  if (filter.proto !== undefined && original.proto !== filter.proto) return false;
  if (filter.original !== undefined && !tupleFits(original, filter.original)) return false;
  if (filter.reply !== undefined && !tupleFits(reply, filter.reply)) return false;
  if (filter.sourceNet !== undefined && !isWithin(original.src, filter.sourceNet)) return false;
  if (filter.destinationNet !== undefined && !isWithin(original.dst, filter.destinationNet)) return false;
  if (filter.status !== undefined && (status & filter.status.mask) !== filter.status.value) return false;
  if (filter.mark !== undefined && (mark & filter.mark.mask) >>> 0 !== filter.mark.value) return false;
  if (filter.state !== undefined && row.state !== filter.state) return false;
  if (filter.timeoutSeconds !== undefined && row.timeoutSeconds !== filter.timeoutSeconds) return false;
  if (filter.id !== undefined && row.id !== filter.id) return false;
  if (!zonesFit(row, filter)) return false;
  if (filter.labels !== undefined && !hasLabels(row.labels, filter.labels)) return false;
  return natFits(row, filter);
}

/** An event holds some of an entry only; what is compared with something that it does not hold is not meant. */
export function isEventMeant({ kind, entry, changed }: EntryEvent, filter: EntryFilter): boolean {
  const isEnd = kind === 'destroy';
  if (filter.mark !== undefined && entry.mark === 0 && (isEnd || !changed.includes('mark'))) return false;
  if (filter.state !== undefined && !isEnd && !changed.includes('protoinfo')) return false;
  if (filter.labels !== undefined && (isEnd || !changed.includes('label'))) return false;
  return isMeant(entry, filter);
}

function tupleFits(tuple: CtTuple, part: PartialTuple): boolean {
  const { ports, icmp } = part;
  if (part.src !== undefined && tuple.src !== part.src) return false;
  if (part.dst !== undefined && tuple.dst !== part.dst) return false;
  if (ports?.src !== undefined && tuple.ports?.src !== ports.src) return false;
  if (ports?.dst !== undefined && tuple.ports?.dst !== ports.dst) return false;
  if (icmp?.type !== undefined && tuple.icmp?.type !== icmp.type) return false;
  if (icmp?.code !== undefined && tuple.icmp?.code !== icmp.code) return false;
  return icmp?.id === undefined || tuple.icmp?.id === icmp.id;
}

function isWithin(address: string, net: { readonly address: string; readonly mask: string }): boolean {
  const mask = parseIp4(net.mask) ?? 0;
  return (((parseIp4(address) ?? 0) ^ (parseIp4(net.address) ?? 0)) & mask) === 0;
}

/** CTA_ZONE stands where both directions have one zone, CTA_TUPLE_ZONE in each where they differ: ctnetlink_dump_zone_id. */
function zonesFit({ zones }: EntryRow, filter: EntryFilter): boolean {
  const isOne = zones.original === zones.reply;
  if (filter.zone !== undefined && filter.zone !== (isOne ? zones.original : 0)) return false;
  if (filter.originalZone !== undefined && filter.originalZone !== (isOne ? 0 : zones.original)) return false;
  return filter.replyZone === undefined || filter.replyZone === (isOne ? 0 : zones.reply);
}

function hasLabels(labels: string | undefined, wanted: string): boolean {
  if (labels === undefined) return false;
  const bits = BigInt(`0x${wanted}`);
  return (BigInt(`0x${labels}`) & bits) === bits;
}

function natFits(row: EntryRow, filter: EntryFilter): boolean {
  const { sourceNat, destinationNat } = filter;
  const source = sourceNat !== undefined && isTranslated(row, 'source', sourceNat);
  const destination = destinationNat !== undefined && isTranslated(row, 'destination', destinationNat);
  if (filter.eitherNat === true) return source || destination;
  return (sourceNat === undefined || source) && (destinationNat === undefined || destination);
}

/** Translated as libnetfilter_conntrack sees it (nfct_getobjopt): NAT has seen it, and the reply goes elsewhere than where the original came from. */
function isTranslated({ original, reply, status }: EntryRow, side: 'source' | 'destination', nat: NatFilter): boolean {
  const [done, was, is, wasPort, isPort] =
    side === 'source'
      ? [Status.SrcNatDone, original.src, reply.dst, sourceWord(original), destinationWord(reply)]
      : [Status.DstNatDone, original.dst, reply.src, destinationWord(original), sourceWord(reply)];
  if ((status & done) === 0) return false;
  const address = was !== is;
  const port = wasPort !== isPort;
  if (nat.address === undefined && nat.port === undefined) return address || port;
  if (nat.address !== undefined && !(address && is === nat.address)) return false;
  return nat.port === undefined || (port && isPort === nat.port);
}

/** What the library compares as ports: the union of nf_conntrack_tuple holds ICMP's identifier in the one place, type and code in the other. */
function sourceWord({ ports, icmp }: CtTuple): number | undefined {
  return icmp === undefined ? ports?.src : icmp.id;
}

function destinationWord({ ports, icmp }: CtTuple): number | undefined {
  return icmp === undefined ? ports?.dst : (icmp.type << 8) | icmp.code;
}
