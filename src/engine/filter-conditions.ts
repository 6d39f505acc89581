/** What rules ask of the host, answered by the stack. */
import { Medium } from '../device/device.ts';
import { AddressType, type HostConditions } from '../filter/conditions.ts';
import { RouteKind } from '../ip/routes.ts';
import type { IpStack } from '../ip/stack.ts';
import { NONE } from '../packet/packet.ts';
import { isMulticast, isZeroNet } from '../wire/addr.ts';
import type { LogLines } from './log-lines.ts';

export function filterConditions(stack: IpStack, lines: LogLines): HostConditions {
  const { interfaces } = stack.link;
  return {
    routing: stack,
    deviceName: (id) => interfaces[id]?.name ?? '',
    isEthernet: (id) => interfaces[id]?.device?.medium === Medium.Ethernet,
    addressType: (ip, device) => addressType(stack, ip, device),
    log: (level, text) => lines.say(level, text),
  };
}

/** __inet_dev_addr_type (net/ipv4/fib_frontend.c): what is neither local nor broadcast is unicast, reachable or not. */
function addressType(stack: IpStack, ip: number, device: number): number {
  if (isZeroNet(ip) || ip === -1) return AddressType.Broadcast;
  if (isMulticast(ip)) return AddressType.Multicast;
  const route = stack.routes.lookup(ip);
  if (route === null || (device !== NONE && route.device !== device)) return AddressType.Unicast;
  if (route.kind === RouteKind.Local) return AddressType.Local;
  return route.kind === RouteKind.Broadcast ? AddressType.Broadcast : AddressType.Unicast;
}
