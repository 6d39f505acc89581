/**
 * The backup's side of a bulk transfer (wire/sync-bulk.ts): it asks the group who has a table, and the first that answers for all of it, window after
 * window, until every place has come. Other IPVS directors do not answer; then what they multicast must do.
 */
import { seconds } from '../../base/clock.ts';
import type { Datagrams, Outgoing } from '../../hooks/datagrams.ts';
import { Drop } from '../../packet/drop.ts';
import { isVersion1, messageSize } from '../../wire/ipvs-sync.ts';
import {
  BULK_HEADER,
  BulkType,
  bulkFrom,
  bulkTo,
  bulkTransfer,
  bulkType,
  END_OF_TABLE,
  emitBulk,
  isBulk,
} from '../../wire/sync-bulk.ts';
import type { Director } from '../director.ts';
import type { SyncBackup } from './backup.ts';

/** Datagrams of one answer. */
const WINDOW = 64;
/** A transfer that says nothing for so long is asked again. */
const PATIENCE = seconds(0.25);
/** So often without an answer, and the search begins anew. */
const MAX_SILENCE = 8;
/** Seconds between questions to the group; the last one ends the search. */
const SEARCH_SECONDS = [0, 1, 2, 4, 8, 16, 32] as const;

export type BulkState = 'asking' | 'receiving' | 'complete' | 'unanswered';

export class BulkBackup {
  state: BulkState = 'asking';
  /** Connections and templates that came. */
  records = 0;
  readonly #director: Director;
  readonly #datagrams: Datagrams;
  readonly #backup: SyncBackup;
  readonly #syncId: number;
  readonly #group: Outgoing;
  readonly #number: number;
  readonly #bytes = new Uint8Array(BULK_HEADER);
  readonly #view = new DataView(this.#bytes.buffer);
  /** Who answers; null while it is searched for. */
  #master: Outgoing | null = null;
  /** First place that has not come, and what has come beyond it, in order. */
  #at = 0;
  #islands: { from: number; to: number }[] = [];
  #searches = 0;
  #silences = 0;
  #due: number;

  /** @param group where to ask, from the address and port that answers come to  @param syncId 0: any master will do */
  constructor(director: Director, datagrams: Datagrams, backup: SyncBackup, group: Outgoing, syncId: number) {
    this.#director = director;
    this.#datagrams = datagrams;
    this.#backup = backup;
    this.#group = group;
    this.#syncId = syncId;
    this.#number = director.rng.next() | 0;
    this.#due = director.now;
  }

  /** A datagram to our own port. */
  receive(m: DataView, at: number, length: number, src: number, srcPort: number): number {
    if (!isBulk(m, at, length) || bulkTransfer(m, at) !== this.#number) return Drop.SyncBulkRefused;
    if (this.state === 'complete' || this.state === 'unanswered') return Drop.SyncBulkRefused;
    if (this.#master === null) {
      this.#master = { ...this.#group, dst: src, dstPort: srcPort };
      this.state = 'receiving';
    } else if (this.#master.dst !== src || this.#master.dstPort !== srcPort) {
      return Drop.SyncBulkRefused; // another master, which was slower
    }
    this.#silences = 0;
    this.#due = (this.#director.now + PATIENCE) | 0;
    if (bulkType(m, at) === BulkType.Rows) return this.#takeRows(m, at, length);
    if (bulkType(m, at) !== BulkType.Pause) return Drop.SyncBulkRefused;
    if (this.state === 'receiving') this.#ask();
    return Drop.SyncBulkTaken;
  }

  #takeRows(m: DataView, at: number, length: number): number {
    const message = at + BULK_HEADER;
    const size = length - BULK_HEADER;
    if (!isVersion1(m, message, size) || messageSize(m, message) !== size) return Drop.SyncBulkRefused;
    const from = bulkFrom(m, at);
    const to = bulkTo(m, at);
    if (to <= from || !this.#backup.take(m, message, size)) return Drop.SyncBulkRefused;
    this.records += m.getUint8(message + 4);
    this.#cover(from, to);
    return Drop.SyncBulkTaken;
  }

  #cover(from: number, to: number): void {
    const islands = [...this.#islands, { from, to }].sort((a, b) => a.from - b.from);
    while (islands[0] !== undefined && islands[0].from <= this.#at) {
      this.#at = Math.max(this.#at, islands[0].to);
      islands.shift();
    }
    this.#islands = islands;
    if (this.#at >= END_OF_TABLE) this.state = 'complete';
  }

  /** Once per breath. */
  advance(now: number): void {
    if (this.state === 'complete' || this.state === 'unanswered' || ((now - this.#due) | 0) < 0) return;
    if (this.#master !== null && ++this.#silences <= MAX_SILENCE) {
      this.#due = (now + PATIENCE) | 0;
      return this.#ask();
    }
    if (this.#master !== null) {
      // Gone in the middle of it: whoever answers now has its own order of places.
      this.#master = null;
      this.#at = 0;
      this.#islands = [];
      this.#searches = 0;
      this.state = 'asking';
    }
    const wait = SEARCH_SECONDS[++this.#searches];
    if (wait === undefined) this.state = 'unanswered';
    else this.#due = (now + seconds(wait)) | 0;
    if (wait !== undefined) this.#ask();
  }

  /** For the first stretch that is missing. */
  #ask(): void {
    const end = this.#islands[0]?.from ?? END_OF_TABLE;
    emitBulk(this.#view, this.#syncId, BulkType.Ask, this.#number, this.#at, end, WINDOW);
    this.#datagrams.send(this.#master ?? this.#group, this.#bytes, BULK_HEADER);
  }
}
