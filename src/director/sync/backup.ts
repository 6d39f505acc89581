/**
 * The backup: takes in what a master tells of its connections (net/netfilter/ipvs/ip_vs_sync.c: ip_vs_process_message, ip_vs_proc_conn).
 *
 * A connection is bound to the server that has its address here, when there is one; then it counts there and is forwarded as that server wants it. One
 * that is not stays without, goes to the address that it brought, and is bound by a later message once the server is there.
 */
import { seconds, TICKS_PER_SECOND } from '../../base/clock.ts';
import { NO_FLOW } from '../../flow/flow-table.ts';
import { Drop } from '../../packet/drop.ts';
import { IpProto } from '../../wire/ipv4.ts';
import {
  messageSize,
  SYNC_HEADER_V0,
  SyncFault,
  SyncFlag,
  SyncReader,
  type SyncRecord,
  syncId,
} from '../../wire/ipvs-sync.ts';
import { isBulk } from '../../wire/sync-bulk.ts';
import { CONN_SHIFT, Conn, ConnFlag, Dir, Method, NO_CONN, TEMPLATE_KIND } from '../connection.ts';
import { NO_DEST } from '../destinations.ts';
import type { Director } from '../director.ts';
import { findEngine, type PersistenceEngine } from '../persistence-engine.ts';
import { SCTP_STATE_NAMES } from '../sctp-states.ts';
import { NO_SERVICE } from '../services.ts';
import { TCP_STATE_NAMES } from '../tcp-states.ts';
import { UDP_STATE_NAMES } from '../udp-states.ts';
import { fromSyncFlags, isOnlyHere, isSharedMethod, TemplateState } from './record.ts';

const { Rip, Meta, Flags, Timeout, Dest, Packets } = Conn;
const {
  Inactive: INACTIVE,
  Template: TEMPLATE,
  NoOutput: NO_OUTPUT,
  Assured: ASSURED,
  MethodMask,
  App: APP,
  HasPe: HAS_PE,
} = ConnFlag;
const { Tcp: TCP, Udp: UDP, Sctp: SCTP } = IpProto;
const STATES: ReadonlyMap<number, readonly string[]> = new Map<number, readonly string[]>([
  [TCP, TCP_STATE_NAMES],
  [UDP, UDP_STATE_NAMES],
  [SCTP, SCTP_STATE_NAMES],
]);

/** When the message does not say, and the protocol has no timeout for the state. */
const DEFAULT_TIMEOUT = seconds(180);
/** Until the record has said more. */
const FIRST_TIMEOUT = seconds(3);
/** Seconds that fit the tick counter. */
const LONGEST_TIMEOUT = Math.floor(0x3fffffff / TICKS_PER_SECOND);

export interface BackupCounters {
  messages: number;
  /** Connections made and brought up to date. */
  created: number;
  updated: number;
  /** Records that were passed over: an unknown protocol, state, address family or option; no room; news of a connection that was replaced. */
  skipped: number;
}

export class SyncBackup {
  readonly counters: BackupCounters = { messages: 0, created: 0, updated: 0, skipped: 0 };
  readonly #director: Director;
  readonly #syncId: number;
  readonly #maxLength: number;
  readonly #reader = new SyncReader();

  /** @param syncId 0 takes all  @param maxLength of a message, bytes */
  constructor(director: Director, syncId: number, maxLength: number) {
    this.#director = director;
    this.#syncId = syncId;
    this.#maxLength = maxLength;
  }

  /** A message of the group. @returns the Drop reason under which its packet ends */
  receive(m: DataView, at: number, length: number): number {
    // Questions to a master of ours, not messages.
    if (isBulk(m, at, length)) return Drop.None;
    if (length < SYNC_HEADER_V0) return Drop.SyncTooShort;
    if (length !== messageSize(m, at) || length > this.#maxLength) return Drop.SyncBadSize;
    if (this.#syncId !== 0 && syncId(m, at) !== this.#syncId) return Drop.SyncOtherId;
    this.counters.messages++;
    return this.take(m, at, length) ? Drop.SyncTaken : Drop.SyncBadRecord;
  }

  /** The records of a message with a sound header; those before a bad one are taken in. False when there was one. */
  take(m: DataView, at: number, length: number): boolean {
    const reader = this.#reader;
    reader.open(m, at, length);
    while (!reader.isAtEnd) {
      const fault = reader.next();
      if (fault === SyncFault.Bad) return false;
      if (fault === SyncFault.Skip || !this.#isKnown(reader.record)) this.counters.skipped++;
      else this.#apply(reader.record);
    }
    return true;
  }

  /**
   * A protocol that we balance, in a state that it has; templates are of any protocol. A persistence engine that we do not have spoils it, and so do
   * flags that no master sends (the recorded kernel has these checks, older ones had not).
   */
  #isKnown(r: SyncRecord): boolean {
    if ((r.flags & SyncFlag.OnePacket) !== 0 || !isSharedMethod(r.flags)) return false;
    if ((r.flags & SyncFlag.Template) !== 0 && (r.flags & SyncFlag.NoCport) !== 0) return false;
    if (r.peDataLength !== 0 && engineOf(r) === undefined) return false;
    if ((fromSyncFlags(r.flags) & TEMPLATE) !== 0) return r.state <= TemplateState.Assured;
    const names = STATES.get(r.protocol);
    return names !== undefined && r.state < names.length;
  }

  #apply(r: SyncRecord): void {
    const { conns, flows, dests, engines, now } = this.#director;
    const rows = conns.rows;
    const flags = fromSyncFlags(r.flags);
    const isTemplate = (flags & TEMPLATE) !== 0;
    const ports = (r.cport << 16) | r.vport;
    const engine = isTemplate && r.peDataLength !== 0 ? engineOf(r) : undefined;
    let conn: number;
    if (engine !== undefined) {
      conn = engines.find(engine, r.protocol, r.cip, r.vip, r.vport, textOf(r.peData, r.peDataLength));
    } else {
      const flow = flows.find(r.cip, r.vip, ports, isTemplate ? r.protocol | TEMPLATE_KIND : r.protocol);
      conn = flow === NO_FLOW ? NO_CONN : conns.find(flow, Dir.In);
    }
    if (conn !== NO_CONN && !isTemplate) {
      const at = conn << CONN_SHIFT;
      if (rows[at + Rip] !== r.rip || rows[at + Meta]! >>> 16 !== r.dport) {
        // The end of a connection that has been replaced meanwhile says nothing of the one that is here.
        if ((flags & INACTIVE) !== 0) {
          this.counters.skipped++;
          return;
        }
        // What controls others stays until they have ended, behind the new one.
        if (conns.controlled[conn] === 0) this.#director.expire(conn);
        conn = NO_CONN;
      }
    }
    if (conn === NO_CONN) {
      conn = this.#create(r, engine === undefined ? flags : flags | HAS_PE, ports);
      if (conn === NO_CONN) {
        this.counters.skipped++;
        return;
      }
      if (engine !== undefined) {
        engines.add(conn, engine, r.protocol, r.cip, r.vip, r.vport, textOf(r.peData, r.peDataLength));
      }
    } else {
      this.counters.updated++;
      const at = conn << CONN_SHIFT;
      const dest = rows[at + Dest]!;
      const old = rows[at + Flags]!;
      if (((old ^ flags) & INACTIVE) !== 0) {
        if (!isTemplate) {
          const one = (flags & INACTIVE) !== 0 ? 1 : -1;
          dests.inactive[dest]! += one;
          dests.active[dest]! -= one;
        }
        rows[at + Flags] = old ^ INACTIVE;
      }
      if (dest === dests.unbound) this.#bind(conn);
    }
    const at = conn << CONN_SHIFT;
    rows[at + Packets] = this.#director.sysctls.syncThreshold;
    if (isTemplate) {
      const its = rows[at + Flags]! & ~ASSURED;
      rows[at + Flags] = r.state === TemplateState.Assured ? its | ASSURED : its;
    } else {
      rows[at + Meta] = (rows[at + Meta]! & ~0xff) | r.state;
      conns.toldState[conn] = r.state;
    }
    if (r.hasSequences !== 0 && (rows[at + Flags]! & APP) !== 0) {
      const [, , , correction, after, before] = r.sequences;
      this.#director.ftp.takeShift(conn, correction!, before!, after!);
    }
    rows[at + Timeout] = this.#timeout(r, isTemplate);
    conns.restart(conn, now);
    if (r.lifeLeft >= 0) conns.shorten(conn, now, seconds(Math.min(r.lifeLeft, LONGEST_TIMEOUT)));
  }

  /** Ticks. */
  #timeout(r: SyncRecord, isTemplate: boolean): number {
    if (r.timeout !== 0) return seconds(Math.min(r.timeout, LONGEST_TIMEOUT));
    if (isTemplate) return DEFAULT_TIMEOUT;
    const { tcpTimeouts, udpTimeouts, sctpTimeouts } = this.#director;
    const table = r.protocol === TCP ? tcpTimeouts : r.protocol === SCTP ? sctpTimeouts : udpTimeouts;
    return table[r.state] ?? DEFAULT_TIMEOUT;
  }

  #create(r: SyncRecord, flags: number, ports: number): number {
    const { conns, dests, now } = this.#director;
    const dest = this.#findDest(r.protocol, r.vip, r.vport, r.rip, r.dport, r.fwmark, flags);
    const its = dest === NO_DEST ? flags : this.#flagsWith(dest, flags);
    if (isOnlyHere(its)) return NO_CONN;
    const row = dest === NO_DEST ? dests.unbound : dest;
    const { protocol, cip, vip, rip, dport } = r;
    const conn = conns.add(now, protocol, cip, vip, ports, rip, dport, row, its, FIRST_TIMEOUT);
    if (conn === NO_CONN) return NO_CONN;
    dests.bind(row, (its & TEMPLATE) !== 0, (its & INACTIVE) !== 0);
    if (row === dests.unbound && r.fwmark !== 0) conns.marks.set(conn, r.fwmark);
    this.counters.created++;
    return conn;
  }

  /** ip_vs_bind_dest: method and expectation of answers are the server's; a template counts as inactive. */
  #flagsWith(dest: number, flags: number): number {
    const method = this.#director.dests.method[dest]!;
    const isTemplate = (flags & TEMPLATE) !== 0;
    const kept = flags & ~(MethodMask | NO_OUTPUT);
    return kept | method | (isTemplate ? INACTIVE : 0) | (method === Method.Masq || isTemplate ? 0 : NO_OUTPUT);
  }

  /** Is there a server for it now (ip_vs_try_bind_dest)? */
  #bind(conn: number): void {
    const { conns, dests } = this.#director;
    const rows = conns.rows;
    const at = conn << CONN_SHIFT;
    const meta = rows[at + Meta]!;
    const flags = rows[at + Flags]!;
    const vport = rows[at + Conn.Ports]! & 0xffff;
    const vip = rows[at + Conn.Vip]!;
    const mark = conns.marks.get(conn) ?? 0;
    const dest = this.#findDest((meta >> 8) & 0xff, vip, vport, rows[at + Rip]!, meta >>> 16, mark, flags);
    if (dest === NO_DEST || isOnlyHere(this.#flagsWith(dest, flags))) return;
    const isTemplate = (flags & TEMPLATE) !== 0;
    dests.unbind(dests.unbound, isTemplate, (flags & INACTIVE) !== 0);
    conns.rebind(conn, dest, this.#flagsWith(dest, flags));
    dests.bind(dest, isTemplate, (rows[at + Flags]! & INACTIVE) !== 0);
  }

  /** ip_vs_find_dest: servers of marks have no port unless they translate. */
  #findDest(
    protocol: number,
    vip: number,
    vport: number,
    rip: number,
    dport: number,
    fwmark: number,
    flags: number,
  ): number {
    const { services, dests } = this.#director;
    const service = services.match(protocol, vip, vport, fwmark);
    if (service === NO_SERVICE) return NO_DEST;
    const port = fwmark !== 0 && (flags & MethodMask) !== Method.Masq ? 0 : dport;
    const dest = dests.find(service, rip, port);
    return dest !== NO_DEST ? dest : dests.find(service, rip, port ^ dport);
  }
}

/** The persistence engine that a record names, if we have it. */
function engineOf(r: SyncRecord): PersistenceEngine | undefined {
  return findEngine(textOf(r.peName, r.peNameLength));
}

/** A character a byte. */
function textOf(bytes: Uint8Array, length: number): string {
  return String.fromCharCode(...bytes.subarray(0, length));
}
