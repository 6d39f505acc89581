/**
 * `iptables-restore`: tables from a file or standard input, each whole at its COMMIT or not at all (iptables/iptables-restore.c). A fault ends it; tables that
 * were committed before stay.
 */
import { BadRule } from '../../filter/extension.ts';
import { BadWord, type CommandLine } from '../../filter/parse.ts';
import type { RuleCounters, TableCommand, TableName, TableOutcome, TableRow } from '../../model/iptables.ts';
import { BUILT_IN_CHAINS, TABLE_NAMES } from '../../model/iptables.ts';
import { type CliCommand, type CliContext, CliError } from '../command.ts';
import { tableCommands } from './commands.ts';
import { hint, parameterProblem, parserMessage, Status, VERSION } from './failure.ts';
import { formatChangedRule } from './list.ts';
import { listForm, parseWithNames, RuleNames } from './names.ts';
import { readSmallOptions, type SmallOption } from './small-options.ts';

const PROGRAM = 'iptables-restore';
const LONGEST_CHAIN = 28;
const USAGE = `Usage: iptables-restore [-c] [-v] [-V] [-t] [-h] [-n] [-w secs] [-W usecs] [-T table] [-M command] [file]
	   [ --counters ]
	   [ --verbose ]
	   [ --version]
	   [ --test ]
	   [ --help ]
	   [ --noflush ]
	   [ --wait=<seconds>
	   [ --table=<TABLE> ]
	   [ --modprobe=<command> ]
`;
const OPTIONS: readonly SmallOption[] = [
  { letter: 'c', long: 'counters' },
  { letter: 'v', long: 'verbose' },
  { letter: 'V', long: 'version' },
  { letter: 't', long: 'test' },
  { letter: 'h', long: 'help' },
  { letter: 'n', long: 'noflush' },
  // Commands here never wait for each other.
  { letter: 'w', long: 'wait', isValueOptional: true },
  { letter: 'W', long: 'wait-interval', takesValue: true },
  { letter: 'T', long: 'table', takesValue: true },
  { letter: 'M', long: 'modprobe', takesValue: true },
  { letter: '4', long: 'ipv4' },
  { letter: '6', long: 'ipv6' },
];

export const iptablesRestore: CliCommand = {
  async run(args, context) {
    const tryHelp = "Try `iptables-restore -h' for more information.";
    const { given, words } = readSmallOptions(PROGRAM, args, OPTIONS, tryHelp);
    if (given.has('V')) {
      context.out(`${PROGRAM} ${VERSION}\n`);
      return Status.Ok;
    }
    if (given.has('h')) {
      context.out(USAGE);
      return Status.Ok;
    }
    const [file, extra] = words;
    if (extra !== undefined) throw new CliError(`Unknown arguments found on commandline\n${tryHelp}`, Status.Other);
    const text = await readInput(file, context);
    return new Restore(given, context).run(text);
  },
};

async function readInput(file: string | undefined, { stdin }: CliContext): Promise<string> {
  if (file !== undefined && file !== '-') {
    const { readFile } = await import('node:fs/promises');
    return readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => {
      const why = error.code === 'ENOENT' ? 'No such file or directory' : (error.code ?? error.message);
      throw new CliError(`Can't open ${file}: ${why}`, Status.Other);
    });
  }
  stdin.setEncoding('utf8');
  let text = '';
  for await (const chunk of stdin as AsyncIterable<string>) text += chunk;
  return text;
}

/** A table under way. */
interface Draft {
  readonly table: TableName;
  readonly commands: TableCommand[];
  /** Line of each command. */
  readonly lines: number[];
  /** Its lines are passed over: -T names another. */
  readonly isSkipped: boolean;
}

class Restore {
  readonly #context: CliContext;
  readonly #given: ReadonlyMap<string, string>;
  readonly #names: RuleNames;
  #draft: Draft | null = null;
  #line = 0;

  constructor(given: ReadonlyMap<string, string>, context: CliContext) {
    this.#given = given;
    this.#context = context;
    this.#names = new RuleNames(context.err);
  }

  async run(text: string): Promise<number> {
    const lines = text.split('\n');
    if (lines.at(-1) === '') lines.pop();
    for (const line of lines) {
      this.#line++;
      await this.#take(line);
    }
    if (this.#draft !== null) {
      throw new CliError(`${PROGRAM}: COMMIT expected at line ${this.#line + 1}`, Status.Other);
    }
    return Status.Ok;
  }

  async #take(line: string): Promise<void> {
    const { out } = this.#context;
    if (line === '') return;
    if (line[0] === '#') {
      if (this.#given.has('v')) out(`${line}\n`);
      return;
    }
    const draft = this.#draft;
    if (line === 'COMMIT' && draft !== null) return this.#commit(draft);
    if (line[0] === '*' && draft === null) return this.#begin(line);
    if (draft === null) throw this.#failed(this.#line);
    if (draft.isSkipped) return;
    if (line[0] === ':') return this.#chain(draft, line);
    await this.#rule(draft, line);
  }

  async #begin(line: string): Promise<void> {
    const name = line.slice(1).split(/[ \t]/)[0] ?? '';
    const wanted = this.#given.get('T');
    const table = TABLE_NAMES.find((known) => known === name);
    if (name === '') throw this.#problem(`${PROGRAM}: line ${this.#line} table name invalid\n`);
    const isSkipped = wanted !== undefined && wanted !== name;
    if (table === undefined && !isSkipped) throw this.#problem(`${PROGRAM}: unable to initialize table '${name}'`);
    this.#draft = { table: table ?? 'filter', commands: [], lines: [], isSkipped };
    if (isSkipped) return;
    if (this.#given.has('n')) return;
    this.#add({ op: 'flush' });
    this.#add({ op: 'delete-chain' });
    if (this.#given.has('v')) await this.#tellFlush(this.#draft.table);
  }

  async #tellFlush(table: TableName): Promise<void> {
    const { client, out } = this.#context;
    const { chains } = await client.get<TableRow>(`/v1/iptables/${table}`);
    for (const { name } of chains) out(`Flushing chain \`${name}'\n`);
    for (const { name, policy } of chains) if (policy === null) out(`Deleting chain \`${name}'\n`);
  }

  /** `:CHAIN POLICY [packets:bytes]` */
  #chain(draft: Draft, line: string): void {
    const [name = '', policy, counts] = line.slice(1).split(/[ \t]+/);
    if (name === '') throw this.#problem(`${PROGRAM}: line ${this.#line} chain name invalid\n`);
    if (name.length > LONGEST_CHAIN) {
      throw this.#problem(`Invalid chain name \`${name}' (${LONGEST_CHAIN} chars max)`);
    }
    const builtIn: readonly string[] = BUILT_IN_CHAINS[draft.table];
    const isBuiltIn = builtIn.includes(name);
    if (!isBuiltIn) {
      if (['ACCEPT', 'DROP', 'QUEUE', 'RETURN'].includes(name)) {
        throw this.#problem(`error creating chain '${name}':File exists`);
      }
      this.#add({ op: 'make-chain', chain: name });
    }
    if (policy === undefined) throw this.#problem(`${PROGRAM}: line ${this.#line} policy invalid`);
    let counters: RuleCounters | undefined;
    if (this.#given.has('c')) {
      const found = /^\[(\d+):(\d+)\]/.exec(counts ?? '');
      if (found === null) throw this.#problem(`invalid policy counters for chain '${name}'`);
      counters = { packets: Number(found[1]), bytes: Number(found[2]) };
    }
    if (policy === '-' || !isBuiltIn) return;
    if (policy !== 'ACCEPT' && policy !== 'DROP') {
      throw new CliError(
        `${PROGRAM} ${VERSION}: Can't set policy \`${policy}' on \`${name}' line ${this.#line}: Bad policy name`,
        Status.Other,
      );
    }
    this.#add({ op: 'policy', chain: name, policy, counters });
  }

  async #rule(draft: Draft, line: string): Promise<void> {
    let rest = line;
    let counters: string[] = [];
    if (line[0] === '[') {
      const end = line.indexOf(']');
      if (end < 0) throw this.#problem(`Bad line ${this.#line}: need ]\n`.trimEnd());
      const colon = line.indexOf(':');
      if (colon < 0 || colon > end) throw this.#problem(`Bad line ${this.#line}: need :\n`.trimEnd());
      if (this.#given.has('c')) counters = ['-c', line.slice(1, colon), line.slice(colon + 1, end)];
      rest = line.slice(end + 1);
    }
    const words = [...counters, ...splitWords(rest)];
    const parsed = await this.#parse(['-t', draft.table, ...words]);
    if (parsed.command === 'L' || parsed.command === 'S') {
      throw this.#problem(`-${parsed.command} within a table is not supported: list it after its COMMIT`);
    }
    for (const command of tableCommands(parsed)) this.#add(command);
    const isTold = parsed.verbose > 0 || (this.#given.has('v') && !this.#given.has('n'));
    if (isTold && 'AIDRC'.includes(parsed.command)) {
      const form = listForm({ numeric: true }, this.#names);
      for (const rule of parsed.rules) this.#context.out(formatChangedRule(rule, form));
    }
  }

  async #parse(words: readonly string[]): Promise<CommandLine> {
    try {
      const settings = { program: PROGRAM, isRestore: true };
      const { parsed, warnings } = await parseWithNames(words, this.#names, settings);
      if (warnings !== '') this.#context.err(warnings);
      if (parsed.kind === 'command') return parsed.line;
      throw this.#problem('a rule was expected');
    } catch (error) {
      if (!(error instanceof BadRule)) throw error;
      if (error instanceof BadWord) {
        throw new CliError(`${error.message}\n${hint(PROGRAM, this.#line)}`, Status.BadParameter);
      }
      throw this.#problem(error.message);
    }
  }

  async #commit(draft: Draft): Promise<void> {
    this.#draft = null;
    if (draft.isSkipped) return;
    const change = { table: draft.table, commands: draft.commands, isTest: this.#given.has('t') };
    const outcome = await this.#context.client.post<TableOutcome>('/v1/iptables', change);
    if (outcome === null) return;
    const { index, fault, what = '' } = outcome;
    const line = draft.lines[index] ?? this.#line;
    const message = parserMessage(fault, what);
    if (message !== undefined) throw parameterProblem(PROGRAM, message, line);
    throw this.#failed(line);
  }

  #add(command: TableCommand): void {
    this.#draft!.commands.push(command);
    this.#draft!.lines.push(this.#line);
  }

  #failed(line: number): CliError {
    return new CliError(`${PROGRAM}: line ${line} failed`, Status.Other);
  }

  #problem(message: string): CliError {
    return parameterProblem(PROGRAM, message, this.#line);
  }
}

/** Words of a rule's line: parted by blanks; a closing quote ends its word, and within quotes a backslash takes the next character as it is (add_param_to_argv). */
export function splitWords(line: string): string[] {
  const words: string[] = [];
  let word = '';
  let isQuoted = false;
  for (let i = 0; i < line.length; i++) {
    const c = line[i]!;
    if (isQuoted) {
      if (c === '\\') word += line[++i] ?? '';
      else if (c !== '"') word += c;
      else {
        words.push(word);
        word = '';
        isQuoted = false;
      }
    } else if (c === '"') {
      isQuoted = true;
    } else if (c === ' ' || c === '\t') {
      if (word !== '') words.push(word);
      word = '';
    } else {
      word += c;
    }
  }
  if (word !== '' && !isQuoted) words.push(word);
  return words;
}
