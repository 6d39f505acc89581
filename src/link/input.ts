/**
 * A frame comes in: for us or not, IPv4 or ARP.   @hot
 *
 * ARP follows the kernel's arp_process (net/ipv4/arp.c): requests for our addresses are answered and teach us the sender; replies and announcements only
 * refresh neighbours that we already know (arp_accept=0).
 */
import { elapsed, seconds } from '../base/clock.ts';
import { Drop } from '../packet/drop.ts';
import { NONE, type Packet, PacketType } from '../packet/packet.ts';
import { isLoopback, isMulticast } from '../wire/addr.ts';
import * as arp from '../wire/arp.ts';
import * as eth from '../wire/ethernet.ts';
import type { Interface } from './interface.ts';
import { drop, type LinkLayer, TapPoint, transmit } from './link.ts';
import { Nud } from './neighbours.ts';
import { learn } from './resolve.ts';

const { Ipv4: ETHERTYPE_IPV4, Arp: ETHERTYPE_ARP } = eth.EtherType;
const ETH_HEADER = eth.ETH_HEADER;
/** A MAC that changed is not changed again by hearsay for this long (neigh.locktime). */
const LOCK_TIME = seconds(1);

/**
 * Take a received frame. True: it carries IPv4 for us (or for everybody), l3 is set, and it is the caller's; false: it has ended here.
 */
export function linkInput(link: LinkLayer, ifc: Interface, p: Packet): boolean {
  link.stats.received++;
  p.inDevice = ifc.id;
  if (link.tap !== null) link.tap(p, TapPoint.Receive, 0);
  if (!ifc.isUp) return refuse(link, p, Drop.DeviceGone);
  const { view, l2 } = p;
  if (p.end - l2 < ETH_HEADER) return refuse(link, p, Drop.FrameTooShort);
  const hi = eth.dstHi(view, l2);
  const device = ifc.device!;
  if (hi === device.macHi && eth.dstLo(view, l2) === device.macLo) p.pktType = PacketType.Host;
  else if (!eth.isGroup(hi)) return refuse(link, p, Drop.NotForUs);
  else p.pktType = eth.isBroadcast(hi, eth.dstLo(view, l2)) ? PacketType.Broadcast : PacketType.Multicast;
  const type = eth.etherType(view, l2);
  p.l3 = l2 + ETH_HEADER;
  if (type === ETHERTYPE_IPV4) return true;
  if (type === ETHERTYPE_ARP) arpInput(link, ifc, p);
  else drop(link, p, Drop.EtherTypeUnknown);
  return false;
}

function refuse(link: LinkLayer, p: Packet, reason: number): false {
  drop(link, p, reason);
  return false;
}

function arpInput(link: LinkLayer, ifc: Interface, p: Packet): void {
  const { view, l3 } = p;
  if (arp.check(view, l3, p.end) !== arp.ArpFault.None) return drop(link, p, Drop.ArpMalformed);
  const sender = arp.senderIp(view, l3);
  const target = arp.targetIp(view, l3);
  const hi = arp.senderMacHi(view, l3);
  if (eth.isGroup(hi) || isMulticast(target)) return drop(link, p, Drop.ArpMalformed);
  if (isLoopback(target) && ifc.routeLocalnet === 0) return drop(link, p, Drop.ArpMalformed);
  if (arp.op(view, l3) === arp.ArpOp.Request && link.addresses.answersFor(ifc, target, sender)) {
    return answer(link, ifc, p, sender, target);
  }
  overhear(link, ifc, p, sender, target);
}

/** Learn who asks, then turn the request around: the same memory is the reply. */
function answer(link: LinkLayer, ifc: Interface, p: Packet, sender: number, target: number): void {
  const { view, l2, l3 } = p;
  const hi = arp.senderMacHi(view, l3);
  const lo = arp.senderMacLo(view, l3);
  const device = ifc.device!;
  // RFC 5227 §2.1.1: a probe has no sender address and teaches nothing.
  if (sender !== 0) {
    const table = link.neighbours;
    let row = table.find(ifc.id, sender);
    if (row === NONE) {
      row = table.add(ifc.id, sender, link.now);
      if (row === NONE) return drop(link, p, Drop.NeighbourTableFull);
      table.state[row] = Nud.Failed;
    }
    learn(link, ifc, row, hi, lo, Nud.Stale, true);
  }
  link.drops[Drop.ArpAnswered]!++;
  link.stats.born++;
  eth.setDst(view, l2, hi, lo);
  eth.setSrc(view, l2, device.macHi, device.macLo);
  arp.emit(view, l3, arp.ArpOp.Reply, device.macHi, device.macLo, target, hi, lo, sender);
  p.end = l3 + arp.ARP_LENGTH;
  p.inDevice = NONE;
  transmit(link, ifc, p);
}

/** A reply, an announcement, or a question about somebody else: refreshes the sender if it is a neighbour already. */
function overhear(link: LinkLayer, ifc: Interface, p: Packet, sender: number, target: number): void {
  const { view, l3 } = p;
  const table = link.neighbours;
  const row = sender === 0 ? NONE : table.find(ifc.id, sender);
  if (row === NONE) return drop(link, p, Drop.ArpIgnored);
  const isReply = arp.op(view, l3) === arp.ArpOp.Reply;
  const state = isReply && p.pktType === PacketType.Host ? Nud.Reachable : Nud.Stale;
  const override = sender === target || elapsed(link.now, table.updated[row]!) > LOCK_TIME;
  learn(link, ifc, row, arp.senderMacHi(view, l3), arp.senderMacLo(view, l3), state, override);
  drop(link, p, Drop.ArpLearned);
}
