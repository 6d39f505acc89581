/** Forwarding: TTL, MTU, FORWARD, and out. RFC 1812 §5.3.1; the order is that of ip_forward (net/ipv4/ip_forward.c).   @hot */
import { Hook, Verdict } from '../hooks/hooks.ts';
import { drop } from '../link/link.ts';
import { Drop } from '../packet/drop.ts';
import { type Packet, PacketType } from '../packet/packet.ts';
import { IcmpType, UnreachCode } from '../wire/icmpv4.ts';
import * as ipv4 from '../wire/ipv4.ts';
import { forwardOptions, readOptions } from './options.ts';
import { postRouting } from './output.ts';
import { redirect } from './redirect.ts';
import type { Route } from './routes.ts';
import { segmentLength } from './segment.ts';
import { refuseWith, settle } from './settle.ts';
import { type IpStack, tapHook } from './stack.ts';

const { Accept: ACCEPT, Reroute: REROUTE } = Verdict;
const FORWARD = Hook.Forward;
const HOST = PacketType.Host;
const { IPV4_HEADER } = ipv4;

/** @param route a unicast route; it does not outlive this call */
export function forward(stack: IpStack, p: Packet, route: Route): void {
  const { view, l3 } = p;
  // RFC 1812 §5.3.4: a link-layer broadcast is not forwarded.
  if (p.pktType !== HOST) return drop(stack.link, p, Drop.BroadcastForward);
  if (ipv4.headerLength(view, l3) !== IPV4_HEADER) readOptions(stack, p);
  if (ipv4.ttl(view, l3) <= 1) return refuseWith(stack, p, Drop.TtlExceeded, IcmpType.TimeExceeded, 0, 0);
  const ifc = stack.link.interfaces[route.device] ?? null;
  if (ifc === null) return drop(stack.link, p, Drop.DeviceGone);
  const mtu = ifc.mtu;
  if (p.end - l3 > mtu && ipv4.hasDf(view, l3) && isTooLong(p, mtu)) {
    return refuseWith(stack, p, Drop.FragmentationNeeded, IcmpType.DestUnreachable, UnreachCode.FragNeeded, mtu);
  }
  const nexthop = route.via !== 0 ? route.via : ipv4.dst(view, l3);
  const device = route.device;
  p.nexthop = nexthop;
  p.outDevice = device;
  p.mtu = mtu;
  ipv4.decrementTtl(view, l3);
  if (ifc.sendRedirects !== 0 && p.inDevice === device) {
    redirect(stack, p, nexthop);
    if (stack.hasDeferred) return stack.defer(p, FORWARD);
  }
  onward(stack, p);
}

/** Through FORWARD, with its way chosen. */
export function onward(stack: IpStack, p: Packet): void {
  const { nexthop, outDevice } = p;
  const verdict = stack.hooks.forward.run(p, 0);
  if (stack.link.tap !== null) tapHook(stack, p, FORWARD, verdict);
  if (verdict !== ACCEPT) {
    if (verdict === REROUTE && p.options !== 0) forwardOptions(p, stack.addresses.select(outDevice, nexthop));
    if (verdict === REROUTE && p.nexthop === nexthop && p.outDevice === outDevice) p.nexthop = 0;
    return settle(stack, p, verdict);
  }
  afterForward(stack, p);
}

/** With DF: of a super-packet the segments count, of a datagram that came in pieces the longest of these (ip_exceeds_mtu). */
function isTooLong(p: Packet, mtu: number): boolean {
  if (p.gsoType !== 0) return segmentLength(p) > mtu;
  return p.fragMax === 0 || p.fragMax > mtu;
}

/** Its options are complete when the way out is known (ip_forward_options). */
function leave(stack: IpStack, p: Packet): void {
  forwardOptions(p, leavesBy(stack, p));
}

/** The address by which it leaves: what the route prefers, else the device's (ip_rt_get_source). */
function leavesBy(stack: IpStack, p: Packet): number {
  return stack.resolve(ipv4.dst(p.view, p.l3)) ? stack.source : stack.addresses.select(p.outDevice, p.nexthop);
}

export function afterForward(stack: IpStack, p: Packet): void {
  stack.stats.forwarded++;
  if (p.options !== 0) leave(stack, p);
  postRouting(stack, p);
}
