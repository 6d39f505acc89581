/**
 * Counters of servers, services and of the whole director: exact, zeroable, with estimated rates.   @hot
 *
 *   live row   8 doubles = one cache line: conns | inPkts | outPkts | inBytes | outBytes | –
 *   cold row  16 doubles: base ×5 (what zeroing hid) | last ×5 (as of the last estimator tick) | rate ×5 (scaled) | –
 *
 * Bytes are IP total lengths (net/netfilter/ipvs/ip_vs_core.c, ip_vs_in_stats, ip_vs_out_stats). The kernel counts a super-packet as one packet; we count
 * the segments it becomes on the wire, so that the figures do not depend on offloads.
 */
import type { Columns } from '../base/memory.ts';
import type { IpvsStats } from '../model/ipvs.ts';
import type { Packet } from '../packet/packet.ts';
import { GsoType } from '../wire/virtio-net.ts';

export const COUNTER_SHIFT = 3;
export const COLD_SHIFT = 4;
const CONNS = 0;
const IN_PKTS = 1;
const OUT_PKTS = 2;
const IN_BYTES = 3;
const OUT_BYTES = 4;
/** Counters of a row, and where the parts of a cold row start. */
export const FIGURES = 5;
export const BASE = 0;
export const LAST = 5;
export const RATE = 10;

const UDP_L4 = GsoType.UdpL4 as number;
const TYPE_MASK = 0x7f;

export class Counters {
  readonly live: Float64Array;
  readonly cold: Float64Array;

  /** @param rows reserved at once, touched as they come into use */
  constructor(rows: number, columns: Columns) {
    this.live = columns.float64('live', rows << COUNTER_SHIFT);
    this.cold = columns.float64('cold', rows << COLD_SHIFT);
  }

  addConnection(row: number): void {
    this.live[(row << COUNTER_SHIFT) + CONNS]! += 1;
  }

  addIn(row: number, packets: number, bytes: number): void {
    const at = row << COUNTER_SHIFT;
    this.live[at + IN_PKTS]! += packets;
    this.live[at + IN_BYTES]! += bytes;
  }

  addOut(row: number, packets: number, bytes: number): void {
    const at = row << COUNTER_SHIFT;
    this.live[at + OUT_PKTS]! += packets;
    this.live[at + OUT_BYTES]! += bytes;
  }

  // cold: commands and listings
  /** A row that comes into use: everything 0. */
  clear(row: number): void {
    this.live.fill(0, row << COUNTER_SHIFT, (row + 1) << COUNTER_SHIFT);
    this.cold.fill(0, row << COLD_SHIFT, (row + 1) << COLD_SHIFT);
  }

  /**
   * What is shown counts from here on, rates start at 0 (ip_vs_ctl.c, ip_vs_zero_stats).
   * @param frozen as for `read`
   */
  zero(row: number, frozen: boolean): void {
    const live = row << COUNTER_SHIFT;
    const cold = row << COLD_SHIFT;
    for (let i = 0; i < FIGURES; i++) {
      this.cold[cold + BASE + i] = frozen ? this.cold[cold + LAST + i]! : this.live[live + i]!;
      this.cold[cold + RATE + i] = 0;
    }
  }

  /** @param frozen run_estimation=0: figures stand still at the last estimator tick, as the kernel's do */
  read(row: number, frozen: boolean): IpvsStats {
    const live = row << COUNTER_SHIFT;
    const cold = row << COLD_SHIFT;
    const figure = (i: number) =>
      (frozen ? this.cold[cold + LAST + i]! : this.live[live + i]!) - this.cold[cold + BASE + i]!;
    // ip_vs_est.c, ip_vs_read_estimator: 2^10 and 2^5 are the scales, the addends round up.
    const perSecond = (i: number) => Math.floor((this.cold[cold + RATE + i]! + 0x1ff) / 1024);
    const bytesPerSecond = (i: number) => Math.floor((this.cold[cold + RATE + i]! + 0xf) / 32);
    return {
      conns: figure(CONNS),
      inPkts: figure(IN_PKTS),
      outPkts: figure(OUT_PKTS),
      inBytes: figure(IN_BYTES),
      outBytes: figure(OUT_BYTES),
      cps: perSecond(CONNS),
      inPps: perSecond(IN_PKTS),
      outPps: perSecond(OUT_PKTS),
      inBps: bytesPerSecond(IN_BYTES),
      outBps: bytesPerSecond(OUT_BYTES),
    };
  }
  // hot again
}

/** Bytes of IP and transport header that each segment of a super-packet repeats. */
export function segmentHeader(p: Packet): number {
  const l4Header = (p.gsoType & TYPE_MASK) === UDP_L4 ? 8 : (p.view.getUint8(p.l4 + 12) >> 4) << 2;
  return p.l4 - p.l3 + l4Header;
}

/** Packets that `p` is on the wire: 1, or the segments of a super-packet. */
export function wirePackets(p: Packet): number {
  if (p.gsoType === 0) return 1;
  const payload = p.end - p.l3 - segmentHeader(p);
  return payload <= p.gsoSize || p.gsoSize === 0 ? 1 : Math.trunc((payload + p.gsoSize - 1) / p.gsoSize);
}

/** IP bytes that `p` is on the wire, given its `wirePackets`. */
export function wireBytes(p: Packet, packets: number): number {
  const length = p.end - p.l3;
  return packets === 1 ? length : length + (packets - 1) * segmentHeader(p);
}
