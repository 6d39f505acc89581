/**
 * The director's view of a TCP connection: tables, events, timeouts (net/netfilter/ipvs/ip_vs_proto_tcp.c).   @hot
 *
 * The director sees single segments, perhaps of one direction only, and must never stop a connection; so this is no TCP state machine but a
 * table that guesses the state from flags. Rows are events, columns are the current state:
 *
 *   NO none  ES established  SS syn sent  SR syn received  FW fin wait  TW time wait  CL close  CW close wait  LA last ack  LI listen  SA syn/ack
 */
import { seconds } from '../base/clock.ts';
import { TcpFlag } from '../wire/tcp.ts';

export const TcpState = {
  None: 0,
  Established: 1,
  SynSent: 2,
  SynRecv: 3,
  FinWait: 4,
  TimeWait: 5,
  Close: 6,
  CloseWait: 7,
  LastAck: 8,
  Listen: 9,
  SynAck: 10,
} as const;

/** As `ipvsadm -Lc` prints them. */
export const TCP_STATE_NAMES = [
  'NONE',
  'ESTABLISHED',
  'SYN_SENT',
  'SYN_RECV',
  'FIN_WAIT',
  'TIME_WAIT',
  'CLOSE',
  'CLOSE_WAIT',
  'LAST_ACK',
  'LISTEN',
  'SYNACK',
] as const;

/** Seconds in each state, in the order of the states. */
const TIMEOUT_SECONDS = [2, 900, 120, 60, 120, 120, 10, 60, 30, 120, 120] as const;

/** Which way the segment went: INPUT client to server, OUTPUT server to client, INPUT_ONLY when answers do not cross us (DR, tunnel). */
export const Direction = { Input: 0, Output: 1, InputOnly: 2 } as const;
const EVENTS = ['syn', 'fin', 'ack', 'rst'] as const;
const DIRECTIONS = ['INPUT', 'OUTPUT', 'INPUT-ONLY'] as const;

// biome-ignore format: tables are read by eye
const NORMAL = `
              NO ES SS SR FW TW CL CW LA LI SA
INPUT
  syn         SR ES ES SR SR SR SR SR SR SR SR
  fin         CL CW SS TW TW TW CL CW LA LI TW
  ack         ES ES SS ES FW TW CL CW CL LI ES
  rst         CL CL CL SR CL CL CL CL LA LI SR
OUTPUT
  syn         SS ES SS SR SS SS SS SS SS LI SR
  fin         TW FW SS TW FW TW CL TW LA LI TW
  ack         ES ES SS ES FW TW CL CW LA ES ES
  rst         CL CL SS CL CL TW CL CL CL CL CL
INPUT-ONLY
  syn         SR ES ES SR SR SR SR SR SR SR SR
  fin         CL FW SS TW FW TW CL CW LA LI TW
  ack         ES ES SS ES FW TW CL CW CL LI ES
  rst         CL CL CL SR CL CL CL CL LA LI CL
`;

/** For secure_tcp: a connection counts as established only after the server has answered, and a SYN flood is worth less. */
// biome-ignore format: tables are read by eye
const DEFENSIVE = `
              NO ES SS SR FW TW CL CW LA LI SA
INPUT
  syn         SR ES ES SR SR SR SR SR SR SR SA
  fin         CL CW SS TW TW TW CL CW LA LI SA
  ack         ES ES SS SR FW TW CL CW CL LI SA
  rst         CL CL CL SR CL CL CL CL LA LI CL
OUTPUT
  syn         SS ES SS SA SS SS SS SS SS LI SA
  fin         TW FW SS TW FW TW CL TW LA LI TW
  ack         ES ES SS ES FW TW CL CW LA ES ES
  rst         CL CL SS CL CL TW CL CL CL CL CL
INPUT-ONLY
  syn         SA ES ES SR SA SA SA SA SA SA SA
  fin         CL FW SS TW FW TW CL CW LA LI TW
  ack         ES ES SS ES FW TW CL CW CL LI ES
  rst         CL CL CL SR CL CL CL CL LA LI CL
`;

const { Syn: SYN, Fin: FIN, Ack: ACK, Rst: RST } = TcpFlag;
const CLOSE = TcpState.Close;

/** [direction · 4 + event] · 16 + state → state. */
export type TcpStateTable = Uint8Array;

export const normalTable: TcpStateTable = compile(NORMAL);
export const defensiveTable: TcpStateTable = compile(DEFENSIVE);

/** Indexed by state: 1 where the connection counts as active (tcp_state_active_table): the handshake and the open connection. */
export const tcpActive = Uint8Array.of(0, 1, 1, 1, 0, 0, 0, 0, 0, 0, 1);

/** The next state after a segment; RST beats SYN beats FIN beats ACK, and a segment with none of them closes. */
export function nextTcpState(table: TcpStateTable, direction: number, state: number, flags: number): number {
  const event =
    (flags & RST) !== 0 ? 3 : (flags & SYN) !== 0 ? 0 : (flags & FIN) !== 0 ? 1 : (flags & ACK) !== 0 ? 2 : 4;
  return event === 4 ? CLOSE : table[(((direction << 2) | event) << 4) | state]!;
}

// cold: set-up
/** Ticks in each state, a copy that `--set` may change. */
export function tcpTimeouts(): Int32Array {
  return Int32Array.from(TIMEOUT_SECONDS, (s) => seconds(s));
}

function compile(text: string): TcpStateTable {
  const lines = text.trim().split('\n');
  const codes = lines[0]!.trim().split(/\s+/);
  const table = new Uint8Array(DIRECTIONS.length * EVENTS.length * 16);
  let direction = -1;
  for (const line of lines.slice(1)) {
    const words = line.trim().split(/\s+/);
    if (words.length === 1) {
      direction = DIRECTIONS.indexOf(words[0] as (typeof DIRECTIONS)[number]);
      continue;
    }
    const event = EVENTS.indexOf(words[0] as (typeof EVENTS)[number]);
    for (let state = 0; state < codes.length; state++) {
      table[(((direction << 2) | event) << 4) | state] = codes.indexOf(words[state + 1]!);
    }
  }
  return table;
}
