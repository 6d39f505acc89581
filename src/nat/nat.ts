/**
 * Address translation on connection tracking's entries (nf_nat_core.c, nf_nat_proto.c, nf_nat_masquerade.c, nf_nat_redirect.c).   @hot
 *
 *   PREROUTING  -100  nat/dst      LOCAL_OUT    -100  nat/dst
 *   LOCAL_IN     100  nat/src      POSTROUTING   100  nat/src
 *
 * A connection is bound once for each end, by its first packet: to what a rule of the nat table says (`lookup`, whose targets call `setup` and its kin), else to
 * itself, which may still move its port out of another one's way. What the binding says stands in the entry's reply tuple; all later packets of both directions
 * are rewritten from the entry's tuples alone, and no rule is asked again. Nothing of this is in the hooks until somebody needs it.
 */
import { type Allocate, Columns } from '../base/memory.ts';
import type { Rng } from '../base/rng.ts';
import { CtDir, CtInfo } from '../conntrack/entry.ts';
import { Tuple } from '../conntrack/tuple.ts';
import type { Inheritance } from '../flow/inheritance.ts';
import { Hook, type HookOp, type Hooks, Priority, Verdict } from '../hooks/hooks.ts';
import { HAS_WAY, type OwnAddresses, SILENCE } from '../hooks/own-addresses.ts';
import { Status } from '../model/entry-status.ts';
import { Drop } from '../packet/drop.ts';
import { FLOW_UNKNOWN, NONE, type Packet } from '../packet/packet.ts';
import { IcmpType, UnreachCode } from '../wire/icmpv4.ts';
import * as ipv4 from '../wire/ipv4.ts';
import { IpProto } from '../wire/ipv4.ts';
import { BySource } from './by-source.ts';
import { chooseTuple, presentTuple } from './choose.ts';
import type { Entries } from './entries.ts';
import { drawHeaders, errorFault, rewriteError } from './icmp-error.ts';
import { Manip, type NatRange, RangeFlag } from './range.ts';
import { rewrite } from './rewrite.ts';

const { Accept: ACCEPT, Drop: DROP } = Verdict;
const { LocalOut: LOCAL_OUT, PostRouting: POST_ROUTING, LocalIn: LOCAL_IN } = Hook;
const { Original: ORIGINAL, Reply: REPLY } = CtDir;
const { New: NEW, Related: RELATED, EstablishedReply: FIRST_REPLY, RelatedReply: RELATED_REPLY } = CtInfo;
const { SrcNat: SRC_NAT, DstNat: DST_NAT, SrcNatDone: SRC_DONE, DstNatDone: DST_DONE, Confirmed: CONFIRMED } = Status;
const { Src: SRC, Dst: DST } = Manip;
const { MapIps: MAP_IPS } = RangeFlag;
const ANY_NAT = SRC_NAT | DST_NAT;
const BOTH_DONE = SRC_DONE | DST_DONE;
const ICMP = IpProto.Icmp;
const UNREACHABLE = IcmpType.DestUnreachable;
const NETWORK = UnreachCode.Net;
const LOOPBACK = 0x7f000001;
/** In-device of a packet that this code has made. */
const BORN_HERE = NONE;
/** Connections that end in one tick because their address went, and entries that are looked at for them. */
const MOST_ENDS = 1024;
const MOST_SEEN = 65536;

/** Rules of the nat table for the first packet of a connection; Accept, with the binding set up or not. */
export type NatLookup = (p: Packet, hook: number) => Verdict;

const present = new Tuple();
const chosen = new Tuple();
const target = new Tuple();

/** A range of one address, for the targets that choose it themselves. */
const single = { flags: 0, minIp: 0, maxIp: 0, minPort: 0, maxPort: 0, basePort: 0 };

function oneAddress(range: NatRange | null, ip: number): NatRange {
  single.flags = (range === null ? 0 : range.flags) | MAP_IPS;
  single.minIp = ip;
  single.maxIp = ip;
  single.minPort = range === null ? 0 : range.minPort;
  single.maxPort = range === null ? 0 : range.maxPort;
  single.basePort = range === null ? 0 : range.basePort;
  return single;
}

/** HOOK2MANIP. */
export function manipOf(hook: number): Manip {
  return hook === POST_ROUTING || hook === LOCAL_IN ? SRC : DST;
}

export interface NatParts {
  readonly hooks: Hooks;
  readonly entries: Entries;
  readonly addresses: OwnAddresses;
  readonly rng: Rng;
  readonly allocate?: Allocate | undefined;
}

/** A device, or an address of it (0: all), that went; connections from `next` on were not looked at yet. */
interface Gone {
  readonly device: number;
  readonly ip: number;
  next: number;
}

export class Nat {
  /** Set by whoever has the rules; null: every connection is bound to itself. */
  lookup: NatLookup | null = null;
  readonly #hooks: Hooks;
  readonly #entries: Entries;
  readonly #addresses: OwnAddresses;
  readonly #rng: Rng;
  readonly #bySource: BySource;
  /** Device + 1 that MASQUERADE bound an entry to, by entry; 0: none (nf_conn_nat.masq_index). */
  readonly #masqDevice: Int32Array;
  readonly #ops: readonly HookOp[];
  readonly #gone: Gone[] = [];
  #users = 0;
  /** Of whom this is a copy: entries are at the same places. */
  #live: Nat | null = null;

  constructor(parts: NatParts) {
    this.#hooks = parts.hooks;
    this.#entries = parts.entries;
    this.#addresses = parts.addresses;
    this.#rng = parts.rng;
    const { capacity } = parts.entries;
    this.#bySource = new BySource(capacity, parts.rng.fork().next(), parts.allocate);
    this.#masqDevice = new Columns('nat', parts.allocate).int32('masqDevice', capacity + 1);
    this.#ops = natOps(this);
  }

  /** nf_nat_setup_info: bind one end of the packet's connection to what the range allows. */
  setup(entry: number, range: NatRange, manip: Manip): Verdict {
    const ct = this.#entries;
    const status = ct.status(entry);
    if ((status & CONFIRMED) !== 0) return ACCEPT;
    presentTuple(ct, entry, present);
    chosen.copyFrom(present);
    chooseTuple(ct, this.#bySource, this.#rng, chosen, entry, range, manip);
    let bits = manip === SRC ? SRC_DONE : DST_DONE;
    if (!chosen.equals(present)) {
      chosen.invert();
      ct.alterReply(entry, chosen);
      bits |= manip === SRC ? SRC_NAT : DST_NAT;
    }
    if (manip === SRC) this.#bySource.add(ct, entry);
    ct.addStatus(entry, bits);
    return ACCEPT;
  }

  /** An entry that a command makes (nfnetlink_parse_nat_setup). */
  bindByHand(entry: number, manip: Manip, target: { readonly ip: number; readonly port: number } | null): void {
    if (target === null) {
      this.#bindNull(entry, manip);
      return;
    }
    oneAddress(null, target.ip);
    if (target.port !== 0) {
      single.flags |= RangeFlag.ProtoSpecified;
      single.minPort = target.port;
      single.maxPort = target.port;
    }
    this.setup(entry, single, manip);
  }

  /**
   * An expected connection is translated as the one that announced it (nf_nat_follow_master): it comes from whom that goes to, and goes to who announced it.
   * @param dir the direction of the master whose sender is met  @param port where that one listens
   */
  followMaster(entry: number, master: number, dir: number, port: number): void {
    this.#entries.tuple(master, 1 - dir, target);
    const { src, dst } = target;
    this.setup(entry, oneAddress(null, dst), SRC);
    oneAddress(null, src);
    single.flags |= RangeFlag.ProtoSpecified;
    single.minPort = port;
    single.maxPort = port;
    this.setup(entry, single, DST);
  }

  /** MASQUERADE (nf_nat_masquerade_ipv4): the address of the device where the packet leaves. */
  masquerade(p: Packet, range: NatRange): Verdict {
    const { entry } = p;
    this.#entries.tuple(entry, ORIGINAL, target);
    if (target.src === 0) return ACCEPT;
    const ip = this.#addresses.sourceOn(p.outDevice, p.nexthop);
    if (ip === 0) {
      p.drop = Drop.NatNoAddress;
      return DROP;
    }
    this.#masqDevice[entry] = p.outDevice + 1;
    return this.setup(entry, oneAddress(range, ip), SRC);
  }

  /** REDIRECT (nf_nat_redirect_ipv4): to this machine. */
  redirect(p: Packet, range: NatRange, hook: number): Verdict {
    const ip = hook === LOCAL_OUT ? LOOPBACK : this.#addresses.firstAddress(p.inDevice);
    if (ip === 0) {
      p.drop = Drop.NatNoAddress;
      return DROP;
    }
    return this.setup(p.entry, oneAddress(range, ip), DST);
  }

  /** NETMAP (xt_NETMAP.c): the network part becomes that of the range, the host part stays. */
  netmap(p: Packet, range: NatRange, hook: number): Verdict {
    const manip = manipOf(hook);
    const hostBits = range.minIp ^ range.maxIp;
    const ip = manip === SRC ? ipv4.src(p.view, p.l3) : ipv4.dst(p.view, p.l3);
    return this.setup(p.entry, oneAddress(range, (ip & hostBits) | (range.minIp & ~hostBits)), manip);
  }

  /** nf_nat_inet_fn, nf_nat_ipv4_fn. */
  translate(p: Packet, hook: number, manip: Manip): Verdict {
    const { entry } = p;
    if (entry === 0) return ACCEPT;
    const ct = this.#entries;
    const info = p.ctInfo;
    const isRelated = info === RELATED || info === RELATED_REPLY;
    if (isRelated && p.proto === ICMP) return this.#translateError(p, manip);
    if (isRelated || info === NEW) {
      const done = manip === SRC ? SRC_DONE : DST_DONE;
      if ((ct.status(entry) & done) === 0) {
        const verdict = this.#bind(p, hook, manip, done);
        if (verdict !== ACCEPT) return verdict;
      } else if (this.#hasLeftDevice(p, hook)) {
        return this.#end(p);
      }
    } else if (this.#hasLeftDevice(p, hook)) {
      return this.#end(p);
    }
    return this.#rewrite(p, manip);
  }

  /**
   * Of what starts here, or is sent on: with another destination it is routed anew, and one to which there is no way ends before any rule sees it (nf_nat_ipv4_local_fn).
   * As a socket would, the kernel behind the host port hears of it.
   */
  translateOut(p: Packet): Verdict {
    const dst = ipv4.dst(p.view, p.l3);
    const verdict = this.translate(p, LOCAL_OUT, DST);
    const now = ipv4.dst(p.view, p.l3);
    if (verdict !== ACCEPT || now === dst) return verdict;
    const way = this.#addresses.wayTo(now);
    if (way === HAS_WAY) return ACCEPT;
    p.drop = way === NETWORK ? Drop.NoRoute : Drop.RouteUnreachable;
    if (way !== SILENCE && p.isLocalOut !== 0 && p.inDevice !== BORN_HERE) {
      p.rejectType = UNREACHABLE;
      p.rejectCode = way;
      p.rejectMtu = 0;
    }
    return DROP;
  }

  /** By the rules, else to itself (nf_nat_alloc_null_binding). */
  #bind(p: Packet, hook: number, manip: Manip, done: number): Verdict {
    const { entry } = p;
    const ct = this.#entries;
    if (this.lookup !== null) {
      const verdict = this.lookup(p, hook);
      if (verdict !== ACCEPT) return verdict;
      if ((ct.status(entry) & done) !== 0) return ACCEPT;
    }
    return this.#bindNull(entry, manip);
  }

  #bindNull(entry: number, manip: Manip): Verdict {
    this.#entries.tuple(entry, REPLY, target);
    return this.setup(entry, oneAddress(null, manip === SRC ? target.dst : target.src), manip);
  }

  /** nf_nat_packet: the packet as it looks on the other side of its connection's translation. */
  #rewrite(p: Packet, manip: Manip): Verdict {
    const ct = this.#entries;
    const isReply = p.ctInfo >= FIRST_REPLY;
    const bit = (manip === SRC) === isReply ? DST_NAT : SRC_NAT;
    if ((ct.status(p.entry) & bit) === 0) return ACCEPT;
    ct.tuple(p.entry, isReply ? ORIGINAL : REPLY, target);
    const part = manip === SRC && p.proto !== ICMP ? target.ports & 0xffff : target.ports >>> 16;
    if (!rewrite(p, p.l3, manip === SRC, manip === SRC ? target.dst : target.src, part)) {
      p.drop = Drop.NatTooShort;
      return DROP;
    }
    p.flow = FLOW_UNKNOWN;
    return ACCEPT;
  }

  #translateError(p: Packet, manip: Manip): Verdict {
    const ct = this.#entries;
    const status = ct.status(p.entry);
    drawHeaders(p);
    const fault = errorFault(p, (status & BOTH_DONE) !== BOTH_DONE || (status & ANY_NAT) !== 0);
    if (fault !== Drop.None) {
      p.drop = fault;
      return DROP;
    }
    const isReply = p.ctInfo >= FIRST_REPLY;
    const bit = (manip === SRC) === isReply ? DST_NAT : SRC_NAT;
    if ((status & bit) === 0) return ACCEPT;
    ct.tuple(p.entry, isReply ? ORIGINAL : REPLY, target);
    const part = manip === SRC && target.proto !== ICMP ? target.ports & 0xffff : target.ports >>> 16;
    if (!rewriteError(p, manip === SRC, manip === SRC ? target.dst : target.src, part)) {
      p.drop = Drop.NatTooShort;
      return DROP;
    }
    p.flow = FLOW_UNKNOWN;
    return ACCEPT;
  }

  /** nf_nat_oif_changed: a masqueraded connection that would leave by another device has the wrong address there. */
  #hasLeftDevice(p: Packet, hook: number): boolean {
    if (hook !== POST_ROUTING || p.ctInfo >= FIRST_REPLY) return false;
    const { entry } = p;
    const device = this.#masqDevice[entry] || (this.#live === null ? 0 : this.#live.#masqDevice[entry]!);
    return device !== 0 && device !== p.outDevice + 1;
  }

  #end(p: Packet): Verdict {
    this.#entries.kill(p.entry);
    p.drop = Drop.NatDeviceChanged;
    return DROP;
  }

  // cold: registration, addresses and entries that go
  hooks(): readonly HookOp[] {
    return this.#ops;
  }

  /** One more who needs translation: a nat chain with a rule. */
  acquire(): void {
    if (this.#users++ > 0) return;
    this.#entries.acquire();
    this.#hooks.register(this.#ops);
  }

  release(): void {
    if (--this.#users > 0) return;
    this.#hooks.unregister(this.#ops);
    this.#entries.release();
  }

  /** An entry ends: nobody follows it any more (nf_nat_cleanup_conntrack). */
  entryEnds(entry: number): void {
    if ((this.#entries.status(entry) & SRC_DONE) !== 0) this.#bySource.remove(this.#entries, entry);
    this.#masqDevice[entry] = 0;
  }

  /** Stand in the hooks of a copy as in those of the original, and follow its bindings; the rules of the copy are its own. */
  copyFrom(live: Nat): void {
    if (live.#users > 0 && this.#users === 0) this.#hooks.register(this.#ops);
    this.#users = live.#users;
    this.#bySource.copyFrom(live.#bySource, live.#entries);
    this.#live = live;
  }

  /** Entries that an earlier life has left are still to come; null: no longer. */
  set inheritance(inheritance: Inheritance | null) {
    this.#bySource.inheritance = inheritance;
  }

  /**
   * An entry that an earlier life of the daemon has translated: others follow it, and it hangs on the device by which it leaves.
   * @param device that MASQUERADE bound it to, + 1; 0: none
   */
  inherit(entry: number, device: number): void {
    if ((this.#entries.status(entry) & SRC_DONE) !== 0) this.#bySource.add(this.#entries, entry);
    if (device !== 0) this.#masqDevice[entry] = device;
  }

  /**
   * The device went down, or lost this address: what was masqueraded there is over (masq_device_event, masq_inet_event). `ip` 0: all of it. Of many connections the
   * rest ends with the next ticks, as the kernel leaves them to a worker (iterate_cleanup_work).
   */
  addressGone(device: number, ip: number): void {
    this.#gone.push({ device, ip, next: 1 });
    if (this.#gone.length === 1) this.advance();
  }

  /** Are there connections that have no address any more? */
  get isBehind(): boolean {
    return this.#gone.length > 0;
  }

  /** Once per tick. */
  advance(): void {
    const ct = this.#entries;
    let ends = MOST_ENDS;
    let seen = MOST_SEEN;
    for (let gone = this.#gone[0]; gone !== undefined; gone = this.#gone[0]) {
      for (; gone.next < ct.highWater; gone.next++) {
        if (ends === 0 || seen-- === 0) return;
        if (this.#masqDevice[gone.next] !== gone.device + 1) continue;
        ct.tuple(gone.next, REPLY, target);
        if (gone.ip !== 0 && target.dst !== gone.ip) continue;
        ct.kill(gone.next);
        ends--;
      }
      this.#gone.shift();
    }
  }
}

function natOps(nat: Nat): readonly HookOp[] {
  const op = (hook: Hook, why: string): HookOp => {
    const manip = manipOf(hook);
    return {
      hook,
      priority: manip === SRC ? Priority.NatSrc : Priority.NatDst,
      name: manip === SRC ? 'nat/src' : 'nat/dst',
      why,
      run: hook === Hook.LocalOut ? (p) => nat.translateOut(p) : (p) => nat.translate(p, hook, manip),
    };
  };
  return [
    op(Hook.PreRouting, 'before routing, so that the new destination is what is routed'),
    op(Hook.LocalOut, 'the same for what this machine sends: it is routed anew'),
    op(Hook.LocalIn, 'after filtering: rules see the source as it came'),
    op(Hook.PostRouting, 'after filtering and routing: the way out is known, MASQUERADE takes its address'),
  ];
}
