/**
 * The vnet header that TUN, TAP and AF_PACKET put before a frame: struct virtio_net_hdr, 10 bytes, little-endian
 * (virtio 1.2 §5.1.6; include/uapi/linux/virtio_net.h).   @hot
 *
 *   0       1         2          4          6            8             10
 *  +-------+---------+----------+----------+------------+-------------+
 *  | flags | gsoType |  hdrLen  | gsoSize  | csumStart  | csumOffset  |   then the frame
 *  +-------+---------+----------+----------+------------+-------------+
 */
const FLAGS = 0;
const GSO_TYPE = 1;
const HDR_LEN = 2;
const GSO_SIZE = 4;
const CSUM_START = 6;
const CSUM_OFFSET = 8;

export const VNET_HEADER = 10;
export const VnetFlag = { NeedsCsum: 1, DataValid: 2 } as const;
/** Ecn is a bit beside the type: the segments carry CWR only in the first. */
export const GsoType = { None: 0, TcpV4: 1, UdpFragment: 3, TcpV6: 4, UdpL4: 5, Ecn: 0x80 } as const;

export function flags(m: DataView, at: number): number {
  return m.getUint8(at + FLAGS);
}
export function gsoType(m: DataView, at: number): number {
  return m.getUint8(at + GSO_TYPE);
}
export function gsoSize(m: DataView, at: number): number {
  return m.getUint16(at + GSO_SIZE, true);
}
/** From the start of the frame, bytes. */
export function csumStart(m: DataView, at: number): number {
  return m.getUint16(at + CSUM_START, true);
}
export function csumOffset(m: DataView, at: number): number {
  return m.getUint16(at + CSUM_OFFSET, true);
}

export function emit(
  m: DataView,
  at: number,
  flags: number,
  gsoType: number,
  hdrLen: number,
  gsoSize: number,
  csumStart: number,
  csumOffset: number,
): void {
  m.setUint8(at + FLAGS, flags);
  m.setUint8(at + GSO_TYPE, gsoType);
  m.setUint16(at + HDR_LEN, hdrLen, true);
  m.setUint16(at + GSO_SIZE, gsoSize, true);
  m.setUint16(at + CSUM_START, csumStart, true);
  m.setUint16(at + CSUM_OFFSET, csumOffset, true);
}
