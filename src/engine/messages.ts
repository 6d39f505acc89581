/**
 * What the main thread says to a data worker, and what comes back: structured-cloneable values, nothing else crosses.
 *
 * A request is put on the port, then the eventfd is signalled; the worker takes it between two breaths and answers with the same id. A request either
 * succeeds whole or fails whole, except `ipvs` and `ip`, which run their commands in order and answer one result each.
 */

import type {
  CtCounts,
  CtRequester,
  CtResult,
  EntryChange,
  EntryEvent,
  EntryFilter,
  EntryRow,
  EntryTable,
  ExpectationEvent,
  ExpectationRow,
  SmallCtCommand,
  UpdateResult,
} from '../model/conntrack.ts';
import type { AddressRow, IpCommand, IpErrno, LinkRow, NeighbourRow, RouteRow } from '../model/ip.ts';
import type { TableChange, TableCommand, TableName, TableOutcome, TablePage } from '../model/iptables.ts';
import type {
  ConnectionRow,
  DaemonRow,
  DrainRow,
  IpvsCommand,
  IpvsErrno,
  IpvsInfo,
  ServiceKey,
  ServicePage,
} from '../model/ipvs.ts';
import type { ExplainSpec, Explanation, TraceRecord } from '../model/way.ts';

/**
 * First message to `engine/worker`. To send others: put a RequestMessage on the worker's port (`worker.postMessage`), then `Atomics.store(signal, 0, 1)`, then signal the
 * eventfd: the worker looks at `signal` in every breath and wakes from poll() by the eventfd.
 */
export interface WorkerData {
  readonly eventfd: number;
  /** One Int32. */
  readonly signal: SharedArrayBuffer;
  /** Director connections at most. */
  readonly maxConnections: number;
  /** Tracked connections at most. */
  readonly maxEntries: number;
  /** Packets alive at once. */
  readonly maxPackets: number;
  /** Empty breaths before the worker sleeps. */
  readonly spin: number;
  /** Test mode: `turn-clock` turns the clock forward, and holds it. */
  readonly testClock: boolean;
  /** Where tables are kept for the next life of the daemon; absent: nobody would hand them on. */
  readonly keep?: KeepData | undefined;
}

/** workerData of `engine/worker`: it loads its code, says `loaded`, and waits for WorkerData. */
export interface WaitingData {
  /** Its turn comes later: until then it gets warm (warm-up.ts) and, if this is not null, makes its tables, which it needs if WorkerData say the same. */
  readonly ahead?: AheadData | null;
}

export type AheadData = Pick<WorkerData, 'maxConnections' | 'maxEntries' | 'maxPackets' | 'spin'> & {
  readonly keepFd: number;
};

/** Descriptors of memory (base/keep.ts), and what the life before this one has left. */
export interface KeepData {
  /** Of this life, KEEP_SIZE bytes. */
  readonly fd: number;
  readonly before?:
    | {
        readonly fd: number;
        /** Descriptors of its devices, by name. */
        readonly devices: Readonly<Record<string, number>>;
      }
    | undefined;
}

/** What became of what the life before this one has left. */
export type KeptReport =
  | {
      readonly adopted: true;
      /** In their order; they are in use already. */
      readonly devices: readonly DeviceSpec[];
      readonly services: number;
      readonly connections: number;
      readonly entries: number;
      /** Rows that did not hold: nobody knows these connections any more. */
      readonly dropped: number;
      /** Nothing was forwarded for so long, ms. */
      readonly pauseMs: number;
      /** As `keep-control` left it. */
      readonly controlText: string;
    }
  | { readonly adopted: false; readonly why: string };

/** A device that the main thread has opened (fd) or that the worker makes itself. */
export interface DeviceSpec {
  readonly name: string;
  readonly kind: 'tap' | 'tun' | 'packet';
  readonly fd: number;
  readonly mac: string;
  readonly mtu: number;
  readonly netns?: string | undefined;
  /** The host port: local delivery goes up here, and what comes in starts at LOCAL_OUT. */
  readonly isHost: boolean;
  /** True when opened with the vnet header and offloads. */
  readonly offload: boolean;
  /** The kernel's side of the host port: an address that counts as local. */
  readonly peer?: string | undefined;
}

export interface HookRow {
  readonly hook: string;
  readonly priority: number;
  readonly name: string;
  readonly why: string;
}

export interface DropRow {
  readonly name: string;
  readonly count: number;
  readonly text: string;
}

export interface CaptureSpec {
  readonly device?: string | undefined;
  readonly hook?: string | undefined;
  /** Filter expression in tcpdump's words. */
  readonly filter: string;
  readonly snapLength: number;
}

/** One captured packet, as the worker posts it. */
export interface CaptureRecord {
  readonly captureId: number;
  /** Microseconds since the epoch. */
  readonly timeUs: number;
  readonly device: string;
  readonly direction: 'in' | 'out';
  readonly medium: 'ethernet' | 'ip';
  /** Length on the wire; `bytes` may be cut to the snap length. */
  readonly length: number;
  readonly bytes: Uint8Array;
  readonly comment: string;
}

/** Null: done. 'changed': others have run commands since. Else which command cannot be had, and why; then nothing has changed. */
export type IpvsOutcome = { readonly index: number; readonly errno: IpvsErrno } | 'changed' | null;

export interface EntriesRequest {
  readonly cursor: number;
  readonly limit: number;
  readonly filter: EntryFilter;
}

/** Events of connection tracking, in their order; `lost` of each kind found the batch full. */
export interface CtEvents {
  readonly entries: readonly EntryEvent[];
  readonly expectations: readonly ExpectationEvent[];
  readonly lost: number;
}

export interface EngineRequests {
  ping: { args: Record<string, never>; result: { readonly breaths: number } };
  'add-device': { args: DeviceSpec; result: null };
  'del-device': { args: { readonly name: string }; result: null };
  ip: { args: { readonly commands: readonly IpCommand[] }; result: readonly (IpErrno | null)[] };
  'list-addresses': { args: Record<string, never>; result: readonly AddressRow[] };
  'list-routes': { args: Record<string, never>; result: readonly RouteRow[] };
  'list-neighbours': { args: Record<string, never>; result: readonly NeighbourRow[] };
  'list-links': { args: Record<string, never>; result: readonly LinkRow[] };
  'list-hooks': { args: Record<string, never>; result: readonly HookRow[] };
  'list-drops': { args: Record<string, never>; result: readonly DropRow[] };
  'get-sysctl': { args: { readonly key: string }; result: string | undefined };
  'set-sysctl': {
    args: { readonly key: string; readonly value: string };
    result: 'EINVAL' | 'ENOENT' | 'EPERM' | null;
  };
  'list-sysctls': { args: Record<string, never>; result: readonly (readonly [string, string])[] };
  ipvs: { args: { readonly commands: readonly IpvsCommand[] }; result: readonly (IpvsErrno | null)[] };
  /** The first commands of the next `change-table`, a few at a time: a long message stops whoever reads it. Nobody else may come between. */
  'stage-rules': { args: { readonly at: number; readonly commands: readonly TableCommand[] }; result: null };
  /** Do all of it or nothing; `at` commands were staged before. */
  'change-table': { args: TableChange & { readonly at: number }; result: TableOutcome };
  'list-table': {
    args: { readonly table: TableName; readonly cursor: number; readonly limit: number };
    result: TablePage;
  };
  /** Tables that somebody has asked for, the latest first. */
  'list-tables': { args: Record<string, never>; result: readonly TableName[] };
  /** The first commands of the next `ipvs-all`, as with `stage-rules`. */
  'stage-ipvs': { args: { readonly at: number; readonly commands: readonly IpvsCommand[] }; result: null };
  /** Run all or none, and only while the generation is this one; `at` commands were staged before. */
  'ipvs-all': {
    args: { readonly commands: readonly IpvsCommand[]; readonly generation: number; readonly at: number };
    result: IpvsOutcome;
  };
  /** Grows with each batch of commands. */
  'ipvs-generation': { args: Record<string, never>; result: number };
  /** How many there are, without listing them. */
  'ipvs-counts': {
    args: Record<string, never>;
    result: { readonly services: number; readonly servers: number; readonly connections: number };
  };
  'ipvs-info': { args: Record<string, never>; result: IpvsInfo };
  /** From `cursor` on (0 = start) services and their servers, `limit` of both together. */
  'list-services': {
    args: { readonly key?: ServiceKey | undefined; readonly cursor: number; readonly limit: number };
    result: ServicePage;
  };
  'list-drains': { args: Record<string, never>; result: readonly DrainRow[] };
  'list-daemons': { args: Record<string, never>; result: readonly DaemonRow[] };
  'list-connections': {
    args: { readonly cursor: number; readonly limit: number };
    result: { readonly rows: readonly ConnectionRow[]; readonly next: number };
  };
  'conntrack-counts': { args: Record<string, never>; result: CtCounts };
  conntrack: {
    args: { readonly commands: readonly SmallCtCommand[]; readonly by?: CtRequester | undefined };
    result: readonly CtResult[];
  };
  /** Looks at so many rows of the table from `cursor` on, or fewer when that takes long, and answers those that are meant. */
  'list-entries': {
    args: EntriesRequest & { readonly table: EntryTable; readonly zero: boolean };
    result: { readonly rows: readonly EntryRow[]; readonly next: number };
  };
  'delete-entries': {
    args: EntriesRequest & { readonly by?: CtRequester | undefined };
    result: { readonly rows: readonly EntryRow[]; readonly next: number };
  };
  'update-entries': {
    args: EntriesRequest & { readonly change: EntryChange; readonly by?: CtRequester | undefined };
    result: { readonly rows: readonly UpdateResult[]; readonly next: number };
  };
  /** Ends all entries of `limit` rows, or of fewer; `next`: where to go on, -1 when that was all. */
  'flush-entries': {
    args: { readonly cursor: number; readonly limit: number; readonly by?: CtRequester | undefined };
    result: { readonly next: number };
  };
  /** Ends as many, the oldest first, up to the one with the id `last` (0: the latest); answers its id while more are left, else 0. */
  'flush-expectations': {
    args: { readonly last: number; readonly limit: number; readonly by?: CtRequester | undefined };
    result: { readonly last: number };
  };
  'list-expectations': {
    args: { readonly cursor: number; readonly limit: number };
    result: { readonly rows: readonly ExpectationRow[]; readonly next: number };
  };
  /** Whether somebody follows events: else there are none. */
  'watch-conntrack': { args: { readonly entries: boolean; readonly expectations: boolean }; result: null };
  /** A text: why such a packet cannot be. */
  explain: { args: ExplainSpec; result: Explanation | string };
  'start-trace': {
    args: { readonly traceId: number; readonly device?: string | undefined; readonly filter: string };
    result: string | null;
  };
  'stop-trace': { args: { readonly traceId: number }; result: null };
  'start-capture': { args: CaptureSpec & { readonly captureId: number }; result: string | null };
  'stop-capture': { args: { readonly captureId: number }; result: null };
  /** Test mode only: turn the clock forward; hold it, or let it run. */
  'turn-clock': {
    args: { readonly seconds: number; readonly runs?: boolean | undefined };
    result: { readonly ticks: number };
  };
  /** A text of the main thread's own, kept beside the tables. */
  'keep-control': { args: { readonly text: string }; result: null };
  shutdown: { args: Record<string, never>; result: null };
}

export type EngineRequestName = keyof EngineRequests;

export interface RequestMessage<N extends EngineRequestName = EngineRequestName> {
  readonly id: number;
  readonly name: N;
  readonly args: EngineRequests[N]['args'];
}

export type WorkerMessage =
  | { readonly type: 'loaded' }
  | { readonly type: 'ready'; readonly kept?: KeptReport | undefined }
  /** Rows of a list whose last ones come with the reply. */
  | { readonly type: 'part'; readonly id: number; readonly rows: readonly unknown[] }
  | { readonly type: 'reply'; readonly id: number; readonly result: unknown }
  | { readonly type: 'failed'; readonly id: number; readonly message: string }
  | { readonly type: 'captured'; readonly records: readonly CaptureRecord[] }
  | ({ readonly type: 'conntrack-events' } & CtEvents)
  | { readonly type: 'traced'; readonly records: readonly TraceRecord[] }
  | {
      readonly type: 'log';
      readonly level: 'debug' | 'info' | 'warn' | 'error';
      readonly message: string;
      readonly fields?: Record<string, unknown>;
    };
