/**
 * A device in memory, for tests and benches: what is injected arrives, what is transmitted can be read.   @hot
 *
 *   inject ─► queue ─► receive          transmit ─► sent (copies)       alone
 *                                       transmit ─► peer's queue        one of a pair: a cable
 *   preload + play ─► receive           transmit ─► counted and freed   bench: nothing is allocated
 */

import type { Burst } from '../packet/burst.ts';
import { Drop } from '../packet/drop.ts';
import { FRAME_ROOM, type Packet } from '../packet/packet.ts';
import type { PacketPool } from '../packet/pool.ts';
import { type Device, Medium, noStats } from './device.ts';

const { FrameTruncated: FRAME_TRUNCATED, DeviceTxFull: DEVICE_TX_FULL } = Drop;
const ETHERNET = Medium.Ethernet;

/** The offload fields that go with a frame; absent ones are 0. */
export interface Offload {
  readonly csumPartial?: number;
  readonly csumValid?: number;
  /** GsoType. */
  readonly gsoType?: number;
  /** Payload of one segment, bytes. */
  readonly gsoSize?: number;
}

/** A frame as it was transmitted: a copy, from the Ethernet header (IP header on an Ip device) to the end. */
export interface SentFrame {
  readonly bytes: Uint8Array;
  readonly csumPartial: number;
  readonly gsoType: number;
  readonly gsoSize: number;
  /** Where the transport header is, bytes from the start of the frame: what csumPartial refers to. */
  readonly l4: number;
  readonly proto: number;
}

/** Writes a frame from offset `at` on and answers its length in bytes. */
export type FrameBuilder = (view: DataView, at: number) => number;

export interface MemoryDeviceOptions {
  readonly name?: string;
  /** Default Medium.Ethernet. */
  readonly medium?: Medium;
  /** Default 1500. */
  readonly mtu?: number;
  readonly macHi?: number;
  readonly macLo?: number;
  /** Default true. */
  readonly canOffload?: boolean;
  /** Frames that may wait to be received; what comes on top is refused. Default 4096. */
  readonly queueLimit?: number;
  /** Counter per Drop reason; default one of its own. */
  readonly drops?: Float64Array;
}

interface Waiting {
  readonly bytes: Uint8Array;
  readonly offload: Offload;
}

const NO_OFFLOAD: Offload = {};

export class MemoryDevice implements Device {
  readonly name: string;
  readonly kind = 'memory';
  readonly medium: Medium;
  mtu: number;
  macHi: number;
  macLo: number;
  readonly canOffload: boolean;
  readonly fd = -1;
  readonly stats = noStats();
  readonly drops: Float64Array;
  /** What was transmitted, oldest first, while `keepsSent`. */
  readonly sent: SentFrame[] = [];
  keepsSent = true;
  readonly #pool: PacketPool;
  readonly #queueLimit: number;
  readonly #waiting: Waiting[] = [];
  #peer: MemoryDevice | null = null;
  /** Bench: frames that `play` goes round, and how many are still to come. */
  #frames: readonly Uint8Array[] = [];
  #nextFrame = 0;
  #toPlay = 0;

  constructor(pool: PacketPool, options: MemoryDeviceOptions = {}) {
    this.#pool = pool;
    this.name = options.name ?? 'memory';
    this.medium = options.medium ?? Medium.Ethernet;
    this.mtu = options.mtu ?? 1500;
    this.macHi = options.macHi ?? 0;
    this.macLo = options.macLo ?? 0;
    this.canOffload = options.canOffload ?? true;
    this.#queueLimit = options.queueLimit ?? 4096;
    this.drops = options.drops ?? new Float64Array(256);
  }

  // cold: set-up, and what tests call
  /** Two devices joined by a cable: what one transmits, the other receives. */
  static pair(
    pool: PacketPool,
    a: MemoryDeviceOptions = {},
    b: MemoryDeviceOptions = {},
    poolOfB: PacketPool = pool,
  ): [MemoryDevice, MemoryDevice] {
    const left = new MemoryDevice(pool, { name: 'a', ...a });
    const right = new MemoryDevice(poolOfB, { name: 'b', ...b });
    left.#peer = right;
    right.#peer = left;
    return [left, right];
  }

  /** Let a frame arrive: its bytes (copied), or a builder that writes them. False when the queue is full. */
  inject(frame: Uint8Array | FrameBuilder, offload: Offload = NO_OFFLOAD): boolean {
    if (this.#waiting.length >= this.#queueLimit) return false;
    let bytes: Uint8Array;
    if (typeof frame === 'function') {
      const scratch = new Uint8Array(FRAME_ROOM);
      const length = frame(new DataView(scratch.buffer), 0);
      bytes = scratch.slice(0, length);
    } else {
      bytes = Uint8Array.from(frame);
    }
    this.#waiting.push({ bytes, offload });
    return true;
  }

  /** What was transmitted since the last call. */
  takeSent(): SentFrame[] {
    return this.sent.splice(0);
  }

  /** Frames that wait to be received. */
  get waiting(): number {
    return this.#waiting.length;
  }

  /** Bench: the frames that `play` replays; from now on what is transmitted is counted and freed, not kept. */
  preload(frames: readonly Uint8Array[]): void {
    this.#frames = frames.map((frame) => Uint8Array.from(frame));
    this.#nextFrame = 0;
    this.keepsSent = false;
  }

  /** Bench: let `count` more of the preloaded frames arrive, round and round. */
  play(count: number): void {
    this.#toPlay += count;
  }

  close(): void {
    this.#waiting.length = 0;
    this.#toPlay = 0;
  }
  // hot again

  receive(burst: Burst): number {
    if (this.#toPlay > 0) return this.#replay(burst);
    while (!burst.isFull && this.#waiting.length > 0) {
      const { bytes, offload } = this.#waiting[0]!;
      if (!this.#arrive(burst, bytes)) break;
      this.#waiting.shift();
      if (bytes.length > this.#room()) continue;
      const p = burst.packets[burst.count - 1]!;
      p.csumPartial = offload.csumPartial ?? 0;
      p.csumValid = offload.csumValid ?? 0;
      p.gsoType = offload.gsoType ?? 0;
      p.gsoSize = offload.gsoSize ?? 0;
    }
    return burst.count;
  }

  transmit(burst: Burst): void {
    for (let i = 0; i < burst.count; i++) {
      const p = burst.packets[i]!;
      burst.packets[i] = null;
      const start = this.medium === ETHERNET ? p.l2 : p.l3;
      if ((this.keepsSent || this.#peer !== null) && !this.#keep(p, start)) {
        this.stats.txDropped++;
        this.drops[DEVICE_TX_FULL]!++;
      } else {
        this.stats.txPackets++;
        this.stats.txBytes += p.end - start;
      }
      this.#pool.free(p);
    }
    burst.clear();
  }

  #replay(burst: Burst): number {
    const frames = this.#frames;
    while (this.#toPlay > 0 && !burst.isFull) {
      if (!this.#arrive(burst, frames[this.#nextFrame]!)) break;
      this.#toPlay--;
      if (++this.#nextFrame === frames.length) this.#nextFrame = 0;
    }
    return burst.count;
  }

  /** Bytes that fit behind the headroom. */
  #room(): number {
    return this.medium === ETHERNET ? FRAME_ROOM : FRAME_ROOM - 14;
  }

  /** Into a slot and onto the burst, or counted as too long; false when there is no slot. */
  #arrive(burst: Burst, bytes: Uint8Array): boolean {
    if (bytes.length > this.#room()) {
      this.stats.rxDropped++;
      this.drops[FRAME_TRUNCATED]!++;
      return true;
    }
    const p = this.#pool.take(bytes.length);
    if (p === null) return false;
    const start = this.medium === ETHERNET ? p.l2 : p.l3;
    p.end = start + bytes.length;
    p.bytes.set(bytes, start);
    this.stats.rxPackets++;
    this.stats.rxBytes += bytes.length;
    burst.push(p);
    return true;
  }

  // cold: copies for tests
  #keep(p: Packet, start: number): boolean {
    const bytes = p.bytes.slice(start, p.end);
    const { csumPartial, gsoType, gsoSize, proto } = p;
    if (this.#peer !== null) {
      // As on a cable: a partial checksum is as good as a checked one, and the peer sees the same fields.
      return this.#peer.inject(bytes, { csumPartial, gsoType, gsoSize });
    }
    this.sent.push({ bytes, csumPartial, gsoType, gsoSize, l4: p.l4 - start, proto });
    return true;
  }
}
