/** `ip route`. */
import type { IpCommand, RouteRow, RouteType } from '../../model/ip.ts';
import { parsePrefix } from '../../wire/addr.ts';
import { type CliContext, CliError } from '../command.ts';
import { change, checkDevice } from './errors.ts';
import { type IpOptions, jsonText } from './output.ts';
import { address, garbage, nameOf, prefix, unknownCommand, unsigned, type Words, wrongArgument } from './words.ts';

export const ROUTE_HELP = `Usage: ip route { add | replace | del } [ TYPE ] PREFIX [ via ADDRESS ] [ dev DEVICE ] [ src ADDRESS ]
                                            [ metric NUMBER ] [ proto { kernel | boot | static } ]
       ip route show [ PREFIX ] [ dev DEVICE ] [ via ADDRESS ] [ proto PROTOCOL ] [ type TYPE ]
                     [ table { main | local | all } ]
       ip route flush { PREFIX | dev DEVICE | via ADDRESS | proto PROTOCOL | type TYPE | table TABLE }
TYPE := { unicast | local | broadcast | unreachable | prohibit | blackhole }
`;

const TYPES: readonly RouteType[] = ['unicast', 'local', 'broadcast', 'unreachable', 'prohibit', 'blackhole'];
const SHORTENED = [
  'broadcast',
  'anycast',
  'multicast',
  'prohibit',
  'unreachable',
  'blackhole',
  'xresolve',
  'unicast',
] as const;
const PROTOCOLS: readonly RouteRow['protocol'][] = ['kernel', 'boot', 'static'];
type Table = 'main' | 'local' | 'all';
type RouteOp = 'route-add' | 'route-replace' | 'route-del';

export async function route(words: Words, options: IpOptions, context: CliContext): Promise<number> {
  const word = words.take() ?? 'list';
  switch (nameOf(word, ['list', 'show', 'lst', 'add', 'replace', 'delete', 'flush'])) {
    case 'add':
      return modify('route-add', words, options, context);
    case 'replace':
      return modify('route-replace', words, options, context);
    case 'delete':
      return modify('route-del', words, options, context);
    case 'flush':
      return flush(words, context);
    case undefined:
      throw unknownCommand(word, 'route');
    default:
      return show(words, options, context);
  }
}

async function modify(op: RouteOp, words: Words, options: IpOptions, context: CliContext): Promise<number> {
  const given: { -readonly [K in keyof RouteRow]?: RouteRow[K] } = {};
  for (let word = words.take(); word !== undefined; word = words.take()) {
    if (word === 'via') {
      if (given.via !== undefined) throw wrongArgument('via', 'use nexthop syntax to specify multiple via');
      given.via = address(words.value(), familyOf(given));
    } else if (word === 'dev' || word === 'oif') given.device = words.value();
    else if (word === 'src') given.source = address(words.value(), familyOf(given));
    else if (word === 'metric' || word === 'priority' || word === 'preference') {
      given.metric = unsigned(words.value(), '"metric" value is invalid');
    } else if (word === 'proto' || word === 'protocol') given.protocol = protocolName(words.value());
    else {
      if (given.to !== undefined) throw garbage('to', word);
      let to = word === 'to' ? words.value() : word;
      const type = typeOf(to);
      if (type !== undefined) {
        to = words.value();
        given.type = supported(type);
      }
      given.to = prefix(to);
    }
  }
  if (given.to === undefined) throw new CliError(ROUTE_HELP.trimEnd(), 255);
  if (options.family === 6) throw new CliError('RTNETLINK answers: Address family not supported by protocol', 2);
  const command: IpCommand = { op, route: { ...given, to: given.to } };
  return change(context, [command], given.device);
}

/** By what was said already. */
function familyOf({ to, via, source }: { readonly [K in keyof RouteRow]?: RouteRow[K] }): 'any valid' | 'inet' {
  return (to !== undefined && to !== 'default') || via !== undefined || source !== undefined ? 'inet' : 'any valid';
}

/** A type of route by its name or, of most, any beginning of it, in iproute2's order (rtnl_rtntype_a2n); what begins with a digit is none. */
function typeOf(word: string): string | undefined {
  if (word === 'local' || word === 'nat' || word === 'throw') return word;
  if (word === 'brd') return 'broadcast';
  return word === '' || /^[0-9]/.test(word) ? undefined : nameOf(word, SHORTENED);
}

function supported(type: string): RouteType {
  const found = TYPES.find((name) => name === type);
  if (found === undefined) throw wrongArgument(type, 'no such routes here');
  return found;
}

function protocolName(word: string, wrong = '"protocol" value is invalid'): RouteRow['protocol'] {
  const name = PROTOCOLS.find((candidate) => candidate === word);
  if (name === undefined) throw wrongArgument(word, wrong);
  return name;
}

interface RouteFilter {
  to?: string;
  device?: string;
  via?: string;
  protocol?: string;
  type?: string;
  table: Table;
}

function readFilter(words: Words): RouteFilter {
  const filter: RouteFilter = { table: 'main' };
  for (let word = words.take(); word !== undefined; word = words.take()) {
    if (word === 'dev' || word === 'oif') filter.device = words.value();
    else if (word === 'via') filter.via = prefix(words.value());
    else if (word === 'proto' || word === 'protocol')
      filter.protocol = protocolName(words.value(), 'invalid "protocol"');
    else if (word === 'type') filter.type = typeName(words.value());
    else if (word === 'table') filter.table = tableName(words.value());
    else {
      if (filter.to !== undefined) throw garbage('to', word);
      filter.to = prefix(word === 'to' || word === 'exact' ? words.value() : word);
    }
  }
  return filter;
}

function typeName(word: string): RouteType {
  const type = TYPES.find((name) => name === word);
  if (type === undefined) throw wrongArgument(word, 'node type value is invalid');
  return type;
}

function tableName(word: string): Table {
  if (word === 'main' || word === '254') return 'main';
  if (word === 'local' || word === '255') return 'local';
  if (word === 'all' || word === '0') return 'all';
  throw wrongArgument(word, 'table id value is invalid');
}

function matches(row: RouteRow, filter: RouteFilter): boolean {
  const table = row.type === 'local' || row.type === 'broadcast' ? 'local' : 'main';
  return (
    (filter.table === 'all' || filter.table === table) &&
    (filter.to === undefined || row.to === filter.to) &&
    (filter.device === undefined || row.device === filter.device) &&
    (filter.via === undefined || row.via === filter.via) &&
    (filter.protocol === undefined || row.protocol === filter.protocol) &&
    (filter.type === undefined || row.type === filter.type)
  );
}

async function flush(words: Words, context: CliContext): Promise<number> {
  if (words.head === undefined) throw new CliError('"ip route flush" requires arguments.', 1);
  const filter = readFilter(words);
  const rows = await context.client.get<readonly RouteRow[]>('/v1/ip/routes');
  const commands = rows
    .filter((row) => matches(row, filter))
    .map((row): IpCommand => ({ op: 'route-del', route: { ...row, via: row.via, device: deviceOf(row) } }));
  return commands.length === 0 ? 0 : change(context, commands);
}

async function show(words: Words, options: IpOptions, context: CliContext): Promise<number> {
  const filter = readFilter(words);
  if (options.family === 6) return 0;
  await checkDevice(context, filter.device);
  const all = await context.client.get<readonly RouteRow[]>('/v1/ip/routes');
  const rows = all.filter((row) => matches(row, filter)).sort(compareRoutes);
  if (options.json)
    context.out(
      jsonText(
        rows.map((row) => routeJson(row, filter)),
        options,
      ),
    );
  else context.out(rows.map((row) => routeText(row, filter)).join(''));
  return 0;
}

/** As the kernel walks its trie: by address, of the same address the longest prefix first, then by metric. */
function compareRoutes(a: RouteRow, b: RouteRow): number {
  const [one, other] = [a, b].map(({ to }) => (to === 'default' ? { ip: 0, length: 0 } : parsePrefix(to)!));
  return (one!.ip >>> 0) - (other!.ip >>> 0) || other!.length - one!.length || a.metric - b.metric;
}

/** What leads nowhere has no device, whatever it is filed under. */
function deviceOf(row: RouteRow): string | undefined {
  return row.type === 'unreachable' || row.type === 'prohibit' || row.type === 'blackhole' ? undefined : row.device;
}

function routeText(row: RouteRow, filter: RouteFilter): string {
  let text = row.type === 'unicast' ? `${row.to} ` : `${row.type} ${row.to} `;
  const device = deviceOf(row);
  if (row.via !== undefined && filter.via === undefined) text += `via ${row.via} `;
  if (device !== undefined && filter.device === undefined) text += `dev ${device} `;
  if (filter.table === 'all' && (row.type === 'local' || row.type === 'broadcast')) text += 'table local ';
  if (row.protocol !== 'boot' && filter.protocol === undefined) text += `proto ${row.protocol} `;
  if (row.scope !== 'global') text += `scope ${row.scope} `;
  if (row.source !== undefined) text += `src ${row.source} `;
  if (row.metric !== 0) text += `metric ${row.metric} `;
  return `${text}\n`;
}

function routeJson(row: RouteRow, filter: RouteFilter): unknown {
  return {
    type: row.type === 'unicast' ? undefined : row.type,
    dst: row.to,
    gateway: filter.via === undefined ? row.via : undefined,
    dev: filter.device === undefined ? deviceOf(row) : undefined,
    protocol: row.protocol === 'boot' || filter.protocol !== undefined ? undefined : row.protocol,
    scope: row.scope === 'global' ? undefined : row.scope,
    prefsrc: row.source,
    metric: row.metric === 0 ? undefined : row.metric,
    flags: [],
  };
}
