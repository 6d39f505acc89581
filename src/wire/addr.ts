/**
 * IPv4 and MAC addresses between text, wire and registers.
 *
 * An address is the 32 bits as a *signed* int, so that it is a Smi: compare with `===`, order with `>>> 0`, print here.
 */

/** IPv4 address as int32, in the order of its bits on the wire. */
export type Ip4 = number & { readonly __ip4: unique symbol };

const OCTET = /^(0|[1-9][0-9]{0,2})$/;

/** Dotted quad to int32; undefined for anything else (no octal, no short forms). */
export function parseIp4(text: string): Ip4 | undefined {
  const parts = text.split('.');
  if (parts.length !== 4) return undefined;
  let ip = 0;
  for (const part of parts) {
    if (!OCTET.test(part)) return undefined;
    const octet = Number(part);
    if (octet > 255) return undefined;
    ip = (ip << 8) | octet;
  }
  return ip as Ip4;
}

/** As inet_aton(3) reads an address: one to four numbers, decimal, 0x… or 0…, of which the last fills what is left. */
export function inetAton(text: string): Ip4 | undefined {
  const parts = text.split('.');
  if (parts.length > 4) return undefined;
  let ip = 0;
  for (const [i, part] of parts.entries()) {
    if (!/^(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)$/.test(part)) return undefined;
    const value = /^0[0-7]/.test(part) ? Number.parseInt(part, 8) : Number(part);
    const bits = i < parts.length - 1 ? 8 : 8 * (5 - parts.length);
    if (value >= 2 ** bits) return undefined;
    ip = ip * 2 ** bits + value;
  }
  return (ip | 0) as Ip4;
}

/** The same for constants in code and tests; throws on text that is no address. */
export function ip4(text: string): Ip4 {
  const ip = parseIp4(text);
  if (ip === undefined) throw new Error(`not an IPv4 address: ${text}`);
  return ip;
}

export function formatIp4(ip: number): string {
  return `${ip >>> 24}.${(ip >>> 16) & 255}.${(ip >>> 8) & 255}.${ip & 255}`;
}

/** Prefix length (0…32) to netmask. */
export function netmask(length: number): Ip4 {
  return (length === 0 ? 0 : -1 << (32 - length)) as Ip4;
}

/** Netmask to prefix length; undefined when its ones are not contiguous. */
export function prefixLength(mask: number): number | undefined {
  const length = Math.clz32(~mask);
  return netmask(length) === (mask | 0) ? length : undefined;
}

/** An address with the length of its network: `10.0.1.1/24`. */
export interface Prefix {
  readonly ip: Ip4;
  readonly length: number;
}

/** `a.b.c.d/n`, or `a.b.c.d` as /32; undefined when malformed. Host bits are kept. */
export function parsePrefix(text: string): Prefix | undefined {
  const slash = text.indexOf('/');
  const ip = parseIp4(slash < 0 ? text : text.slice(0, slash));
  if (ip === undefined) return undefined;
  if (slash < 0) return { ip, length: 32 };
  const digits = text.slice(slash + 1);
  if (!/^[0-9]{1,2}$/.test(digits) || Number(digits) > 32) return undefined;
  return { ip, length: Number(digits) };
}

export function formatPrefix(p: Prefix): string {
  return `${formatIp4(p.ip)}/${p.length}`;
}

/** MAC as two ints: the first 16 bits and the last 32, both Smis. */
export interface Mac {
  readonly hi: number;
  readonly lo: number;
}

/** `02:00:00:00:01:01`; undefined when malformed. */
export function parseMac(text: string): Mac | undefined {
  if (!/^[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}$/.test(text)) return undefined;
  const octets = text.split(':').map((o) => Number.parseInt(o, 16));
  return {
    hi: (octets[0]! << 8) | octets[1]!,
    lo: (octets[2]! << 24) | (octets[3]! << 16) | (octets[4]! << 8) | octets[5]!,
  };
}

export function mac(text: string): Mac {
  const m = parseMac(text);
  if (m === undefined) throw new Error(`not a MAC address: ${text}`);
  return m;
}

export function formatMac(hi: number, lo: number): string {
  const octets = [hi >>> 8, hi & 255, lo >>> 24, (lo >>> 16) & 255, (lo >>> 8) & 255, lo & 255];
  return octets.map((o) => o.toString(16).padStart(2, '0')).join(':');
}

/** 224.0.0.0/4, RFC 1112 §4. */
export function isMulticast(ip: number): boolean {
  return (ip & 0xf0000000) === (0xe0000000 | 0);
}

/** 127.0.0.0/8, RFC 1122 §3.2.1.3 (g). */
export function isLoopback(ip: number): boolean {
  return ip >>> 24 === 127;
}

/** 0.0.0.0/8, RFC 1122 §3.2.1.3 (a, b). */
export function isZeroNet(ip: number): boolean {
  return ip >>> 24 === 0;
}
