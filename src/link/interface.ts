/** One interface of the host that tapvs is: a device, its transmit burst and the per-interface switches.   @hot */
import type { Device } from '../device/device.ts';
import { Burst } from '../packet/burst.ts';

/** The interface that addresses without a device belong to; looped packets come in from it. */
export const LOOPBACK_ID = 0;

export class Interface {
  readonly id: number;
  readonly name: string;
  /** null for `lo`. */
  readonly device: Device | null;
  /** True on Ethernet: there are neighbours to resolve. */
  readonly hasNeighbours: boolean;
  readonly isHost: boolean;
  /** Address of the kernel's side of the host port, 0 when there is none; it counts as local. */
  readonly peer: number;
  readonly tx: Burst;
  isUp = true;
  /** The effective values of net.ipv4.conf.*, "all" and the interface combined as the kernel combines them. */
  forwarding = 0;
  rpFilter = 0;
  acceptLocal = 0;
  arpIgnore = 0;
  arpAnnounce = 0;
  sendRedirects = 0;
  routeLocalnet = 0;

  constructor(id: number, name: string, device: Device | null, hasNeighbours: boolean, isHost: boolean, peer: number) {
    this.id = id;
    this.name = name;
    this.device = device;
    this.hasNeighbours = hasNeighbours;
    this.isHost = isHost;
    this.peer = peer;
    this.tx = new Burst();
  }

  /** Largest IP packet of one segment, bytes. */
  get mtu(): number {
    return this.device === null ? 65536 : this.device.mtu;
  }
}
