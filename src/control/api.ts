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
 *   GET    /v1/ipvs/connections           NDJSON of ConnectionRow
 *   GET    /v1/capture?device=&hook=&filter=&snaplen=     pcapng stream until the client goes
 *   POST   /v1/reload                     read the configuration file again → ReloadResult
 *   POST   /v1/clock                      { seconds?, runs? } test mode only: turn the clock forward, hold it (runs: false) → { ticks }
 *   POST   /v1/marks                      { rules: MarkRule[] } test mode only: these rules set marks, no others
 *
 * A list of commands runs in order, each on its own: a failed one changes nothing and does not stop the next. Any other failure is an ErrorBody with a
 * fitting status code.
 */
import type { DropRow, HookRow } from '../engine/messages.ts';
import type { IpErrno } from '../model/ip.ts';
import type { IpvsErrno } from '../model/ipvs.ts';

export type { DropRow, HookRow };

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

export interface CommandResults {
  /** One per command, in order: null when it worked. */
  readonly results: readonly (IpvsErrno | IpErrno | null)[];
}

export interface ReloadResult {
  readonly generation: number;
  /** The diff in words, one line each; empty when nothing changed. */
  readonly changes: readonly string[];
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
  | 'not-in-test-mode'
  | 'internal';

export interface ErrorBody {
  readonly error: { readonly code: ErrorCode; readonly message: string };
}

export const DEFAULT_SOCKET = '/run/tapvs/tapvs.sock';
