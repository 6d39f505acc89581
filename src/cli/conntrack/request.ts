/** What the arguments ask of the daemon: filters, new entries, changes. */
import type {
  Bits,
  CtTuple,
  EntryChange,
  EntryFilter,
  EntrySpec,
  ExpectationSpec,
  NatFilter,
  PartialTuple,
} from '../../model/conntrack.ts';
import type { Parsed, Side } from './parse.ts';
import { hasPorts } from './protocols.ts';
import { swap32 } from './values.ts';

const GRE = 47;
const TCP = 6;
const UDP = 17;
const ICMP = 1;
const ICMPV6 = 58;
/** An ICMP question and its answer. */
const ICMP_ANSWERS = new Map([
  [8, 0],
  [0, 8],
  [13, 14],
  [14, 13],
  [15, 16],
  [16, 15],
  [17, 18],
  [18, 17],
]);
const ALL_BITS = '255.255.255.255';

function partial(side: Side, icmp: Parsed['icmp'] | undefined, proto: number | undefined): PartialTuple {
  const { srcPort, dstPort } = side;
  const hasEnds = srcPort !== undefined || dstPort !== undefined;
  return {
    src: side.src,
    dst: side.dst,
    // The tool reads the keys of GRE, and compares nothing with them.
    ports: hasEnds && proto !== GRE ? { src: srcPort, dst: dstPort } : undefined,
    icmp,
  };
}

/** The filter of a list, an event stream, a deletion or an update; status and state only where the command filters by them. */
export function entryFilter(p: Parsed, by: 'list' | 'delete' | 'update'): EntryFilter {
  const { given, protocol } = p;
  const net = (end: 'src' | 'dst', option: 'mask-src' | 'mask-dst') => {
    const address = p.original[end];
    const mask = p.mask[end];
    return given.has(option) && address !== undefined && mask !== undefined ? { address, mask } : undefined;
  };
  const sourceNet = net('src', 'mask-src');
  const destinationNet = net('dst', 'mask-dst');
  const original = { ...p.original };
  if (sourceNet !== undefined) delete original.src;
  if (destinationNet !== undefined) delete original.dst;
  const hasIcmp = Object.keys(p.icmp).length > 0;
  const isUpdate = by === 'update';
  return {
    family: p.family === 0 ? undefined : p.family,
    proto: protocol,
    original: partial(original, hasIcmp ? p.icmp : undefined, protocol),
    reply: partial(p.reply, undefined, protocol),
    sourceNet,
    destinationNet,
    status: given.has('status') && !isUpdate ? statusFilter(p, by) : undefined,
    mark: given.has('mark') && !isUpdate ? { value: p.mark.value, mask: p.mark.mask } : undefined,
    state: isUpdate ? undefined : p.state,
    // The tool compares nothing, a time neither, where nothing else is asked for.
    timeoutSeconds: by === 'delete' && isComparing(p) ? p.timeout : undefined,
    id: p.id,
    zone: p.zone,
    originalZone: p.originalZone,
    replyZone: p.replyZone,
    labels: p.labels,
    sourceNat: given.has('src-nat') || given.has('any-nat') ? natFilter(p.sourceNat) : undefined,
    destinationNat: given.has('dst-nat') || given.has('any-nat') ? natFilter(p.destinationNat) : undefined,
    eitherNat: given.has('any-nat') ? true : undefined,
  };
}

/** Options that the tool compares entries with (CT_COMPARISON). */
const COMPARING = [
  'protonum',
  'src',
  'dst',
  'reply-src',
  'reply-dst',
  'mark',
  'secmark',
  'status',
  'id',
  'zone',
  'label',
  'orig-zone',
  'reply-zone',
] as const;

export function isComparing({ given }: Parsed): boolean {
  return COMPARING.some((option) => given.has(option));
}

/** A list looks at the bits that are named; a deletion only wants all that are set. */
function statusFilter(p: Parsed, by: 'list' | 'delete'): Bits {
  return by === 'delete' ? { value: p.status, mask: p.status } : { value: p.status, mask: p.statusMask };
}

function natFilter({ address, port }: { address?: string; port?: number }): NatFilter {
  return { address, port };
}

function tuple(side: Side, icmp: Parsed['icmp'], proto: number): CtTuple {
  const { src = '0.0.0.0', dst = '0.0.0.0', srcPort = 0, dstPort = 0 } = side;
  if (hasPorts(proto)) return { src, dst, proto, ports: { src: srcPort, dst: dstPort } };
  if (proto === GRE) return { src, dst, proto, gre: { srcKey: srcPort, dstKey: dstPort } };
  if (proto !== ICMP) return { src, dst, proto };
  const { type = 0, code = 0, id = 0 } = icmp;
  return { src, dst, proto, icmp: { type, code, id } };
}

/** The tuple of the other direction (NFCT_SOPT_SETUP_REPLY). */
function inverse({ src, dst, proto, ports, icmp, gre }: CtTuple): CtTuple {
  const turned = { src: dst, dst: src, proto };
  if (ports !== undefined) return { ...turned, ports: { src: ports.dst, dst: ports.src } };
  if (gre !== undefined) return { ...turned, gre: { srcKey: gre.dstKey, dstKey: gre.srcKey } };
  if (icmp === undefined) return turned;
  return { ...turned, icmp: { ...icmp, type: ICMP_ANSWERS.get(icmp.type) ?? icmp.type } };
}

function isGiven(side: Side): boolean {
  return side.src !== undefined || side.dst !== undefined;
}

function hasEnds({ srcPort, dstPort }: Side): boolean {
  return srcPort !== undefined || dstPort !== undefined;
}

/** Protocols with options say with the ports, or keys, of the other direction that it is theirs. */
function isOfProtocol({ handler, reply }: Parsed): boolean {
  return handler === undefined || hasEnds(reply);
}

export function originalTuple(p: Parsed): CtTuple {
  const proto = p.protocol ?? 0;
  if (isGiven(p.original)) return tuple(p.original, p.icmp, proto);
  return inverse(tuple(p.reply, p.icmp, isOfProtocol(p) ? proto : 0));
}

/** What the kernel refuses of a new entry, for the tool's message holds too little of one direction, or too many zones. */
export function isRefused(p: Parsed): boolean {
  const { handler, protocol, zone = 0, originalZone, replyZone } = p;
  if (zone !== 0 && (originalZone !== undefined || replyZone !== undefined)) return true;
  if ((originalZone ?? 0) !== 0 && replyZone !== undefined) return true;
  // The answer's type is found when the question's is read, and not without an address before it.
  if (handler?.name === 'icmp') return p.isIcmpTypeEarly || !isGiven(p.original) || p.isReplyLate;
  if (protocol === ICMPV6) return true;
  return isGiven(p.original) && isGiven(p.reply) && !isOfProtocol(p);
}

export function entrySpec(p: Parsed): EntrySpec {
  const original = originalTuple(p);
  const reply = isGiven(p.reply) ? replyTuple(p, original) : inverse(original);
  const nat = ({ address, port }: { address?: string; port?: number }) =>
    address === undefined
      ? undefined
      : { address, port: original.proto === TCP || original.proto === UDP ? (port ?? 0) : 0 };
  const { tags } = p;
  const hasTags = tags.original !== undefined && tags.reply !== undefined;
  return {
    original,
    reply,
    timeoutSeconds: p.timeout ?? 0,
    status: p.given.has('status') ? p.status : undefined,
    state: p.state,
    liberal: original.proto === TCP ? true : undefined,
    tags: hasTags ? { original: swap32(tags.original!), reply: swap32(tags.reply!) } : undefined,
    mark: p.given.has('mark') ? p.mark.value : undefined,
    zones: zonesOf(p),
    labels: p.labelChange,
    sourceNat: nat(p.sourceNat),
    destinationNat: nat(p.destinationNat),
  };
}

/** A reply of its own; ICMP has its question only once. */
function replyTuple(p: Parsed, original: CtTuple): CtTuple {
  const { icmp } = inverse(original);
  const reply = tuple(p.reply, p.icmp, original.proto);
  return icmp === undefined ? reply : { ...reply, icmp };
}

function zonesOf({ zone, originalZone, replyZone }: Parsed): { original: number; reply: number } | undefined {
  if (zone !== undefined && zone !== 0) return { original: zone, reply: zone };
  if (originalZone === undefined && replyZone === undefined) return undefined;
  return { original: originalZone ?? 0, reply: replyZone ?? 0 };
}

export function entryChange(p: Parsed): EntryChange {
  const { given } = p;
  return {
    timeoutSeconds: p.timeout,
    status: given.has('status') ? p.status : undefined,
    state: p.state,
    // The tool says it with each change that names the protocol, whatever it changes.
    liberal: p.handler?.name === 'tcp' ? true : undefined,
    mark: given.has('mark') ? { value: p.mark.value, mask: p.mark.mask } : undefined,
    labels: labelChange(p),
  };
}

const NO_LABELS = '0'.repeat(32);
const ALL_LABELS = 'f'.repeat(32);

function labelChange({ given, labelChange: bits, labelNames }: Parsed): EntryChange['labels'] {
  // Without a file of names the tool takes nothing away.
  if (labelNames === undefined) return undefined;
  if (given.has('label-add')) return { value: bits ?? NO_LABELS, mask: bits ?? NO_LABELS };
  if (given.has('label-del')) return { value: NO_LABELS, mask: bits ?? ALL_LABELS };
  return undefined;
}

/** The tuple that is expected has, where ports were given, a protocol that is none: the tool writes a port's low octet, as the wire has it, there. */
export function expectationSpec(p: Parsed): ExpectationSpec {
  const proto = p.protocol ?? 0;
  const { dstPort } = p.expected;
  const expectedProto = dstPort === undefined ? proto : dstPort >>> 8;
  const { src: maskSrc = ALL_BITS, dst: maskDst = ALL_BITS } = p.mask;
  return {
    tuple: tuple(p.expected, p.icmp, expectedProto),
    mask: tuple({ ...p.mask, src: maskSrc, dst: maskDst }, p.icmp, proto),
    master: tuple(p.original, p.icmp, proto),
    timeoutSeconds: p.timeout ?? 0,
  };
}
