/**
 * SCTP's tracker (nf_conntrack_proto_sctp.c): the state follows the chunks, and verification tags tell whose they are (RFC 9260 §8.4, §8.5).   @hot
 *
 *   NO none  CL closed  CW cookie wait  CE cookie echoed  ES established  SS shutdown sent  SR shutdown received  SA shutdown ack sent  HS heartbeat sent
 *   -- invalid
 */
import { swapBytes } from '../base/jhash.ts';
import { Hook } from '../hooks/hooks.ts';
import { Status } from '../model/entry-status.ts';
import type { Packet } from '../packet/packet.ts';
import { crc32c } from '../wire/crc32c.ts';
import { CHUNK_HEADER, ChunkType, SCTP_HEADER } from '../wire/sctp.ts';
import { Change } from './changes.ts';
import type { Conntrack } from './conntrack.ts';
import { Col, ENTRY_SHIFT } from './entries.ts';
import { CtDir } from './entry.ts';
import { sayInvalid, unsound } from './log-invalid.ts';
import { CtResult } from './result.ts';

export const SctpCt = { None: 0, Closed: 1, Established: 4, ShutdownSent: 5, ShutdownAckSent: 7, Invalid: 9 } as const;
// biome-ignore format: tables are read by eye
const TABLE = `
                     NO CL CW CE ES SS SR SA HS
ORIGINAL
  init               CL CL CW CE ES CL CL SA CW
  init-ack           CL CL CW CE ES SS SR SA CL
  abort              CL CL CL CL CL CL CL CL CL
  shutdown           CL CL CW CE SS SS SR SA CL
  shutdown-ack       SA CL CW CE ES SA SA SA SA
  error              CL CL CW CE ES SS SR SA CL
  cookie-echo        CL CL CE CE ES SS SR SA CL
  cookie-ack         CL CL CW ES ES SS SR SA CL
  shutdown-complete  CL CL CW CE ES SS SR CL CL
  heartbeat          HS CL CW CE ES SS SR SA HS
  heartbeat-ack      CL CL CW CE ES SS SR SA HS
REPLY
  init               -- CL CW CE ES SS SR SA --
  init-ack           -- CW CW CE ES SS SR SA --
  abort              -- CL CL CL CL CL CL CL --
  shutdown           -- CL CW CE SR SS SR SA --
  shutdown-ack       -- CL CW CE ES SA SA SA --
  error              -- CL CW CL ES SS SR SA --
  cookie-echo        -- CL CE CE ES SS SR SA --
  cookie-ack         -- CL CW ES ES SS SR SA --
  shutdown-complete  -- CL CW CE ES SS SR CL --
  heartbeat          -- CL CW CE ES SS SR SA HS
  heartbeat-ack      -- CL CW CE ES SS SR SA ES
`;

const { Init: INIT, InitAck: INIT_ACK, Abort: ABORT, Shutdown: SHUTDOWN, ShutdownAck: SHUTDOWN_ACK } = ChunkType;
const { Error: ERROR, CookieEcho: COOKIE_ECHO, CookieAck: COOKIE_ACK, Data: DATA } = ChunkType;
const { ShutdownComplete: SHUTDOWN_COMPLETE, Heartbeat: HEARTBEAT, HeartbeatAck: HEARTBEAT_ACK } = ChunkType;
const { Accept: ACCEPT, Invalid: INVALID } = CtResult;
const { Original: ORIGINAL } = CtDir;
const { Status: STATUS, Word: WORD, End: TAG } = Col;
const { Confirmed: CONFIRMED, Assured: ASSURED } = Status;
const { Protoinfo: PROTOINFO, Assured: BECAME_ASSURED } = Change;
const { None: NONE, Closed: CLOSED, Established: ESTABLISHED, Invalid: IMPOSSIBLE } = SctpCt;
const { ShutdownSent: SHUTDOWN_SENT, ShutdownAckSent: SHUTDOWN_ACK_SENT } = SctpCt;
const HEADER = SCTP_HEADER;
const CHUNK = CHUNK_HEADER;
const PRE_ROUTING = Hook.PreRouting;
const CHECKSUM = 8;
const VERIFICATION_TAG = 4;
/** The T bit: the tag is the sender's own (RFC 9260 §3.3.7). */
const REFLECTED = 1;
/** Bits of Col.Word beside the state: a heartbeat had another tag; the direction of the last such; which side has sent INIT. */
const HEARTBEAT_FAILED = 0x100;
const LAST_DIR = 0x1000;
const INIT_SENT = 0x2000;

// cold: set-up
/** Row of the table for each chunk type, 255 for those that move nothing. */
const ROW = new Uint8Array(256).fill(255);
for (const [row, type] of [
  INIT,
  INIT_ACK,
  ABORT,
  SHUTDOWN,
  SHUTDOWN_ACK,
  ERROR,
  COOKIE_ECHO,
  COOKIE_ACK,
  SHUTDOWN_COMPLETE,
  HEARTBEAT,
  HEARTBEAT_ACK,
].entries()) {
  ROW[type] = row;
}
const table = compile(TABLE);
// hot again

function nextState(dir: number, state: number, type: number): number {
  const row = ROW[type]!;
  return row === 255 ? state : table[(((dir << 4) | row) << 4) | state]!;
}

/** States that may give way to new associations (sctp_can_early_drop). */
export function isSctpClosing(state: number): boolean {
  return state >= SHUTDOWN_SENT && state <= SHUTDOWN_ACK_SENT;
}

/** Is it a packet of SCTP, and its CRC right where that is looked at (sctp_error)? */
export function isSctpSound(ct: Conntrack, p: Packet, hook: number): boolean {
  if (p.l4Fault !== 0) return unsound(ct, p, 'nf_ct_sctp: short packet ');
  if (ct.sysctls.checksum === 0 || hook !== PRE_ROUTING) return true;
  if (p.csumPartial !== 0 || p.csumValid !== 0 || p.gsoType !== 0) return true;
  const isRight = p.view.getInt32(p.l4 + CHECKSUM, true) === (crc32c(p.bytes, p.l4, p.end, p.l4 + CHECKSUM) | 0);
  return isRight || unsound(ct, p, 'nf_ct_sctp: bad CRC ');
}

/** Types that are in the packet, as bits; -1 when chunks stand where they may not, or there are none (do_basic_checks). */
function chunkMap(ct: Conntrack, p: Packet): number {
  const { view, end } = p;
  let map = 0;
  let isAlone = false;
  let at = p.l4 + HEADER;
  let count = 0;
  while (at < end && end - at >= CHUNK) {
    const type = view.getUint8(at);
    const length = view.getUint16(at + 2);
    if (type === INIT || type === INIT_ACK || type === SHUTDOWN_COMPLETE) isAlone = true;
    const isFirst = type === COOKIE_ACK || type === COOKIE_ECHO || isAlone;
    if ((isFirst && count !== 0) || length === 0) {
      if (ct.sysctls.logInvalid !== 0) sayChunk(ct, p, count, at, isAlone);
      return -1;
    }
    if (type < 31) map |= 1 << type;
    at += (length + 3) & ~3;
    count++;
  }
  return count === 0 ? -1 : map;
}

/** The first packet (sctp_new). */
export function beginSctp(ct: Conntrack, p: Packet, entry: number): boolean {
  const { rows } = ct.entries;
  const { view, end } = p;
  const map = chunkMap(ct, p);
  if (map < 0 || (map & ((1 << ABORT) | (1 << SHUTDOWN_COMPLETE) | (1 << COOKIE_ACK))) !== 0) return false;
  const tags = (entry << ENTRY_SHIFT) + TAG;
  const tag = view.getInt32(p.l4 + VERIFICATION_TAG);
  for (let at = p.l4 + HEADER; end - at >= CHUNK; at += (view.getUint16(at + 2) + 3) & ~3) {
    const type = view.getUint8(at);
    const state = nextState(ORIGINAL, NONE, type);
    if (state === NONE || state === IMPOSSIBLE) return false;
    if (type === INIT) {
      if (end - at < CHUNK + 16) return false;
      rows[tags + 1] = view.getInt32(at + CHUNK);
    } else if (type === HEARTBEAT || type === HEARTBEAT_ACK) {
      rows[tags] = tag;
    } else if (type === SHUTDOWN_ACK) {
      // Of an association that nobody knows: SHUTDOWN COMPLETE answers it with its own tag (RFC 9260 §8.4).
      rows[tags + 1] = tag;
    }
  }
  return true;
}

export function trackSctp(ct: Conntrack, p: Packet, entry: number, dir: number): number {
  const { rows } = ct.entries;
  const row = entry << ENTRY_SHIFT;
  const tags = row + TAG;
  const { view, end } = p;
  const map = chunkMap(ct, p);
  if (map < 0) return INVALID;
  const tag = view.getInt32(p.l4 + VERIFICATION_TAG);
  const special =
    (1 << INIT) |
    (1 << SHUTDOWN_COMPLETE) |
    (1 << COOKIE_ECHO) |
    (1 << ABORT) |
    (1 << SHUTDOWN_ACK) |
    (1 << HEARTBEAT) |
    (1 << HEARTBEAT_ACK);
  if ((map & special) === 0 && tag !== rows[tags + dir]) {
    if (ct.sysctls.logInvalid !== 0) sayTag(ct, p, tag, rows[tags + dir]!, dir);
    return INVALID;
  }
  let isIgnored = false;
  let state: number = NONE;
  for (let at = p.l4 + HEADER; end - at >= CHUNK; at += (view.getUint16(at + 2) + 3) & ~3) {
    const type = view.getUint8(at);
    const fit = fitsTag(rows, row, dir, type, view.getUint8(at + 1), tag, (map & (1 << DATA)) !== 0 || isIgnored);
    if (fit < 0) return INVALID;
    if (fit > 0) {
      isIgnored = true;
      continue;
    }
    const old = rows[row + WORD]! & 0xff;
    state = nextState(dir, old, type);
    if (state === IMPOSSIBLE) return INVALID;
    if (type === INIT || type === INIT_ACK) {
      if (end - at < CHUNK + 16 || !noteTag(rows, row, dir, type, view.getInt32(at + CHUNK))) return INVALID;
      const isRepeated = type === INIT && state === CLOSED && old === CLOSED;
      if (isRepeated && (rows[row + STATUS]! & CONFIRMED) !== 0) isIgnored = true;
    }
    rows[row + WORD] = (rows[row + WORD]! & ~0xff) | state;
    if (old !== state) {
      ct.changed(entry, PROTOINFO);
      if (state === ESTABLISHED && (rows[row + STATUS]! & ASSURED) === 0) {
        rows[row + STATUS]! |= ASSURED;
        ct.changed(entry, BECAME_ASSURED);
      }
    }
  }
  if (!isIgnored) ct.refresh(p, entry, dir, ct.sysctls.sctpTimeouts[state]!);
  return ACCEPT;
}

/** RFC 9260 §8.5.1. @returns 0 it fits; 1 a heartbeat of another association: let through; -1 it is none of this association */
function fitsTag(
  rows: Int32Array,
  row: number,
  dir: number,
  type: number,
  flags: number,
  tag: number,
  isStrict: boolean,
): number {
  const tags = row + TAG;
  switch (type) {
    case INIT:
      return tag === 0 ? 0 : -1;
    case ABORT:
    case SHUTDOWN_COMPLETE:
      return tag === rows[tags + ((flags & REFLECTED) !== 0 ? 1 - dir : dir)] ? 0 : -1;
    case COOKIE_ECHO:
      return tag === rows[tags + dir] ? 0 : -1;
    case COOKIE_ACK:
      rows[row + WORD]! &= ~(INIT_SENT | (INIT_SENT << 1));
      return 0;
    case HEARTBEAT:
    case HEARTBEAT_ACK:
      return fitsHeartbeat(rows, row, dir, type === HEARTBEAT_ACK, tag, isStrict);
    default:
      return 0;
  }
}

function fitsHeartbeat(
  rows: Int32Array,
  row: number,
  dir: number,
  isAnswer: boolean,
  tag: number,
  isStrict: boolean,
): number {
  const tags = row + TAG;
  const word = rows[row + WORD]!;
  if (rows[tags + dir] === 0) {
    rows[tags + dir] = tag;
    return 0;
  }
  if (rows[tags + dir] === tag) {
    rows[row + WORD] = word & ~HEARTBEAT_FAILED;
    return 0;
  }
  if (isStrict) return -1;
  if (!isAnswer) {
    rows[row + WORD] = (word & ~LAST_DIR) | HEARTBEAT_FAILED | (dir === 0 ? 0 : LAST_DIR);
    return 1;
  }
  // A path of the association that begins with a heartbeat of which we knew another tag: its answer tells the right one.
  const lastDir = (word & LAST_DIR) === 0 ? 0 : 1;
  if ((word & HEARTBEAT_FAILED) === 0 || lastDir === dir) return -1;
  rows[row + WORD] = word & ~HEARTBEAT_FAILED;
  rows[tags + dir] = tag;
  rows[tags + 1 - dir] = 0;
  return 0;
}

/** The tag that INIT or INIT ACK wants to be answered with. False: it contradicts what we know. */
function noteTag(rows: Int32Array, row: number, dir: number, type: number, tag: number): boolean {
  const other = row + TAG + 1 - dir;
  const word = rows[row + WORD]!;
  const own = INIT_SENT << dir;
  const others = INIT_SENT << (1 - dir);
  if (type === INIT) {
    rows[row + WORD] = ((word & own) !== 0 ? word & ~others : word) | own;
    rows[other] = tag;
    return true;
  }
  const known = rows[other]!;
  if ((word & others) === 0 && known !== 0 && known !== tag) return false;
  if ((word & own) !== 0 && (word & others) !== 0 && known !== tag) return false;
  rows[other] = tag;
  return true;
}

// cold: the log, and set-up
/** The kernel prints length and tags as they lie in the memory of a little-endian machine. */
function sayChunk(ct: Conntrack, p: Packet, count: number, at: number, isAlone: boolean): void {
  const { view } = p;
  const length = view.getUint16(at + 2, true);
  const what = `chunk num ${count}, type ${view.getUint8(at)}, len ${length} flag ${isAlone ? 1 : 0}`;
  sayInvalid(ct, p, `do_basic_checks failed. ${what}`);
}

function sayTag(ct: Conntrack, p: Packet, tag: number, known: number, dir: number): void {
  const [is, was] = [swapBytes(tag) >>> 0, swapBytes(known) >>> 0];
  sayInvalid(ct, p, `verification tag check failed ${is.toString(16)} vs ${was.toString(16)} for dir ${dir}`);
}

function compile(text: string): Uint8Array {
  const lines = text.trim().split('\n');
  const codes = [...lines[0]!.trim().split(/\s+/), '--'];
  const compiled = new Uint8Array(512);
  let dir = -1;
  let row = 0;
  for (const line of lines.slice(1)) {
    const [, ...states] = line.trim().split(/\s+/);
    if (states.length === 0) {
      dir++;
      row = 0;
      continue;
    }
    for (const [state, code] of states.entries()) compiled[(((dir << 4) | row) << 4) | state] = codes.indexOf(code);
    row++;
  }
  return compiled;
}
