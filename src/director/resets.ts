/**
 * Connections that the director ends on both sides, although it keeps no sequence numbers.
 *
 * RFC 5961 §3.2: a reset counts only when its sequence number is exactly the next one that its receiver expects. Both ends know the numbers, so they are
 * asked: a bare ACK with arbitrary numbers, sent in the other end's name, is unacceptable, and RFC 9293 §3.10.7.4 (first) has its receiver answer with an ACK
 * that holds them:
 *
 *   director ── ACK, any numbers ──► client               (and, when answers cross us, ── ACK ──► server)
 *   director ◄─ ACK, seq S, ack A ── client
 *            ── RST, seq A ────────► client
 *            ── RST, seq S ───────────────────► server
 *
 * What either side sends meanwhile is as good, and goes no further: so nothing moves the numbers any more. The client's packets cross the director with every
 * forwarding method. A reset of either side passes, and tells the other. Who does not answer three questions is forgotten, and counted.
 *
 * Nothing is sent here: what is due waits in a queue that the engine empties, resets first, so many a tick.
 */
import { seconds } from '../base/clock.ts';
import { shifted } from '../flow/sequence.ts';
import { Verdict } from '../hooks/hooks.ts';
import type { Packet } from '../packet/packet.ts';
import { fold, pseudoSum, sumBytes } from '../wire/checksum.ts';
import { DF, emit as emitIpv4, IPV4_HEADER, IpProto } from '../wire/ipv4.ts';
import { ack, emit as emitTcp, headerLength, seq, setChecksum, TCP_HEADER, TcpFlag } from '../wire/tcp.ts';
import { CONN_SHIFT, Conn, ConnFlag, Dir, Method } from './connection.ts';
import type { Director } from './director.ts';
import { forwardRequest } from './hooks.ts';

const { Cip, Vip, Ports, Flags } = Conn;
const { Resetting: RESETTING, MethodMask: METHOD_MASK } = ConnFlag;
const { Fin: FIN, Rst: RST, Ack: ACK } = TcpFlag;
const TCP = IpProto.Tcp;
const TO_CLIENT = 0;
const TO_SERVER = 1;

/** Bytes of a packet born here. */
export const RESET_LENGTH = IPV4_HEADER + TCP_HEADER;

/** A peer may leave an unacceptable segment unanswered when it has just answered one (net.ipv4.tcp_invalid_ratelimit, 500 ms). */
const ASK_AGAIN = seconds(1);
const QUESTIONS = 3;
/** After the resets, for what still comes. */
const LINGER = seconds(1);
/** Packets of one connection that are answered with resets. */
const MOST_ANSWERS = 8;
/** Packets a tick: 16,000 a second, some thousand connections. */
const PER_TICK = 64;
/** Questions that may wait; who would be next, is asked later. */
const MOST_WAITING = 4096;
const TTL = 64;

/** Where the outcome is counted. */
export interface ResetTally {
  /** Told, or ended by one of their sides. */
  reset: number;
  /** Neither side answered. */
  unanswered: number;
}

interface Entry {
  readonly conn: number;
  readonly tally: ResetTally;
  questions: number;
  answers: number;
  /** Tick of the last question or answer. */
  at: number;
}

interface Due {
  readonly entry: Entry;
  readonly side: number;
  readonly flags: number;
  readonly seq: number;
}

export class Resets {
  /** True while the engine should ask `next`. */
  isDue = false;
  readonly #director: Director;
  /** By connection; each has the flag Resetting. */
  readonly #entries = new Map<number, Entry>();
  readonly #resets: Due[] = [];
  readonly #questions: Due[] = [];
  #left = 0;
  /** What `emit` will write. */
  #current: Due | undefined;

  constructor(director: Director) {
    this.#director = director;
  }

  get count(): number {
    return this.#entries.size;
  }

  /** Become a copy that hears what this one's connections say; what waits to be sent is not a packet's business. */
  copyFrom(live: Resets): void {
    for (const [conn, entry] of live.#entries) this.#entries.set(conn, { ...entry, tally: { ...entry.tally } });
  }

  /** Once per tick. */
  advance(): void {
    this.#left = PER_TICK;
    this.isDue = this.#resets.length + this.#questions.length > 0;
  }

  /** End this TCP connection. False: too many wait already, try later. */
  begin(conn: number, tally: ResetTally): boolean {
    if (this.#questions.length >= MOST_WAITING) return false;
    this.#director.conns.rows[(conn << CONN_SHIFT) + Flags]! |= RESETTING;
    const entry = { conn, tally, questions: 0, answers: 0, at: this.#director.now };
    this.#entries.set(conn, entry);
    this.#ask(entry);
    return true;
  }

  /** Now and then, for each connection that is being reset. True: it is over, the connection can go. */
  review(conn: number): boolean {
    const entry = this.#entries.get(conn)!;
    const quiet = (this.#director.now - entry.at) | 0;
    if (entry.answers > 0) return quiet >= LINGER;
    if (quiet < ASK_AGAIN) return false;
    if (entry.questions < QUESTIONS) {
      this.#ask(entry);
      return false;
    }
    entry.tally.unanswered++;
    return true;
  }

  /** A segment of a connection that is being reset. True: it ends here. */
  heard(p: Packet, conn: number, dir: number, flags: number): boolean {
    const entry = this.#entries.get(conn)!;
    entry.at = this.#director.now;
    if (entry.answers++ === 0) entry.tally.reset++;
    if ((flags & RST) !== 0) return false;
    if (entry.answers > MOST_ANSWERS) return true;
    const { view, l4 } = p;
    const [sender, other] = dir === Dir.In ? [TO_CLIENT, TO_SERVER] : [TO_SERVER, TO_CLIENT];
    const first = seq(view, l4);
    const length = p.end - l4 - headerLength(view, l4) + ((flags & FIN) !== 0 ? 1 : 0);
    if ((flags & ACK) !== 0) this.#reset(entry, sender, ack(view, l4));
    // Answers that were rewritten (app/ftp.ts) have shifted what the client counts; an acknowledgment is for its sender as it stands.
    const shift = dir === Dir.Out ? this.#director.ftp.shiftOf(conn) : undefined;
    const counted = (number: number) => (shift === undefined ? number : shifted(shift, number));
    this.#reset(entry, other, counted(first));
    // Sent before, and its acknowledgement lost: then the other side has it already.
    if (length > 0) this.#reset(entry, other, counted((first + length) | 0));
    return true;
  }

  /** The connection is gone, or lives on after all. */
  forget(conn: number): void {
    if (!this.#entries.delete(conn)) return;
    this.#director.conns.rows[(conn << CONN_SHIFT) + Flags]! &= ~RESETTING;
  }

  /** All connections that count into `tally` live on. */
  release(tally: ResetTally): void {
    for (const entry of this.#entries.values()) if (entry.tally === tally) this.forget(entry.conn);
  }

  /** Is there a packet to send? */
  next(): boolean {
    this.#current ??= this.#take();
    return this.#current !== undefined;
  }

  /** After `next`: write that packet into `p`, made for RESET_LENGTH bytes, ready for LOCAL_OUT. False: no way to its receiver, `p.drop` says why. */
  emit(p: Packet): boolean {
    const due = this.#current!;
    this.#current = undefined;
    const { rows } = this.#director.conns;
    const at = due.entry.conn << CONN_SHIFT;
    const ports = rows[at + Ports]!;
    const [cip, cport, vip, vport] = [rows[at + Cip]!, ports >>> 16, rows[at + Vip]!, ports & 0xffff];
    if (due.side === TO_CLIENT) {
      this.#write(p, vip, vport, cip, cport, due);
      p.ipvsProperty = 1;
      return true;
    }
    this.#write(p, cip, cport, vip, vport, due);
    return forwardRequest(this.#director, p, due.entry.conn) !== Verdict.Drop;
  }

  #write(p: Packet, src: number, srcPort: number, dst: number, dstPort: number, due: Due): void {
    const { view, l3 } = p;
    const { rng } = this.#director;
    const isQuestion = (due.flags & RST) === 0;
    p.l4 = l3 + IPV4_HEADER;
    p.end = l3 + RESET_LENGTH;
    p.proto = TCP;
    p.isLocalOut = 1;
    emitIpv4(view, l3, RESET_LENGTH, TCP, src, dst, TTL, 0, 0, DF);
    emitTcp(view, p.l4, srcPort, dstPort, due.seq, isQuestion ? rng.next() : 0, due.flags, 0);
    const sum = pseudoSum(src, dst, TCP, TCP_HEADER) + sumBytes(view, p.l4, TCP_HEADER);
    setChecksum(view, p.l4, ~fold(sum) & 0xffff);
  }

  #take(): Due | undefined {
    while (this.#left > 0) {
      const due = this.#resets.shift() ?? this.#questions.shift();
      if (due === undefined) break;
      // It may have ended, and its row may be another's by now.
      if (this.#entries.get(due.entry.conn) !== due.entry) continue;
      this.#left--;
      return due;
    }
    this.isDue = false;
    return undefined;
  }

  #ask(entry: Entry): void {
    const { conns, rng, now } = this.#director;
    entry.questions++;
    entry.at = now;
    this.#questions.push({ entry, side: TO_CLIENT, flags: ACK, seq: rng.next() });
    const method = conns.rows[(entry.conn << CONN_SHIFT) + Flags]! & METHOD_MASK;
    if (method === Method.Masq || method === Method.FullNat) {
      this.#questions.push({ entry, side: TO_SERVER, flags: ACK, seq: rng.next() });
    }
    this.isDue = true;
  }

  #reset(entry: Entry, side: number, number: number): void {
    this.#resets.push({ entry, side, flags: RST, seq: number });
    this.isDue = true;
  }
}
