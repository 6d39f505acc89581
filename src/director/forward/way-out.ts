/**
 * The way to a real server, and whether the packet may take it: route, TTL, MTU (net/netfilter/ipvs/ip_vs_xmit.c, __ip_vs_get_out_rt).   @hot
 */
import { Drop } from '../../packet/drop.ts';
import type { Packet } from '../../packet/packet.ts';
import { isLoopback } from '../../wire/addr.ts';
import { IcmpType, UnreachCode } from '../../wire/icmpv4.ts';
import { decrementTtl, hasDf, IPV4_HEADER, IpProto, ttl } from '../../wire/ipv4.ts';
import { segmentHeader } from '../accounting.ts';
import { ROUTE_LOCAL, ROUTE_NONE, ROUTE_SHIFT, RouteColumn } from '../destinations.ts';
import type { Director } from '../director.ts';

export const WayOut = { None: 0, Local: 1, Remote: 2 } as const;

const { None: NONE, Local: LOCAL, Remote: REMOTE } = WayOut;
const { Icmp: ICMP } = IpProto;
const NO_OPTIONS = IPV4_HEADER;
const { Nexthop: NEXTHOP, Device: DEVICE, Mtu: MTU, Source: SOURCE } = RouteColumn;
const { TimeExceeded: TIME_EXCEEDED, DestUnreachable: DEST_UNREACHABLE } = IcmpType;
/** RFC 791: what every network must carry. */
const LEAST_MTU = 68;
const { Host: HOST_UNREACHABLE, FragNeeded: FRAGMENTATION_NEEDED } = UnreachCode;

/** MTU of the cached route of `dest`, ROUTE_LOCAL or ROUTE_NONE; asked anew when routing has changed since. */
function routeOf(director: Director, dest: number): number {
  const route = director.dests.route;
  const at = dest << ROUTE_SHIFT;
  const routing = director.routing;
  if (route[at] !== routing.generation) {
    const found = routing.resolve(director.dests.ip[dest]!);
    route[at] = routing.generation;
    route[at + NEXTHOP] = routing.nexthop;
    route[at + DEVICE] = routing.outDevice;
    route[at + MTU] = !found || routing.isBroadcast ? ROUTE_NONE : routing.isLocal ? ROUTE_LOCAL : routing.mtu;
    route[at + SOURCE] = found ? routing.source : 0;
  }
  return route[at + MTU]!;
}

function owe(p: Packet, drop: number, type: number, code: number, mtu: number): number {
  p.drop = drop;
  // RFC 1122 §3.2.2: no ICMP error about an ICMP error.
  if (p.proto !== ICMP) {
    p.rejectType = type;
    p.rejectCode = code;
    p.rejectMtu = mtu;
  }
  return NONE;
}

/**
 * Set the packet on its way to `dest`: next hop, device and MTU are in the packet, its TTL is one less. For one of our own addresses nothing is changed.
 * @param overhead bytes that a tunnel will put before it, 0 without one
 * @returns None when it may not go: `p.drop` and what the sender is owed are set
 */
export function wayOut(director: Director, p: Packet, dest: number, overhead: number): number {
  const mtu = routeOf(director, dest);
  if (mtu === ROUTE_LOCAL) return LOCAL;
  if (mtu === ROUTE_NONE) return owe(p, Drop.DirectorNoRoute, DEST_UNREACHABLE, HOST_UNREACHABLE, 0);
  const { view, l3 } = p;
  if (p.l4 - l3 !== NO_OPTIONS) director.routing.recordOptions(p);
  if (ttl(view, l3) <= 1) return owe(p, Drop.TtlExceeded, TIME_EXCEEDED, 0, 0);
  decrementTtl(view, l3);
  const room = mtu - overhead;
  if (overhead !== 0 && room < LEAST_MTU) {
    p.drop = Drop.DirectorTunnelMtu;
    return NONE;
  }
  const isChecked = overhead === 0 || director.sysctls.pmtuDisc !== 0;
  if (isChecked && isTooLong(p, room)) {
    return owe(p, Drop.FragmentationNeeded, DEST_UNREACHABLE, FRAGMENTATION_NEEDED, room);
  }
  const route = director.dests.route;
  const at = dest << ROUTE_SHIFT;
  p.nexthop = route[at + NEXTHOP]!;
  p.outDevice = route[at + DEVICE]!;
  p.mtu = mtu;
  if (p.options !== 0) director.routing.sumOptions(p);
  return REMOTE;
}

/** May it not be cut, and is it longer? A super-packet is as long as its segments; an ICMP error is never refused for its length. */
function isTooLong(p: Packet, room: number): boolean {
  const length = p.gsoType === 0 ? p.end - p.l3 : segmentHeader(p) + p.gsoSize;
  return length > room && p.proto !== ICMP && hasDf(p.view, p.l3);
}

/** The same to any address, which is looked up for each packet. */
export function wayTo(director: Director, p: Packet, ip: number): number {
  const { routing } = director;
  if (!routing.resolve(ip) || routing.isBroadcast) {
    return owe(p, Drop.DirectorNoClientRoute, DEST_UNREACHABLE, HOST_UNREACHABLE, 0);
  }
  if (routing.isLocal) return LOCAL;
  const { view, l3 } = p;
  if (p.l4 - l3 !== NO_OPTIONS) director.routing.recordOptions(p);
  if (ttl(view, l3) <= 1) return owe(p, Drop.TtlExceeded, TIME_EXCEEDED, 0, 0);
  decrementTtl(view, l3);
  const { mtu } = routing;
  if (isTooLong(p, mtu)) return owe(p, Drop.FragmentationNeeded, DEST_UNREACHABLE, FRAGMENTATION_NEEDED, mtu);
  p.nexthop = routing.nexthop;
  p.outDevice = routing.outDevice;
  p.mtu = mtu;
  if (p.options !== 0) director.routing.sumOptions(p);
  return REMOTE;
}

/** The same for a packet whose destination becomes the server's address: 127.0.0.0/8 is no place for what came from outside (ip_vs_nat_xmit). */
export function masqWayOut(director: Director, p: Packet, dest: number): number {
  const way = wayOut(director, p, dest, 0);
  if (way === LOCAL && p.isLocalOut === 0 && isLoopback(director.dests.ip[dest]!)) {
    p.drop = Drop.DirectorNoRoute;
    return NONE;
  }
  return way;
}
