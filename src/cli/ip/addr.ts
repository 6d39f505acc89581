/** `ip address`. */
import type { AddressRow, IpCommand, LinkRow } from '../../model/ip.ts';
import { formatIp4, netmask, parseIp4, parsePrefix } from '../../wire/addr.ts';
import { type CliContext, CliError } from '../command.ts';
import { change } from './errors.ts';
import { filterLinks, linkJson, linkText, state } from './link.ts';
import { type IpOptions, jsonText, lineBreak } from './output.ts';
import {
  address as addressOf,
  garbage,
  missing,
  nameOf,
  prefix,
  readPrefix,
  unknownCommand,
  type Words,
  wrongArgument,
  wrongPrefix,
} from './words.ts';

export const ADDR_HELP = `Usage: ip address { add | replace | del } [ local ] ADDRESS[/LENGTH] [ brd + ] dev DEVICE
       ip address show [ [ dev ] DEVICE ] [ up ] [ scope { global | link | host } ] [ to PREFIX ]
       ip address flush { [ dev ] DEVICE | scope SCOPE | to PREFIX }
The device 'lo' holds the addresses that belong to no device: VIPs.
`;

/** A lifetime without end, as iproute2's JSON writes it. */
const FOREVER = 4_294_967_295;

export async function addr(words: Words, options: IpOptions, context: CliContext): Promise<number> {
  const word = words.take() ?? 'show';
  switch (nameOf(word, ['add', 'replace', 'delete', 'show', 'list', 'lst', 'flush'])) {
    case 'add':
      return modify('addr-add', words, options, context);
    case 'replace':
      return modify('addr-replace', words, options, context);
    case 'delete':
      return modify('addr-del', words, options, context);
    case 'flush':
      return flush(words, context);
    case undefined:
      throw unknownCommand(word, 'address');
    default:
      return show(words, options, context);
  }
}

type AddressOp = 'addr-add' | 'addr-replace' | 'addr-del';

async function modify(op: AddressOp, words: Words, options: IpOptions, context: CliContext): Promise<number> {
  let local: string | undefined;
  let broadcast: string | undefined;
  let device: string | undefined;
  for (let word = words.take(); word !== undefined; word = words.take()) {
    if (word === 'dev') device = words.value();
    else if (word === 'broadcast' || word === 'brd') broadcast = words.value();
    else if (word === 'local') local = words.value();
    else if (local === undefined) local = word;
    else throw garbage('local', word);
  }
  if (options.family === 6) throw new CliError('RTNETLINK answers: Address family not supported by protocol', 2);
  const found = local === undefined ? undefined : readPrefix(local);
  if (local !== undefined && found === undefined) throw wrongPrefix(local);
  if (broadcast !== undefined && broadcast !== '+') broadcast = readBroadcast(broadcast);
  if (device === undefined) throw missing('dev');
  if (local === undefined || found === undefined) throw new CliError('RTNETLINK answers: Operation not supported', 2);
  const address = formatIp4(found.ip);
  const last = formatIp4(found.ip | ~netmask(found.length));
  if (broadcast !== undefined && broadcast !== '+' && broadcast !== last) {
    throw wrongArgument(broadcast, `"broadcast" is always the last address, ${last}`);
  }
  let prefixLength = found.length;
  if (op === 'addr-del' && !local.includes('/')) {
    // As the kernel has it: without a length, any will do.
    context.err(`Warning: Executing wildcard deletion to stay compatible with old scripts.
         Explicitly specify the prefix length (${local}/32) to avoid this warning.
         This special behaviour is likely to disappear in further releases,
         fix your scripts!\n`);
    const rows = await context.client.get<readonly AddressRow[]>('/v1/ip/addresses');
    prefixLength = rows.find((row) => row.device === device && row.address === address)?.prefixLength ?? 32;
  }
  const command: IpCommand = { op, device, address, prefixLength };
  return change(context, [command], device);
}

function readBroadcast(word: string): string {
  return word === '-' ? '0.0.0.0' : addressOf(word, 'inet');
}

interface AddressFilter {
  device?: string;
  isUp?: boolean;
  scope?: string;
  to?: string;
}

function readFilter(words: Words): AddressFilter {
  const filter: AddressFilter = {};
  for (let word = words.take(); word !== undefined; word = words.take()) {
    if (word === 'up') filter.isUp = true;
    else if (word === 'scope') filter.scope = scopeName(words.value());
    else if (word === 'to') filter.to = prefix(words.value());
    else if (word === 'dev') filter.device = words.value();
    else if (filter.device === undefined) filter.device = word;
    else throw garbage('dev', word);
  }
  return filter;
}

function scopeName(word: string): string {
  if (word === 'global' || word === 'link' || word === 'host') return word;
  throw wrongArgument(word, 'invalid "scope"');
}

function matches(row: AddressRow, { device, scope, to }: AddressFilter): boolean {
  if (device !== undefined && row.device !== device) return false;
  if (scope !== undefined && row.scope !== scope) return false;
  if (to === undefined || to === 'default') return true;
  const network = parsePrefix(to)!;
  return (((parseIp4(row.address) ?? 0) ^ network.ip) & netmask(network.length)) === 0;
}

async function flush(words: Words, context: CliContext): Promise<number> {
  const filter = readFilter(words);
  if (filter.device === undefined && filter.scope === undefined && filter.to === undefined) {
    throw new CliError('Flush requires arguments.', 1);
  }
  filterLinks(await context.client.get<readonly LinkRow[]>('/v1/ip/links'), filter);
  const rows = await context.client.get<readonly AddressRow[]>('/v1/ip/addresses');
  const commands = rows
    .filter((row) => matches(row, filter))
    .map(({ device, address, prefixLength }): IpCommand => ({ op: 'addr-del', device, address, prefixLength }));
  return commands.length === 0 ? 0 : change(context, commands);
}

async function show(words: Words, options: IpOptions, context: CliContext): Promise<number> {
  const filter = readFilter(words);
  if (options.family === 6) return 0;
  const links = filterLinks(await context.client.get<readonly LinkRow[]>('/v1/ip/links'), filter);
  const all = await context.client.get<readonly AddressRow[]>('/v1/ip/addresses');
  const addressed = links
    .map((link) => ({ link, rows: all.filter((row) => row.device === link.name && matches(row, filter)) }))
    .filter(({ rows }) => rows.length > 0 || !narrows(filter, options));
  if (options.json) {
    const values = addressed.map(({ link, rows }) => ({
      ...linkJson(link, false),
      addr_info: rows.map(addressJson),
    }));
    context.out(jsonText(values, options));
    return 0;
  }
  for (const { link, rows } of addressed) {
    if (options.oneline) {
      const head = `${link.index}: ${link.name}`;
      context.out(rows.map((row) => `${head}${addressText(row, options)}\n`).join(''));
      continue;
    }
    if (options.brief) {
      const list = rows.map((row) => `${row.address}/${row.prefixLength} `).join('');
      context.out(`${link.name.padEnd(16)} ${state(link).padEnd(14)} ${list}\n`);
      continue;
    }
    context.out(`${linkText(link, false, options)}\n${rows.map((row) => `${addressText(row, options)}\n`).join('')}`);
  }
  return 0;
}

/** Whether devices without a matching address are left out. */
function narrows(filter: AddressFilter, options: IpOptions): boolean {
  return filter.to !== undefined || filter.scope !== undefined || options.family !== undefined;
}

function addressText(row: AddressRow, options: IpOptions): string {
  const broadcast = row.broadcast === undefined ? '' : `brd ${row.broadcast} `;
  const head = `    inet ${row.address}/${row.prefixLength} ${broadcast}scope ${row.scope} ${row.device}`;
  return `${head}${lineBreak(options)}       valid_lft forever preferred_lft forever`;
}

function addressJson(row: AddressRow): unknown {
  return {
    family: 'inet',
    local: row.address,
    prefixlen: row.prefixLength,
    broadcast: row.broadcast,
    scope: row.scope,
    label: row.device,
    valid_life_time: FOREVER,
    preferred_life_time: FOREVER,
  };
}
