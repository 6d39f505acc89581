/**
 * The connection table: columns of connections (connection.ts), their timers, the free list.   @hot
 *
 * A connection is found by its flow rows (flow-rows.ts).
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
import { CONN_SHIFT, Conn, ConnFlag, Dir, LOCAL_SHIFT, Method, NO_CONN, TEMPLATE_KIND } from './connection.ts';
import { link, obtainReply, unlink } from './flow-rows.ts';

const COPIED_FREE = 64;

const { Cip, Vip, Rip, Ports, Meta, Flags, Timeout, Expires, Due, Dest, FlowIn, FlowOut, NextIn } = Conn;
const { Deltas, Packets } = Conn;
const { Used: USED, MethodMask: METHOD_MASK, Template: TEMPLATE, HasPe: HAS_PE, Synced: SYNCED } = ConnFlag;
const { NoCport: NO_CPORT, App: APP, Resetting: RESETTING } = ConnFlag;
const HELPED = APP | NO_CPORT;
const { Masq: MASQ, FullNat: FULL_NAT } = Method;
const METHOD_AND_TEMPLATE = METHOD_MASK | TEMPLATE;
const { Tcp: TCP } = IpProto;
const CONNECTION = FlowColumn.Connection;

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
   * The same for connections that are tied to another (isTied), when their state has changed: the timer moves at once, as the kernel's do. Of timers that fire
   * together the last one moved fires first, and whether FTP's control connection meets those that it controls decides whether it lives on.
   */
  restartInOrder(id: number, now: number): void {
    const expires = (now + this.rows[(id << CONN_SHIFT) + Timeout]!) | 0;
    this.rows[(id << CONN_SHIFT) + Expires] = expires;
    this.#start(id, expires);
  }

  /** Does it control another, or another it? */
  isTied(id: number): boolean {
    return this.control[id] !== 0 || this.controlled[id] !== 0;
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
    const flows = this.#flows;
    const kind = (flags & TEMPLATE) !== 0 ? proto | TEMPLATE_KIND : proto;
    const hasFlow = (flags & HAS_PE) === 0;
    const flowIn = hasFlow ? flows.obtain(cip, vip, ports, kind) : NO_FLOW;
    if (hasFlow && flowIn === NO_FLOW) return NO_CONN;
    const rows = this.rows;
    let id: number;
    if (this.#free !== 0) {
      id = this.#free - 1;
      this.#free = rows[(id << CONN_SHIFT) + FlowIn]!;
    } else {
      id = this.#fresh[0]!;
      if (id === this.capacity) {
        if (hasFlow && flows.attached(flowIn, CONNECTION) === 0) flows.detach(flowIn, CONNECTION);
        return NO_CONN;
      }
      this.#fresh[0] = id + 1;
    }
    this.#count++;
    const at = id << CONN_SHIFT;
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
    // As of an entry (conntrack/entries.ts): where there is nothing, nothing is written.
    if (this.toldState[id] !== 0) this.toldState[id] = 0;
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
    if (hasFlow) link(this.#flows, this.rows, flowIn, id, Dir.In);
    else rows[at + FlowIn] = NO_FLOW;
    rows[at + FlowOut] = NO_FLOW;
    if ((flags & TEMPLATE) === 0 && !this.#linkReply(id)) {
      unlink(this.#flows, this.rows, id, Dir.In);
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
    unlink(this.#flows, this.rows, id, Dir.In);
    unlink(this.#flows, this.rows, id, Dir.Out);
    if ((this.rows[(id << CONN_SHIFT) + Flags]! & SYNCED) !== 0) this.marks.delete(id);
    const control = this.control[id]!;
    if (control !== 0) {
      this.controlled[control - 1]!--;
      this.control[id] = 0;
    }
    this.#release(id);
  }

  /** By its request tuple as it is now. With a full flow table it is not found by that any more. @param kind as of the flow table */
  #linkRequest(id: number, kind: number): void {
    const rows = this.rows;
    const at = id << CONN_SHIFT;
    const flow = this.#flows.obtain(rows[at + Cip]!, rows[at + Vip]!, rows[at + Ports]!, kind);
    if (flow === NO_FLOW) rows[at + FlowIn] = NO_FLOW;
    else link(this.#flows, rows, flow, id, Dir.In);
  }

  /** False when the flow table is full. */
  #linkReply(id: number): boolean {
    const flow = obtainReply(this.#flows, this.rows, this.local, id);
    if (flow === NO_FLOW) return false;
    link(this.#flows, this.rows, flow, id, Dir.Out);
    return true;
  }

  /** Bind a connection that had none to a server, whose forwarding method may be another than the one that it brought. @param flags without Used */
  rebind(id: number, dest: number, flags: number): void {
    const at = id << CONN_SHIFT;
    this.marks.delete(id);
    this.rows[at + Dest] = dest;
    unlink(this.#flows, this.rows, id, Dir.Out);
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
    unlink(this.#flows, this.rows, id, Dir.In);
    unlink(this.#flows, this.rows, id, Dir.Out);
    rows[at + Ports] = (cport << 16) | (rows[at + Ports]! & 0xffff);
    this.#linkRequest(id, (rows[at + Meta]! >> 8) & 0xff);
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
    unlink(this.#flows, this.rows, id, Dir.In);
    const meta = rows[at + Meta]!;
    rows[at + Ports] = 0xffff;
    rows[at + Meta] = (0xffff << 16) | (meta & 0xffff);
    if ((rows[at + Flags]! & HAS_PE) !== 0) return;
    this.#linkRequest(id, ((meta >> 8) & 0xff) | TEMPLATE_KIND);
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

  #release(id: number): void {
    const at = id << CONN_SHIFT;
    this.rows[at + Flags] = 0;
    this.rows[at + FlowIn] = this.#free;
    this.#free = id + 1;
    this.#count--;
  }
}
