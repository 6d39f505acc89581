/**
 * The packet: an offset into the pool, and what the pipeline knows of it.   @hot
 *
 *   slotStart                     l2            l3              l4                  end        slotEnd
 *   |  headroom (128)  | vnet(10) | Ethernet 14 | IPv4 20…60    | transport, data   |  tailroom  |
 *
 * `l3` stands on a 16-byte boundary when the frame came from a device, so that 16-bit sums are aligned. Encapsulation takes
 * from the headroom: l2 and l3 move left, nothing is copied. The vnet header is no part of the packet: devices parse it on
 * receive into the offload fields and write it anew before `l2` on transmit.
 *
 * One class, one shape: every field is an int, set in the constructor, never undefined.
 */

export const HEADROOM = 130;
/** Ethernet + VLAN tag + the longest IPv4 packet fits behind the headroom; an odd multiple of 64 so that slots do not share cache sets. */
export const SLOT_SIZE = 64 * 1029;
/** Bytes a device may write from l2 on. */
export const FRAME_ROOM = SLOT_SIZE - HEADROOM;

export const NONE = -1;

/** Link-layer class of a received frame, as the kernel's skb->pkt_type. */
export const PacketType = { Host: 0, Broadcast: 1, Multicast: 2, OtherHost: 3 } as const;

/** `Packet.rejectType` for a TCP reset; ICMP types are below 256. */
export const REJECT_TCP_RESET = 256;

/** What `flow` holds before the one look-up. */
export const FLOW_UNKNOWN = -2;

export class Packet {
  /** The same for all packets of a pool. */
  readonly view: DataView;
  readonly bytes: Uint8Array;
  readonly words: Uint16Array;
  readonly index: number;
  readonly slotStart: number;

  l2 = 0;
  l3 = 0;
  l4 = 0;
  /** One past the last byte of the IP packet (or frame, before ip.input). */
  end = 0;

  /** IpProto of the packet; set by ip.input and by whoever encapsulates. */
  proto = 0;
  /** 1 when there is no transport header at l4: a later fragment. */
  isLaterFragment = 0;
  /**
   * Bytes from l3 to the IPv4 header that the checksum and GSO fields speak of: 0 for the one at l3; more in a tunnel that was wrapped here, where l4 and
   * proto are the outer header's. Such a packet may be cut into fragments whatever its DF says (skb->ignore_df).
   */
  inner = 0;
  /** Length of the longest fragment that it was put together from, bytes; 0 for one that came whole. It leaves in pieces no longer than that. */
  fragMax = 0;
  /** What was read of its IPv4 options (ip/options.ts); 0: nothing yet, or there are none. */
  options = 0;
  /** Bytes from l4 that who wrote into it drew into its first piece, where the kernel would have to (skb_ensure_writable): such a datagram may fit no more. */
  drawn = 0;
  /** Drop reason that the transport gate found, 0 when the header is sound. Only who needs the header must care. */
  l4Fault = 0;
  pktType = 0;

  /** Device ids (device.ts); NONE for packets born here. */
  inDevice = NONE;
  outDevice = NONE;
  /** 1 when the packet was born here or by the kernel behind the host port: it starts at LOCAL_OUT. */
  isLocalOut = 0;
  /** Destination is one of our addresses, as routed. */
  isLocalIn = 0;
  /** IPv4 next hop, once routed; 0 before. */
  nexthop = 0;
  /** MTU of the way out, once routed; bytes. */
  mtu = 0;
  mark = 0;

  /** Flow row of this packet's tuple, NONE when it has none, FLOW_UNKNOWN before the look-up. */
  flow = FLOW_UNKNOWN;
  /** Connection tracking's entry of this packet, 0 when it has none; with `ctInfo`, the two halves of skb->_nfct. */
  entry = 0;
  /** CtInfo (conntrack/entry.ts): what the packet is to its entry, or Untracked without one. */
  ctInfo = 0;
  /** What a rule wants of the entry that is about to be made: index of conntrack's templates, 0 for nothing. */
  ctTemplate = 0;
  /** 1 once the director has handled the packet, as skb->ipvs_property: its hooks then leave it alone. */
  ipvsProperty = 0;
  /** How often it was sent through LOCAL_OUT again; a bound against loops. */
  reroutes = 0;

  /** Transport checksum: 1 = partial (NEEDS_CSUM; the field holds the pseudo-header sum), else complete. */
  csumPartial = 0;
  /** 1 = the sender vouches for it (DATA_VALID); valid only while nobody recomputes. */
  csumValid = 0;
  /** GsoType, 0 for an ordinary packet; segment payload in bytes. */
  gsoType = 0;
  gsoSize = 0;

  /** Where in which chain a QUEUEd or REPEATed packet stands. */
  hook = 0;
  hookIndex = 0;
  /** Queue number that goes with Verdict.Queue. */
  queue = 0;
  /** Reason that goes with Verdict.Drop; Drop.Policy when nobody said more. */
  drop = 0;
  /**
   * What the sender is owed with a Drop, sent by `ip` when the packet is settled: 0 nothing; an ICMP type (IcmpType.DestUnreachable,
   * TimeExceeded, …) with its code and, for fragmentation needed, the MTU in bytes; or REJECT_TCP_RESET.
   */
  rejectType = 0;
  rejectCode = 0;
  rejectMtu = 0;
  /** Record of `tapvs capture` that waits for this packet's verdict; NONE while nobody captures. */
  capture = NONE;
  /** Free-list link of the pool, or of a queue that holds the packet. */
  next = NONE;
  /** 1 while out of the pool. */
  inUse = 0;

  constructor(view: DataView, bytes: Uint8Array, words: Uint16Array, index: number) {
    this.view = view;
    this.bytes = bytes;
    this.words = words;
    this.index = index;
    this.slotStart = index * SLOT_SIZE;
  }
}

/** Everything to its first value; offsets at the usual place for a frame of `length` bytes. */
export function resetPacket(p: Packet, length: number): void {
  p.l2 = p.slotStart + HEADROOM;
  p.l3 = p.l2 + 14;
  p.l4 = p.l3 + 20;
  p.end = p.l2 + length;
  p.proto = 0;
  p.isLaterFragment = 0;
  p.inner = 0;
  p.fragMax = 0;
  p.options = 0;
  p.drawn = 0;
  p.l4Fault = 0;
  p.pktType = 0;
  p.inDevice = NONE;
  p.outDevice = NONE;
  p.isLocalOut = 0;
  p.isLocalIn = 0;
  p.nexthop = 0;
  p.mtu = 0;
  p.mark = 0;
  p.flow = FLOW_UNKNOWN;
  p.entry = 0;
  p.ctInfo = 0;
  p.ctTemplate = 0;
  p.ipvsProperty = 0;
  p.reroutes = 0;
  p.csumPartial = 0;
  p.csumValid = 0;
  p.gsoType = 0;
  p.gsoSize = 0;
  p.hook = 0;
  p.hookIndex = 0;
  p.queue = 0;
  p.drop = 0;
  p.rejectType = 0;
  p.rejectCode = 0;
  p.rejectMtu = 0;
  p.capture = NONE;
}

/** `q`, which was cut out of `whole`, goes the same way. */
export function goLike(q: Packet, whole: Packet): void {
  q.proto = whole.proto;
  q.inDevice = whole.inDevice;
  q.outDevice = whole.outDevice;
  q.isLocalOut = whole.isLocalOut;
  q.nexthop = whole.nexthop;
  q.mtu = whole.mtu;
  q.mark = whole.mark;
  q.ipvsProperty = whole.ipvsProperty;
}
