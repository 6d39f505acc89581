/**
 * The way out: LOCAL_OUT for what is born here, POSTROUTING for all, then MTU, checksums, and the link.   @hot
 * Kernel: __ip_local_out, ip_output and ip_finish_output of net/ipv4/ip_output.c.
 */
import { Hook, Verdict } from '../hooks/hooks.ts';
import { LOOPBACK_ID } from '../link/interface.ts';
import { drop, transmit } from '../link/link.ts';
import { BROADCAST_HOP, output as linkOutput } from '../link/resolve.ts';
import { Drop } from '../packet/drop.ts';
import { NONE, type Packet, PacketType } from '../packet/packet.ts';
import { completeChecksum } from '../packet/sum.ts';
import { isLoopback, isMulticast } from '../wire/addr.ts';
import { IcmpType, UnreachCode } from '../wire/icmpv4.ts';
import * as ipv4 from '../wire/ipv4.ts';
import { GsoType } from '../wire/virtio-net.ts';
import { canRefragment, fragment, refragment } from './fragment.ts';
import { type Route, RouteKind } from './routes.ts';
import { segment, segmentLength } from './segment.ts';
import { refuseWith, settle } from './settle.ts';
import { type IpStack, LOOPBACK_MTU, tapHook } from './stack.ts';

const { Accept: ACCEPT, Reroute: REROUTE } = Verdict;
const { LocalOut: LOCAL_OUT, PostRouting: POST_ROUTING, PreRouting: PRE_ROUTING } = Hook;
const { Local: LOCAL, Broadcast: BROADCAST, Unicast: UNICAST } = RouteKind;
const DF = ipv4.DF;
const UDP_FRAGMENT = GsoType.UdpFragment;

/** Route and send a packet that starts at LOCAL_OUT: born here, from the host port, or sent again by a hook. */
export function localOut(stack: IpStack, p: Packet): void {
  if (!routeOut(stack, p)) return;
  const dst = ipv4.dst(p.view, p.l3);
  const nexthop = p.nexthop;
  const device = p.outDevice;
  const verdict = stack.hooks.localOut.run(p, 0);
  if (stack.link.tap !== null) tapHook(stack, p, LOCAL_OUT, verdict);
  const isMoved = ipv4.dst(p.view, p.l3) !== dst;
  // ip_route_me_harder: the way is by destination when a hook changed that, or asked for it, and chose no next hop of its own.
  if ((isMoved || verdict === REROUTE) && p.nexthop === nexthop && p.outDevice === device) p.nexthop = 0;
  if (verdict !== ACCEPT) return settle(stack, p, verdict);
  if ((isMoved || p.nexthop === 0) && !routeOut(stack, p)) return;
  postRouting(stack, p);
}

/** After LOCAL_OUT for a packet that was held there; with `nexthop` 0 it is routed anew. */
export function afterLocalOut(stack: IpStack, p: Packet): void {
  if (routeOut(stack, p)) postRouting(stack, p);
}

/** Set nexthop, outDevice, mtu and isLocalIn, from `nexthop` if a hook has chosen one, else by destination. False: no way, the packet has ended. */
function routeOut(stack: IpStack, p: Packet): boolean {
  const chosen = p.nexthop;
  if (chosen !== 0 && p.outDevice > LOOPBACK_ID) {
    const ifc = stack.link.interfaces[p.outDevice] ?? null;
    if (ifc === null) return gone(stack, p);
    // What the hook knows of the path may be less than the device takes.
    if (p.mtu === 0 || p.mtu > ifc.mtu) p.mtu = ifc.mtu;
    p.isLocalIn = 0;
    return true;
  }
  const route = stack.routes.lookup(chosen !== 0 ? chosen : ipv4.dst(p.view, p.l3));
  if (route === null) return noWay(stack, p, Drop.NoRoute, UnreachCode.Net);
  const kind = route.kind;
  if (kind === LOCAL) {
    p.nexthop = ipv4.dst(p.view, p.l3);
    p.outDevice = LOOPBACK_ID;
    p.mtu = LOOPBACK_MTU;
    p.isLocalIn = 1;
    return true;
  }
  if (kind !== UNICAST && kind !== BROADCAST) return unreachable(stack, p, kind);
  const ifc = stack.link.interfaces[route.device] ?? null;
  if (ifc === null) return gone(stack, p);
  if (isLoopback(ipv4.src(p.view, p.l3)) && ifc.routeLocalnet === 0) {
    // __mkroute_output.
    drop(stack.link, p, Drop.MartianSource);
    return false;
  }
  p.nexthop = kind === BROADCAST ? BROADCAST_HOP : nextHop(p, route, chosen);
  p.outDevice = route.device;
  p.mtu = ifc.mtu;
  p.isLocalIn = 0;
  return true;
}

/** Gateway, or what was asked for itself; multicast needs no gateway (RFC 1112 §6.4). */
function nextHop(p: Packet, route: Route, chosen: number): number {
  const dst = ipv4.dst(p.view, p.l3);
  if (route.via !== 0 && !isMulticast(dst)) return route.via;
  return chosen !== 0 ? chosen : dst;
}

function gone(stack: IpStack, p: Packet): false {
  drop(stack.link, p, Drop.DeviceGone);
  return false;
}

/** A sender that is not this code itself learns why. */
function noWay(stack: IpStack, p: Packet, reason: number, code: number): false {
  if (p.inDevice === NONE) drop(stack.link, p, reason);
  else refuseWith(stack, p, reason, IcmpType.DestUnreachable, code, 0);
  return false;
}

function unreachable(stack: IpStack, p: Packet, kind: number): false {
  if (kind === RouteKind.Blackhole) {
    drop(stack.link, p, Drop.RouteUnreachable);
    return false;
  }
  const code = kind === RouteKind.Prohibit ? UnreachCode.AdminProhibited : UnreachCode.Host;
  return noWay(stack, p, Drop.RouteUnreachable, code);
}

/** Run POSTROUTING and send; the packet is routed. */
export function postRouting(stack: IpStack, p: Packet): void {
  const verdict = stack.hooks.postRouting.run(p, 0);
  if (stack.link.tap !== null) tapHook(stack, p, POST_ROUTING, verdict);
  if (verdict !== ACCEPT) return settle(stack, p, verdict);
  finish(stack, p);
}

/** After POSTROUTING: loop, cut, complete, and hand to the link. */
export function finish(stack: IpStack, p: Packet): void {
  if (p.outDevice === LOOPBACK_ID) return loop(stack, p);
  if (p.gsoType !== 0) return finishSuper(stack, p);
  if (p.end - p.l3 > p.mtu || p.fragMax !== 0) return finishLong(stack, p);
  finishWhole(stack, p);
}

/** To ourselves: in again at PREROUTING, as the kernel's loopback device does. */
function loop(stack: IpStack, p: Packet): void {
  p.inDevice = LOOPBACK_ID;
  p.pktType = PacketType.Host;
  p.nexthop = 0;
  p.outDevice = NONE;
  p.isLocalOut = 0;
  stack.defer(p, PRE_ROUTING);
}

/** A packet that fits: complete what the device cannot, and send. */
function finishWhole(stack: IpStack, p: Packet): void {
  const ifc = stack.link.interfaces[p.outDevice] ?? null;
  if (ifc === null || ifc.device === null) return drop(stack.link, p, Drop.DeviceGone);
  if (p.csumPartial !== 0 && (!ifc.device.canOffload || p.inner !== 0)) completeChecksum(p);
  if (ifc.isHost) return transmit(stack.link, ifc, p);
  linkOutput(stack.link, ifc, p, p.nexthop);
}

/** Longer than the MTU, or put together from fragments: cut it where DF allows, else tell the sender (RFC 1191 §4). */
function finishLong(stack: IpStack, p: Packet): void {
  const { fragMax, mtu } = p;
  if (p.inner === 0 && ipv4.hasDf(p.view, p.l3) && (fragMax === 0 || fragMax > mtu)) return tooBig(stack, p);
  completeChecksum(p);
  if (fragMax === 0) return fragment(stack, p, mtu, finishWhole);
  p.fragMax = 0;
  if (canRefragment(stack, p, mtu)) refragment(stack, p, finishWhole);
  else fragment(stack, p, Math.min(fragMax, mtu), finishWhole, ipv4.fragmentWord(p.view, p.l3) & DF);
}

function tooBig(stack: IpStack, p: Packet): void {
  refuseWith(stack, p, Drop.FragmentationNeeded, IcmpType.DestUnreachable, UnreachCode.FragNeeded, p.mtu);
}

/** A super-packet: its segments must fit, and the device must take it, else it is cut here (ip_finish_output_gso). */
function finishSuper(stack: IpStack, p: Packet): void {
  const ifc = stack.link.interfaces[p.outDevice] ?? null;
  if (ifc === null || ifc.device === null) return drop(stack.link, p, Drop.DeviceGone);
  if ((p.gsoType & 0x7f) === UDP_FRAGMENT) {
    p.gsoType = 0;
    completeChecksum(p);
    return p.end - p.l3 > p.mtu ? fragment(stack, p, p.mtu, finishWhole) : finishWhole(stack, p);
  }
  const isTooBig = segmentLength(p) > p.mtu && p.end - p.l3 > p.mtu;
  if (isTooBig && p.inner === 0 && ipv4.hasDf(p.view, p.l3)) return tooBig(stack, p);
  if (isTooBig || !ifc.device.canOffload || p.inner !== 0) return segment(stack, p, finish);
  finishWhole(stack, p);
}
