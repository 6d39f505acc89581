/**
 * The state of the host that tapvs is; the packet's way through it is plain functions in the other files.   @hot
 *
 * Packets that are born on the way (ICMP errors, resets), sent again (REROUTE) or looped back are put in a short list here and taken up by `pump`
 * (receive.ts) before the call from outside returns: nothing recurses, and the files of this folder import each other one way only.
 */
import { copyState } from '../base/copy-state.ts';
import type { Rng } from '../base/rng.ts';
import type { Hooks } from '../hooks/hooks.ts';
import { HAS_WAY, type OwnAddresses, SILENCE } from '../hooks/own-addresses.ts';
import type { Routing } from '../hooks/routing.ts';
import { LOOPBACK_ID } from '../link/interface.ts';
import { LinkLayer, type LinkStats, type PacketTap, TapPoint } from '../link/link.ts';
import { BROADCAST_HOP } from '../link/resolve.ts';
import { NONE, type Packet } from '../packet/packet.ts';
import type { PacketPool } from '../packet/pool.ts';
import { UnreachCode } from '../wire/icmpv4.ts';
import { AddressTable } from './addresses.ts';
import { UdpListeners } from './datagrams.ts';
import { Defrag } from './defrag.ts';
import { Groups } from './groups.ts';
import { IcmpLimiter, RedirectLimiter } from './icmp-limit.ts';
import { leaveAsOwn, readOptions, sumOptions } from './options.ts';
import { PathTable } from './path-mtu.ts';
import { Fragments } from './reassemble.ts';
import { RouteKind, RouteTable } from './routes.ts';

const { Unicast: UNICAST, Local: LOCAL, Broadcast: BROADCAST } = RouteKind;

/** MTU of the way to ourselves, bytes (the kernel's lo). */
export const LOOPBACK_MTU = 65536;

/** net.ipv4.*, the values that the data path reads. */
export interface IpSettings {
  defaultTtl: number;
  icmpEchoIgnoreAll: number;
  icmpEchoIgnoreBroadcasts: number;
  /** Milliseconds between ICMP errors to one target, after a burst; 0 = no limit. */
  icmpRateLimit: number;
  /** Bit n: messages of ICMP type n are limited. */
  icmpRateMask: number;
  icmpMessagesPerSecond: number;
  icmpMessagesBurst: number;
  icmpUseInboundAddress: number;
}

export class IpStack implements Routing, OwnAddresses {
  readonly link: LinkLayer;
  readonly hooks: Hooks;
  readonly pool: PacketPool;
  readonly routes = new RouteTable();
  readonly addresses = new AddressTable(this.routes);
  readonly limiter = new IcmpLimiter();
  readonly redirects = new RedirectLimiter();
  readonly groups = new Groups();
  readonly datagrams = new UdpListeners(this);
  readonly paths = new PathTable();
  readonly fragments: Fragments;
  readonly defrag = new Defrag(this);
  /** By Drop. */
  readonly drops: Float64Array;
  readonly stats: LinkStats;
  readonly settings: IpSettings = {
    defaultTtl: 64,
    icmpEchoIgnoreAll: 0,
    icmpEchoIgnoreBroadcasts: 1,
    icmpRateLimit: 1000,
    icmpRateMask: 6168,
    icmpMessagesPerSecond: 1000,
    icmpMessagesBurst: 50,
    icmpUseInboundAddress: 0,
  };
  /** Interface of the host port, NONE without one. */
  hostId = NONE;
  /**
   * Local addresses (int32) that the kernel behind the host port owns too, besides the peer; null: all of them, as rtnl/host-port.ts sets it up. What is for them
   * goes up to it; the rest is answered here, for a kernel that does not own an address would drop the packet in silence, or send it back to us.
   */
  hostAddresses: ReadonlySet<number> | null = null;
  /** Told of each address that goes, or (with 0) of a device that does, so that who sent from it may forget that. Set by the engine. */
  onAddressGone: ((device: number, ip: number) => void) | null = null;
  /** Told of each ICMP error and each reset of a rejected segment, with what it is about: connection tracking takes them together (nf_ct_attach). Set by the engine. */
  onAnswer: ((answer: Packet, about: Packet) => void) | null = null;
  /** Milliseconds since midnight UT, for whoever asks by ICMP. */
  timeOfDayMs: () => number = () => 0;
  /** Identification of the next packet that is born here. */
  #ident: number;
  /** Packets to take up again, a list through Packet.next; `Packet.hook` says where: LOCAL_OUT or PREROUTING. */
  #head = NONE;
  #tail = NONE;

  // The answer to the last `resolve`.
  isLocal = false;
  isBroadcast = false;
  nexthop = 0;
  outDevice = NONE;
  mtu = 0;
  #preferredSource = 0;

  /** @param neighbours as of LinkLayer */
  constructor(pool: PacketPool, hooks: Hooks, rng: Rng, neighbours?: number) {
    this.pool = pool;
    this.hooks = hooks;
    this.link = new LinkLayer(pool, rng, this.addresses, neighbours);
    this.drops = this.link.drops;
    this.stats = this.link.stats;
    this.#ident = rng.next() & 0xffff;
    this.fragments = new Fragments(this, rng);
  }

  /** Ticks; the engine sets it once per breath. */
  get now(): number {
    return this.link.now;
  }
  set now(ticks: number) {
    this.link.now = ticks;
  }

  get tap(): PacketTap | null {
    return this.link.tap;
  }
  set tap(tap: PacketTap | null) {
    this.link.tap = tap;
  }

  get generation(): number {
    return this.routes.generation;
  }

  // cold: copies
  /** Become a copy; see LinkLayer.copyFrom for the devices. */
  copyFrom(live: IpStack): void {
    copyState<IpStack>(this, live);
    copyState(this.settings, live.settings);
    this.hostAddresses = live.hostAddresses;
    this.paths.copyFrom(live.paths);
    this.#ident = live.#ident;
    this.#preferredSource = live.#preferredSource;
  }
  // hot again

  nextIdent(): number {
    this.#ident = (this.#ident + 1) & 0xffff;
    return this.#ident;
  }

  resolve(dst: number): boolean {
    const route = this.routes.lookup(dst);
    if (route === null) return false;
    const kind = route.kind;
    if (kind !== UNICAST && kind !== LOCAL && kind !== BROADCAST) return false;
    this.isLocal = kind === LOCAL;
    this.isBroadcast = kind === BROADCAST;
    this.nexthop = kind === BROADCAST ? BROADCAST_HOP : route.via === 0 ? dst : route.via;
    this.outDevice = kind === LOCAL ? LOOPBACK_ID : route.device;
    const ifc = this.link.interfaces[route.device] ?? null;
    if (kind === LOCAL) this.mtu = LOOPBACK_MTU;
    else if (ifc?.isUp) this.mtu = this.paths.mtuTo(dst, ifc.mtu, this.link.now);
    else return false;
    this.#preferredSource = kind === LOCAL ? dst : route.source;
    return true;
  }

  get source(): number {
    if (this.#preferredSource !== 0) return this.#preferredSource;
    return this.addresses.select(this.outDevice, this.nexthop);
  }

  learnMtu(dst: number, mtu: number): boolean {
    if (!this.resolve(dst) || this.isLocal || this.isBroadcast) return false;
    const { now } = this.link;
    const isKnown = this.paths.isKnown(dst, now);
    if (this.paths.learn(dst, mtu, this.mtu, now)) this.routes.changed();
    return isKnown;
  }

  recordOptions(p: Packet): void {
    if (p.isLocalOut === 0) readOptions(this, p);
  }

  sumOptions(p: Packet): void {
    sumOptions(p);
  }

  rerouteOptions(p: Packet): void {
    leaveAsOwn(p);
  }

  sourceOn(device: number, nexthop: number): number {
    return this.addresses.selectGlobal(device, nexthop);
  }

  wayTo(dst: number): number {
    if (this.resolve(dst)) return HAS_WAY;
    const kind = this.routes.lookup(dst)?.kind;
    if (kind === RouteKind.Blackhole) return SILENCE;
    if (kind === RouteKind.Prohibit) return UnreachCode.AdminProhibited;
    return kind === RouteKind.Unreachable ? UnreachCode.Host : UnreachCode.Net;
  }

  firstAddress(device: number): number {
    return this.addresses.own(device);
  }

  /** Take the packet up again later in this call, at LOCAL_OUT or PREROUTING, or, behind what it has given rise to, at FORWARD. */
  defer(p: Packet, hook: number): void {
    p.hook = hook;
    p.next = NONE;
    if (this.#tail === NONE) this.#head = p.index;
    else this.pool.packets[this.#tail]!.next = p.index;
    this.#tail = p.index;
  }

  get hasDeferred(): boolean {
    return this.#head !== NONE;
  }

  /** The oldest deferred packet; only while `hasDeferred`. */
  takeDeferred(): Packet {
    const p = this.pool.packets[this.#head]!;
    this.#head = p.next;
    if (p.next === NONE) this.#tail = NONE;
    p.next = NONE;
    return p;
  }

  /** Is the address one that the kernel behind the host port may own? */
  isHostAddress(ip: number): boolean {
    if (this.hostId === NONE) return false;
    const host = this.link.interfaces[this.hostId] ?? null;
    if (host === null) return false;
    return ip === host.peer || this.hostAddresses === null || this.hostAddresses.has(ip);
  }
}

/** Show the packet to the tap at the end of a hook. */
export function tapHook(stack: IpStack, p: Packet, hook: number, verdict: number): void {
  const tap = stack.link.tap;
  if (tap !== null) tap(p, TapPoint.Hook + hook, verdict);
}
