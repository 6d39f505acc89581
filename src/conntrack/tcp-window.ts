/**
 * Is a segment inside the window (nf_conntrack_proto_tcp.c, tcp_in_window; after Guido van Rooij, "Real Stateful TCP Packet Filtering in IP Filter")?   @hot
 *
 * Of each direction we remember what its sender has sent (`end`), how far it may send (`maxend`), the largest window it has offered (`maxwin`) and what it has
 * acknowledged (`maxack`). A segment is in order when
 *
 *   I    seq  <= sender.maxend                         it begins where it may
 *   II   end  >= sender.end − receiver.maxwin          it is not older than a window
 *   III  sack <= receiver.end                          it acknowledges what was sent
 *   IV   sack >= receiver.end − max(maxwin, 66000)     and not long ago
 */
import * as tcp from '../wire/tcp.ts';
import { Col, ENTRY_SHIFT, type EntryTable } from './entries.ts';
import { Segment, TcpCt } from './tcp-states.ts';

const { Syn: SYN, Ack: ACK, Rst: RST, Fin: FIN } = tcp.TcpFlag;
const { Ack: IS_ACK } = Segment;
const { SynSent: SYN_SENT, SynRecv: SYN_RECV } = TcpCt;
const { End: END, MaxEnd: MAX_END, MaxWin: MAX_WIN, MaxAck: MAX_ACK, Scale: SCALE, Word: WORD } = Col;
const { LastSeq: LAST_SEQ, LastAck: LAST_ACK, LastEnd: LAST_END, LastWin: LAST_WIN } = Col;
const WINDOW_COLUMNS = 5;
/** How old an acknowledgment may be at least; bytes (MAXACKWINCONST). */
const MAX_ACK_WINDOW = 66000;
const LARGEST_SCALE = 14;
const HEADER = tcp.TCP_HEADER;

/** Flags of a direction, bits 8… of Col.Scale (include/uapi/linux/netfilter/nf_conntrack_tcp.h). */
export const WindowFlag = {
  Scaling: 0x01,
  SackPermitted: 0x02,
  /** It was the first to send FIN. */
  CloseInit: 0x04,
  Liberal: 0x08,
  Unacknowledged: 0x10,
  MaxAckSet: 0x20,
} as const;
const { Scaling: SCALING, SackPermitted: SACK_PERMITTED, Liberal: LIBERAL } = WindowFlag;
const { Unacknowledged: UNACKNOWLEDGED, MaxAckSet: MAX_ACK_IS_SET } = WindowFlag;

export const Fit = { Accept: 0, Ignore: 1, Invalid: 2 } as const;
export type Fit = (typeof Fit)[keyof typeof Fit];
const { Accept, Ignore, Invalid } = Fit;

/** The segment that is looked at; one at a time. */
export const seg = { seq: 0, ack: 0, sack: 0, end: 0, win: 0, flags: 0, l4: 0, header: 0 };

function isBefore(a: number, b: number): boolean {
  return ((a - b) | 0) < 0;
}

/** Read a sound header at l4; `end` is one past the packet. */
export function readSegment(view: DataView, l4: number, end: number): void {
  const flags = tcp.flags(view, l4);
  seg.flags = flags;
  seg.l4 = l4;
  seg.header = tcp.headerLength(view, l4);
  seg.seq = tcp.seq(view, l4);
  seg.ack = tcp.ack(view, l4);
  seg.win = view.getUint16(l4 + 14);
  const extra = ((flags & SYN) !== 0 ? 1 : 0) + ((flags & FIN) !== 0 ? 1 : 0);
  seg.end = (seg.seq + (end - l4 - seg.header) + extra) | 0;
}

/** Window scale | flags << 8 that the options of a SYN ask for; -1 when it has no options at all (tcp_options). */
export function readSynOptions(view: DataView): number {
  let at = seg.l4 + HEADER;
  const stop = seg.l4 + seg.header;
  if (at === stop) return -1;
  let scale = 0;
  let flags = 0;
  while (at < stop) {
    const kind = view.getUint8(at);
    if (kind === 0) break;
    if (kind === 1) {
      at++;
      continue;
    }
    const size = at + 1 < stop ? view.getUint8(at + 1) : 0;
    if (size < 2 || at + size > stop) break;
    if (kind === 4 && size === 2) flags |= SACK_PERMITTED;
    else if (kind === 3 && size === 3) {
      scale = Math.min(view.getUint8(at + 2), LARGEST_SCALE);
      flags |= SCALING;
    }
    at += size;
  }
  return scale | (flags << 8);
}

/** The highest edge of the SACK blocks, or `sack` (tcp_sack). */
function highestEdge(view: DataView, sack: number): number {
  let at = seg.l4 + HEADER;
  const stop = seg.l4 + seg.header;
  let highest = sack;
  while (at < stop) {
    const kind = view.getUint8(at);
    if (kind === 0) return highest;
    if (kind === 1) {
      at++;
      continue;
    }
    const size = at + 1 < stop ? view.getUint8(at + 1) : 0;
    if (size < 2 || at + size > stop) return highest;
    if (kind === 5 && size >= 10 && (size - 2) % 8 === 0) {
      for (let edge = at + 6; edge < at + size; edge += 8) {
        const value = view.getInt32(edge);
        if (isBefore(highest, value)) highest = value;
      }
      return highest;
    }
    at += size;
  }
  return highest;
}

/** What a SYN says of its sender; both must offer a window scale, else neither has one (tcp_init_sender, RFC 7323 §2.2). */
function beginSender(view: DataView, rows: Int32Array, sender: number, receiver: number, isReply: boolean): void {
  rows[sender + END] = seg.end;
  rows[sender + MAX_END] = seg.end;
  rows[sender + MAX_WIN] = seg.win === 0 ? 1 : seg.win;
  const options = readSynOptions(view);
  if (options >= 0) rows[sender + SCALE] = (rows[sender + SCALE]! & (LIBERAL << 8)) | options;
  const both = rows[sender + SCALE]! & rows[receiver + SCALE]! & (SCALING << 8);
  if (isReply && both === 0) {
    rows[sender + SCALE]! &= ~0xff;
    rows[receiver + SCALE]! &= ~0xff;
  }
}

/** We are in the middle of a connection whose beginning we did not see. */
function guessSender(rows: Int32Array, sender: number, receiver: number): void {
  rows[sender + END] = seg.end;
  const win = seg.win << (rows[sender + SCALE]! & 0xff);
  rows[sender + MAX_WIN] = win === 0 ? 1 : win;
  rows[sender + MAX_END] = (seg.end + rows[sender + MAX_WIN]!) | 0;
  if (rows[receiver + MAX_WIN] === 0) {
    rows[receiver + END] = seg.sack;
    rows[receiver + MAX_END] = seg.sack;
  } else if (seg.sack === ((rows[receiver + END]! + 1) | 0)) {
    // Likely the answer to a keep-alive.
    rows[receiver + END] = seg.sack;
  }
}

/**
 * The segment in `seg`, by the window; the entry's numbers move on when it is accepted.
 * @param offset what is to be added to the other direction's numbers to get ours (a helper changed lengths)
 */
export function fitsWindow(
  table: EntryTable,
  view: DataView,
  entry: number,
  dir: number,
  segment: number,
  offset: number,
  isLiberal: boolean,
): Fit {
  const { rows } = table;
  const row = entry << ENTRY_SHIFT;
  const sender = row + (dir === 0 ? 0 : WINDOW_COLUMNS);
  const receiver = row + (dir === 0 ? WINDOW_COLUMNS : 0);
  const state = rows[row + WORD]! & 0xff;
  const { flags, end } = seg;
  const isSyn = (flags & SYN) !== 0;
  seg.sack = seg.ack;
  if (((rows[receiver + SCALE]! >> 8) & SACK_PERMITTED) !== 0) seg.sack = highestEdge(view, seg.ack);
  seg.ack = (seg.ack - offset) | 0;
  seg.sack = (seg.sack - offset) | 0;
  if (rows[sender + MAX_WIN] === 0) {
    if (isSyn) {
      beginSender(view, rows, sender, receiver, dir === 1);
      if ((flags & ACK) === 0) return Accept;
    } else {
      guessSender(rows, sender, receiver);
    }
  } else if (isSyn && isBefore(rows[sender + END]!, end) && (state === SYN_SENT || state === SYN_RECV)) {
    beginSender(view, rows, sender, receiver, dir === 1);
    if (dir === 1 && (flags & ACK) === 0) return Accept;
  }
  // A stack that sets ACK in a reset means no number by it.
  if ((flags & ACK) === 0 || ((flags & RST) !== 0 && seg.ack === 0)) {
    seg.ack = rows[receiver + END]!;
    seg.sack = seg.ack;
  }
  if ((flags & RST) !== 0 && seg.seq === 0 && state === SYN_SENT) {
    seg.seq = rows[sender + END]!;
    seg.end = seg.seq;
  }
  const fit = judge(rows, sender, receiver);
  if (fit === Accept) {
    move(rows, row, sender, receiver, dir, segment);
    return Accept;
  }
  return isLiberal || ((rows[sender + SCALE]! >> 8) & LIBERAL) !== 0 ? Accept : fit;
}

// cold: the log
/** Why the segment in `seg` did not fit, or passes without fitting, in the kernel's words (tcp_in_window). */
export function windowFault({ rows }: EntryTable, entry: number, dir: number, passes: boolean): string {
  const row = entry << ENTRY_SHIFT;
  const sender = row + (dir === 0 ? 0 : WINDOW_COLUMNS);
  const receiver = row + (dir === 0 ? WINDOW_COLUMNS : 0);
  const { seq, end, sack } = seg;
  const received = rows[receiver + END]!;
  const maxEnd = rows[sender + MAX_END]!;
  if (!isBefore(seq, (maxEnd + 1) | 0)) {
    if (passes) return `${(end - maxEnd + 1) >>> 0} bytes more than expected`;
    return `SEQ is over upper bound ${(maxEnd + 1) >>> 0} (over the window of the receiver)`;
  }
  if (!isBefore(sack, (received + 1) | 0)) {
    return `ACK is over upper bound ${(received + 1) >>> 0} (ACKed data not seen yet)`;
  }
  const lowest = (rows[sender + END]! - rows[receiver + MAX_WIN]! - 1) | 0;
  if (rows[receiver + MAX_WIN] !== 0 && !isBefore(lowest, end)) {
    return `SEQ is under lower bound ${lowest >>> 0} (already ACKed data retransmitted)`;
  }
  const window = Math.max(rows[sender + MAX_WIN]!, MAX_ACK_WINDOW);
  return `ignored ACK under lower bound ${(received - window - 1) >>> 0} (possible overly delayed)`;
}
// hot again

function judge(rows: Int32Array, sender: number, receiver: number): Fit {
  const { seq, end, sack } = seg;
  const maxEnd = rows[sender + MAX_END]!;
  const maxWin = rows[receiver + MAX_WIN]!;
  const received = rows[receiver + END]!;
  const ackWindow = Math.max(rows[sender + MAX_WIN]!, MAX_ACK_WINDOW);
  const isAckRecent = isBefore((received - ackWindow - 1) | 0, sack);
  const isAckOfSent = isBefore(sack, (received + 1) | 0);
  const isInWindow = isBefore((rows[sender + END]! - maxWin - 1) | 0, end);
  if (!isBefore(seq, (maxEnd + 1) | 0)) {
    const overshot = (end - maxEnd + 1) >>> 0;
    if (maxWin !== 0 && isInWindow && isAckRecent && overshot <= maxWin >>> 0 && isAckOfSent) {
      // Its acknowledgment must not look like one of something that was never sent.
      rows[sender + END] = end;
      rows[sender + SCALE]! |= UNACKNOWLEDGED << 8;
      return Ignore;
    }
    return Invalid;
  }
  if (!isAckOfSent) return Invalid;
  if (maxWin !== 0 && !isInWindow) return Ignore;
  return isAckRecent ? Accept : Ignore;
}

function move(rows: Int32Array, row: number, sender: number, receiver: number, dir: number, segment: number): void {
  const { seq, ack, sack, end, flags } = seg;
  const win = (flags & SYN) !== 0 ? seg.win : seg.win << (rows[sender + SCALE]! & 0xff);
  const offered = (win + (sack - ack)) | 0;
  if (rows[sender + MAX_WIN]! >>> 0 < offered >>> 0) rows[sender + MAX_WIN] = offered;
  if (isBefore(rows[sender + END]!, end)) {
    rows[sender + END] = end;
    rows[sender + SCALE]! |= UNACKNOWLEDGED << 8;
  }
  if ((flags & ACK) !== 0) {
    const isSet = ((rows[sender + SCALE]! >> 8) & MAX_ACK_IS_SET) !== 0;
    if (!isSet || isBefore(rows[sender + MAX_ACK]!, ack)) rows[sender + MAX_ACK] = ack;
    rows[sender + SCALE]! |= MAX_ACK_IS_SET << 8;
  }
  const maxEnd = rows[sender + MAX_END]!;
  if (rows[receiver + MAX_WIN] !== 0 && isBefore(maxEnd, end)) {
    rows[receiver + MAX_WIN] = (rows[receiver + MAX_WIN]! + end - maxEnd) | 0;
  }
  const right = (sack + win) | 0;
  if (isBefore((rows[receiver + MAX_END]! - 1) | 0, right))
    rows[receiver + MAX_END] = win === 0 ? (right + 1) | 0 : right;
  if (ack === rows[receiver + END]) rows[receiver + SCALE]! &= ~(UNACKNOWLEDGED << 8);
  if (segment === IS_ACK) countRepeats(rows, row, dir, seq, ack, end);
}

/** The same acknowledgment again: its receiver repeats what does not arrive. */
function countRepeats(rows: Int32Array, row: number, dir: number, seq: number, ack: number, end: number): void {
  const word = rows[row + WORD]!;
  const isSame =
    ((word >> 12) & 1) === dir &&
    rows[row + LAST_SEQ] === seq &&
    rows[row + LAST_ACK] === ack &&
    rows[row + LAST_END] === end &&
    (rows[row + LAST_WIN]! & 0xffff) === seg.win;
  if (isSame) {
    if (word >>> 24 < 255) rows[row + WORD] = (word + (1 << 24)) | 0;
    return;
  }
  rows[row + WORD] = (word & 0x00ffefff) | (dir << 12);
  rows[row + LAST_SEQ] = seq;
  rows[row + LAST_ACK] = ack;
  rows[row + LAST_END] = end;
  rows[row + LAST_WIN] = (rows[row + LAST_WIN]! & ~0xffff) | seg.win;
}
