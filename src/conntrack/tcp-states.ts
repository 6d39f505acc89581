/**
 * States of a tracked TCP connection (nf_conntrack_proto_tcp.c, tcp_conntracks).   @hot
 *
 * We are in the middle and see every segment, but a segment may be lost behind us. Rows are what a segment is, columns the present state:
 *
 *   NO none  SS syn sent  SR syn received  ES established  FW fin wait  CW close wait  LA last ack  TW time wait  CL close  S2 syn sent by both
 *   -- invalid   ++ ignored: it may be right or wrong, and its receiver's answer will tell
 */
import { TcpFlag } from '../wire/tcp.ts';

export const TcpCt = {
  None: 0,
  SynSent: 1,
  SynRecv: 2,
  Established: 3,
  FinWait: 4,
  CloseWait: 5,
  LastAck: 6,
  TimeWait: 7,
  Close: 8,
  SynSent2: 9,
  Invalid: 10,
  Ignore: 11,
} as const;

/** What a segment is: RST beats SYN beats FIN beats ACK. */
export const Segment = { Syn: 0, SynAck: 1, Fin: 2, Ack: 3, Rst: 4, None: 5 } as const;

// biome-ignore format: tables are read by eye
const TABLE = `
            NO SS SR ES FW CW LA TW CL S2
ORIGINAL
  syn       SS SS ++ ++ ++ ++ ++ SS SS S2
  syn+ack   -- -- SR -- -- -- -- -- -- SR
  fin       -- -- FW FW LA LA LA TW CL --
  ack       ES -- ES ES CW CW TW TW CL --
  rst       -- CL CL CL CL CL CL CL CL CL
  none      -- -- -- -- -- -- -- -- -- --
REPLY
  syn       -- S2 -- -- -- -- -- SS -- S2
  syn+ack   -- SR ++ ++ ++ ++ ++ ++ ++ SR
  fin       -- -- FW FW LA LA LA TW CL --
  ack       -- ++ SR ES CW CW TW TW CL ++
  rst       -- CL CL CL CL CL CL CL CL CL
  none      -- -- -- -- -- -- -- -- -- --
`;

const { Syn: SYN, Fin: FIN, Ack: ACK, Rst: RST, Psh: PSH, Urg: URG } = TcpFlag;
const { Syn, SynAck, Fin, Ack, Rst, None } = Segment;

/** [direction · 8 + segment] · 16 + state → state. */
const table: Uint8Array = compile(TABLE);

export function nextState(dir: number, segment: number, state: number): number {
  return table[(((dir << 3) | segment) << 4) | state]!;
}

export function segmentOf(flags: number): number {
  if ((flags & RST) !== 0) return Rst;
  if ((flags & SYN) !== 0) return (flags & ACK) !== 0 ? SynAck : Syn;
  if ((flags & FIN) !== 0) return Fin;
  return (flags & ACK) !== 0 ? Ack : None;
}

/** The combinations that RFC 9293 knows, without PSH, ECE and CWR (tcp_valid_flags). */
export function areFlagsValid(flags: number): boolean {
  switch (flags & 0x3f & ~PSH) {
    case SYN:
    case SYN | URG:
    case SYN | ACK:
    case RST:
    case RST | ACK:
    case FIN | ACK:
    case FIN | ACK | URG:
    case ACK:
    case ACK | URG:
      return true;
    default:
      return false;
  }
}

// cold: set-up
function compile(text: string): Uint8Array {
  const lines = text.trim().split('\n');
  const codes = [...lines[0]!.trim().split(/\s+/), '--', '++'];
  const compiled = new Uint8Array(256);
  let dir = -1;
  let segment = 0;
  for (const line of lines.slice(1)) {
    const [name = '', ...states] = line.trim().split(/\s+/);
    if (states.length === 0) {
      dir++;
      segment = 0;
      continue;
    }
    for (const [state, code] of states.entries()) {
      compiled[(((dir << 3) | segment) << 4) | state] = codes.indexOf(code);
    }
    if (name !== '') segment++;
  }
  return compiled;
}
