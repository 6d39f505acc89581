/**
 * ipvsadm's commands and options: the one table that parsing, checking and `--help` come from.
 * The order of OPTIONS is the order in which combinations are checked, so it decides which of several complaints is printed.
 */
import { type PoptOption, poptTable } from '../popt.ts';

/** Names as the messages spell them: `flush` is -C. */
export type CommandName =
  | 'add-service'
  | 'edit-service'
  | 'delete-service'
  | 'flush'
  | 'list'
  | 'add-server'
  | 'delete-server'
  | 'edit-server'
  | 'set'
  | 'start-daemon'
  | 'stop-daemon'
  | 'restore'
  | 'save'
  | 'zero'
  | 'drain'
  | 'undrain'
  | 'plan'
  | 'apply'
  | 'add-laddr'
  | 'del-laddr'
  | 'get-laddr';

export type OptionName =
  | 'numeric'
  | 'connection'
  | 'service-address'
  | 'scheduler'
  | 'persistent'
  | 'netmask'
  | 'real-server'
  | 'forwarding-method'
  | 'weight'
  | 'u-threshold'
  | 'l-threshold'
  | 'mcast-interface'
  | 'timeout'
  | 'daemon'
  | 'stats'
  | 'rate'
  | 'thresholds'
  | 'persistent-conn'
  | 'nosort'
  | 'syncid'
  | 'exact'
  | 'ops'
  | 'pe'
  | 'sched-flags'
  | 'mcast-group'
  | 'mcast-port'
  | 'mcast-ttl'
  | 'sync-maxlen'
  | 'tun-info'
  | 'tun-type'
  | 'tun-port'
  | 'tun-nocsum'
  | 'tun-csum'
  | 'tun-remcsum'
  | 'json'
  | 'drain'
  | 'deadline'
  | 'udp-idle'
  | 'wait'
  | 'local-address'
  | 'ifname';

export const OPTION_NAMES: readonly OptionName[] = [
  'numeric',
  'connection',
  'service-address',
  'scheduler',
  'persistent',
  'netmask',
  'real-server',
  'forwarding-method',
  'weight',
  'u-threshold',
  'l-threshold',
  'mcast-interface',
  'timeout',
  'daemon',
  'stats',
  'rate',
  'thresholds',
  'persistent-conn',
  'nosort',
  'syncid',
  'exact',
  'ops',
  'pe',
  'sched-flags',
  'mcast-group',
  'mcast-port',
  'mcast-ttl',
  'sync-maxlen',
  'tun-info',
  'tun-type',
  'tun-port',
  'tun-nocsum',
  'tun-csum',
  'tun-remcsum',
  'json',
  'drain',
  'deadline',
  'udp-idle',
  'wait',
  'local-address',
  'ifname',
];

/** Which options a command (or a tunnel type) needs, and may have; of `oneOf` at most one. All others are illegal. */
export interface Combination {
  readonly needs: readonly OptionName[];
  readonly may: readonly OptionName[];
  readonly oneOf: readonly OptionName[];
}

const NOTHING: Combination = { needs: [], may: [], oneOf: [] };
const SERVICE: Combination = {
  needs: ['service-address'],
  may: ['scheduler', 'persistent', 'netmask', 'ops', 'pe', 'sched-flags'],
  oneOf: [],
};
const SERVER: Combination = {
  needs: ['service-address', 'real-server'],
  may: [
    'forwarding-method',
    'weight',
    'u-threshold',
    'l-threshold',
    'tun-type',
    'tun-port',
    'tun-nocsum',
    'tun-csum',
    'tun-remcsum',
  ],
  oneOf: [],
};

const LOCAL: Combination = { needs: ['service-address', 'local-address'], may: ['ifname'], oneOf: [] };

export const COMBINATIONS: Readonly<Record<CommandName, Combination>> = {
  'add-service': SERVICE,
  'edit-service': SERVICE,
  'delete-service': { needs: ['service-address'], may: [], oneOf: [] },
  flush: NOTHING,
  list: {
    needs: [],
    may: ['numeric', 'stats', 'rate', 'thresholds', 'persistent-conn', 'nosort', 'syncid', 'exact', 'tun-info', 'json'],
    oneOf: ['connection', 'service-address', 'timeout', 'daemon', 'drain'],
  },
  'add-server': SERVER,
  'delete-server': { needs: ['service-address', 'real-server'], may: [], oneOf: [] },
  'edit-server': SERVER,
  set: NOTHING,
  'start-daemon': {
    needs: [],
    may: ['mcast-interface', 'syncid', 'mcast-group', 'mcast-port', 'mcast-ttl', 'sync-maxlen'],
    oneOf: [],
  },
  'stop-daemon': { needs: [], may: ['syncid'], oneOf: [] },
  restore: NOTHING,
  save: { needs: [], may: ['numeric'], oneOf: [] },
  zero: { needs: [], may: ['service-address'], oneOf: [] },
  drain: { needs: ['service-address', 'real-server'], may: ['deadline', 'udp-idle', 'wait'], oneOf: [] },
  undrain: { needs: ['service-address', 'real-server'], may: [], oneOf: [] },
  plan: { needs: [], may: ['json'], oneOf: [] },
  apply: { needs: [], may: ['json'], oneOf: [] },
  'add-laddr': LOCAL,
  'del-laddr': LOCAL,
  'get-laddr': { needs: [], may: ['service-address', 'json'], oneOf: [] },
};

/** Only the tunnel options are looked at. */
export const TUNNEL_OPTIONS: readonly OptionName[] = ['tun-port', 'tun-nocsum', 'tun-csum', 'tun-remcsum'];
export const TUNNEL_COMBINATIONS: Readonly<Record<'ipip' | 'gue' | 'gre', Combination>> = {
  ipip: NOTHING,
  gue: { needs: ['tun-port'], may: [], oneOf: ['tun-nocsum', 'tun-csum', 'tun-remcsum'] },
  gre: { needs: [], may: [], oneOf: ['tun-nocsum', 'tun-csum'] },
};

interface OptionRow extends PoptOption<Tag> {
  /** Placeholder of the value in `--help`. */
  readonly metavar?: string;
  readonly help: string;
}

/** What the parser switches over: a command's name, an option's name, or one of several spellings of an option. */
export type Tag =
  | CommandName
  | Exclude<OptionName, 'service-address' | 'forwarding-method' | 'drain' | 'local-address'>
  | 'laddr'
  | 'help'
  | 'version'
  | 'tcp-service'
  | 'udp-service'
  | 'sctp-service'
  | 'fwmark-service'
  | 'masquerading'
  | 'fullnat'
  | 'ipip'
  | 'gatewaying'
  | 'sort'
  | 'ipv6';

const COMMAND_ROWS: readonly OptionRow[] = [
  { tag: 'add-service', long: 'add-service', short: 'A', help: 'add a virtual service' },
  { tag: 'edit-service', long: 'edit-service', short: 'E', help: 'change a virtual service' },
  { tag: 'delete-service', long: 'delete-service', short: 'D', help: 'delete a virtual service' },
  { tag: 'flush', long: 'clear', short: 'C', help: 'delete all virtual services' },
  { tag: 'restore', long: 'restore', short: 'R', help: 'read commands from standard input, one per line' },
  { tag: 'save', long: 'save', short: 'S', help: 'print the table as commands that --restore reads' },
  { tag: 'add-server', long: 'add-server', short: 'a', help: 'add a real server to a service' },
  { tag: 'edit-server', long: 'edit-server', short: 'e', help: 'change a real server' },
  { tag: 'delete-server', long: 'delete-server', short: 'd', help: 'delete a real server' },
  { tag: 'list', long: 'list', short: 'L', help: 'list services, or what the options say (also -l)' },
  { tag: 'list', long: 'list', short: 'l', help: '' },
  { tag: 'zero', long: 'zero', short: 'Z', help: 'zero the counters of a service, or of all' },
  { tag: 'set', long: 'set', metavar: 'TCP TCPFIN UDP', help: 'set the timeouts in seconds; 0 keeps one' },
  {
    tag: 'start-daemon',
    long: 'start-daemon',
    value: 'required',
    metavar: 'master|backup',
    help: 'start connection synchronisation',
  },
  {
    tag: 'stop-daemon',
    long: 'stop-daemon',
    value: 'required',
    metavar: 'master|backup',
    help: 'stop connection synchronisation',
  },
  { tag: 'drain', long: 'drain', help: 'take a real server out of service (with -L: how far that is)' },
  { tag: 'undrain', long: 'undrain', help: 'put it back' },
  {
    tag: 'plan',
    long: 'plan',
    value: 'required',
    metavar: 'FILE',
    help: 'print what --apply FILE would change; status 2 when that is anything',
  },
  {
    tag: 'apply',
    long: 'apply',
    value: 'required',
    metavar: 'FILE',
    help: 'make the table what the file says (- is stdin), all or nothing',
  },
  { tag: 'help', long: 'help', short: 'h', help: 'this text' },
  { tag: 'version', long: 'version', short: 'v', help: 'version' },
];

/** DPVS's. */
const LOCAL_COMMAND_ROWS: readonly OptionRow[] = [
  { tag: 'add-laddr', long: 'add-laddr', short: 'P', help: 'add a local address to a service: full NAT comes from it' },
  { tag: 'del-laddr', long: 'del-laddr', short: 'Q', help: 'take one away; its connections go on' },
  { tag: 'get-laddr', long: 'get-laddr', short: 'G', help: 'list the local addresses of a service, or of all' },
];

const SERVICE_ROWS: readonly OptionRow[] = [
  { tag: 'tcp-service', long: 'tcp-service', short: 't', value: 'required', metavar: 'HOST[:PORT]', help: 'TCP' },
  { tag: 'udp-service', long: 'udp-service', short: 'u', value: 'required', metavar: 'HOST[:PORT]', help: 'UDP' },
  { tag: 'sctp-service', long: 'sctp-service', value: 'required', metavar: 'HOST[:PORT]', help: 'SCTP' },
  {
    tag: 'fwmark-service',
    long: 'fwmark-service',
    short: 'f',
    value: 'required',
    metavar: 'MARK',
    help: 'packets with this firewall mark',
  },
  { tag: 'ipv6', long: 'ipv6', short: '6', help: 'after -f: of IPv6 packets' },
];

/** Its short name is that of --sched-flags for all other commands. */
const FULL_NAT: OptionRow = {
  tag: 'fullnat',
  long: 'fullnat',
  help: 'full NAT, from a local address (with -a and -e also -b)',
};

const OPTION_ROWS: readonly OptionRow[] = [
  {
    tag: 'scheduler',
    long: 'scheduler',
    short: 's',
    value: 'required',
    metavar: 'NAME',
    help: 'rr wrr lc wlc lblc lblcr dh sh sed nq fo ovf mh twos (wlc)',
  },
  {
    tag: 'sched-flags',
    long: 'sched-flags',
    short: 'b',
    value: 'required',
    metavar: 'FLAG,…',
    help: 'sh-fallback sh-port mh-fallback mh-port flag-1 flag-2 flag-3',
  },
  {
    tag: 'persistent',
    long: 'persistent',
    short: 'p',
    value: 'optional',
    metavar: '[SECONDS]',
    help: 'a client stays with its server (360)',
  },
  {
    tag: 'netmask',
    long: 'netmask',
    short: 'M',
    value: 'required',
    metavar: 'MASK',
    help: 'clients alike under the mask stay together',
  },
  { tag: 'pe', long: 'pe', value: 'required', metavar: 'ENGINE', help: 'persistence engine: sip' },
  { tag: 'ops', long: 'ops', short: 'o', help: 'schedule each UDP packet by itself' },
  {
    tag: 'real-server',
    long: 'real-server',
    short: 'r',
    value: 'required',
    metavar: 'HOST[:PORT]',
    help: "the server; the port is the service's when left out",
  },
  { tag: 'gatewaying', long: 'gatewaying', short: 'g', help: 'direct routing (the default)' },
  { tag: 'ipip', long: 'ipip', short: 'i', help: 'tunnel to the server' },
  { tag: 'masquerading', long: 'masquerading', short: 'm', help: 'NAT' },
  FULL_NAT,
  { tag: 'tun-type', long: 'tun-type', value: 'required', metavar: 'TYPE', help: 'with -i: ipip gue gre (ipip)' },
  { tag: 'tun-port', long: 'tun-port', value: 'required', metavar: 'PORT', help: 'UDP port of gue' },
  { tag: 'tun-nocsum', long: 'tun-nocsum', help: 'gue, gre: outer checksum off' },
  { tag: 'tun-csum', long: 'tun-csum', help: 'gue, gre: outer checksum on' },
  { tag: 'tun-remcsum', long: 'tun-remcsum', help: 'gue: remote checksum offload' },
  { tag: 'weight', long: 'weight', short: 'w', value: 'required', metavar: 'N', help: '0 takes no new clients (1)' },
  {
    tag: 'u-threshold',
    long: 'u-threshold',
    short: 'x',
    value: 'required',
    metavar: 'N',
    help: 'no new connections above N; 0 is no limit',
  },
  {
    tag: 'l-threshold',
    long: 'l-threshold',
    short: 'y',
    value: 'required',
    metavar: 'N',
    help: 'new connections again below N',
  },
];

const LIST_ROWS: readonly OptionRow[] = [
  { tag: 'numeric', long: 'numeric', short: 'n', help: 'numbers instead of names (also with -S)' },
  { tag: 'connection', long: 'connection', short: 'c', help: 'the connections' },
  { tag: 'timeout', long: 'timeout', help: 'the timeouts' },
  { tag: 'daemon', long: 'daemon', help: 'the synchronisation daemons' },
  { tag: 'stats', long: 'stats', help: 'with counters' },
  { tag: 'rate', long: 'rate', help: 'with rates per second' },
  { tag: 'exact', long: 'exact', short: 'X', help: 'counters and rates in full' },
  { tag: 'thresholds', long: 'thresholds', help: 'with thresholds' },
  { tag: 'persistent-conn', long: 'persistent-conn', help: 'with persistent connections' },
  { tag: 'tun-info', long: 'tun-info', help: 'with tunnels' },
  { tag: 'nosort', long: 'nosort', help: 'in the order of the table, newest server first' },
  { tag: 'sort', long: 'sort', help: 'the default' },
  { tag: 'json', long: 'json', help: 'as JSON (only here, not in other ipvsadms)' },
];

const DRAIN_ROWS: readonly OptionRow[] = [
  {
    tag: 'deadline',
    long: 'deadline',
    value: 'required',
    metavar: 'SECONDS',
    help: 'then reset what is left, on both sides (none)',
  },
  {
    tag: 'udp-idle',
    long: 'udp-idle',
    value: 'required',
    metavar: 'SECONDS',
    help: 'a UDP connection ends when it was idle for so long (none)',
  },
  { tag: 'wait', long: 'wait', help: 'return when no connection is left' },
];

const DAEMON_ROWS: readonly OptionRow[] = [
  { tag: 'syncid', long: 'syncid', value: 'required', metavar: 'N', help: '0…255' },
  { tag: 'sync-maxlen', long: 'sync-maxlen', value: 'required', metavar: 'BYTES', help: 'longest message' },
  { tag: 'mcast-interface', long: 'mcast-interface', value: 'required', metavar: 'DEVICE', help: 'device (eth0)' },
  { tag: 'mcast-group', long: 'mcast-group', value: 'required', metavar: 'ADDRESS', help: 'group (224.0.0.81)' },
  { tag: 'mcast-port', long: 'mcast-port', value: 'required', metavar: 'PORT', help: 'port (8848)' },
  { tag: 'mcast-ttl', long: 'mcast-ttl', value: 'required', metavar: 'N', help: 'TTL (1)' },
];

const LOCAL_ROWS: readonly OptionRow[] = [
  {
    tag: 'laddr',
    long: 'laddr',
    short: 'z',
    value: 'required',
    metavar: 'HOST[:PORT-PORT]',
    help: 'one of our addresses; the ports that it may use (1025-65535)',
  },
  { tag: 'ifname', long: 'ifname', short: 'F', value: 'required', metavar: 'DEVICE', help: 'the device that has it' },
];

const CLASSIC_ROWS: readonly OptionRow[] = [
  ...COMMAND_ROWS,
  ...SERVICE_ROWS,
  ...OPTION_ROWS,
  ...LIST_ROWS,
  ...DAEMON_ROWS,
  ...DRAIN_ROWS,
];

/** The options of the classic tool, and ours. */
export const OPTIONS = poptTable<Tag>(CLASSIC_ROWS);
/** The first word: a command. */
export const FIRST_OPTIONS = poptTable<Tag>([...LOCAL_COMMAND_ROWS, ...CLASSIC_ROWS]);
/** Those of -a and -e as DPVS has them: -b is full NAT. */
export const SERVER_OPTIONS = poptTable<Tag>([...CLASSIC_ROWS, { ...FULL_NAT, short: 'b' }]);
/** Those of -P, -Q and -G: the classic tool does not know them. */
export const LOCAL_OPTIONS = poptTable<Tag>([...CLASSIC_ROWS, ...LOCAL_ROWS]);

const SYNOPSIS = [
  '-A|-E SERVICE [-s NAME] [-p [SECONDS]] [-M MASK] [--pe ENGINE] [-b FLAG,…] [-o]',
  '-D SERVICE',
  '-C | -R | -S [-n]',
  '-a|-e SERVICE -r HOST[:PORT] [-g|-i|-m|-b] [-w N] [-x N] [-y N] [tunnel options]',
  '-d SERVICE -r HOST[:PORT]',
  '-P|-Q SERVICE -z HOST[:PORT-PORT] [-F DEVICE]',
  '-G [SERVICE] [--json]',
  '-L [SERVICE] [list options]',
  '-Z [SERVICE]',
  '--set TCP TCPFIN UDP',
  '--drain SERVICE -r HOST[:PORT] [--deadline SECONDS|none] [--udp-idle SECONDS|none] [--wait]',
  '--undrain SERVICE -r HOST[:PORT]',
  '--plan|--apply FILE [--json]',
  '--start-daemon|--stop-daemon master|backup [daemon options]',
  '-h | -v',
];

export function helpText(program: string): string {
  const usage = SYNOPSIS.map((line, i) => `${i === 0 ? 'Usage:' : '      '} ${program} ${line}\n`).join('');
  return (
    usage +
    section('Commands (the first option):', [...COMMAND_ROWS, ...LOCAL_COMMAND_ROWS]) +
    section('SERVICE is one of:', SERVICE_ROWS) +
    section('Options of services and servers:', OPTION_ROWS) +
    section('Options of local addresses:', LOCAL_ROWS) +
    section('Options of lists:', LIST_ROWS) +
    section('Options of the daemons:', DAEMON_ROWS) +
    section('Options of --drain:', DRAIN_ROWS)
  );
}

function section(title: string, rows: readonly OptionRow[]): string {
  const lines = rows
    .filter((row) => row.help !== '')
    .map((row) => {
      const short = row.short === undefined ? '    ' : `-${row.short}, `;
      const left = `  ${short}--${row.long}${row.metavar === undefined ? '' : ` ${row.metavar}`}`;
      return `${left.padEnd(42)} ${row.help}\n`;
    });
  return `\n${title}\n${lines.join('')}`;
}
