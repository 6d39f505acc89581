/**
 * A packet comes in: header checked, PREROUTING, source validated, routed to LOCAL_IN or FORWARD.   @hot
 * Kernel: ip_rcv and ip_rcv_finish (net/ipv4/ip_input.c), ip_route_input_slow and __mkroute_input (net/ipv4/route.c), fib_validate_source.
 */
import { Hook, Verdict } from '../hooks/hooks.ts';
import type { Interface } from '../link/interface.ts';
import { LOOPBACK_ID } from '../link/interface.ts';
import { drop } from '../link/link.ts';
import { Drop } from '../packet/drop.ts';
import { type Packet, PacketType } from '../packet/packet.ts';
import { isLoopback, isMulticast } from '../wire/addr.ts';
import { IcmpType, UnreachCode } from '../wire/icmpv4.ts';
import * as ipv4 from '../wire/ipv4.ts';
import { forward } from './forward.ts';
import { localIn } from './local.ts';
import { NO_POINTER, optionFault, optionPointer } from './options.ts';
import { RouteKind } from './routes.ts';
import { refuseWith, settle } from './settle.ts';
import { type IpStack, tapHook } from './stack.ts';
import { gateTransport } from './transport.ts';

const ACCEPT = Verdict.Accept;
const PRE_ROUTING = Hook.PreRouting;
const { Unicast: UNICAST, Local: LOCAL, Broadcast: BROADCAST } = RouteKind;
const IPV4_HEADER = ipv4.IPV4_HEADER;
const NO_FAULT = Drop.None;
/** 127.0.0.1, which lo has without saying so. */
const LOOPBACK = 0x7f000001;
const IGMP = ipv4.IpProto.Igmp;
/** 224.0.0.0/24. */
const LOCAL_GROUPS = 0xe00000 | -0x1000000;

/** The one gate of IPv4: checks the header, cuts link padding off, finds and checks the transport. False: dropped. */
export function gateIpv4(stack: IpStack, p: Packet): boolean {
  const { view, l3 } = p;
  const fault = ipv4.check(view, l3, p.end);
  if (fault !== ipv4.Ipv4Fault.None) {
    drop(stack.link, p, faultReason(p, fault));
    return false;
  }
  p.end = l3 + ipv4.totalLength(view, l3);
  gateTransport(p);
  return true;
}

/** Drop names the faults of ipv4.check in the same order. IPv6 from a TUN is not a broken IPv4 packet. */
function faultReason(p: Packet, fault: number): number {
  if (fault === ipv4.Ipv4Fault.BadVersion && p.view.getUint8(p.l3) >> 4 === 6) return Drop.EtherTypeUnknown;
  return Drop.Ipv4TooShort - ipv4.Ipv4Fault.TooShort + fault;
}

/** Run PREROUTING and route; the packet has passed gateIpv4. */
export function preRouting(stack: IpStack, p: Packet): void {
  const verdict = stack.hooks.preRouting.run(p, 0);
  if (stack.link.tap !== null) tapHook(stack, p, PRE_ROUTING, verdict);
  if (verdict !== ACCEPT) return settle(stack, p, verdict);
  afterPreRouting(stack, p);
}

/** Route what came in. */
export function afterPreRouting(stack: IpStack, p: Packet): void {
  const { view, l3 } = p;
  const ifc = stack.link.interfaces[p.inDevice] ?? null;
  if (ifc === null) return drop(stack.link, p, Drop.DeviceGone);
  if (ipv4.headerLength(view, l3) !== IPV4_HEADER && !areOptionsAllowed(stack, p)) return;
  const dst = ipv4.dst(view, l3);
  if (ifc.id === LOOPBACK_ID) return routeLooped(stack, p, dst);
  const src = ipv4.src(view, l3);
  if (isMulticast(dst) && stack.groups.isMember(ifc.id, dst)) return multicastIn(stack, ifc, p, src);
  const martian = martianReason(src, dst, ifc.routeLocalnet !== 0);
  if (martian !== NO_FAULT) return drop(stack.link, p, martian);
  if (dst === -1) return broadcastIn(stack, ifc, p, src);
  const route = stack.routes.lookup(dst);
  if (route === null) return noRoute(stack, ifc, p, Drop.NoRoute, UnreachCode.Net);
  const kind = route.kind;
  if (kind === BROADCAST) return broadcastIn(stack, ifc, p, src);
  if (kind !== LOCAL && (ifc.forwarding === 0 || kind !== UNICAST)) return unreachable(stack, ifc, p, kind);
  const fault = sourceFault(stack, ifc, src);
  if (fault !== NO_FAULT) return drop(stack.link, p, fault);
  if (kind === LOCAL) localIn(stack, p);
  else forward(stack, p, route);
}

/** Our own packet, back from loopback: it was local when it left, and no source is a martian to ourselves. */
function routeLooped(stack: IpStack, p: Packet, dst: number): void {
  const route = stack.routes.lookup(dst);
  if (route === null) return drop(stack.link, p, Drop.NoRoute);
  if (route.kind === LOCAL) localIn(stack, p);
  else if (route.kind === UNICAST) forward(stack, p, route);
  else drop(stack.link, p, Drop.RouteUnreachable);
}

/** Addresses that no packet on a wire may have (RFC 1812 §5.3.7, in the kernel's order). 240/4 passes, and 127/8 where it is routed as any other. */
function martianReason(src: number, dst: number, routesLoopback: boolean): number {
  if (isMulticast(dst)) return Drop.MulticastNotForUs;
  if (isMulticast(src) || src === -1) return Drop.MartianSource;
  const srcNet = src >>> 24;
  const dstNet = dst >>> 24;
  // RFC 1122 §3.2.1.3 (a): a host that does not know its address yet may broadcast from 0.0.0.0.
  if (srcNet === 0 && !(src === 0 && dst === -1)) return Drop.MartianSource;
  if (dstNet === 0) return Drop.MartianDestination;
  if (routesLoopback) return NO_FAULT;
  if (dstNet === 127) return Drop.MartianDestination;
  return srcNet === 127 ? Drop.MartianSource : NO_FAULT;
}

/** fib_validate_source: our own address and broadcast ones are no sources; rp_filter 1 wants the way back by this device, 2 any way. */
function sourceFault(stack: IpStack, ifc: Interface, src: number): number {
  const route = stack.routes.lookup(src);
  if (route !== null) {
    const kind = route.kind;
    if (kind === UNICAST) return ifc.rpFilter === 1 && route.device !== ifc.id ? Drop.ReversePath : NO_FAULT;
    if (kind === LOCAL) return isOwnSource(stack, ifc, src) ? Drop.MartianSource : NO_FAULT;
    if (kind === BROADCAST) return Drop.MartianSource;
  }
  return ifc.rpFilter !== 0 ? Drop.ReversePath : NO_FAULT;
}

/** Of 127/8 only what is an address of ours is one that nobody else can have, unless the way back is looked at. */
function isOwnSource(stack: IpStack, ifc: Interface, src: number): boolean {
  if (ifc.acceptLocal !== 0) return false;
  return ifc.rpFilter !== 0 || !isLoopback(src) || src === LOOPBACK || stack.addresses.isOwn(src);
}

/** A broadcast is for us, as for everybody; it is never forwarded (bc_forwarding=0). */
function broadcastIn(stack: IpStack, ifc: Interface, p: Packet, src: number): void {
  const fault = src === 0 ? NO_FAULT : sourceFault(stack, ifc, src);
  if (fault !== NO_FAULT) return drop(stack.link, p, fault);
  p.pktType = PacketType.Broadcast;
  localIn(stack, p);
}

/** For a group that we are in (ip_route_input_mc). A group of this segment, 224.0.0.0/24, may be written to by a host without an address. */
function multicastIn(stack: IpStack, ifc: Interface, p: Packet, src: number): void {
  const isNameless = src === 0 && (ipv4.dst(p.view, p.l3) >> 8 === LOCAL_GROUPS || p.proto === IGMP);
  const net = src >>> 24;
  const isStray = net === 127 && ifc.routeLocalnet === 0;
  if (isMulticast(src) || src === -1 || isStray || (net === 0 && !isNameless)) {
    return drop(stack.link, p, Drop.MartianSource);
  }
  const fault = isNameless ? NO_FAULT : sourceFault(stack, ifc, src);
  if (fault !== NO_FAULT) return drop(stack.link, p, fault);
  p.pktType = PacketType.Multicast;
  localIn(stack, p);
}

function unreachable(stack: IpStack, ifc: Interface, p: Packet, kind: number): void {
  if (ifc.forwarding === 0) return drop(stack.link, p, Drop.ForwardingOff);
  if (kind === RouteKind.Blackhole) return drop(stack.link, p, Drop.RouteUnreachable);
  const code = kind === RouteKind.Prohibit ? UnreachCode.AdminProhibited : UnreachCode.Host;
  noRoute(stack, ifc, p, Drop.RouteUnreachable, code);
}

/** ip_error: a host that does not forward says nothing, and no sender hears more than a little. */
function noRoute(stack: IpStack, ifc: Interface, p: Packet, reason: number, code: number): void {
  if (ifc.forwarding === 0) return drop(stack.link, p, Drop.ForwardingOff);
  if (!stack.limiter.allowRouteError(stack.link.now, ipv4.src(p.view, p.l3))) {
    stack.stats.icmpRateLimited++;
    return drop(stack.link, p, reason);
  }
  refuseWith(stack, p, reason, IcmpType.DestUnreachable, code, 0);
}

/** False: the options are malformed (the sender hears where, RFC 792 p. 8) or a source route; the packet has ended. */
function areOptionsAllowed(stack: IpStack, p: Packet): boolean {
  const fault = optionFault(stack, p);
  if (fault === NO_FAULT) return true;
  const at = optionPointer();
  if (at === NO_POINTER) drop(stack.link, p, fault);
  else refuseWith(stack, p, fault, IcmpType.ParameterProblem, 0, at << 24);
  return false;
}
