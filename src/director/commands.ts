/** ipvsadm's commands, with the kernel's checks in the kernel's order (net/netfilter/ipvs/ip_vs_ctl.c). Not per packet. */
import { seconds } from '../base/clock.ts';
import { finish, type Steps } from '../base/slices.ts';
import {
  type IpvsCommand,
  type IpvsErrno,
  type LocalAddressSpec,
  SchedulerFlag,
  type ServerKey,
  type ServerSpec,
  type ServiceKey,
  type ServiceSpec,
} from '../model/ipvs.ts';
import { NONE } from '../packet/packet.ts';
import { isLoopback, isMulticast, isZeroNet, parseIp4 } from '../wire/addr.ts';
import { IpProto } from '../wire/ipv4.ts';
import { Method } from './connection.ts';
import { NO_DEST, TunnelFlag, TunnelType } from './destinations.ts';
import type { Director } from './director.ts';
import { FIRST_LOCAL_PORT, LAST_LOCAL_PORT } from './local-addresses.ts';
import { findEngine } from './persistence-engine.ts';
import { findScheduler, schedulerNumber } from './sched/index.ts';
import type { SchedulerDefinition } from './sched/scheduler.ts';
import { FTP, NO_SERVICE, ServiceFlag } from './services.ts';
import { TcpState } from './tcp-states.ts';
import { UdpState } from './udp-states.ts';

/** Longest timeout that fits the tick counter, seconds. */
const LONGEST_TIMEOUT = Math.floor(0x7fffffff / seconds(1));
const MAX_WEIGHT = 0x7fffffff;
const MAX_THRESHOLD = 0xffffffff;
const PROTOCOL_NUMBERS = { tcp: IpProto.Tcp, udp: IpProto.Udp, sctp: IpProto.Sctp } as const;
const ALL_SCHEDULER_FLAGS = SchedulerFlag.Flag1 | SchedulerFlag.Flag2 | SchedulerFlag.Flag3;

/** With pauses where it takes long: each service is emptied or zeroed at once, all of them are not. */
export function* executeInSteps(director: Director, command: IpvsCommand): Steps<IpvsErrno | null> {
  if (command.op === 'clear') return yield* clear(director);
  if (command.op === 'zero') return yield* zero(director, command.service);
  return executeCommand(director, command);
}

export function executeCommand(director: Director, command: IpvsCommand): IpvsErrno | null {
  switch (command.op) {
    case 'add-service':
      return addService(director, command.service);
    case 'edit-service':
      return editService(director, command.service);
    case 'delete-service':
      return deleteService(director, command.service);
    case 'clear':
      return finish(clear(director));
    case 'add-server':
      return addServer(director, command.service, command.server);
    case 'edit-server':
      return editServer(director, command.service, command.server);
    case 'delete-server':
      return deleteServer(director, command.service, command.server);
    case 'add-local-address':
      return addLocalAddress(director, command.service, command.local, false);
    case 'edit-local-address':
      return addLocalAddress(director, command.service, command.local, true);
    case 'delete-local-address':
      return deleteLocalAddress(director, command.service, command.local);
    case 'zero':
      return finish(zero(director, command.service));
    case 'drain':
      return drain(director, command);
    case 'undrain':
      return undrain(director, command.service, command.server);
    case 'set-timeouts':
      return setTimeouts(director, command.tcp, command.tcpFin, command.udp);
    case 'start-daemon':
      return director.sync.start(command.daemon);
    case 'stop-daemon':
      return director.sync.stop(command.role);
  }
}

/** A service key as the data path has it; undefined for what tapvs does not do (yet). */
function parseKey(key: ServiceKey): { protocol: number; vip: number; port: number } | undefined {
  if (key.kind === 'fwmark') {
    if (key.family !== 4 || !isInteger(key.fwmark, MAX_THRESHOLD) || key.fwmark === 0) return undefined;
    return { protocol: 0, vip: key.fwmark | 0, port: 0 };
  }
  const protocol = PROTOCOL_NUMBERS[key.protocol];
  const vip = parseIp4(key.address);
  if (vip === undefined || !isPort(key.port)) return undefined;
  return { protocol, vip, port: key.port };
}

/** Row of a service; NO_SERVICE when there is none. */
export function findService(director: Director, key: ServiceKey): number {
  const k = parseKey(key);
  return k === undefined ? NO_SERVICE : director.services.find(k.protocol, k.vip, k.port);
}

function addService(director: Director, spec: ServiceSpec): IpvsErrno | null {
  const k = parseKey(spec.key);
  if (k === undefined) return 'EINVAL';
  const { services } = director;
  if (services.find(k.protocol, k.vip, k.port) !== NO_SERVICE) return 'EEXIST';
  const scheduler = findScheduler(spec.scheduler);
  const engine = spec.pe === undefined ? null : findEngine(spec.pe);
  if (scheduler === undefined || engine === undefined) return 'ENOENT';
  const settings = parseService(spec, k.protocol, k.port);
  if (settings === undefined) return 'EINVAL';
  const s = services.add(k.protocol, k.vip, k.port);
  if (s === NO_SERVICE) return 'ENOSPC';
  applyService(director, s, settings);
  services.setEngine(s, engine);
  bindScheduler(director, s, scheduler);
  return null;
}

export function bindScheduler(director: Director, s: number, definition: SchedulerDefinition): void {
  const { services, collectors } = director;
  services.schedulerNumbers[s] = schedulerNumber(definition);
  const scheduler = definition.create(director, s);
  services.schedulers[s] = scheduler;
  services.schedulerNames[s] = definition.name;
  if (scheduler.collect !== undefined) collectors.add(scheduler);
}

function unbindScheduler(director: Director, s: number): void {
  const scheduler = director.services.schedulers[s]!;
  director.collectors.delete(scheduler);
  scheduler.close?.();
}

function editService(director: Director, spec: ServiceSpec): IpvsErrno | null {
  const s = findService(director, spec.key);
  if (s === NO_SERVICE) return 'ESRCH';
  const { services } = director;
  const scheduler = findScheduler(spec.scheduler);
  const engine = spec.pe === undefined ? null : findEngine(spec.pe);
  if (scheduler === undefined || engine === undefined) return 'ENOENT';
  const settings = parseService(spec, services.protocol[s]!, services.port[s]!);
  if (settings === undefined) return 'EINVAL';
  const isNew = services.schedulerNames[s] !== scheduler.name;
  if (isNew && services.destinations[s]! > (scheduler.maxDestinations ?? MAX_WEIGHT)) return 'EINVAL';
  if ((settings.flags & ServiceFlag.OnePacket) !== 0 && hasFullNat(director, s)) return 'EOPNOTSUPP';
  applyService(director, s, settings);
  services.setEngine(s, engine);
  if (isNew) {
    unbindScheduler(director, s);
    bindScheduler(director, s, scheduler);
  }
  return null;
}

interface ServiceSettings {
  readonly flags: number;
  readonly schedulerFlags: number;
  /** Seconds. */
  readonly timeout: number;
  readonly netmask: number;
}

function parseService(spec: ServiceSpec, protocol: number, port: number): ServiceSettings | undefined {
  const timeout = spec.persistenceTimeout;
  if (timeout !== undefined && (timeout === 0 || !isInteger(timeout, LONGEST_TIMEOUT))) return undefined;
  const netmask = spec.netmask === undefined ? -1 : parseIp4(spec.netmask);
  if (netmask === undefined) return undefined;
  // One packet at a time only where there is no connection to keep; an address without a port only where one client keeps its server.
  if (spec.ops && (protocol === IpProto.Tcp || protocol === IpProto.Sctp)) return undefined;
  if (timeout === undefined && port === 0 && protocol !== 0) return undefined;
  if (!isInteger(spec.schedulerFlags, ALL_SCHEDULER_FLAGS)) return undefined;
  const persistent = timeout === undefined ? 0 : ServiceFlag.Persistent;
  return {
    flags: ServiceFlag.Used | persistent | (spec.ops ? ServiceFlag.OnePacket : 0),
    schedulerFlags: spec.schedulerFlags,
    timeout: timeout ?? 0,
    netmask,
  };
}

function applyService(director: Director, s: number, settings: ServiceSettings): void {
  const { services } = director;
  services.flags[s] = settings.flags;
  services.schedulerFlags[s] = settings.schedulerFlags;
  services.timeout[s] = settings.timeout;
  services.netmask[s] = settings.netmask;
}

function deleteService(director: Director, key: ServiceKey): IpvsErrno | null {
  const s = findService(director, key);
  if (s === NO_SERVICE) return 'ESRCH';
  dropService(director, s);
  return null;
}

function dropService(director: Director, s: number): void {
  const { services, dests } = director;
  unbindScheduler(director, s);
  for (let d = services.first[s]!; d !== NO_DEST; d = services.first[s]!) {
    director.drains.end(d);
    dests.remove(d, director.now);
  }
  director.locals.clear(s);
  services.remove(s);
}

function* clear(director: Director): Steps<null> {
  const { services } = director;
  for (let s = 0; s < services.highWater; s++) {
    if (!services.isUsed(s)) continue;
    dropService(director, s);
    yield;
  }
  return null;
}

const METHODS = { masq: Method.Masq, route: Method.Route, tunnel: Method.Tunnel, fullnat: Method.FullNat } as const;
const TUNNEL_TYPES = { ipip: TunnelType.IpIp, gue: TunnelType.Gue, gre: TunnelType.Gre } as const;
const TUNNEL_CHECKSUMS = { none: 0, csum: TunnelFlag.Csum, remcsum: TunnelFlag.Remcsum } as const;

interface Settings {
  readonly ip: number;
  readonly port: number;
  readonly method: number;
  readonly tunnel: { readonly type: number; readonly port: number; readonly flags: number };
}

function parseServer(spec: ServerSpec): Settings | IpvsErrno {
  const ip = parseIp4(spec.key.address);
  if (ip === undefined || !isPort(spec.key.port)) return 'EINVAL';
  if (spec.method === 'local' || spec.method === 'bypass') return 'EINVAL';
  const { tunnel } = spec;
  const port = tunnel?.port ?? 0;
  if (!isPort(port)) return 'EINVAL';
  if (!isInteger(spec.weight, MAX_WEIGHT)) return 'ERANGE';
  if (!isInteger(spec.upperThreshold, MAX_THRESHOLD) || !isInteger(spec.lowerThreshold, MAX_THRESHOLD)) return 'ERANGE';
  if (spec.lowerThreshold > spec.upperThreshold) return 'ERANGE';
  // Whatever the method: GUE without a port goes nowhere.
  if (tunnel?.type === 'gue' && port === 0) return 'EINVAL';
  return {
    ip,
    port: spec.key.port,
    method: METHODS[spec.method],
    tunnel: {
      type: TUNNEL_TYPES[tunnel?.type ?? 'ipip'],
      port,
      flags: TUNNEL_CHECKSUMS[tunnel?.checksum ?? 'none'],
    },
  };
}

/**
 * What full NAT does not go together with: one-packet scheduling, whose answers would come to a port that nobody has any more; and FTP, whose addresses in the
 * payload its helper changes for masqueraded servers alone.
 */
function isFullNatPossible({ services }: Director, s: number): boolean {
  if ((services.flags[s]! & ServiceFlag.OnePacket) !== 0) return false;
  return services.protocol[s] !== IpProto.Tcp || services.port[s] !== FTP;
}

function hasFullNat({ services, dests }: Director, s: number): boolean {
  for (let d = services.first[s]!; d !== NO_DEST; d = dests.next[d]!) {
    if (dests.method[d] === Method.FullNat) return true;
  }
  return false;
}

function addServer(director: Director, key: ServiceKey, spec: ServerSpec): IpvsErrno | null {
  const s = findService(director, key);
  if (s === NO_SERVICE) return 'ESRCH';
  const settings = parseServer(spec);
  if (typeof settings === 'string') return settings;
  const { dests, services } = director;
  const { ip, port, method, tunnel } = settings;
  if (dests.find(s, ip, port) !== NO_DEST) return 'EEXIST';
  if (method === Method.FullNat && !isFullNatPossible(director, s)) return 'EOPNOTSUPP';
  if (!dests.isTrashed(s, ip, port) && !isUnicast(director, ip)) return 'EINVAL';
  const d = dests.add(s, ip, port);
  if (d === NO_DEST) return 'ENOSPC';
  dests.update(d, method, spec.weight, spec.upperThreshold, spec.lowerThreshold);
  dests.setTunnel(d, tunnel.type, tunnel.port, tunnel.flags);
  services.schedulers[s]!.added?.(d);
  director.drains.added(d);
  return null;
}

function editServer(director: Director, key: ServiceKey, spec: ServerSpec): IpvsErrno | null {
  const s = findService(director, key);
  if (s === NO_SERVICE) return 'ESRCH';
  const settings = parseServer(spec);
  if (typeof settings === 'string') return settings;
  const { dests, services } = director;
  const d = dests.find(s, settings.ip, settings.port);
  if (d === NO_DEST) return 'ENOENT';
  if (settings.method === Method.FullNat && !isFullNatPossible(director, s)) return 'EOPNOTSUPP';
  if (spec.weight > 0) director.drains.end(d);
  dests.update(d, settings.method, spec.weight, spec.upperThreshold, spec.lowerThreshold);
  dests.setTunnel(d, settings.tunnel.type, settings.tunnel.port, settings.tunnel.flags);
  services.schedulers[s]!.changed?.(d);
  return null;
}

function deleteServer(director: Director, key: ServiceKey, server: ServerKey): IpvsErrno | null {
  const d = findServer(director, key, server);
  if (typeof d !== 'number') return d;
  const { dests, services } = director;
  const s = dests.service[d]!;
  director.drains.end(d);
  dests.remove(d, director.now);
  services.schedulers[s]!.removed?.(d);
  if (director.sysctls.expireNodestConn !== 0) director.flushGone();
  return null;
}

/** dp_vs_laddr_add; but the address must be ours already: we answer ARP for what we have, and for nothing else. */
function addLocalAddress(
  director: Director,
  key: ServiceKey,
  spec: LocalAddressSpec,
  isThere: boolean,
): IpvsErrno | null {
  const s = findService(director, key);
  if (s === NO_SERVICE) return 'ESRCH';
  const ip = parseIp4(spec.address);
  const { from, to } = spec.ports ?? { from: FIRST_LOCAL_PORT, to: LAST_LOCAL_PORT };
  if (ip === undefined || !isPort(from) || !isPort(to) || from === 0 || from > to) return 'EINVAL';
  const { locals } = director;
  if (locals.has(s, ip) !== isThere) return isThere ? 'ENOENT' : 'EEXIST';
  const errno = checkLocalAddress(director, ip, spec.device);
  if (errno !== null) return errno;
  return locals.set(s, ip, from, to, spec.device ?? '') ? null : 'ENOSPC';
}

/** Is it ours, and the device's? */
export function checkLocalAddress(director: Director, ip: number, device: string | undefined): IpvsErrno | null {
  const { routing, datagrams } = director;
  if (device !== undefined) {
    const id = datagrams?.findDevice(device) ?? NONE;
    if (id === NONE) return 'ENODEV';
    if (!datagrams!.hasAddress(id, ip)) return 'EADDRNOTAVAIL';
  }
  return !isLoopback(ip) && routing.resolve(ip) && routing.isLocal ? null : 'EADDRNOTAVAIL';
}

/** Connections that come from it go on. */
function deleteLocalAddress(
  director: Director,
  key: ServiceKey,
  { address, device }: Pick<LocalAddressSpec, 'address' | 'device'>,
): IpvsErrno | null {
  const s = findService(director, key);
  if (s === NO_SERVICE) return 'ESRCH';
  const ip = parseIp4(address);
  if (ip === undefined) return 'EINVAL';
  return director.locals.remove(s, ip, device ?? '') ? null : 'ENOENT';
}

type DrainCommand = Extract<IpvsCommand, { readonly op: 'drain' }>;

function drain(director: Director, command: DrainCommand): IpvsErrno | null {
  const { service, server, deadline, udpIdle, whenAdded } = command;
  for (const t of [deadline ?? 0, udpIdle ?? 0]) if (!isInteger(t, LONGEST_TIMEOUT)) return 'EINVAL';
  const d = findServer(director, service, server);
  if (typeof d === 'number') director.drains.begin(d, { deadline, udpIdle });
  else if (whenAdded !== true || d === 'EINVAL') return d;
  else director.drains.await(service, server, { deadline, udpIdle });
  return null;
}

function undrain(director: Director, service: ServiceKey, server: ServerKey): IpvsErrno | null {
  const d = findServer(director, service, server);
  if (typeof d === 'number') return director.drains.undo(d) ? null : 'ENODATA';
  return director.drains.forget(service, server) ? null : d;
}

/** Row of a listed server, or why there is none. */
function findServer(director: Director, key: ServiceKey, server: ServerKey): number | IpvsErrno {
  const s = findService(director, key);
  if (s === NO_SERVICE) return 'ESRCH';
  const ip = parseIp4(server.address);
  if (ip === undefined || !isPort(server.port)) return 'EINVAL';
  const d = director.dests.find(s, ip, server.port);
  return d === NO_DEST ? 'ENOENT' : d;
}

function* zero(director: Director, key: ServiceKey | undefined): Steps<IpvsErrno | null> {
  const { services } = director;
  if (key !== undefined) {
    const s = findService(director, key);
    if (s === NO_SERVICE) return 'ESRCH';
    zeroService(director, s);
    return null;
  }
  for (let s = 0; s < services.highWater; s++) {
    if (!services.isUsed(s)) continue;
    zeroService(director, s);
    yield;
  }
  director.total.zero(0, director.sysctls.runEstimation === 0);
  return null;
}

function zeroService(director: Director, s: number): void {
  const { services, dests } = director;
  const isFrozen = director.sysctls.runEstimation === 0;
  services.counters.zero(s, isFrozen);
  for (let d = services.first[s]!; d !== NO_DEST; d = dests.next[d]!) dests.counters.zero(d, isFrozen);
}

/** Seconds; 0 keeps. Connections get the new timeout with their next packet. */
function setTimeouts(director: Director, tcp: number, tcpFin: number, udp: number): IpvsErrno | null {
  for (const t of [tcp, tcpFin, udp]) if (!isInteger(t, LONGEST_TIMEOUT)) return 'EINVAL';
  if (tcp !== 0) director.tcpTimeouts[TcpState.Established] = seconds(tcp);
  if (tcpFin !== 0) director.tcpTimeouts[TcpState.FinWait] = seconds(tcpFin);
  if (udp !== 0) director.udpTimeouts[UdpState.Normal] = seconds(udp);
  return null;
}

function isPort(n: number): boolean {
  return isInteger(n, 65535);
}

function isInteger(n: number, max: number): boolean {
  return Number.isInteger(n) && n >= 0 && n <= max;
}

/** A server must have a unicast address, ours or another's (inet_addr_type in ip_vs_new_dest). */
export function isUnicast(director: Director, ip: number): boolean {
  if (isMulticast(ip) || isZeroNet(ip) || ip >>> 28 === 15) return false;
  return isLoopback(ip) || !director.routing.resolve(ip) || !director.routing.isBroadcast;
}
