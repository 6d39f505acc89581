/**
 * A device that misbehaves on purpose, wrapped around another: drops, duplicates, swaps, delays and corrupts frames by chance.
 *
 * Each direction has its own probabilities. A swapped frame changes places with the next one (or leaves with the next call when none follows);
 * a delayed frame leaves once its time is over, at the next receive or transmit. Held frames are freed by `close`.
 */
import type { Clock } from '../base/clock.ts';
import type { Rng } from '../base/rng.ts';
import { Burst } from '../packet/burst.ts';
import { Drop } from '../packet/drop.ts';
import type { Packet } from '../packet/packet.ts';
import type { PacketPool } from '../packet/pool.ts';
import { type Device, type DeviceStats, Medium } from './device.ts';

/** Probabilities, 0…1; absent is 0. They are tried in this order, and the first that hits is what happens to the frame. */
export interface FaultRates {
  readonly drop?: number;
  readonly duplicate?: number;
  readonly reorder?: number;
  readonly delay?: number;
  /** One bit is inverted. Not in a frame whose checksum is still partial: nobody could ever notice. */
  readonly corrupt?: number;
  /** Ticks that a delayed frame waits. Default 25 (100 ms). */
  readonly delayTicks?: number;
}

export interface FaultOptions {
  readonly rx?: FaultRates;
  readonly tx?: FaultRates;
  readonly pool: PacketPool;
  readonly rng: Rng;
  readonly clock: Clock;
  /** Counter per Drop reason. */
  readonly drops: Float64Array;
}

/** What waits in one direction. */
class Lane {
  readonly rates: Required<FaultRates>;
  /** In order of departure. */
  readonly ready: Packet[] = [];
  readonly delayed: { readonly p: Packet; readonly due: number }[] = [];
  swapped: Packet | null = null;

  constructor(rates: FaultRates = {}) {
    this.rates = { drop: 0, duplicate: 0, reorder: 0, delay: 0, corrupt: 0, delayTicks: 25, ...rates };
  }
}

export class FaultDevice implements Device {
  readonly name: string;
  readonly kind: Device['kind'];
  readonly medium: Medium;
  readonly canOffload: boolean;
  readonly stats: DeviceStats;
  readonly #inner: Device;
  readonly #options: FaultOptions;
  readonly #rx: Lane;
  readonly #tx: Lane;
  readonly #scratch = new Burst();

  constructor(inner: Device, options: FaultOptions) {
    this.#inner = inner;
    this.#options = options;
    this.name = inner.name;
    this.kind = inner.kind;
    this.medium = inner.medium;
    this.canOffload = inner.canOffload;
    this.stats = inner.stats;
    this.#rx = new Lane(options.rx);
    this.#tx = new Lane(options.tx);
  }

  get fd(): number {
    return this.#inner.fd;
  }
  get mtu(): number {
    return this.#inner.mtu;
  }
  set mtu(bytes: number) {
    this.#inner.mtu = bytes;
  }
  get macHi(): number {
    return this.#inner.macHi;
  }
  set macHi(hi: number) {
    this.#inner.macHi = hi;
  }
  get macLo(): number {
    return this.#inner.macLo;
  }
  set macLo(lo: number) {
    this.#inner.macLo = lo;
  }

  receive(burst: Burst): number {
    this.#release(this.#rx);
    this.#release(this.#tx);
    this.#push();
    const scratch = this.#scratch;
    // Duplicates may leave more than fits; nothing new is taken in before that has gone.
    if (this.#rx.ready.length < burst.packets.length - burst.count) {
      this.#inner.receive(scratch);
      this.#pass(scratch, this.#rx);
    }
    while (!burst.isFull && this.#rx.ready.length > 0) burst.push(this.#rx.ready.shift()!);
    return burst.count;
  }

  transmit(burst: Burst): void {
    this.#release(this.#tx);
    this.#pass(burst, this.#tx);
    this.#push();
  }

  close(): void {
    const { pool } = this.#options;
    for (const lane of [this.#rx, this.#tx]) {
      for (const p of lane.ready.splice(0)) pool.free(p);
      for (const { p } of lane.delayed.splice(0)) pool.free(p);
      if (lane.swapped !== null) pool.free(lane.swapped);
      lane.swapped = null;
    }
    this.#inner.close();
  }

  /** What has waited long enough goes to `ready`. */
  #release(lane: Lane): void {
    if (lane.swapped !== null) lane.ready.push(lane.swapped);
    lane.swapped = null;
    const now = this.#options.clock.now();
    while (lane.delayed.length > 0 && ((lane.delayed[0]!.due - now) | 0) <= 0) {
      lane.ready.push(lane.delayed.shift()!.p);
    }
  }

  /** `ready` of the tx lane to the device below. */
  #push(): void {
    const { ready } = this.#tx;
    const scratch = this.#scratch;
    while (ready.length > 0) {
      while (!scratch.isFull && ready.length > 0) scratch.push(ready.shift()!);
      this.#inner.transmit(scratch);
    }
  }

  #pass(burst: Burst, lane: Lane): void {
    const { rates } = lane;
    const { pool, drops, clock } = this.#options;
    for (let i = 0; i < burst.count; i++) {
      const p = burst.packets[i]!;
      burst.packets[i] = null;
      if (this.#happens(rates.drop)) {
        drops[Drop.FaultInjected]!++;
        pool.free(p);
        continue;
      }
      if (lane.swapped === null && this.#happens(rates.reorder)) {
        lane.swapped = p;
        continue;
      }
      if (this.#happens(rates.delay)) {
        lane.delayed.push({ p, due: (clock.now() + rates.delayTicks) | 0 });
        continue;
      }
      if (p.csumPartial === 0 && this.#happens(rates.corrupt)) this.#corrupt(p);
      lane.ready.push(p);
      if (this.#happens(rates.duplicate)) {
        const twin = this.#copy(p);
        if (twin === null) drops[Drop.PoolExhausted]!++;
        else lane.ready.push(twin);
      }
      if (lane.swapped !== null) {
        lane.ready.push(lane.swapped);
        lane.swapped = null;
      }
    }
    burst.clear();
  }

  #happens(probability: number): boolean {
    return probability > 0 && (this.#options.rng.next() >>> 0) / 2 ** 32 < probability;
  }

  #corrupt(p: Packet): void {
    const start = this.medium === Medium.Ethernet ? p.l2 : p.l3;
    if (p.end <= start) return;
    const random = this.#options.rng.next() >>> 0;
    const at = start + (Math.floor(random / 8) % (p.end - start));
    p.bytes[at] = p.bytes[at]! ^ (1 << (random & 7));
    p.csumValid = 0;
  }

  #copy(p: Packet): Packet | null {
    const twin = this.#options.pool.take(0);
    if (twin === null) return null;
    const shift = twin.slotStart - p.slotStart;
    twin.bytes.copyWithin(p.l2 + shift, p.l2, p.end);
    twin.l2 = p.l2 + shift;
    twin.l3 = p.l3 + shift;
    twin.l4 = p.l4 + shift;
    twin.end = p.end + shift;
    twin.proto = p.proto;
    twin.csumPartial = p.csumPartial;
    twin.csumValid = p.csumValid;
    twin.gsoType = p.gsoType;
    twin.gsoSize = p.gsoSize;
    return twin;
  }
}
