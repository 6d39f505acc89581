/**
 * The control API: HTTP with JSON over the unix socket, so that `curl --unix-socket /run/tapvs/tapvs.sock http://tapvs/v1/status` works.
 *
 *   GET    /v1/status                     Status
 *   GET    /v1/hooks                      HookRow[]
 *   GET    /v1/drops                      DropRow[]
 *   GET    /v1/ip/addresses|routes|neighbours|links
 *   POST   /v1/ip                         { commands: IpCommand[] }    → CommandResults
 *   GET    /v1/sysctl                     [key, value][]
 *   GET    /v1/sysctl/KEY                 { key, value }
 *   PUT    /v1/sysctl/KEY                 { value }                    → { key, value }
 *   GET    /v1/ipvs                       IpvsInfo
 *   POST   /v1/ipvs                       { commands: IpvsCommand[] }  → CommandResults
 *   GET    /v1/ipvs/services[?key=JSON]   NDJSON of ServiceRow
 *   GET    /v1/ipvs/drains                DrainRow[]
 *   POST   /v1/ipvs/plan                  { lines: TableLine[] } what would change if they were the whole table → TablePlan
 *   PUT    /v1/ipvs/table                 { lines: TableLine[] } make them the whole table, or change nothing → TablePlan
 *   GET    /v1/ipvs/connections           NDJSON of ConnectionRow
 *   GET    /v1/iptables                   TableName[]: those that somebody has asked for, the latest first
 *   GET    /v1/iptables/TABLE             TableRow
 *   POST   /v1/iptables                   TableChange: all of its commands or none → TableOutcome
 *   GET    /v1/conntrack                  ConntrackInfo
 *   POST   /v1/conntrack                  { commands: CtCommand[], by?: CtRequester } → { results: CtResult[] }
 *   GET    /v1/conntrack/entries[?table=&filter=JSON]  NDJSON of EntryRow; tables conntrack, dying, unconfirmed; an EntryFilter
 *   POST   /v1/conntrack/zero             { filter }: their counters begin anew → NDJSON of EntryRow as they were
 *   POST   /v1/conntrack/delete           { filter, by? }              → NDJSON of EntryRow
 *   POST   /v1/conntrack/update           { filter, change: EntryChange, by? } → NDJSON of UpdateResult
 *   GET    /v1/conntrack/expectations     NDJSON of ExpectationRow
 *   GET    /v1/conntrack/events[?kinds=&filter=JSON&buffer=]  NDJSON of EntryEvent until the client goes; EventsLost where it was too slow
 *   GET    /v1/conntrack/expectation-events[?kinds=&buffer=]  NDJSON of ExpectationEvent
 *   GET    /v1/capture?device=&hook=&filter=&snaplen=     pcapng stream until the client goes
 *   POST   /v1/explain                    ExplainSpec                  → Explanation: nothing is sent, nothing changes
 *   GET    /v1/trace?device=&filter=      NDJSON of TraceRecord until the client goes
 *   POST   /v1/reload                     read the configuration file again → ReloadResult
 *   POST   /v1/clock                      { seconds?, runs? } test mode only: turn the clock forward, hold it (runs: false) → { ticks }
 *
 * A list of commands runs in order, each on its own: a failed one changes nothing and does not stop the next. Any other failure is an ErrorBody with a
 * fitting status code.
 */
import type { DropRow, HookRow } from '../engine/messages.ts';
import type { CtCounts } from '../model/conntrack.ts';
import type { IpErrno } from '../model/ip.ts';
import type { IpvsCommand, IpvsErrno, ServiceKey } from '../model/ipvs.ts';
import type { ExplainSpec, Explanation, TraceRecord } from '../model/way.ts';

export type { DropRow, ExplainSpec, Explanation, HookRow, TraceRecord };

export interface Status {
  readonly version: string;
  readonly pid: number;
  readonly uptimeSeconds: number;
  readonly configFile: string;
  readonly generation: number;
  readonly workers: number;
  readonly services: number;
  readonly servers: number;
  readonly connections: number;
  readonly devices: readonly {
    readonly name: string;
    readonly kind: string;
    readonly mac?: string | undefined;
    readonly addresses: readonly string[];
  }[];
}

export interface ConntrackInfo extends CtCounts {
  /** Clients that follow events. */
  readonly streams: readonly { readonly id: number; readonly told: number; readonly lost: number }[];
}

export interface CommandResults {
  /** One per command, in order: null when it worked. */
  readonly results: readonly (IpvsErrno | IpErrno | null)[];
}

export interface ReloadResult {
  readonly generation: number;
  /** The diff in words, one line each; empty when nothing changed. */
  readonly changes: readonly string[];
}

/** A command, and where its file says it. */
export interface TableLine {
  readonly line: number;
  readonly command: IpvsCommand;
}

export interface TableFault {
  readonly line: number;
  readonly errno: IpvsErrno;
}

export interface TableChange {
  readonly command: IpvsCommand;
  /** Its line in the diff: `~ server 10.0.1.100:80 → 10.0.2.11:80 weight 1 → 2`. */
  readonly text: string;
  /** Connections whose server is removed. */
  readonly orphans: number;
}

/** From the table as it is to that of a file. */
export interface TablePlan {
  /** Lines that cannot be had: then there are no changes. */
  readonly faults: readonly TableFault[];
  readonly changes: readonly TableChange[];
  readonly orphans: number;
  /** Of services that choose by hash (sh, dh, mh): how many of their connections' clients would be sent elsewhere. */
  readonly moves: readonly { readonly service: ServiceKey; readonly of: number; readonly elsewhere: number }[];
}

/** Closed set of error codes. */
export type ErrorCode =
  | 'bad-request'
  | 'not-found'
  | 'method-not-allowed'
  | 'no-such-service'
  | 'no-such-key'
  | 'bad-value'
  | 'bad-filter'
  | 'no-such-device'
  | 'bad-config'
  | 'busy'
  | 'not-in-test-mode'
  | 'internal';

export interface ErrorBody {
  readonly error: { readonly code: ErrorCode; readonly message: string };
}

export const DEFAULT_SOCKET = '/run/tapvs/tapvs.sock';
