/**
 * The lines of an FTP control connection that speak of addresses (RFC 959 §4.1.2, RFC 2428; net/netfilter/ipvs/ip_vs_ftp.c, ip_vs_ftp_get_addrport).
 *
 *   client   PASV ↵ · EPSV ↵ · EPSV 1 ↵                        asks the server to listen
 *            PORT h1,h2,h3,h4,p1,p2 ↵ · EPRT |1|address|port| ↵   listens itself
 *   server   227 … (h1,h2,h3,h4,p1,p2) · 229 … (|||port|)       listens there
 *
 * Only what begins a segment counts, as the kernel has it; but the requests to listen may stand anywhere. `at … end` is the segment's payload.
 */
import { parseIp4 } from './addr.ts';

const [SPACE, CR, PAREN, COMMA] = [32, 13, 40, 44] as const;

/** What a client asked for. */
export const FtpRequest = { None: 0, Passive: 1, ExtendedPassive: 2 } as const;

export interface FtpAddress {
  /** Undefined where the line names a port alone. */
  readonly address: number | undefined;
  readonly port: number;
  /** The text that says so, `from … to` in the segment's bytes: for the short form from the first digit on, for the extended one with its delimiters. */
  readonly from: number;
  readonly to: number;
}

function isDigit(c: number): boolean {
  return c >= 0x30 && c <= 0x39;
}

/** Do the bytes at `at` spell `word`, in any case? `word` is in capitals. */
function spells(bytes: Uint8Array, at: number, end: number, word: string): boolean {
  if (end - at < word.length) return false;
  for (let i = 0; i < word.length; i++) {
    const c = bytes[at + i]!;
    if ((c >= 0x61 && c <= 0x7a ? c - 0x20 : c) !== word.charCodeAt(i)) return false;
  }
  return true;
}

/** Does the client ask the server to listen? */
export function passiveRequest(bytes: Uint8Array, at: number, end: number): number {
  for (let i = at; i <= end - 6; i++) {
    if (spells(bytes, i, end, 'PASV\r\n')) return FtpRequest.Passive;
    if (!spells(bytes, i, end, 'EPSV')) continue;
    const next = bytes[i + 4];
    if (next === CR) return FtpRequest.ExtendedPassive;
    if (next !== SPACE) continue;
    // EPSV 1 is IPv4. EPSV ALL, another family, or half a line: no further search.
    const isIp4 = i <= end - 7 && bytes[i + 5] === 0x31 && bytes[i + 6] === CR;
    return isIp4 ? FtpRequest.ExtendedPassive : FtpRequest.None;
  }
  return FtpRequest.None;
}

/** Where the client listens: PORT or EPRT. */
export function activeRequest(bytes: Uint8Array, at: number, end: number): FtpAddress | undefined {
  if (spells(bytes, at, end, 'PORT')) return short(bytes, skipTo(bytes, at + 4, end, SPACE, true), end);
  if (spells(bytes, at, end, 'EPRT')) return extended(bytes, skipTo(bytes, at + 4, end, SPACE, false), end, false);
  return undefined;
}

/** Where the server listens: 227 after PASV, 229 after EPSV. */
export function passiveAnswer(bytes: Uint8Array, at: number, end: number, request: number): FtpAddress | undefined {
  if (request === FtpRequest.Passive) {
    return spells(bytes, at, end, '227 ') ? short(bytes, skipTo(bytes, at + 4, end, PAREN, true), end) : undefined;
  }
  return spells(bytes, at, end, '229 ')
    ? extended(bytes, skipTo(bytes, at + 4, end, PAREN, false), end, true)
    : undefined;
}

/** Behind the next run of `mark`; with `orDigit` the first digit before it does, too. `end` when neither comes. */
function skipTo(bytes: Uint8Array, at: number, end: number, mark: number, orDigit: boolean): number {
  let i = at;
  while (i < end && bytes[i] !== mark) {
    if (orDigit && isDigit(bytes[i]!)) return i;
    i++;
  }
  while (i < end && bytes[i] === mark) i++;
  return i;
}

/** h1,h2,h3,h4,p1,p2, none above 255, and something behind it. */
function short(bytes: Uint8Array, at: number, end: number): FtpAddress | undefined {
  const parts = [0, 0, 0, 0, 0, 0];
  let part = 0;
  let i = at;
  for (; i < end; i++) {
    const c = bytes[i]!;
    if (isDigit(c)) {
      parts[part] = parts[part]! * 10 + c - 0x30;
      if (parts[part]! > 255) return undefined;
    } else if (c === COMMA && part < 5) {
      part++;
    } else {
      break;
    }
  }
  if (i >= end || part !== 5) return undefined;
  const [a, b, c, d, p1, p2] = parts as [number, number, number, number, number, number];
  return { address: (a << 24) | (b << 16) | (c << 8) | d, port: (p1 << 8) | p2, from: at, to: i };
}

/** |family|address|port|, with any printable delimiter; an answer may leave out family and address. */
function extended(bytes: Uint8Array, at: number, end: number, isAnswer: boolean): FtpAddress | undefined {
  const delimiter = bytes[at]!;
  if (at >= end || delimiter < 33 || delimiter > 126) return undefined;
  let i = at + 1;
  let address: number | undefined;
  if (i < end && bytes[i] === delimiter) {
    if (!isAnswer || i + 1 >= end || bytes[i + 1] !== delimiter) return undefined;
    i += 2;
  } else {
    if (i + 1 >= end || bytes[i] !== 0x31 || bytes[i + 1] !== delimiter) return undefined;
    i += 2;
    let text = '';
    while (i < end && bytes[i] !== delimiter && text.length < 16) text += String.fromCharCode(bytes[i++]!);
    address = parseIp4(text);
    if (address === undefined || i >= end || bytes[i] !== delimiter) return undefined;
    i++;
  }
  let port = 0;
  while (i < end && isDigit(bytes[i]!) && port <= 65535) port = port * 10 + bytes[i++]! - 0x30;
  if (i >= end || port === 0 || port > 65535 || bytes[i] !== delimiter) return undefined;
  return { address, port, from: at, to: i + 1 };
}

/** The text for a 227 answer. */
export function shortText(address: number, port: number): string {
  return `${address >>> 24},${(address >> 16) & 255},${(address >> 8) & 255},${address & 255},${port >> 8},${port & 255}`;
}

/** The text for a 229 answer: the client connects to the address that it talks to. */
export function extendedText(port: number): string {
  return `|||${port}|`;
}
