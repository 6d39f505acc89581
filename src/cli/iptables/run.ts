/** `tapvs iptables`, or the program called `iptables`: the classic tool's words, lists, messages and statuses, asked of tapvsd. */
import { BadRule, type WriteNames } from '../../filter/extension.ts';
import { BadWord, type CommandLine, type ParsedLine, parseRule } from '../../filter/parse.ts';
import { writeWords } from '../../filter/save.ts';
import {
  type ChainRow,
  type RuleRow,
  TABLE_NAMES,
  type TableChange,
  type TableCommand,
  type TableName,
  type TableOutcome,
  type TableRow,
} from '../../model/iptables.ts';
import { type CliCommand, type CliContext, CliError } from '../command.ts';
import { tableCommands } from './commands.ts';
import { faultMessage, hint, parameterProblem, parserMessage, Status, VERSION } from './failure.ts';
import { helpText } from './help.ts';
import { formatChainTitle, formatChangedRule, formatRule, hostsOf, type ListOptions } from './list.ts';
import { listForm, parseWithNames, RuleNames } from './names.ts';

const PROGRAM = 'iptables';

export const iptables: CliCommand = {
  async run(args, context) {
    const names = new RuleNames(context.err);
    const parsed = await parseWords(args, names, context);
    switch (parsed.kind) {
      case 'help':
        context.out(helpText(parsed.matches, parsed.target));
        return Status.Ok;
      case 'version':
        context.out(`${PROGRAM} ${VERSION}\n`);
        return Status.Ok;
      case 'not-ipv4':
        throw new CliError(hint(PROGRAM), Status.BadParameter);
      case 'command':
        return runLine(parsed.line, names, context);
    }
  },
};

async function parseWords(args: readonly string[], names: RuleNames, context: CliContext): Promise<ParsedLine> {
  try {
    const { parsed, warnings } = await parseWithNames(args, names, { program: PROGRAM });
    if (warnings !== '') context.err(warnings);
    return parsed;
  } catch (error) {
    if (!(error instanceof BadRule)) throw error;
    context.err((error as BadRule & { warnings?: string }).warnings ?? '');
    if (error instanceof BadWord) throw new CliError(`${error.message}\n${hint(PROGRAM)}`, Status.BadParameter);
    throw parameterProblem(PROGRAM, error.message);
  }
}

/** @throws CliError when there is no such table */
export function tableOf(name: string): TableName {
  const table = TABLE_NAMES.find((known) => known === name);
  if (table !== undefined) return table;
  throw new CliError(
    `${PROGRAM} ${VERSION}: can't initialize iptables table \`${name}': Table does not exist (do you need to insmod?)\n` +
      'Perhaps iptables or your kernel needs to be upgraded.',
    Status.VersionProblem,
  );
}

async function runLine(line: CommandLine, names: RuleNames, context: CliContext): Promise<number> {
  const table = tableOf(line.table);
  const commands = tableCommands(line);
  if (line.command === 'L' || line.command === 'S') await list(line, table, names, context);
  if (commands.length === 0) return Status.Ok;
  const isSilent = line.verbose === 0;
  const before = isSilent ? null : await chainsToTell(line, table, context);
  const change: TableChange = { table, commands };
  const outcome = await context.client.post<TableOutcome>('/v1/iptables', change);
  if (outcome !== null) throw failure(outcome, commands);
  if (!isSilent) tell(line, before ?? [], names, context);
  return Status.Ok;
}

/** The chains that -F, -Z and -X will name. */
async function chainsToTell(line: CommandLine, table: TableName, { client }: CliContext): Promise<readonly ChainRow[]> {
  if (!'FZX'.includes(line.command) && !line.alsoZero) return [];
  if (line.chain !== undefined && line.command !== 'X') return [];
  const { chains } = await client.get<TableRow>(`/v1/iptables/${table}`);
  return line.command === 'X' ? chains.filter(({ policy, name }) => policy === null && isMeant(line, name)) : chains;
}

function isMeant({ chain }: CommandLine, name: string): boolean {
  return chain === undefined || chain === name;
}

function tell(line: CommandLine, chains: readonly ChainRow[], names: RuleNames, { out }: CliContext): void {
  const form = listForm({ numeric: true }, names);
  if ('AIDRC'.includes(line.command)) {
    for (const rule of line.rules) out(formatChangedRule(rule, form));
    return;
  }
  const verb = line.command === 'F' ? 'Flushing' : line.command === 'X' ? 'Deleting' : 'Zeroing';
  for (const { name } of chains) out(`${verb} chain \`${name}'\n`);
}

function failure({ index, fault, what = '' }: NonNullable<TableOutcome>, commands: readonly TableCommand[]): CliError {
  const message = parserMessage(fault, what);
  if (message !== undefined) return parameterProblem(PROGRAM, message);
  const op = commands[index]?.op ?? '';
  return new CliError(`${PROGRAM}: ${faultMessage(fault, op)}`, Status.Other);
}

async function list(line: CommandLine, table: TableName, names: RuleNames, context: CliContext): Promise<void> {
  const { chains } = await context.client.get<TableRow>(`/v1/iptables/${table}`);
  const wanted = chains.filter(({ name }) => isMeant(line, name));
  if (wanted.length === 0) throw new CliError(`${PROGRAM}: ${faultMessage('ENOENT', 'list')}`, Status.Other);
  if (line.command === 'S') context.out(listWords(wanted, line, names));
  else context.out(await listTables(wanted, line, names));
}

async function listTables(chains: readonly ChainRow[], line: CommandLine, names: RuleNames): Promise<string> {
  const parsed = chains.map(({ rules }) => rules.map(({ words }) => parseRule(words)));
  if (!line.numeric) await names.lookUpHosts(parsed.flat().flatMap(hostsOf));
  const options: ListOptions = {
    verbose: line.verbose > 0,
    exact: line.exact,
    lineNumbers: line.lineNumbers,
    form: listForm(line, names),
  };
  const texts = chains.map((chain, c) => {
    const lines = chain.rules.map((row, i) =>
      line.number === 0 || line.number === i + 1 ? formatRule(row, parsed[c]![i]!, i + 1, options) : '',
    );
    return (line.number === 0 ? formatChainTitle(chain, options) : '') + lines.join('');
  });
  return texts.join('\n'.repeat(line.number === 0 ? 1 : 0));
}

/** `-P` and `-N` lines first, then the rules. */
function listWords(chains: readonly ChainRow[], { number, verbose }: CommandLine, names: WriteNames): string {
  const isVerbose = verbose > 0;
  let text = '';
  if (number === 0) {
    for (const { name, policy, packets, bytes } of chains) {
      if (policy === null) text += `-N ${name}\n`;
      else text += `-P ${name} ${policy}${isVerbose ? ` -c ${packets} ${bytes}` : ''}\n`;
    }
  }
  for (const { name, rules } of chains) {
    for (const [i, rule] of rules.entries()) {
      if (number === 0 || number === i + 1) text += `${ruleLine(name, rule, isVerbose, names)}\n`;
    }
  }
  return text;
}

/** `-A INPUT -s 10.0.0.1/32 -c 0 0 -j DROP`; the counters stand before the target. */
export function ruleLine(
  chain: string,
  { words, packets, bytes }: RuleRow,
  hasCounters: boolean,
  names: WriteNames,
): string {
  if (!hasCounters) return `-A ${chain}${words.length === 0 ? '' : ` ${writeWords(words, names)}`}`;
  const at = targetAt(words);
  const parts = [words.slice(0, at), words.slice(at)].map((part) => writeWords(part, names));
  return ['-A', chain, parts[0]!, `-c ${packets} ${bytes}`, parts[1]!].filter((part) => part !== '').join(' ');
}

/** Where -j or -g stands; a comment may hold the same word, but never as the last of them. */
function targetAt(words: readonly string[]): number {
  const { target } = parseRule(words);
  if (target.kind === 'none') return words.length;
  const name = target.kind === 'extension' ? target.extension.name : target.name;
  for (let i = words.length - 2; i >= 0; i--) {
    if ((words[i] === '-j' || words[i] === '-g') && words[i + 1] === name) return i;
  }
  return words.length;
}
