/** What the API shows of the director, as plain values. Not per packet. */
import { TICKS_PER_SECOND } from '../base/clock.ts';
import type {
  ConnectionRow,
  ForwardMethod,
  IpvsInfo,
  IpvsProtocol,
  LocalAddressRow,
  ServerKey,
  ServerRow,
  ServiceKey,
  ServicePage,
  ServiceRow,
  TunnelType as TunnelKind,
} from '../model/ipvs.ts';
import { formatIp4 } from '../wire/addr.ts';
import { IpProto } from '../wire/ipv4.ts';
import { findService } from './commands.ts';
import { CONN_SHIFT, Conn, ConnFlag, LOCAL_SHIFT, Method } from './connection.ts';
import { NO_DEST, TunnelFlag } from './destinations.ts';
import type { Director } from './director.ts';
import { FIRST_LOCAL_PORT, LAST_LOCAL_PORT } from './local-addresses.ts';
import { SCTP_STATE_NAMES } from './sctp-states.ts';
import { NO_SERVICE, ServiceFlag } from './services.ts';
import { TCP_STATE_NAMES, TcpState } from './tcp-states.ts';
import { UDP_STATE_NAMES, UdpState } from './udp-states.ts';

/** Indexed by Method. */
const METHOD_NAMES: readonly ForwardMethod[] = ['masq', 'local', 'tunnel', 'route', 'bypass', 'fullnat'];

/** By protocol number. */
const PROTOCOL_NAMES: Readonly<Record<number, IpvsProtocol>> = {
  [IpProto.Tcp]: 'tcp',
  [IpProto.Udp]: 'udp',
  [IpProto.Sctp]: 'sctp',
};
const STATE_NAMES: Readonly<Record<number, readonly string[]>> = {
  [IpProto.Tcp]: TCP_STATE_NAMES,
  [IpProto.Udp]: UDP_STATE_NAMES,
  [IpProto.Sctp]: SCTP_STATE_NAMES,
};
/** Indexed by TunnelType. */
const TUNNEL_TYPES: readonly TunnelKind[] = ['ipip', 'gue', 'gre'];

/** What the headline of a listing says: the kernel's module version and its default table size. */
const VERSION = '1.2.1';
const TABLE_SIZE = 4096;

/** A cursor is a service times this, and the server to go on with + 1. */
const SERVICE_STEP = 2 ** 20;

/** Rows of the connection table that are looked at for a page: where few are in use, the others take time, too. */
const LOOKED_AT = 16384;

export function info(director: Director): IpvsInfo {
  const inSeconds = (ticks: number) => Math.floor(ticks / TICKS_PER_SECOND);
  return {
    version: VERSION,
    size: TABLE_SIZE,
    timeouts: {
      tcp: inSeconds(director.tcpTimeouts[TcpState.Established]!),
      tcpFin: inSeconds(director.tcpTimeouts[TcpState.FinWait]!),
      udp: inSeconds(director.udpTimeouts[UdpState.Normal]!),
    },
  };
}

export function serviceRows(
  director: Director,
  cursor: number,
  limit: number,
  key: ServiceKey | undefined,
): ServicePage {
  const { services, dests } = director;
  const only = key === undefined ? undefined : findService(director, key);
  if (only === NO_SERVICE) return { rows: [], isCut: false, next: -1 };
  const end = only === undefined ? services.highWater : only + 1;
  const rows: ServiceRow[] = [];
  let s = Math.max(Math.floor(cursor / SERVICE_STEP), only ?? 0);
  let d = firstOf(director, s, cursor % SERVICE_STEP);
  for (let left = limit; s < end && left > 0; s++) {
    if (services.isUsed(s)) {
      const servers: ServerRow[] = [];
      for (left--; d !== NO_DEST && (left > 0 || servers.length === 0); d = dests.next[d]!, left--)
        servers.push(serverRow(director, d));
      rows.push(serviceRow(director, s, servers));
      if (d !== NO_DEST) return { rows, isCut: true, next: s * SERVICE_STEP + d + 1 };
    }
    d = services.first[s + 1] ?? NO_DEST;
  }
  return { rows, isCut: false, next: s < end ? s * SERVICE_STEP : -1 };
}

/** Where to go on in a service: with server `at` - 1, or with the next one that it still has; 0: from the start. */
function firstOf({ services, dests }: Director, s: number, at: number): number {
  if (at === 0) return services.first[s] ?? NO_DEST;
  let d = at - 1;
  // Those that have gone still know who came after them.
  for (let left = dests.capacity; d !== NO_DEST && left > 0; left--, d = dests.next[d]!)
    if (dests.isAvailable(d) && dests.service[d] === s) return d;
  return NO_DEST;
}

function serviceRow(director: Director, s: number, servers: readonly ServerRow[]): ServiceRow {
  const { services } = director;
  const flags = services.flags[s]!;
  const isPersistent = (flags & ServiceFlag.Persistent) !== 0;
  return {
    key: serviceKey(director, s),
    scheduler: services.schedulerNames[s]!,
    schedulerFlags: services.schedulerFlags[s]!,
    persistenceTimeout: isPersistent ? services.timeout[s]! : undefined,
    netmask: services.netmask[s] === -1 ? undefined : formatIp4(services.netmask[s]!),
    pe: services.engines[s]?.name,
    ops: (flags & ServiceFlag.OnePacket) !== 0,
    stats: services.counters.read(s, director.sysctls.runEstimation === 0),
    ...(director.locals.isEmpty(s) ? {} : { localAddresses: localAddresses(director, s) }),
    servers,
  };
}

function localAddresses({ locals }: Director, s: number): LocalAddressRow[] {
  return locals.list(s).map(({ ip, low, high, device, conns, conflicts }) => ({
    address: formatIp4(ip),
    ...(low === FIRST_LOCAL_PORT && high === LAST_LOCAL_PORT ? {} : { ports: { from: low, to: high } }),
    ...(device === '' ? {} : { device }),
    conns,
    conflicts,
  }));
}

export function serviceKey(director: Director, s: number): ServiceKey {
  const { services } = director;
  const protocol = services.protocol[s]!;
  if (protocol === 0) return { kind: 'fwmark', fwmark: services.vip[s]! >>> 0, family: 4 };
  return {
    kind: 'address',
    protocol: PROTOCOL_NAMES[protocol]!,
    address: formatIp4(services.vip[s]!),
    port: services.port[s]!,
  };
}

export function serverKey({ dests }: Director, d: number): ServerKey {
  return { address: formatIp4(dests.ip[d]!), port: dests.port[d]! };
}

function serverRow(director: Director, d: number): ServerRow {
  const { dests } = director;
  return {
    key: serverKey(director, d),
    method: METHOD_NAMES[dests.method[d]!]!,
    weight: dests.weight[d]!,
    upperThreshold: dests.upper[d]!,
    lowerThreshold: dests.lower[d]!,
    tunnel: tunnelOf(director, d),
    activeConns: dests.active[d]!,
    inactiveConns: dests.inactive[d]!,
    persistentConns: dests.persistent[d]!,
    stats: dests.counters.read(d, director.sysctls.runEstimation === 0),
  };
}

/** Plain IPIP is not said: it is what a tunnel is unless told otherwise. */
function tunnelOf({ dests }: Director, d: number): ServerRow['tunnel'] {
  const type = TUNNEL_TYPES[dests.tunnelType[d]!]!;
  const flags = dests.tunnelFlags[d]!;
  if (type === 'ipip') return undefined;
  const checksum = flags === TunnelFlag.Csum ? 'csum' : flags === TunnelFlag.Remcsum ? 'remcsum' : 'none';
  return { type, port: dests.tunnelPort[d]!, checksum };
}

export function connectionRows(
  director: Director,
  cursor: number,
  limit: number,
): { rows: ConnectionRow[]; next: number } {
  const { conns } = director;
  const rows: ConnectionRow[] = [];
  const end = Math.min(conns.highWater, cursor + LOOKED_AT);
  let conn = cursor;
  for (; conn < end && rows.length < limit; conn++) {
    if (conns.isUsed(conn)) rows.push(connectionRow(director, conn));
  }
  return { rows, next: conn < conns.highWater ? conn : -1 };
}

function connectionRow(director: Director, conn: number): ConnectionRow {
  const { rows } = director.conns;
  const at = conn << CONN_SHIFT;
  const meta = rows[at + Conn.Meta]!;
  const ports = rows[at + Conn.Ports]!;
  const flags = rows[at + Conn.Flags]!;
  const engine = (flags & ConnFlag.HasPe) === 0 ? undefined : director.engines.of(conn);
  const left = (rows[at + Conn.Expires]! - director.now) | 0;
  return {
    protocol: protocolName((meta >> 8) & 0xff),
    expiresSeconds: left <= 0 ? 0 : Math.floor(left / TICKS_PER_SECOND),
    state: stateName(meta, flags),
    client: { address: formatIp4(rows[at + Conn.Cip]!), port: ports >>> 16 },
    virtual: { address: formatIp4(rows[at + Conn.Vip]!), port: ports & 0xffff },
    destination: { address: formatIp4(rows[at + Conn.Rip]!), port: meta >>> 16 },
    local: localOf(director, conn, flags),
    pe: engine === undefined ? undefined : { name: engine.engine.name, data: engine.data },
  };
}

/** Where a connection by full NAT comes from; templates come from nowhere. */
export function localOf({ conns }: Director, conn: number, flags: number): ServerKey | undefined {
  if ((flags & (ConnFlag.MethodMask | ConnFlag.Template)) !== Method.FullNat) return undefined;
  const at = conn << LOCAL_SHIFT;
  return { address: formatIp4(conns.local[at]!), port: conns.local[at + 1]! & 0xffff };
}

/** As `ipvsadm -Lc` prints it. */
export function stateName(meta: number, flags: number): string {
  if ((flags & ConnFlag.Template) !== 0) return (flags & ConnFlag.Assured) !== 0 ? 'ASSURED' : 'NONE';
  return STATE_NAMES[(meta >> 8) & 0xff]?.[meta & 0xff] ?? 'NONE';
}

function protocolName(protocol: number): IpvsProtocol | 'ip' {
  return PROTOCOL_NAMES[protocol] ?? 'ip';
}
