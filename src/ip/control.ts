/**
 * What an operator can do to the stack: interfaces, addresses, routes, neighbours, as values in and rows out (model/ip.ts).
 *
 * Every change is checked whole before anything is touched; what fails is named by the errno that the kernel would answer with.
 */
import { finish, finishList, type ListSteps, type Steps } from '../base/slices.ts';
import type { Device } from '../device/device.ts';
import { type Interface, LOOPBACK_ID } from '../link/interface.ts';
import { flush as flushLink } from '../link/link.ts';
import { sendArp } from '../link/resolve.ts';
import type { AddressRow, IpCommand, IpErrno, LinkRow, NeighbourRow, RouteRow, RouteType } from '../model/ip.ts';
import { NONE } from '../packet/packet.ts';
import {
  formatIp4,
  formatMac,
  formatPrefix,
  type Ip4,
  ip4,
  isMulticast,
  isZeroNet,
  netmask,
  parseIp4,
  parseMac,
  parsePrefix,
} from '../wire/addr.ts';
import { ArpOp } from '../wire/arp.ts';
import { type Address, isSameNetwork } from './addresses.ts';
import { addNeighbour, delNeighbour, flushNeighbours, forgetNeighbours, listNeighbours } from './neighbour-control.ts';
import { reportUnreachable } from './receive.ts';
import { Route, RouteKind, RouteProtocol, RouteScope } from './routes.ts';
import type { IpStack } from './stack.ts';
import { Sysctls } from './sysctl.ts';

const KIND_OF: Readonly<Record<RouteType, number>> = {
  unicast: RouteKind.Unicast,
  local: RouteKind.Local,
  broadcast: RouteKind.Broadcast,
  blackhole: RouteKind.Blackhole,
  unreachable: RouteKind.Unreachable,
  prohibit: RouteKind.Prohibit,
};
const SCOPE_NAME: Readonly<Record<number, RouteRow['scope']>> = { 0: 'global', 253: 'link', 254: 'host' };
const PROTOCOL_OF = { kernel: RouteProtocol.Kernel, boot: RouteProtocol.Boot, static: RouteProtocol.Static } as const;

/** What an address brings (fib_add_ifaddr): itself, its network, and its broadcast address. */
function addressRoutes({ device, ip, length, scope }: Address): Route[] {
  const { Kernel } = RouteProtocol;
  const network = ip & netmask(length);
  const routes = [new Route(ip, 32, RouteKind.Local, 0, device, ip, 0, Kernel, RouteScope.Host)];
  if (length === 32 || isZeroNet(network)) return routes;
  if (device === LOOPBACK_ID) {
    if (scope === RouteScope.Host) {
      routes.push(new Route(network, length, RouteKind.Local, 0, device, ip, 0, Kernel, RouteScope.Host));
    }
    return routes;
  }
  routes.push(new Route(network, length, RouteKind.Unicast, 0, device, ip, 0, Kernel, RouteScope.Link));
  if (length < 31) {
    const last = network | ~netmask(length);
    routes.push(new Route(last, 32, RouteKind.Broadcast, 0, device, ip, 0, Kernel, RouteScope.Link));
  }
  return routes;
}

/** Rows of a part of a long list. */
const ROWS = 256;

/** Of a device that is up. */
const NEED_DEVICE: ReadonlySet<number> = new Set([RouteKind.Unicast, RouteKind.Broadcast]);

/** Of what goes no further, and has no device. */
const ENDS: ReadonlySet<number> = new Set([RouteKind.Blackhole, RouteKind.Unreachable, RouteKind.Prohibit]);

type RouteSpec = Partial<RouteRow> & { readonly to: string };

export class IpControl {
  readonly stack: IpStack;
  readonly sysctls: Sysctls;

  constructor(stack: IpStack) {
    this.stack = stack;
    this.sysctls = new Sysctls(stack);
    stack.link.onUnreachable = (p) => reportUnreachable(stack, p);
    const loopback = ip4('127.0.0.0');
    stack.routes.insert(
      new Route(
        loopback,
        8,
        RouteKind.Local,
        0,
        LOOPBACK_ID,
        ip4('127.0.0.1'),
        0,
        RouteProtocol.Kernel,
        RouteScope.Host,
      ),
    );
  }

  // interfaces

  /** @param options isHost: the host port; peer: the kernel's address behind it, int32; 0 or absent for other devices */
  addInterface(device: Device, options: { readonly isHost?: boolean; readonly peer?: number } = {}): Interface {
    const { stack } = this;
    const peer = options.peer ?? 0;
    const ifc = stack.link.addInterface(device, options.isHost === true, peer);
    this.sysctls.addInterface(ifc);
    if (ifc.isHost) stack.hostId = ifc.id;
    if (peer !== 0) {
      stack.routes.insert(
        new Route(peer, 32, RouteKind.Local, 0, ifc.id, peer, 0, RouteProtocol.Kernel, RouteScope.Host),
      );
    }
    stack.routes.changed();
    return ifc;
  }

  /** Everything that belongs to the interface goes with it. The caller has stopped reading it and closes the device. */
  *removeInterface(id: number): Steps<void> {
    const { stack } = this;
    const ifc = stack.link.interfaces[id];
    if (id === LOOPBACK_ID || ifc === null || ifc === undefined) return;
    yield* stack.routes.removeOf(id);
    flushLink(stack.link);
    forgetNeighbours(stack.link, id, true);
    for (const address of [...stack.addresses.rows]) if (address.device === id) stack.addresses.remove(address);
    this.sysctls.removeInterface(ifc);
    stack.datagrams.forget(id);
    stack.onAddressGone?.(id, 0);
    stack.link.interfaces[id] = null;
    if (stack.hostId === id) stack.hostId = NONE;
    stack.routes.changed();
  }

  listLinks(): LinkRow[] {
    const none = { rxPackets: 0, rxBytes: 0, rxDropped: 0, txPackets: 0, txBytes: 0, txErrors: 0, txDropped: 0 };
    return this.stack.link.interfaces.flatMap((ifc) => {
      if (ifc === null) return [];
      const device = ifc.device;
      return {
        index: ifc.id + 1,
        name: ifc.name,
        kind: device?.kind ?? 'loopback',
        mtu: ifc.mtu,
        mac: ifc.hasNeighbours && device !== null ? formatMac(device.macHi, device.macLo) : undefined,
        up: ifc.isUp,
        stats: { ...(device?.stats ?? none) },
      };
    });
  }

  *#setLink(c: Extract<IpCommand, { op: 'link-set' }>): Steps<IpErrno | null> {
    const ifc = this.stack.link.findInterface(c.device);
    if (ifc === undefined) return 'ENODEV';
    const device = ifc.device;
    const address = c.mac === undefined ? undefined : parseMac(c.mac);
    if (c.mac !== undefined && (address === undefined || !ifc.hasNeighbours)) return 'EINVAL';
    if (address !== undefined && ((address.hi & 0x100) !== 0 || (address.hi | address.lo) === 0))
      return 'EADDRNOTAVAIL';
    if (c.mtu !== undefined) {
      if (device === null || !Number.isInteger(c.mtu)) return 'EINVAL';
      if (c.mtu < 68) return 'EINVAL/mtu-low';
      if (c.mtu > 65535) return 'EINVAL/mtu-high';
    }
    if (device !== null && c.mtu !== undefined) device.mtu = c.mtu;
    if (c.up !== undefined && c.up !== ifc.isUp) yield* this.#upOrDown(ifc, c.up);
    if (device !== null && address !== undefined) {
      device.macHi = address.hi;
      device.macLo = address.lo;
    }
    if (c.up === false) {
      forgetNeighbours(this.stack.link, ifc.id, true);
      this.stack.onAddressGone?.(ifc.id, 0);
    }
    if (address !== undefined || c.up === true) this.announce(ifc);
    this.stack.routes.changed();
    return null;
  }

  /** Who goes down loses its routes but those of its own addresses; those of networks come back with it (fib_disable_ip, fib_add_ifaddr). */
  *#upOrDown(ifc: Interface, isUp: boolean): Steps<void> {
    const { routes, addresses } = this.stack;
    ifc.isUp = isUp;
    if (!isUp) yield* routes.removeOf(ifc.id, NEED_DEVICE);
    for (const address of isUp ? addresses.rows : []) {
      if (address.device !== ifc.id) continue;
      yield* routes.makeRoom();
      this.#addAddressRoutes(address);
      yield;
    }
  }

  // addresses

  addAddress(device: string, ip: Ip4, length: number): IpErrno | null {
    const { stack } = this;
    const ifc = stack.link.findInterface(device);
    if (ifc === undefined) return 'ENODEV';
    if (length < 0 || length > 32 || isMulticast(ip) || ip === -1) return 'EINVAL';
    if (stack.addresses.find(ifc.id, ip, length) !== undefined) return 'EEXIST';
    const address: Address = {
      device: ifc.id,
      ip,
      length,
      scope: ip >>> 24 === 127 ? RouteScope.Host : RouteScope.Global,
    };
    stack.addresses.add(address);
    this.#addAddressRoutes(address);
    this.#announceAddress(ifc, ip);
    return null;
  }

  *#delAddress(device: string, ip: Ip4, length: number): Steps<IpErrno | null> {
    const { stack } = this;
    const ifc = stack.link.findInterface(device);
    if (ifc === undefined) return 'ENODEV';
    const address = stack.addresses.find(ifc.id, ip, length);
    if (address === undefined) return 'EADDRNOTAVAIL';
    stack.addresses.remove(address);
    for (const route of addressRoutes(address)) {
      const same = this.#findLike(route);
      if (same !== null && same.source === ip) stack.routes.remove(same);
    }
    // What went may be another's as well: a sibling's in the same network, or that of the same address with another length.
    for (const other of stack.addresses.rows) {
      const isKin = other.ip === ip || isSameNetwork(other.ip, ip, Math.min(other.length, length));
      if (other.device === ifc.id && isKin) this.#addAddressRoutes(other);
    }
    if (!stack.addresses.isLocal(ip)) yield* stack.routes.removeWithSource(ip);
    stack.onAddressGone?.(ifc.id, ip);
    return null;
  }

  listAddresses(): AddressRow[] {
    return finishList(this.addressesInSteps());
  }

  *addressesInSteps(): ListSteps<AddressRow> {
    const { rows } = this.stack.addresses;
    let at = 0;
    for (; rows.length - at > ROWS; at += ROWS) yield this.#addressRows(rows.slice(at, at + ROWS));
    return this.#addressRows(rows.slice(at));
  }

  #addressRows(addresses: readonly Address[]): AddressRow[] {
    return addresses.map((a) => ({
      device: this.#nameOf(a.device),
      address: formatIp4(a.ip),
      prefixLength: a.length,
      scope: SCOPE_NAME[a.scope] ?? 'global',
    }));
  }

  /** RFC 5227 §2.3: tell the segment which addresses are ours; also what moves a VIP here. */
  announce(ifc: Interface): void {
    for (const a of this.stack.addresses.rows) if (a.device === ifc.id) this.#announceAddress(ifc, a.ip);
  }

  #announceAddress(ifc: Interface, ip: number): void {
    if (ifc.hasNeighbours && ifc.isUp) sendArp(this.stack.link, ifc, ArpOp.Request, 0xffff, -1, ip, 0, 0, ip);
  }

  /** Each unless it is there already: the first address of a network keeps it. Of a device that is down, none but its own. */
  #addAddressRoutes(address: Address): void {
    const { link, routes } = this.stack;
    const isUp = link.interfaces[address.device]!.isUp;
    for (const route of addressRoutes(address))
      if (this.#findLike(route) === null && (isUp || !NEED_DEVICE.has(route.kind))) routes.insert(route);
  }

  /** The route of the same kind to the same prefix by the same device. */
  #findLike(route: Route): Route | null {
    let other = this.stack.routes.chain(route.prefix, route.length, route.isInLocalTable);
    while (other !== null && !(other.kind === route.kind && other.device === route.device)) other = other.next;
    return other;
  }

  // routes

  #parseRoute(spec: RouteSpec): Route | IpErrno {
    const { stack } = this;
    const type = spec.type ?? 'unicast';
    const to = spec.to === 'default' ? { ip: 0 as Ip4, length: 0 } : parsePrefix(spec.to);
    if (to === undefined) return 'EINVAL';
    let device = LOOPBACK_ID;
    if (spec.device !== undefined) {
      const ifc = stack.link.findInterface(spec.device);
      if (ifc === undefined) return 'ENODEV';
      device = ifc.id;
    }
    if ((to.ip & ~netmask(to.length)) !== 0) return 'EINVAL/prefix';
    const metric = spec.metric ?? 0;
    if (!Number.isInteger(metric) || metric < 0 || metric > 0xffffffff) return 'EINVAL';
    const via = spec.via === undefined ? 0 : parseIp4(spec.via);
    const source = spec.source === undefined ? 0 : parseIp4(spec.source);
    if (via === undefined || source === undefined) return 'EINVAL';
    if (type === 'unicast') {
      if (via === 0 && spec.device === undefined) return 'ENODEV';
      if (via !== 0) {
        const hop = stack.routes.lookup(via);
        const isOnLink = hop !== null && hop.kind === RouteKind.Unicast && hop.via === 0;
        if (!isOnLink || (spec.device !== undefined && hop.device !== device)) return 'ENETUNREACH';
        device = hop.device;
      }
    }
    const kind = KIND_OF[type];
    if (ENDS.has(kind)) {
      if (via !== 0 || spec.device !== undefined) return 'EINVAL/way';
    } else if (type !== 'unicast' && via !== 0) return type === 'local' ? 'EINVAL/host-gateway' : 'EINVAL/gateway';
    if (NEED_DEVICE.has(kind) && !stack.link.interfaces[device]!.isUp) return 'ENETDOWN';
    const scope =
      type === 'local' ? RouteScope.Host : type === 'unicast' && via === 0 ? RouteScope.Link : RouteScope.Global;
    const protocol = PROTOCOL_OF[spec.protocol ?? 'boot'];
    // A local route may prefer the address that it makes ours.
    const isChecked = source !== 0 && !ENDS.has(kind) && !(type === 'local' && source === to.ip);
    if (isChecked && !stack.addresses.isLocal(source)) return 'EINVAL/source';
    return new Route(to.ip, to.length, kind, via, device, source, metric, protocol, scope);
  }

  addRoute(spec: RouteSpec): IpErrno | null {
    const route = this.#parseRoute(spec);
    if (typeof route === 'string') return route;
    if (this.#sameMetric(route) !== null) return 'EEXIST';
    this.stack.routes.insert(route);
    return null;
  }

  replaceRoute(spec: RouteSpec): IpErrno | null {
    const route = this.#parseRoute(spec);
    if (typeof route === 'string') return route;
    const old = this.#sameMetric(route);
    if (old !== null) this.stack.routes.remove(old);
    this.stack.routes.insert(route);
    return null;
  }

  /** The first route of the prefix that agrees with everything given (fib_table_delete). */
  delRoute(spec: RouteSpec): IpErrno | null {
    const { routes, link } = this.stack;
    const to = spec.to === 'default' ? { ip: 0 as Ip4, length: 0 } : parsePrefix(spec.to);
    if (to === undefined) return 'EINVAL';
    const device = spec.device === undefined ? undefined : link.findInterface(spec.device);
    if (spec.device !== undefined && device === undefined) return 'ENODEV';
    if ((to.ip & ~netmask(to.length)) !== 0) return 'EINVAL/prefix';
    const isLocal = spec.type === 'local' || spec.type === 'broadcast';
    let route = routes.chain(to.ip, to.length, isLocal);
    while (route !== null && !this.#agrees(route, spec, device?.id)) route = route.next;
    if (route === null) return 'ESRCH';
    routes.remove(route);
    return null;
  }

  #agrees(route: Route, spec: RouteSpec, device: number | undefined): boolean {
    return (
      (spec.type === undefined || route.kind === KIND_OF[spec.type]) &&
      (spec.metric === undefined || route.metric === spec.metric) &&
      (spec.via === undefined || route.via === parseIp4(spec.via)) &&
      (spec.source === undefined || route.source === parseIp4(spec.source)) &&
      (spec.protocol === undefined || route.protocol === PROTOCOL_OF[spec.protocol]) &&
      (device === undefined || route.device === device)
    );
  }

  #sameMetric(route: Route): Route | null {
    let other = this.stack.routes.chain(route.prefix, route.length, route.isInLocalTable);
    while (other !== null && other.metric !== route.metric) other = other.next;
    return other;
  }

  /** All tables; `ip route show` prints those that are neither local nor broadcast. */
  listRoutes(): RouteRow[] {
    return finishList(this.routesInSteps());
  }

  *routesInSteps(): ListSteps<RouteRow> {
    const routes = yield* this.stack.routes.all();
    let at = 0;
    for (; routes.length - at > ROWS; at += ROWS) yield this.#routeRows(routes.slice(at, at + ROWS));
    return this.#routeRows(routes.slice(at));
  }

  #routeRows(routes: readonly Route[]): RouteRow[] {
    const kinds = Object.entries(KIND_OF) as [RouteType, number][];
    const protocols = Object.entries(PROTOCOL_OF) as [RouteRow['protocol'], number][];
    return routes.map((r) => ({
      to:
        r.length === 0
          ? 'default'
          : r.length === 32
            ? formatIp4(r.prefix)
            : formatPrefix({ ip: r.prefix as Ip4, length: r.length }),
      via: r.via === 0 ? undefined : formatIp4(r.via),
      device: ENDS.has(r.kind) ? undefined : this.#nameOf(r.device),
      source: r.source === 0 ? undefined : formatIp4(r.source),
      metric: r.metric,
      type: kinds.find(([, kind]) => kind === r.kind)![0],
      protocol: protocols.find(([, protocol]) => protocol === r.protocol)![0],
      scope: SCOPE_NAME[r.scope] ?? 'global',
    }));
  }

  // neighbours

  listNeighbours(): NeighbourRow[] {
    return finishList(this.neighboursInSteps());
  }

  neighboursInSteps(): ListSteps<NeighbourRow> {
    return listNeighbours(this.stack.link);
  }

  #nameOf(device: number): string {
    return this.stack.link.interfaces[device]?.name ?? 'lo';
  }

  /** One command; null when it worked, else nothing has changed. */
  run(c: IpCommand): IpErrno | null {
    return finish(this.#run(c));
  }

  /** Commands in order, each on its own; nobody else may run any meanwhile. */
  *runInSteps(commands: readonly IpCommand[]): Steps<(IpErrno | null)[]> {
    const results: (IpErrno | null)[] = [];
    for (const command of commands) {
      results.push(yield* this.#run(command));
      yield;
    }
    return results;
  }

  *#run(c: IpCommand): Steps<IpErrno | null> {
    yield* this.stack.routes.makeRoom();
    switch (c.op) {
      case 'addr-add':
      case 'addr-replace':
      case 'addr-del':
        return yield* this.#runAddress(c);
      case 'route-add':
        return this.addRoute(c.route);
      case 'route-replace':
        return this.replaceRoute(c.route);
      case 'route-del':
        return this.delRoute(c.route);
      case 'neigh-add':
        return addNeighbour(this.stack.link, c.device, c.address, c.mac, false);
      case 'neigh-replace':
        return addNeighbour(this.stack.link, c.device, c.address, c.mac, true);
      case 'neigh-del':
        return delNeighbour(this.stack.link, c.device, c.address);
      case 'neigh-flush':
        return flushNeighbours(this.stack.link, c.device);
      case 'link-set':
        return yield* this.#setLink(c);
    }
  }

  *#runAddress(c: Extract<IpCommand, { op: `addr-${string}` }>): Steps<IpErrno | null> {
    const ip = parseIp4(c.address);
    if (ip === undefined || !Number.isInteger(c.prefixLength)) return 'EINVAL';
    if (c.op === 'addr-del') return yield* this.#delAddress(c.device, ip, c.prefixLength);
    const errno = this.addAddress(c.device, ip, c.prefixLength);
    return c.op === 'addr-replace' && errno === 'EEXIST' ? null : errno;
  }
}
