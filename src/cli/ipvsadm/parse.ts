/**
 * Arguments of ipvsadm → what is to be done, or the complaint that the classic tool makes (Refused).
 * The checks come in the tool's order, because that decides which complaint is printed: each option's value as it is read, then left-over
 * arguments, scheduler flags, illegal combinations, and last what a command demands of its values.
 */
import type {
  DaemonSpec,
  ForwardMethod,
  IpvsCommand,
  IpvsProtocol,
  LocalAddressSpec,
  ServerKey,
  ServiceKey,
  ServiceSpec,
  TunnelType,
} from '../../model/ipvs.ts';
import { PoptReader, type PoptTable } from '../popt.ts';
import { parseHostPort, parseIp4, parseNumber } from './address.ts';
import { checkCombination } from './combination.ts';
import type { NameSource } from './names.ts';
import {
  COMBINATIONS,
  type CommandName,
  FIRST_OPTIONS,
  LOCAL_OPTIONS,
  OPTION_NAMES,
  OPTIONS,
  type OptionName,
  SERVER_OPTIONS,
  type Tag,
  TUNNEL_COMBINATIONS,
  TUNNEL_OPTIONS,
} from './options.ts';
import { Refused, tryHelp } from './refused.ts';
import { checkGroup, checkRole, parseFlags, parseTimeout, prefixLength, refuse } from './values.ts';

/** How a list is printed. Of stats, rate, thresholds, persistentConn and tunInfo the first that is set decides. */
export interface ListForm {
  readonly numeric: boolean;
  readonly stats: boolean;
  readonly rate: boolean;
  readonly thresholds: boolean;
  readonly persistentConn: boolean;
  readonly tunInfo: boolean;
  readonly exact: boolean;
  readonly sort: boolean;
  readonly json: boolean;
}

export type DrainCommand = Extract<IpvsCommand, { readonly op: 'drain' | 'undrain' }>;

export type Parsed =
  | { readonly kind: 'change'; readonly name: CommandName; readonly command: IpvsCommand }
  | { readonly kind: 'list-services'; readonly service: ServiceKey | undefined; readonly form: ListForm }
  | { readonly kind: 'list-connections' | 'list-timeouts' | 'list-daemons' | 'list-drains'; readonly form: ListForm }
  | {
      readonly kind: 'drain';
      readonly name: 'drain' | 'undrain';
      readonly command: DrainCommand;
      readonly wait: boolean;
    }
  | { readonly kind: 'plan' | 'apply'; readonly file: string; readonly json: boolean }
  | { readonly kind: 'list-local-addresses'; readonly service: ServiceKey | undefined; readonly json: boolean }
  | { readonly kind: 'save'; readonly numeric: boolean }
  | { readonly kind: 'restore' | 'help' | 'version' };

const DEFAULT_PERSISTENCE = 360;
/** Where daemons speak when no name is said. */
const DEFAULT_DEVICE = 'eth0';
const INT_MAX = 2_147_483_647;

const COMMANDS: ReadonlySet<string> = new Set(Object.keys(COMBINATIONS));
const NO_MASK = '255.255.255.255';

/** What the options add up to, in the order in which they come: some look at what an earlier one set. */
interface Entry {
  readonly given: Set<OptionName>;
  protocol: IpvsProtocol | '';
  family: 0 | 4 | 6;
  address: string;
  port: number;
  fwmark: number;
  scheduler: string;
  flags: string;
  persistence: number | undefined;
  netmask: string | undefined;
  pe: string;
  server: { key: ServerKey; family: 4 | 6 } | undefined;
  method: ForwardMethod;
  weight: number;
  upper: number;
  lower: number;
  tunType: TunnelType;
  tunPort: number;
  deadline: number | undefined;
  udpIdle: number | undefined;
  daemon: Omit<DaemonSpec, 'role'>;
  local: LocalAddressSpec;
}

/** Parse one command line (without the program's name). Throws Refused, and LookupNeeded for a host name that is not known yet. */
export function parse(words: readonly string[], program: string, names: NameSource): Parsed {
  try {
    return parseWith(SERVER_OPTIONS, words, program, names);
  } catch (error) {
    // Where -b cannot be DPVS's, the classic tool has the word.
    if (error instanceof Refused) return parseWith(OPTIONS, words, program, names);
    throw error;
  }
}

/** @param ofServers the options of -a and -e */
function parseWith(ofServers: PoptTable<Tag>, words: readonly string[], program: string, names: NameSource): Parsed {
  const reader = new PoptReader<Tag>(FIRST_OPTIONS, words);
  const first = reader.next();
  if (first === 'help' || first === 'version') return { kind: first };
  if (first === undefined || !COMMANDS.has(first)) throw tryHelp(program);
  const name = first as CommandName;
  const file = reader.value ?? '';
  const role = name === 'start-daemon' || name === 'stop-daemon' ? checkRole(name, reader.value!) : 'master';

  if (name === 'add-server' || name === 'edit-server') reader.use(ofServers);
  else reader.use(name === 'add-laddr' || name === 'del-laddr' || name === 'get-laddr' ? LOCAL_OPTIONS : OPTIONS);
  const entry = emptyEntry();
  for (let tag = reader.next(); tag !== undefined; tag = reader.next()) readOption(entry, tag, reader, names);
  if (reader.fault !== undefined) throw new Refused(`${reader.word}: ${reader.fault}`, 255, false);

  const timeouts = name === 'set' ? reader.arguments.slice(0, 3) : [];
  if (name === 'set' && timeouts.length < 3) throw new Refused('--set option requires 3 timeout values');
  const [tcp = 0, tcpFin = 0, udp = 0] = timeouts.map((text) => parseTimeout(text, 0));
  const extra = reader.arguments[timeouts.length];
  if (extra !== undefined) throw new Refused(`unexpected argument ${extra}`);
  const schedulerFlags = parseFlags(entry.flags, entry.scheduler || 'wlc');
  checkCombination(COMBINATIONS[name], OPTION_NAMES, entry.given, `'${name}' command`);

  switch (name) {
    case 'add-service':
    case 'edit-service':
      return { kind: 'change', name, command: { op: name, service: serviceSpec(entry, schedulerFlags) } };
    case 'delete-service':
      return { kind: 'change', name, command: { op: name, service: serviceKey(entry) } };
    case 'flush':
      return { kind: 'change', name, command: { op: 'clear' } };
    case 'zero': {
      const service = entry.given.has('service-address') ? serviceKey(entry) : undefined;
      return { kind: 'change', name, command: { op: 'zero', service } };
    }
    case 'add-server':
    case 'edit-server':
      return { kind: 'change', name, command: serverCommand(name, entry) };
    case 'delete-server':
      return { kind: 'change', name, command: { op: name, service: serviceKey(entry), server: entry.server!.key } };
    case 'set':
      return { kind: 'change', name, command: { op: 'set-timeouts', tcp, tcpFin, udp } };
    case 'start-daemon':
      return { kind: 'change', name, command: { op: name, daemon: { ...entry.daemon, role } } };
    case 'stop-daemon':
      return { kind: 'change', name, command: { op: name, role } };
    case 'list':
      return list(entry);
    case 'save':
      return { kind: 'save', numeric: entry.given.has('numeric') };
    case 'restore':
      return { kind: 'restore' };
    case 'drain':
    case 'undrain':
      return { kind: 'drain', name, command: drainCommand(name, entry), wait: entry.given.has('wait') };
    case 'plan':
    case 'apply':
      return { kind: name, file, json: entry.given.has('json') };
    case 'add-laddr':
      return {
        kind: 'change',
        name,
        command: { op: 'add-local-address', service: serviceKey(entry), local: entry.local },
      };
    case 'del-laddr': {
      const { ports, ...local } = entry.local;
      if (ports !== undefined) throw new Refused('illegal local address');
      return { kind: 'change', name, command: { op: 'delete-local-address', service: serviceKey(entry), local } };
    }
    case 'get-laddr': {
      const service = entry.given.has('service-address') ? serviceKey(entry) : undefined;
      return { kind: 'list-local-addresses', service, json: entry.given.has('json') };
    }
  }
}

function emptyEntry(): Entry {
  return {
    given: new Set(),
    protocol: '',
    family: 0,
    address: '0.0.0.0',
    port: 0,
    fwmark: 0,
    scheduler: '',
    flags: '',
    persistence: undefined,
    netmask: undefined,
    pe: '',
    server: undefined,
    method: 'route',
    weight: 1,
    upper: 0,
    lower: 0,
    tunType: 'ipip',
    tunPort: 0,
    deadline: undefined,
    udpIdle: undefined,
    daemon: { device: DEFAULT_DEVICE, syncId: 0 },
    local: { address: '0.0.0.0' },
  };
}

function readOption(e: Entry, tag: Tag, reader: PoptReader<Tag>, names: NameSource): void {
  const text = reader.value ?? '';
  switch (tag) {
    case 'tcp-service':
    case 'udp-service':
    case 'sctp-service': {
      give(e, 'service-address');
      e.protocol = tag === 'tcp-service' ? 'tcp' : tag === 'udp-service' ? 'udp' : 'sctp';
      const at = parseHostPort(text, e.protocol, names);
      if (at === undefined) throw new Refused('illegal virtual server address[:port] specified');
      e.address = at.address;
      e.family = at.family;
      e.port = at.port ?? 0;
      if (at.family === 6) e.netmask = undefined;
      return;
    }
    case 'fwmark-service':
      give(e, 'service-address');
      e.family = 4;
      e.protocol = 'tcp';
      e.fwmark = parseNumber(text, 1, 4_294_967_295) ?? refuse(`invalid fwmark value \`${text}' specified`);
      return;
    case 'ipv6':
      if (e.fwmark === 0) throw new Refused('-6 used before -f\n');
      e.family = 6;
      e.netmask = undefined;
      return;
    case 'real-server': {
      give(e, tag);
      const at = parseHostPort(text, e.protocol, names);
      if (at === undefined) throw new Refused('illegal real server address[:port] specified');
      e.server = { key: { address: at.address, port: at.port ?? e.port }, family: at.family };
      return;
    }
    case 'scheduler':
      give(e, tag);
      e.scheduler = text.slice(0, 15);
      return;
    case 'sched-flags':
      give(e, tag);
      e.flags = text.slice(0, 127);
      return;
    case 'persistent':
      give(e, tag);
      e.persistence = reader.value === undefined ? DEFAULT_PERSISTENCE : parseTimeout(text, 1);
      return;
    case 'netmask':
      give(e, tag);
      e.netmask = e.family === 6 ? prefixLength(text) : (parseIp4(text) ?? names.hostAddress(text));
      if (e.netmask === undefined) throw new Refused('illegal virtual server persistent mask specified');
      return;
    case 'pe':
      give(e, tag);
      e.pe = text.slice(0, 16);
      return;
    case 'masquerading':
    case 'ipip':
    case 'gatewaying':
    case 'fullnat':
      give(e, 'forwarding-method');
      e.method = METHODS[tag];
      return;
    case 'laddr':
      give(e, 'local-address');
      e.local = { ...e.local, ...localAddress(text, names) };
      return;
    case 'ifname':
      give(e, tag);
      e.local = { ...e.local, device: text };
      return;
    case 'weight':
      give(e, tag);
      e.weight = parseNumber(text, 0, INT_MAX) ?? refuse('illegal weight specified');
      return;
    case 'u-threshold':
      give(e, tag);
      e.upper = parseNumber(text, 0, INT_MAX) ?? refuse('illegal u_threshold specified');
      return;
    case 'l-threshold':
      give(e, tag);
      e.lower = parseNumber(text, 0, INT_MAX) ?? refuse('illegal l_threshold specified');
      return;
    case 'tun-type':
      give(e, tag);
      if (text !== 'ipip' && text !== 'gue' && text !== 'gre') throw new Refused('illegal tunnel type specified');
      e.tunType = text;
      return;
    case 'tun-port':
      give(e, tag);
      e.tunPort = parseNumber(text, 1, 65535) ?? refuse('illegal tunnel port specified');
      return;
    case 'syncid':
      give(e, tag);
      e.daemon = { ...e.daemon, syncId: parseNumber(text, 0, 255) ?? refuse('illegal syncid specified') };
      return;
    case 'mcast-interface':
      give(e, tag);
      e.daemon = { ...e.daemon, device: text.slice(0, 15) || DEFAULT_DEVICE };
      return;
    case 'mcast-group':
      give(e, tag);
      checkGroup(text);
      e.daemon = { ...e.daemon, group: text };
      return;
    case 'mcast-port':
      give(e, tag);
      e.daemon = { ...e.daemon, port: parseNumber(text, 1, 65535) ?? refuse('illegal mcast-port specified') };
      return;
    case 'mcast-ttl':
      give(e, tag);
      e.daemon = { ...e.daemon, ttl: parseNumber(text, 1, 255) ?? refuse('illegal mcast-ttl specified') };
      return;
    case 'sync-maxlen':
      give(e, tag);
      e.daemon = { ...e.daemon, maxLength: parseNumber(text, 1, 65507) ?? refuse('illegal sync-maxlen specified') };
      return;
    case 'deadline':
      give(e, tag);
      e.deadline = text === 'none' ? undefined : parseTimeout(text, 0);
      return;
    case 'udp-idle':
      give(e, tag);
      e.udpIdle = text === 'none' ? undefined : parseTimeout(text, 1);
      return;
    case 'numeric':
    case 'connection':
    case 'timeout':
    case 'daemon':
    case 'stats':
    case 'rate':
    case 'exact':
    case 'thresholds':
    case 'persistent-conn':
    case 'nosort':
    case 'tun-info':
    case 'tun-nocsum':
    case 'tun-csum':
    case 'tun-remcsum':
    case 'ops':
    case 'json':
    case 'wait':
    case 'drain':
      give(e, tag);
      return;
    case 'sort':
      return;
    default:
      throw new Refused(`invalid option \`${reader.word}'`);
  }
}

const METHODS = { masquerading: 'masq', ipip: 'tunnel', gatewaying: 'route', fullnat: 'fullnat' } as const;

/** `HOST[:PORT-PORT]`; DPVS's own takes no ports. */
function localAddress(text: string, names: NameSource): Pick<LocalAddressSpec, 'address' | 'ports'> {
  const [, host = '', low, high] = /^([^:]*)(?::(\d+)-(\d+))?$/.exec(text) ?? [];
  const at = parseHostPort(host, 'tcp', names);
  if (at === undefined || at.family !== 4) throw new Refused('illegal local address');
  if (low === undefined || high === undefined) return { address: at.address };
  const [from, to] = [parseNumber(low, 1, 65535), parseNumber(high, 1, 65535)];
  if (from === undefined || to === undefined || from > to) throw new Refused('illegal local address');
  return { address: at.address, ports: { from, to } };
}

function give(e: Entry, option: OptionName): void {
  if (e.given.has(option)) throw new Refused(`multiple '${option}' options specified`);
  e.given.add(option);
}

function serviceKey(e: Entry): ServiceKey {
  if (e.fwmark !== 0) return { kind: 'fwmark', fwmark: e.fwmark, family: e.family === 6 ? 6 : 4 };
  return { kind: 'address', protocol: e.protocol || 'tcp', address: e.address, port: e.port };
}

function serviceSpec(e: Entry, schedulerFlags: number): ServiceSpec {
  if (e.fwmark === 0 && e.port === 0 && e.persistence === undefined) {
    throw new Refused('Zero port specified for non-persistent service');
  }
  const ops = e.given.has('ops');
  if (ops && e.fwmark === 0 && e.protocol !== 'udp') {
    throw new Refused('One-Packet Scheduling is only for UDP virtual services');
  }
  return {
    key: serviceKey(e),
    scheduler: e.scheduler || 'wlc',
    schedulerFlags,
    persistenceTimeout: e.persistence,
    netmask: e.netmask === NO_MASK || e.netmask === '128' ? undefined : e.netmask,
    pe: e.pe === '' ? undefined : e.pe,
    ops,
  };
}

/** Direct routing and tunnels cannot change the port: the service's is stored, except with a firewall mark, where none is known. */
function serverCommand(op: 'add-server' | 'edit-server', e: Entry): IpvsCommand {
  const { key, family } = e.server!;
  const isTunnel = e.method === 'tunnel';
  const isTranslated = e.method === 'masq' || e.method === 'fullnat';
  const port = e.fwmark === 0 && !isTranslated ? e.port : key.port;
  if (family !== e.family && !isTunnel) {
    throw new Refused('Different address family is allowed only for tunneling servers');
  }
  if (!isTunnel && (e.given.has('tun-type') || TUNNEL_OPTIONS.some((option) => e.given.has(option)))) {
    throw new Refused('Tunnel options conflict with forward method');
  }
  checkCombination(TUNNEL_COMBINATIONS[e.tunType], TUNNEL_OPTIONS, e.given, `'${e.tunType}' tunnel type`);
  const checksum = e.given.has('tun-remcsum') ? 'remcsum' : e.given.has('tun-csum') ? 'csum' : 'none';
  return {
    op,
    service: serviceKey(e),
    server: {
      key: { address: key.address, port },
      method: e.method,
      weight: e.weight,
      upperThreshold: e.upper,
      lowerThreshold: e.lower,
      tunnel: e.tunType === 'ipip' ? undefined : { type: e.tunType, port: e.tunPort, checksum },
    },
  };
}

function drainCommand(op: 'drain' | 'undrain', e: Entry): DrainCommand {
  const key = { service: serviceKey(e), server: e.server!.key };
  return op === 'undrain' ? { op, ...key } : { op, ...key, deadline: e.deadline, udpIdle: e.udpIdle };
}

function list(e: Entry): Parsed {
  const has = (option: OptionName) => e.given.has(option);
  const isTable = !has('connection') && !has('timeout') && !has('daemon') && !has('drain');
  if (
    (!isTable && (has('stats') || has('rate') || has('thresholds'))) ||
    ((has('timeout') || has('daemon') || has('drain')) && has('persistent-conn'))
  ) {
    throw new Refused('options conflicts in the list command');
  }
  const form: ListForm = {
    numeric: has('numeric'),
    stats: has('stats'),
    rate: has('rate'),
    thresholds: has('thresholds'),
    persistentConn: has('persistent-conn'),
    tunInfo: has('tun-info'),
    exact: has('exact'),
    sort: !has('nosort'),
    json: has('json'),
  };
  if (has('connection')) return { kind: 'list-connections', form };
  if (has('timeout')) return { kind: 'list-timeouts', form };
  if (has('drain')) return { kind: 'list-drains', form };
  if (has('daemon')) return { kind: 'list-daemons', form };
  return { kind: 'list-services', service: has('service-address') ? serviceKey(e) : undefined, form };
}
