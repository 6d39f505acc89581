/** What a verdict other than ACCEPT means for the packet.   @hot */
import { Hook, Verdict } from '../hooks/hooks.ts';
import { drop } from '../link/link.ts';
import { Drop } from '../packet/drop.ts';
import type { Packet } from '../packet/packet.ts';
import { reject } from './icmp.ts';
import type { IpStack } from './stack.ts';

const { Drop: DROP, Stolen: STOLEN, Queue: QUEUE } = Verdict;

/** How often one packet may be sent again from LOCAL_OUT. */
const MAX_REROUTES = 4;

/** End, hold, or send again: the caller must not touch the packet afterwards. */
export function settle(stack: IpStack, p: Packet, verdict: number): void {
  if (verdict === DROP) return refuse(stack, p, p.drop);
  if (verdict === STOLEN) {
    stack.stats.held++;
    return;
  }
  if (verdict === QUEUE) return enqueue(stack, p);
  if (p.reroutes >= MAX_REROUTES) return drop(stack.link, p, Drop.HopLoop);
  p.reroutes++;
  stack.defer(p, Hook.LocalOut);
}

/** Drop, and tell the sender what it is owed. */
export function refuse(stack: IpStack, p: Packet, reason: number): void {
  if (p.rejectType !== 0) reject(stack, p);
  drop(stack.link, p, reason);
}

/** The same for a rejection that `ip` itself decides. @param rest see icmpError */
export function refuseWith(stack: IpStack, p: Packet, reason: number, type: number, code: number, rest: number): void {
  p.rejectType = type;
  p.rejectCode = code;
  p.rejectMtu = rest;
  refuse(stack, p, reason);
}

function enqueue(stack: IpStack, p: Packet): void {
  const handler = stack.hooks.queues.get(p.queue);
  if (handler === undefined) return drop(stack.link, p, Drop.QueueNoHandler);
  stack.stats.held++;
  if (handler(p)) return;
  stack.stats.held--;
  drop(stack.link, p, Drop.QueueFull);
}
