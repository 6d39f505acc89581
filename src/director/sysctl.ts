/**
 * net.ipv4.vs.*: names, defaults, ranges (Linux 6.1: Documentation/networking/ipvs-sysctl.rst, ip_vs_ctl.c vs_vars[]).
 *
 * A key whose behaviour tapvs does not have yet can be read, and written with the value it has; any other value is refused with EINVAL, never
 * accepted and ignored.
 */
import { TICKS_PER_SECOND } from '../base/clock.ts';

/** What the data path reads: plain numbers, one shape. A switch is off at 0 and on at anything else, as in the kernel. */
interface Values {
  amDroprate: number;
  /** Pages. */
  amemthresh: number;
  backupOnly: number;
  cacheBypass: number;
  connReuseMode: number;
  conntrack: number;
  dropEntry: number;
  dropPacket: number;
  expireNodestConn: number;
  expireQuiescentTemplate: number;
  ignoreTunneled: number;
  /** Seconds. */
  lblcExpiration: number;
  lblcrExpiration: number;
  natIcmpSend: number;
  pmtuDisc: number;
  runEstimation: number;
  scheduleIcmp: number;
  secureTcp: number;
  sloppySctp: number;
  sloppyTcp: number;
  snatReroute: number;
  syncPersistMode: number;
  syncPorts: number;
  syncQlenMax: number;
  /** Seconds. */
  syncRefreshPeriod: number;
  syncRetries: number;
  /** Bytes. */
  syncSockSize: number;
  syncVersion: number;
}

interface Key {
  readonly name: string;
  readonly field: keyof Values;
  readonly min: number;
  readonly max: number;
  /** Its behaviour is there: other values than the initial one may be written. */
  readonly isBuilt: boolean;
}

const INT_MIN = -2147483648;
const INT_MAX = 2147483647;
/** Seconds that fit the kernel's tick counter (proc_dointvec_jiffies). */
const LONGEST = Math.floor(INT_MAX / TICKS_PER_SECOND);

function key(name: string, field: keyof Values, isBuilt: boolean, min = INT_MIN, max = INT_MAX): Key {
  return { name, field, isBuilt, min, max };
}

const KEYS: readonly Key[] = [
  key('am_droprate', 'amDroprate', false),
  key('amemthresh', 'amemthresh', false),
  key('backup_only', 'backupOnly', false),
  key('cache_bypass', 'cacheBypass', false),
  key('conn_reuse_mode', 'connReuseMode', true),
  key('conntrack', 'conntrack', false),
  key('drop_entry', 'dropEntry', false, 0, 3),
  key('drop_packet', 'dropPacket', false, 0, 3),
  key('expire_nodest_conn', 'expireNodestConn', true),
  key('expire_quiescent_template', 'expireQuiescentTemplate', true),
  key('ignore_tunneled', 'ignoreTunneled', false),
  key('lblc_expiration', 'lblcExpiration', true, -LONGEST, LONGEST),
  key('lblcr_expiration', 'lblcrExpiration', true, -LONGEST, LONGEST),
  key('nat_icmp_send', 'natIcmpSend', false),
  key('pmtu_disc', 'pmtuDisc', false),
  key('run_estimation', 'runEstimation', true),
  key('schedule_icmp', 'scheduleIcmp', false),
  key('secure_tcp', 'secureTcp', false, 0, 3),
  key('sloppy_sctp', 'sloppySctp', true),
  key('sloppy_tcp', 'sloppyTcp', true),
  key('snat_reroute', 'snatReroute', false),
  key('sync_persist_mode', 'syncPersistMode', false),
  key('sync_ports', 'syncPorts', false),
  key('sync_qlen_max', 'syncQlenMax', false),
  key('sync_refresh_period', 'syncRefreshPeriod', false),
  key('sync_retries', 'syncRetries', false, 0, 3),
  key('sync_sock_size', 'syncSockSize', false),
  key('sync_version', 'syncVersion', false, 0, 1),
];

/** The one key with two numbers. */
const SYNC_THRESHOLD = { name: 'sync_threshold', value: '3\t50' } as const;

export const SYSCTL_PREFIX = 'net.ipv4.vs.';

export class Sysctls implements Values {
  amDroprate = 10;
  amemthresh = 1024;
  backupOnly = 0;
  cacheBypass = 0;
  connReuseMode = 1;
  conntrack = 0;
  dropEntry = 0;
  dropPacket = 0;
  expireNodestConn = 0;
  expireQuiescentTemplate = 0;
  ignoreTunneled = 0;
  lblcExpiration = 86400;
  lblcrExpiration = 86400;
  natIcmpSend = 0;
  pmtuDisc = 1;
  runEstimation = 1;
  scheduleIcmp = 0;
  secureTcp = 0;
  sloppySctp = 0;
  sloppyTcp = 0;
  snatReroute = 1;
  syncPersistMode = 0;
  syncPorts = 1;
  syncQlenMax = 16384;
  syncRefreshPeriod = 0;
  syncRetries = 0;
  syncSockSize = 0;
  syncVersion = 1;

  /** Value of `net.ipv4.vs.NAME` as sysctl prints it; undefined when there is no such key. */
  get(name: string): string | undefined {
    const short = withoutPrefix(name);
    if (short === SYNC_THRESHOLD.name) return SYNC_THRESHOLD.value;
    const key = KEYS.find((k) => k.name === short);
    return key === undefined ? undefined : this[key.field].toString();
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
    if (value === this[key.field]) return null;
    if (!key.isBuilt) return 'EINVAL';
    this[key.field] = value;
    return null;
  }

  /** Full names and values, sorted by name. */
  list(): (readonly [string, string])[] {
    const rows = KEYS.map(({ name, field }) => [SYSCTL_PREFIX + name, this[field].toString()] as const);
    rows.push([SYSCTL_PREFIX + SYNC_THRESHOLD.name, SYNC_THRESHOLD.value]);
    return rows.sort((a, b) => (a[0] < b[0] ? -1 : 1));
  }
}

function withoutPrefix(name: string): string {
  return name.startsWith(SYSCTL_PREFIX) ? name.slice(SYSCTL_PREFIX.length) : name;
}
