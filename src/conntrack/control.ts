/**
 * Connection tracking as requests see it: lists in bounded pieces, commands, and events for whoever follows. Cold: between two breaths, but for `event`, which
 * runs per change while somebody follows.
 */
import { type Budget, NO_END } from '../base/slices.ts';
import type {
  CtChange,
  CtCounts,
  CtRequester,
  CtResult,
  CtTuple,
  EntryChange,
  EntryEvent,
  EntryFilter,
  EntryRow,
  ExpectationEvent,
  ExpectationRow,
  SmallCtCommand,
  EntryTable as TableName,
  UpdateResult,
} from '../model/conntrack.ts';
import { wouldChange } from '../model/entry-change.ts';
import { isMeant } from '../model/entry-filter.ts';
import { Status } from '../model/entry-status.ts';
import { CHANGE_NAMES, Change } from './changes.ts';
import {
  type BindNat,
  changeEntry,
  createEntry,
  createExpectation,
  findEntry,
  namesake,
  readTuple,
} from './commands.ts';
import type { Conntrack } from './conntrack.ts';
import { NO_ENTRY } from './entries.ts';
import type { Expectation, Expectations } from './expectations.ts';
import { entryRow, expectationRow, nanoseconds } from './listing.ts';
import { Tuple } from './tuple.ts';

/** Events that wait to be taken, at most: those beyond are lost, and counted. */
const MAX_WAITING = 8192;

/** Rows between two looks at the time. */
const ROWS = 16;

const tuple = new Tuple();

interface Place {
  readonly cursor: number;
  readonly limit: number;
  readonly filter: EntryFilter;
}

interface FlushRequest {
  readonly cursor: number;
  readonly limit: number;
  readonly by?: CtRequester | undefined;
}

interface FlushExpectationsRequest {
  readonly last: number;
  readonly limit: number;
  readonly by?: CtRequester | undefined;
}

interface Page<Row> {
  readonly rows: readonly Row[];
  /** -1: that was all. */
  readonly next: number;
}

export interface WaitingEvents {
  readonly entries: readonly EntryEvent[];
  readonly expectations: readonly ExpectationEvent[];
  readonly lost: number;
}

export class ConntrackControl {
  /** Of one piece of a list. */
  budget: Budget = NO_END;
  readonly #ct: Conntrack;
  readonly #expectations: Expectations;
  readonly #bind: BindNat;
  /** Milliseconds since 1970. */
  readonly #wallClock: () => number;
  /** Who asked for what is being done; undefined: a packet, or time. */
  #by: CtRequester | undefined;
  #events: EntryEvent[] = [];
  #expectationEvents: ExpectationEvent[] = [];
  #lost = 0;

  constructor(ct: Conntrack, expectations: Expectations, wallClock: () => number, bind: BindNat) {
    this.#bind = bind;
    this.#ct = ct;
    this.#expectations = expectations;
    this.#wallClock = wallClock;
  }

  counts(): CtCounts {
    const { entries, stats } = this.#ct;
    const expected = this.#expectations.stats;
    const { invalid, insert, insertFailed, drop, earlyDrop, error, searchRestart, clashResolve, chainTooLong } = stats;
    return {
      entries: entries.confirmed,
      expectations: this.#expectations.count,
      statistics: {
        found: stats.found,
        invalid,
        insert,
        insertFailed,
        drop,
        earlyDrop,
        error,
        searchRestart,
        clashResolve,
        chainTooLong,
        expectNew: expected.met,
        expectCreate: expected.made,
        expectDelete: expected.ended,
      },
    };
  }

  list({ table, zero, ...place }: Place & { readonly table: TableName; readonly zero: boolean }): Page<EntryRow> {
    // Entries that die are told of at once, and one that is not confirmed lasts no longer than its packet (as in Linux since 5.19).
    if (table !== 'conntrack') return { rows: [], next: -1 };
    const { counters } = this.#ct.entries;
    return this.#page(place, (entry, row) => {
      if (zero) counters.fill(0, entry * 4, entry * 4 + 4);
      return row;
    });
  }

  remove({ by, ...place }: Place & { readonly by?: CtRequester | undefined }): Page<EntryRow> {
    return this.#page(place, (entry, row) => {
      this.#as(by, () => this.#ct.kill(entry));
      return row;
    });
  }

  /** Ends all of `limit` rows, and says where to go on; -1: that was all. */
  flush({ cursor, limit, by }: FlushRequest): { readonly next: number } {
    const { entries } = this.#ct;
    return this.#as(by, () =>
      this.#walk(cursor, limit, (entry) => {
        if (entries.isAlive(entry)) this.#ct.kill(entry);
      }),
    );
  }

  /** Ends `limit` expectations (`Expectations.clearSome`). */
  flushExpectations({ last, limit, by }: FlushExpectationsRequest): { readonly last: number } {
    return { last: this.#as(by, () => this.#expectations.clearSome(last, limit)) };
  }

  update({
    by,
    change,
    ...place
  }: Place & { readonly change: EntryChange; readonly by?: CtRequester | undefined }): Page<UpdateResult> {
    return this.#page(place, (entry, row) => {
      if (!wouldChange(row, change)) return undefined;
      const found = namesake(this.#ct, entry);
      if (found === NO_ENTRY) return { errno: 'ENOENT' };
      const errno = this.#as(by, () => changeEntry(this.#ct, found, change));
      return this.#isThere(found) ? { errno, entry: this.#held(found) } : { errno };
    });
  }

  execute({
    commands,
    by,
  }: {
    readonly commands: readonly SmallCtCommand[];
    readonly by?: CtRequester | undefined;
  }): readonly CtResult[] {
    return this.#as(by, () => commands.map((command) => this.#run(command)));
  }

  /** The cursor is the last that was told, 0 for none. */
  listExpectations({ cursor, limit }: { readonly cursor: number; readonly limit: number }): Page<ExpectationRow> {
    const some = this.#expectations.after(cursor, limit);
    const next = some.length < limit ? -1 : some.at(-1)!.id >>> 0;
    return { rows: some.map((e) => this.#expectationRow(e)), next };
  }

  /** Without followers there are no events. */
  watch({ entries, expectations }: { readonly entries: boolean; readonly expectations: boolean }): null {
    this.#ct.sink = entries ? (entry, changes) => this.#entryEvent(entry, changes) : null;
    this.#expectations.onEvent = expectations ? (kind, e) => this.#expectationEvent(kind, e) : null;
    return null;
  }

  #entryEvent(entry: number, changes: number): void {
    if (this.#events.length >= MAX_WAITING) {
      this.#lost++;
      return;
    }
    const kind = changes & (Change.New | Change.Related) ? 'new' : changes & Change.Destroy ? 'destroy' : 'update';
    const changed: CtChange[] = [];
    for (const [bit, name] of CHANGE_NAMES.entries())
      if (changes & (1 << bit) && name !== undefined) changed.push(name);
    this.#events.push({ kind, entry: this.#row(entry), changed, at: nanoseconds(this.#wallClock()), by: this.#by });
  }

  #expectationEvent(kind: 'new' | 'destroy', e: Expectation): void {
    if (this.#expectationEvents.length >= MAX_WAITING) {
      this.#lost++;
      return;
    }
    const at = nanoseconds(this.#wallClock());
    this.#expectationEvents.push({ kind, expectation: this.#expectationRow(e), at, by: this.#by });
  }

  get hasEvents(): boolean {
    return this.#events.length !== 0 || this.#expectationEvents.length !== 0;
  }

  /** What has happened since the last time. Events are lost only while others wait. */
  takeEvents(): WaitingEvents {
    const waiting = { entries: this.#events, expectations: this.#expectationEvents, lost: this.#lost };
    this.#events = [];
    this.#expectationEvents = [];
    this.#lost = 0;
    return waiting;
  }

  #run(command: SmallCtCommand): CtResult {
    const ct = this.#ct;
    switch (command.op) {
      case 'create':
        return { errno: createEntry(ct, command.entry, this.#bind) };
      case 'get': {
        if (!readTuple(command.tuple, tuple) || !tuple.canInvert()) return { errno: 'EINVAL' };
        const entry = findEntry(ct, command.tuple, command.zone ?? 0);
        return entry === NO_ENTRY ? { errno: 'ENOENT' } : { errno: null, entry: this.#held(entry) };
      }
      case 'create-expectation':
        return { errno: createExpectation(ct, this.#expectations, command.expectation) };
      case 'get-expectation': {
        const e = this.#expected(command.tuple);
        return e === undefined ? { errno: 'ENOENT' } : { errno: null, expectation: this.#expectationRow(e) };
      }
      case 'delete-expectation': {
        const e = this.#expected(command.tuple);
        if (e === undefined) return { errno: 'ENOENT' };
        this.#expectations.remove(e);
        return { errno: null };
      }
    }
  }

  /** The expectation that such a packet would meet; the tool never names a zone. */
  #expected(row: CtTuple): Expectation | undefined {
    if (!readTuple(row, tuple)) return undefined;
    const { src, dst, ports, proto } = tuple;
    return this.#expectations
      .list()
      .find(
        (e) =>
          e.zone === 0 &&
          e.proto === proto &&
          e.dst === dst &&
          e.dstPort === (ports & 0xffff) &&
          ((e.src ^ src) & e.srcMask) === 0 &&
          ((e.srcPort ^ (ports >>> 16)) & e.srcPortMask) === 0,
      );
  }

  #expectationRow(e: Expectation): ExpectationRow {
    return expectationRow(this.#ct.entries, e, this.#ct.now);
  }

  #as<T>(by: CtRequester | undefined, run: () => T): T {
    this.#by = by;
    try {
      return run();
    } finally {
      this.#by = undefined;
    }
  }

  /** Visits `limit` rows, or as many as there is time for. */
  #walk(cursor: number, limit: number, visit: (entry: number) => void): { readonly next: number } {
    const { entries } = this.#ct;
    const end = Math.min(entries.highWater, Math.max(1, cursor) + limit);
    let entry = Math.max(1, cursor);
    this.budget.begin();
    for (; entry < end; entry++) {
      visit(entry);
      if (entry % ROWS === 0 && this.budget.isSpent) {
        entry++;
        break;
      }
    }
    return { next: entry < entries.highWater ? entry : -1 };
  }

  /** Looks at `limit` rows, and gives those that are meant to `take`. */
  #page<Row>({ cursor, limit, filter }: Place, take: (entry: number, row: EntryRow) => Row | undefined): Page<Row> {
    const rows: Row[] = [];
    const { next } = this.#walk(cursor, limit, (entry) => {
      if (!this.#isThere(entry)) return;
      const row = this.#row(entry);
      const taken = isMeant(row, filter) ? take(entry, row) : undefined;
      if (taken !== undefined) rows.push(taken);
    });
    return { rows, next };
  }

  /** In the table, for lookers, too: one whose time is over ends on sight, one that only answers (NAT_CLASH) is not seen. */
  #isThere(entry: number): boolean {
    const { entries, now } = this.#ct;
    if (!entries.isAlive(entry)) return false;
    if (entries.left(entry, now) > 0) return (entries.status(entry) & Status.NatClash) === 0;
    this.#ct.kill(entry);
    return false;
  }

  #row(entry: number): EntryRow {
    const ct = this.#ct;
    return entryRow(ct.entries, entry, ct.now);
  }

  /** As who asks for it sees it: he is one more that uses it. */
  #held(entry: number): EntryRow {
    const row = this.#row(entry);
    return { ...row, use: row.use + 1 };
  }
}
