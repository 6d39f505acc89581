// Over 400 lines: one table of message layouts, the writer of each beside its reader.
// The bodies of rtnetlink messages: what `ip` would write, as values, and the bytes for them (rtnetlink(7)).
//
// Encoding and decoding only: no socket, no names of devices (indexes). The decoders read the attributes that they know
// and skip all others, so a newer kernel's longer messages are no error. (The generated decoders of the `netlink` package
// are not used: they throw on a struct that has grown.)
import { AttrStream, parseAttributes, putU8, putU16, putU32, readS32, readU32 } from 'netlink';
import { formatIp4, parseIp4, parseMac, parsePrefix } from '../wire/addr.ts';

export const AF_UNSPEC = 0;
export const AF_INET = 2;

/** Types of the messages that we send; the reply to GET and the dump have the type of NEW. linux/rtnetlink.h */
export const RtmType = {
  NewLink: 16,
  DelLink: 17,
  GetLink: 18,
  NewAddress: 20,
  DelAddress: 21,
  GetAddress: 22,
  NewRoute: 24,
  DelRoute: 25,
  GetRoute: 26,
  NewNeighbour: 28,
  DelNeighbour: 29,
  NewRule: 32,
  DelRule: 33,
  GetRule: 34,
} as const;

/** `ip route`'s TYPE; the number is rtm_type. */
export const ROUTE_TYPES = {
  unicast: 1,
  local: 2,
  broadcast: 3,
  blackhole: 6,
  unreachable: 7,
  prohibit: 8,
  throw: 9,
} as const;
export type RouteType = keyof typeof ROUTE_TYPES;

/** `ip route`'s SCOPE; the number is rtm_scope. */
export const SCOPES = { global: 0, site: 200, link: 253, host: 254, nowhere: 255 } as const;
export type Scope = keyof typeof SCOPES;

/** The tables that have names; any other number up to 2³²−1 is a table too. */
export const Table = { Main: 254, Local: 255 } as const;

/** Who installed a route (rtm_protocol): ours are `static`, the ones that come with an address `kernel`. */
export const RouteProtocol = { Kernel: 2, Boot: 3, Static: 4 } as const;

const IFF_UP = 0x1;
const IFF_NOARP = 0x80;

/** net.ipv4.conf.DEVICE.* by the number that IFLA_INET_CONF uses (linux/ip.h, IPV4_DEVCONF_*). */
export const DEVCONF = {
  forwarding: 1,
  proxy_arp: 3,
  accept_redirects: 4,
  secure_redirects: 5,
  send_redirects: 6,
  shared_media: 7,
  rp_filter: 8,
  accept_source_route: 9,
  log_martians: 11,
  arp_filter: 13,
  arp_announce: 18,
  arp_ignore: 19,
  arp_accept: 21,
  arp_notify: 22,
  accept_local: 23,
  src_valid_mark: 24,
  route_localnet: 26,
} as const;
export type DevConf = { -readonly [K in keyof typeof DEVCONF]?: number };

/** A link as the kernel tells it. `master` and `peerIndex` are indexes, the latter perhaps in another namespace. */
export interface LinkRecord {
  readonly index: number;
  readonly name: string;
  /** 'veth', 'bridge', 'tun' (also for TAPs), …; null for devices without rtnl_link_ops (lo, most NICs). */
  readonly kind: string | null;
  /** Null on devices without a link-layer address (TUN). */
  readonly mac: string | null;
  readonly mtu: number;
  readonly isUp: boolean;
  readonly hasCarrier: boolean;
  readonly usesArp: boolean;
  readonly master: number | null;
  readonly peerIndex: number | null;
  /** The IPv4 switches of this device; empty when IPv4 is off there (an MTU below 68). */
  readonly devconf: DevConf;
}

/** What of a link to change; what is absent stays. */
export interface LinkSpec {
  readonly index?: number;
  readonly name?: string;
  readonly kind?: string;
  readonly kindData?: Uint8Array;
  readonly up?: boolean;
  readonly arp?: boolean;
  readonly mac?: string;
  readonly mtu?: number;
  /** Index of the bridge, or null to leave it. */
  readonly master?: number | null;
  /** An open file descriptor of the namespace to move to (or to be born in). */
  readonly netnsFd?: number;
  readonly devconf?: DevConf;
}

export interface AddressSpec {
  readonly index: number;
  /** `10.0.0.1/24` */
  readonly cidr: string;
  /** The other end of a point-to-point link: the prefix length is then the peer's. */
  readonly peer?: string;
  readonly scope?: Scope;
  /** Do not add the route to the address's prefix. */
  readonly noPrefixRoute?: boolean;
}

export interface AddressRecord {
  readonly index: number;
  readonly cidr: string;
  readonly peer: string | null;
  readonly scope: number;
}

export interface RouteSpec {
  /** `default` or a prefix; an address alone is a /32. */
  readonly to: string;
  readonly via?: string;
  readonly index?: number;
  readonly table?: number;
  readonly metric?: number;
  readonly scope?: Scope;
  readonly type?: RouteType;
  readonly src?: string;
  readonly protocol?: number;
  /** Believe that `via` is on the link although no route says so. */
  readonly onlink?: boolean;
}

export interface RouteRecord {
  readonly to: string;
  readonly via: string | null;
  readonly index: number | null;
  readonly table: number;
  readonly metric: number;
  readonly scope: number;
  readonly type: number;
  readonly src: string | null;
  readonly protocol: number;
}

/** A rule of the routing policy database (ip-rule(8)); absent fields match everything. */
export interface RuleSpec {
  readonly priority: number;
  readonly table: number;
  readonly iif?: string;
  readonly oif?: string;
  readonly from?: string;
  readonly to?: string;
  readonly fwmark?: number;
  readonly fwmask?: number;
}

export interface RuleRecord {
  readonly priority: number;
  readonly table: number;
  readonly iif: string | null;
  readonly oif: string | null;
  readonly from: string | null;
  readonly to: string | null;
  readonly fwmark: number | null;
}

export interface NeighbourSpec {
  readonly index: number;
  readonly address: string;
  readonly mac: string;
}

// ---------------------------------------------------------------------------------------------------------------------

/** @throws RangeError when the text is not a dotted quad. */
export function ipBytes(text: string): Uint8Array {
  const ip = parseIp4(text);
  if (ip === undefined) throw new RangeError(`'${text}' is not an IPv4 address`);
  return Uint8Array.of(ip >>> 24, ip >>> 16, ip >>> 8, ip);
}

/** An address and its prefix length; an address alone is a /32, `default` is 0.0.0.0/0. @throws RangeError */
export function splitCidr(text: string): { address: string; length: number } {
  const prefix = parsePrefix(text === 'default' ? '0.0.0.0/0' : text);
  if (prefix === undefined) throw new RangeError(`'${text}' is not an IPv4 prefix`);
  return { address: formatIp4(prefix.ip), length: prefix.length };
}

/** @throws RangeError when the text is not six pairs of hexadecimal digits. */
export function macBytes(text: string): Uint8Array {
  const mac = parseMac(text);
  if (mac === undefined) throw new RangeError(`'${text}' is not a MAC address`);
  const { hi, lo } = mac;
  return Uint8Array.of(hi >>> 8, hi, lo >>> 24, lo >>> 16, lo >>> 8, lo);
}

const formatIp = (bytes: Uint8Array): string => bytes.join('.');
const formatMac = (bytes: Uint8Array): string =>
  Buffer.from(bytes)
    .toString('hex')
    .replace(/..(?=.)/g, '$&:');
const cString = (text: string): Uint8Array => Buffer.from(`${text}\0`);
const readString = (bytes: Uint8Array): string => Buffer.from(bytes).toString('utf8').replace(/\0+$/, '');

function attributes(bytes: Buffer): Map<number, Buffer> {
  const found = new Map<number, Buffer>();
  parseAttributes(bytes, (item) => found.set(item.type, item.data));
  return found;
}

const u32At = (bytes: Buffer | undefined): number | null => (bytes === undefined ? null : readU32.call(bytes, 0));

function nested(fill: (out: AttrStream) => void): Uint8Array {
  const out = new AttrStream();
  fill(out);
  return Buffer.concat(out.bufs);
}

// --- Links: struct ifinfomsg and IFLA_* ------------------------------------------------------------------------------

const IFLA = {
  address: 1,
  ifname: 3,
  mtu: 4,
  link: 5,
  master: 10,
  linkinfo: 18,
  afSpec: 26,
  netnsFd: 28,
  carrier: 33,
} as const;
const INFO_KIND = 1;
const INFO_DATA = 2;
const INET_CONF = 1;

export function linkBody(spec: LinkSpec): Uint8Array {
  let flags = 0;
  let change = 0;
  if (spec.up !== undefined) {
    change |= IFF_UP;
    if (spec.up) flags |= IFF_UP;
  }
  if (spec.arp !== undefined) {
    change |= IFF_NOARP;
    if (!spec.arp) flags |= IFF_NOARP;
  }
  return nested((out) => {
    out.emit([putU8(AF_UNSPEC), putU8(0), putU16(0), putU32(spec.index ?? 0), putU32(flags), putU32(change)]);
    if (spec.name !== undefined) out.push(IFLA.ifname, cString(spec.name));
    if (spec.mac !== undefined) out.push(IFLA.address, macBytes(spec.mac));
    if (spec.mtu !== undefined) out.push(IFLA.mtu, putU32(spec.mtu));
    if (spec.master !== undefined) out.push(IFLA.master, putU32(spec.master ?? 0));
    if (spec.netnsFd !== undefined) out.push(IFLA.netnsFd, putU32(spec.netnsFd));
    if (spec.kind !== undefined) out.push(IFLA.linkinfo, linkInfo(spec.kind, spec.kindData));
    if (spec.devconf !== undefined) out.push(IFLA.afSpec, inetConf(spec.devconf));
  });
}

function linkInfo(kind: string, data: Uint8Array | undefined): Uint8Array {
  return nested((out) => {
    out.push(INFO_KIND, cString(kind));
    if (data !== undefined) out.push(INFO_DATA, data);
  });
}

/** When set, IFLA_INET_CONF holds one attribute per switch; when read it is a plain array of ints (net/ipv4/devinet.c). */
function inetConf(conf: DevConf): Uint8Array {
  const switches = nested((out) => {
    for (const [name, id] of Object.entries(DEVCONF)) {
      const value = conf[name as keyof DevConf];
      if (value !== undefined) out.push(id, putU32(value));
    }
  });
  const family = nested((out) => out.push(INET_CONF, switches));
  return nested((out) => out.push(AF_INET, family));
}

/** IFLA_INFO_DATA of a veth: the peer's own ifinfomsg and attributes (VETH_INFO_PEER). */
export function vethData(peer: LinkSpec): Uint8Array {
  return nested((out) => out.push(1, linkBody(peer)));
}

/** IFLA_INFO_DATA of a bridge that forwards at once: no STP, no forward delay, no multicast snooping. */
export function bridgeData(): Uint8Array {
  return nested((out) => {
    out.push(1, putU32(0)); // IFLA_BR_FORWARD_DELAY
    out.push(5, putU32(0)); // IFLA_BR_STP_STATE
    out.push(23, putU8(0)); // IFLA_BR_MCAST_SNOOPING
  });
}

export function readLink(body: Buffer): LinkRecord {
  const found = attributes(body.subarray(16));
  const flags = readU32.call(body, 8);
  const mac = found.get(IFLA.address);
  const info = found.get(IFLA.linkinfo);
  const kind = info === undefined ? undefined : attributes(info).get(INFO_KIND);
  return {
    index: readS32.call(body, 4),
    name: readString(found.get(IFLA.ifname) ?? Buffer.alloc(0)),
    kind: kind === undefined ? null : readString(kind),
    mac: mac === undefined || mac.length !== 6 ? null : formatMac(mac),
    mtu: u32At(found.get(IFLA.mtu)) ?? 0,
    isUp: (flags & IFF_UP) !== 0,
    hasCarrier: (found.get(IFLA.carrier)?.[0] ?? 0) !== 0,
    usesArp: (flags & IFF_NOARP) === 0,
    master: u32At(found.get(IFLA.master)),
    peerIndex: u32At(found.get(IFLA.link)),
    devconf: readDevConf(found.get(IFLA.afSpec)),
  };
}

function readDevConf(afSpec: Buffer | undefined): DevConf {
  const inet = afSpec === undefined ? undefined : attributes(afSpec).get(AF_INET);
  const values = inet === undefined ? undefined : attributes(inet).get(INET_CONF);
  const conf: DevConf = {};
  if (values === undefined) return conf;
  for (const [name, id] of Object.entries(DEVCONF)) {
    if (id * 4 <= values.length) conf[name as keyof DevConf] = readS32.call(values, (id - 1) * 4);
  }
  return conf;
}

// --- Addresses: struct ifaddrmsg and IFA_* ---------------------------------------------------------------------------

const IFA = { address: 1, local: 2, flags: 8 } as const;
const IFA_F_NOPREFIXROUTE = 0x200;

export function addressBody(spec: AddressSpec): Uint8Array {
  const { address, length } = splitCidr(spec.cidr);
  return nested((out) => {
    out.emit([putU8(AF_INET), putU8(length), putU8(0), putU8(SCOPES[spec.scope ?? 'global']), putU32(spec.index)]);
    out.push(IFA.local, ipBytes(address));
    out.push(IFA.address, ipBytes(spec.peer ?? address));
    if (spec.noPrefixRoute === true) out.push(IFA.flags, putU32(IFA_F_NOPREFIXROUTE));
  });
}

export function addressDump(): Uint8Array {
  return Buffer.concat([putU8(AF_INET), putU8(0), putU8(0), putU8(0), putU32(0)]);
}

export function readAddress(body: Buffer): AddressRecord {
  const found = attributes(body.subarray(8));
  const address = formatIp(found.get(IFA.address) ?? found.get(IFA.local) ?? new Uint8Array(4));
  const local = formatIp(found.get(IFA.local) ?? found.get(IFA.address) ?? new Uint8Array(4));
  return {
    index: readU32.call(body, 4),
    cidr: `${local}/${body[1]}`,
    peer: address === local ? null : address,
    scope: body[3] ?? 0,
  };
}

// --- Routes: struct rtmsg and RTA_* ----------------------------------------------------------------------------------

const RTA = { dst: 1, oif: 4, gateway: 5, priority: 6, prefsrc: 7, table: 15 } as const;
const RTNH_F_ONLINK = 4;

/** The scope that `ip route` chooses: a local address is of the host, a neighbour of the link. */
function routeScope(spec: RouteSpec): number {
  if (spec.scope !== undefined) return SCOPES[spec.scope];
  if (spec.type === 'local') return SCOPES.host;
  return (spec.type ?? 'unicast') === 'unicast' && spec.via === undefined ? SCOPES.link : SCOPES.global;
}

/** To delete, what is not named is not compared: scope `nowhere`, type and protocol 0 (net/ipv4/fib_trie.c). */
export function routeBody(spec: RouteSpec, toDelete: boolean): Uint8Array {
  const { address, length } = splitCidr(spec.to);
  const table = spec.table ?? Table.Main;
  const scope = toDelete && spec.scope === undefined ? SCOPES.nowhere : routeScope(spec);
  const type = toDelete && spec.type === undefined ? 0 : ROUTE_TYPES[spec.type ?? 'unicast'];
  const protocol = spec.protocol ?? (toDelete ? 0 : RouteProtocol.Static);
  return nested((out) => {
    out.emit([putU8(AF_INET), putU8(length), putU8(0), putU8(0)]);
    out.emit([putU8(table < 256 ? table : 0), putU8(protocol), putU8(scope), putU8(type)]);
    out.emit(putU32(spec.onlink === true ? RTNH_F_ONLINK : 0));
    if (length > 0) out.push(RTA.dst, ipBytes(address));
    if (spec.via !== undefined) out.push(RTA.gateway, ipBytes(spec.via));
    if (spec.index !== undefined) out.push(RTA.oif, putU32(spec.index));
    if (spec.metric !== undefined) out.push(RTA.priority, putU32(spec.metric));
    if (spec.src !== undefined) out.push(RTA.prefsrc, ipBytes(spec.src));
    out.push(RTA.table, putU32(table));
  });
}

/** The same twelve bytes ask for all routes and for all rules of IPv4. */
export function routeDump(): Uint8Array {
  return Buffer.concat([putU8(AF_INET), Buffer.alloc(11)]);
}

export function readRoute(body: Buffer): RouteRecord {
  const found = attributes(body.subarray(12));
  const dst = found.get(RTA.dst);
  const via = found.get(RTA.gateway);
  const src = found.get(RTA.prefsrc);
  return {
    to: dst === undefined ? 'default' : `${formatIp(dst)}/${body[1]}`,
    via: via === undefined ? null : formatIp(via),
    index: u32At(found.get(RTA.oif)),
    table: u32At(found.get(RTA.table)) ?? body[4] ?? 0,
    metric: u32At(found.get(RTA.priority)) ?? 0,
    scope: body[6] ?? 0,
    type: body[7] ?? 0,
    src: src === undefined ? null : formatIp(src),
    protocol: body[5] ?? 0,
  };
}

// --- Rules: struct fib_rule_hdr and FRA_* ----------------------------------------------------------------------------

const FRA = { dst: 1, src: 2, iifname: 3, priority: 6, fwmark: 10, table: 15, fwmask: 16, oifname: 17 } as const;
const FR_ACT_TO_TBL = 1;

export function ruleBody(spec: RuleSpec): Uint8Array {
  const from = spec.from === undefined ? null : splitCidr(spec.from);
  const to = spec.to === undefined ? null : splitCidr(spec.to);
  return nested((out) => {
    out.emit([putU8(AF_INET), putU8(to?.length ?? 0), putU8(from?.length ?? 0), putU8(0)]);
    out.emit([putU8(spec.table < 256 ? spec.table : 0), putU8(0), putU8(0), putU8(FR_ACT_TO_TBL), putU32(0)]);
    out.push(FRA.priority, putU32(spec.priority));
    out.push(FRA.table, putU32(spec.table));
    if (to !== null && to.length > 0) out.push(FRA.dst, ipBytes(to.address));
    if (from !== null && from.length > 0) out.push(FRA.src, ipBytes(from.address));
    if (spec.iif !== undefined) out.push(FRA.iifname, cString(spec.iif));
    if (spec.oif !== undefined) out.push(FRA.oifname, cString(spec.oif));
    if (spec.fwmark !== undefined) out.push(FRA.fwmark, putU32(spec.fwmark >>> 0));
    if (spec.fwmask !== undefined) out.push(FRA.fwmask, putU32(spec.fwmask >>> 0));
  });
}

export function readRule(body: Buffer): RuleRecord {
  const found = attributes(body.subarray(12));
  const prefix = (bytes: Buffer | undefined, length: number | undefined): string | null =>
    bytes === undefined ? null : `${formatIp(bytes)}/${length}`;
  const name = (bytes: Buffer | undefined): string | null => (bytes === undefined ? null : readString(bytes));
  return {
    priority: u32At(found.get(FRA.priority)) ?? 0,
    table: u32At(found.get(FRA.table)) ?? body[4] ?? 0,
    iif: name(found.get(FRA.iifname)),
    oif: name(found.get(FRA.oifname)),
    from: prefix(found.get(FRA.src), body[2]),
    to: prefix(found.get(FRA.dst), body[1]),
    fwmark: u32At(found.get(FRA.fwmark)),
  };
}

// --- Neighbours: struct ndmsg and NDA_* ------------------------------------------------------------------------------

const NDA = { dst: 1, lladdr: 2 } as const;
const NUD_PERMANENT = 0x80;

/** A permanent neighbour. */
export function neighbourBody(spec: NeighbourSpec): Uint8Array {
  return nested((out) => {
    out.emit([putU8(AF_INET), putU8(0), putU16(0), putU32(spec.index), putU16(NUD_PERMANENT), putU8(0), putU8(0)]);
    out.push(NDA.dst, ipBytes(spec.address));
    out.push(NDA.lladdr, macBytes(spec.mac));
  });
}

/** Type of the address family of a message, to tell IPv4's records from others. */
export function familyOf(body: Buffer): number {
  return body[0] ?? AF_UNSPEC;
}
