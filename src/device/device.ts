/**
 * What a device is to the engine: something that fills bursts and drains them.
 *
 * Ownership: `receive` takes packets out of the pool and gives them to the caller. `transmit` takes packets from the caller and frees them,
 * sent or not; what was not sent is counted in `stats` and in the drop counters that the device was given.
 */
import type { Burst } from '../packet/burst.ts';

/** Ethernet devices carry frames from l2 on; Ip devices carry packets from l3 on, without a link header. */
export const Medium = { Ethernet: 0, Ip: 1 } as const;
export type Medium = (typeof Medium)[keyof typeof Medium];

export interface DeviceStats {
  rxPackets: number;
  rxBytes: number;
  rxDropped: number;
  txPackets: number;
  txBytes: number;
  /** Frames the kernel or the medium refused, and those that found it full. */
  txErrors: number;
  txDropped: number;
}

/** Fresh counters. */
export function noStats(): DeviceStats {
  return { rxPackets: 0, rxBytes: 0, rxDropped: 0, txPackets: 0, txBytes: 0, txErrors: 0, txDropped: 0 };
}

export interface Device {
  readonly name: string;
  readonly kind: 'tap' | 'tun' | 'packet' | 'memory' | 'pcap';
  readonly medium: Medium;
  /** Largest IP packet of one segment, bytes. */
  mtu: number;
  /** tapvs's own MAC on this segment (wire/addr.ts); 0, 0 on an Ip device. */
  macHi: number;
  macLo: number;
  /** True when it takes super-packets and partial checksums on transmit; else ip.output segments and sums in software. */
  readonly canOffload: boolean;
  readonly stats: DeviceStats;
  /** File descriptor for the engine's poll set; -1 when there is none (memory, pcap). */
  readonly fd: number;

  /** Fill `burst` up to its size with what has arrived; never blocks, never allocates. Offsets and offload fields are set: l2 = start of frame
   *  (on Ip devices l2 = l3 - 14 with nothing meaningful in it). Answers burst.count. */
  receive(burst: Burst): number;
  /** Send all of `burst` in order and empty it. */
  transmit(burst: Burst): void;
  close(): void;
}
