/** A packet moves its connection: state, timeout, and which of its server's two counts it stands in.   @hot */
import { IpProto } from '../wire/ipv4.ts';
import { CONN_SHIFT, Conn, ConnFlag } from './connection.ts';
import type { Director } from './director.ts';
import { NO_STEP, nextSctpState, SctpState } from './sctp-states.ts';
import { Direction, nextTcpState, TcpState, tcpActive } from './tcp-states.ts';

const { Tcp: TCP, Udp: UDP, Sctp: SCTP } = IpProto;
const { Meta, Flags, Timeout, Dest } = Conn;
const { Inactive: INACTIVE, NoOutput: NO_OUTPUT, Assured: ASSURED, Template: TEMPLATE } = ConnFlag;
const ESTABLISHED = TcpState.Established;
const SCTP_ESTABLISHED = SctpState.Established;
const NONE = NO_STEP;
const { Output: OUTPUT, InputOnly: INPUT_ONLY } = Direction;

/** The client of a template is real: it has completed a handshake, or a server has answered it (ip_vs_control_assure_ct). */
function assureTemplate(director: Director, conn: number): void {
  const control = director.conns.control[conn]! - 1;
  if (control < 0) return;
  const at = (control << CONN_SHIFT) + Flags;
  if ((director.conns.rows[at]! & TEMPLATE) !== 0) director.conns.rows[at]! |= ASSURED;
}

/**
 * @param direction Direction.Input or .Output  @param step TCP flags, or sctpStep of an SCTP packet; not looked at for UDP
 *
 * @returns whether the state is another now
 *
 * net/netfilter/ipvs: tcp_state_transition with set_tcp_state, sctp_state_transition with set_sctp_state, udp_state_transition.
 */
export function moveState(director: Director, conn: number, direction: number, step: number): boolean {
  const rows = director.conns.rows;
  const at = conn << CONN_SHIFT;
  const meta = rows[at + Meta]!;
  const proto = (meta >> 8) & 0xff;
  if (proto === UDP) {
    rows[at + Timeout] = director.udpTimeouts[0]!;
    if (direction === OUTPUT) assureTemplate(director, conn);
    return false;
  }
  if (proto === SCTP && step === NONE) return false;
  let flags = rows[at + Flags]!;
  let way = direction;
  if ((flags & NO_OUTPUT) !== 0) {
    // The first answer seen shows that answers do cross us.
    if (direction === OUTPUT) {
      flags &= ~NO_OUTPUT;
      rows[at + Flags] = flags;
    } else {
      way = INPUT_ONLY;
    }
  }
  const state = meta & 0xff;
  const isTcp = proto === TCP;
  const next = isTcp ? nextTcpState(director.tcpTable, way, state, step) : nextSctpState(way, state, step);
  if (next !== state) {
    rows[at + Meta] = (meta & ~0xff) | next;
    const isActive = isTcp ? tcpActive[next] !== 0 : next === SCTP_ESTABLISHED;
    if (isTcp ? next === ESTABLISHED : isActive) assureTemplate(director, conn);
    const dests = director.dests;
    const dest = rows[at + Dest]!;
    if (!isActive) {
      if ((flags & INACTIVE) === 0) {
        rows[at + Flags] = flags | INACTIVE;
        dests.active[dest]!--;
        dests.inactive[dest]!++;
      }
    } else if ((flags & INACTIVE) !== 0) {
      rows[at + Flags] = flags & ~INACTIVE;
      dests.inactive[dest]!--;
      dests.active[dest]!++;
    }
  }
  rows[at + Timeout] = isTcp ? director.tcpTimeouts[next]! : director.sctpTimeouts[next]!;
  return next !== state;
}
