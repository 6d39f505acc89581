/**
 * Address Resolution Protocol for IPv4 on Ethernet, RFC 826 (opcodes) and RFC 5227 (probe, announcement).   @hot
 *
 *   0      2      4    5    6      8             14            18            24          28
 *  +------+------+----+----+------+-------------+-------------+-------------+-----------+
 *  | htype| ptype|hlen|plen|  op  | sender MAC  | sender IPv4 | target MAC  |target IPv4|
 *  +------+------+----+----+------+-------------+-------------+-------------+-----------+
 */
const HTYPE = 0;
const PTYPE = 2;
const HLEN = 4;
const OP = 6;
const SENDER_MAC = 8;
const SENDER_IP = 14;
const TARGET_MAC = 18;
const TARGET_IP = 24;

export const ARP_LENGTH = 28;
export const ArpOp = { Request: 1, Reply: 2 } as const;
export const ArpFault = { None: 0, TooShort: 1, NotEthernetIpv4: 2, BadOperation: 3 } as const;

/** The one gate: Ethernet, IPv4, request or reply, all 28 bytes there. */
export function check(m: DataView, at: number, end: number): number {
  if (end - at < ARP_LENGTH) return ArpFault.TooShort;
  if (m.getUint16(at + HTYPE) !== 1 || m.getUint16(at + PTYPE) !== 0x0800 || m.getUint16(at + HLEN) !== 0x0604) {
    return ArpFault.NotEthernetIpv4;
  }
  const op = m.getUint16(at + OP);
  return op === ArpOp.Request || op === ArpOp.Reply ? ArpFault.None : ArpFault.BadOperation;
}

export function op(m: DataView, at: number): number {
  return m.getUint16(at + OP);
}
export function senderMacHi(m: DataView, at: number): number {
  return m.getUint16(at + SENDER_MAC);
}
export function senderMacLo(m: DataView, at: number): number {
  return m.getInt32(at + SENDER_MAC + 2);
}
export function senderIp(m: DataView, at: number): number {
  return m.getInt32(at + SENDER_IP);
}
export function targetIp(m: DataView, at: number): number {
  return m.getInt32(at + TARGET_IP);
}

export function emit(
  m: DataView,
  at: number,
  op: number,
  senderHi: number,
  senderLo: number,
  senderIp: number,
  targetHi: number,
  targetLo: number,
  targetIp: number,
): void {
  m.setUint16(at + HTYPE, 1);
  m.setUint16(at + PTYPE, 0x0800);
  m.setUint16(at + HLEN, 0x0604);
  m.setUint16(at + OP, op);
  m.setUint16(at + SENDER_MAC, senderHi);
  m.setInt32(at + SENDER_MAC + 2, senderLo);
  m.setInt32(at + SENDER_IP, senderIp);
  m.setUint16(at + TARGET_MAC, targetHi);
  m.setInt32(at + TARGET_MAC + 2, targetLo);
  m.setInt32(at + TARGET_IP, targetIp);
}
