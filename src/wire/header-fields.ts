/** The header fields of a packet by name, so that two versions of it can be compared: what a rewrite changed. Not per packet. */
import { formatIp4, formatMac } from './addr.ts';
import { ChunkType } from './sctp.ts';

export interface Field {
  readonly name: string;
  readonly value: string;
}

const IPIP = 4;
const TCP = 6;
const UDP = 17;
const ICMP = 1;
const GRE = 47;
const SCTP = 132;
const IPV4 = 0x0800;

const hex = (n: number, digits: number): string => `0x${n.toString(16).padStart(digits, '0')}`;

interface Header {
  readonly name: string;
  readonly fields: readonly Field[];
}

/** Headers from the outside in; ends where the bytes end. A quoted or tunnelled packet gives a second IP header. */
function headers(bytes: Uint8Array, isIp: boolean): Header[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const found: Header[] = [];
  let at = 0;
  if (!isIp) {
    if (bytes.length < 14) return found;
    found.push({
      name: 'MAC',
      fields: [
        { name: 'src', value: formatMac(view.getUint16(6), view.getInt32(8)) },
        { name: 'dst', value: formatMac(view.getUint16(0), view.getInt32(2)) },
      ],
    });
    if (view.getUint16(12) !== IPV4) return found;
    at = 14;
  }
  ipv4(view, at, found);
  return found;
}

function ipv4(view: DataView, at: number, found: Header[]): void {
  if (view.byteLength < at + 20) return;
  const word = view.getUint16(at + 6);
  const proto = view.getUint8(at + 9);
  found.push({
    name: 'IP',
    fields: [
      { name: 'src', value: formatIp4(view.getInt32(at + 12)) },
      { name: 'dst', value: formatIp4(view.getInt32(at + 16)) },
      { name: 'proto', value: protocolName(proto) },
      { name: 'TTL', value: String(view.getUint8(at + 8)) },
      { name: 'TOS', value: hex(view.getUint8(at + 1), 2) },
      { name: 'id', value: String(view.getUint16(at + 4)) },
      { name: 'fragment', value: fragmentText(word) },
      { name: 'length', value: String(view.getUint16(at + 2)) },
      { name: 'checksum', value: hex(view.getUint16(at + 10), 4) },
    ],
  });
  if ((word & 0x1fff) !== 0) return;
  transport(view, at + ((view.getUint8(at) & 15) << 2), proto, found);
}

function fragmentText(word: number): string {
  const parts = [
    word & 0x4000 ? 'DF' : '',
    word & 0x2000 ? 'MF' : '',
    word & 0x1fff ? `offset ${(word & 0x1fff) << 3}` : '',
  ];
  return parts.filter((part) => part !== '').join(' ') || '-';
}

function protocolName(proto: number): string {
  const names: Readonly<Record<number, string>> = { 1: 'ICMP', 4: 'IPIP', 6: 'TCP', 17: 'UDP', 47: 'GRE', 132: 'SCTP' };
  return names[proto] ?? String(proto);
}

function transport(view: DataView, at: number, proto: number, found: Header[]): void {
  const room = view.byteLength - at;
  if (proto === IPIP) return ipv4(view, at, found);
  if (proto === GRE) return gre(view, at, found);
  if ((proto === TCP || proto === UDP || proto === SCTP) && room >= (proto === UDP ? 8 : proto === TCP ? 20 : 12)) {
    const fields = [
      { name: 'src port', value: String(view.getUint16(at)) },
      { name: 'dst port', value: String(view.getUint16(at + 2)) },
    ];
    if (proto === TCP) {
      fields.push({ name: 'seq', value: String(view.getUint32(at + 4)) });
      fields.push({ name: 'ack', value: String(view.getUint32(at + 8)) });
      fields.push({ name: 'checksum', value: hex(view.getUint16(at + 16), 4) });
    } else if (proto === UDP) {
      fields.push({ name: 'checksum', value: hex(view.getUint16(at + 6), 4) });
    } else {
      fields.push({ name: 'checksum', value: hex(view.getUint32(at + 8), 8) });
    }
    found.push({ name: protocolName(proto), fields });
    if (proto === UDP) gue(view, at, found);
  } else if (proto === ICMP && room >= 8) {
    const type = view.getUint8(at);
    found.push({
      name: 'ICMP',
      fields: [
        { name: 'type', value: `${type}/${view.getUint8(at + 1)}` },
        { name: 'checksum', value: hex(view.getUint16(at + 2), 4) },
      ],
    });
    if (type === 3 || type === 4 || type === 5 || type === 11 || type === 12) ipv4(view, at + 8, found);
  }
}

/** RFC 2784 §2: flags, protocol; with the checksum flag four bytes more. */
function gre(view: DataView, at: number, found: Header[]): void {
  if (view.byteLength < at + 4) return;
  const flags = view.getUint16(at);
  found.push({ name: 'GRE', fields: [{ name: 'flags', value: hex(flags, 4) }] });
  if (view.getUint16(at + 2) === IPV4) ipv4(view, at + (flags & 0x8000 ? 8 : 4), found);
}

/** Generic UDP encapsulation, draft-ietf-intarea-gue: version 0, a data message whose protocol is IPIP. */
function gue(view: DataView, udp: number, found: Header[]): void {
  const at = udp + 8;
  if (view.byteLength < at + 24) return;
  const first = view.getUint8(at);
  if (first >> 5 !== 0 || view.getUint8(at + 1) !== IPIP) return;
  const inner = at + 4 + ((first & 31) << 2);
  if (view.byteLength < inner + 20 || view.getUint8(inner) >> 4 !== 4) return;
  ipv4(view, inner, found);
}

/**
 * The fields in which `after` differs from `before`, in the order of the headers. When one has been put into the other (a tunnel), its own headers are compared
 * with the inner ones, and the new ones are called outer.
 */
export function headerChanges(
  before: Uint8Array,
  after: Uint8Array,
  isIp: { readonly before: boolean; readonly after: boolean },
): { field: string; from: string | null; to: string | null }[] {
  const [old, now] = [named(headers(before, isIp.before)), named(headers(after, isIp.after))];
  const isEncapsulated = countIp(now) > countIp(old) && !now.some((h) => h.name === 'ICMP');
  const from = new Map(old.flatMap((h) => h.fields.map((f) => [`${h.name} ${f.name}`, f.value])));
  const to = isEncapsulated ? outerNamed(now, countIp(now) - countIp(old)) : now;
  const rows: { field: string; from: string | null; to: string | null }[] = [];
  const seen = new Set<string>();
  for (const h of to) {
    for (const f of h.fields) {
      const field = `${h.name} ${f.name}`;
      seen.add(field);
      const was = from.get(field) ?? null;
      if (was !== f.value) rows.push({ field, from: was, to: f.value });
    }
  }
  for (const [field, value] of from) if (!seen.has(field)) rows.push({ field, from: value, to: null });
  return rows;
}

function countIp(list: readonly Header[]): number {
  return list.filter((h) => h.name === 'IP' || h.name === 'inner IP').length;
}

/** What stands behind the first IP header's transport is quoted. */
function named(list: readonly Header[]): Header[] {
  let ips = 0;
  return list.map((h) => {
    if (h.name === 'IP') ips++;
    return ips > 1 ? { ...h, name: `inner ${h.name}` } : h;
  });
}

/** The first `depth` IP headers with all that follows up to the next are the outer ones. */
function outerNamed(list: readonly Header[], depth: number): Header[] {
  let ips = 0;
  return list.map((h) => {
    if (h.name === 'IP' || h.name === 'inner IP') ips++;
    if (h.name === 'MAC') return h;
    const plain = h.name.replace('inner ', '');
    return { ...h, name: ips <= depth ? `outer ${plain}` : plain };
  });
}

const FLAG_LETTERS = 'FSRP.UEW';
/** By type: INIT, INIT ACK, … */
export const CHUNK_NAMES: readonly string[] = Object.keys(ChunkType).map((name) =>
  name.replace(/(?<=[a-z])[A-Z]/, ' $&').toUpperCase(),
);

/**
 * A packet in one line: `tcp 10.0.1.2:1234 > 10.0.1.100:80 [S], 40 bytes, TTL 64, DF`
 * @param isIp the bytes begin with the IP header  @param length of the whole, of which `bytes` may be the beginning only
 */
export function packetLine(bytes: Uint8Array, isIp: boolean, length: number): string {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (isIp) return ipLine(view, 0);
  if (bytes.length < 14) return `short frame of ${length} bytes`;
  const type = view.getUint16(12);
  if (type === IPV4) return ipLine(view, 14);
  if (type !== 0x0806 || bytes.length < 42) return `ethertype ${hex(type, 4)}, ${length} bytes`;
  const [sender, target] = [formatIp4(view.getInt32(28)), formatIp4(view.getInt32(38))];
  if (view.getUint16(20) === 1) return `arp who-has ${target} tell ${sender}`;
  return `arp ${sender} is-at ${formatMac(view.getUint16(22), view.getInt32(24))}`;
}

function ipLine(view: DataView, at: number): string {
  if (view.byteLength < at + 20) return `short packet of ${view.byteLength - at} bytes`;
  const word = view.getUint16(at + 6);
  const parts = [whatLine(view, at), `${view.getUint16(at + 2)} bytes`, `TTL ${view.getUint8(at + 8)}`];
  if (word !== 0) parts.push(fragmentText(word));
  return parts.join(', ');
}

/** `tcp 10.0.1.2:1234 > 10.0.1.100:80 [S]` */
function whatLine(view: DataView, at: number): string {
  const proto = view.getUint8(at + 9);
  const [src, dst] = [formatIp4(view.getInt32(at + 12)), formatIp4(view.getInt32(at + 16))];
  const name = protocolName(proto).toLowerCase();
  const label = /^\d/.test(name) ? `proto ${name}` : name;
  const plain = `${label} ${src} > ${dst}`;
  const l4 = at + ((view.getUint8(at) & 15) << 2);
  if ((view.getUint16(at + 6) & 0x1fff) !== 0 || view.byteLength < l4 + 8) return plain;
  if (proto === IPIP && view.byteLength >= l4 + 20) return `${plain} (${whatLine(view, l4)})`;
  if (proto === TCP || proto === UDP || proto === SCTP) {
    const ports = `${label} ${src}:${view.getUint16(l4)} > ${dst}:${view.getUint16(l4 + 2)}`;
    if (proto === SCTP) return `${ports}${chunkNames(view, l4)}`;
    if (proto !== TCP || view.byteLength < l4 + 14) return ports;
    const flags = view.getUint8(l4 + 13);
    return `${ports} [${[...FLAG_LETTERS].filter((_, bit) => flags & (1 << bit)).join('')}]`;
  }
  return proto === ICMP ? `${plain} ${icmpLine(view, l4)}` : plain;
}

/** ` [INIT]`, the chunks as far as they can be seen; tcpdump's words. */
function chunkNames(view: DataView, l4: number): string {
  let text = '';
  for (let at = l4 + 12; at + 4 <= view.byteLength; ) {
    text += ` [${CHUNK_NAMES[view.getUint8(at)] ?? `chunk ${view.getUint8(at)}`}]`;
    const length = view.getUint16(at + 2);
    if (length < 4) break;
    at += (length + 3) & ~3;
  }
  return text;
}

function icmpLine(view: DataView, l4: number): string {
  const type = view.getUint8(l4);
  if (type === 8) return 'echo request';
  if (type === 0) return 'echo reply';
  const code = view.getUint8(l4 + 1);
  const name = icmpName(type, code, view.getUint16(l4 + 6));
  const isError = type === 3 || type === 4 || type === 5 || type === 11 || type === 12;
  return isError && view.byteLength >= l4 + 28 ? `${name}, about ${whatLine(view, l4 + 8)}` : name;
}

function icmpName(type: number, code: number, mtu: number): string {
  const unreachable: Readonly<Record<number, string>> = {
    0: 'net unreachable',
    1: 'host unreachable',
    2: 'protocol unreachable',
    3: 'port unreachable',
    4: `fragmentation needed, MTU ${mtu}`,
    13: 'administratively prohibited',
  };
  if (type === 3 && unreachable[code] !== undefined) return unreachable[code];
  if (type === 11) return code === 0 ? 'time exceeded' : 'reassembly time exceeded';
  return `type ${type} code ${code}`;
}
