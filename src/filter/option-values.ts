/**
 * Values as the tool's newer way of reading options takes them (libxtables/xtoptions.c): ports and hosts by getaddrinfo(3), which is content with more than the
 * readers of values.ts, and complaints with the option's name.
 */
import { inetAton, netmask } from '../wire/addr.ts';
import { BadRule, type Reading } from './extension.ts';
import { leadingNumber } from './values.ts';

/** Protocols in which the name of a port is looked for. */
const WITH_SERVICES = ['tcp', 'udp', 'dccp', 'sctp'];
const BIGGEST = 0xffffffff;

/** A port by its name, of whichever protocol. */
export function readService(text: string, { names }: Reading): number | undefined {
  for (const protocol of WITH_SERVICES) {
    const port = names?.servicePort(text, protocol);
    if (port !== undefined) return port;
  }
  return undefined;
}

/** A number is cut to 16 bits, and nothing at all is 0: xtables_getportbyname. @throws BadRule */
function readPort(text: string, reading: Reading): number {
  if (text === '') return 0;
  if (/^\s*\+?[0-9]+$/.test(text)) {
    const value = BigInt.asIntN(32, BigInt(text.trim().replace('+', '')));
    if (value >= 0n && text.trim().length < 20) return Number(value & 0xffffn);
  }
  const port = readService(text, reading);
  if (port !== undefined) return port;
  throw new BadRule(`Port "${text}" does not resolve to anything.\n`);
}

function components(extension: string, option: string, text: string): readonly string[] {
  const words = text.split(':');
  if (words.length <= 2) return words;
  throw new BadRule(`${extension}: Too many components for option "--${option}" (max: 2)\n`);
}

/** `a`, `a:b`, `:b`, `a:`; in any order. @throws BadRule */
export function readPorts(extension: string, option: string, text: string, reading: Reading): [number, number] {
  const words = components(extension, option, text);
  const low = readPort(words[0]!, reading);
  if (words.length === 1) return [low, low];
  return [low, words[1] === '' ? 0xffff : readPort(words[1]!, reading)];
}

/** The same of numbers. @throws BadRule */
export function readNumbers(extension: string, option: string, text: string): [number, number] {
  const bounds: number[] = [];
  for (let rest = text; ; ) {
    const isFirst = bounds.length === 0;
    const isEmpty = rest === '' || rest[0] === ':';
    const found = isEmpty ? { value: isFirst ? 0 : BIGGEST, rest } : leadingNumber(rest);
    if (found === undefined || found.value > BIGGEST) {
      const range = `or out of range (0-${BIGGEST}).\n`;
      throw new BadRule(`${extension}: bad value for option "--${option}" near "${rest}", ${range}`);
    }
    bounds.push(found.value);
    if (found.rest === '') break;
    if (found.rest[0] !== ':') {
      throw new BadRule(`${extension}: Argument to "--${option}" has unexpected characters near "${found.rest}".\n`);
    }
    components(extension, option, text);
    rest = found.rest.slice(1);
  }
  return [bounds[0]!, bounds.at(-1)!];
}

/** `host[/mask]`; the address is as it was said, and a mask may have holes. @throws BadRule, and what the names throw */
export function readHostMask(extension: string, option: string, text: string, { names }: Reading) {
  const slash = text.indexOf('/');
  const host = slash < 0 ? text : text.slice(0, slash);
  const ip = inetAton(host) ?? inetAton(names?.hostAddress?.(host) ?? '');
  if (ip === undefined) {
    throw new BadRule(`getaddrinfo: ${names?.hostFault?.(host) ?? 'Name or service not known'}\n`);
  }
  return { ip, mask: slash < 0 ? -1 : readMask(extension, option, text.slice(slash + 1)) };
}

function readMask(extension: string, option: string, text: string): number {
  const length = leadingNumber(text);
  if (length !== undefined && length.rest === '' && length.value <= 32) return netmask(length.value);
  const mask = inetAton(text);
  if (mask !== undefined) return mask;
  const wanted = 'neither a valid network mask nor valid CIDR (0-32).\n';
  throw new BadRule(`${extension}: bad value for option "--${option}", ${wanted}`);
}
