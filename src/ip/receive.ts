/**
 * The doors of the stack: what the engine calls.   @hot
 *
 * Each call runs its packet, and every packet born of it, to completion: afterwards each is in a transmit burst, held, or counted as dropped.
 */
import { Hook, Verdict } from '../hooks/hooks.ts';
import { linkInput } from '../link/input.ts';
import type { Interface } from '../link/interface.ts';
import { drop, TapPoint } from '../link/link.ts';
import { neighbourTick } from '../link/resolve.ts';
import { Drop } from '../packet/drop.ts';
import type { Packet } from '../packet/packet.ts';
import { isLoopback, isZeroNet } from '../wire/addr.ts';
import { IcmpType, UnreachCode } from '../wire/icmpv4.ts';
import * as ipv4 from '../wire/ipv4.ts';
import { afterForward, onward } from './forward.ts';
import { icmpError } from './icmp.ts';
import { afterPreRouting, gateIpv4, preRouting } from './input.ts';
import { deliver } from './local.ts';
import { afterLocalOut, finish, localOut } from './output.ts';
import { settle } from './settle.ts';
import { type IpStack, tapHook } from './stack.ts';

const { Accept: ACCEPT, Repeat: REPEAT, Drop: DROP } = Verdict;
const { PreRouting: PRE_ROUTING, Forward: FORWARD, LocalOut: LOCAL_OUT } = Hook;

/** A packet that `ifc` received: a frame, an IP packet of the host port, or an IP packet of another TUN. Takes the packet. */
export function receive(stack: IpStack, ifc: Interface, p: Packet): void {
  if (ifc.hasNeighbours) {
    if (linkInput(stack.link, ifc, p) && gateIpv4(stack, p)) preRouting(stack, p);
  } else if (receiveIp(stack, ifc, p)) {
    if (ifc.isHost) hostOut(stack, ifc, p);
    else preRouting(stack, p);
  }
  if (stack.hasDeferred) pump(stack);
}

/** What linkInput does, on a device that has no link layer. */
function receiveIp(stack: IpStack, ifc: Interface, p: Packet): boolean {
  stack.stats.received++;
  p.inDevice = ifc.id;
  if (stack.link.tap !== null) stack.link.tap(p, TapPoint.Receive, 0);
  if (!ifc.isUp) {
    drop(stack.link, p, Drop.DeviceGone);
    return false;
  }
  return gateIpv4(stack, p);
}

/** From the kernel behind the host port: a packet of this machine, so it starts at LOCAL_OUT. */
function hostOut(stack: IpStack, ifc: Interface, p: Packet): void {
  const dst = ipv4.dst(p.view, p.l3);
  if (isZeroNet(dst) || (isLoopback(dst) && ifc.routeLocalnet === 0))
    return drop(stack.link, p, Drop.MartianDestination);
  p.isLocalOut = 1;
  localOut(stack, p);
}

/** A packet that was made outside of `ip`, from IPv4 header to checksum; with `nexthop` and `outDevice` it is routed. */
export function originate(stack: IpStack, p: Packet): void {
  localOut(stack, p);
  if (stack.hasDeferred) pump(stack);
}

/** Take up what was deferred until nothing is left. Loops end: a packet is re-routed at most four times, and errors beget no errors. */
function pump(stack: IpStack): void {
  while (stack.hasDeferred) {
    const p = stack.takeDeferred();
    if (p.hook === PRE_ROUTING) preRouting(stack, p);
    else if (p.hook === FORWARD) onward(stack, p);
    else localOut(stack, p);
  }
}

/** Once per breath, after `stack.now` was set: path MTUs and neighbours in time, and the errors for what waited in vain. */
export function tick(stack: IpStack): void {
  if (stack.paths.advance(stack.link.now)) stack.routes.changed();
  neighbourTick(stack.link);
  stack.groups.tick(stack);
  stack.fragments.advance();
  if (stack.hasDeferred) pump(stack);
}

/** Tell the sender of a packet whose next hop does not answer (arp_error_report); the link drops it then. */
export function reportUnreachable(stack: IpStack, p: Packet): void {
  icmpError(stack, p, IcmpType.DestUnreachable, UnreachCode.Host, 0);
}

/**
 * Give a QUEUEd or STOLEN packet back: Accept goes on behind the function that took it, Repeat runs that one again, anything else is the verdict.
 * `p.hook` and `p.hookIndex` must be as the chain left them. Who changes the destination meanwhile sets `p.nexthop` to 0, so that it is routed anew.
 */
export function reinject(stack: IpStack, p: Packet, verdict: number): void {
  stack.stats.held--;
  let result = verdict;
  if (verdict === DROP && p.drop === Drop.None) p.drop = Drop.Policy;
  if (verdict === ACCEPT || verdict === REPEAT) {
    const from = verdict === ACCEPT ? p.hookIndex + 1 : p.hookIndex;
    const hook = p.hook;
    const dst = ipv4.dst(p.view, p.l3);
    result = stack.hooks.chains[hook]!.run(p, from);
    if (hook === LOCAL_OUT && ipv4.dst(p.view, p.l3) !== dst) p.nexthop = 0;
    if (stack.link.tap !== null) tapHook(stack, p, hook, result);
  }
  if (result !== ACCEPT) settle(stack, p, result);
  else resume(stack, p);
  if (stack.hasDeferred) pump(stack);
}

/** What follows each hook. */
function resume(stack: IpStack, p: Packet): void {
  switch (p.hook) {
    case Hook.PreRouting:
      return afterPreRouting(stack, p);
    case Hook.LocalIn:
      return deliver(stack, p);
    case Hook.Forward:
      return afterForward(stack, p);
    case Hook.LocalOut:
      return afterLocalOut(stack, p);
    default:
      return finish(stack, p);
  }
}

/** A held packet ends after all: the thief or the queue's handler gives it up. */
export function release(stack: IpStack, p: Packet, reason: number): void {
  stack.stats.held--;
  drop(stack.link, p, reason);
}
