/**
 * Redirects: a packet leaves by the device where it came in, so its sender, who is on that segment, could have sent it to the next hop itself.   @hot
 * RFC 792 p. 12, RFC 1812 §5.2.7.2. Kernel: __mkroute_input, ip_rt_send_redirect (net/ipv4/route.c); shared_media is 1.
 */
import type { Packet } from '../packet/packet.ts';
import { IcmpType } from '../wire/icmpv4.ts';
import * as ipv4 from '../wire/ipv4.ts';
import { icmpError } from './icmp.ts';
import type { IpStack } from './stack.ts';

const REDIRECT = IcmpType.Redirect;
/** For a host; never for a network (RFC 1812 §5.2.7.2). */
const FOR_HOST = 1;

/** Tells the sender of a packet that is about to go back where it came from; that must be sent first. */
export function redirect(stack: IpStack, p: Packet, nexthop: number): void {
  const sender = ipv4.src(p.view, p.l3);
  const route = stack.routes.lookup(sender);
  if (route === null || route.device !== p.inDevice || route.via !== 0) return;
  if (stack.redirects.isAllowed(stack.now, sender)) icmpError(stack, p, REDIRECT, FOR_HOST, nexthop);
}
