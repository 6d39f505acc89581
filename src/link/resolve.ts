/**
 * From next hop to MAC: output with a known neighbour, waiting for an unknown one, and the neighbours' states in time.   @hot
 *
 * RFC 826 for the question, RFC 1122 §2.3.2 for the queue (2.3.2.2: save at least the latest packet) and the cache's ageing; the states and times
 * are those of the kernel's net/core/neighbour.c and net/ipv4/arp.c (arp_solicit, arp_error_report).
 */
import { elapsed } from '../base/clock.ts';
import { Drop } from '../packet/drop.ts';
import { NONE, type Packet } from '../packet/packet.ts';
import { isMulticast } from '../wire/addr.ts';
import * as arp from '../wire/arp.ts';
import * as eth from '../wire/ethernet.ts';
import * as ipv4 from '../wire/ipv4.ts';
import type { Interface } from './interface.ts';
import { bear, drop, type LinkLayer, transmit } from './link.ts';
import { LAST_VALID, Nud } from './neighbours.ts';

const { Reachable: REACHABLE, Stale: STALE, Delay: DELAY, Probe: PROBE, Incomplete: INCOMPLETE, Failed: FAILED } = Nud;
const { Ipv4: ETHERTYPE_IPV4, Arp: ETHERTYPE_ARP } = eth.EtherType;
const ETH_HEADER = eth.ETH_HEADER;
const ARP_LENGTH = arp.ARP_LENGTH;

/** The next hop that means "everybody on this segment". */
export const BROADCAST_HOP = -1;

/** Send an IP packet to `nexthop` on `ifc`: at once, or when its MAC is known. */
export function output(link: LinkLayer, ifc: Interface, p: Packet, nexthop: number): void {
  if (!ifc.hasNeighbours) return transmit(link, ifc, p);
  const table = link.neighbours;
  const row = table.find(ifc.id, nexthop);
  if (row === NONE) return outputUnknown(link, ifc, p, nexthop);
  const state = table.state[row]!;
  if (state > LAST_VALID) return wait(link, ifc, p, row);
  table.used[row] = link.now;
  if (state === STALE) {
    table.state[row] = DELAY;
    table.due[row] = (link.now + table.delayFirstProbe) | 0;
  }
  emitFrame(link, ifc, p, table.macHi[row]!, table.macLo[row]!);
}

function emitFrame(link: LinkLayer, ifc: Interface, p: Packet, hi: number, lo: number): void {
  const view = p.view;
  const l2 = p.l3 - ETH_HEADER;
  const device = ifc.device!;
  p.l2 = l2;
  eth.setDst(view, l2, hi, lo);
  eth.setSrc(view, l2, device.macHi, device.macLo);
  eth.setEtherType(view, l2, ETHERTYPE_IPV4);
  transmit(link, ifc, p);
}

/** Broadcast and multicast have a MAC by definition (RFC 1112 §6.4); for the rest a new row is made and asked for. */
function outputUnknown(link: LinkLayer, ifc: Interface, p: Packet, nexthop: number): void {
  if (nexthop === BROADCAST_HOP) return emitFrame(link, ifc, p, 0xffff, -1);
  if (isMulticast(nexthop)) return emitFrame(link, ifc, p, 0x0100, 0x5e000000 | (nexthop & 0x7fffff));
  const row = link.neighbours.add(ifc.id, nexthop, link.now);
  if (row === NONE) return drop(link, p, Drop.NeighbourTableFull);
  link.neighbours.state[row] = FAILED;
  wait(link, ifc, p, row);
}

/** Queue behind an unresolved neighbour, and start to ask when nobody does; the oldest packet goes when too many wait. */
function wait(link: LinkLayer, ifc: Interface, p: Packet, row: number): void {
  const table = link.neighbours;
  if (table.waiting[row]! >= table.queueLimit || table.totalWaiting >= link.pool.packets.length >> 2) {
    if (table.waiting[row] === 0) return drop(link, p, Drop.NeighbourQueueFull);
    drop(link, unqueue(link, row), Drop.NeighbourQueueFull);
  }
  p.next = NONE;
  const tail = table.waitTail[row]!;
  if (tail === NONE) table.waitHead[row] = p.index;
  else link.pool.packets[tail]!.next = p.index;
  table.waitTail[row] = p.index;
  table.waiting[row]!++;
  table.totalWaiting++;
  link.stats.held++;
  table.used[row] = link.now;
  if (table.state[row] === FAILED) {
    table.state[row] = INCOMPLETE;
    table.probes[row] = 0;
    solicit(link, ifc, row);
  }
}

function unqueue(link: LinkLayer, row: number): Packet {
  const table = link.neighbours;
  const p = link.pool.packets[table.waitHead[row]!]!;
  table.waitHead[row] = p.next;
  if (p.next === NONE) table.waitTail[row] = NONE;
  p.next = NONE;
  table.waiting[row]!--;
  table.totalWaiting--;
  link.stats.held--;
  return p;
}

/** Its MAC is known: send what waited, in order. */
function release(link: LinkLayer, ifc: Interface, row: number): void {
  const table = link.neighbours;
  while (table.waiting[row]! > 0) emitFrame(link, ifc, unqueue(link, row), table.macHi[row]!, table.macLo[row]!);
}

/** It does not answer: what waited is reported and dropped. */
function fail(link: LinkLayer, row: number): void {
  const table = link.neighbours;
  table.state[row] = FAILED;
  while (table.waiting[row]! > 0) {
    const p = unqueue(link, row);
    link.onUnreachable(p);
    drop(link, p, Drop.NeighbourFailed);
  }
}

/** Forget a neighbour, whatever waits for it. */
export function forget(link: LinkLayer, row: number, reason: number): void {
  const table = link.neighbours;
  while (table.waiting[row]! > 0) drop(link, unqueue(link, row), reason);
  table.remove(row);
}

/** Ask for the row's MAC: everybody while there is none, the neighbour itself while it is only in doubt. */
function solicit(link: LinkLayer, ifc: Interface, row: number): void {
  const table = link.neighbours;
  table.probes[row]!++;
  table.due[row] = (link.now + table.retransmit) | 0;
  const head = table.waitHead[row]!;
  const first = head === NONE ? null : link.pool.packets[head]!;
  const packetSource = first === null ? 0 : ipv4.src(first.view, first.l3);
  const target = table.ip[row]!;
  const sender = link.addresses.sourceFor(ifc, target, packetSource);
  const isUnicast = table.state[row] === PROBE;
  const hi = isUnicast ? table.macHi[row]! : 0xffff;
  const lo = isUnicast ? table.macLo[row]! : -1;
  sendArp(link, ifc, arp.ArpOp.Request, hi, lo, sender, 0, 0, target);
}

/** One ARP packet from our MAC and `senderIp`, in a frame to `dstHi:dstLo`. */
export function sendArp(
  link: LinkLayer,
  ifc: Interface,
  op: number,
  dstHi: number,
  dstLo: number,
  senderIp: number,
  targetHi: number,
  targetLo: number,
  targetIp: number,
): void {
  const p = bear(link, ETH_HEADER + ARP_LENGTH);
  if (p === null) return;
  const { view, l2 } = p;
  const device = ifc.device!;
  eth.setDst(view, l2, dstHi, dstLo);
  eth.setSrc(view, l2, device.macHi, device.macLo);
  eth.setEtherType(view, l2, ETHERTYPE_ARP);
  arp.emit(view, p.l3, op, device.macHi, device.macLo, senderIp, targetHi, targetLo, targetIp);
  transmit(link, ifc, p);
}

/**
 * News of a neighbour's MAC (neigh_update of the kernel). A valid MAC is replaced only when `override` is set; a permanent row never.
 * @param state Nud.Reachable for an answer to our question, Nud.Stale for what we merely overheard
 */
export function learn(
  link: LinkLayer,
  ifc: Interface,
  row: number,
  hi: number,
  lo: number,
  state: number,
  override: boolean,
): void {
  const table = link.neighbours;
  const old = table.state[row]!;
  if (old === Nud.Permanent) return;
  const isValid = old <= LAST_VALID;
  const isSame = isValid && table.macHi[row] === hi && table.macLo[row] === lo;
  if (isValid && !isSame && !override) return;
  if (!isSame) {
    table.macHi[row] = hi;
    table.macLo[row] = lo;
    table.updated[row] = link.now;
  }
  if (state === REACHABLE) {
    table.state[row] = REACHABLE;
    table.confirmed[row] = link.now;
    table.due[row] = (link.now + table.reachableTime()) | 0;
    table.probes[row] = 0;
  } else if (!isSame) {
    table.state[row] = STALE;
    table.probes[row] = 0;
  }
  if (table.waiting[row]! > 0) release(link, ifc, row);
}

/** Move the states of all neighbours that are due; cheap enough to be called once per breath. */
export function neighbourTick(link: LinkLayer): void {
  const table = link.neighbours;
  if (!table.isScanDue(link.now)) return;
  for (let row = 0; row < table.top; row++) {
    const state = table.state[row]!;
    if (state === STALE || state === FAILED) {
      if (table.size > table.gcThresh1 && elapsed(link.now, table.used[row]!) > table.gcStale) table.remove(row);
    } else if (state >= REACHABLE && state <= INCOMPLETE) {
      if (((link.now - table.due[row]!) | 0) >= 0) step(link, row, state);
      else if (((table.due[row]! - table.nextScan) | 0) < 0) table.nextScan = table.due[row]!; // on time, not at the next look
    }
  }
}

function step(link: LinkLayer, row: number, state: number): void {
  const table = link.neighbours;
  const ifc = link.interfaces[table.device[row]!]!;
  if (state === REACHABLE) {
    const isUsed = ((link.now - table.used[row]!) | 0) <= table.delayFirstProbe;
    table.state[row] = isUsed ? DELAY : STALE;
    table.due[row] = (link.now + table.delayFirstProbe) | 0;
  } else if (state === DELAY) {
    table.state[row] = PROBE;
    table.probes[row] = 0;
    solicit(link, ifc, row);
  } else if (table.probes[row]! >= (state === PROBE ? table.unicastProbes : table.multicastProbes)) {
    fail(link, row);
  } else {
    solicit(link, ifc, row);
  }
}
