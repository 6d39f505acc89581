/**
 * net.ipv4.vs.*: names, defaults, ranges (Linux 6.1: Documentation/networking/ipvs-sysctl.rst, ip_vs_ctl.c vs_vars[]).
 *
 * A key whose behaviour tapvs does not have yet can be read, and written with the value it has; any other value is refused with EINVAL, never
 * accepted and ignored.
 */
import { TICKS_PER_SECOND } from '../base/clock.ts';

interface Key {
  readonly name: string;
  readonly initial: number;
  readonly min: number;
  readonly max: number;
  /** Its behaviour is there: other values than the initial one may be written. */
  readonly isBuilt: boolean;
}

const INT_MIN = -2147483648;
const INT_MAX = 2147483647;
/** Seconds that fit the kernel's tick counter (proc_dointvec_jiffies). */
const LONGEST = Math.floor(INT_MAX / TICKS_PER_SECOND);

function key(name: string, initial: number, isBuilt = false, min = INT_MIN, max = INT_MAX): Key {
  return { name, initial, min, max, isBuilt };
}

const KEYS: readonly Key[] = [
  key('am_droprate', 10),
  key('amemthresh', 1024),
  key('backup_only', 0),
  key('cache_bypass', 0),
  key('conn_reuse_mode', 1, true),
  key('conntrack', 0),
  key('drop_entry', 0, false, 0, 3),
  key('drop_packet', 0, false, 0, 3),
  key('expire_nodest_conn', 0, true),
  key('expire_quiescent_template', 0, true),
  key('ignore_tunneled', 0),
  key('lblc_expiration', 86400, true, -LONGEST, LONGEST),
  key('lblcr_expiration', 86400, true, -LONGEST, LONGEST),
  key('nat_icmp_send', 0),
  key('pmtu_disc', 1),
  key('run_estimation', 1, true),
  key('schedule_icmp', 0),
  key('secure_tcp', 0, false, 0, 3),
  key('sloppy_sctp', 0),
  key('sloppy_tcp', 0, true),
  key('snat_reroute', 1),
  key('sync_persist_mode', 0),
  key('sync_ports', 1),
  key('sync_qlen_max', 16384),
  key('sync_refresh_period', 0),
  key('sync_retries', 0, false, 0, 3),
  key('sync_sock_size', 0),
  key('sync_version', 1, false, 0, 1),
];

/** The one key with two numbers. */
const SYNC_THRESHOLD = { name: 'sync_threshold', value: '3\t50' } as const;

export const SYSCTL_PREFIX = 'net.ipv4.vs.';

export class Sysctls {
  // What the data path reads: plain numbers, one shape.
  connReuseMode = 1;
  expireNodestConn = 0;
  expireQuiescentTemplate = 0;
  /** Seconds. */
  lblcExpiration = 86400;
  lblcrExpiration = 86400;
  runEstimation = 1;
  sloppyTcp = 0;

  readonly #values = new Map<string, number>(KEYS.map((k) => [k.name, k.initial]));

  /** Value of `net.ipv4.vs.NAME` as sysctl prints it; undefined when there is no such key. */
  get(name: string): string | undefined {
    const short = withoutPrefix(name);
    if (short === SYNC_THRESHOLD.name) return SYNC_THRESHOLD.value;
    return this.#values.get(short)?.toString();
  }

  set(name: string, text: string): 'EINVAL' | 'ENOENT' | null {
    const short = withoutPrefix(name);
    if (short === SYNC_THRESHOLD.name) {
      return text.trim().split(/\s+/).join('\t') === SYNC_THRESHOLD.value ? null : 'EINVAL';
    }
    const key = KEYS.find((k) => k.name === short);
    if (key === undefined) return 'ENOENT';
    const trimmed = text.trim();
    if (!/^[+-]?[0-9]{1,10}$/.test(trimmed)) return 'EINVAL';
    const value = Number(trimmed);
    if (value < key.min || value > key.max) return 'EINVAL';
    if (value === this.#values.get(short)) return null;
    if (!key.isBuilt) return 'EINVAL';
    this.#values.set(short, value);
    if (short === 'conn_reuse_mode') this.connReuseMode = value;
    else if (short === 'expire_nodest_conn') this.expireNodestConn = value;
    else if (short === 'expire_quiescent_template') this.expireQuiescentTemplate = value;
    else if (short === 'lblc_expiration') this.lblcExpiration = value;
    else if (short === 'lblcr_expiration') this.lblcrExpiration = value;
    else if (short === 'run_estimation') this.runEstimation = value;
    else if (short === 'sloppy_tcp') this.sloppyTcp = value;
    return null;
  }

  /** Full names and values, sorted by name. */
  list(): (readonly [string, string])[] {
    const rows = [...this.#values].map(([name, value]) => [SYSCTL_PREFIX + name, value.toString()] as const);
    rows.push([SYSCTL_PREFIX + SYNC_THRESHOLD.name, SYNC_THRESHOLD.value]);
    return rows.sort((a, b) => (a[0] < b[0] ? -1 : 1));
  }
}

function withoutPrefix(name: string): string {
  return name.startsWith(SYSCTL_PREFIX) ? name.slice(SYSCTL_PREFIX.length) : name;
}
