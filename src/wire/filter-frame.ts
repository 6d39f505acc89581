/**
 * What filter expressions ask of a frame (filter.ts): tests and loads that never look beyond its end.
 */
/** The frame under test; `isShort` once something beyond its end was asked for. */
export interface Frame {
  m: DataView;
  start: number;
  end: number;
  length: number;
  isEthernet: boolean;
  /** Start of the network header. */
  net: number;
  isShort: boolean;
}
export type Test = (f: Frame) => boolean;
export type Load = (f: Frame) => number;

export type Direction = 'src' | 'dst' | 'src or dst' | 'src and dst';
const ETHER_IP = 0x0800;
const ETHER_ARP = 0x0806;
const ETHER_RARP = 0x8035;
const ETHER_IP6 = 0x86dd;
const FRAGMENT = 44;

/** Numbers of protocols that may stand behind IP. */
export const IP_PROTOCOLS: Readonly<Record<string, number>> = {
  icmp: 1,
  igmp: 2,
  tcp: 6,
  udp: 17,
  esp: 50,
  ah: 51,
  icmp6: 58,
  pim: 103,
  vrrp: 112,
  sctp: 132,
};
export const ETHER_TYPES: Readonly<Record<string, number>> = {
  ip: ETHER_IP,
  arp: ETHER_ARP,
  rarp: ETHER_RARP,
  ip6: ETHER_IP6,
};
export const PROTOCOLS = ['ether', 'link', ...Object.keys(ETHER_TYPES), ...Object.keys(IP_PROTOCOLS)];

// ---- reading the frame ------------------------------------------------------------------------------------------------

export function load(f: Frame, at: number, size: number): number {
  if (at < f.start || at + size > f.end) {
    f.isShort = true;
    return 0;
  }
  if (size === 1) return f.m.getUint8(at);
  return size === 2 ? f.m.getUint16(at) : f.m.getUint32(at);
}

export function isEtherType(type: number): Test {
  return (f) => {
    if (f.isEthernet) return load(f, f.start + 12, 2) === type;
    if (type !== ETHER_IP && type !== ETHER_IP6) return false;
    return load(f, f.start, 1) >> 4 === (type === ETHER_IP ? 4 : 6);
  };
}

export const isIp = isEtherType(ETHER_IP);
const isIp6 = isEtherType(ETHER_IP6);
const isFirstPart: Test = (f) => (load(f, f.net + 6, 2) & 0x1fff) === 0;

export function and(a: Test, b: Test): Test {
  return (f) => a(f) && !f.isShort && b(f);
}
export function or(a: Test, b: Test): Test {
  return (f) => a(f) || (!f.isShort && b(f));
}
export function not(a: Test): Test {
  return (f) => !a(f);
}
function equals(offset: number, size: number, value: number): Test {
  return (f) => load(f, f.net + offset, size) === value;
}
function masked(offset: number, mask: number, value: number): Test {
  return (f) => (load(f, f.net + offset, 4) & mask) === value;
}
function either(direction: Direction | null, src: Test, dst: Test): Test {
  if (direction === 'src') return src;
  if (direction === 'dst') return dst;
  return direction === 'src and dst' ? and(src, dst) : or(src, dst);
}

export function isIpProtocol(number: number): Test {
  return and(isIp, equals(9, 1, number));
}
/** Also behind a fragment header, as libpcap looks. */
export function isIp6Protocol(number: number): Test {
  return and(isIp6, or(and(equals(6, 1, FRAGMENT), equals(40, 1, number)), equals(6, 1, number)));
}
export function isProtocol(name: string): Test {
  const type = ETHER_TYPES[name];
  if (type !== undefined) return isEtherType(type);
  const number = IP_PROTOCOLS[name]!;
  if (name === 'icmp' || name === 'igmp') return isIpProtocol(number);
  if (name === 'icmp6') return isIp6Protocol(number);
  return or(isIpProtocol(number), isIp6Protocol(number));
}

/** The transport header of an IPv4 packet. */
function transport(f: Frame): number {
  return f.net + ((load(f, f.net, 1) & 15) << 2);
}

export function portTest(proto: string | null, direction: Direction | null, low: number, high: number): Test {
  const within = (f: Frame, at: number): boolean => {
    const port = load(f, at, 2);
    return port >= low && port <= high;
  };
  const names = proto === null ? ['tcp', 'udp', 'sctp'] : [proto];
  const ofProtocol = names.map((name) => {
    const number = IP_PROTOCOLS[name]!;
    const ip4 = either(
      direction,
      (f) => within(f, transport(f)),
      (f) => within(f, transport(f) + 2),
    );
    const ip6 = either(
      direction,
      (f) => within(f, f.net + 40),
      (f) => within(f, f.net + 42),
    );
    return or(and(isIp, and(and(equals(9, 1, number), isFirstPart), ip4)), and(isIp6, and(equals(6, 1, number), ip6)));
  });
  return ofProtocol.reduce(or);
}

export function addressTest(proto: string | null, direction: Direction | null, ip: number, mask: number): Test {
  const inIp = and(isIp, either(direction, masked(12, mask, ip), masked(16, mask, ip)));
  if (proto === 'ip') return inIp;
  const inArp = either(direction, masked(14, mask, ip), masked(24, mask, ip));
  if (proto === 'arp' || proto === 'rarp') return and(isProtocol(proto), inArp);
  return or(or(inIp, and(isProtocol('arp'), inArp)), and(isProtocol('rarp'), inArp));
}

export function macTest(direction: Direction | null, hi: number, lo: number): Test {
  // The last four bytes first, as libpcap: it shows in frames that end within.
  const at = (offset: number): Test => {
    return (f) =>
      f.isEthernet && (load(f, f.start + offset + 2, 4) | 0) === (lo | 0) && load(f, f.start + offset, 2) === hi;
  };
  return either(direction, at(6), at(0));
}

/** `proto[offset:size]`: what must hold first, and where offset 0 lies; undefined for what has no bytes to index. */
export function accessor(proto: string): { guard: Test | null; base: Load } | undefined {
  if (proto === 'ether' || proto === 'link') return { guard: (f) => f.isEthernet, base: (f) => f.start };
  if (proto in ETHER_TYPES) return { guard: isProtocol(proto), base: (f) => f.net };
  if (proto === 'icmp6') return { guard: isIp6Protocol(IP_PROTOCOLS.icmp6!), base: (f) => f.net + 40 };
  const number = IP_PROTOCOLS[proto];
  return number === undefined
    ? undefined
    : { guard: and(isIp, and(equals(9, 1, number), isFirstPart)), base: transport };
}
