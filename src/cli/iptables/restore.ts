/**
 * `iptables-restore`: tables from a file or standard input, each whole at its COMMIT or not at all (iptables/iptables-restore.c). A fault ends it; tables that
 * were committed before stay.
 */
import type { TableChange, TableName, TableOutcome, TableRow } from '../../model/iptables.ts';
import { type CliCommand, type CliContext, CliError } from '../command.ts';
import { LookupNeeded } from '../ipvsadm/names.ts';
import { fileFault, parameterProblem, parserMessage, Status, VERSION } from './failure.ts';
import { formatChangedRule } from './list.ts';
import { listForm, RuleNames } from './names.ts';
import { PROGRAM, RestoreReader, type Step, type TableDraft } from './restore-reader.ts';
import { readSmallOptions, type SmallOption } from './small-options.ts';

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
  { letter: 'b', long: 'binary' },
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
      context.err(USAGE);
      return Status.Ok;
    }
    if (given.has('b')) context.err('-b/--binary option is not implemented\n');
    if (given.has('W')) context.err('Ignoring deprecated --wait-interval option.\n');
    if (given.has('W') && !given.has('w')) {
      throw new CliError('Option --wait-interval requires option --wait', Status.Other);
    }
    const [file, extra] = words;
    if (extra !== undefined) throw new CliError('Unknown arguments found on commandline', Status.Other);
    const text = await readInput(file, context);
    return new Restore(given, context).run(text);
  },
};

async function readInput(file: string | undefined, { stdin }: CliContext): Promise<string> {
  if (file !== undefined && file !== '-') {
    const { readFile } = await import('node:fs/promises');
    return readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => {
      throw new CliError(`Can't open ${file}: ${fileFault(error)}`, Status.Other);
    });
  }
  stdin.setEncoding('utf8');
  let text = '';
  for await (const chunk of stdin as AsyncIterable<string>) text += chunk;
  return text;
}

class Restore {
  readonly #context: CliContext;
  readonly #given: ReadonlyMap<string, string>;
  readonly #names: RuleNames;
  readonly #reader: RestoreReader;

  constructor(given: ReadonlyMap<string, string>, context: CliContext) {
    const { out, err } = context;
    this.#given = given;
    this.#context = context;
    this.#names = new RuleNames(err);
    this.#reader = new RestoreReader({ given, names: this.#names, out, warn: err });
  }

  async run(text: string): Promise<number> {
    const lines = text.split('\n');
    if (lines.at(-1) === '') lines.pop();
    try {
      for (const line of lines) {
        this.#reader.line++;
        await this.#take(line);
      }
      this.#reader.end();
    } catch (error) {
      if (error instanceof CliError && this.#reader.draft !== null) await this.#failEarlier(this.#reader.draft);
      throw error;
    }
    return Status.Ok;
  }

  /** The classic tool does line after line: of what is wrong with a table before its COMMIT, the first is told. @throws CliError */
  async #failEarlier({ table, commands, lines }: TableDraft): Promise<void> {
    const outcome = await this.#post({ table, commands, isTest: true });
    if (outcome !== null && outcome.index >= 0) throw this.#failure(outcome, lines);
  }

  #post(change: TableChange): Promise<TableOutcome> {
    return this.#context.client.post<TableOutcome>('/v1/iptables', change);
  }

  /** A line whose host must be looked up is read again. */
  async #take(line: string): Promise<void> {
    for (;;) {
      try {
        return await this.#do(this.#reader.take(line));
      } catch (error) {
        if (!(error instanceof LookupNeeded)) throw error;
        await this.#names.lookUpAddress(error.host);
      }
    }
  }

  async #do(step: Step): Promise<void> {
    switch (step?.do) {
      case 'commit':
        return this.#commit(step.draft);
      case 'begin':
        return this.#given.has('v') ? this.#tellFlush(step.draft.table) : undefined;
      case 'tell': {
        const form = listForm({ numeric: true }, this.#names);
        for (const rule of step.rules) this.#context.out(formatChangedRule(rule, form));
        return;
      }
      default:
    }
  }

  async #tellFlush(table: TableName): Promise<void> {
    const { client, out } = this.#context;
    const { chains } = await client.get<TableRow>(`/v1/iptables/${table}`);
    for (const { name } of chains) out(`Flushing chain \`${name}'\n`);
    for (const { name, policy } of chains) if (policy === null) out(`Deleting chain \`${name}'\n`);
  }

  async #commit({ table, commands, lines }: TableDraft): Promise<void> {
    const outcome = await this.#post({ table, commands, isTest: this.#given.has('t') });
    if (outcome !== null) throw this.#failure(outcome, lines);
  }

  #failure({ index, fault, what = '' }: NonNullable<TableOutcome>, lines: readonly number[]): CliError {
    const line = lines[index] ?? this.#reader.line;
    const message = parserMessage(fault, what);
    return message === undefined ? this.#reader.failed(line) : parameterProblem(PROGRAM, message, line);
  }
}
