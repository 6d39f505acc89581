/** The addresses of this host: who has which, what ARP answers, which source we choose. Kernel: net/ipv4/devinet.c. */
import type { Interface } from '../link/interface.ts';
import type { ArpAddresses } from '../link/link.ts';
import { isMulticast, netmask } from '../wire/addr.ts';
import { RouteKind, RouteScope, type RouteTable } from './routes.ts';

export interface Address {
  readonly device: number;
  readonly ip: number;
  readonly length: number;
  readonly scope: number;
}

function keyOf(device: number, ip: number, length: number): string {
  return `${device} ${ip} ${length}`;
}

/** True when both lie in the network of `length` bits. */
export function isSameNetwork(a: number, b: number, length: number): boolean {
  return ((a ^ b) & netmask(length)) === 0;
}

export class AddressTable implements ArpAddresses {
  readonly #routes: RouteTable;
  /** In order of configuration: the first of a network is its primary address. */
  #rows: Address[] = [];
  #byKey = new Map<string, Address>();

  constructor(routes: RouteTable) {
    this.#routes = routes;
  }

  get rows(): readonly Address[] {
    return this.#rows;
  }

  /** Become a copy that answers the same for as long as `live` does not change: a packet only reads. */
  copyFrom(live: AddressTable): void {
    this.#rows = live.#rows;
    this.#byKey = live.#byKey;
  }

  add(address: Address): void {
    this.#rows.push(address);
    this.#byKey.set(keyOf(address.device, address.ip, address.length), address);
  }

  remove(address: Address): void {
    this.#rows.splice(this.#rows.indexOf(address), 1);
    this.#byKey.delete(keyOf(address.device, address.ip, address.length));
  }

  find(device: number, ip: number, length: number): Address | undefined {
    return this.#byKey.get(keyOf(device, ip, length));
  }

  /**
   * Source address for a packet to `dst` out of `device` (inet_select_addr): the device's own address in the network of `dst`, else its first, else the
   * first of any other device. 0 when there is none.
   */
  select(device: number, dst: number): number {
    let first = 0;
    let elsewhere = 0;
    for (const a of this.#rows) {
      if (a.scope === RouteScope.Host) continue;
      if (a.device !== device) {
        if (elsewhere === 0 && a.scope === RouteScope.Global) elsewhere = a.ip;
        continue;
      }
      if (isSameNetwork(a.ip, dst, a.length)) return a.ip;
      if (first === 0) first = a.ip;
    }
    return first !== 0 ? first : elsewhere;
  }

  /** The same among addresses that are good everywhere (scope universe); of other devices that with the lowest id comes first, as `lo` does. */
  selectGlobal(device: number, dst: number): number {
    let first = 0;
    let elsewhere: Address | null = null;
    for (const a of this.#rows) {
      if (a.scope !== RouteScope.Global) continue;
      if (a.device !== device) {
        if (elsewhere === null || a.device < elsewhere.device) elsewhere = a;
        continue;
      }
      if (isSameNetwork(a.ip, dst, a.length)) return a.ip;
      if (first === 0) first = a.ip;
    }
    return first !== 0 || elsewhere === null ? first : elsewhere.ip;
  }

  /** The device's own first address, 0 when it has none. */
  own(device: number): number {
    return this.#rows.find((a) => a.device === device && a.scope !== RouteScope.Host)?.ip ?? 0;
  }

  /** arp_process and arp_ignore() of net/ipv4/arp.c; the numbers of arp_ignore are in ip-sysctl.rst. */
  answersFor(ifc: Interface, target: number, sender: number): boolean {
    const route = this.#routes.lookup(target);
    if (route === null || route.kind !== RouteKind.Local) return false;
    if (sender !== 0) {
      if (isMulticast(sender) || sender === -1) return false;
      const back = this.#routes.lookup(sender);
      if (back !== null && (back.kind === RouteKind.Local || back.kind === RouteKind.Broadcast)) return false;
    }
    switch (ifc.arpIgnore) {
      case 1:
        return this.#rows.some((a) => a.device === ifc.id && a.ip === target);
      case 2:
        return this.#rows.some((a) => a.device === ifc.id && a.ip === target && isSameNetwork(a.ip, sender, a.length));
      case 3:
        return this.#rows.some((a) => a.ip === target && a.scope !== RouteScope.Host);
      case 8:
        return false;
      default:
        return true;
    }
  }

  /** arp_solicit() of net/ipv4/arp.c: arp_announce 0 takes any local source of the packet, 1 one of the target's network, 2 always selects. */
  sourceFor(ifc: Interface, target: number, packetSource: number): number {
    if (ifc.arpAnnounce < 2 && packetSource !== 0 && this.isLocal(packetSource)) {
      if (ifc.arpAnnounce === 0) return packetSource;
      const isOnLink = this.#rows.some(
        (a) =>
          a.device === ifc.id && isSameNetwork(a.ip, packetSource, a.length) && isSameNetwork(a.ip, target, a.length),
      );
      if (isOnLink) return packetSource;
    }
    return this.select(ifc.id, target);
  }

  /** Is it an address of one of our devices (inet_lookup_ifaddr_rcu)? */
  isOwn(ip: number): boolean {
    return this.#rows.some((a) => a.ip === ip);
  }

  isLocal(ip: number): boolean {
    return this.#routes.lookup(ip)?.kind === RouteKind.Local;
  }
}
