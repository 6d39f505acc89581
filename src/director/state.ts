/** A packet moves its connection: state, timeout, and which of its server's two counts it stands in.   @hot */
import { IpProto } from '../wire/ipv4.ts';
import { CONN_SHIFT, Conn, ConnFlag } from './connections.ts';
import type { Director } from './director.ts';
import { Direction, nextTcpState, TcpState, tcpActive } from './tcp-states.ts';

const { Tcp: TCP } = IpProto;
const { Meta, Flags, Timeout, Dest } = Conn;
const { Inactive: INACTIVE, NoOutput: NO_OUTPUT, Assured: ASSURED } = ConnFlag;
const ESTABLISHED = TcpState.Established;
const { Output: OUTPUT, InputOnly: INPUT_ONLY } = Direction;

/** The client of a template is real: it has completed a handshake, or a server has answered it (ip_vs_control_assure_ct). */
function assureTemplate(director: Director, conn: number): void {
  const control = director.conns.control[conn]! - 1;
  if (control >= 0) director.conns.rows[(control << CONN_SHIFT) + Flags]! |= ASSURED;
}

/**
 * @param direction Direction.Input or .Output  @param tcpFlags of the segment; not looked at for UDP
 *
 * net/netfilter/ipvs: tcp_state_transition with set_tcp_state, udp_state_transition.
 */
export function moveState(director: Director, conn: number, direction: number, tcpFlags: number): void {
  const rows = director.conns.rows;
  const at = conn << CONN_SHIFT;
  const meta = rows[at + Meta]!;
  if (((meta >> 8) & 0xff) !== TCP) {
    rows[at + Timeout] = director.udpTimeouts[0]!;
    if (direction === OUTPUT) assureTemplate(director, conn);
    return;
  }
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
  const next = nextTcpState(director.tcpTable, way, state, tcpFlags);
  if (next !== state) {
    rows[at + Meta] = (meta & ~0xff) | next;
    if (next === ESTABLISHED) assureTemplate(director, conn);
    const dests = director.dests;
    const dest = rows[at + Dest]!;
    if (tcpActive[next] === 0) {
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
  rows[at + Timeout] = director.tcpTimeouts[next]!;
}
