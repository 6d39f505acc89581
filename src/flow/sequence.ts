/**
 * Sequence numbers after a payload has changed its length (nf_conntrack_seqadj.c).
 *
 *   one direction   correction: sequence number of the segment that changed its length last
 *                   before, after: what is added to the numbers up to it, and behind it
 *
 * The other direction's acknowledgments, and the blocks of its SACK options (RFC 2018 §3), are shifted back.
 */
import type { Packet } from '../packet/packet.ts';
import { diff32 } from '../wire/checksum.ts';
import * as tcp from '../wire/tcp.ts';
import { setTcpField } from './tcp-payload.ts';

const { Ack: ACK } = tcp.TcpFlag;
const OPTION_END = 0;
const OPTION_NOP = 1;
const OPTION_SACK = 5;

/** Of one direction. */
export interface Shift {
  correction: number;
  before: number;
  after: number;
}

export function noShift(): Shift {
  return { correction: 0, before: 0, after: 0 };
}

/** The segment with sequence number `seq`, as its sender counts, has grown by `growth`. A segment that was seen before changes nothing. */
export function shiftBehind(shift: Shift, seq: number, growth: number): void {
  if (shift.before !== shift.after && ((shift.correction - seq) | 0) >= 0) return;
  shift.correction = seq;
  shift.before = shift.after;
  shift.after = (shift.after + growth) | 0;
}

/** A sequence number on its way to the receiver. */
export function shifted(shift: Shift, seq: number): number {
  return (seq + (((seq - shift.correction) | 0) > 0 ? shift.after : shift.before)) | 0;
}

/** An acknowledged number on its way back to the sender. */
function shiftedBack(shift: Shift, ack: number): number {
  const behind = (ack - shift.before - shift.correction) | 0;
  return (ack - (behind > 0 ? shift.after : shift.before)) | 0;
}

function isShifting(shift: Shift): boolean {
  return shift.before !== 0 || shift.after !== 0;
}

/** @param its the shift of the segment's own direction  @param other that of the direction which it acknowledges */
export function adjustSequence(p: Packet, its: Shift, other: Shift): void {
  const { view, l4 } = p;
  if (isShifting(its)) setNumber(p, l4 + 4, shifted(its, tcp.seq(view, l4)));
  if (!isShifting(other) || (tcp.flags(view, l4) & ACK) === 0) return;
  setNumber(p, l4 + 8, shiftedBack(other, tcp.ack(view, l4)));
  adjustSack(p, other);
}

function adjustSack(p: Packet, other: Shift): void {
  const { view, l4 } = p;
  const end = l4 + tcp.headerLength(view, l4);
  let at = l4 + tcp.TCP_HEADER;
  while (at < end) {
    const kind = view.getUint8(at);
    if (kind === OPTION_END) return;
    if (kind === OPTION_NOP) {
      at++;
      continue;
    }
    const length = at + 1 < end ? view.getUint8(at + 1) : 0;
    if (length < 2 || at + length > end) return;
    if (kind === OPTION_SACK) {
      for (let edge = at + 2; edge + 4 <= at + length; edge += 4) {
        setNumber(p, edge, shiftedBack(other, view.getInt32(edge)));
      }
    }
    at += length;
  }
}

/** The number at `at`, which an odd number of options may have put on an odd address: its bytes then count the other way round in the checksum. */
function setNumber(p: Packet, at: number, value: number): void {
  const change = diff32(p.view.getInt32(at), value);
  const isOdd = ((at - p.l4) & 1) !== 0;
  setTcpField(p, at, value, isOdd ? ((change & 0xff) << 8) | (change >> 8) : change);
}
