/**
 * The Call-ID of a SIP message, as the kernel's director reads it (RFC 3261 §20.8; net/netfilter/nf_conntrack_sip.c, ct_sip_get_header and callid_len;
 * net/netfilter/ipvs/ip_vs_pe_sip.c, get_callid).
 *
 *   INVITE sip:bob@example.org SIP/2.0 ↵          the first line is never a header
 *   Call-ID : ↵                                   any case; `i` is its compact form; blanks around the colon
 *     a84b4c76e66710@pc33.example.org ↵           lines end with CR LF, CR or LF; a line that begins with a blank continues the one before
 *
 * The value is one word, or word@word, and its line must end right behind it.
 */
const [CR, LF, SPACE, TAB, COLON, AT] = [13, 10, 32, 9, 58, 64] as const;
/** IP_VS_PEDATA_MAXLEN. */
const LONGEST = 255;
const NAME = [...'call-id'].map((c) => c.charCodeAt(0));
const COMPACT = 'i'.charCodeAt(0);

/** What the kernel's isalnum and isalpha take: ASCII and the letters of Latin-1. */
function isLetter(c: number): boolean {
  const lower = c | 0x20;
  return (lower >= 0x61 && lower <= 0x7a) || (c >= 0xc0 && c !== 0xd7 && c !== 0xf7);
}
const isWordByte = Uint8Array.from({ length: 256 }, (_, c) => {
  const isDigit = c >= 0x30 && c <= 0x39;
  return isLetter(c) || isDigit || '!"%\'()*+-./:<>?[\\]_`{}~'.includes(String.fromCharCode(c)) ? 1 : 0;
});

const isEol = (c: number | undefined): boolean => c === CR || c === LF;

/** Behind the end of line at `at`, at the first byte of the line that continues it; -1 when none does. */
function continuation(bytes: Uint8Array, at: number, end: number): number {
  let i = at + 1;
  if (i >= end) return -1;
  if (bytes[at] === CR && bytes[i] === LF && ++i >= end) return -1;
  if (bytes[i] !== SPACE && bytes[i] !== TAB) return -1;
  while (i < end && (bytes[i] === SPACE || bytes[i] === TAB)) i++;
  return i;
}

/** Behind the blanks at `at`, over one continued line; -1 when the header ends there. */
function skipBlanks(bytes: Uint8Array, at: number, end: number): number {
  let i = at;
  while (i < end) {
    if (isEol(bytes[i])) return continuation(bytes, i, end);
    if (bytes[i] !== SPACE && bytes[i] !== TAB) return i;
    i++;
  }
  return i;
}

function wordLength(bytes: Uint8Array, at: number, end: number): number {
  let i = at;
  while (i < end && isWordByte[bytes[i]!] !== 0) i++;
  return i - at;
}

/** Length of `word` or `word@word` at `at`; 0 when it is neither. */
function callIdLength(bytes: Uint8Array, at: number, end: number): number {
  const word = wordLength(bytes, at, end);
  if (word === 0 || at + word >= end || bytes[at + word] !== AT) return word;
  const domain = wordLength(bytes, at + word + 1, end);
  return domain === 0 ? 0 : word + 1 + domain;
}

/** Length of the header's name at `at`, 0 when it is another header. */
function nameLength(bytes: Uint8Array, at: number, end: number): number {
  if (end - at >= NAME.length && NAME.every((c, i) => c === (isLetter(c) ? bytes[at + i]! | 0x20 : bytes[at + i]))) {
    return NAME.length;
  }
  if (end - at >= 2 && (bytes[at]! | 0x20) === COMPACT && !isLetter(bytes[at + 1]!)) return 1;
  return 0;
}

/** Where the value of the first Call-ID header at or behind `from` begins; -1 when there is none. */
function findValue(bytes: Uint8Array, from: number, end: number): number {
  for (let i = from; i < end; i++) {
    if (!isEol(bytes[i])) continue;
    if (++i >= end) return -1;
    if (bytes[i - 1] === CR && bytes[i] === LF && ++i >= end) return -1;
    if (bytes[i] === SPACE || bytes[i] === TAB) continue;
    const name = nameLength(bytes, i, end);
    if (name === 0) continue;
    i = skipBlanks(bytes, i + name, end);
    if (i < 0 || i >= end || bytes[i] !== COLON || ++i >= end) return -1;
    return skipBlanks(bytes, i, end);
  }
  return -1;
}

/** The Call-ID of the message at `start … end`, a character a byte; undefined when it has none that counts. */
export function callId(bytes: Uint8Array, start: number, end: number): string | undefined {
  let from = start;
  for (;;) {
    const value = findValue(bytes, from, end);
    if (value < 0) return undefined;
    const length = callIdLength(bytes, value, end);
    if (length === 0) {
      // An empty one does not count, and the next is looked for; from where, is the kernel's arithmetic.
      from += value - start;
      continue;
    }
    if (length > LONGEST || value + length === end || !isEol(bytes[value + length])) return undefined;
    let text = '';
    for (let i = value; i < value + length; i++) text += String.fromCharCode(bytes[i]!);
    return text;
  }
}
