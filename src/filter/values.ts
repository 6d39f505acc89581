/** How values of options are read and written: numbers as strtoul(3) takes them, ports, addresses, protocols. */
import { formatIp4, inetAton, netmask, parseIp4, prefixLength } from '../wire/addr.ts';
import { BadRule, type ListForm, type Reading } from './extension.ts';

/** As strtoul with base 0 takes a whole word: decimal, 0x…, 0…; undefined beyond `max` or when anything is left over. */
export function parseNumber(text: string, max = 0xffffffff): number | undefined {
  const found = leadingNumber(text);
  return found !== undefined && found.rest === '' && found.value <= max ? found.value : undefined;
}

/** The number that a text begins with, and what stands behind it; a sign of minus makes it too large for anything. */
export function leadingNumber(text: string): { readonly value: number; readonly rest: string } | undefined {
  const found = /^\s*([-+]?)(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)/.exec(text);
  if (found === null) return undefined;
  const [all, sign, digits] = found as unknown as [string, string, string];
  const value = /^0[0-7]/.test(digits) ? Number.parseInt(digits, 8) : Number(digits);
  return { value: sign === '-' ? Number.POSITIVE_INFINITY : value, rest: text.slice(all.length) };
}

/** A number that an option needs. @throws BadRule */
export function readNumber(extension: string, option: string, text: string, max = 0xffffffff): number {
  const value = parseNumber(text, max);
  if (value === undefined) {
    throw new BadRule(`${extension}: bad value for option "--${option}", or out of range (0-${max}).\n`);
  }
  return value;
}

/** `value[/mask]`, both int32; without a mask all bits count. @throws BadRule */
export function readMarkMask(extension: string, option: string, text: string): { value: number; mask: number } {
  const number = (word: string): { readonly value: number; readonly rest: string } => {
    const found = leadingNumber(word);
    if (found !== undefined && found.value <= 0xffffffff) return found;
    throw new BadRule(`${extension}: bad integer value for option "--${option}", or out of range.\n`);
  };
  const value = number(text);
  const mask = value.rest[0] === '/' ? number(value.rest.slice(1)) : { value: 0xffffffff, rest: value.rest };
  if (mask.rest !== '') throw new BadRule(`${extension}: trailing garbage after value for option "--${option}".\n`);
  return { value: value.value | 0, mask: mask.value | 0 };
}

/** Words of a comma list, each of which may be cut short. @param bad what is said of one that is none; it is told what the list still held @throws BadRule */
export function readWords(
  text: string,
  words: readonly (readonly [string, number])[],
  bad: (rest: string, isLast: boolean) => string,
): number {
  let bits = 0;
  for (let rest: string | undefined = text; rest !== undefined; ) {
    const comma: number = rest.indexOf(',');
    const word: string = (comma < 0 ? rest : rest.slice(0, comma)).toUpperCase();
    const known = word === '' ? undefined : words.find(([name]) => name.startsWith(word));
    if (known === undefined) throw new BadRule(bad(rest, comma < 0));
    bits |= known[1];
    rest = comma < 0 ? undefined : rest.slice(comma + 1);
  }
  return bits;
}

export function formatHex(value: number): string {
  return `0x${(value >>> 0).toString(16)}`;
}

/** `0x5`, or `0x5/0xff`. */
export function formatMarkMask(value: number, mask: number): string {
  return mask === -1 ? formatHex(value) : `${formatHex(value)}/${formatHex(mask)}`;
}

/** A port by number or name. @throws BadRule */
export function readPort(text: string, protocol: string, reading: Reading): number {
  const port = parseNumber(text, 0xffff) ?? reading.names?.servicePort(text, protocol);
  if (port === undefined) throw new BadRule(`invalid port/service \`${text}' specified`);
  return port;
}

/** `a`, `a:b`, `:b`, `a:`. @throws BadRule */
export function readPortRange(text: string, protocol: string, reading: Reading): [number, number] {
  const colon = text.indexOf(':');
  if (colon < 0) {
    const port = readPort(text, protocol, reading);
    return [port, port];
  }
  const [from, to] = [text.slice(0, colon), text.slice(colon + 1)];
  const range: [number, number] = [
    from === '' ? 0 : readPort(from, protocol, reading),
    to === '' ? 0xffff : readPort(to, protocol, reading),
  ];
  if (range[0] > range[1]) throw new BadRule('invalid portrange (min > max)');
  return range;
}

export function formatPort(port: number, protocol: string, form: ListForm): string {
  return (form.isNumeric ? undefined : form.serviceName(port, protocol)) ?? String(port);
}

/** `spt:80`, `spts:!1:5`, '' for all. */
export function listPorts(
  name: string,
  [low, high]: readonly [number, number],
  isInverted: boolean,
  protocol: string,
  form: ListForm,
): string {
  if (low === 0 && high === 0xffff && !isInverted) return '';
  const not = isInverted ? '!' : '';
  if (low === high) return `${name}:${not}${formatPort(low, protocol, form)}`;
  return `${name}s:${not}${formatPort(low, protocol, form)}:${formatPort(high, protocol, form)}`;
}

/** The words of `--sport` and the like; none for all ports. */
export function savePorts(option: string, [low, high]: readonly [number, number], isInverted: boolean): string[] {
  if (low === 0 && high === 0xffff && !isInverted) return [];
  const text = low === high ? String(low) : `${low}:${high}`;
  return [...(isInverted ? ['!'] : []), option, text];
}

/** Names as the classic tool prints them; the kernel's numbers without a name here are printed as such. */
const PROTOCOLS: readonly (readonly [string, number])[] = [
  ['ip', 0], ['icmp', 1], ['igmp', 2], ['ggp', 3], ['ipencap', 4], ['st', 5], ['tcp', 6], ['egp', 8], ['igp', 9],
  ['pup', 12], ['udp', 17], ['hmp', 20], ['xns-idp', 22], ['rdp', 27], ['iso-tp4', 29], ['dccp', 33], ['xtp', 36],
  ['ddp', 37], ['idpr-cmtp', 38], ['ipv6', 41], ['ipv6-route', 43], ['ipv6-frag', 44], ['idrp', 45], ['rsvp', 46],
  ['gre', 47], ['esp', 50], ['ah', 51], ['skip', 57], ['ipv6-icmp', 58], ['ipv6-nonxt', 59], ['ipv6-opts', 60],
  ['rspf', 73], ['vmtp', 81], ['eigrp', 88], ['ospf', 89], ['ax.25', 93], ['ipip', 94], ['etherip', 97],
  ['encap', 98], ['pim', 103], ['ipcomp', 108], ['vrrp', 112], ['l2tp', 115], ['isis', 124], ['sctp', 132],
  ['fc', 133], ['mobility-header', 135], ['udplite', 136], ['mpls-in-ip', 137], ['manet', 138], ['hip', 139],
  ['shim6', 140], ['wesp', 141], ['rohc', 142], ['ethernet', 143],
]; // biome-ignore format: a table
const ALIASES: readonly (readonly [string, number])[] = [
  ['hopopt', 0], ['icmpv6', 58], ['ipv6-mh', 135], ['mh', 135], ['all', 0],
]; // biome-ignore format: a table
const numbers = new Map([...ALIASES, ...PROTOCOLS]);
const protocolNames = new Map(PROTOCOLS.map(([name, number]) => [number, name]));

/** @throws BadRule */
export function readProtocol(text: string): number {
  const number = parseNumber(text, 255) ?? numbers.get(text);
  if (number === undefined) throw new BadRule(`unknown protocol "${text}" specified`);
  return number;
}

export function protocolName(number: number): string | undefined {
  return number === 0 ? undefined : protocolNames.get(number);
}

/** An address of a rule with its mask, int32. */
export interface Network {
  readonly ip: number;
  readonly mask: number;
}

/** `a.b.c.d`, each as strtoul(3) reads it; short forms are filled with zeros (xtables_numeric_to_ipaddr). Undefined: perhaps a host name. */
function readQuad(text: string, canBeShort: boolean): number | undefined {
  const parts = text.split('.').map((part) => parseNumber(part, 255));
  if (parts.length > 4 || (parts.length < 4 && !canBeShort)) return undefined;
  let ip = 0;
  for (let i = 0; i < 4; i++) {
    const part = i < parts.length ? parts[i] : 0;
    if (part === undefined) return undefined;
    ip = (ip << 8) | part;
  }
  return ip;
}

/** @throws BadRule */
function readMask(text: string): number {
  const bits = parseNumber(text, 32);
  if (bits !== undefined) return netmask(bits);
  const mask = readQuad(text, false);
  if (mask === undefined) throw new BadRule(`invalid mask \`${text}' specified`);
  return mask;
}

/** A comma list of `address[/mask]`; addresses are masked. `hosts` finds names. @throws BadRule, and what `hosts` throws */
export function readNetworks(text: string, hosts: (name: string) => readonly string[] | undefined): Network[] {
  return text.split(',').flatMap((word) => {
    const item = word.trimStart();
    const slash = item.lastIndexOf('/');
    const mask = slash < 0 ? -1 : readMask(item.slice(slash + 1));
    // Without bits any name will do: `any/0`.
    if (mask === 0) return [{ ip: 0, mask }];
    const host = slash < 0 ? item : item.slice(0, slash);
    const ip = readQuad(host, true) ?? inetAton(host);
    if (ip !== undefined) return [{ ip: ip & mask, mask }];
    const found = hosts(host);
    if (found === undefined || found.length === 0) throw new BadRule(`host/network \`${host}' not found`);
    return found.map((address) => ({ ip: (parseIp4(address) ?? 0) & mask, mask }));
  });
}

/** `10.0.0.0/8`, `10.0.2.0/255.0.255.0`. */
export function formatNetwork(ip: number, mask: number): string {
  return `${formatIp4(ip)}/${prefixLength(mask) ?? formatIp4(mask)}`;
}
