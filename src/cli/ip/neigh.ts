/** `ip neighbour`. */
import type { IpCommand, NeighbourRow } from '../../model/ip.ts';
import { type CliContext, CliError } from '../command.ts';
import { change, checkDevice } from './errors.ts';
import { type IpOptions, jsonText } from './output.ts';
import { address, garbage, hardwareAddress, nameOf, unknownCommand, type Words, wrongArgument } from './words.ts';

export const NEIGH_HELP = `Usage: ip neighbour { add | replace } ADDRESS lladdr LLADDR [ nud permanent ] dev DEVICE
       ip neighbour del ADDRESS dev DEVICE
       ip neighbour show [ [ to ] ADDRESS ] [ dev DEVICE ] [ nud STATE ]
       ip neighbour flush { dev DEVICE | all }
`;

const KNOWN = ['reachable', 'probe', 'failed', 'delay', 'incomplete', 'stale', 'noarp', 'none'];

type NeighbourOp = 'neigh-add' | 'neigh-replace' | 'neigh-del';

export async function neigh(words: Words, options: IpOptions, context: CliContext): Promise<number> {
  const word = words.take() ?? 'show';
  switch (nameOf(word, ['add', 'replace', 'delete', 'show', 'lst', 'list', 'flush'])) {
    case 'add':
      return modify('neigh-add', words, options, context);
    case 'replace':
      return modify('neigh-replace', words, options, context);
    case 'delete':
      return modify('neigh-del', words, options, context);
    case 'flush':
      return flush(words, context);
    case undefined:
      throw unknownCommand(word, 'neigh');
    default:
      return show(words, options, context);
  }
}

async function modify(op: NeighbourOp, words: Words, options: IpOptions, context: CliContext): Promise<number> {
  let to: string | undefined;
  let mac: string | undefined;
  let device: string | undefined;
  for (let word = words.take(); word !== undefined; word = words.take()) {
    if (word === 'lladdr') mac = hardwareAddress(words.value(), () => new CliError('Error: Invalid link address.', 2));
    else if (word === 'dev') device = words.value();
    else if (word === 'nud') checkPermanent(words.value());
    else {
      if (to !== undefined) throw garbage('to', word);
      to = address(word === 'to' ? words.value() : word);
    }
  }
  if (device === undefined || to === undefined) {
    throw new CliError('Device and destination are required arguments.', 255);
  }
  if (options.family === 6) throw new CliError('RTNETLINK answers: Address family not supported by protocol', 2);
  if (op !== 'neigh-del' && mac === undefined) throw new CliError('Error: No link layer address given.', 2);
  const command: IpCommand = { op, device, address: to, mac };
  return change(context, [command], device);
}

function stateName(word: string): string {
  if (word === 'permanent' || word === 'all' || KNOWN.includes(word)) return word;
  throw wrongArgument(word, 'nud state is bad', '');
}

function checkPermanent(word: string): void {
  if (word === 'permanent') return;
  throw wrongArgument(word, KNOWN.includes(word) ? 'only permanent entries can be made' : 'nud state is bad', '');
}

async function flush(words: Words, context: CliContext): Promise<number> {
  const word = words.take();
  if (word === undefined) throw new CliError('Flush requires arguments.', 1);
  const device = word === 'all' ? undefined : word === 'dev' ? words.value() : refuse(word);
  const extra = words.take();
  if (extra !== undefined) throw garbage('to', extra);
  return change(context, [{ op: 'neigh-flush', device }], device);
}

function refuse(word: string): never {
  throw garbage('to', word);
}

async function show(words: Words, options: IpOptions, context: CliContext): Promise<number> {
  let to: string | undefined;
  let device: string | undefined;
  let state: string | undefined;
  for (let word = words.take(); word !== undefined; word = words.take()) {
    if (word === 'dev') device = words.value();
    else if (word === 'nud') state = stateName(words.value()).toUpperCase();
    else {
      if (to !== undefined) throw garbage('to', word);
      to = address(word === 'to' ? words.value() : word);
    }
  }
  if (options.family === 6) return 0;
  await checkDevice(context, device);
  const rows = (await context.client.get<readonly NeighbourRow[]>('/v1/ip/neighbours')).filter(
    (row) =>
      (to === undefined || row.address === to) &&
      (device === undefined || row.device === device) &&
      (state === undefined || state === 'ALL' || row.state === state),
  );
  if (options.json) {
    const values = rows.map((row) => ({
      dst: row.address,
      dev: device === undefined ? row.device : undefined,
      lladdr: row.mac,
      state: [row.state],
    }));
    context.out(jsonText(values, options));
    return 0;
  }
  for (const row of rows) {
    if (options.brief) {
      context.out(`${row.address.padEnd(39)} ${row.device.padEnd(16)} ${row.mac ?? ''}\n`);
      continue;
    }
    const dev = device === undefined ? `dev ${row.device} ` : '';
    const mac = row.mac === undefined ? '' : `lladdr ${row.mac} `;
    context.out(`${row.address} ${dev}${mac}${row.state} \n`);
  }
  return 0;
}
