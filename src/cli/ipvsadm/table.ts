/** `--plan FILE` and `--apply FILE`: the file holds the whole table, as -S prints it; lines that are blank or begin with # are passed over. */
import { readFile } from 'node:fs/promises';
import type { Readable } from 'node:stream';
import type { TableFault, TableLine, TablePlan } from '../../control/api.ts';
import type { IpvsCommand, ServiceKey } from '../../model/ipvs.ts';
import type { CliContext } from '../command.ts';
import { holdsIp6 } from './address.ts';
import { errnoMessage } from './errors.ts';
import type { CommandName } from './options.ts';
import type { Parsed } from './parse.ts';
import { Refused } from './refused.ts';

/** --plan's statuses: nothing would change, something would. */
const SAME = 0;
const DIFFERS = 2;
/** The file cannot be read, or a line of it cannot be had. */
const REFUSED = 1;

/** What may stand in the file: what makes a table. */
const MAKES: ReadonlySet<IpvsCommand['op']> = new Set([
  'add-service',
  'edit-service',
  'delete-service',
  'add-server',
  'edit-server',
  'delete-server',
  'clear',
  'add-local-address',
  'delete-local-address',
  'set-timeouts',
]);

export async function changeTable(
  context: CliContext,
  { kind, file, json }: Extract<Parsed, { readonly kind: 'plan' | 'apply' }>,
  parse: (words: readonly string[]) => Parsed | Promise<Parsed>,
): Promise<number> {
  const { client, out, err, stdin } = context;
  const name = file === '-' ? 'stdin' : file;
  let text: string;
  try {
    text = file === '-' ? await textOf(stdin) : await readFile(file, 'utf8');
  } catch (error) {
    err(`${name}: ${error instanceof Error ? error.message : String(error)}\n`);
    return REFUSED;
  }
  const { lines, names, faults } = await readLines(text, parse);
  if (faults.length > 0) {
    for (const { line, message } of faults) err(`${name}:${line}: ${message}\n`);
    return REFUSED;
  }
  const body = { lines };
  const plan = await (kind === 'plan'
    ? client.post<TablePlan>('/v1/ipvs/plan', body)
    : client.put<TablePlan>('/v1/ipvs/table', body));
  for (const fault of plan.faults) err(`${name}:${fault.line}: ${words(fault, names)}\n`);
  if (json) out(`${JSON.stringify(plan)}\n`);
  if (plan.faults.length > 0) return REFUSED;
  if (!json) out(formatPlan(plan, kind));
  return kind === 'apply' || plan.changes.length === 0 ? SAME : DIFFERS;
}

interface Lines {
  readonly lines: TableLine[];
  /** By line. */
  readonly names: Map<number, CommandName>;
  readonly faults: { line: number; message: string }[];
}

async function readLines(text: string, parse: (words: readonly string[]) => Parsed | Promise<Parsed>): Promise<Lines> {
  const read: Lines = { lines: [], names: new Map(), faults: [] };
  for (const [i, row] of text.split('\n').entries()) {
    const line = i + 1;
    const found = row.split(/[ \t\r]+/).filter((word) => word !== '' && word !== 'ipvsadm');
    if (found.length === 0 || found[0]!.startsWith('#')) continue;
    try {
      const parsed = await parse(found);
      if (parsed.kind === 'change' && holdsIp6(parsed.command)) {
        read.faults.push({ line, message: errnoMessage(parsed.name, 'EAFNOSUPPORT') });
      } else if (parsed.kind === 'change' && MAKES.has(parsed.command.op)) {
        read.lines.push({ line, command: parsed.command });
        read.names.set(line, parsed.name);
      } else {
        read.faults.push({ line, message: `'${found[0]}' is no part of a table: -A, -a and --set are` });
      }
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      const isNone = error.message.startsWith('Try ');
      read.faults.push({
        line,
        message: isNone ? `'${row.trim()}' is no command of ipvsadm` : error.message.trimEnd(),
      });
    }
  }
  return read;
}

function words({ line, errno }: TableFault, names: ReadonlyMap<number, CommandName>): string {
  return errnoMessage(names.get(line) ?? 'add-service', errno);
}

/** The diff, then what becomes of connections. */
export function formatPlan({ changes, orphans, moves }: TablePlan, kind: 'plan' | 'apply'): string {
  if (changes.length === 0) return '';
  const lines = changes.map(({ text }) => text);
  for (const { service, of, elsewhere } of moves) {
    lines.push(
      `${nameOf(service)}: ${elsewhere} of ${of} connections' clients ${kind === 'plan' ? 'would be' : 'are now'} scheduled elsewhere`,
    );
  }
  const [change, lose] = [
    changes.length === 1 ? 'change' : 'changes',
    orphans === 1 ? 'connection loses its' : 'connections lose their',
  ];
  lines.push(`${changes.length} ${change}, ${orphans} ${lose} server`);
  return lines.map((line) => `${line}\n`).join('');
}

function nameOf(key: ServiceKey): string {
  return key.kind === 'fwmark' ? `fwmark ${key.fwmark}` : `${key.protocol} ${key.address}:${key.port}`;
}

async function textOf(stream: Readable): Promise<string> {
  stream.setEncoding('utf8');
  let text = '';
  for await (const chunk of stream as AsyncIterable<string>) text += chunk;
  return text;
}
