/** What the main thread asks of connection tracking, when there is any: without entries a list is empty, and none can be made. */
import type { CtCounts, CtResult } from '../model/conntrack.ts';
import type { EngineRequests } from './messages.ts';

type Answer<N extends keyof EngineRequests> = (args: EngineRequests[N]['args']) => EngineRequests[N]['result'];

/** The tables, as requests see them. */
export interface Tracking {
  readonly counts: () => CtCounts;
  readonly execute: Answer<'conntrack'>;
  readonly list: Answer<'list-entries'>;
  readonly remove: Answer<'delete-entries'>;
  readonly update: Answer<'update-entries'>;
  readonly listExpectations: Answer<'list-expectations'>;
  readonly watch: Answer<'watch-conntrack'>;
}

const NO_COUNTS: CtCounts = {
  entries: 0,
  expectations: 0,
  statistics: {
    found: 0,
    invalid: 0,
    insert: 0,
    insertFailed: 0,
    drop: 0,
    earlyDrop: 0,
    error: 0,
    searchRestart: 0,
    clashResolve: 0,
    chainTooLong: 0,
    expectNew: 0,
    expectCreate: 0,
    expectDelete: 0,
  },
};
const NO_ROWS = { rows: [], next: -1 } as const;

/** An engine that tracks nothing. */
export const NO_TRACKING: Tracking = {
  counts: () => NO_COUNTS,
  execute: ({ commands }) => commands.map(({ op }): CtResult => ({ errno: nothingThere(op) })),
  list: () => NO_ROWS,
  remove: () => NO_ROWS,
  update: () => NO_ROWS,
  listExpectations: () => NO_ROWS,
  watch: () => null,
};

function nothingThere(op: string): 'ENOENT' | 'EOPNOTSUPP' | null {
  if (op.startsWith('flush')) return null;
  return op === 'create' ? 'EOPNOTSUPP' : 'ENOENT';
}
