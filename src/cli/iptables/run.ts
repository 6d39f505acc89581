/** `tapvs iptables`, or the program called `iptables`: the classic tool's words, lists, messages and statuses, asked of tapvsd. */
import { BadRule, type WriteNames } from '../../filter/extension.ts';
import { BadWord, type CommandLine, type ParsedLine, parseRule } from '../../filter/parse.ts';
import { writeWords } from '../../filter/save.ts';
import {
  type ChainRow,
  isChainTooLong,
  type RuleRow,
  TABLE_NAMES,
  type TableChange,
  type TableCommand,
  type TableFault,
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
  checkNames(line);
  const commands = tableCommands(line);
  if (line.command === 'L' || line.command === 'S') await list(line, table, names, context);
  if (commands.length === 0) return Status.Ok;
  if (line.verbose > 0) await tellChains(line, table, context);
  const change: TableChange = { table, commands };
  const outcome = await context.client.post<TableOutcome>('/v1/iptables', change);
  const fault = outcome === null ? undefined : failure(outcome, commands);
  // What the kernel refuses has been told before; what the tool itself cannot read is not.
  if (line.verbose > 0 && 'AIDRC'.includes(line.command) && fault?.exit !== Status.BadParameter) {
    const form = listForm({ numeric: true }, names);
    for (const rule of line.rules) context.out(formatChangedRule(rule, form));
  }
  if (fault !== undefined) throw fault;
  return Status.Ok;
}

/** Names that the kernel does not know, or not as names. @throws CliError */
function checkNames({ command, chain, newName }: CommandLine): void {
  const refuse = (fault: TableFault): CliError => new CliError(`${PROGRAM}: ${faultMessage(fault, '')}`, Status.Other);
  if (chain === '') {
    throw refuse(command === 'D' || command === 'C' ? 'NO-RULE' : command === 'P' ? 'NO-BUILT-IN' : 'ENOENT');
  }
  if (command === 'E' && (!/^[^\s]+$/.test(newName) || isChainTooLong(newName))) throw refuse('EINVAL');
}

/** What -v says of -F, -X and -Z, be they refused or not. */
async function tellChains(line: CommandLine, table: TableName, { client, out }: CliContext): Promise<void> {
  const { command, chain, alsoZero } = line;
  const isListing = command === 'L' || command === 'S';
  if (!['F', 'Z', 'X'].includes(command) && !(isListing && alsoZero === 'chains')) return;
  const verb = command === 'F' ? 'Flushing' : command === 'X' ? 'Deleting' : 'Zeroing';
  const names = chain === undefined ? [] : [chain];
  if (chain === undefined) {
    const { chains } = await client.get<TableRow>(`/v1/iptables/${table}`);
    const told = command === 'X' ? chains.filter(({ policy }) => policy === null) : chains;
    names.push(...told.map(({ name }) => name));
  }
  for (const name of names) out(`${verb} chain \`${name}'\n`);
}

function isMeant({ chain }: CommandLine, name: string): boolean {
  return chain === undefined || chain === name;
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
