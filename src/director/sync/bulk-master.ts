/**
 * The master's side of a bulk transfer (wire/sync-bulk.ts): what a backup asks for it gets, a few datagrams a breath, each from what stands in the table
 * then. The asker keeps the books, so a lost datagram is asked for again and nothing is remembered here between two questions.
 */
import { seconds, TICKS_PER_SECOND } from '../../base/clock.ts';
import type { Datagrams, Outgoing } from '../../hooks/datagrams.ts';
import { Drop } from '../../packet/drop.ts';
import { appendRecord, emitHeader, recordLength, SYNC_HEADER, SyncRecord } from '../../wire/ipvs-sync.ts';
import {
  BULK_HEADER,
  BulkType,
  bulkCount,
  bulkFrom,
  bulkTo,
  bulkTransfer,
  bulkType,
  END_OF_TABLE,
  emitBulk,
  FIRST_CONNECTION,
  isBulk,
} from '../../wire/sync-bulk.ts';
import { CONN_SHIFT, Conn, ConnFlag } from '../connection.ts';
import type { Director } from '../director.ts';
import { isOnlyHere, toRecord } from './record.ts';

/** Datagrams a breath, of all transfers. */
const PER_BREATH = 16;
/** Rows that are looked at for one datagram. */
const SCAN = 4096;
/** Askers at a time; one more waits until it asks again. */
const MAX_TRANSFERS = 4;
/** Longest answer to one question, datagrams. */
const LONGEST_ANSWER = 256;

interface Transfer {
  readonly number: number;
  readonly to: Outgoing;
  at: number;
  readonly end: number;
  left: number;
  sent: number;
}

export class BulkMaster {
  /** Connections and templates that were sent. */
  records = 0;
  readonly #director: Director;
  readonly #datagrams: Datagrams;
  readonly #from: Outgoing;
  readonly #syncId: number;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #record = new SyncRecord();
  #transfers: Transfer[] = [];

  /** @param from device, address and port that answers leave from  @param longest bytes of a datagram */
  constructor(director: Director, datagrams: Datagrams, from: Outgoing, syncId: number, longest: number) {
    this.#director = director;
    this.#datagrams = datagrams;
    this.#from = from;
    this.#syncId = syncId;
    this.#bytes = new Uint8Array(longest);
    this.#view = new DataView(this.#bytes.buffer);
  }

  get isBusy(): boolean {
    return this.#transfers.length > 0;
  }

  /** @returns Drop.None when it is no question to a master */
  receive(m: DataView, at: number, length: number, src: number, srcPort: number): number {
    if (!isBulk(m, at, length) || bulkType(m, at) !== BulkType.Ask) return Drop.None;
    // Only a neighbour may have the table, and have it sent.
    if (m.getUint8(at + 1) !== this.#syncId && m.getUint8(at + 1) !== 0) return Drop.SyncOtherId;
    if (!this.#datagrams.isOnLink(this.#from.device, src)) return Drop.SyncBulkRefused;
    const number = bulkTransfer(m, at);
    const others = this.#transfers.filter((t) => t.to.dst !== src || t.to.dstPort !== srcPort);
    if (others.length >= MAX_TRANSFERS) return Drop.SyncBulkRefused;
    const to = { ...this.#from, dst: src, dstPort: srcPort };
    const left = Math.min(bulkCount(m, at), LONGEST_ANSWER);
    this.#transfers = [...others, { number, to, at: bulkFrom(m, at), end: bulkTo(m, at), left, sent: 0 }];
    return Drop.SyncBulkTaken;
  }

  /** Once per breath. */
  advance(): void {
    const share = Math.ceil(PER_BREATH / this.#transfers.length);
    for (const t of this.#transfers) {
      for (let n = 0; n < share && t.left > 0 && t.at < t.end; n++) this.#sendRows(t);
      if (t.left > 0 && t.at < t.end) continue;
      this.#send(t, BulkType.Pause, t.at, t.end, t.sent, BULK_HEADER);
      t.left = 0;
    }
    this.#transfers = this.#transfers.filter((t) => t.left > 0);
  }

  #sendRows(t: Transfer): void {
    const { conns } = this.#director;
    const from = t.at;
    const isTemplates = from < FIRST_CONNECTION;
    const base = isTemplates ? 0 : FIRST_CONNECTION;
    const last = Math.min(conns.highWater, t.end - base);
    let row = from - base;
    const stop = Math.min(last, row + SCAN);
    let length = emitHeader(this.#view, BULK_HEADER, 1, this.#syncId);
    let count = 0;
    for (; row < stop && count < 255; row++) {
      if (!this.#isSent(row, isTemplates)) continue;
      this.#fill(row);
      if (BULK_HEADER + ((length + 3) & ~3) + recordLength(this.#record, 1) > this.#bytes.length) break;
      length = appendRecord(this.#view, BULK_HEADER, length, 1, this.#record);
      count++;
    }
    if (row < last) t.at = base + row;
    else if (t.end - base <= last) t.at = t.end;
    else t.at = isTemplates ? FIRST_CONNECTION : END_OF_TABLE;
    t.left--;
    t.sent++;
    this.records += count;
    this.#send(t, BulkType.Rows, from, t.at, count, BULK_HEADER + length);
  }

  /** Everything but single packets and full NAT; of what templates stand for nothing, when sync_persist_mode says that they suffice. */
  #isSent(conn: number, isTemplates: boolean): boolean {
    const { conns, sysctls } = this.#director;
    if (!conns.isUsed(conn)) return false;
    const flags = conns.rows[(conn << CONN_SHIFT) + Conn.Flags]!;
    if (((flags & ConnFlag.Template) !== 0) !== isTemplates || (flags & ConnFlag.OnePacket) !== 0) return false;
    if (isOnlyHere(flags)) return false;
    return isTemplates || sysctls.syncPersistMode === 0 || conns.control[conn] === 0;
  }

  #fill(conn: number): void {
    const { conns, now } = this.#director;
    const record = this.#record;
    toRecord(this.#director, conn, record);
    const left = (conns.rows[(conn << CONN_SHIFT) + Conn.Expires]! - now) | 0;
    if (left < conns.rows[(conn << CONN_SHIFT) + Conn.Timeout]! - seconds(1)) {
      record.lifeLeft = Math.max(0, Math.ceil(left / TICKS_PER_SECOND));
    }
  }

  #send(t: Transfer, type: number, from: number, to: number, count: number, length: number): void {
    emitBulk(this.#view, this.#syncId, type, t.number, from, to, count);
    this.#datagrams.send(t.to, this.#bytes, length);
  }
}

/** A synchronisation message that holds one record at least. */
export const LEAST_BULK = BULK_HEADER + SYNC_HEADER + 512;
