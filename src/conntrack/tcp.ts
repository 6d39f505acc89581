/**
 * TCP's tracker (nf_conntrack_proto_tcp.c: nf_conntrack_tcp_packet, tcp_new, tcp_error).   @hot
 *
 * What it cannot judge it lets pass without believing it (IGNORE): the receiver's answer tells. So a SYN on an old connection is remembered, and the SYN+ACK that
 * acknowledges it puts us in step again.
 */

import { TCP_CT_NAMES } from '../model/entry-states.ts';
import { Status } from '../model/entry-status.ts';
import type { Packet } from '../packet/packet.ts';
import * as tcp from '../wire/tcp.ts';
import { Change } from './changes.ts';
import type { Conntrack } from './conntrack.ts';
import { Col, ENTRY_SHIFT } from './entries.ts';
import { CtDir } from './entry.ts';
import { sayInvalid, unsound } from './log-invalid.ts';
import { CtResult } from './result.ts';
import { TcpTimeout } from './sysctl.ts';
import { areFlagsValid, nextState, Segment, segmentOf, TcpCt } from './tcp-states.ts';
import { Fit, fitsWindow, readSegment, readSynOptions, seg, WindowFlag, windowFault } from './tcp-window.ts';

const { Accept: ACCEPT, Invalid: INVALID, Repeat: REPEAT } = CtResult;
const { SeenReply: SEEN_REPLY, Assured: ASSURED, FixedTimeout: FIXED_TIMEOUT, Confirmed: CONFIRMED } = Status;
const { Syn: IS_SYN, SynAck: IS_SYN_ACK, Fin: IS_FIN, Ack: IS_ACK, Rst: IS_RST, None: IS_NONE } = Segment;
const { SynSent: SYN_SENT, SynRecv: SYN_RECV, Established: ESTABLISHED, FinWait: FIN_WAIT } = TcpCt;
const { LastAck: LAST_ACK_STATE, TimeWait: TIME_WAIT, Close: CLOSE, SynSent2: SYN_SENT2 } = TcpCt;
const { Invalid: INVALID_STATE, Ignore: IGNORE } = TcpCt;
const { Scaling: SCALING, SackPermitted: SACK_PERMITTED, CloseInit: CLOSE_INIT } = WindowFlag;
const { Liberal: LIBERAL, Unacknowledged: UNACKNOWLEDGED, MaxAckSet: MAX_ACK_IS_SET } = WindowFlag;
const { Status: STATUS, Word: WORD, End: END, MaxEnd: MAX_END, MaxWin: MAX_WIN, MaxAck: MAX_ACK, Scale: SCALE } = Col;
const { LastSeq: LAST_SEQ, LastAck: LAST_ACK, LastEnd: LAST_END, LastWin: LAST_WIN } = Col;
const { Original: ORIGINAL, Reply: REPLY } = CtDir;
const { MaxRetrans: MAX_RETRANS, Unacknowledged: UNACK } = TcpTimeout;
const { Accept: FITS, Ignore: PASSES } = Fit;
const { Protoinfo: PROTOINFO, Assured: BECAME_ASSURED } = Change;
const RST_FLAG = tcp.TcpFlag.Rst;
const HEADER = tcp.TCP_HEADER;
const WINDOW_COLUMNS = 5;
/** Of Col.Word: what does not belong to last index and direction. */
const NOT_LAST = ~0x1f00;
/** Bits of last flags (byte 2 of Col.Word), beside those of WindowFlag. */
const SIMULTANEOUS_OPEN = 0x40;
const CHALLENGE_ACK = 0x80;
/** Ticks under which a suspicious close shortens nothing. */
const SHORT = 120 * 250;

function isBefore(a: number, b: number): boolean {
  return ((a - b) | 0) < 0;
}

/** Is it a segment at all? The header is sound and, where that is asked for, the checksum right. */
export function isTcpSound(ct: Conntrack, p: Packet, hook: number): boolean {
  if (p.l4Fault !== 0) return p.end - p.l4 >= HEADER && unsound(ct, p, 'truncated packet');
  if (!ct.isSumRight(p, hook)) return unsound(ct, p, 'bad checksum');
  return areFlagsValid(tcp.flags(p.view, p.l4)) || unsound(ct, p, 'invalid tcp flag combination');
}

/** Begin with the first segment that we see. False: none that a connection begins with. */
export function beginTcp(ct: Conntrack, p: Packet, entry: number): boolean {
  const { rows } = ct.entries;
  const { view } = p;
  readSegment(view, p.l4, p.end);
  const at = entry << ENTRY_SHIFT;
  const state = nextState(ORIGINAL, segmentOf(seg.flags), TcpCt.None);
  if (state >= INVALID_STATE) return unsound(ct, p, 'invalid new');
  const win = seg.win === 0 ? 1 : seg.win;
  if (state !== SYN_SENT && ct.sysctls.tcpLoose === 0) return false;
  rows[at + WORD] = IS_NONE << 8;
  rows[at + END] = seg.end;
  rows[at + MAX_WIN] = win;
  if (state === SYN_SENT) {
    rows[at + MAX_END] = seg.end;
    const options = readSynOptions(view);
    if (options >= 0) rows[at + SCALE] = options;
    return true;
  }
  rows[at + MAX_END] = (seg.end + win) | 0;
  rows[at + SCALE] = (SACK_PERMITTED | LIBERAL) << 8;
  rows[at + SCALE + WINDOW_COLUMNS] = (SACK_PERMITTED | LIBERAL) << 8;
  return true;
}

function setLast(rows: Int32Array, at: number, segment: number, dir: number): void {
  rows[at + WORD] = (rows[at + WORD]! & NOT_LAST) | (segment << 8) | (dir << 12);
}

function setLastFlags(rows: Int32Array, at: number, flags: number): void {
  rows[at + WORD] = (rows[at + WORD]! & ~0xff0000) | (flags << 16);
}

function isEstablished(status: number, state: number): boolean {
  return state === ESTABLISHED && (status & ASSURED) !== 0;
}

/** States that may give way to new connections (tcp_can_early_drop). */
export function isClosing(state: number): boolean {
  return state >= FIN_WAIT && state <= CLOSE;
}

/** A rule has answered a segment by a reset: the connection is over (nf_conntrack_tcp_set_closing). */
export function closeTcp(ct: Conntrack, entry: number): void {
  const { rows } = ct.entries;
  const at = entry << ENTRY_SHIFT;
  const word = rows[at + WORD]!;
  if ((rows[at + STATUS]! & CONFIRMED) === 0 || (word & 0xff) === CLOSE) return;
  rows[at + WORD] = (word & ~0xff) | CLOSE;
  if ((rows[at + STATUS]! & FIXED_TIMEOUT) !== 0) return;
  ct.entries.refresh(entry, ct.sysctls.tcpTimeouts[CLOSE]!, ct.now);
  ct.changed(entry, PROTOINFO);
}

/** A sound segment of an entry. */
export function trackTcp(ct: Conntrack, p: Packet, entry: number, dir: number): number {
  const { entries } = ct;
  const { rows } = entries;
  const at = entry << ENTRY_SHIFT;
  readSegment(p.view, p.l4, p.end);
  const word = rows[at + WORD]!;
  const status = rows[at + STATUS]!;
  const segment = segmentOf(seg.flags);
  const old = word & 0xff;
  const last = (word >> 8) & 0xf;
  const lastDir = (word >> 12) & 1;
  const lastFlags = (word >> 16) & 0xff;
  let state = nextState(dir, segment, old);
  let before = old;
  let isJudged = false;
  switch (state) {
    case SYN_SENT:
    case IGNORE: {
      if (state === SYN_SENT && old < TIME_WAIT) break;
      if (state === SYN_SENT && isReopened(rows, at, dir, last, lastDir)) return REPEAT;
      if (segment !== IS_SYN_ACK || last !== IS_SYN || lastDir === dir || seg.ack !== rows[at + LAST_END]) {
        if (ct.sysctls.logInvalid !== 0) saySegment(ct, p, segment, dir, 'ignored', old);
        return remember(p, rows, at, dir, segment, old);
      }
      before = SYN_SENT;
      state = SYN_RECV;
      resynchronise(rows, at, dir, lastDir, lastFlags);
      break;
    }
    case INVALID_STATE:
      if (ct.sysctls.logInvalid !== 0) saySegment(ct, p, segment, dir, 'invalid', old);
      return INVALID;
    case TIME_WAIT:
      // RFC 5961 §4: a challenge to a SYN that we let through acknowledges no FIN.
      if (
        old === LAST_ACK_STATE &&
        segment === IS_ACK &&
        lastDir !== dir &&
        last === IS_SYN &&
        (lastFlags & CHALLENGE_ACK) !== 0
      ) {
        setLastFlags(rows, at, lastFlags & ~CHALLENGE_ACK);
        if (ct.sysctls.logInvalid !== 0) sayInvalid(ct, p, 'challenge-ack ignored');
        return ACCEPT;
      }
      break;
    case SYN_SENT2:
      setLastFlags(rows, at, lastFlags | SIMULTANEOUS_OPEN);
      break;
    case SYN_RECV:
      if (dir === REPLY && segment === IS_ACK && (lastFlags & SIMULTANEOUS_OPEN) !== 0) state = ESTABLISHED;
      break;
    case CLOSE:
      if (segment !== IS_RST) break;
      state = judgeReset(ct, rows, at, dir, old, status, last, lastDir);
      if (state === INVALID_STATE) {
        if (ct.sysctls.logInvalid !== 0) sayInvalid(ct, p, 'invalid rst');
        return INVALID;
      }
      isJudged = state === IGNORE;
      if (isJudged) state = CLOSE;
      break;
    default:
  }
  if (!isJudged) {
    const fit = fitsWindow(
      entries,
      p.view,
      entry,
      dir,
      segment,
      ct.offsetOf(entry, dir, seg.ack),
      ct.sysctls.tcpBeLiberal !== 0,
    );
    if (fit !== FITS) {
      if (ct.sysctls.logInvalid !== 0) sayInvalid(ct, p, windowFault(entries, entry, dir, fit === PASSES));
      if (fit === PASSES) return ACCEPT;
      shorten(ct, p, entry, at, dir, segment);
      return INVALID;
    }
  }
  return settle(ct, p, entry, at, dir, segment, before, state);
}

/** The segment is in order: its state, and its time. */
function settle(
  ct: Conntrack,
  p: Packet,
  entry: number,
  at: number,
  dir: number,
  segment: number,
  old: number,
  state: number,
): number {
  const { rows } = ct.entries;
  rows[at + WORD] = (rows[at + WORD]! & NOT_LAST & ~0xff) | state | (segment << 8) | (dir << 12);
  if (old !== state && state === FIN_WAIT) rows[at + SCALE + dir * WINDOW_COLUMNS]! |= CLOSE_INIT << 8;
  let timeout = timeoutOf(ct, at, segment, state);
  if (old !== state) ct.changed(entry, PROTOINFO);
  const status = rows[at + STATUS]!;
  if ((status & SEEN_REPLY) === 0) {
    // Nobody was there: the connection is over.
    if ((seg.flags & RST_FLAG) !== 0) {
      ct.account(p, entry, dir);
      ct.kill(entry);
      return ACCEPT;
    }
    // Repeating a SYN keeps nothing alive.
    if (segment === IS_SYN && old === SYN_SENT) return ACCEPT;
    const most = ct.sysctls.tcpTimeouts[UNACK]!;
    if (state === ESTABLISHED && isLonger(timeout, most)) timeout = most;
  } else if ((status & ASSURED) === 0 && (old === SYN_RECV || old === ESTABLISHED) && state === ESTABLISHED) {
    rows[at + STATUS] = status | ASSURED;
    ct.changed(entry, BECAME_ASSURED);
  }
  ct.refresh(p, entry, dir, timeout);
  return ACCEPT;
}

/** Settings of less than nothing are very long to whoever compares them, and over at once when they are added to now: the kernel's are unsigned. */
function isLonger(ticks: number, than: number): boolean {
  return ticks >>> 0 > than >>> 0;
}

function timeoutOf(ct: Conntrack, at: number, segment: number, state: number): number {
  const { rows } = ct.entries;
  const { tcpTimeouts, tcpMaxRetrans } = ct.sysctls;
  const usual = tcpTimeouts[state]!;
  const retransmitting = tcpTimeouts[MAX_RETRANS]!;
  if (rows[at + WORD]! >>> 24 >= tcpMaxRetrans && isLonger(usual, retransmitting)) return retransmitting;
  if (segment === IS_RST) return tcpTimeouts[CLOSE]!;
  const flags = (rows[at + SCALE]! | rows[at + SCALE + WINDOW_COLUMNS]!) >> 8;
  if ((flags & UNACKNOWLEDGED) !== 0 && isLonger(usual, tcpTimeouts[UNACK]!)) return tcpTimeouts[UNACK]!;
  if ((rows[at + LAST_WIN]! & 0xffff) === 0 && isLonger(usual, retransmitting)) return retransmitting;
  return usual;
}

/** RFC 9293 §3.6.1: a SYN may open a connection again that either side has closed. */
function isReopened(rows: Int32Array, at: number, dir: number, last: number, lastDir: number): boolean {
  const flags = (rows[at + SCALE]! | rows[at + SCALE + WINDOW_COLUMNS]!) >> 8;
  return (flags & CLOSE_INIT) !== 0 || (lastDir === dir && last === IS_RST);
}

/** Let through, not believed. */
function remember(p: Packet, rows: Int32Array, at: number, dir: number, segment: number, state: number): number {
  setLast(rows, at, segment, dir);
  rows[at + LAST_SEQ] = seg.seq;
  rows[at + LAST_END] = seg.end;
  rows[at + LAST_WIN] = (rows[at + LAST_WIN]! & ~0xffff) | seg.win;
  if (segment === IS_SYN && dir === ORIGINAL) {
    const options = Math.max(readSynOptions(p.view), 0);
    const scale = ((options >> 8) & SCALING) !== 0 ? options & 0xff : 0;
    rows[at + LAST_WIN] = seg.win | (scale << 16);
    const flags = (options >> 8) & (SCALING | SACK_PERMITTED);
    setLastFlags(rows, at, state === LAST_ACK_STATE ? flags | CHALLENGE_ACK : flags);
  }
  if (state === SYN_SENT && segment === IS_ACK && dir === REPLY) rows[at + LAST_ACK] = seg.ack;
  return ACCEPT;
}

/** This SYN+ACK acknowledges the SYN that we did not believe: it was right. */
function resynchronise(rows: Int32Array, at: number, dir: number, lastDir: number, lastFlags: number): void {
  const win = rows[at + LAST_WIN]! & 0xffff;
  const asker = at + lastDir * WINDOW_COLUMNS;
  const answerer = at + dir * WINDOW_COLUMNS;
  const flags = lastFlags & ~CHALLENGE_ACK;
  rows[asker + END] = rows[at + LAST_END]!;
  rows[asker + MAX_END] = rows[at + LAST_END]!;
  rows[asker + MAX_WIN] = win === 0 ? 1 : win;
  rows[asker + SCALE] = (rows[at + LAST_WIN]! >>> 16) | ((flags & (SCALING | SACK_PERMITTED)) << 8);
  setLastFlags(rows, at, flags);
  const liberal = rows[answerer + SCALE]! & (LIBERAL << 8);
  rows.fill(0, answerer + END, answerer + END + WINDOW_COLUMNS);
  rows[answerer + SCALE] = liberal;
}

/**
 * A reset. Answers the state that it leads to, INVALID_STATE when it is none, IGNORE when it closes the connection whatever its numbers are.
 */
function judgeReset(
  ct: Conntrack,
  rows: Int32Array,
  at: number,
  dir: number,
  old: number,
  status: number,
  last: number,
  lastDir: number,
): number {
  if (isClosing(old)) return IGNORE;
  const other = at + (dir === ORIGINAL ? WINDOW_COLUMNS : 0);
  let state: number = CLOSE;
  if (((rows[other + SCALE]! >> 8) & MAX_ACK_IS_SET) !== 0 && last !== IS_SYN) {
    const { seq } = seg;
    const maxAck = rows[other + MAX_ACK]!;
    const isOpen = isEstablished(status, old);
    if (seq === 0 && !isOpen) return CLOSE;
    if (isBefore(seq, maxAck) && ct.sysctls.tcpIgnoreInvalidRst === 0) return INVALID_STATE;
    if (!isOpen || seq === maxAck) return CLOSE;
    if (last === IS_ACK && lastDir === dir && seq === rows[at + LAST_END]) return CLOSE;
    // Not exactly the expected number: its receiver may ask back (RFC 5961 §3).
    state = old;
  }
  const isAnswerToIgnored =
    ((status & SEEN_REPLY) !== 0 && last === IS_SYN) || ((status & ASSURED) === 0 && last === IS_ACK);
  if (isAnswerToIgnored && lastDir !== dir && seg.ack === rows[at + LAST_END]) return IGNORE;
  // The client answers an ACK that we let through while it waited for SYN+ACK: perhaps a challenge.
  const isChallenged = old === SYN_SENT && last === IS_ACK && lastDir === REPLY;
  if (isChallenged && seg.seq === rows[at + LAST_ACK]) return IGNORE;
  return state;
}

/** FIN or RST of both sides outside of the window: we are out of step, and the connection is probably over (nf_tcp_handle_invalid). */
function shorten(ct: Conntrack, p: Packet, entry: number, at: number, dir: number, segment: number): void {
  const { rows } = ct.entries;
  const status = rows[at + STATUS]!;
  if ((status & ASSURED) === 0 || (status & FIXED_TIMEOUT) !== 0) return;
  if (segment !== IS_RST && segment !== IS_FIN) return;
  const word = rows[at + WORD]!;
  const last = (word >> 8) & 0xf;
  if (((word >> 12) & 1) === dir || (last !== IS_FIN && last !== IS_RST)) return setLast(rows, at, segment, dir);
  const left = ct.entries.left(entry, ct.now);
  const timeout = ct.sysctls.tcpTimeouts[UNACK]!;
  if (left < SHORT || !isLonger(left, timeout)) return;
  if (ct.sysctls.logInvalid !== 0) sayShortened(ct, p, segment, dir, last, timeout);
  ct.entries.refresh(entry, timeout, ct.now);
}

// cold: the log
function saySegment(ct: Conntrack, p: Packet, segment: number, dir: number, what: string, state: number): void {
  sayInvalid(ct, p, `packet (index ${segment}) in dir ${dir} ${what}, state ${TCP_CT_NAMES[state]}`);
}

function sayShortened(ct: Conntrack, p: Packet, segment: number, dir: number, last: number, ticks: number): void {
  sayInvalid(ct, p, `packet (index ${segment}, dir ${dir}) response for index ${last} lower timeout to ${ticks >>> 0}`);
}
// hot again
