/**
 * The lines of an FTP control connection that announce a data connection, as connection tracking reads them (nf_conntrack_ftp.c: find_pattern; RFC 959 §4.1.2,
 * RFC 2428 §2, §3). The director reads them by other rules (ftp.ts), as its model does.
 *
 *   client   PORT h1,h2,h3,h4,p1,p2 ↵   EPRT |1|address|port| ↵        server   227 … h1,h2,h3,h4,p1,p2 …   229 … (|||port|)
 *
 * A segment that begins like one of these and does not end like it is neither: whoever tracks must not let it pass unread.
 */

const [SPACE, CR, PAREN, COMMA, DOT, IP4] = [32, 13, 40, 44, 46, 0x31] as const;

/** Which line it is; its address is written anew in the same form. */
export const FtpLine = { None: 0, Partial: 1, Port: 2, Eprt: 3, Pasv: 4, Epsv: 5 } as const;
export type FtpLine = (typeof FtpLine)[keyof typeof FtpLine];

export interface Announcement {
  line: FtpLine;
  /** int32; as it was where the line names none. */
  address: number;
  port: number;
  /** The bytes that say so, `from … to`. */
  from: number;
  to: number;
}

function isDigit(c: number): boolean {
  return c >= 0x30 && c <= 0x39;
}

/** Does the segment `at … end` begin with `word` in any case? Partial when it ends in the middle of it, or with it. */
function begins(bytes: Uint8Array, at: number, end: number, word: string): FtpLine | true {
  const length = Math.min(word.length, end - at);
  for (let i = 0; i < length; i++) {
    const c = bytes[at + i]!;
    if ((c >= 0x61 && c <= 0x7a ? c - 0x20 : c) !== word.charCodeAt(i)) return FtpLine.None;
  }
  return end - at <= word.length ? FtpLine.Partial : true;
}

/** Behind the first `mark`; -1 when there is none before the last byte. */
function behind(bytes: Uint8Array, at: number, end: number, mark: number): number {
  for (let i = at; i < end - 1; i++) if (bytes[i] === mark) return i + 1;
  return -1;
}

/**
 * Read what a segment `at … end` announces.
 * @param isReply the server speaks
 * @param found its address is that of the speaker before; afterwards what the line says
 */
export function readAnnouncement(
  bytes: Uint8Array,
  at: number,
  end: number,
  isReply: boolean,
  found: Announcement,
): FtpLine {
  const first = isReply ? '227 ' : 'PORT';
  const second = isReply ? '229 ' : 'EPRT';
  let line = begins(bytes, at, end, first);
  if (line === true) {
    const from = isReply ? firstDigit(bytes, at + 4, end) : behind(bytes, at + 4, end, SPACE);
    line =
      from < 0 || !short(bytes, from, end, isReply ? 0 : CR, found)
        ? FtpLine.Partial
        : isReply
          ? FtpLine.Pasv
          : FtpLine.Port;
  } else if (line === FtpLine.None) {
    line = begins(bytes, at, end, second);
    if (line === true) {
      const from = behind(bytes, at + 4, end, isReply ? PAREN : SPACE);
      const isRead = from >= 0 && (isReply ? portOnly(bytes, from, end, found) : extended(bytes, from, end, found));
      line = isRead ? (isReply ? FtpLine.Epsv : FtpLine.Eprt) : FtpLine.Partial;
    }
  }
  found.line = line as FtpLine;
  return found.line;
}

/** RFC 1123 §4.1.2.6: an answer must be looked through for the first digit. */
function firstDigit(bytes: Uint8Array, at: number, end: number): number {
  for (let i = at; i < end; i++) if (isDigit(bytes[i]!)) return i;
  return -1;
}

const numbers = [0, 0, 0, 0, 0, 0];

/** `count` numbers apart by `separator`, with `terminator` behind (0: anything). Answers where they end, or -1. */
function readNumbers(
  bytes: Uint8Array,
  at: number,
  end: number,
  count: number,
  separator: number,
  terminator: number,
): number {
  numbers.fill(0);
  let n = 0;
  for (let i = at; i < end && n < count; i++) {
    const c = bytes[i]!;
    if (isDigit(c)) numbers[n] = (Math.imul(numbers[n]!, 10) + c - 0x30) | 0;
    else if (c === separator) n++;
    else return (c === terminator || terminator === 0) && n === count - 1 ? i : -1;
  }
  return -1;
}

function addressOf(): number {
  const [a, b, c, d] = numbers as [number, number, number, number];
  return (a << 24) | (b << 16) | (c << 8) | d;
}

function short(bytes: Uint8Array, at: number, end: number, terminator: number, found: Announcement): boolean {
  const to = readNumbers(bytes, at, end, 6, COMMA, terminator);
  if (to < 0) return false;
  found.address = addressOf();
  found.port = ((numbers[4]! << 8) | numbers[5]!) & 0xffff;
  found.from = at;
  found.to = to;
  return true;
}

function isDelimiter(c: number): boolean {
  return !isDigit(c) && c >= 33 && c <= 126;
}

function extended(bytes: Uint8Array, at: number, end: number, found: Announcement): boolean {
  const delimiter = bytes[at]!;
  if (end - at <= 3 || !isDelimiter(delimiter) || bytes[at + 2] !== delimiter || bytes[at + 1] !== IP4) return false;
  const behindAddress = readNumbers(bytes, at + 3, end, 4, DOT, delimiter);
  if (behindAddress < 0) return false;
  found.address = addressOf();
  return readPort(bytes, at, behindAddress + 1, end, delimiter, found);
}

function portOnly(bytes: Uint8Array, at: number, end: number, found: Announcement): boolean {
  const delimiter = bytes[at]!;
  if (end - at <= 3 || !isDelimiter(delimiter)) return false;
  if (bytes[at + 1] !== delimiter || bytes[at + 2] !== delimiter) return false;
  return readPort(bytes, at, at + 3, end, delimiter, found);
}

/** The port and the delimiter behind it; `from` is where the whole begins. */
function readPort(
  bytes: Uint8Array,
  from: number,
  at: number,
  end: number,
  delimiter: number,
  found: Announcement,
): boolean {
  let port = 0;
  for (let i = at; i < end; i++) {
    const c = bytes[i]!;
    if (c === delimiter) {
      if (port === 0) return false;
      found.port = port;
      found.from = from;
      found.to = i + 1;
      return true;
    }
    if (!isDigit(c)) return false;
    port = (port * 10 + c - 0x30) & 0xffff;
  }
  return false;
}

/** The same line's text with another address and port. */
export function announcementText(line: FtpLine, address: number, port: number): string {
  const [a, b, c, d] = [address >>> 24, (address >> 16) & 255, (address >> 8) & 255, address & 255];
  if (line === FtpLine.Eprt) return `|1|${a}.${b}.${c}.${d}|${port}|`;
  return line === FtpLine.Epsv ? `|||${port}|` : `${a},${b},${c},${d},${port >> 8},${port & 255}`;
}
