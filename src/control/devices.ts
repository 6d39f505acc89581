/**
 * Opens the devices of the configuration in the kernel, hands their descriptors to the worker, and takes away again what it made.
 *
 *   tap      TUNSETIFF → kernel's own MAC (fe:…) → MTU → port of the bridge → up
 *   tun      TUNSETIFF → MTU → up; the host port also has the kernel's side (rtnl/host-port.ts)
 *   packet   AF_PACKET on an interface that is there; it is set up and otherwise left alone
 *
 * A TUN or TAP that is not `persist` goes with its descriptor, so a daemon that is killed leaves none; what a persistent one or the host port's rules
 * left is taken over at the next start.
 */
import { createHash } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';
import { setTimeout } from 'node:timers/promises';
import * as native from '../device/native.ts';
import type { DeviceSpec } from '../engine/messages.ts';
import { configureHostPort, removeHostPort } from '../rtnl/host-port.ts';
import { netnsPath, openRtnl, type Rtnl } from '../rtnl/rtnl.ts';
import { formatMac, mac } from '../wire/addr.ts';
import type { DeviceConfig } from './config.ts';
import type { Engine } from './engine-client.ts';
import type { Log } from './log.ts';
import type { Succession } from './succession.ts';

/** A device cannot be made as the configuration wants it: one line, what, where and what to do. */
export class DeviceError extends Error {
  override readonly name = 'DeviceError';
  /** EPERM and the like when the system said so, else empty. */
  readonly code: string;

  constructor(device: string, cause: unknown) {
    const text = cause instanceof Error ? cause.message : String(cause);
    super(text.startsWith(`${device}: `) ? `device ${text}` : `device ${device}: ${text}`, { cause });
    this.code = cause instanceof Error && 'code' in cause ? String(cause.code) : '';
  }
}

interface Opened {
  readonly fd: number;
  readonly mtu: number;
  readonly mac: string;
}

/** Frames that the kernel keeps for us while a breath is under way: several breaths of 64, some with super-packets. */
const TAP_QUEUE_LENGTH = 1000;
/** A second in all. */
const BUSY_TRIES = 50;
const BUSY_WAIT_MS = 20;
const NO_MAC = '00:00:00:00:00:00';

export class Devices {
  readonly #engine: Engine;
  readonly #log: Log;
  readonly #succession: Pick<Succession, 'deviceOpened' | 'deviceClosed'>;
  readonly #open = new Map<string, { config: DeviceConfig; spec: DeviceSpec; ifindex: number }>();
  /** The kernel's side of the host port is brought to what is wanted by one at a time; another one may wait for its turn. */
  #syncing: Promise<unknown> = Promise.resolve();
  #nextSync: Promise<void> | null = null;

  constructor(engine: Engine, log: Log, succession: Pick<Succession, 'deviceOpened' | 'deviceClosed'>) {
    this.#engine = engine;
    this.#log = log;
    this.#succession = succession;
  }

  /** In the order in which they were made. */
  list(): readonly DeviceSpec[] {
    return [...this.#open.values()].map(({ spec }) => spec);
  }

  /** @throws DeviceError */
  async add(config: DeviceConfig): Promise<void> {
    const spec = await asDeviceError(config.name, () => inNetns(config.netns, (where) => this.#make(config, where)));
    try {
      await this.#engine.call('add-device', spec);
    } catch (error) {
      try {
        native.close(spec.fd);
      } catch {
        // the worker has closed it already
      }
      throw new DeviceError(config.name, error);
    }
    this.#succession.deviceOpened(config.name, spec.fd);
    this.#open.set(config.name, { config, spec, ifindex: await indexOf(config) });
  }

  /** The engine has these from an earlier life; `configs` is what that life was told about them. */
  async takeOver(specs: readonly DeviceSpec[], configs: readonly DeviceConfig[]): Promise<void> {
    for (const spec of specs) {
      const config = configs.find(({ name }) => name === spec.name);
      if (config === undefined) {
        await this.#engine.call('del-device', { name: spec.name });
        this.#succession.deviceClosed(spec.name);
        continue;
      }
      const mtu = config.kind === 'packet' ? config.mtu : spec.mtu;
      this.#open.set(spec.name, { config: { ...config, mtu }, spec, ifindex: await indexOf(config) });
    }
  }

  /** Lets go of what somebody has deleted in the kernel (or deleted and made again), so that the next plan makes it anew. */
  async forgetGone(): Promise<void> {
    for (const [name, { config, ifindex }] of [...this.#open]) {
      if ((await indexOf(config)) !== ifindex) await this.remove(name);
    }
  }

  async remove(name: string): Promise<void> {
    const { config } = this.#open.get(name) ?? {};
    if (config === undefined) return;
    if (config.host) await this.#removeHostPort(config);
    this.#open.delete(name);
    await this.#engine.call('del-device', { name });
    this.#succession.deviceClosed(name);
  }

  /** MTU, MAC, bridge; a changed `peer` takes effect with the next syncHostPort. @throws DeviceError */
  async edit(config: DeviceConfig): Promise<void> {
    const known = this.#open.get(config.name);
    if (known === undefined) return;
    const { config: before, spec, ifindex } = known;
    await asDeviceError(config.name, () =>
      inNetns(config.netns, async (where) => {
        const name = config.name;
        if (config.mtu !== before.mtu && config.kind !== 'packet') native.linkSetMtu(name, config.mtu, where.fd);
        if (config.bridge !== before.bridge) await where.rtnl.setLink(name, { master: config.bridge ?? null });
      }),
    );
    const ownMac = config.kind === 'tun' ? undefined : (config.mac ?? derivedMac(config));
    const [errno] = await this.#engine.call('ip', {
      commands: [{ op: 'link-set', device: config.name, mtu: config.mtu, mac: ownMac }],
    });
    if (errno)
      throw new DeviceError(config.name, new Error(`the engine refuses mtu ${config.mtu}, mac ${ownMac}: ${errno}`));
    this.#open.set(config.name, { config, spec: { ...spec, mtu: config.mtu, mac: ownMac ?? spec.mac }, ifindex });
  }

  /** The MTU of a TUN or TAP follows `tapvs ip link set`. */
  async setMtu(name: string, mtu: number): Promise<void> {
    const known = this.#open.get(name);
    if (known === undefined || known.config.kind === 'packet') return;
    await inNetns(known.config.netns, async (where) => native.linkSetMtu(name, mtu, where.fd));
    this.#open.set(name, { ...known, config: { ...known.config, mtu }, spec: { ...known.spec, mtu } });
  }

  /** Brings the kernel's side of the host port to what the engine's addresses and routes are now. Does nothing without a host port. @throws DeviceError */
  syncHostPort(): Promise<void> {
    // Whoever asks meanwhile is content with the one that waits: it has not looked at anything yet.
    this.#nextSync ??= this.#syncing.then(() => {
      this.#nextSync = null;
      const sync = this.#syncHostPort();
      this.#syncing = sync.catch(() => {});
      return sync;
    });
    return this.#nextSync;
  }

  async #syncHostPort(): Promise<void> {
    const host = [...this.#open.values()].find(({ config }) => config.host)?.config;
    if (host === undefined || host.peer === undefined) return;
    const addresses = await this.#engine.call('list-addresses', {});
    const routes = (await this.#engine.call('list-routes', {})).filter((route) => route.type === 'unicast');
    const wanted = {
      device: host.name,
      peer: host.peer,
      localAddresses: addresses.map((row) => row.address),
      prefixes: routes.map((route) => route.to).filter((to) => to !== 'default'),
      hasDefault: routes.some((route) => route.to === 'default'),
    };
    const changes = await asDeviceError(host.name, () =>
      inNetns(host.netns, ({ rtnl }) => configureHostPort(rtnl, wanted)),
    );
    for (const change of changes) this.#log.debug({ device: host.name }, `host port: ip ${change}`);
  }

  /** What would stay in the kernel when the descriptors are closed. The worker closes those. */
  async cleanUp(): Promise<void> {
    for (const { config } of this.#open.values()) if (config.host) await this.#removeHostPort(config);
  }

  async #removeHostPort(config: DeviceConfig): Promise<void> {
    try {
      await inNetns(config.netns, ({ rtnl }) => removeHostPort(rtnl, { device: config.name }));
    } catch (error) {
      this.#log.warn({ device: config.name }, `the host port's rules could not be removed: ${messageOf(error)}`);
    }
  }

  async #make(config: DeviceConfig, where: Where): Promise<DeviceSpec> {
    const { name, kind, netns, host, offload, peer } = config;
    const opened = kind === 'packet' ? await this.#openPacket(config, where) : await this.#openTun(config, where);
    return {
      name,
      kind,
      ...opened,
      netns: netns ?? undefined,
      isHost: host,
      offload,
      peer: peer?.split('/')[0],
    };
  }

  async #openTun(config: DeviceConfig, { fd: netnsFd, rtnl }: Where): Promise<Opened> {
    const { name, offload, persist, mtu } = config;
    const kind = config.kind === 'tun' ? 'tun' : 'tap';
    const { fd } = await openWhenFree({ name, kind, netnsFd, vnetHdr: offload });
    try {
      native.setPersist(fd, persist);
      const on = native.setOffload(fd, offload ? { csum: true, tso4: true, tsoEcn: true, uso4: true } : {});
      if (offload && !on.uso4) this.#log.debug({ device: name }, 'this kernel has no UDP segmentation for TUN and TAP');
      const ownMac = kind === 'tun' ? NO_MAC : (config.mac ?? derivedMac(config));
      native.linkSetQueueLength(name, TAP_QUEUE_LENGTH, netnsFd);
      native.linkSetMtu(name, mtu, netnsFd);
      if (kind === 'tap') {
        // The kernel's own MAC of the TAP: fe:… is the highest of a bridge's ports, and a bridge takes the lowest for its own.
        const kernelMac = derivedMac(config, 'fe');
        if (native.linkGet(name, netnsFd).isUp) native.linkSetUp(name, false, netnsFd); // left by an earlier daemon
        native.linkSetMac(name, mac(kernelMac), netnsFd);
        if (ownMac.toLowerCase() === kernelMac) throw new Error(`mac ${ownMac} is the kernel's end's: choose another`);
        await this.#joinBridge(config, ownMac, rtnl);
      }
      native.linkSetUp(name, true, netnsFd);
      return { fd, mtu, mac: ownMac };
    } catch (error) {
      native.close(fd);
      throw error;
    }
  }

  async #joinBridge({ name, bridge }: DeviceConfig, ownMac: string, rtnl: Rtnl): Promise<void> {
    if (bridge === undefined) return;
    const link = await rtnl.findLink(bridge);
    if (link === null)
      throw new Error(`there is no bridge '${bridge}': make it first (ip link add ${bridge} type bridge)`);
    if (link.kind !== 'bridge') throw new Error(`'${bridge}' is no bridge`);
    if (link.mac === ownMac.toLowerCase()) {
      throw new Error(`mac ${ownMac} is also that of ${bridge}, which would swallow its frames: choose another`);
    }
    await rtnl.setLink(name, { master: bridge });
    if (!link.isUp) this.#log.warn({ device: name }, `bridge ${bridge} is down: no frame will cross it`);
  }

  async #openPacket(config: DeviceConfig, { fd: netnsFd }: Where): Promise<Opened> {
    const { interface: port = config.name, offload } = config;
    const { fd, ...link } = native.openPacket({ interface: port, netnsFd, vnetHdr: offload });
    try {
      const ownMac = config.mac ?? derivedMac(config);
      if (ownMac.toLowerCase() === formatMac(link.mac.hi, link.mac.lo)) {
        this.#log.warn(
          { device: config.name },
          `mac ${ownMac} is also ${port}'s own: the kernel sees the same packets and answers, too`,
        );
      }
      if (!native.linkGet(port, netnsFd).isUp) native.linkSetUp(port, true, netnsFd);
      const mtu = Math.min(config.mtu, link.mtu);
      if (mtu < config.mtu)
        this.#log.warn({ device: config.name }, `mtu ${mtu}, not ${config.mtu}: ${port} takes no more`);
      return { fd, mtu, mac: ownMac };
    } catch (error) {
      native.close(fd);
      throw error;
    }
  }
}

/** A device that we or an earlier life had goes away a moment after the service manager is told to let go of it. */
async function openWhenFree(options: native.TunOptions): Promise<{ fd: number }> {
  for (let tries = BUSY_TRIES; ; tries--) {
    try {
      return native.openTun(options);
    } catch (error) {
      if (tries === 0 || !(error instanceof Error && 'code' in error && error.code === 'EBUSY')) throw error;
      await setTimeout(BUSY_WAIT_MS);
    }
  }
}

/** A namespace that is entered for one task: its descriptor (undefined = our own) and an rtnetlink socket in it. */
interface Where {
  readonly fd: number | undefined;
  readonly rtnl: Rtnl;
}

async function inNetns<T>(netns: string | null, use: (where: Where) => Promise<T>): Promise<T> {
  const fd = netns === null ? undefined : native.openNetns(netns);
  try {
    const rtnl = openRtnl(fd === undefined ? {} : { enter: (fn) => native.withNetns(fd, fn) });
    try {
      return await use({ fd, rtnl });
    } finally {
      rtnl.close();
    }
  } finally {
    if (fd !== undefined) native.close(fd);
  }
}

/** Index of the device, or of the interface that a packet device is on; -1 when it (or its namespace) is not there, or not ours to look at any more. */
async function indexOf({ name, netns, interface: port = name }: DeviceConfig): Promise<number> {
  try {
    return await inNetns(netns, async ({ fd }) => native.linkGet(port, fd).ifindex);
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : '';
    if (['ENODEV', 'ENOENT', 'EPERM', 'EACCES'].includes(String(code))) return -1;
    throw error;
  }
}

async function asDeviceError<T>(name: string, run: () => Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (error) {
    throw error instanceof DeviceError ? error : new DeviceError(name, error);
  }
}

/**
 * A locally administered MAC that stays the same from start to start and differs between machines, namespaces and devices: neighbours keep it in their
 * caches, and two daemons may be on one segment.
 */
function derivedMac(config: DeviceConfig, firstOctet: '02' | 'fe' = '02'): string {
  const namespace = statSync(config.netns === null ? '/proc/self/ns/net' : netnsPath(config.netns)).ino;
  const digest = createHash('sha256').update(`${machineId()} ${namespace} ${config.name} ${firstOctet}`).digest();
  return [firstOctet, ...Array.from(digest.subarray(0, 5), (octet) => octet.toString(16).padStart(2, '0'))].join(':');
}

function machineId(): string {
  for (const file of ['/etc/machine-id', '/proc/sys/kernel/hostname']) {
    try {
      return readFileSync(file, 'utf8').trim();
    } catch {
      // the next one
    }
  }
  return 'tapvs';
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
