/**
 * A connection: one row of the connection table (connections.ts), one cache line.   @hot
 *
 *   row = 16 ints:  CIP | VIP | RIP | cport:vport | rport:proto:state | flags | timeout | expires |
 *                   due | destination | flow in | flow out | next in | next out | deltas | packets
 */

export const CONN_SHIFT = 4;
/** Columns of a row. */
export const Conn = {
  Cip: 0,
  Vip: 1,
  Rip: 2,
  /** cport << 16 | vport. */
  Ports: 3,
  /** rport << 16 | protocol << 8 | state. */
  Meta: 4,
  Flags: 5,
  /** Ticks; what a packet adds to now. */
  Timeout: 6,
  /** Tick. */
  Expires: 7,
  /** Tick for which the wheel was started. */
  Due: 8,
  Dest: 9,
  FlowIn: 10,
  FlowOut: 11,
  NextIn: 12,
  NextOut: 13,
  /** Checksum change of the request direction, RFC 1624's ~m + m': of addresses << 16 | of addresses and ports. */
  Deltas: 14,
  /** Packets of the client, segments counted. */
  Packets: 15,
} as const;

/** Ints of a connection in ConnTable.local. */
export const LOCAL_SHIFT = 1;

export const NO_CONN = -1;

/** Bits of Conn.Flags. The low three are the forwarding method, numbered as the kernel's IP_VS_CONN_F_FWD_MASK. */
export const ConnFlag = {
  MethodMask: 7,
  /** Counts as inactive at its server. */
  Inactive: 0x10,
  /** No packet of the server was seen yet, and none is expected (DR, tunnel). */
  NoOutput: 0x20,
  /** Persistence template. */
  Template: 0x40,
  OnePacket: 0x80,
  /** A template whose client has completed a connection. */
  Assured: 0x100,
  /** The row is in use. */
  Used: 0x200,
  /** Its drain is over: both sides are being told (resets.ts). */
  Resetting: 0x4000,
  /** The client's port is not known yet: its first packet fills it in. */
  NoCport: 0x400,
  /** A helper reads its packets (app/). */
  App: 0x800,
  /** A template that a persistence engine made: it is found by what the engine knows (persistence-engine.ts), and has no flow row. */
  HasPe: 0x1000,
  /** Another director told us of it. */
  Synced: 0x2000,
  /** Connection tracking has an entry of it, too (net.ipv4.vs.conntrack as it was when it began). */
  Tracked: 0x8000,
} as const;
/** The kernel's, and DPVS's for full NAT. */
export const Method = { Masq: 0, Local: 1, Tunnel: 2, Route: 3, Bypass: 4, FullNat: 5 } as const;

/** Which tuple of a connection a flow row is. */
export const Dir = { In: 0, Out: 1 } as const;

/** Added to the protocol in the flow table's `kind` of a template, so that no packet finds it. */
export const TEMPLATE_KIND = 0x100;
