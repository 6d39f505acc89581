/**
 * The master: which connections backups must hear of, and when; messages are filled as packets pass, and sent between breaths.   @hot
 *
 *   tell ─► isNeeded? ─► record into the filling message of its port ─► full, or 2 s old ─► queue ─► 8 of them, or 20 ms ─► multicast
 *
 * net/netfilter/ipvs/ip_vs_sync.c: ip_vs_sync_conn, ip_vs_sync_conn_needed, sync_thread_master. With sync_ports = n a connection has its port among
 * n, so that a backup can take them in side by side.
 */
import { milliseconds, seconds, TICKS_PER_SECOND } from '../../base/clock.ts';
import type { Datagrams, Outgoing } from '../../hooks/datagrams.ts';
import { IpProto } from '../../wire/ipv4.ts';
import {
  appendRecord,
  emitHeader,
  recordLength,
  SYNC_HEADER,
  SYNC_HEADER_V0,
  SyncRecord,
} from '../../wire/ipvs-sync.ts';
import { CONN_SHIFT, Conn, ConnFlag } from '../connection.ts';
import type { Director } from '../director.ts';
import { TcpState } from '../tcp-states.ts';
import { isOnlyHere, toRecord } from './record.ts';

const { Meta, Flags, Timeout, Packets } = Conn;
const { Template: TEMPLATE, OnePacket: ONE_PACKET } = ConnFlag;
const { Tcp: TCP, Sctp: SCTP } = IpProto;
const TCP_ESTABLISHED = TcpState.Established;
const { FinWait, Close, CloseWait, TimeWait } = TcpState;
/** Bit n: state n is told. */
const TCP_TOLD = (1 << TCP_ESTABLISHED) | (1 << FinWait) | (1 << Close) | (1 << CloseWait) | (1 << TimeWait);
/** States of SCTP by the kernel's numbers (enum ip_vs_sctp_states): established, the three of a shutdown, closed. */
const SCTP_ESTABLISHED = 8;
const SCTP_TOLD = (1 << SCTP_ESTABLISHED) | (1 << 9) | (1 << 10) | (1 << 11) | (1 << 13);

/** A filling message goes at this age, whatever it holds. */
const FLUSH_AFTER = seconds(2);
/** A full one waits this long for others, or for as many as WAKEUP_RATE. */
const SEND_DELAY = milliseconds(20);
const WAKEUP_RATE = 8;
/** Bytes that leave at once when sync_sock_size says nothing: the kernel's default send buffer; and the least that it can be set to. */
const DEFAULT_BUDGET = 212992;
const LEAST_BUDGET = 2304;
const REFRESH_LEAST = seconds(10);
const PER_SECOND = TICKS_PER_SECOND;

/** A message under way. */
class Message {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  length = 0;
  version = 1;
  /** Tick of its first record. */
  begun = 0;
  next: Message | null = null;

  constructor(size: number) {
    this.bytes = new Uint8Array(size);
    this.view = new DataView(this.bytes.buffer);
  }
}

/** What goes to one UDP port. */
class Lane {
  readonly to: Outgoing;
  filling: Message | null = null;
  /** Full messages, oldest first. */
  head: Message | null = null;
  tail: Message | null = null;
  queued = 0;
  /** Tick at which the queue goes, however short. */
  due = 0;
  /** Since the queue was last empty. */
  isAwake = false;

  constructor(to: Outgoing) {
    this.to = to;
  }
}

export interface MasterCounters {
  /** Records and messages that were sent. */
  records: number;
  messages: number;
  /** Messages for which sync_qlen_max left no room. */
  lost: number;
}

export class SyncMaster {
  readonly counters: MasterCounters = { records: 0, messages: 0, lost: 0 };
  readonly #director: Director;
  readonly #datagrams: Datagrams;
  readonly #lanes: readonly Lane[];
  readonly #mask: number;
  readonly #syncId: number;
  readonly #maxLength: number;
  readonly #record = new SyncRecord();
  /** Messages to use again. */
  #spare: Message | null = null;

  /** @param to one for each port, a power of two of them  @param maxLength longest message, bytes; a single record may be longer */
  constructor(director: Director, datagrams: Datagrams, to: readonly Outgoing[], syncId: number, maxLength: number) {
    this.#director = director;
    this.#datagrams = datagrams;
    this.#lanes = to.map((address) => new Lane(address));
    this.#mask = to.length - 1;
    this.#syncId = syncId;
    this.#maxLength = maxLength;
  }

  /**
   * A packet of the client has passed, or a template lives on: tell the backups of the connection if they must hear of it, and of what controls it.
   * @param before, after  the connection's packets without and with this one, which may be several
   */
  tell(conn: number, before: number, after: number): void {
    const { conns, sysctls } = this.#director;
    const rows = conns.rows;
    const version = sysctls.syncVersion;
    let c = conn;
    let from = before;
    let to = after;
    for (;;) {
      const at = c << CONN_SHIFT;
      const flags = rows[at + Flags]!;
      const isTold = (flags & ONE_PACKET) === 0 && !isOnlyHere(flags) && this.#isNeeded(c, from, to);
      if (isTold) this.#add(c, version);
      // The old protocol looks at what controls a connection only when the connection itself was told.
      else if (version === 0) return;
      c = conns.control[c]! - 1;
      if (c < 0) return;
      if ((rows[(c << CONN_SHIFT) + Flags]! & TEMPLATE) !== 0) {
        from = rows[(c << CONN_SHIFT) + Packets]!;
        to = from + 1;
        rows[(c << CONN_SHIFT) + Packets] = to;
      } else {
        to = sysctls.syncThreshold;
        from = to - 1;
      }
    }
  }

  /** Something has changed that no packet shows. */
  tellNow(conn: number): void {
    const threshold = this.#director.sysctls.syncThreshold;
    this.tell(conn, threshold - 1, threshold);
  }

  #isNeeded(conn: number, before: number, after: number): boolean {
    const { conns, sysctls, now } = this.#director;
    const rows = conns.rows;
    const at = conn << CONN_SHIFT;
    const isTemplate = (rows[at + Flags]! & TEMPLATE) !== 0;
    const proto = (rows[at + Meta]! >> 8) & 0xff;
    const state = isTemplate ? 0 : rows[at + Meta]! & 0xff;
    const timeout = rows[at + Timeout]!;
    const told = conns.toldUntil[conn]!;
    let until = (now + timeout) & ~3;
    if (!isTemplate) {
      if (sysctls.syncPersistMode !== 0 && this.#isPersistent(conn)) return false;
      if (proto === TCP || proto === SCTP) {
        if ((((proto === TCP ? TCP_TOLD : SCTP_TOLD) >> state) & 1) === 0) return false;
        const open = proto === TCP ? TCP_ESTABLISHED : SCTP_ESTABLISHED;
        if (state !== conns.toldState[conn] && state !== open) {
          conns.toldState[conn] = state;
          conns.toldUntil[conn] = until;
          return true;
        }
      }
    }
    // Unsigned in the kernel: a negative period is a very long one.
    const refresh = (sysctls.syncRefreshPeriod * PER_SECOND) >>> 0;
    if (refresh > 0) {
      const least = Math.max(timeout >> 1, REFRESH_LEAST);
      if (Math.abs((until - told) | 0) < Math.min(refresh, least)) {
        const repetitions = told & 3;
        if (repetitions >= sysctls.syncRetries) return false;
        if (((now - (told - timeout + (refresh >>> 3))) | 0) < 0) return false;
        until |= repetitions + 1;
      }
    }
    if (sysctls.syncPeriod > 0) {
      if (!isTemplate && !isDue(before, after, sysctls.syncThreshold, sysctls.syncPeriod)) return false;
    } else if (refresh === 0 && !(before < sysctls.syncThreshold && sysctls.syncThreshold <= after)) {
      return false;
    }
    conns.toldState[conn] = state;
    conns.toldUntil[conn] = until;
    return true;
  }

  /** Is there a template among those that control it? */
  #isPersistent(conn: number): boolean {
    const { control, rows } = this.#director.conns;
    for (let c = control[conn]! - 1; c >= 0; c = control[c]! - 1) {
      if ((rows[(c << CONN_SHIFT) + Flags]! & TEMPLATE) !== 0) return true;
    }
    return false;
  }

  #add(conn: number, version: number): void {
    const record = this.#record;
    toRecord(this.#director, conn, record);
    const lane = this.#lanes[conn & this.#mask]!;
    const length = recordLength(record, version);
    let message = lane.filling;
    if (message !== null) {
      const padding = version === 0 ? 0 : -message.length & 3;
      if (message.length + padding + length > message.bytes.length || message.version !== version) {
        this.#enqueue(lane);
        message = null;
      }
    }
    if (message === null) {
      message = this.#begin(version, length);
      lane.filling = message;
    }
    message.length = appendRecord(message.view, 0, message.length, version, record);
    this.counters.records++;
    // The count is one byte: no message of the usual length holds as many.
    if (message.view.getUint8(version === 0 ? 0 : 4) === 255) this.#enqueue(lane);
  }

  #begin(version: number, length: number): Message {
    const size = Math.max(length + (version === 0 ? SYNC_HEADER_V0 : SYNC_HEADER), this.#maxLength);
    let message = this.#spare;
    if (message === null || message.bytes.length !== size) message = new Message(size);
    else this.#spare = message.next;
    message.next = null;
    message.version = version;
    message.begun = this.#director.now;
    message.length = emitHeader(message.view, 0, version, this.#syncId);
    return message;
  }

  #enqueue(lane: Lane): void {
    const message = lane.filling!;
    lane.filling = null;
    if (lane.queued >= this.#director.sysctls.syncQlenMax) {
      this.counters.lost++;
      this.#keep(message);
      return;
    }
    if (lane.queued === 0) {
      lane.due = (this.#director.now + SEND_DELAY) | 0;
      lane.isAwake = false;
      lane.head = message;
    } else {
      lane.tail!.next = message;
    }
    lane.tail = message;
    if (++lane.queued >= WAKEUP_RATE) lane.isAwake = true;
  }

  #keep(message: Message): void {
    if (message.bytes.length !== this.#maxLength) return;
    message.next = this.#spare;
    this.#spare = message;
  }

  /** Once per breath: send what is due. */
  advance(now: number): void {
    const size = this.#director.sysctls.syncSockSize;
    const budget = size > 0 ? Math.max(2 * size, LEAST_BUDGET) : DEFAULT_BUDGET;
    for (let i = 0; i < this.#lanes.length; i++) this.#advanceLane(this.#lanes[i]!, now, budget);
  }

  #advanceLane(lane: Lane, now: number, budget: number): void {
    const filling = lane.filling;
    if (filling !== null && ((now - filling.begun - FLUSH_AFTER) | 0) >= 0) {
      this.#enqueue(lane);
      lane.isAwake = true;
    }
    if (lane.queued === 0) return;
    if (!lane.isAwake && ((now - lane.due) | 0) < 0) return;
    lane.isAwake = true;
    for (let left = budget; lane.queued > 0 && left > 0; ) {
      const message = lane.head!;
      lane.head = message.next;
      lane.queued--;
      left -= message.length;
      this.counters.messages++;
      this.#datagrams.send(lane.to, message.bytes, message.length);
      this.#keep(message);
    }
  }
}

/** Is one of the counts after `before`, up to `after`, one at which a connection is told: threshold, threshold + period, …? */
function isDue(before: number, after: number, threshold: number, period: number): boolean {
  const first = (before + 1) >>> 0;
  const distance = (((threshold - first) % period) + period) % period;
  return first + distance <= after >>> 0;
}
