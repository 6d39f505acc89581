/**
 * Capture files as a device: what a file holds arrives, as fast as it is taken; what is transmitted is written to another.
 *
 * A recorded frame has its checksum complete, as on a wire. A file that stops making sense simply ends there: `fault` says why.
 */
import { closeSync, openSync, writeSync } from 'node:fs';
import type { Burst } from '../packet/burst.ts';
import { Drop } from '../packet/drop.ts';
import { FRAME_ROOM, type Packet } from '../packet/packet.ts';
import type { PacketPool } from '../packet/pool.ts';
import { type Capture, LinkType, type PcapFault, type PcapFrame, pcapHeader, pcapRecord } from '../wire/pcap.ts';
import { type Device, Medium, noStats } from './device.ts';
import { completeChecksum } from './vnet.ts';

/** Where a recording goes. */
export interface PcapSink {
  write(chunk: Uint8Array): void;
  close(): void;
}

export interface PcapDeviceOptions {
  readonly name: string;
  /** Frames that arrive; null for none. Those of another medium are counted as dropped. */
  readonly replay: Capture | null;
  /** Where transmitted frames go; null: they are counted and gone. */
  readonly record: PcapSink | null;
  /** Default: that of the first frame of `replay`, Ethernet without one. */
  readonly medium?: Medium;
  readonly mtu?: number;
  readonly macHi?: number;
  readonly macLo?: number;
  /** Record super-packets whole and partial checksums as they are, instead of frames as on a wire. Default false. */
  readonly canOffload?: boolean;
  readonly drops?: Float64Array;
  /** Microseconds since the epoch, for the records. */
  readonly nowUs: () => number;
}

/** The medium of a link type; undefined for those that no device speaks. */
export function mediumOf(linkType: number): Medium | undefined {
  switch (linkType) {
    case LinkType.Ethernet:
      return Medium.Ethernet;
    case LinkType.Raw:
    case LinkType.RawBsd:
    case LinkType.RawOpenbsd:
    case LinkType.Ipv4:
      return Medium.Ip;
    default:
      return undefined;
  }
}

/** A file to record into, created or emptied. @throws Error of node:fs when that is not possible */
export function pcapFile(path: string): PcapSink {
  const fd = openSync(path, 'w');
  return {
    write: (chunk) => {
      writeSync(fd, chunk);
    },
    close: () => closeSync(fd),
  };
}

export class PcapDevice implements Device {
  readonly name: string;
  readonly kind = 'pcap';
  readonly medium: Medium;
  mtu: number;
  macHi: number;
  macLo: number;
  readonly canOffload: boolean;
  readonly fd = -1;
  readonly stats = noStats();
  /** Why the replayed file ended before its end; null when all of it made sense. */
  readonly fault: PcapFault | null;
  readonly drops: Float64Array;
  readonly #pool: PacketPool;
  readonly #frames: readonly PcapFrame[];
  #next = 0;
  #record: PcapSink | null;
  readonly #nowUs: () => number;

  constructor(pool: PacketPool, options: PcapDeviceOptions) {
    const { replay, record } = options;
    this.#pool = pool;
    this.name = options.name;
    this.fault = replay?.fault ?? null;
    this.#frames = replay?.frames ?? [];
    const first = this.#frames[0];
    this.medium = options.medium ?? (first && mediumOf(first.linkType)) ?? Medium.Ethernet;
    this.mtu = options.mtu ?? 1500;
    this.macHi = options.macHi ?? 0;
    this.macLo = options.macLo ?? 0;
    this.canOffload = options.canOffload ?? false;
    this.drops = options.drops ?? new Float64Array(256);
    this.#nowUs = options.nowUs;
    this.#record = record;
    record?.write(pcapHeader(this.medium === Medium.Ethernet ? LinkType.Ethernet : LinkType.Raw));
  }

  /** True when the whole file has arrived. */
  get isAtEnd(): boolean {
    return this.#next >= this.#frames.length;
  }

  receive(burst: Burst): number {
    while (!burst.isFull && this.#next < this.#frames.length) {
      const { bytes, linkType } = this.#frames[this.#next]!;
      if (mediumOf(linkType) !== this.medium) {
        this.#refuse(Drop.EtherTypeUnknown);
      } else if (bytes.length > (this.medium === Medium.Ethernet ? FRAME_ROOM : FRAME_ROOM - 14)) {
        this.#refuse(Drop.FrameTruncated);
      } else {
        const p = this.#pool.take(bytes.length);
        if (p === null) break;
        const start = this.#startOf(p);
        p.end = start + bytes.length;
        p.bytes.set(bytes, start);
        this.stats.rxPackets++;
        this.stats.rxBytes += bytes.length;
        burst.push(p);
      }
      this.#next++;
    }
    return burst.count;
  }

  transmit(burst: Burst): void {
    for (let i = 0; i < burst.count; i++) {
      const p = burst.packets[i]!;
      burst.packets[i] = null;
      if (!this.canOffload && !completeChecksum(p)) {
        this.stats.txErrors++;
        this.drops[Drop.DeviceTxError]!++;
      } else {
        const bytes = p.bytes.subarray(this.#startOf(p), p.end);
        this.#record?.write(pcapRecord(this.#nowUs(), bytes, bytes.length));
        this.stats.txPackets++;
        this.stats.txBytes += bytes.length;
      }
      this.#pool.free(p);
    }
    burst.clear();
  }

  close(): void {
    this.#next = this.#frames.length;
    this.#record?.close();
    this.#record = null;
  }

  #startOf(p: Packet): number {
    return this.medium === Medium.Ethernet ? p.l2 : p.l3;
  }

  #refuse(reason: number): void {
    this.stats.rxDropped++;
    this.drops[reason]!++;
  }
}
