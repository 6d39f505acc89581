/** iproute2's way with words: a cursor over them, names by any beginning, keywords in any order, and what it says when they make no sense. */
import { formatIp4, type Ip4, netmask, type Prefix } from '../../wire/addr.ts';
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

/** Most of iproute2's reasons bring a line's end of their own. */
export function wrongArgument(word: string, why: string, end = '\n'): CliError {
  return new CliError(`Error: argument "${word}" is wrong: ${why}${end}`, MISUSE);
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

/** One to four numbers with points between them, each decimal, octal or hexadecimal as in C; what is not there is 0 (get_addr_ipv4). */
function parseAddress(word: string): Ip4 | undefined {
  const parts = word.split('.');
  if (parts.length > 4) return undefined;
  let ip = 0;
  for (let i = 0; i < 4; i++) {
    const byte = numberOf(parts[i] ?? '0');
    if (byte === undefined || byte > 255) return undefined;
    ip = (ip << 8) | byte;
  }
  return ip as Ip4;
}

function numberOf(text: string): number | undefined {
  if (/^0x[0-9a-f]+$/i.test(text) || /^(0|[1-9][0-9]*)$/.test(text)) return Number(text);
  return /^0[0-7]+$/.test(text) ? Number.parseInt(text, 8) : undefined;
}

/** Length as a number or as a mask. */
export function readPrefix(word: string): Prefix | undefined {
  const slash = word.indexOf('/');
  const ip = parseAddress(slash < 0 ? word : word.slice(0, slash));
  if (ip === undefined || slash < 0) return ip === undefined ? undefined : { ip, length: 32 };
  const text = word.slice(slash + 1);
  const length = text.includes('.') ? lengthOf(text) : numberOf(text);
  return length === undefined || length > 32 ? undefined : { ip, length };
}

function lengthOf(text: string): number | undefined {
  const mask = parseAddress(text);
  const length = mask === undefined ? 0 : Math.clz32(~mask);
  return mask !== undefined && netmask(length) === mask ? length : undefined;
}

/** An IPv4 address. @param family what iproute2 expects by then */
export function address(word: string, family: 'any valid' | 'inet' = 'any valid'): string {
  const ip = parseAddress(word);
  if (ip !== undefined) return formatIp4(ip);
  throw new CliError(`Error: ${family} address is expected rather than "${word}".`, BAD_VALUE);
}

export function wrongPrefix(word: string): CliError {
  return new CliError(`Error: any valid prefix is expected rather than "${word}".`, BAD_VALUE);
}

/** Prefix as iproute2 prints it: `default`, an address, or `a.b.c.d/n`. */
export function prefix(word: string): string {
  if (word === 'default' || word === 'any' || word === 'all') return 'default';
  const found = readPrefix(word);
  if (found === undefined) throw wrongPrefix(word);
  const { ip, length } = found;
  return length === 32 ? formatIp4(ip) : length === 0 && ip === 0 ? 'default' : `${formatIp4(ip)}/${length}`;
}

/** A name that a device can have (check_ifname). */
export function checkDeviceName(name: string): void {
  if (name === '' || name.length > 15 || /[\s/]/.test(name)) throw wrongArgument(name, '"dev" not a valid ifname', '');
}

const LLADDR_LENGTH = 6;

/** Bytes of an Ethernet address; of more than six the first six. @param tooShort what is said of less */
export function hardwareAddress(word: string, tooShort: (bytes: number) => CliError): string {
  if (!/^[0-9a-f]{1,2}(:[0-9a-f]{1,2})*$/i.test(word)) throw new CliError(`"${word}" is invalid lladdr.`, BAD_VALUE);
  const bytes = word.split(':').map((byte) => byte.toLowerCase().padStart(2, '0'));
  if (bytes.length < LLADDR_LENGTH) throw tooShort(bytes.length);
  return bytes.slice(0, LLADDR_LENGTH).join(':');
}

/** get_integer. */
export function integer(word: string, wrong: string): number {
  const value = numberOf(word.replace(/^[-+]/, ''));
  const signed = value === undefined ? Number.NaN : word.startsWith('-') ? -value : value;
  if (signed === (signed | 0)) return signed;
  throw wrongArgument(word, wrong);
}

export function unsigned(word: string, wrong: string): number {
  const value = /^(?:0x[0-9a-f]+|\d+)$/i.test(word) ? Number(word) : Number.NaN;
  if (value >= 0 && value <= 0xffff_ffff) return value;
  throw wrongArgument(word, wrong);
}
