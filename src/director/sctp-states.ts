/**
 * The director's view of an SCTP association: tables, events, timeouts (net/netfilter/ipvs/ip_vs_proto_sctp.c).   @hot
 *
 * As for TCP, the state is guessed from what passes. Rows are events, named by the chunks that stand for them; columns are the current state, which is
 * the server's as RFC 9260 §4 has it:
 *
 *   NO none   I1 first INIT of the client   IN further INITs   CS INIT ACK sent (cookie sent)   CR COOKIE ECHO received (cookie replied)
 *   CW the server's INIT sent (cookie wait)   CO the client's INIT ACK   CE the server's COOKIE ECHO   ES established
 *   SS shutdown sent   SR shutdown received   SA shutdown ack sent   RJ INIT rejected by ABORT   CL closed
 */
import { seconds } from '../base/clock.ts';
import { ChunkType, chunkType, firstChunk, NO_CHUNK, nextChunk } from '../wire/sctp.ts';

export const SctpState = {
  None: 0,
  Init1: 1,
  Init: 2,
  CookieSent: 3,
  CookieReplied: 4,
  CookieWait: 5,
  Cookie: 6,
  CookieEchoed: 7,
  Established: 8,
  ShutdownSent: 9,
  ShutdownReceived: 10,
  ShutdownAckSent: 11,
  Rejected: 12,
  Closed: 13,
} as const;

/** As `ipvsadm -Lc` prints them. */
export const SCTP_STATE_NAMES = [
  'NONE',
  'INIT1',
  'INIT',
  'C-SENT',
  'C-REPLIED',
  'C-WAIT',
  'COOKIE',
  'C-ECHOED',
  'ESTABLISHED',
  'S-SENT',
  'S-RECEIVED',
  'S-ACK-SENT',
  'REJECTED',
  'CLOSED',
] as const;

/** Seconds in each state, in the order of the states: 61 is RFC 9260's longest retransmission timeout and one more. */
const TIMEOUT_SECONDS = [2, 4, 61, 61, 61, 61, 61, 61, 900, 61, 61, 61, 4, 61] as const;

const EVENTS = [
  'data',
  'init',
  'init-ack',
  'cookie-echo',
  'cookie-ack',
  'shutdown',
  'shutdown-ack',
  'shutdown-complete',
  'error',
  'abort',
] as const;
const DIRECTIONS = ['INPUT', 'OUTPUT', 'INPUT-ONLY'] as const;

// biome-ignore format: tables are read by eye
const TABLE = `
                     NO I1 IN CS CR CW CO CE ES SS SR SA RJ CL
INPUT
  data               ES I1 IN CS CR CW CO CE ES SS SR SA RJ CL
  init               I1 IN IN CS CR CW CO CE ES SS SR SA IN IN
  init-ack           CW CW CW CS CR CO CO CE ES SS SR SA RJ CL
  cookie-echo        CR IN IN CR CR CW CO CE ES SS SR SA RJ CL
  cookie-ack         ES I1 IN CS CR CW CO ES ES SS SR SA RJ CL
  shutdown           SR I1 IN CS CR CW CO CE SR SS SR SA RJ CL
  shutdown-ack       CL IN IN CS CR CW CO CE ES CL SR CL RJ CL
  shutdown-complete  CL CL CL CS CR CW CO CE ES SS SR CL RJ CL
  error              CL I1 IN CS CR CW CO CL ES SS SR SA RJ CL
  abort              CL CL CL CL CL RJ CL CL CL CL CL CL CL CL
OUTPUT
  data               ES I1 IN CS CR CW CO CE ES SS SR SA RJ CL
  init               CW CW CW CW CW CW CW CW ES CW CW CW CW CW
  init-ack           CS CS CS CS CR CW CO CE ES SS SR SA RJ CL
  cookie-echo        CE CE CE CE CE CE CE CE ES SS SR SA RJ CL
  cookie-ack         ES ES ES ES ES ES ES ES ES SS SR SA RJ CL
  shutdown           SS SS SS SS SS SS SS SS SS SS SR SA RJ CL
  shutdown-ack       SA SA SA SA SA CW CO CE ES SA SA SA RJ CL
  shutdown-complete  CL I1 IN CS CR CW CO CE ES SS SR SA RJ CL
  error              CL CL CL CL CL CW CO CE ES SS SR SA RJ CL
  abort              CL RJ CL CL CL CL CL CL CL CL CL CL CL CL
INPUT-ONLY
  data               ES I1 IN CS CR ES CO CE ES SS SR SA RJ CL
  init               I1 IN IN IN IN IN CO CE ES SS SR SA IN IN
  init-ack           CE CE CE CE CE CE CO CE ES SS SR SA RJ CL
  cookie-echo        ES ES ES ES ES ES CO CE ES SS SR SA RJ CL
  cookie-ack         ES I1 IN ES ES CW ES ES ES SS SR SA RJ CL
  shutdown           SR I1 IN CS CR CW CO CE SR SS SR SA RJ CL
  shutdown-ack       CL IN IN CS CR CW CO CE CL CL SR CL RJ CL
  shutdown-complete  CL CL CL CL CL CW CO CE ES SS CL CL RJ CL
  error              CL I1 IN CS CR CW CO CE ES SS SR SA RJ CL
  abort              CL CL CL CL CL RJ CL CL CL CL CL CL CL CL
`;

const { Init: INIT, Abort: ABORT, CookieEcho: COOKIE_ECHO, CookieAck: COOKIE_ACK } = ChunkType;
const NOTHING = NO_CHUNK;

/** Indexed by chunk type: the event. Types beyond the table, and those that carry no step of the handshake, count as data. */
const EVENT_OF_CHUNK = Uint8Array.of(0, 1, 2, 0, 0, 0, 9, 5, 6, 8, 3, 4, 0, 0, 7);
const CHUNKS = EVENT_OF_CHUNK.length;
/** [direction][event] · 16 + state → state, 16 events a direction. */
const table = compile(TABLE);

/** `sctpStep` of a packet without a whole chunk. */
export const NO_STEP = -1;

/**
 * What a packet means to its association: first chunk's type << 8 | event, or NO_STEP.
 * RFC 9260 §3.3.7: an ABORT may follow control chunks in one packet; behind COOKIE ECHO and COOKIE ACK it decides.
 */
export function sctpStep(m: DataView, l4: number, end: number): number {
  const chunk = firstChunk(l4, end);
  if (chunk === NOTHING) return NO_STEP;
  const first = chunkType(m, chunk);
  let deciding = first;
  if (first === COOKIE_ECHO || first === COOKIE_ACK) {
    const second = nextChunk(m, chunk, end);
    if (second !== NOTHING && chunkType(m, second) === ABORT) deciding = ABORT;
  }
  return (first << 8) | (deciding < CHUNKS ? EVENT_OF_CHUNK[deciding]! : 0);
}

/** Does the packet ask for a new association? */
export function isSctpInit(step: number): boolean {
  return step >> 8 === INIT;
}

/** May the packet make a connection (sctp_conn_schedule)? INIT; with sloppy_sctp whatever is no ABORT. */
export function beginsAssociation(step: number, sloppy: number): boolean {
  return step !== NO_STEP && (isSctpInit(step) || (sloppy !== 0 && step >> 8 !== ABORT));
}

/** The state after a step. @param direction as in tcp-states.ts */
export function nextSctpState(direction: number, state: number, step: number): number {
  return table[(((direction << 4) | (step & 0xff)) << 4) | state]!;
}

// cold: set-up
/** Ticks in each state. */
export function sctpTimeouts(): Int32Array {
  return Int32Array.from(TIMEOUT_SECONDS, (s) => seconds(s));
}

function compile(text: string): Uint8Array {
  const lines = text.trim().split('\n');
  const codes = lines[0]!.trim().split(/\s+/);
  const compiled = new Uint8Array(DIRECTIONS.length << 8);
  let direction = -1;
  for (const line of lines.slice(1)) {
    const words = line.trim().split(/\s+/);
    if (words.length === 1) {
      direction = DIRECTIONS.indexOf(words[0] as (typeof DIRECTIONS)[number]);
      continue;
    }
    const event = EVENTS.indexOf(words[0] as (typeof EVENTS)[number]);
    for (let state = 0; state < codes.length; state++) {
      compiled[(((direction << 4) | event) << 4) | state] = codes.indexOf(words[state + 1]!);
    }
  }
  return compiled;
}
