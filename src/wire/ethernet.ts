/**
 * Ethernet II framing.   @hot
 *
 *   0                   6                   12        14
 *  +-------------------+-------------------+---------+----
 *  |  Destination MAC  |    Source MAC     |EtherType| …
 *  +-------------------+-------------------+---------+----
 */
const DST = 0;
const SRC = 6;
const TYPE = 12;

export const ETH_HEADER = 14;

export const EtherType = { Ipv4: 0x0800, Arp: 0x0806, Vlan: 0x8100, Ipv6: 0x86dd } as const;

/** MACs are two ints: 16 high bits, 32 low bits (addr.ts). */
export function dstHi(m: DataView, l2: number): number {
  return m.getUint16(l2 + DST);
}
export function dstLo(m: DataView, l2: number): number {
  return m.getInt32(l2 + DST + 2);
}
export function etherType(m: DataView, l2: number): number {
  return m.getUint16(l2 + TYPE);
}

export function setDst(m: DataView, l2: number, hi: number, lo: number): void {
  m.setUint16(l2 + DST, hi);
  m.setInt32(l2 + DST + 2, lo);
}
export function setSrc(m: DataView, l2: number, hi: number, lo: number): void {
  m.setUint16(l2 + SRC, hi);
  m.setInt32(l2 + SRC + 2, lo);
}
export function setEtherType(m: DataView, l2: number, type: number): void {
  m.setUint16(l2 + TYPE, type);
}

/** The group bit of IEEE 802: set for multicast and broadcast. */
export function isGroup(hi: number): boolean {
  return (hi & 0x0100) !== 0;
}
export function isBroadcast(hi: number, lo: number): boolean {
  return hi === 0xffff && lo === -1;
}
