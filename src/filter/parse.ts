/**
 * A command line of iptables, or one line of iptables-restore → what it asks for. Messages, and their order, are those of the classic tool (do_parse in
 * iptables/xshared.c, 1.8.9), which says most of them behind its name and version; the caller adds that. One piece, for it is one pass over the words: what an option
 * means depends on those before it (-p and -m bring options along), and the order of the checks is the order of the messages.
 */
import { isChainTooLong, LARGEST_COUNT, LONGEST_CHAIN } from '../model/iptables.ts';
import { parseIp4 } from '../wire/addr.ts';
import {
  BadRule,
  type MatchExtension,
  type OptionSpec,
  type PortNames,
  type Reading,
  type TargetExtension,
} from './extension.ts';
import { findMatch, findTarget } from './registry.ts';
import { type Header, Inverted, newHeader, type Rule, type Target, type VerdictName } from './rule.ts';
import { type Network, parseNumber, protocolName, readNetworks, readProtocol } from './values.ts';
import type { LongOption, ShortOptions, Word } from './words.ts';
import { WordReader } from './words.ts';

export interface Names extends PortNames {
  /** Addresses of a host. May throw to be called again later. */
  hostAddress(host: string): string | undefined;
}

/** Letters of the commands; `d` and `z` are -D and -Z with a rule's number. */
export type CommandLetter = 'A' | 'C' | 'D' | 'd' | 'R' | 'I' | 'L' | 'S' | 'F' | 'Z' | 'z' | 'N' | 'X' | 'E' | 'P';

export interface CommandLine {
  readonly command: CommandLetter;
  readonly table: string;
  /** -t was there. */
  readonly hasTable: boolean;
  readonly chain: string | undefined;
  /** Of -D, -R, -I, -L, -S, -Z; 0 when absent. */
  readonly number: number;
  /** -Z beside -L or -S: a chain or all of them, or the rule with the number. */
  readonly alsoZero: false | 'chains' | 'rule';
  readonly newName: string;
  readonly policy: string;
  /** One for each pair of addresses. */
  readonly rules: readonly Rule[];
  readonly counters: { readonly packets: number; readonly bytes: number } | undefined;
  readonly verbose: number;
  readonly numeric: boolean;
  readonly exact: boolean;
  readonly lineNumbers: boolean;
}

/** -h, with the extensions named before it; -V; -6, which this is not. */
export type ParsedLine =
  | { readonly kind: 'command'; readonly line: CommandLine }
  | {
      readonly kind: 'help';
      readonly matches: readonly MatchExtension[];
      readonly target: TargetExtension | 'verdict' | undefined;
    }
  | { readonly kind: 'version' }
  | { readonly kind: 'not-ipv4' };

/** Ends with the hint to the help only, behind this line. */
export class BadWord extends BadRule {}

export interface ParseSettings {
  readonly names: Names | null;
  warn(text: string): void;
  /** Within a restore: no -w, and -t once only, for the restore itself gives it. */
  readonly isRestore?: boolean;
  /** The words are those of one rule: more than one address is a fault, before a rule is made for each. */
  readonly isOneRule?: boolean;
  /** The error's name for the program: `iptables-restore`. */
  readonly program: string;
}

const NOT_ONE = 'not one rule';
const LONGEST_DEVICE = 15;
/** Of -W, in microseconds. */
const LONGEST_INTERVAL = 999_999;

type Letter = string;
const LONG_NAMES: readonly (readonly [string, Letter, LongOption['value']])[] = [
  ['append', 'A', 'required'], ['delete', 'D', 'required'], ['check', 'C', 'required'], ['insert', 'I', 'required'],
  ['replace', 'R', 'required'], ['list', 'L', 'optional'], ['list-rules', 'S', 'optional'], ['flush', 'F', 'optional'],
  ['zero', 'Z', 'optional'], ['new-chain', 'N', 'required'], ['delete-chain', 'X', 'optional'],
  ['rename-chain', 'E', 'required'], ['policy', 'P', 'required'], ['source', 's', 'required'],
  ['destination', 'd', 'required'], ['src', 's', 'required'], ['dst', 'd', 'required'], ['protocol', 'p', 'required'],
  ['in-interface', 'i', 'required'], ['jump', 'j', 'required'], ['table', 't', 'required'], ['match', 'm', 'required'],
  ['numeric', 'n', 'none'], ['out-interface', 'o', 'required'], ['verbose', 'v', 'none'], ['wait', 'w', 'optional'],
  ['wait-interval', 'W', 'optional'], ['exact', 'x', 'none'], ['fragments', 'f', 'none'], ['version', 'V', 'none'],
  ['help', 'h', 'optional'], ['line-numbers', '0', 'none'], ['modprobe', 'M', 'required'],
  ['set-counters', 'c', 'required'], ['goto', 'g', 'required'], ['ipv4', '4', 'none'], ['ipv6', '6', 'none'],
]; // biome-ignore format: a table
const LONG: readonly LongOption[] = LONG_NAMES.map(([name, tag, value]) => ({ name, tag, value }));
const SHORT: ShortOptions = new Map(
  LONG.flatMap((option) => (typeof option.tag === 'string' && option.tag !== '0' ? [[option.tag, option]] : [])),
);

/** Options that only some commands have, by command (generic_opt_check). `c` and `p` are what all may have. */
const ALLOWED: Readonly<Record<CommandLetter, string>> = {
  I: 'sdpjviocf', D: 'sdpjviof', d: 'v', R: 'sdpjviocf', A: 'sdpjviocf', L: 'nvx0', F: 'v', Z: 'v', z: 'v', N: 'v',
  X: 'v', P: 'vc', E: 'v', S: 'v', C: 'sdpjviof',
}; // biome-ignore format: a table
const CHECKED = 'nsdpjvxio0cf';
const INVERTIBLE: Readonly<Record<string, number>> = {
  p: Inverted.Proto, s: Inverted.Src, d: Inverted.Dst, i: Inverted.In, o: Inverted.Out, f: Inverted.Fragment,
}; // biome-ignore format: a table

/** Option of an extension in the reader's table; it is for the use of that extension that came last. */
interface ExtensionTag {
  readonly extension: MatchExtension | TargetExtension;
  readonly option: OptionSpec<unknown>;
}

const EVERYWHERE: readonly Network[] = [{ ip: 0, mask: 0 }];

/** An extension under way. */
interface Use {
  readonly extension: MatchExtension | TargetExtension;
  readonly options: unknown;
  readonly given: Set<string>;
}

/** @throws BadRule, and whatever `names` throws */
export function parseLine(words: readonly string[], settings: ParseSettings): ParsedLine {
  return new Parser(words, settings).run();
}

/** @throws BadRule when the words, as `-S` prints them behind the chain, are no rule */
export function parseRule(words: readonly string[]): Rule {
  const settings = { names: null, warn: () => {}, isRestore: true, isOneRule: true, program: 'iptables' };
  const parsed = parseLine(['-A', 'X', ...words], settings);
  if (parsed.kind !== 'command' || parsed.line.command !== 'A') throw new BadRule(NOT_ONE);
  return parsed.line.rules[0]!;
}

class Parser {
  readonly #settings: ParseSettings;
  readonly #reader: WordReader;
  readonly #header: Header = newHeader();
  readonly #matches: Use[] = [];
  #target: Use | undefined;
  #jump: string | undefined;
  #isGoto = false;
  /** Letters of options that were there. */
  readonly #given = new Set<Letter>();
  #isInverted = false;
  #command: CommandLetter | undefined;
  #alsoZero: CommandLine['alsoZero'] = false;
  #chain: string | undefined;
  #number = 0;
  #newName = '';
  #policy = '';
  #table = 'filter';
  #hasTable = false;
  #verbose = 0;
  #counters: { packets: number; bytes: number } | undefined;
  #source: string | undefined;
  #destination: string | undefined;
  #hasWait = false;
  #hasInterval = false;
  #protocol: string | undefined;
  #isProtocolLoaded = false;

  constructor(words: readonly string[], settings: ParseSettings) {
    this.#settings = settings;
    this.#reader = new WordReader(settings.program, words, SHORT, LONG);
  }

  run(): ParsedLine {
    for (let word = this.#reader.next(); word !== undefined; word = this.#reader.next()) {
      const end = this.#take(word);
      if (end === 'again') {
        this.#reader.again();
        continue;
      }
      if (end !== undefined) return end;
    }
    return { kind: 'command', line: this.#finish() };
  }

  /** Undefined to go on. */
  #take(word: Word): ParsedLine | 'again' | undefined {
    if (word.kind === 'other') {
      if (word.text !== '!') throw new BadWord(`Bad argument \`${word.text}'`);
      if (this.#isInverted) throw new BadRule('multiple consecutive ! not allowed');
      this.#isInverted = true;
      return undefined;
    }
    if (word.kind === 'fault') {
      if (this.#loadProtocol()) return 'again';
      throw new BadRule(word.isKnown ? `option "${word.word}" requires an argument` : `unknown option "${word.word}"`);
    }
    const { tag, value } = word;
    const end =
      typeof tag === 'string'
        ? this.#option(tag, value ?? '', value)
        : this.#extensionOption(tag as ExtensionTag, value);
    this.#isInverted = false;
    return end;
  }

  #option(letter: Letter, value: string, given: string | undefined): ParsedLine | undefined {
    const reader = this.#reader;
    switch (letter) {
      case 'A':
      case 'C':
        this.#setCommand(letter, '');
        this.#chain = value;
        return undefined;
      case 'D': {
        this.#setCommand('D', '');
        this.#chain = value;
        const number = reader.takeWord();
        if (number === undefined) return undefined;
        this.#number = readRuleNumber(number);
        this.#command = 'd';
        return undefined;
      }
      case 'R':
      case 'I': {
        this.#setCommand(letter, '');
        this.#chain = value;
        const number = reader.takeWord();
        if (number === undefined && letter === 'R') throw new BadRule('-R requires a rule number');
        this.#number = number === undefined ? 1 : readRuleNumber(number);
        return undefined;
      }
      case 'L':
      case 'S': {
        this.#setCommand(letter, 'Zz');
        this.#chain = given ?? reader.takeWord() ?? this.#chain;
        const number = reader.takeWord();
        if (number !== undefined) this.#number = readRuleNumber(number);
        return undefined;
      }
      case 'F':
      case 'X':
        this.#setCommand(letter, '');
        this.#chain = given ?? reader.takeWord();
        return undefined;
      case 'Z': {
        this.#setCommand('Z', 'LS');
        this.#chain = given ?? reader.takeWord() ?? this.#chain;
        const number = reader.takeWord();
        if (number === undefined) return undefined;
        this.#number = readRuleNumber(number);
        // A list that was asked for before is forgotten, as the tool does.
        this.#command = 'z';
        return undefined;
      }
      case 'N':
        checkChainName(value);
        this.#setCommand('N', '');
        this.#chain = value;
        return undefined;
      case 'E':
      case 'P': {
        this.#setCommand(letter, '');
        this.#chain = value;
        const second = reader.takeWord();
        if (second === undefined) {
          throw new BadRule(
            letter === 'E' ? '-E requires old-chain-name and new-chain-name' : '-P requires a chain and a policy',
          );
        }
        if (letter === 'E') this.#newName = second;
        else this.#policy = second;
        return undefined;
      }
      case 'h': {
        const named = this.#matches.length === 0 ? findMatch(this.#protocol ?? '') : undefined;
        if (named !== undefined) this.#load(named);
        const matches = this.#matches.map((use) => use.extension as MatchExtension);
        const target = this.#target?.extension as TargetExtension | undefined;
        return { kind: 'help', matches, target: target ?? (this.#hasVerdict() ? 'verdict' : undefined) };
      }
      case 'V':
        return { kind: 'version' };
      case '4':
        return undefined;
      case '6':
        return { kind: 'not-ipv4' };
      default:
        this.#ruleOption(letter, value, given);
        return undefined;
    }
  }

  #ruleOption(letter: Letter, value: string, given: string | undefined): void {
    const header = this.#header;
    switch (letter) {
      case 'p':
        this.#set('p');
        this.#protocol = value.toLowerCase();
        header.proto = readProtocol(this.#protocol);
        if (header.proto === 0 && (header.inverted & Inverted.Proto) !== 0) {
          throw new BadRule('rule would never match protocol');
        }
        return;
      case 's':
        this.#set('s');
        this.#source = value;
        return;
      case 'd':
        this.#set('d');
        this.#destination = value;
        return;
      case 'i':
        this.#device(value);
        this.#set('i');
        header.inDevice = value;
        return;
      case 'o':
        this.#device(value);
        this.#set('o');
        header.outDevice = value;
        return;
      case 'f':
        this.#set('f');
        header.isFragment = true;
        return;
      case 'j':
      case 'g':
        this.#set('j');
        this.#jumpTo(value, letter === 'g');
        return;
      case 'm': {
        if (this.#isInverted) throw new BadRule('unexpected ! flag before --match');
        const extension = findMatch(value);
        if (extension === undefined) {
          throw new BadRule(`Couldn't load match \`${value}':No such file or directory\n`);
        }
        this.#load(extension);
        return;
      }
      case 'c':
        this.#set('c');
        this.#readCounters(value);
        return;
      case 'v':
        if (this.#verbose === 0) this.#set('v');
        this.#verbose++;
        return;
      case 'n':
      case 'x':
      case '0':
        this.#set(letter);
        return;
      default:
        this.#programOption(letter, value, given);
    }
  }

  #programOption(letter: Letter, value: string, given: string | undefined): void {
    const { isRestore = false, program } = this.#settings;
    if (letter === 't') {
      if (this.#isInverted) throw new BadRule('unexpected ! flag before --table');
      if (isRestore && this.#hasTable) throw new BadRule(`The -t option cannot be used in ${program}.\n`);
      this.#table = value;
      this.#hasTable = true;
      return;
    }
    if (letter !== 'w' && letter !== 'W') return; // --modprobe: there are no modules here
    if (isRestore) throw new BadRule(`You cannot use \`-${letter}' from iptables-restore`);
    // Commands here never wait for each other, so there is nothing to bound.
    const wait = given ?? this.#reader.takeWord();
    if (letter === 'w') {
      if (wait !== undefined && !/^\s*[-+]?[0-9]/.test(wait)) throw new BadRule('wait seconds not numeric');
      this.#hasWait = true;
      return;
    }
    if (wait === undefined) throw new BadRule('wait interval value required');
    const microseconds = parseNumber(wait);
    if (microseconds === undefined) throw new BadRule('wait interval not numeric');
    if (microseconds > LONGEST_INTERVAL) {
      throw new BadRule(`too long usec wait ${microseconds} > ${LONGEST_INTERVAL} usec`);
    }
    this.#settings.warn('Ignoring deprecated --wait-interval option.\n');
    this.#hasInterval = true;
  }

  /** set_option */
  #set(letter: Letter): void {
    if (this.#given.has(letter)) throw new BadRule(`multiple -${letter} flags not allowed`);
    this.#given.add(letter);
    if (!this.#isInverted) return;
    const bit = INVERTIBLE[letter];
    if (bit === undefined) throw new BadRule(`cannot have ! before -${letter}`);
    this.#header.inverted |= bit;
  }

  /** add_command: only listing and zeroing go together. */
  #setCommand(letter: CommandLetter, others: string): void {
    if (this.#isInverted) throw new BadRule("unexpected '!' flag");
    const isAgain = letter === 'Z' && this.#alsoZero !== false;
    if (this.#command !== undefined && (isAgain || !others.includes(this.#command))) {
      throw new BadRule(`Cannot use -${letter} with -${isAgain ? 'Z' : this.#command.toUpperCase()}\n`.trimEnd());
    }
    if (this.#command !== undefined) this.#alsoZero = this.#command === 'z' ? 'rule' : 'chains';
    if (this.#command === undefined || letter !== 'Z') this.#command = letter;
  }

  /** xtables_parse_interface */
  #device(name: string): void {
    if (name === '') throw new BadRule('Empty interface is likely to be undesired');
    if (name.length > LONGEST_DEVICE) {
      throw new BadRule(`interface name \`${name}' must be shorter than IFNAMSIZ (${LONGEST_DEVICE})`);
    }
    if (/[/\s]/.test(name)) {
      this.#settings.warn(
        `Warning: weird character in interface \`${name}' ('/' and ' ' are not allowed by the kernel).\n`,
      );
    }
  }

  /** xt_parse_target, command_jump */
  #jumpTo(name: string, isGoto: boolean): void {
    if (name.length < 1) throw new BadRule('Invalid target name (too short)');
    if (isChainTooLong(name)) throw new BadRule(`Invalid target name \`${name}' (${LONGEST_CHAIN} chars max)`);
    if (/\s/.test(name)) throw new BadRule(`Invalid target name \`${name}'`);
    this.#jump = name;
    this.#isGoto = isGoto;
    const extension = isGoto ? undefined : findTarget(name);
    if (extension === undefined) return;
    this.#target = newUse(extension);
    this.#reader.add(longOptions(extension));
  }

  #load(extension: MatchExtension): void {
    const use = newUse(extension);
    this.#matches.push(use);
    this.#reader.add(longOptions(extension));
  }

  /** load_proto: an option that nobody knows may be one of the protocol's match. */
  #loadProtocol(): boolean {
    if (this.#protocol === undefined || this.#isProtocolLoaded) return false;
    const name = protocolName(this.#header.proto) ?? this.#protocol;
    const extension = findMatch(name);
    if (extension === undefined) return false;
    this.#isProtocolLoaded = true;
    this.#load(extension);
    return true;
  }

  #extensionOption({ extension, option }: ExtensionTag, value: string | undefined): undefined {
    const use =
      this.#target?.extension === extension ? this.#target : this.#matches.findLast((m) => m.extension === extension);
    const { given, options } = use!;
    if (given.has(option.name) && option.canRepeat !== true) {
      throw new BadRule(`${extension.name}: option "--${option.name}" can only be used once.\n`);
    }
    if (this.#isInverted && option.canInvert !== true) {
      throw new BadRule(`${extension.name}: option "--${option.name}" cannot be inverted.\n`);
    }
    given.add(option.name);
    const reading: Reading = {
      header: this.#header,
      names: this.#settings.names,
      takeWord: () => this.#reader.takeWord(),
      warn: (text) => this.#settings.warn(text),
    };
    option.read(options, value ?? '', this.#isInverted, reading);
    return undefined;
  }

  #readCounters(value: string): void {
    const comma = value.indexOf(',', 1);
    const packets = value;
    const bytes = comma < 0 ? this.#reader.takeWord() : value.slice(comma + 1);
    if (bytes === undefined) throw new BadRule('-c requires packet and byte counter');
    this.#counters = { packets: readCounter(packets, 'packet'), bytes: readCounter(bytes, 'byte') };
  }

  #finish(): CommandLine {
    const table = this.#table;
    if (table === 'nat' && (this.#policy === 'DROP' || this.#jump === 'DROP')) {
      throw new BadRule('\nThe "nat" table is not intended for filtering, the use of DROP is therefore inhibited.\n\n');
    }
    if (!this.#hasWait && this.#hasInterval) throw new BadRule('--wait-interval only makes sense with --wait\n');
    for (const use of this.#matches) this.#finishUse(use);
    if (this.#target !== undefined) this.#finishUse(this.#target);
    if (!this.#reader.isAtEnd) throw new BadRule('unknown arguments found on commandline');
    const command = this.#command;
    if (command === undefined) throw new BadRule('no command specified');
    if (this.#isInverted) throw new BadRule('nothing appropriate following !');
    const pairs = this.#pairs();
    if (command === 'R' && pairs.length !== 1) {
      throw new BadRule('Replacement rule does not specify a unique address');
    }
    for (const letter of CHECKED) {
      if (this.#given.has(letter) && !ALLOWED[command].includes(letter)) {
        throw new BadRule(`Illegal option \`-${letter}' with this command`);
      }
    }
    const chain = this.#chain;
    if (chain !== undefined) checkLength(chain);
    if ('ADdCIR'.includes(command)) this.#checkDevices(chain ?? '');
    return {
      command,
      table,
      hasTable: this.#hasTable,
      chain,
      number: this.#number,
      alsoZero: this.#alsoZero,
      newName: this.#newName,
      policy: this.#policy,
      rules: pairs.map(([src, dst]) => this.#rule(src, dst)),
      counters: this.#counters,
      verbose: this.#verbose,
      numeric: this.#given.has('n'),
      exact: this.#given.has('x'),
      lineNumbers: this.#given.has('0'),
    };
  }

  #checkDevices(chain: string): void {
    const { inDevice, outDevice } = this.#header;
    const hasOut = outDevice !== '';
    if (hasOut && (chain === 'PREROUTING' || chain === 'INPUT')) throw new BadRule(`Can't use -o with ${chain}\n`);
    if (inDevice !== '' && (chain === 'POSTROUTING' || chain === 'OUTPUT')) {
      throw new BadRule(`Can't use -i with ${chain}\n`);
    }
  }

  /** Options that must be there, and those that do not go together (xtables_options_fcheck). */
  #finishUse({ extension, options, given }: Use): void {
    extension.finish?.(options, this.#header, given);
    for (const option of extension.options) {
      if (option.isRequired === true && !given.has(option.name)) {
        throw new BadRule(`${extension.name}: option "--${option.name}" must be specified\n`);
      }
      if (!given.has(option.name)) continue;
      const other = option.excludes?.find((name) => given.has(name));
      if (other !== undefined) {
        throw new BadRule(`${extension.name}: option "--${option.name}" cannot be used together with "--${other}".\n`);
      }
    }
  }

  #pairs(): (readonly [Network, Network])[] {
    const hosts = (name: string): readonly string[] | undefined => {
      const address = this.#settings.names?.hostAddress(name);
      return address === undefined || parseIp4(address) === undefined ? undefined : [address];
    };
    const sources = this.#source === undefined ? EVERYWHERE : readNetworks(this.#source, hosts);
    const destinations = this.#destination === undefined ? EVERYWHERE : readNetworks(this.#destination, hosts);
    const isMany = sources.length > 1 || destinations.length > 1;
    if (isMany && this.#settings.isOneRule === true) throw new BadRule(NOT_ONE);
    if (isMany && (this.#header.inverted & (Inverted.Src | Inverted.Dst)) !== 0) {
      throw new BadRule('! not allowed with multiple source or destination IP addresses');
    }
    return sources.flatMap((src) => destinations.map((dst) => [src, dst] as const));
  }

  #rule(src: Network, dst: Network): Rule {
    const header = { ...this.#header, src: src.ip, srcMask: src.mask, dst: dst.ip, dstMask: dst.mask };
    const matches = this.#matches.map(({ extension, options }) => ({
      extension: extension as MatchExtension,
      options,
    }));
    return { header, matches, target: this.#targetOf() };
  }

  #targetOf(): Target {
    const name = this.#jump;
    if (this.#target !== undefined) {
      const { extension, options } = this.#target;
      return { kind: 'extension', extension: extension as TargetExtension, options };
    }
    if (name === undefined) return { kind: 'none' };
    return this.#hasVerdict()
      ? { kind: 'verdict', name: name as VerdictName }
      : { kind: 'chain', name, isGoto: this.#isGoto };
  }

  #hasVerdict(): boolean {
    const name = this.#jump;
    return !this.#isGoto && (name === 'ACCEPT' || name === 'DROP' || name === 'QUEUE' || name === 'RETURN');
  }
}

function newUse(extension: MatchExtension | TargetExtension): Use {
  return { extension, options: extension.init(), given: new Set() };
}

const longNames = new Map<MatchExtension | TargetExtension, readonly LongOption[]>();

function longOptions(extension: MatchExtension | TargetExtension): readonly LongOption[] {
  let names = longNames.get(extension);
  if (names === undefined) {
    names = extension.options.flatMap((option) => {
      const tag: ExtensionTag = { extension, option };
      const value = option.value ?? 'required';
      return [option.name, ...(option.aliases ?? [])].map((name) => ({ name, value, tag }));
    });
    longNames.set(extension, names);
  }
  return names;
}

/** parse_rulenumber */
function readRuleNumber(text: string): number {
  const number = parseNumber(text, 0x7fffffff);
  if (number === undefined || number === 0) throw new BadRule(`Invalid rule number \`${text}'`);
  return number;
}

function checkLength(chain: string): void {
  if (!isChainTooLong(chain)) return;
  throw new BadRule(`chain name \`${chain}' too long (must be under ${LONGEST_CHAIN + 1} chars)`);
}

/** parse_chain */
function checkChainName(name: string): void {
  checkLength(name);
  if (name[0] === '-' || name[0] === '!')
    throw new BadRule(`chain name not allowed to start with \`${name[0]}'\n`.trimEnd());
  const isTarget = ['ACCEPT', 'DROP', 'QUEUE', 'RETURN', ''].includes(name) || findTarget(name) !== undefined;
  if (isTarget) throw new BadRule('chain name may not clash with target name\n'.trimEnd());
  if (/\s/.test(name)) throw new BadRule(`Invalid chain name \`${name}'`);
}

function readCounter(text: string, what: string): number {
  const digits = /^\s*\+?([0-9]+)/.exec(text)?.[1];
  if (digits === undefined) throw new BadRule(`-c ${what} counter not numeric`);
  return Math.min(Number(digits), LARGEST_COUNT);
}
