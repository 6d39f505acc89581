/**
 * The text that iptables-restore reads, line by line: the tables that it makes, and what is wrong with it (iptables/iptables-restore.c). Asks nobody: a host whose
 * address is not known yet is thrown as LookupNeeded, before its line has changed anything.
 */
import { BadRule } from '../../filter/extension.ts';
import { BadWord, type CommandLine, type ParseSettings, parseLine } from '../../filter/parse.ts';
import type { Rule } from '../../filter/rule.ts';
import {
  BUILT_IN_CHAINS,
  isChainTooLong,
  LARGEST_COUNT,
  LONGEST_CHAIN,
  type RuleCounters,
  TABLE_NAMES,
  type TableCommand,
  type TableName,
} from '../../model/iptables.ts';
import { CliError } from '../command.ts';
import { tableCommands } from './commands.ts';
import { hint, parameterProblem, Status, VERSION } from './failure.ts';

export const PROGRAM = 'iptables-restore';

/** A table under way. */
export interface TableDraft {
  readonly table: TableName;
  readonly commands: TableCommand[];
  /** Line of each command. */
  readonly lines: number[];
}

/** What a line asks for beyond being read. */
export type Step =
  | { readonly do: 'commit'; readonly draft: TableDraft }
  /** A table begins that is emptied first. */
  | { readonly do: 'begin'; readonly draft: TableDraft }
  | { readonly do: 'tell'; readonly rules: readonly Rule[] }
  | null;

export interface ReaderParts {
  /** Options of iptables-restore, by letter. */
  readonly given: ReadonlyMap<string, string>;
  readonly names: ParseSettings['names'];
  readonly out: (text: string) => void;
  readonly warn: (text: string) => void;
}

export class RestoreReader {
  readonly #parts: ReaderParts;
  #draft: TableDraft | null = null;
  /** Named by the last line that could begin a table; -T passes over what stands behind another. */
  #lastTable = '';
  /** Chains of the table that its text has made. */
  readonly #made = new Set<string>();
  /** Of the text, from 1; set by who reads. */
  line = 0;

  constructor(parts: ReaderParts) {
    this.#parts = parts;
  }

  /** The table under way. */
  get draft(): TableDraft | null {
    return this.#draft;
  }

  get #given(): ReadonlyMap<string, string> {
    return this.#parts.given;
  }

  /** After the last line. @throws CliError */
  end(): void {
    if (this.#draft !== null) throw new CliError(`${PROGRAM}: COMMIT expected at line ${this.line + 1}`, Status.Other);
  }

  /** @throws CliError, LookupNeeded */
  take(line: string): Step {
    if (line === '') return null;
    if (line[0] === '#') {
      if (this.#given.has('v')) this.#parts.out(`${line}\n`);
      return null;
    }
    const draft = this.#draft;
    if (line === 'COMMIT' && draft !== null) {
      this.#draft = null;
      return { do: 'commit', draft };
    }
    if (line[0] === '*' && draft === null) return this.#begin(line);
    if (draft === null) {
      if (this.#isPassedOver()) return null;
      throw this.failed(this.line);
    }
    if (line[0] !== ':') return this.#rule(draft, line);
    this.#chain(draft, line);
    return null;
  }

  #begin(line: string): Step {
    const [name = ''] = tokens(line.slice(1));
    const table = TABLE_NAMES.find((known) => known === name);
    if (name === '') throw this.#problem(`${PROGRAM}: line ${this.line} table name invalid`);
    this.#lastTable = name;
    if (this.#isPassedOver()) return null;
    if (table === undefined) throw this.#problem(`${PROGRAM}: unable to initialize table '${name}'`);
    const draft: TableDraft = { table, commands: [], lines: [] };
    this.#draft = draft;
    this.#made.clear();
    if (this.#given.has('n')) return null;
    this.#add({ op: 'flush' });
    this.#add({ op: 'delete-chain' });
    return { do: 'begin', draft };
  }

  #isPassedOver(): boolean {
    const wanted = this.#given.get('T');
    return wanted !== undefined && wanted !== this.#lastTable;
  }

  /** `:CHAIN POLICY [packets:bytes]` */
  #chain(draft: TableDraft, line: string): void {
    const [name = '', policy, counts] = tokens(line.slice(1));
    if (name === '') throw this.#problem(`${PROGRAM}: line ${this.line} chain name invalid`);
    if (isChainTooLong(name)) {
      throw this.#problem(`Invalid chain name \`${name}' (${LONGEST_CHAIN} chars max)`);
    }
    const builtIn: readonly string[] = BUILT_IN_CHAINS[draft.table];
    const isBuiltIn = builtIn.includes(name);
    if (!isBuiltIn) {
      const isTwice = this.#made.has(name) && !this.#given.has('n');
      if (isTwice || ['ACCEPT', 'DROP', 'QUEUE', 'RETURN'].includes(name)) {
        throw this.#problem(`error creating chain '${name}':File exists`);
      }
      this.#made.add(name);
      this.#add({ op: 'make-chain', chain: name });
    }
    if (policy === undefined) throw this.#problem(`${PROGRAM}: line ${this.line} policy invalid`);
    if (policy === '-') return;
    let counters: RuleCounters | undefined;
    if (this.#given.has('c')) {
      const found = /^\[(\d+):(\d+)\]/.exec(counts ?? '');
      if (found === null) throw this.#problem(`invalid policy counters for chain '${name}'`);
      counters = {
        packets: Math.min(Number(found[1]), LARGEST_COUNT),
        bytes: Math.min(Number(found[2]), LARGEST_COUNT),
      };
    }
    if (!isBuiltIn || (policy !== 'ACCEPT' && policy !== 'DROP')) {
      const why = isBuiltIn ? 'Bad policy name' : 'Bad built-in chain name';
      throw new CliError(
        `${PROGRAM} ${VERSION}: Can't set policy \`${policy}' on \`${name}' line ${this.line}: ${why}`,
        Status.Other,
      );
    }
    this.#add({ op: 'policy', chain: name, policy, counters });
  }

  #rule(draft: TableDraft, line: string): Step {
    let rest = line;
    let counters: string[] = [];
    if (line[0] === '[') {
      const [all, packets = '', bytes = ''] = /^\[:*([^:\]]+):([^\]]*)\]/.exec(line) ?? [];
      if (all === undefined) throw this.#problem(`Bad line ${this.line}: need ]`);
      if (this.#given.has('c')) counters = ['-c', packets, bytes];
      rest = line.slice(all.length);
    }
    const words = [...counters, ...splitWords(rest)];
    const parsed = this.#parse(['-t', draft.table, ...words]);
    if (parsed === null) return null;
    if (parsed.command === 'L' || parsed.command === 'S') {
      throw this.#problem(`-${parsed.command} within a table is not supported: list it after its COMMIT`);
    }
    // No chain has no name.
    if (parsed.chain === '') throw this.failed(this.line);
    for (const command of tableCommands(parsed)) this.#add(command);
    const isTold = parsed.verbose > 0 || (this.#given.has('v') && !this.#given.has('n'));
    return isTold && 'AIDRC'.includes(parsed.command) ? { do: 'tell', rules: parsed.rules } : null;
  }

  /** Null: a line for ip6tables-restore. */
  #parse(words: readonly string[]): CommandLine | null {
    let warnings = '';
    const warn = (text: string): void => {
      warnings += text;
    };
    try {
      const parsed = parseLine(words, { program: PROGRAM, isRestore: true, names: this.#parts.names, warn });
      this.#parts.warn(warnings);
      if (parsed.kind === 'command') return parsed.line;
      if (parsed.kind === 'not-ipv4') return null;
    } catch (error) {
      if (!(error instanceof BadRule)) throw error;
      this.#parts.warn(warnings);
      if (error instanceof BadWord) {
        throw new CliError(`${error.message}\n${hint(PROGRAM, this.line)}`, Status.BadParameter);
      }
      throw this.#problem(error.message);
    }
    throw this.#problem('a rule was expected');
  }

  #add(command: TableCommand): void {
    this.#draft!.commands.push(command);
    this.#draft!.lines.push(this.line);
  }

  failed(line: number): CliError {
    return new CliError(`${PROGRAM}: line ${line} failed`, Status.Other);
  }

  #problem(message: string): CliError {
    return parameterProblem(PROGRAM, message, this.line);
  }
}

/** As strtok(3) parts a line. */
function tokens(text: string): readonly string[] {
  return text.split(/[ \t]+/).filter((word) => word !== '');
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
