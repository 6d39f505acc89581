/**
 * net.ipv4.vs.*: names, defaults, ranges (Linux 6.1: Documentation/networking/ipvs-sysctl.rst, ip_vs_ctl.c vs_vars[]).
 */
import { TICKS_PER_SECOND } from '../base/clock.ts';
import { copyState } from '../base/copy-state.ts';
import { parseNumber } from '../base/sysctl-number.ts';

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
  /** Packets. */
  syncThreshold: number;
  syncPeriod: number;
  /** Bytes. */
  syncSockSize: number;
  syncVersion: number;
}

/** What the kernel's reader of a key takes (kernel/sysctl.c: proc_dointvec and its kin). Seconds are kept as ticks there, so fewer fit. */
type Kind = 'int' | 'seconds' | 'mode' | 'power of two' | 'unsigned long';

interface Key {
  readonly name: string;
  readonly field: keyof Values;
  readonly kind: Kind;
  readonly min: number;
  readonly max: number;
}

const INT_MIN = -2147483648;
const INT_MAX = 2147483647;
/** Seconds that fit the kernel's tick counter (proc_dointvec_jiffies). */
const LONGEST = Math.floor(INT_MAX / TICKS_PER_SECOND);
const RANGES: Readonly<Record<Kind, readonly [number, number]>> = {
  int: [INT_MIN, INT_MAX],
  seconds: [-LONGEST, LONGEST],
  mode: [0, 3],
  'power of two': [1, INT_MAX],
  'unsigned long': [0, Number.MAX_SAFE_INTEGER],
};

function key(name: string, field: keyof Values, kind: Kind = 'int', min?: number, max?: number): Key {
  const [least, most] = RANGES[kind];
  return { name, field, kind, min: min ?? least, max: max ?? most };
}

const KEYS: readonly Key[] = [
  key('am_droprate', 'amDroprate'),
  key('amemthresh', 'amemthresh'),
  key('backup_only', 'backupOnly'),
  key('cache_bypass', 'cacheBypass'),
  key('conn_reuse_mode', 'connReuseMode'),
  key('conntrack', 'conntrack'),
  key('drop_entry', 'dropEntry', 'mode'),
  key('drop_packet', 'dropPacket', 'mode'),
  key('expire_nodest_conn', 'expireNodestConn'),
  key('expire_quiescent_template', 'expireQuiescentTemplate'),
  key('ignore_tunneled', 'ignoreTunneled'),
  key('lblc_expiration', 'lblcExpiration', 'seconds'),
  key('lblcr_expiration', 'lblcrExpiration', 'seconds'),
  key('nat_icmp_send', 'natIcmpSend'),
  key('pmtu_disc', 'pmtuDisc'),
  key('run_estimation', 'runEstimation'),
  key('schedule_icmp', 'scheduleIcmp'),
  key('secure_tcp', 'secureTcp', 'mode'),
  key('sloppy_sctp', 'sloppySctp'),
  key('sloppy_tcp', 'sloppyTcp'),
  key('snat_reroute', 'snatReroute'),
  key('sync_persist_mode', 'syncPersistMode'),
  key('sync_ports', 'syncPorts', 'power of two'),
  key('sync_qlen_max', 'syncQlenMax', 'unsigned long'),
  key('sync_refresh_period', 'syncRefreshPeriod', 'seconds'),
  key('sync_retries', 'syncRetries', 'int', 0, 3),
  key('sync_sock_size', 'syncSockSize'),
  key('sync_version', 'syncVersion', 'int', 0, 1),
];

/** The one key with two numbers: the packet at which a connection is told first, and of how many packets one is then. */
const SYNC_THRESHOLD = 'sync_threshold';

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
  syncThreshold = 3;
  syncPeriod = 50;
  syncSockSize = 0;
  syncVersion = 1;
  /** Told when the mode of a defence was changed: modes 1 and 2 are judged at once. */
  onMode: () => void = () => {};
  /** Told of each change of `conntrack`. */
  onConntrack: () => void = () => {};

  /** Value of `net.ipv4.vs.NAME` as sysctl prints it; undefined when there is no such key. */
  get(name: string): string | undefined {
    const short = withoutPrefix(name);
    if (short === SYNC_THRESHOLD) return this.#threshold;
    const key = KEYS.find((k) => k.name === short);
    return key === undefined ? undefined : this[key.field].toString();
  }

  set(name: string, text: string): 'EINVAL' | 'ENOENT' | null {
    const short = withoutPrefix(name);
    if (short === SYNC_THRESHOLD) return this.#setThreshold(text);
    const key = KEYS.find((k) => k.name === short);
    if (key === undefined) return 'ENOENT';
    const value = parseNumber(text);
    if (value === 'nothing') return null;
    if (value === undefined || value < key.min || value > key.max) return 'EINVAL';
    if (key.kind === 'power of two' && (value & (value - 1)) !== 0) return 'EINVAL';
    if (value === this[key.field]) return null;
    this[key.field] = value;
    if (key.kind === 'mode') this.onMode();
    if (key.field === 'conntrack') this.onConntrack();
    return null;
  }

  get #threshold(): string {
    return `${this.syncThreshold}\t${this.syncPeriod}`;
  }

  /** One number keeps the other; what stands behind the second is not looked at (proc_do_sync_threshold). */
  #setThreshold(text: string): 'EINVAL' | null {
    if (text === '') return null;
    const [word = '', other] = text.trim().split(/\s+/);
    const first = parseNumber(word);
    const period = other === undefined ? this.syncPeriod : parseNumber(other);
    if (typeof first !== 'number' || typeof period !== 'number' || first < 0 || period < 0) return 'EINVAL';
    if (first > INT_MAX || period > INT_MAX || (first >= period && period !== 0)) return 'EINVAL';
    this.syncThreshold = first;
    this.syncPeriod = period;
    return null;
  }

  copyFrom(live: Sysctls): void {
    copyState<Sysctls>(this, live);
  }

  /** Full names and values, sorted by name. */
  list(): (readonly [string, string])[] {
    const rows = KEYS.map(({ name, field }) => [SYSCTL_PREFIX + name, this[field].toString()] as const);
    rows.push([SYSCTL_PREFIX + SYNC_THRESHOLD, this.#threshold]);
    return rows.sort((a, b) => (a[0] < b[0] ? -1 : 1));
  }
}

function withoutPrefix(name: string): string {
  return name.startsWith(SYSCTL_PREFIX) ? name.slice(SYSCTL_PREFIX.length) : name;
}
