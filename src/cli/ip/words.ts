/** iproute2's way with words: a cursor over them, names by any beginning, keywords in any order, and what it says when they make no sense. */
import { parseIp4, parsePrefix } from '../../wire/addr.ts';
import { CliError } from '../command.ts';

/** iproute2 leaves with -1 for most misuses, with 1 for values that it cannot read. */
const MISUSE = 255;
const BAD_VALUE = 1;

export class Words {
  readonly #words: readonly string[];
  #at = 0;

  constructor(words: readonly string[]) {
    this.#words = words;
  }

  /** The next word, which stays. */
  get head(): string | undefined {
    return this.#words[this.#at];
  }

  take(): string | undefined {
    return this.#words[this.#at++];
  }

  /** The value of the keyword that was just taken. */
  value(): string {
    const word = this.take();
    if (word === undefined) throw new CliError('Command line is not complete. Try option "help"', MISUSE);
    return word;
  }
}

/** The first of `names` that begins with the word. */
export function nameOf<N extends string>(word: string, names: readonly N[]): N | undefined {
  return names.find((name) => name.startsWith(word));
}

export function garbage(keyword: string, word: string): CliError {
  return new CliError(`Error: either "${keyword}" is duplicate, or "${word}" is a garbage.`, MISUSE);
}

export function wrongArgument(word: string, why: string): CliError {
  return new CliError(`Error: argument "${word}" is wrong: ${why}\n`, MISUSE);
}

export function missing(keyword: string, exit = BAD_VALUE): CliError {
  return new CliError(`Not enough information: "${keyword}" argument is required.`, exit);
}

export function unknownCommand(word: string, object: string): CliError {
  return new CliError(`Command "${word}" is unknown, try "ip ${object} help".`, MISUSE);
}

export function noDevice(name: string): CliError {
  return new CliError(`Cannot find device "${name}"`, BAD_VALUE);
}

/** An IPv4 address. */
export function address(word: string): string {
  if (parseIp4(word) !== undefined) return word;
  throw new CliError(`Error: any valid address is expected rather than "${word}".`, BAD_VALUE);
}

/** Prefix as iproute2 prints it: `default`, an address, or `a.b.c.d/n`. */
export function prefix(word: string): string {
  if (word === 'default' || word === 'any' || word === 'all') return 'default';
  const found = parsePrefix(word);
  if (found === undefined) throw new CliError(`Error: any valid prefix is expected rather than "${word}".`, BAD_VALUE);
  return found.length === 32 ? word.replace(/\/.*/, '') : found.length === 0 && found.ip === 0 ? 'default' : word;
}

export function hardwareAddress(word: string): string {
  if (/^[0-9a-f]{1,2}(:[0-9a-f]{1,2}){5}$/i.test(word)) {
    return word
      .split(':')
      .map((byte) => byte.toLowerCase().padStart(2, '0'))
      .join(':');
  }
  throw new CliError(`"${word}" is invalid lladdr.`, BAD_VALUE);
}

export function unsigned(word: string, wrong: string): number {
  const value = /^(?:0x[0-9a-f]+|\d+)$/i.test(word) ? Number(word) : Number.NaN;
  if (value >= 0 && value <= 0xffff_ffff) return value;
  throw wrongArgument(word, wrong);
}
