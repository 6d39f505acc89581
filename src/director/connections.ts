/**
 * The connection table: one row = one cache line.   @hot
 *
 *   row = 16 ints:  CIP | VIP | RIP | cport:vport | rport:proto:state | flags | timeout | expires |
 *                   due | destination | flow in | flow out | next in | next out | deltas | packets
 *
 * A connection is found by its flow rows: the row of the request tuple (CIP:cport → VIP:vport) carries it with direction `in`, the row of the reply
 * tuple (RIP:rport → CIP:cport when translated, RIP:rport → LIP:lport with full NAT, else VIP:vport → CIP:cport) with direction `out`. Several connections can share a reply tuple (one
 * server behind two services, one client port): the newest wins, the others wait behind it (`next in`, `next out`) and come back when it goes.
 *
 * Memory is reserved at the start and touched as rows come into use: 64 bytes and 10 of timer a connection, 64 more for its two flow rows.
 *
 * Timers: a packet only stores `expires`. The wheel fires at `due` or later and is started again for what is left; only when a state shortens the
 * timeout to before `due` is it touched by a packet.
 */
import { adoptRow } from '../base/copy-state.ts';
import { type Allocate, Columns, int32Of, plainMemory, uint8Of } from '../base/memory.ts';
import { TimerWheel } from '../base/timer-wheel.ts';
import { FlowColumn, type FlowTable, NO_FLOW } from '../flow/flow-table.ts';
import { diff16, diff32, fold } from '../wire/checksum.ts';
import { IpProto } from '../wire/ipv4.ts';

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

const COPIED_FREE = 64;

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

const { Cip, Vip, Rip, Ports, Meta, Flags, Timeout, Expires, Due, Dest, FlowIn, FlowOut, NextIn } = Conn;
const { Deltas, Packets } = Conn;
const CONNECTION = FlowColumn.Connection;
const { Used: USED, MethodMask: METHOD_MASK, Template: TEMPLATE, HasPe: HAS_PE, Synced: SYNCED } = ConnFlag;
const { NoCport: NO_CPORT, App: APP, Resetting: RESETTING } = ConnFlag;
const HELPED = APP | NO_CPORT;
const { Masq: MASQ, FullNat: FULL_NAT } = Method;
const METHOD_AND_TEMPLATE = METHOD_MASK | TEMPLATE;
const { Tcp: TCP } = IpProto;

/** The columns of a connection that outlive the process. */
export type KeptConnections = Pick<ConnTable, 'rows' | 'local' | 'control'>;

/** As of entries (conntrack/entries.ts). */
const MOST_ENDS = 1024;

export class ConnTable {
  /** The rows; hot code indexes them with `(id << CONN_SHIFT) + Conn.X`. */
  readonly rows: Int32Array;
  readonly capacity: number;
  /** Id + 1 of the connection (a persistence template) that controls this one, 0 when none does. */
  readonly control: Int32Array;
  /** How many connections this one controls: while there are any, it does not end. */
  readonly controlled: Int32Array;
  /** State that backups were last told of. */
  readonly toldState: Uint8Array;
  /** When its time would have been over as backups were last told, a tick rounded down to 4; the low two bits count repetitions. */
  readonly toldUntil: Int32Array;
  /** Of full NAT: local address | id of it << 16 | local port. */
  readonly local: Int32Array;
  /** Flags of every new connection: ConnFlag.Tracked or none. */
  newFlags = 0;
  /** Firewall marks of connections that are bound to no server, where they have one. */
  readonly marks = new Map<number, number>();
  readonly #flows: FlowTable;
  readonly #wheel: TimerWheel;
  /** Id + 1 of the free list through FlowIn; ids from #fresh on were never used. */
  #free = 0;
  /** One int. */
  readonly #fresh: Int32Array;
  #count = 0;
  #withoutPort = 0;
  /** Port of the services whose masqueraded TCP connections are a helper's; 0 = none. */
  readonly #appPort: number;

  constructor(capacity: number, flows: FlowTable, now: number, allocate: Allocate = plainMemory, appPort = 0) {
    const columns = new Columns('connections', allocate);
    this.capacity = capacity;
    this.#appPort = appPort;
    this.rows = columns.int32('rows', capacity << CONN_SHIFT);
    this.control = columns.int32('control', capacity);
    this.#fresh = columns.int32('fresh', 1);
    this.controlled = int32Of(allocate(capacity * 4), capacity);
    this.toldState = uint8Of(allocate(capacity), capacity);
    this.toldUntil = int32Of(allocate(capacity * 4), capacity);
    this.local = columns.int32('local', capacity << LOCAL_SHIFT);
    this.#flows = flows;
    this.#wheel = new TimerWheel(capacity, now, allocate);
  }

  /** Connections, templates included. */
  get count(): number {
    return this.#count;
  }

  /** Connections whose client's port is not known yet. */
  get withoutPort(): number {
    return this.#withoutPort;
  }

  /** Ids below this one may be in use. */
  get highWater(): number {
    return this.#fresh[0]!;
  }

  isUsed(id: number): boolean {
    return (this.rows[(id << CONN_SHIFT) + Flags]! & USED) !== 0;
  }

  /** The connection that a flow row carries in direction `dir`, or NO_CONN. */
  find(flow: number, dir: number): number {
    let value = this.#flows.attached(flow, CONNECTION);
    while (value !== 0) {
      const id = (value - 1) >> 1;
      const its = (value - 1) & 1;
      if (its === dir) return id;
      value = this.rows[(id << CONN_SHIFT) + NextIn + its]!;
    }
    return NO_CONN;
  }

  /** A packet has passed: its timeout starts anew at tick `now`. */
  restart(id: number, now: number): void {
    const at = id << CONN_SHIFT;
    const expires = (now + this.rows[at + Timeout]!) | 0;
    this.rows[at + Expires] = expires;
    if (((expires - this.rows[at + Due]!) | 0) < 0) this.#start(id, expires);
  }

  /**
   * A new connection in state 0, with its flow rows and timer.
   * @param flags Method, Inactive, NoOutput, Template, OnePacket  @param timeout ticks
   * @param localIp,localPort of full NAT, unless it is a template: as in `local`
   * @returns NO_CONN when this table or the flow table is full
   */
  add(
    now: number,
    proto: number,
    cip: number,
    vip: number,
    ports: number,
    rip: number,
    rport: number,
    dest: number,
    flags: number,
    timeout: number,
    localIp = 0,
    localPort = 0,
  ): number {
    let id: number;
    if (this.#free !== 0) {
      id = this.#free - 1;
    } else {
      id = this.#fresh[0]!;
      if (id === this.capacity) return NO_CONN;
    }
    const flows = this.#flows;
    const kind = (flags & TEMPLATE) !== 0 ? proto | TEMPLATE_KIND : proto;
    const hasFlow = (flags & HAS_PE) === 0;
    const flowIn = hasFlow ? flows.obtain(cip, vip, ports, kind) : NO_FLOW;
    if (hasFlow && flowIn === NO_FLOW) return NO_CONN;
    const rows = this.rows;
    const at = id << CONN_SHIFT;
    if (id === this.#fresh[0]) this.#fresh[0] = id + 1;
    else this.#free = rows[at + FlowIn]!;
    this.#count++;
    rows[at + Cip] = cip;
    rows[at + Vip] = vip;
    rows[at + Rip] = rip;
    rows[at + Ports] = ports;
    rows[at + Meta] = (rport << 16) | (proto << 8);
    const isFullNat = (flags & METHOD_AND_TEMPLATE) === FULL_NAT;
    const isApp = proto === TCP && (ports & 0xffff) === this.#appPort && (flags & METHOD_AND_TEMPLATE) === MASQ;
    // What tracking would do for it, full NAT does itself.
    rows[at + Flags] = flags | (isFullNat ? 0 : this.newFlags) | (isApp ? APP : 0);
    rows[at + Timeout] = timeout;
    rows[at + Dest] = dest;
    rows[at + Packets] = 0;
    this.toldState[id] = 0;
    this.toldUntil[id] = now & ~3;
    let addresses = diff32(vip, rip);
    let portChange = diff16(ports & 0xffff, rport);
    if (isFullNat) {
      this.local[id << LOCAL_SHIFT] = localIp;
      this.local[(id << LOCAL_SHIFT) + 1] = localPort;
      addresses = fold(addresses + diff32(cip, localIp));
      portChange += diff16(ports >>> 16, localPort & 0xffff);
    }
    rows[at + Deltas] = (addresses << 16) | fold(addresses + portChange);
    if (hasFlow) this.#link(flowIn, id, Dir.In);
    else rows[at + FlowIn] = NO_FLOW;
    rows[at + FlowOut] = NO_FLOW;
    if ((flags & TEMPLATE) === 0 && !this.#linkReply(id)) {
      this.#unlink(id, Dir.In);
      this.#release(id);
      return NO_CONN;
    }
    if ((flags & NO_CPORT) !== 0) this.#withoutPort++;
    const expires = (now + timeout) | 0;
    rows[at + Expires] = expires;
    this.#start(id, expires);
    // Last, so that a row that says so is whole, whenever this process ends.
    rows[at + Flags]! |= USED;
    return id;
  }

  /** The row goes at once, with its flow rows and timer; counters elsewhere are the caller's business. */
  remove(id: number): void {
    this.#wheel.cancel(id);
    if ((this.rows[(id << CONN_SHIFT) + Flags]! & NO_CPORT) !== 0) this.#withoutPort--;
    this.#unlink(id, Dir.In);
    this.#unlink(id, Dir.Out);
    if ((this.rows[(id << CONN_SHIFT) + Flags]! & SYNCED) !== 0) this.marks.delete(id);
    const control = this.control[id]!;
    if (control !== 0) {
      this.controlled[control - 1]!--;
      this.control[id] = 0;
    }
    this.#release(id);
  }

  /** Where answers come from depends on the forwarding method. False when the flow table is full. */
  #linkReply(id: number): boolean {
    const rows = this.rows;
    const at = id << CONN_SHIFT;
    const ports = rows[at + Ports]!;
    const meta = rows[at + Meta]!;
    const cip = rows[at + Cip]!;
    const cport = ports >>> 16;
    const proto = (meta >> 8) & 0xff;
    const method = rows[at + Flags]! & METHOD_MASK;
    const rport = meta & 0xffff0000;
    let flow: number;
    if (method === MASQ) {
      flow = this.#flows.obtain(rows[at + Rip]!, cip, rport | cport, proto);
    } else if (method === FULL_NAT) {
      const own = id << LOCAL_SHIFT;
      flow = this.#flows.obtain(rows[at + Rip]!, this.local[own]!, rport | (this.local[own + 1]! & 0xffff), proto);
    } else {
      flow = this.#flows.obtain(rows[at + Vip]!, cip, (ports << 16) | cport, proto);
    }
    if (flow === NO_FLOW) return false;
    this.#link(flow, id, Dir.Out);
    return true;
  }

  /** Bind a connection that had none to a server, whose forwarding method may be another than the one that it brought. @param flags without Used */
  rebind(id: number, dest: number, flags: number): void {
    const at = id << CONN_SHIFT;
    this.marks.delete(id);
    this.rows[at + Dest] = dest;
    this.#unlink(id, Dir.Out);
    this.rows[at + Flags] = flags | USED | (this.rows[at + Flags]! & HELPED);
    this.rows[at + FlowOut] = NO_FLOW;
    if ((flags & TEMPLATE) === 0) this.#linkReply(id);
  }

  /** The client's port has become known (ip_vs_conn_fill_cport). */
  fillClientPort(id: number, cport: number): void {
    const rows = this.rows;
    const at = id << CONN_SHIFT;
    rows[at + Flags]! &= ~NO_CPORT;
    this.#withoutPort--;
    this.#unlink(id, Dir.In);
    this.#unlink(id, Dir.Out);
    const vport = rows[at + Ports]! & 0xffff;
    const ports = (cport << 16) | vport;
    rows[at + Ports] = ports;
    // With a full flow table it is not found by that tuple any more.
    const flow = this.#flows.obtain(rows[at + Cip]!, rows[at + Vip]!, ports, (rows[at + Meta]! >> 8) & 0xff);
    if (flow === NO_FLOW) rows[at + FlowIn] = NO_FLOW;
    else this.#link(flow, id, Dir.In);
    rows[at + FlowOut] = NO_FLOW;
    this.#linkReply(id);
  }

  /** `id` ends not before `by`: `by` is controlled by `id`. */
  setControl(id: number, by: number): void {
    this.control[by] = id + 1;
    this.controlled[id]!++;
  }

  /** A template that must not be found again, but lives on while connections need it: its ports become 65535 (ip_vs_check_template). */
  invalidateTemplate(id: number): void {
    const rows = this.rows;
    const at = id << CONN_SHIFT;
    if ((rows[at + Ports]! & 0xffff) === 0xffff) return;
    this.#unlink(id, Dir.In);
    const meta = rows[at + Meta]!;
    rows[at + Ports] = 0xffff;
    rows[at + Meta] = (0xffff << 16) | (meta & 0xffff);
    if ((rows[at + Flags]! & HAS_PE) !== 0) return;
    const kind = ((meta >> 8) & 0xff) | TEMPLATE_KIND;
    const flow = this.#flows.obtain(rows[at + Cip]!, rows[at + Vip]!, 0xffff, kind);
    if (flow === NO_FLOW) rows[at + FlowIn] = NO_FLOW;
    else this.#link(flow, id, Dir.In);
  }

  /** Are there more connections whose time is over than one tick may end? */
  get isBehind(): boolean {
    return this.#wheel.isBehind;
  }

  /** Fire the timers that are due at tick `now`, as many as a tick may; `expire` is called for connections whose time is really over, and removes or restarts them. */
  advance(now: number, fire: (id: number) => void): void {
    this.#wheel.advance(now, fire, MOST_ENDS);
  }

  /** For the function that `advance` calls: true when packets have moved the deadline, and the timer was started again for the rest. */
  isPostponed(id: number, now: number): boolean {
    const expires = this.rows[(id << CONN_SHIFT) + Expires]!;
    if (((expires - now) | 0) <= 0) return false;
    this.#start(id, expires);
    return true;
  }

  /** For the same: the connection lives on, with another timeout from now on. @param timeout ticks */
  prolong(id: number, now: number, timeout: number): void {
    const at = id << CONN_SHIFT;
    const expires = (now + timeout) | 0;
    this.rows[at + Timeout] = timeout;
    this.rows[at + Expires] = expires;
    this.#start(id, expires);
  }

  /** It ends after `left` ticks if no packet comes, though its timeout is longer. */
  shorten(id: number, now: number, left: number): void {
    const at = id << CONN_SHIFT;
    const expires = (now + Math.min(left, this.rows[at + Timeout]!)) | 0;
    this.rows[at + Expires] = expires;
    if (((expires - this.rows[at + Due]!) | 0) < 0) this.#start(id, expires);
  }

  // cold: copies
  /**
   * A connection as an earlier life of the daemon had it: row `old` of its columns.
   * @param dest the row that its server has now
   * @returns NO_CONN when there is no room, or its tuple is another connection's
   */
  inherit({ rows, local }: KeptConnections, old: number, dest: number, now: number): number {
    const from = old << CONN_SHIFT;
    const flags = rows[from + Flags]! & ~(USED | RESETTING);
    const meta = rows[from + Meta]!;
    const proto = (meta >> 8) & 0xff;
    const cip = rows[from + Cip]!;
    const vip = rows[from + Vip]!;
    const ports = rows[from + Ports]!;
    if ((flags & HAS_PE) === 0) {
      const flow = this.#flows.find(cip, vip, ports, (flags & TEMPLATE) !== 0 ? proto | TEMPLATE_KIND : proto);
      if (flow !== NO_FLOW && this.find(flow, Dir.In) !== NO_CONN) return NO_CONN;
    }
    const { newFlags } = this;
    this.newFlags = 0;
    const timeout = rows[from + Timeout]!;
    const rip = rows[from + Rip]!;
    const own = old << LOCAL_SHIFT;
    const id = this.add(
      now,
      proto,
      cip,
      vip,
      ports,
      rip,
      meta >>> 16,
      dest,
      flags,
      timeout,
      local[own],
      local[own + 1],
    );
    this.newFlags = newFlags;
    if (id === NO_CONN) return NO_CONN;
    const at = id << CONN_SHIFT;
    this.rows[at + Meta] = meta;
    this.rows[at + Packets] = rows[from + Packets]!;
    const expires = rows[from + Expires]!;
    this.rows[at + Expires] = expires;
    this.#start(id, expires);
    return id;
  }

  /** Become a copy, for a packet's worth of new connections, that has none of its connections yet; `adopt` takes them over one by one. Its timers do not run. */
  copyFrom(live: ConnTable): void {
    this.#free = live.#free;
    this.#fresh[0] = live.highWater;
    this.#count = live.#count;
    this.#withoutPort = live.#withoutPort;
    // The next rows of the free list: more than one packet can need.
    for (let i = 0, free = live.#free; i < COPIED_FREE && free !== 0; i++) {
      const next = ((free - 1) << CONN_SHIFT) + FlowIn;
      this.rows[next] = live.rows[next]!;
      free = live.rows[next]!;
    }
  }

  /** Take over a connection, at the same place; its flow rows are the caller's. */
  adopt(live: ConnTable, id: number): void {
    adoptRow<ConnTable>(this, live, id, live.capacity);
    const mark = live.marks.get(id);
    if (mark !== undefined) this.marks.set(id, mark);
  }
  // hot again

  #start(id: number, expires: number): void {
    this.rows[(id << CONN_SHIFT) + Due] = expires;
    this.#wheel.add(id, expires);
  }

  #link(flow: number, id: number, dir: number): void {
    const at = id << CONN_SHIFT;
    this.rows[at + FlowIn + dir] = flow;
    this.rows[at + NextIn + dir] = this.#flows.attached(flow, CONNECTION);
    this.#flows.attach(flow, CONNECTION, ((id << 1) | dir) + 1);
  }

  #unlink(id: number, dir: number): void {
    const rows = this.rows;
    const at = id << CONN_SHIFT;
    const flow = rows[at + FlowIn + dir]!;
    if (flow === NO_FLOW) return;
    const own = ((id << 1) | dir) + 1;
    const next = rows[at + NextIn + dir]!;
    let value = this.#flows.attached(flow, CONNECTION);
    if (value === own) {
      if (next === 0) this.#flows.detach(flow, CONNECTION);
      else this.#flows.attach(flow, CONNECTION, next);
      return;
    }
    for (;;) {
      const link = (((value - 1) >> 1) << CONN_SHIFT) + NextIn + ((value - 1) & 1);
      value = rows[link]!;
      if (value === own) {
        rows[link] = next;
        return;
      }
    }
  }

  #release(id: number): void {
    const at = id << CONN_SHIFT;
    this.rows[at + Flags] = 0;
    this.rows[at + FlowIn] = this.#free;
    this.#free = id + 1;
    this.#count--;
  }
}
