/** How values of options are read and written: numbers as strtoul(3) takes them, ports, addresses, protocols. */
import { formatIp4, netmask, parseIp4, prefixLength } from '../wire/addr.ts';
import { BadRule, type ListForm, type Reading } from './extension.ts';

/** As strtoul with base 0 takes a whole word: decimal, 0x…, 0…; undefined beyond `max` or when anything is left over. */
export function parseNumber(text: string, max = 0xffffffff): number | undefined {
  if (!/^(0[xX][0-9a-fA-F]+|[0-9]+)$/.test(text)) return undefined;
  const isOctal = /^0[0-9]/.test(text);
  if (isOctal && !/^[0-7]+$/.test(text)) return undefined;
  const value = isOctal ? Number.parseInt(text, 8) : Number(text);
  return value <= max ? value : undefined;
}

/** A number that an option needs. @throws BadRule */
export function readNumber(extension: string, option: string, text: string, max = 0xffffffff): number {
  const value = parseNumber(text, max);
  if (value === undefined) {
    throw new BadRule(`${extension}: bad integer value for option "--${option}", or out of range.\n`);
  }
  return value;
}

/** `value[/mask]`, both int32; without a mask all bits count. @throws BadRule */
export function readMarkMask(extension: string, option: string, text: string): { value: number; mask: number } {
  const found = /^\s*\+?(0[xX][0-9a-fA-F]+|[0-9]+)(?:\/(0[xX][0-9a-fA-F]+|[0-9]*))?(.*)$/s.exec(text);
  const value = readNumber(extension, option, found?.[1] ?? '');
  const mask = found?.[2] === undefined ? 0xffffffff : readNumber(extension, option, found[2]);
  if (found![3] !== '') throw new BadRule(`${extension}: trailing garbage after value for option "--${option}".\n`);
  return { value: value | 0, mask: mask | 0 };
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

/** `a.b.c.d`, with short forms as in `10/8` only where a mask follows (parse_ipaddr pads). Undefined: perhaps a host name. */
function readQuad(text: string, canBeShort: boolean): number | undefined {
  if (!/^[0-9]+(\.[0-9]+){0,3}$/.test(text)) return undefined;
  const parts = text.split('.');
  if (parts.length < 4 && !canBeShort) return undefined;
  while (parts.length < 4) parts.push('0');
  return parseIp4(parts.map((part) => String(Number(part))).join('.'));
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
    const item = word.trim();
    const slash = item.lastIndexOf('/');
    const mask = slash < 0 ? -1 : readMask(item.slice(slash + 1));
    const host = slash < 0 ? item : item.slice(0, slash);
    const ip = host === '' ? undefined : readQuad(host, true);
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
