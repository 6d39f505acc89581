/**
 * Addresses, ports and numbers as ipvsadm's arguments spell them, which is as libc reads them: inet_aton(3)'s short, octal and hexadecimal forms,
 * strtol(3)'s blanks and signs, host names and service names.
 */
import { isIPv6 } from 'node:net';
import type { IpvsCommand } from '../../model/ipvs.ts';
import type { NameSource } from './names.ts';

export interface HostPort {
  /** Dotted quad, or an IPv6 address as inet_ntop(3) writes it. */
  readonly address: string;
  readonly family: 4 | 6;
  /** undefined when none was written. */
  readonly port: number | undefined;
}

/** strtol(3) to base 10 with bounds; undefined when it is no such number. */
export function parseNumber(text: string, min: number, max: number): number | undefined {
  if (!/^[ \t\n\v\f\r]*[+-]?[0-9]+$/.test(text)) return undefined;
  const value = Number(text);
  return value >= min && value <= max ? value : undefined;
}

/** inet_aton(3): one to four parts, the last one fills the rest; answers the dotted quad. */
export function parseIp4(text: string): string | undefined {
  if (/^(?:0|[1-9]\d{0,2})(?:\.(?:0|[1-9]\d{0,2})){3}$/.test(text)) {
    const quad = text.split('.');
    return quad.every((part) => Number(part) <= 255) ? text : undefined;
  }
  const end = text.search(/[ \t\n\v\f\r]/);
  const parts = (end < 0 ? text : text.slice(0, end)).split('.');
  if (parts.length > 4) return undefined;
  let value = 0;
  for (const [i, part] of parts.entries()) {
    if (!/^(?:0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)$/.test(part)) return undefined;
    const number = /^0[0-7]/.test(part) ? Number.parseInt(part, 8) : Number(part);
    const isLast = i === parts.length - 1;
    if (number >= (isLast ? 2 ** (8 * (5 - parts.length)) : 256)) return undefined;
    value += isLast ? number : number * 2 ** (8 * (3 - i));
  }
  return [value >>> 24, (value >>> 16) & 255, (value >>> 8) & 255, value & 255].join('.');
}

/** `HOST[:PORT]` or `[IPv6]:PORT`; undefined when it is none. A bare IPv6 address never has a port. */
export function parseHostPort(text: string, protocol: string, names: NameSource): HostPort | undefined {
  if (/^[0-9]*$/.test(text)) return undefined;
  let host = text;
  let port: string | undefined;
  if (text[0] === '[') {
    const close = text.indexOf(']');
    if (close < 0 || text[close + 1] !== ':') return undefined;
    host = text.slice(1, close);
    port = text.slice(close + 2);
  }
  let address = parseIp6(host);
  const family = address === undefined ? 4 : 6;
  if (address === undefined) {
    const colon = host.lastIndexOf(':');
    port = colon < 0 ? undefined : host.slice(colon + 1);
    if (colon >= 0) host = host.slice(0, colon);
    address = parseIp4(host) ?? names.hostAddress(host);
    if (address === undefined) return undefined;
  }
  if (port === undefined) return { address, family, port: undefined };
  const number = parseNumber(port, 0, 65535) ?? names.servicePort(port, protocol);
  return number === undefined ? undefined : { address, family, port: number };
}

/** The address as inet_ntop(3) writes it. */
function parseIp6(text: string): string | undefined {
  if (!text.includes(':') || !isIPv6(text) || text.includes('%')) return undefined;
  const canonical = new URL(`http://[${text}]`).hostname.slice(1, -1);
  const mapped = /^::(ffff:)?([0-9a-f]{1,4}):([0-9a-f]{1,4})$/.exec(canonical);
  if (mapped === null) return canonical;
  const high = Number.parseInt(mapped[2]!, 16);
  const low = Number.parseInt(mapped[3]!, 16);
  return `::${mapped[1] ?? ''}${high >> 8}.${high & 255}.${low >> 8}.${low & 255}`;
}

/** Is the command about IPv6? */
export function holdsIp6(command: IpvsCommand): boolean {
  const addresses: string[] = [];
  if ('service' in command && command.service !== undefined) {
    const key = 'key' in command.service ? command.service.key : command.service;
    if (key.kind === 'address') addresses.push(key.address);
    else if (key.family === 6) return true;
  }
  if ('server' in command) {
    addresses.push('key' in command.server ? command.server.key.address : command.server.address);
  }
  return addresses.some((address) => address.includes(':'));
}
