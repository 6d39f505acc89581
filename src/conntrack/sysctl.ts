/**
 * net.netfilter.nf_conntrack_*: names, defaults, ranges (nf_conntrack_standalone.c, Linux 6.18). Timeouts are seconds outside and ticks inside;
 * one below 0 is over at once, as in the kernel.
 */
import { seconds, TICKS_PER_SECOND } from '../base/clock.ts';
import { copyState } from '../base/copy-state.ts';
import { parseNumber } from '../base/sysctl-number.ts';
import { SCTP_CT_NAMES, TCP_CT_NAMES } from '../model/entry-states.ts';

/** Timeouts of TCP that are no state's: behind those of the states. */
export const TcpTimeout = { MaxRetrans: 10, Unacknowledged: 11 } as const;

const TCP_SECONDS = [10, 120, 60, 432000, 120, 60, 30, 120, 10, 120, 300, 300];
const SCTP_SECONDS = [10, 10, 3, 3, 210, 3, 3, 3, 30];
const INT_MAX = 2147483647;
const LONGEST = Math.floor(INT_MAX / TICKS_PER_SECOND);

export const CONNTRACK_PREFIX = 'net.netfilter.nf_conntrack_';

/** One key: how it is read and written. */
interface Key {
  readonly get: () => number;
  /** Absent: it can only be read. */
  readonly set?: (value: number) => void;
  readonly min: number;
  readonly max: number | (() => number);
}

export class ConntrackSysctls {
  acct = 0;
  checksum = 1;
  events = 2;
  expectMax = 4096;
  /** Protocol whose packets are told of when they are INVALID; 255: all, 0: none. */
  logInvalid = 0;
  /** net.netfilter.nf_log.2: whether somebody writes what they are told of. */
  hasLogger = true;
  max = 262144;
  timestamp = 0;
  tcpBeLiberal = 0;
  tcpIgnoreInvalidRst = 0;
  tcpLoose = 1;
  tcpMaxRetrans = 3;
  /** Ticks, by state; then TcpTimeout. */
  readonly tcpTimeouts = Int32Array.from(TCP_SECONDS, (s) => seconds(s));
  readonly sctpTimeouts = Int32Array.from(SCTP_SECONDS, (s) => seconds(s));
  udpTimeout = seconds(30);
  udpStreamTimeout = seconds(120);
  icmpTimeout = seconds(30);
  genericTimeout = seconds(600);
  greTimeout = seconds(30);
  greStreamTimeout = seconds(180);
  /** nf_conntrack_ftp.loose: what announces another one's address is believed, too. */
  isFtpLoose = false;
  /** Told when a setting has changed. */
  onChange: () => void = () => {};
  readonly #keys = new Map<string, Key>();

  /** Entries that there is room for: `buckets`, and what `max` cannot exceed. */
  rows: number;

  /** @param count entries at present */
  constructor(count: () => number, rows: number) {
    this.rows = rows;
    const keys = this.#keys;
    const { tcpTimeouts, sctpTimeouts } = this;
    this.max = rows;
    // Nothing can be written, and the kernel says EINVAL.
    keys.set('count', { get: count, set: () => {}, min: 1, max: 0 });
    keys.set('buckets', { get: () => this.rows, min: 0, max: 0 });
    const bytes = ['acct', 'checksum', 'timestamp', 'tcpBeLiberal', 'tcpIgnoreInvalidRst', 'tcpLoose'] as const;
    for (const field of bytes) this.#number(field, 0, 1);
    this.#number('events', 0, 2);
    this.#number('expectMax', 1, INT_MAX);
    this.#number('logInvalid', 0, 255);
    this.#number('max', 0, () => this.rows);
    this.#number('tcpMaxRetrans', 0, 255);
    for (const [state, name] of TCP_CT_NAMES.entries()) {
      if (name !== 'NONE' && name !== 'SYN_SENT2')
        this.#timeout(`tcp_timeout_${name.toLowerCase()}`, tcpTimeouts, state);
    }
    this.#timeout('tcp_timeout_max_retrans', tcpTimeouts, TcpTimeout.MaxRetrans);
    this.#timeout('tcp_timeout_unacknowledged', tcpTimeouts, TcpTimeout.Unacknowledged);
    for (const [state, name] of SCTP_CT_NAMES.entries()) {
      if (name !== 'NONE') this.#timeout(`sctp_timeout_${name.toLowerCase()}`, sctpTimeouts, state);
    }
    this.#single('udp_timeout', 'udpTimeout');
    this.#single('udp_timeout_stream', 'udpStreamTimeout');
    this.#single('icmp_timeout', 'icmpTimeout');
    this.#single('generic_timeout', 'genericTimeout');
    this.#single('gre_timeout', 'greTimeout');
    this.#single('gre_timeout_stream', 'greStreamTimeout');
  }

  #number(field: NumberField, min: number, max: number | (() => number)): void {
    const set = (value: number) => {
      this[field] = value;
    };
    this.#keys.set(snake(field), { get: () => this[field], set, min, max });
  }

  #single(name: string, field: TimeoutField): void {
    const set = (value: number) => {
      this[field] = seconds(value);
    };
    this.#keys.set(name, { get: () => this[field] / TICKS_PER_SECOND, set, min: -LONGEST, max: LONGEST });
  }

  #timeout(name: string, ticks: Int32Array, index: number): void {
    const set = (value: number) => {
      ticks[index] = seconds(value);
    };
    this.#keys.set(name, { get: () => ticks[index]! / TICKS_PER_SECOND, set, min: -LONGEST, max: LONGEST });
  }

  /** Value of `net.netfilter.nf_conntrack_NAME` as sysctl prints it; undefined when there is no such key. */
  get(name: string): string | undefined {
    return this.#keyOf(name)?.get().toString();
  }

  /** EPERM: it can only be read. */
  set(name: string, text: string): 'EINVAL' | 'ENOENT' | 'EPERM' | null {
    const key = this.#keyOf(name);
    if (key === undefined) return 'ENOENT';
    if (key.set === undefined) return 'EPERM';
    const value = parseNumber(text);
    if (value === 'nothing') return null;
    const max = typeof key.max === 'number' ? key.max : key.max();
    if (value === undefined || value < key.min || value > max) return 'EINVAL';
    this.change(() => key.set?.(value));
    return null;
  }

  change(set: () => void): void {
    set();
    this.onChange();
  }

  /** Full names and values, sorted by name. */
  list(): (readonly [string, string])[] {
    const rows = [...this.#keys].map(([name, key]) => [CONNTRACK_PREFIX + name, key.get().toString()] as const);
    return rows.sort((a, b) => (a[0] < b[0] ? -1 : 1));
  }

  #keyOf(name: string): Key | undefined {
    return name.startsWith(CONNTRACK_PREFIX) ? this.#keys.get(name.slice(CONNTRACK_PREFIX.length)) : undefined;
  }

  copyFrom(live: ConntrackSysctls): void {
    copyState<ConntrackSysctls>(this, live, 1, 1);
  }
}

type NumberField =
  | 'acct'
  | 'checksum'
  | 'events'
  | 'expectMax'
  | 'logInvalid'
  | 'max'
  | 'timestamp'
  | 'tcpBeLiberal'
  | 'tcpIgnoreInvalidRst'
  | 'tcpLoose'
  | 'tcpMaxRetrans';
type TimeoutField =
  | 'udpTimeout'
  | 'udpStreamTimeout'
  | 'icmpTimeout'
  | 'genericTimeout'
  | 'greTimeout'
  | 'greStreamTimeout';

function snake(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}
