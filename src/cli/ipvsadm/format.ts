/**
 * The lists of ipvsadm, byte for byte: widths, cuts and trailing blanks are those of the classic tool (ipvsadm.c, print_title, print_service_entry,
 * print_conn and print_largenum). Pure functions from rows to text.
 */
import type {
  ConnectionRow,
  DaemonRow,
  IpvsInfo,
  IpvsStats,
  LocalAddressSpec,
  ServerKey,
  ServerRow,
  ServiceRow,
} from '../../model/ipvs.ts';
import { parseIp4 } from './address.ts';
import type { Names } from './names.ts';
import type { ListForm } from './parse.ts';

/** How addresses and ports are written: `numeric` asks nobody. */
export type Naming = Pick<Names, 'hostName' | 'serviceName'> | 'numeric';

/** An address and port are never longer than this. */
const NAME_MAX = 59;
const SERVICE_MAX = 33;
const SERVER_MAX = 28;

export function formatHeadline(info: IpvsInfo): string {
  return `IP Virtual Server version ${info.version} (size=${info.size})\n`;
}

export function formatTitle(form: ListForm): string {
  const servers = '  -> RemoteAddress:Port';
  const local = 'Prot LocalAddress:Port';
  const wide = local.padEnd(SERVICE_MAX);
  if (form.stats) return `${wide}    Conns   InPkts  OutPkts  InBytes OutBytes\n${servers}\n`;
  if (form.rate) return `${wide}      CPS    InPPS   OutPPS    InBPS   OutBPS\n${servers}\n`;
  if (form.thresholds) return `${wide} Uthreshold Lthreshold ActiveConn InActConn \n${servers}\n`;
  if (form.persistentConn) return `${wide} Weight    PersistConn ActiveConn InActConn \n${servers}\n`;
  const tunnel = form.tunInfo ? 'TunnelInfo    ' : '';
  return `${local} Scheduler Flags\n${servers}           Forward ${tunnel}Weight ActiveConn InActConn\n`;
}

/** A service and its servers, one line each. */
export function formatService(row: ServiceRow, form: ListForm, naming: Naming): string {
  const name = serviceLabel(row, naming);
  let text: string;
  if (form.stats) text = name.padEnd(SERVICE_MAX) + counters(row.stats, form.exact);
  else if (form.rate) text = name.padEnd(SERVICE_MAX) + rates(row.stats, form.exact);
  else text = `${name} ${row.scheduler}${serviceFlags(row)}`;
  text += '\n';
  const protocol = row.key.kind === 'address' ? row.key.protocol : '';
  for (const server of form.sort ? sortServers(row.servers) : row.servers) {
    text += serverLine(server, protocol, form, naming);
  }
  return text;
}

/** Marks of the upper half are negative here, as %d prints them; -S writes them so that -R reads them. */
function serviceLabel(row: ServiceRow, naming: Naming): string {
  const { key } = row;
  if (key.kind === 'fwmark') return `FWM  ${key.fwmark | 0}${key.family === 6 ? ' IPv6' : ''}`;
  const label = `${key.protocol.toUpperCase().padEnd(4)} ${hostPort(key, key.protocol, naming)}`;
  return isIp6(key.address) ? label : label.slice(0, SERVICE_MAX);
}

/** `(flags)`, persistence, mask, engine, ops. */
function serviceFlags(row: ServiceRow): string {
  let text = row.schedulerFlags === 0 ? '' : ` (${schedulerFlagNames(row)})`;
  if (row.persistenceTimeout !== undefined) {
    text += ` persistent ${row.persistenceTimeout}`;
    const mask = effectiveMask(row);
    if (mask !== undefined) text += ` mask ${mask}`;
    if (row.pe !== undefined && row.pe !== '') text += ` pe ${row.pe}`;
  }
  return row.ops ? `${text} ops` : text;
}

/** The mask, unless it is the one that changes nothing. */
export function effectiveMask(row: ServiceRow): string | undefined {
  return row.netmask === '255.255.255.255' || row.netmask === '128' ? undefined : row.netmask;
}

/** sh and mh have names for the first two flags and none for the third, which then does not show. */
export function schedulerFlagNames(row: ServiceRow): string {
  const { scheduler } = row;
  const names =
    scheduler === 'sh' || scheduler === 'mh'
      ? [`${scheduler}-fallback`, `${scheduler}-port`]
      : ['flag-1', 'flag-2', 'flag-3'];
  return names.filter((_, i) => (row.schedulerFlags & (1 << i)) !== 0).join(',');
}

function serverLine(row: ServerRow, protocol: string, form: ListForm, naming: Naming): string {
  const full = hostPort(row.key, protocol, naming);
  const name = (isIp6(row.key.address) ? full : full.slice(0, SERVER_MAX)).padEnd(SERVER_MAX);
  const conns = `${left(row.activeConns, 10)} ${left(row.inactiveConns, 10)}`;
  if (form.stats) return `  -> ${name}${counters(row.stats, form.exact)}\n`;
  if (form.rate) {
    const { cps, inPps, outPps, inBps, outBps } = row.stats;
    const plain = `${right(cps, 8)} ${right(inPps, 8)} ${right(outPps, 8)}`;
    return `  -> ${name} ${plain}${large(inBps, form.exact)}${large(outBps, form.exact)}\n`;
  }
  if (form.thresholds) return `  -> ${name} ${left(row.upperThreshold, 10)} ${left(row.lowerThreshold, 10)} ${conns}\n`;
  if (form.persistentConn) return `  -> ${name} ${left(row.weight, 9)} ${left(row.persistentConns, 11)} ${conns}\n`;
  const tunnel = form.tunInfo ? `${tunnelInfo(row).padEnd(13)} ` : '';
  return `  -> ${name} ${FORWARD[row.method].padEnd(7)} ${tunnel}${left(row.weight, 6)} ${conns}\n`;
}

const FORWARD = {
  masq: 'Masq',
  local: 'Local',
  tunnel: 'Tunnel',
  route: 'Route',
  bypass: '(null)',
  fullnat: 'FullNat',
} as const;
const CHECKSUM = { none: '-c', csum: '+c', remcsum: 'r+c' } as const;

function tunnelInfo(row: ServerRow): string {
  if (row.method !== 'tunnel') return 'n/a';
  const { tunnel } = row;
  if (tunnel === undefined || tunnel.type === 'ipip') return 'ipip';
  const checksum = CHECKSUM[tunnel.checksum];
  return tunnel.type === 'gre' ? `gre:${checksum}` : `gue:${tunnel.port}:${checksum}`;
}

function counters(s: IpvsStats, exact: boolean): string {
  return [s.conns, s.inPkts, s.outPkts, s.inBytes, s.outBytes].map((value) => large(value, exact)).join('');
}

function rates(s: IpvsStats, exact: boolean): string {
  return [s.cps, s.inPps, s.outPps, s.inBps, s.outBps].map((value) => large(value, exact)).join('');
}

/** Nine columns; what would not fit is cut to thousands, millions, … (decimal, towards zero). */
function large(value: number, exact: boolean): string {
  if (exact) {
    const digits = String(value);
    return digits.padStart(Math.max(9, digits.length + 1));
  }
  if (value < 1e8) return right(value, 9);
  if (value < 1e9) return `${right(Math.trunc(value / 1e3), 8)}K`;
  if (value < 1e11) return `${right(Math.trunc(value / 1e6), 8)}M`;
  if (value < 1e14) return `${right(Math.trunc(value / 1e9), 8)}G`;
  return `${right(Math.trunc(value / 1e12), 8)}T`;
}

export function formatConnectionTitle(form: ListForm): string {
  const title = 'IPVS connection entries\npro expire state       source             virtual            destination';
  return form.persistentConn ? `${title}        pe name          pe_data\n` : `${title}\n`;
}

export function formatConnection(row: ConnectionRow, form: ListForm, naming: Naming): string {
  const protocol = row.protocol === 'ip' ? '' : row.protocol;
  const minutes = Math.trunc(row.expiresSeconds / 60);
  const expires = `${two(minutes)}:${two(row.expiresSeconds % 60)}`;
  const client = hostPort(row.client, protocol, naming).padEnd(18);
  const virtual = hostPort(row.virtual, protocol, naming).padEnd(18);
  const destination = hostPort(row.destination, protocol, naming);
  const server =
    row.local === undefined ? destination : `${destination.padEnd(18)} ${hostPort(row.local, protocol, naming)}`;
  const head = `${row.protocol.toUpperCase().padEnd(3)} ${expires.padEnd(6)} ${row.state.padEnd(11)} ${client} ${virtual}`;
  if (!form.persistentConn || row.pe === undefined) return `${head} ${server}\n`;
  return `${head} ${server.padEnd(16)} ${row.pe.name.padEnd(18)} ${row.pe.data}\n`;
}

/** As DPVS lists them, and its words. */
export function formatLocalAddresses(rows: readonly ServiceRow[]): string {
  const line = (...cells: readonly (string | number)[]) =>
    `${cells.map((cell, i) => String(cell).padEnd(LOCAL_WIDTHS[i]!)).join(' ')}\n`;
  let text = line('VIP:VPORT', 'TOTAL', 'SNAT_IP', 'CONFLICTS', 'CONNS');
  for (const { key, localAddresses = [] } of rows) {
    const name = key.kind === 'fwmark' ? `FWM ${key.fwmark}` : `${key.address}:${key.port}`;
    text += `${name.padEnd(20)} ${left(localAddresses.length, 8)} \n`;
    for (const row of localAddresses) text += line('', '', localAddressText(row), row.conflicts, row.conns);
  }
  return text;
}

const LOCAL_WIDTHS = [20, 8, 20, 10, 10];

/** As -z takes it. */
export function localAddressText({ address, ports }: LocalAddressSpec): string {
  return ports === undefined ? address : `${address}:${ports.from}-${ports.to}`;
}

export function formatTimeouts({ timeouts }: IpvsInfo): string {
  return `Timeout (tcp tcpfin udp): ${timeouts.tcp} ${timeouts.tcpFin} ${timeouts.udp}\n`;
}

/** `address:port`, brackets round IPv6, names where there are any. */
export function hostPort(at: ServerKey, protocol: string, naming: Naming): string {
  const host = naming === 'numeric' ? at.address : (naming.hostName(at.address) ?? at.address);
  const port = naming === 'numeric' ? at.port : (naming.serviceName(at.port, protocol) ?? at.port);
  return (isIp6(at.address) ? `[${host}]:${port}` : `${host}:${port}`).slice(0, NAME_MAX);
}

/** By mark, family, protocol, address, port. */
export function sortServices(rows: readonly ServiceRow[]): readonly ServiceRow[] {
  const keyed = rows.map((row) => ({ row, order: serviceOrder(row) }));
  return mergeSort(keyed, (a, b) => compareOrders(a.order, b.order)).map(({ row }) => row);
}

/** By address and port. */
export function sortServers(rows: readonly ServerRow[]): readonly ServerRow[] {
  if (rows.length < 2) return rows;
  const keyed = rows.map((row) => ({ row, isIp6: isIp6(row.key.address), words: words(row.key.address) }));
  const compare = (a: (typeof keyed)[0], b: (typeof keyed)[0]) =>
    compareOrders(serverOrder(a, a.isIp6), serverOrder(b, a.isIp6));
  return mergeSort(keyed, compare).map(({ row }) => row);
}

/**
 * Halves, the first the smaller, merged: as glibc's qsort did it when the classic tool was built. It matters because the classic comparison subtracts
 * 32-bit ints: between addresses more than 2³¹ apart it is no order, and what comes out depends on who is compared with whom.
 */
function mergeSort<T>(items: readonly T[], compare: (a: T, b: T) => number): readonly T[] {
  if (items.length < 2) return items;
  const middle = items.length >> 1;
  const low = mergeSort(items.slice(0, middle), compare);
  const high = mergeSort(items.slice(middle), compare);
  const merged: T[] = [];
  let i = 0;
  let j = 0;
  while (i < low.length && j < high.length) {
    merged.push(compare(low[i]!, high[j]!) <= 0 ? low[i++]! : high[j++]!);
  }
  while (i < low.length) merged.push(low[i++]!);
  while (j < high.length) merged.push(high[j++]!);
  return merged;
}

/** What is compared is chosen by the left one's family alone. */
function serverOrder({ row, words }: { row: ServerRow; words: readonly number[] }, wide: boolean): readonly number[] {
  return wide ? [...words, row.key.port] : [words[0]!, row.key.port];
}

const PROTOCOL_NUMBER = { tcp: 6, udp: 17, sctp: 132 } as const;

function serviceOrder({ key }: ServiceRow): readonly number[] {
  if (key.kind === 'fwmark') return [key.fwmark, key.family];
  const at = words(key.address);
  return isIp6(key.address)
    ? [0, 6, PROTOCOL_NUMBER[key.protocol], ...at, key.port]
    : [0, 4, PROTOCOL_NUMBER[key.protocol], at[0]!, key.port];
}

function compareOrders(a: readonly number[], b: readonly number[]): number {
  for (let i = 0; i < a.length; i++) {
    const difference = (a[i]! - b[i]!) | 0;
    if (difference !== 0) return difference;
  }
  return 0;
}

/** An address as four 32-bit words; IPv4 has one and zeros. */
function words(address: string): readonly number[] {
  if (!isIp6(address)) {
    const [a, b, c, d] = address.split('.').map(Number) as [number, number, number, number];
    return [a * 16_777_216 + b * 65_536 + c * 256 + d, 0, 0, 0];
  }
  const dotted = address.slice(address.lastIndexOf(':') + 1);
  let text = address;
  if (dotted.includes('.') && parseIp4(dotted) !== undefined) {
    const word = words(dotted)[0]!;
    text = `${address.slice(0, -dotted.length)}${(word >>> 16).toString(16)}:${(word & 0xffff).toString(16)}`;
  }
  const [head = '', tail] = text.split('::');
  const before = head === '' ? [] : head.split(':');
  const after = tail === undefined || tail === '' ? [] : tail.split(':');
  const zeros = Array<string>(Math.max(0, 8 - before.length - after.length)).fill('0');
  const groups = [...before, ...zeros, ...after].map((group) => Number.parseInt(group, 16));
  return [0, 2, 4, 6].map((i) => groups[i]! * 65_536 + groups[i + 1]!);
}

function isIp6(address: string): boolean {
  return address.includes(':');
}

function left(value: number, width: number): string {
  return String(value).padEnd(width);
}

function right(value: number, width: number): string {
  return String(value).padStart(width);
}

function two(value: number): string {
  return String(value).padStart(2, '0');
}

export function formatDaemon({ role, device, syncId, maxLength, group, port, ttl }: DaemonRow): string {
  return `${role} sync daemon (mcast=${device}, syncid=${syncId}, maxlen=${maxLength}, group=${group}, port=${port}, ttl=${ttl})\n`;
}
