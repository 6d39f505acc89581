/**
 * The director's hook functions (net/netfilter/ipvs/ip_vs_core.c: ip_vs_ops4, ip_vs_in_hook, ip_vs_out_hook).   @hot
 *
 *   LOCAL_IN    98  director/reply     LOCAL_OUT  -99  director/reply      FORWARD   99  director/icmp
 *   LOCAL_IN    99  director/request   LOCAL_OUT  -98  director/request    FORWARD  100  director/reply
 *
 * Without a service all of them let everything pass, even packets of connections that still exist: the kernel takes its hooks out with the last service.
 */
import { NO_FLOW } from '../flow/flow-table.ts';
import { Hook, type HookOp, Priority, Verdict } from '../hooks/hooks.ts';
import { DefragUser } from '../hooks/reassembly.ts';
import { Drop } from '../packet/drop.ts';
import { FLOW_UNKNOWN, type Packet, PacketType } from '../packet/packet.ts';
import { IcmpType, UnreachCode } from '../wire/icmpv4.ts';
import { dst, IpProto, isFragment, src } from '../wire/ipv4.ts';
import { ChunkType } from '../wire/sctp.ts';
import { TcpFlag } from '../wire/tcp.ts';
import { wireBytes, wirePackets } from './accounting.ts';
import { CONN_SHIFT, Conn, ConnFlag, Dir, Method, NO_CONN } from './connection.ts';
import { DestFlag } from './destinations.ts';
import type { Director } from './director.ts';
import { routeRequest } from './forward/droute.ts';
import { fullNatReply, fullNatRequest } from './forward/full-nat.ts';
import { masqReply, masqRequest } from './forward/nat.ts';
import { tunnelRequest } from './forward/tunnel.ts';
import { lendAddress } from './forward/unbound.ts';
import { icmpReply, icmpRequest } from './icmp.ts';
import { Ended } from './notes.ts';
import { NOT_OURS, REFUSED, schedule, scheduleOut } from './schedule.ts';
import { isSctpInit, SctpState, sctpStep } from './sctp-states.ts';
import { moveState } from './state.ts';
import { Direction, TcpState } from './tcp-states.ts';
import { meetsOldEntry, trackReply, trackRequest } from './tracked.ts';

const { Accept: ACCEPT, Drop: DROP } = Verdict;
const { Tcp: TCP, Udp: UDP, Icmp: ICMP, Sctp: SCTP } = IpProto;
const { In: IN, Out: OUT } = Dir;
const { Input: INPUT, Output: OUTPUT } = Direction;
const { DirectorForward: DIRECTOR_FORWARD, DirectorOut: DIRECTOR_OUT } = DefragUser;
const HOST = PacketType.Host;
const LOCAL_IN = Hook.LocalIn;
const { Syn: SYN, Rst: RST } = TcpFlag;
const UNREACHABLE = IcmpType.DestUnreachable;
const PORT = UnreachCode.Port;
const UNKNOWN = FLOW_UNKNOWN;
const ABSENT = NO_FLOW;
const { Meta, Flags, Dest, Packets } = Conn;
const { MethodMask: METHOD_MASK, NoOutput: NO_OUTPUT, OnePacket: ONE_PACKET, App: APP, NoCport: NO_CPORT } = ConnFlag;
const HELPED = APP | NO_CPORT;
const TRACKED = ConnFlag.Tracked;
const { Inactive: INACTIVE, Resetting: RESETTING } = ConnFlag;
const DRAINING = DestFlag.Draining;
const { Masq: MASQ, Tunnel: TUNNEL, FullNat: FULL_NAT } = Method;
const { TimeWait: TIME_WAIT, FinWait: FIN_WAIT, Close: CLOSE } = TcpState;
const CLOSED = SctpState.Closed;
const ABORT = ChunkType.Abort;

/** The connection of a packet with a sound or at least 4 bytes long transport header; makes the one look-up unless it was made. */
function connectionOf(director: Director, p: Packet, dir: number): number {
  let flow = p.flow;
  if (flow === UNKNOWN) {
    const { view, l3 } = p;
    flow = director.flows.find(src(view, l3), dst(view, l3), view.getInt32(p.l4), p.proto);
    p.flow = flow;
  }
  return flow === ABSENT ? NO_CONN : director.conns.find(flow, dir);
}

/** The connection that waits for a packet of this client, from whatever port (ip_vs_conn_in_get). */
function connectionWithoutPort(director: Director, p: Packet): number {
  const { view, l3 } = p;
  const flow = director.flows.find(src(view, l3), dst(view, l3), view.getUint16(p.l4 + 2), p.proto);
  const conn = flow === ABSENT ? NO_CONN : director.conns.find(flow, IN);
  return conn !== NO_CONN && (director.conns.rows[(conn << CONN_SHIFT) + Flags]! & NO_CPORT) !== 0 ? conn : NO_CONN;
}

/** A packet whose transport header is broken: ours is dropped under the gate's name for the fault, others pass. */
function faulty(director: Director, p: Packet, dir: number): Verdict {
  if (p.end - p.l4 < 4) return ACCEPT;
  const conn = connectionOf(director, p, dir);
  // sctp_dnat_handler refuses what ip_vs_in_hook has counted.
  if (conn !== NO_CONN && dir === IN && p.proto === SCTP && p.end - p.l4 >= 8) {
    director.countIn(director.conns.rows[(conn << CONN_SHIFT) + Dest]!, 1, p.end - p.l3);
    director.conns.restart(conn, director.now);
  }
  const isOurs =
    conn !== NO_CONN ||
    (dir === IN && director.services.match(p.proto, dst(p.view, p.l3), p.view.getUint16(p.l4 + 2), p.mark) >= 0);
  if (!isOurs) return ACCEPT;
  p.drop = p.l4Fault;
  return DROP;
}

/** What the state machine needs to know of a packet with a sound transport header. */
function stepOf(p: Packet): number {
  if (p.proto === TCP) return p.view.getUint8(p.l4 + 13);
  return p.proto === SCTP ? sctpStep(p.view, p.l4, p.end) : 0;
}

/** Does the packet ask for a new connection (is_new_conn)? */
function isNew(proto: number, step: number): boolean {
  return proto === TCP ? (step & SYN) !== 0 : proto === SCTP && isSctpInit(step);
}

/** Is such a packet on this connection a new connection (ip_vs_in_hook, is_new_conn_expected): its port is used again, or its server is quiesced. */
function isUsedAgain(director: Director, conn: number): boolean {
  const { sysctls, dests } = director;
  const rows = director.conns.rows;
  const at = conn << CONN_SHIFT;
  if (sysctls.expireNodestConn !== 0 && dests.weight[rows[at + Dest]!] === 0) return true;
  if ((dests.flags[rows[at + Dest]!]! & DRAINING) !== 0 && (rows[at + Flags]! & (INACTIVE | RESETTING)) !== 0)
    return true;
  const mode = sysctls.connReuseMode;
  if (mode === 0 || director.conns.control[conn] !== 0) return false;
  const meta = rows[at + Meta]!;
  const state = meta & 0xff;
  if (((meta >> 8) & 0xff) === SCTP) return state === CLOSED;
  if (state === TIME_WAIT || state === CLOSE) return true;
  return (mode & 2) !== 0 && state === FIN_WAIT && (rows[at + Flags]! & NO_OUTPUT) !== 0;
}

/** Was the server removed? Connections without one go on. */
function isGone(director: Director, dest: number): boolean {
  return dest !== director.dests.unbound && !director.dests.isAvailable(dest);
}

/** Another connection of the same client port takes its place; it ends after that one was made, as the kernel's does at the next tick, and counts until then. */
function replace(director: Director, p: Packet, old: number, step: number): number {
  const { conns } = director;
  const isFull = conns.count === conns.capacity;
  const isFree = conns.controlled[old] === 0;
  if (meetsOldEntry(director, p, old)) {
    if (!isFree) return old;
    director.expire(old);
    p.drop = Drop.DirectorOldEntry;
    return REFUSED;
  }
  // The entry of the packet is the new connection's, and must not end with the old one.
  conns.rows[(old << CONN_SHIFT) + Flags]! &= ~TRACKED;
  if (director.notes !== null) {
    const isServerGone = isGone(director, conns.rows[(old << CONN_SHIFT) + Dest]!);
    director.notes.ended(old, isServerGone ? Ended.ServerGone : Ended.UsedAgain);
  }
  if (isFull && isFree) director.expire(old);
  p.flow = UNKNOWN;
  const conn = schedule(director, p, step);
  if (!isFull && isFree) director.expire(old);
  return conn;
}

/** A protocol that we do not balance; ignore_tunneled: nor what may be found in it. */
function unbalanced(director: Director, p: Packet): Verdict {
  if (director.sysctls.ignoreTunneled !== 0) p.ipvsProperty = 1;
  return ACCEPT;
}

/** A packet has passed. @param hasMoved and changed the state */
function restart(director: Director, conn: number, hasMoved: boolean): void {
  const { conns, now } = director;
  if (hasMoved && conns.isTied(conn)) conns.restartInOrder(conn, now);
  else conns.restart(conn, now);
}

/** Client → service. */
export function request(director: Director, p: Packet): Verdict {
  if (p.ipvsProperty !== 0 || director.services.count === 0) return ACCEPT;
  if (p.pktType !== HOST && p.isLocalOut === 0) return ACCEPT;
  if (director.isBackup && director.sysctls.backupOnly !== 0) return ACCEPT;
  const proto = p.proto;
  if (proto !== TCP && proto !== UDP && proto !== SCTP) {
    return proto === ICMP ? icmpRequest(director, p) : unbalanced(director, p);
  }
  if (p.isLaterFragment !== 0) return ACCEPT;
  if (p.l4Fault !== 0) return faulty(director, p, IN);
  const step = stepOf(p);
  const { rows } = director.conns;
  let conn = connectionOf(director, p, IN);
  if (conn === NO_CONN && director.conns.withoutPort !== 0) conn = connectionWithoutPort(director, p);
  if (conn !== NO_CONN && director.notes !== null) director.notes.found(conn, IN);
  if (conn === NO_CONN) {
    conn = schedule(director, p, step);
  } else if (isNew(proto, step) && isUsedAgain(director, conn)) {
    conn = replace(director, p, conn, step);
  } else if (isGone(director, rows[(conn << CONN_SHIFT) + Dest]!)) {
    if (director.sysctls.expireNodestConn === 0) {
      p.drop = Drop.DirectorDestinationGone;
      return DROP;
    }
    conn = replace(director, p, conn, step);
  }
  if (conn === NOT_OURS) return ACCEPT;
  if (conn === REFUSED) return DROP;
  const at = conn << CONN_SHIFT;
  const flags = rows[at + Flags]!;
  if ((flags & RESETTING) !== 0 && director.resets.heard(p, conn, IN, step)) {
    p.drop = Drop.DirectorDrained;
    return DROP;
  }
  const packets = wirePackets(p);
  const dest = rows[at + Dest]!;
  if (dest === director.dests.unbound) lendAddress(director, p, conn);
  director.countIn(dest, packets, wireBytes(p, packets));
  const hasMoved = moveState(director, conn, INPUT, step);
  const seen = rows[at + Packets]!;
  rows[at + Packets] = seen + packets;
  restart(director, conn, hasMoved);
  if ((flags & HELPED) !== 0) {
    if ((flags & NO_CPORT) !== 0) director.conns.fillClientPort(conn, p.view.getUint16(p.l4));
    if ((flags & APP) !== 0 && !director.ftp.request(director, p, conn)) return DROP;
  }
  const verdict = trackRequest(director, p, conn) === ACCEPT ? forwardRequest(director, p, conn) : DROP;
  if (director.master !== null) director.master.tell(conn, seen, seen + packets);
  if ((flags & ONE_PACKET) !== 0) director.expire(conn);
  return verdict;
}

/** By the connection's method. */
export function forwardRequest(director: Director, p: Packet, conn: number): Verdict {
  const method = director.conns.rows[(conn << CONN_SHIFT) + Flags]! & METHOD_MASK;
  if (method === MASQ) return masqRequest(director, p, conn);
  if (method === FULL_NAT) return fullNatRequest(director, p, conn);
  return method === TUNNEL ? tunnelRequest(director, p, conn) : routeRequest(director, p, conn);
}

/** nat_icmp_send: a server that goes on with a connection which we do not have is told so, unless it ends it. */
function unknownReply(director: Director, p: Packet): Verdict {
  const { view, l3, l4, proto } = p;
  if (proto === TCP && (view.getUint8(l4 + 13) & RST) !== 0) return ACCEPT;
  if (proto === SCTP && stepOf(p) >> 8 === ABORT) return ACCEPT;
  if (!director.dests.hasServer(proto, src(view, l3), view.getUint16(l4))) return ACCEPT;
  p.drop = Drop.DirectorNoConnection;
  p.rejectType = UNREACHABLE;
  p.rejectCode = PORT;
  return DROP;
}

/** ip_vs_gather_frags: what crosses us or starts here may still be in pieces. Accept: `p` is whole; else it waits, or has ended. */
function gather(director: Director, p: Packet): Verdict {
  if (!isFragment(p.view, p.l3) || director.reassembly === null) return ACCEPT;
  return director.reassembly.take(p, p.isLocalOut !== 0 ? DIRECTOR_OUT : DIRECTOR_FORWARD);
}

/** Server → client. */
export function reply(director: Director, p: Packet): Verdict {
  if (p.ipvsProperty !== 0 || director.services.count === 0) return ACCEPT;
  const proto = p.proto;
  if (proto !== TCP && proto !== UDP && proto !== SCTP && proto !== ICMP) return ACCEPT;
  const gathered = gather(director, p);
  if (gathered !== ACCEPT) return gathered;
  if (proto === ICMP) return icmpReply(director, p);
  if (p.isLaterFragment !== 0) return ACCEPT;
  if (p.l4Fault !== 0) return faulty(director, p, OUT);
  let conn = connectionOf(director, p, OUT);
  if (conn === NO_CONN) {
    if (proto === UDP && director.services.followers.size !== 0 && p.hook !== LOCAL_IN) conn = scheduleOut(director, p);
    if (conn === NO_CONN) return director.sysctls.natIcmpSend === 0 ? ACCEPT : unknownReply(director, p);
  } else if (director.notes !== null) {
    director.notes.found(conn, OUT);
  }
  const { rows } = director.conns;
  const at = conn << CONN_SHIFT;
  if ((rows[at + Flags]! & RESETTING) !== 0 && director.resets.heard(p, conn, OUT, p.view.getUint8(p.l4 + 13))) {
    p.drop = Drop.DirectorDrained;
    return DROP;
  }
  if ((rows[at + Flags]! & APP) !== 0 && !director.ftp.reply(director, p, conn)) return DROP;
  const packets = wirePackets(p);
  director.countOut(rows[at + Dest]!, packets, wireBytes(p, packets));
  restart(director, conn, moveState(director, conn, OUTPUT, stepOf(p)));
  const flags = rows[at + Flags]!;
  const method = flags & METHOD_MASK;
  let verdict: Verdict = ACCEPT;
  if (method === MASQ) masqReply(director, p, conn);
  else if (method === FULL_NAT) verdict = fullNatReply(director, p, conn);
  else p.ipvsProperty = 1;
  trackReply(director, p, conn);
  if ((flags & ONE_PACKET) !== 0) director.expire(conn);
  return verdict;
}

/** ICMP errors that are routed through us to a service's address which is not ours. */
export function forwardedIcmp(director: Director, p: Packet): Verdict {
  if (p.proto !== ICMP || p.ipvsProperty !== 0 || director.services.count === 0) return ACCEPT;
  if (director.isBackup && director.sysctls.backupOnly !== 0) return ACCEPT;
  const gathered = gather(director, p);
  return gathered === ACCEPT ? icmpRequest(director, p) : gathered;
}

// cold: registration
export function directorHooks(director: Director): readonly HookOp[] {
  const onReply = (p: Packet) => reply(director, p);
  const onRequest = (p: Packet) => request(director, p);
  return [
    {
      hook: Hook.LocalIn,
      priority: Priority.NatSrc - 2,
      name: 'director/reply',
      why: 'answers to a client on this machine get the service address back',
      run: onReply,
    },
    {
      hook: Hook.LocalIn,
      priority: Priority.NatSrc - 1,
      name: 'director/request',
      why: 'after filtering, so that filter rules also guard virtual services',
      run: onRequest,
    },
    {
      hook: Hook.LocalOut,
      priority: Priority.NatDst + 1,
      name: 'director/reply',
      why: 'answers of a real server on this machine get the service address back',
      run: onReply,
    },
    {
      hook: Hook.LocalOut,
      priority: Priority.NatDst + 2,
      name: 'director/request',
      why: 'clients on this machine use virtual services too',
      run: onRequest,
    },
    {
      hook: Hook.Forward,
      priority: Priority.NatSrc - 1,
      name: 'director/icmp',
      why: 'ICMP errors for service addresses that are not ours',
      run: (p) => forwardedIcmp(director, p),
    },
    {
      hook: Hook.Forward,
      priority: Priority.NatSrc,
      name: 'director/reply',
      why: 'masqueraded answers of real servers cross us here',
      run: onReply,
    },
  ];
}
// hot again
