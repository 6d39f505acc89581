/** Values as conntrack(8) reads them: atoi(3), strtoul(3), addresses with a prefix length, words parted by commas. */
import { isIPv6 } from 'node:net';
import { Status } from '../../model/entry-status.ts';
import { formatIp4, netmask } from '../../wire/addr.ts';
import { parseIp4 } from '../ipvsadm/address.ts';
import { Refused } from './refused.ts';

/** atol(3), kept to 32 bits. */
export function atol(text: string): number {
  const digits = /^[ \t\n\v\f\r]*([+-]?\d+)/.exec(text)?.[1];
  return digits === undefined ? 0 : Number(BigInt.asUintN(32, clamp(BigInt(digits))));
}

function clamp(value: bigint): bigint {
  const max = (1n << 63n) - 1n;
  return value > max ? max : value < -max - 1n ? -max - 1n : value;
}

/** A number on the wire as this machine's library shows it unturned: SCTP's tags. */
export function swap32(value: number): number {
  return ((value << 24) | ((value & 0xff00) << 8) | ((value >>> 8) & 0xff00) | (value >>> 24)) >>> 0;
}

export function port(text: string): number {
  return atol(text) & 0xffff;
}

/** strtoul(3) to base 0: the value, kept to 32 bits, and what follows it. */
export function strtoul(text: string): { value: number; rest: string } {
  const m = /^[ \t\n\v\f\r]*([+-]?)(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9]\d*)/.exec(text);
  if (m === null) return { value: 0, rest: text };
  const digits = m[2]!;
  const size = BigInt(/^0[0-7]+$/.test(digits) ? `0o${digits.slice(1)}` : digits);
  const value = size >= 1n << 64n ? (1n << 64n) - 1n : m[1] === '-' ? -size : size;
  return { value: Number(BigInt.asUintN(32, value)), rest: text.slice(m[0].length) };
}

/** `value[/mask]` */
export function valueAndMask(text: string): { value: number; mask: number } {
  const { value, rest } = strtoul(text);
  return { value, mask: rest[0] === '/' ? strtoul(rest.slice(1)).value : 0xffffffff };
}

export interface Address {
  readonly family: 4 | 6;
  readonly address: string;
  /** Undefined when there is no prefix length, or it means the one address. */
  readonly mask: string | undefined;
}

/** @param take told the family before the rest is looked at @param option its long name when it takes no prefix length */
export function address(text: string, take: (family: 4 | 6) => void, option?: string): Address {
  const slash = text.indexOf('/');
  const bare = slash < 0 ? text : text.slice(0, slash);
  const ip4 = parseIp4(bare);
  if (ip4 === undefined && !isIPv6(bare)) throw new Refused(`Invalid IP address \`${text}'`);
  const family = ip4 === undefined ? 6 : 4;
  take(family);
  const result = { family, address: ip4 ?? bare } as const;
  if (slash < 0) return { ...result, mask: undefined };
  if (option !== undefined) throw new Refused(`CIDR notation unavailable for \`--${option}'`);
  const digits = text.slice(slash + 1);
  const length = digits === '' ? 0 : Number(digits);
  if (!/^[ \t]*\+?\d*$/.test(digits) || length > (family === 4 ? 32 : 128)) throw new Refused('Invalid netmask');
  if (length === (family === 4 ? 32 : 128)) return { ...result, mask: undefined };
  return { ...result, mask: family === 4 ? formatIp4(netmask(length)) : String(length) };
}

/** `address[:port]` of a translation; brackets round an IPv6 address with a port. */
export function natAddress(text: string): { address: string; port: number | undefined } {
  const bracket = text.indexOf('[');
  const close = text.indexOf(']', bracket);
  if (bracket >= 0 && close === bracket + 1) throw new Refused('No IPv6 address specified');
  if (bracket >= 0 && close < 0) throw new Refused("No closing ']' around IPv6 address");
  const colon = bracket >= 0 ? text.indexOf(':', close) : text.indexOf(':');
  if (colon < 0 || (bracket < 0 && text.includes(':', colon + 1))) return { address: text, port: undefined };
  const digits = text.slice(colon + 1);
  if (digits === '') throw new Refused("No port specified after `:'");
  if (!/^\d+$/.test(digits) || Number(digits) > 65535) throw new Refused(`Invalid port \`${digits}'`);
  return { address: bracket >= 0 ? text.slice(bracket + 1, close) : text.slice(0, colon), port: Number(digits) };
}

type Words = readonly (readonly [string, number])[];

const STATUS_WORDS: Words = [
  ['ASSURED', Status.Assured],
  ['SEEN_REPLY', Status.SeenReply],
  ['UNSET', 0],
  ['FIXED_TIMEOUT', Status.FixedTimeout],
  ['EXPECTED', Status.Expected],
  ['OFFLOAD', Status.Offload],
  ['HW_OFFLOAD', Status.HwOffload],
];

export const EventMask = { New: 1, Update: 2, Destroy: 4, All: 7 } as const;
const EVENT_WORDS: Words = [
  ['ALL', EventMask.All],
  ['NEW', EventMask.New],
  ['UPDATES', EventMask.Update],
  ['DESTROY', EventMask.Destroy],
];

export const Output = { Xml: 1, Extended: 2, Time: 4, Id: 8, KernelTime: 16, Labels: 32, Save: 64 } as const;
const OUTPUT_WORDS: Words = [
  ['xml', Output.Xml],
  ['extended', Output.Extended],
  ['timestamp', Output.Time],
  ['id', Output.Id],
  ['ktimestamp', Output.KernelTime],
  ['labels', Output.Labels],
  ['userspace', 0],
  ['save', Output.Save],
];

/** A word may be cut short, and its case does not matter; of several that begin so the first is meant. */
function wordBit(word: string, words: Words, warn: (text: string) => void): number | undefined {
  const lower = word.toLowerCase();
  for (const nat of ['SRC', 'DST']) {
    if (!`${nat.toLowerCase()}_nat`.startsWith(lower)) continue;
    warn(`WARNING: ignoring ${nat}_NAT, use --${nat.toLowerCase()}-nat instead\n`);
    return 0;
  }
  return words.find(([name]) => name.toLowerCase().startsWith(lower))?.[1];
}

function readWords(text: string, words: Words, warn: (text: string) => void): number {
  let bits = 0;
  for (let rest: string | undefined = text; rest !== undefined; ) {
    const comma: number = rest.indexOf(',');
    const word: string = comma < 0 ? rest : rest.slice(0, comma);
    const bit = word === '' ? undefined : wordBit(word, words, warn);
    if (bit === undefined) throw new Refused(`Bad parameter \`${rest}'`);
    bits |= bit;
    rest = comma < 0 ? undefined : rest.slice(comma + 1);
  }
  return bits;
}

export function eventMask(text: string, warn: (text: string) => void): number {
  return readWords(text, EVENT_WORDS, warn);
}

export function outputForms(text: string, warn: (text: string) => void): number {
  return readWords(text, OUTPUT_WORDS, warn);
}

/** Words of -u, `!` before those that must not be set; UNREPLIED stands for `!SEEN_REPLY`. */
export function statusBits(text: string, warn: (text: string) => void): { set: number; unset: number } {
  let set = 0;
  let unset = 0;
  for (let rest: string | undefined = text; rest !== undefined; ) {
    const isNegated = rest[0] === '!';
    if (isNegated) rest = rest.slice(1);
    const comma: number = rest.indexOf(',');
    const word: string = comma < 0 ? rest : rest.slice(0, comma);
    const after: string | undefined = comma < 0 ? undefined : rest.slice(comma + 1);
    if (!isNegated && rest.startsWith('UNREPLIED')) {
      unset |= Status.SeenReply;
    } else {
      const bit = word === '' ? undefined : wordBit(word, STATUS_WORDS, warn);
      if (bit === undefined) throw new Refused(`Bad parameter \`${rest}'`);
      if (isNegated) unset |= bit;
      else set |= bit;
    }
    rest = after;
  }
  return { set, unset };
}
