/**
 * The synchronisation daemons, master and backup, each at most once (net/netfilter/ipvs/ip_vs_sync.c: start_sync_thread, stop_sync_thread). Both may run
 * together; how many ports they use is settled when the first of them starts.
 */
import type { Datagrams, Outgoing } from '../../hooks/datagrams.ts';
import type { DaemonRow, DaemonSpec, IpvsErrno } from '../../model/ipvs.ts';
import { NONE } from '../../packet/packet.ts';
import { formatIp4, isMulticast, parseIp4 } from '../../wire/addr.ts';
import type { Director } from '../director.ts';
import { SyncBackup } from './backup.ts';
import { SyncMaster } from './master.ts';

const GROUP = '224.0.0.81';
const PORT = 8848;
const TTL = 1;
const MAX_PORTS = 64;
const IP_UDP_HEADERS = 28;
const LONGEST = 65535 - IP_UDP_HEADERS;
const ETHERNET_MTU = 1500;
const LEAST_BUFFER = 1024;
/** Where the kernel's ephemeral ports lie (ip_local_port_range). */
const FIRST_EPHEMERAL = 32768;
const EPHEMERALS = 28232;

interface Running {
  readonly device: string;
  readonly deviceId: number;
  readonly group: number;
  readonly port: number;
  readonly ttl: number;
  readonly syncId: number;
  readonly maxLength: number;
}

export class SyncDaemons {
  readonly #director: Director;
  readonly #datagrams: Datagrams | null;
  #master: { readonly config: Running; readonly daemon: SyncMaster } | null = null;
  #backup: { readonly config: Running; readonly daemon: SyncBackup } | null = null;
  /** Ports of each daemon that runs. */
  #ports = 1;

  /** @param datagrams null where there is no network: no daemon starts */
  constructor(director: Director, datagrams: Datagrams | null) {
    this.#director = director;
    this.#datagrams = datagrams;
  }

  start(spec: DaemonSpec): IpvsErrno | null {
    const datagrams = this.#datagrams;
    const deviceId = datagrams === null ? NONE : datagrams.findDevice(spec.device);
    if (datagrams === null || deviceId === NONE) return 'ENODEV';
    const isMaster = spec.role === 'master';
    if ((isMaster ? this.#master : this.#backup) !== null) return 'EEXIST';
    const group = parseIp4(spec.group ?? GROUP);
    // IPv6 groups: no address of ours could send there.
    if (group === undefined) return 'EADDRNOTAVAIL';
    if (!isMulticast(group)) return 'EINVAL';
    const config: Running = {
      device: spec.device,
      deviceId,
      group,
      port: spec.port || PORT,
      ttl: spec.ttl || TTL,
      syncId: spec.syncId,
      maxLength: maxLength(spec, isMaster ? ETHERNET_MTU : datagrams.deviceMtu(deviceId)),
    };
    if (this.#master === null && this.#backup === null) {
      this.#ports = Math.min(Math.max(this.#director.sysctls.syncPorts, 1), MAX_PORTS);
    }
    if (isMaster) this.#startMaster(datagrams, config);
    else this.#startBackup(datagrams, config);
    return null;
  }

  #startMaster(datagrams: Datagrams, config: Running): void {
    const src = datagrams.addressOn(config.deviceId);
    const to: Outgoing[] = [];
    for (let i = 0; i < this.#ports; i++) {
      const srcPort = FIRST_EPHEMERAL + ((this.#director.rng.next() >>> 0) % EPHEMERALS);
      const { deviceId: device, group: dst, ttl } = config;
      to.push({ device, src, srcPort, dst, dstPort: (config.port + i) & 0xffff, ttl });
    }
    const daemon = new SyncMaster(this.#director, datagrams, to, config.syncId, config.maxLength);
    this.#master = { config, daemon };
    this.#director.master = daemon;
  }

  #startBackup(datagrams: Datagrams, config: Running): void {
    const daemon = new SyncBackup(this.#director, config.syncId, config.maxLength);
    const receive = (m: DataView, at: number, length: number) => daemon.receive(m, at, length);
    for (let i = 0; i < this.#ports; i++) {
      datagrams.listen(config.deviceId, config.group, (config.port + i) & 0xffff, receive);
    }
    this.#backup = { config, daemon };
    this.#director.isBackup = true;
  }

  /** What a master has not sent yet is lost, as with the kernel. */
  stop(role: 'master' | 'backup'): IpvsErrno | null {
    if (role === 'master') {
      if (this.#master === null) return 'ESRCH';
      this.#master = null;
      this.#director.master = null;
      return null;
    }
    if (this.#backup === null || this.#datagrams === null) return 'ESRCH';
    const { deviceId, group, port } = this.#backup.config;
    for (let i = 0; i < this.#ports; i++) this.#datagrams.unlisten(deviceId, group, (port + i) & 0xffff);
    this.#backup = null;
    this.#director.isBackup = false;
    return null;
  }

  /** A device is gone: the daemons there have nobody to talk to. */
  forget(device: number): void {
    if (this.#master?.config.deviceId === device) this.stop('master');
    if (this.#backup?.config.deviceId === device) this.stop('backup');
  }

  /** Once per breath. */
  advance(now: number): void {
    if (this.#master !== null) this.#master.daemon.advance(now);
  }

  /** As `ipvsadm -L --daemon` lists them. */
  list(): DaemonRow[] {
    const rows: DaemonRow[] = [];
    if (this.#master !== null) {
      rows.push({ role: 'master', ...settings(this.#master.config), counters: { ...this.#master.daemon.counters } });
    }
    if (this.#backup !== null) {
      rows.push({ role: 'backup', ...settings(this.#backup.config), counters: { ...this.#backup.daemon.counters } });
    }
    return rows;
  }
}

/** A backup has room for any message of the device, and for 1024 bytes at least. */
function maxLength(spec: DaemonSpec, mtu: number): number {
  const isBackup = spec.role === 'backup';
  if (spec.maxLength) return Math.min(Math.max(spec.maxLength, isBackup ? LEAST_BUFFER : 1), LONGEST);
  return Math.min(Math.max(mtu, ETHERNET_MTU), 65535) - IP_UDP_HEADERS;
}

function settings(config: Running) {
  const { device, syncId, maxLength, port, ttl } = config;
  return { device, syncId, maxLength, group: formatIp4(config.group), port, ttl };
}
