/**
 * The synchronisation daemons, master and backup, each at most once (net/netfilter/ipvs/ip_vs_sync.c: start_sync_thread, stop_sync_thread). Both may run
 * together; how many ports they use is settled when the first of them starts.
 */
import type { DatagramReceiver, Datagrams, Outgoing } from '../../hooks/datagrams.ts';
import type { DaemonRow, DaemonSpec, IpvsErrno } from '../../model/ipvs.ts';
import { NONE } from '../../packet/packet.ts';
import { formatIp4, isMulticast, parseIp4 } from '../../wire/addr.ts';
import type { Director } from '../director.ts';
import { SyncBackup } from './backup.ts';
import { BulkBackup } from './bulk-backup.ts';
import { BulkMaster, LEAST_BULK } from './bulk-master.ts';
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

interface Socket {
  readonly ip: number;
  readonly port: number;
  readonly receive: DatagramReceiver;
}

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
  #master: {
    readonly config: Running;
    readonly daemon: SyncMaster;
    readonly bulk: BulkMaster;
    readonly sockets: readonly Socket[];
  } | null = null;
  #backup: {
    readonly config: Running;
    readonly daemon: SyncBackup;
    /** Null where there is no address for answers. */
    readonly bulk: BulkBackup | null;
    readonly sockets: readonly Socket[];
  } | null = null;
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
    const { deviceId: device, group: dst, ttl, syncId } = config;
    for (let i = 0; i < this.#ports; i++) {
      to.push({ device, src, srcPort: this.#ephemeral(), dst, dstPort: (config.port + i) & 0xffff, ttl });
    }
    const daemon = new SyncMaster(this.#director, datagrams, to, syncId, config.maxLength);
    const longest = Math.max(Math.min(config.maxLength, datagrams.deviceMtu(device) - IP_UDP_HEADERS), LEAST_BULK);
    const bulk = new BulkMaster(this.#director, datagrams, to[0]!, syncId, longest);
    const receive: DatagramReceiver = (m, at, length, from, fromPort) => bulk.receive(m, at, length, from, fromPort);
    const sockets: Socket[] = [{ ip: dst, port: config.port, receive }];
    if (src !== 0) sockets.push({ ip: src, port: to[0]!.srcPort, receive });
    this.#open(datagrams, device, sockets);
    this.#master = { config, daemon, bulk, sockets };
    this.#director.master = daemon;
  }

  #startBackup(datagrams: Datagrams, config: Running): void {
    const daemon = new SyncBackup(this.#director, config.syncId, config.maxLength);
    const { deviceId: device, group: dst, port, ttl, syncId } = config;
    const receive: DatagramReceiver = (m, at, length) => daemon.receive(m, at, length);
    const sockets: Socket[] = [];
    for (let i = 0; i < this.#ports; i++) sockets.push({ ip: dst, port: (port + i) & 0xffff, receive });
    const src = datagrams.addressOn(device);
    let bulk: BulkBackup | null = null;
    if (src !== 0) {
      const srcPort = this.#ephemeral();
      const asker = new BulkBackup(
        this.#director,
        datagrams,
        daemon,
        { device, src, srcPort, dst, dstPort: port, ttl },
        syncId,
      );
      bulk = asker;
      const answered: DatagramReceiver = (m, at, length, from, fromPort) =>
        asker.receive(m, at, length, from, fromPort);
      sockets.push({ ip: src, port: srcPort, receive: answered });
    }
    this.#open(datagrams, device, sockets);
    this.#backup = { config, daemon, bulk, sockets };
    this.#director.isBackup = true;
  }

  #open(datagrams: Datagrams, device: number, sockets: readonly Socket[]): void {
    for (const { ip, port, receive } of sockets) datagrams.listen(device, ip, port, receive);
  }

  #close(device: number, sockets: readonly Socket[]): void {
    for (const { ip, port, receive } of sockets) this.#datagrams?.unlisten(device, ip, port, receive);
  }

  #ephemeral(): number {
    return FIRST_EPHEMERAL + ((this.#director.rng.next() >>> 0) % EPHEMERALS);
  }

  /** What a master has not sent yet is lost, as with the kernel. */
  stop(role: 'master' | 'backup'): IpvsErrno | null {
    if (role === 'master') {
      if (this.#master === null) return 'ESRCH';
      this.#close(this.#master.config.deviceId, this.#master.sockets);
      this.#master = null;
      this.#director.master = null;
      return null;
    }
    if (this.#backup === null) return 'ESRCH';
    this.#close(this.#backup.config.deviceId, this.#backup.sockets);
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
    if (this.#master !== null) {
      this.#master.daemon.advance(now);
      if (this.#master.bulk.isBusy) this.#master.bulk.advance();
    }
    if (this.#backup !== null && this.#backup.bulk !== null) this.#backup.bulk.advance(now);
  }

  /** A table is being sent: there is something to do at every tick. */
  get isBusy(): boolean {
    return this.#master?.bulk.isBusy === true;
  }

  /** As `ipvsadm -L --daemon` lists them. */
  list(): DaemonRow[] {
    const rows: DaemonRow[] = [];
    if (this.#master !== null) {
      const { config, daemon, bulk } = this.#master;
      rows.push({ role: 'master', ...settings(config), counters: { ...daemon.counters, bulkRecords: bulk.records } });
    }
    if (this.#backup !== null) {
      const { config, daemon, bulk } = this.#backup;
      const counters = { ...daemon.counters, bulkRecords: bulk?.records ?? 0 };
      rows.push({ role: 'backup', ...settings(config), counters, transfer: bulk?.state ?? 'unanswered' });
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
