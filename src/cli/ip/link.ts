/** `ip link`: devices as iproute2 shows the kernel's, as far as there is something to show: no qdisc, no queue length. */
import type { IpCommand, LinkRow } from '../../model/ip.ts';
import { type CliContext, CliError } from '../command.ts';
import { change } from './errors.ts';
import { type IpOptions, jsonText, lineBreak } from './output.ts';
import {
  checkDeviceName,
  garbage,
  hardwareAddress,
  integer,
  missing,
  nameOf,
  unknownCommand,
  type Words,
} from './words.ts';

export const LINK_HELP = `Usage: ip link set [ dev ] DEVICE [ up | down ] [ mtu BYTES ] [ address LLADDR ]
       ip link show [ [ dev ] DEVICE ] [ up ]
`;

export async function link(words: Words, options: IpOptions, context: CliContext): Promise<number> {
  const word = words.take() ?? 'show';
  switch (nameOf(word, ['set', 'show', 'lst', 'list'])) {
    case 'set':
      return set(words, context);
    case undefined:
      throw unknownCommand(word, 'link');
    default:
      return show(words, options, context);
  }
}

function wrongLength(bytes: number): CliError {
  return new CliError(`Invalid address length ${bytes} - must be 6 bytes`, 255);
}

async function set(words: Words, context: CliContext): Promise<number> {
  let device: string | undefined;
  const changes: { mtu?: number; up?: boolean; mac?: string } = {};
  for (let word = words.take(); word !== undefined; word = words.take()) {
    if (word === 'up' || word === 'down') changes.up = word === 'up';
    else if (word === 'mtu') changes.mtu = integer(words.value(), 'Invalid "mtu" value');
    else if (word === 'address') changes.mac = hardwareAddress(words.value(), wrongLength);
    else {
      if (device !== undefined) throw garbage('dev', word);
      device = word === 'dev' ? words.value() : word;
      checkDeviceName(device);
    }
  }
  if (device === undefined) throw missing('dev', 255);
  const command: IpCommand = { op: 'link-set', device, ...changes };
  return change(context, [command], device);
}

async function show(words: Words, options: IpOptions, context: CliContext): Promise<number> {
  const filter = readFilter(words);
  if (options.family === 6) return 0;
  const rows = filterLinks(await context.client.get<readonly LinkRow[]>('/v1/ip/links'), filter);
  if (options.json) {
    const values = rows.map((row) => ({ ...linkJson(row, true), stats64: options.stats ? statsJson(row) : undefined }));
    context.out(jsonText(values, options));
    return 0;
  }
  for (const row of rows) {
    if (options.brief) {
      const mac = row.kind === 'loopback' || row.mac !== undefined ? `${hardware(row)} ` : '';
      context.out(`${row.name.padEnd(16)} ${state(row).padEnd(14)} ${mac}<${flags(row).join(',')}> \n`);
      continue;
    }
    context.out(linkText(row, true, options));
    if (options.stats) context.out(lineBreak(options) + statsText(row, options));
    context.out('\n');
  }
  return 0;
}

interface LinkFilter {
  device?: string;
  isUp?: boolean;
}

function readFilter(words: Words): LinkFilter {
  const filter: LinkFilter = {};
  for (let word = words.take(); word !== undefined; word = words.take()) {
    if (word === 'up') filter.isUp = true;
    else if (word === 'dev') filter.device = words.value();
    else if (filter.device === undefined) filter.device = word;
    else throw garbage('dev', word);
  }
  return filter;
}

/** @throws CliError when the one that is asked for is not there */
export function filterLinks(rows: readonly LinkRow[], { device, isUp }: LinkFilter): readonly LinkRow[] {
  if (device !== undefined && !rows.some((row) => row.name === device)) {
    throw new CliError(`Device "${device}" does not exist.`, 1);
  }
  return rows.filter((row) => (device === undefined || row.name === device) && (isUp !== true || row.up));
}

/** Without the last line's end. */
export function linkText(row: LinkRow, withMode: boolean, options: IpOptions): string {
  const mode = withMode ? 'mode DEFAULT ' : '';
  const head = `${row.index}: ${row.name}: <${flags(row).join(',')}> mtu ${row.mtu} state ${state(row)} ${mode}group default `;
  if (!withMode && options.family !== undefined) return head;
  const mac = hardware(row);
  const tail = mac === undefined ? '' : `${mac} brd ${broadcast(row)}`;
  return `${head}${lineBreak(options)}    link/${linkType(row)} ${tail}`;
}

export function linkJson(row: LinkRow, withMode: boolean): Record<string, unknown> {
  return {
    ifindex: row.index,
    ifname: row.name,
    flags: flags(row),
    mtu: row.mtu,
    operstate: state(row),
    linkmode: withMode ? 'DEFAULT' : undefined,
    group: 'default',
    link_type: linkType(row),
    address: hardware(row),
    broadcast: hardware(row) === undefined ? undefined : broadcast(row),
  };
}

export function state(row: LinkRow): string {
  return row.kind === 'loopback' ? 'UNKNOWN' : row.up ? 'UP' : 'DOWN';
}

function flags(row: LinkRow): readonly string[] {
  const kind =
    row.kind === 'loopback'
      ? ['LOOPBACK']
      : row.mac === undefined
        ? ['POINTOPOINT', 'MULTICAST', 'NOARP']
        : ['BROADCAST', 'MULTICAST'];
  return row.up ? [...kind, 'UP', 'LOWER_UP'] : kind;
}

function linkType(row: LinkRow): string {
  return row.kind === 'loopback' ? 'loopback' : row.mac === undefined ? 'none' : 'ether';
}

function hardware(row: LinkRow): string | undefined {
  return row.kind === 'loopback' ? '00:00:00:00:00:00' : row.mac;
}

function broadcast(row: LinkRow): string {
  return row.kind === 'loopback' ? '00:00:00:00:00:00' : 'ff:ff:ff:ff:ff:ff';
}

function statsJson({ stats: s }: LinkRow): unknown {
  return {
    rx: { bytes: s.rxBytes, packets: s.rxPackets, dropped: s.rxDropped },
    tx: { bytes: s.txBytes, packets: s.txPackets, errors: s.txErrors, dropped: s.txDropped },
  };
}

/** Two small tables with common columns, as wide as their widest figure (ipaddress.c, print_stats64); what we do not count is 0. */
function statsText({ stats: s }: LinkRow, options: IpOptions): string {
  const rx = [s.rxBytes, s.rxPackets, 0, s.rxDropped, 0, 0];
  const tx = [s.txBytes, s.txPackets, s.txErrors, s.txDropped, 0, 0];
  const least = [10, 7, 6, 7, 7, 7];
  const widths = least.map((width, i) => Math.max(width, String(rx[i]).length, String(tx[i]).length));
  const titles = (label: string, names: readonly string[]) =>
    `    ${label}:${names.map((name, i) => ` ${name.padStart(widths[i]! - (i === 0 ? 4 : 0))}`).join('')}${' '.repeat(11)}`;
  const figures = (values: readonly number[]) =>
    `    ${values.map((value, i) => `${String(value).padStart(widths[i]!)} `).join('')}`;
  return [
    titles('RX', ['bytes', 'packets', 'errors', 'dropped', 'missed', 'mcast']),
    figures(rx),
    titles('TX', ['bytes', 'packets', 'errors', 'dropped', 'carrier', 'collsns']),
    figures(tx),
  ].join(lineBreak(options));
}
