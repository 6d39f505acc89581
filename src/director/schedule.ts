/** The first packet of a connection: find its service, ask the scheduler, make the connection (net/netfilter/ipvs/ip_vs_core.c, ip_vs_schedule). */
import { Drop } from '../packet/drop.ts';
import type { Packet } from '../packet/packet.ts';
import { IcmpType, UnreachCode } from '../wire/icmpv4.ts';
import { dst, IpProto, src } from '../wire/ipv4.ts';
import { TcpFlag } from '../wire/tcp.ts';
import { ConnFlag, Dir, Method, NO_CONN } from './connections.ts';
import { NO_DEST } from './destinations.ts';
import type { Director } from './director.ts';
import { NO_SERVICE } from './services.ts';

/** Answers of `schedule` beside a connection. */
export const NOT_OURS = -1;
export const REFUSED = -2;

const { Tcp: TCP } = IpProto;
const { Syn: SYN, Rst: RST } = TcpFlag;
const FTP_DATA = 20;
/** Ticks until the state machine has set the real timeout, which it does with this very packet. */
const FIRST_TIMEOUT = 750;

/**
 * @param tcpFlags of the segment; not looked at for UDP
 * @returns a connection; NOT_OURS: let the packet pass; REFUSED: `p.drop` and what the sender is owed are set
 */
export function schedule(director: Director, p: Packet, tcpFlags: number): number {
  const { view, l3, l4, proto } = p;
  // A TCP connection begins with SYN (SYN/ACK too, for active FTP), unless sloppy_tcp lets it be joined midway.
  if (proto === TCP && ((tcpFlags & RST) !== 0 || ((tcpFlags & SYN) === 0 && director.sysctls.sloppyTcp === 0))) {
    return NOT_OURS;
  }
  const destination = dst(view, l3);
  const ports = view.getInt32(l4);
  const vport = ports & 0xffff;
  const service = director.services.find(proto, destination, vport);
  if (service === NO_SERVICE) return NOT_OURS;
  const source = src(view, l3);
  if (ports >>> 16 === FTP_DATA) return NOT_OURS;
  if (p.isLocalOut !== 0) {
    // An answer of a server on this machine, to a client that is balanced too, begins nothing.
    const flow = director.flows.find(destination, source, (vport << 16) | (ports >>> 16), proto);
    if (flow >= 0 && director.conns.find(flow, Dir.In) !== NO_CONN) return NOT_OURS;
  }
  const dest = director.services.schedulers[service]!.pick(source, destination, ports);
  if (dest === NO_DEST) {
    p.drop = Drop.DirectorNoDestination;
    p.rejectType = IcmpType.DestUnreachable;
    p.rejectCode = UnreachCode.Port;
    return REFUSED;
  }
  const dests = director.dests;
  const method = dests.method[dest]!;
  const flags = method | ConnFlag.Inactive | (method === Method.Masq ? 0 : ConnFlag.NoOutput);
  const rport = dests.port[dest] === 0 ? vport : dests.port[dest]!;
  const conn = director.conns.add(
    director.now,
    proto,
    source,
    destination,
    ports,
    dests.ip[dest]!,
    rport,
    dest,
    flags,
    FIRST_TIMEOUT,
  );
  if (conn === NO_CONN) {
    p.drop = Drop.DirectorConnTableFull;
    return REFUSED;
  }
  dests.bind(dest, false, true);
  dests.counters.addConnection(dest);
  director.services.counters.addConnection(service);
  director.total.addConnection(0);
  return conn;
}
