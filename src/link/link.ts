/**
 * What the link layer and everything above it share: interfaces, pool, drop counters, statistics, the tap.   @hot
 *
 * Each packet ends in exactly one of: transmitted, delivered to the host port, held (stolen, queued, waiting for ARP), or one drop counter, so that
 *
 *   received + born = transmitted + deliveredToHost + held + sum(drops)
 *
 * holds between two calls from outside. What a device then fails to send it counts itself, after `transmitted`.
 */
import { copyState } from '../base/copy-state.ts';
import type { Rng } from '../base/rng.ts';
import { type Device, Medium } from '../device/device.ts';
import { BURST, type Burst } from '../packet/burst.ts';
import { Drop } from '../packet/drop.ts';
import type { Packet } from '../packet/packet.ts';
import type { PacketPool } from '../packet/pool.ts';
import { Interface, LOOPBACK_ID } from './interface.ts';
import { NeighbourTable } from './neighbours.ts';

/** Length of the array of drop counters, which is indexed by Drop. */
export const DROP_COUNT = Object.values(Drop).reduce<number>((highest, reason) => Math.max(highest, reason), 0) + 1;

/** Where a tap sees a packet; a hook's end is `TapPoint.Hook + Hook.X`, with its verdict. */
export const TapPoint = { Receive: 0, Transmit: 1, Drop: 2, Hook: 8 } as const;
export type TapPoint = (typeof TapPoint)[keyof typeof TapPoint];

/** Sees the packet where it is; must neither keep nor change it. `verdict`: hooks' Verdict at a hook, the Drop reason at Drop, else 0. */
export type PacketTap = (p: Packet, where: number, verdict: number) => void;

export interface LinkStats {
  received: number;
  born: number;
  transmitted: number;
  deliveredToHost: number;
  forwarded: number;
  /** Packets that are neither here nor gone: stolen, queued, or waiting for a neighbour. */
  held: number;
  /** ICMP messages not sent because of the rate limits; no packet existed. */
  icmpRateLimited: number;
}

/** What ARP must know of addresses; `ip` implements it. */
export interface ArpAddresses {
  /** Is a request about `target` from `sender` (0 in a probe), arrived at `ifc`, ours to answer? */
  answersFor(ifc: Interface, target: number, sender: number): boolean;
  /** Sender address of our request for `target`; `packetSource` is the source of the packet that waits, 0 when none does. */
  sourceFor(ifc: Interface, target: number, packetSource: number): number;
}

export class LinkLayer {
  readonly pool: PacketPool;
  readonly rng: Rng;
  readonly drops = new Float64Array(DROP_COUNT);
  readonly stats: LinkStats = {
    received: 0,
    born: 0,
    transmitted: 0,
    deliveredToHost: 0,
    forwarded: 0,
    held: 0,
    icmpRateLimited: 0,
  };
  /** By id; null where one was removed. */
  readonly interfaces: (Interface | null)[] = [];
  readonly neighbours: NeighbourTable;
  tap: PacketTap | null = null;
  readonly #taps: PacketTap[] = [];
  /** Ticks; set once per breath. */
  now = 0;
  addresses: ArpAddresses;
  /** Told of each packet whose neighbour did not answer, just before it is dropped. */
  onUnreachable: (p: Packet) => void = () => {};

  /** @param neighbours rows of their table; as many as it can have when absent */
  constructor(pool: PacketPool, rng: Rng, addresses: ArpAddresses, neighbours?: number) {
    this.pool = pool;
    this.rng = rng;
    this.addresses = addresses;
    this.neighbours = new NeighbourTable(rng, neighbours);
    this.interfaces.push(new Interface(LOOPBACK_ID, 'lo', null, false, false, 0));
  }

  // cold: interfaces come and go
  addInterface(device: Device, isHost: boolean, peer: number): Interface {
    const free = this.interfaces.indexOf(null);
    const id = free < 0 ? this.interfaces.length : free;
    const ifc = new Interface(id, device.name, device, device.medium === Medium.Ethernet, isHost, peer);
    this.interfaces[id] = ifc;
    return ifc;
  }

  /** Become a copy, on stand-ins for the devices, which `interfaces` holds at the same places already. */
  copyFrom(live: LinkLayer): void {
    copyState<LinkLayer>(this, live);
    for (let i = 0; i < live.interfaces.length; i++) {
      const ifc = live.interfaces[i]!;
      if (ifc !== null) copyState<Interface>(this.interfaces[i]!, ifc);
    }
    // No packet waits in the copy; that too many wait already is a number of packets of this pool.
    const isFull = live.neighbours.totalWaiting >= live.pool.packets.length >> 2;
    if (isFull) this.neighbours.totalWaiting = this.pool.packets.length >> 2;
  }

  addTap(tap: PacketTap): void {
    this.#taps.push(tap);
    this.#setTap();
  }

  removeTap(tap: PacketTap): void {
    const at = this.#taps.indexOf(tap);
    if (at >= 0) this.#taps.splice(at, 1);
    this.#setTap();
  }

  #setTap(): void {
    const [first, ...others] = this.#taps;
    if (first === undefined) this.tap = null;
    else if (others.length === 0) this.tap = first;
    else {
      const all = [first, ...others];
      this.tap = (p, where, verdict) => {
        for (const tap of all) tap(p, where, verdict);
      };
    }
  }

  findInterface(name: string): Interface | undefined {
    return this.interfaces.find((ifc) => ifc?.name === name) ?? undefined;
  }
}

// hot again

/** The packet ends here: counted, seen by the tap, back in the pool. */
export function drop(link: LinkLayer, p: Packet, reason: number): void {
  link.drops[reason]!++;
  if (link.tap !== null) link.tap(p, TapPoint.Drop, reason);
  link.pool.free(p);
}

/** A packet of `length` bytes from l2 on, born here; null (counted as a drop) when the pool is empty. */
export function bear(link: LinkLayer, length: number): Packet | null {
  link.stats.born++;
  const p = link.pool.take(length);
  if (p === null) link.drops[Drop.PoolExhausted]!++;
  return p;
}

/** Into the interface's transmit burst; the frame is complete. */
export function transmit(link: LinkLayer, ifc: Interface, p: Packet): void {
  if (!ifc.isUp) return drop(link, p, Drop.DeviceGone);
  p.outDevice = ifc.id;
  if (link.tap !== null) link.tap(p, TapPoint.Transmit, 0);
  if (ifc.isHost) link.stats.deliveredToHost++;
  else link.stats.transmitted++;
  const tx = ifc.tx;
  tx.push(p);
  if (tx.count === BURST) flushBurst(ifc, tx);
}

function flushBurst(ifc: Interface, tx: Burst): void {
  const device = ifc.device;
  if (device !== null) device.transmit(tx);
}

/** Hand what waits to the devices: once at the end of each breath. */
export function flush(link: LinkLayer): void {
  const interfaces = link.interfaces;
  for (let i = 0; i < interfaces.length; i++) {
    const ifc = interfaces[i]!;
    if (ifc !== null && ifc.tx.count > 0) flushBurst(ifc, ifc.tx);
  }
}
