/** Over 400 lines: one typed door, a few lines for each call of the addon. */
/**
 * The native addon (native/), typed: loads it on first use and turns its errors into NativeError.
 *
 * Control calls may allocate and throw: NativeError for a failed system call, TypeError for misuse.
 * Data calls (rx, rxSpin, tx, poll, eventfdSignal, eventfdDrain, clockMonotonicUs, yieldCpu) take and return integers, allocate nothing, and
 * answer -errno; only a handle that is not one of this thread's makes them throw (TypeError).
 *
 * Handles (arena, queue, pollset) belong to the thread that made them. File descriptors are the process's: any thread may use or
 * close one, and what is still open when the thread that opened it (or adopted it last) ends, is closed then.
 */
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { formatMac, type Mac, parseMac } from '../wire/addr.ts';
import { NativeError } from './native-error.ts';

export type Arena = number & { readonly __arena: unique symbol };
export type Queue = number & { readonly __queue: unique symbol };
export type Pollset = number & { readonly __pollset: unique symbol };

/** What native/addon.c exports; as each function's comment there says. */
interface Addon {
  openTun(options: object): { fd: number; name: string };
  setOffload(fd: number, flags: number): number;
  setPersist(fd: number, persist: boolean): void;
  setQueue(fd: number, attach: boolean): void;
  openPacket(options: object): { fd: number; ifindex: number; mac: string; mtu: number };
  openNetns(path: string): number;
  enterNetns(fd: number): number;
  leaveNetns(saved: number): void;
  close(fd: number): void;
  adopt(fd: number): void;
  linkGet(
    name: string,
    netnsFd: number,
  ): { ifindex: number; mac: string | null; mtu: number; isUp: boolean; isRunning: boolean };
  linkSetUp(name: string, netnsFd: number, up: boolean): void;
  linkSetMtu(name: string, netnsFd: number, mtu: number): void;
  linkSetQueueLength(name: string, netnsFd: number, frames: number): void;
  linkSetMac(name: string, netnsFd: number, mac: string): void;
  eventfd(): number;
  eventfdSignal(fd: number): number;
  eventfdDrain(fd: number): number;
  memfd(name: string, size: number): number;
  giveBack(fd: number): void;
  mapShared(fd: number, size: number, offset: number): ArrayBuffer;
  zeroShared(buffer: ArrayBuffer): void;
  zeroPages(size: number): ArrayBuffer;
  notify(path: string, text: string, fds: readonly number[]): void;
  noticeSocket(path: string): number;
  receiveNotice(fd: number): Notice | null;
  inherit(fd: number): void;
  clockMonotonicUs(): number;
  yield(): void;
  registerArena(bytes: Uint8Array): number;
  releaseArena(arena: number): void;
  createQueue(options: object): number;
  destroyQueue(queue: number): void;
  createPollset(fds: readonly number[]): number;
  destroyPollset(pollset: number): void;
  rx(queue: number, n: number): number;
  rxSpin(queue: number, n: number, spins: number): number;
  tx(queue: number, n: number): number;
  poll(pollset: number, timeoutMs: number): number;
}

// ---- loading --------------------------------------------------------------------------------------------------------

let loaded: Addon | undefined;

/** $TAPVS_NATIVE, else native/build/ or native/prebuilds/linux-<arch>/ of the nearest folder above this file that has one. */
function findAddon(): string {
  const chosen = process.env.TAPVS_NATIVE;
  if (chosen !== undefined && chosen !== '') return chosen;
  const here = dirname(fileURLToPath(import.meta.url));
  let root = '';
  for (const place of ['build', `prebuilds/${process.platform}-${process.arch}`]) {
    for (let dir = here; ; dir = dirname(dir)) {
      const file = join(dir, 'native', place, 'tapvs.node');
      if (existsSync(file)) return file;
      if (root === '' && existsSync(join(dir, 'native', 'Makefile'))) root = dir;
      if (dir === dirname(dir)) break;
    }
  }
  const make = `make -C ${root === '' ? 'native' : join(root, 'native')}`;
  throw new Error(`the native addon is not built; build it with: ${make}   (needs gcc, make and node's headers)`);
}

function load(): Addon {
  const file = findAddon();
  try {
    loaded = createRequire(import.meta.url)(file) as Addon;
  } catch (error) {
    throw new Error(`cannot load the native addon ${file}: ${(error as Error).message.split('\n')[0]}`, {
      cause: error,
    });
  }
  return loaded;
}

/** Why the addon cannot be used here, as one line; null when it can. */
export function nativeProblem(): string | null {
  try {
    if (loaded === undefined) load();
    return null;
  } catch (error) {
    return (error as Error).message;
  }
}

/** Runs a control call; what C threw for a failed system call becomes a NativeError, a TypeError stays one. */
function control<T>(call: (addon: Addon) => T): T {
  const addon = loaded ?? load();
  try {
    return call(addon);
  } catch (error) {
    const { errno, syscall, device } = error as { errno?: unknown; syscall?: unknown; device?: unknown };
    if (typeof errno !== 'number' || typeof syscall !== 'string') throw error;
    throw new NativeError(errno, syscall, typeof device === 'string' ? device : undefined);
  }
}

// ---- TUN and TAP ----------------------------------------------------------------------------------------------------

export interface TunOptions {
  /** At most 15 bytes; may end in %d, which the kernel replaces by a number. */
  readonly name: string;
  readonly kind: 'tun' | 'tap';
  /** Namespace to open it in; the thread's own without it. */
  readonly netnsFd?: number | undefined;
  /** IFF_MULTI_QUEUE: open the same name again for each further queue. All openers must agree. */
  readonly multiQueue?: boolean;
  /** IFF_VNET_HDR: 10 bytes of wire/virtio-net.ts before each frame, both ways, little-endian. */
  readonly vnetHdr?: boolean;
  /** The device outlives the process. */
  readonly persist?: boolean;
  /** IFF_NAPI: frames written go through NAPI and GRO instead of the backlog. */
  readonly napi?: boolean;
}

/** Opens or makes a device, nonblocking. It is down: see linkSetUp. @throws NativeError EPERM EBUSY EINVAL ENOENT … */
export function openTun(options: TunOptions): { fd: number; name: string } {
  const { kind, ...rest } = options;
  return control((addon) => addon.openTun({ ...rest, tap: kind === 'tap' }));
}

/** What the reader of a TUN or TAP can take; without them the kernel segments and sums before it hands a packet over. */
export interface Offloads {
  /** Partial checksums; the others need it. */
  readonly csum?: boolean;
  readonly tso4?: boolean;
  readonly tso6?: boolean;
  readonly tsoEcn?: boolean;
  /** UDP segmentation. The kernel knows it for IPv4 and IPv6 together only (tun.c set_offload), since 6.2. */
  readonly uso4?: boolean;
}

const TUN_F_CSUM = 0x01;
const TUN_F_TSO4 = 0x02;
const TUN_F_TSO6 = 0x04;
const TUN_F_TSO_ECN = 0x08;
const TUN_F_USO = 0x20 | 0x40;

/** TUNSETOFFLOAD. Answers what is really on: a kernel without UDP segmentation leaves uso4 out. @throws NativeError */
export function setOffload(fd: number, offloads: Offloads): Required<Offloads> {
  let flags = 0;
  if (offloads.csum) flags |= TUN_F_CSUM;
  if (offloads.tso4) flags |= TUN_F_TSO4;
  if (offloads.tso6) flags |= TUN_F_TSO6;
  if (offloads.tsoEcn) flags |= TUN_F_TSO_ECN;
  if (offloads.uso4) flags |= TUN_F_USO;
  const on = control((addon) => addon.setOffload(fd, flags));
  return {
    csum: (on & TUN_F_CSUM) !== 0,
    tso4: (on & TUN_F_TSO4) !== 0,
    tso6: (on & TUN_F_TSO6) !== 0,
    tsoEcn: (on & TUN_F_TSO_ECN) !== 0,
    uso4: (on & TUN_F_USO) === TUN_F_USO,
  };
}

export function setPersist(fd: number, persist: boolean): void {
  control((addon) => addon.setPersist(fd, persist));
}

/** Takes one queue of a multi-queue device out of service, or back in: a detached one receives nothing; it can still send. */
export function setQueue(fd: number, attach: boolean): void {
  control((addon) => addon.setQueue(fd, attach));
}

// ---- AF_PACKET ------------------------------------------------------------------------------------------------------

export interface PacketOptions {
  readonly interface: string;
  readonly netnsFd?: number | undefined;
  /** PACKET_VNET_HDR: super-packets and partial checksums both ways, with the 10-byte header. */
  readonly vnetHdr?: boolean;
  /**
   * Send past the qdisc; default true. An interface that cannot segment by itself (ethtool -k: tx-tcp-segmentation off) then drops
   * super-packets instead of segmenting them in software: false for those.
   */
  readonly qdiscBypass?: boolean;
  /** Default true: tapvs's MAC is not the interface's. */
  readonly promiscuous?: boolean;
  /** For each direction; default 32 MiB. Above net.core.rmem_max it needs CAP_NET_ADMIN, else the limit applies. */
  readonly bufferBytes?: number;
}

export interface PacketSocket {
  readonly fd: number;
  readonly ifindex: number;
  /** The interface's own. */
  readonly mac: Mac;
  readonly mtu: number;
}

/** A raw socket on one interface: all that arrives there, nothing of what leaves. @throws NativeError EPERM ENODEV … */
export function openPacket(options: PacketOptions): PacketSocket {
  const { mac, ...rest } = control((addon) => addon.openPacket(options));
  return { ...rest, mac: parseMac(mac)! };
}

// ---- network namespaces and links -----------------------------------------------------------------------------------

/** Opens a namespace: a name as in `ip netns list`, or a path (anything with a slash). @throws NativeError ENOENT EACCES */
export function openNetns(pathOrName: string): number {
  const path = pathOrName.includes('/') ? pathOrName : join('/run/netns', pathOrName);
  return control((addon) => addon.openNetns(path));
}

/**
 * Runs `fn` with the calling thread inside the namespace, and comes back, whatever fn does. Only what fn does before it returns
 * happens there: nothing asynchronous, nothing of libuv's thread pool. @throws NativeError EPERM, and what fn throws
 */
export function withNetns<T>(fd: number, fn: () => T): T {
  const saved = control((addon) => addon.enterNetns(fd));
  try {
    return fn();
  } finally {
    control((addon) => addon.leaveNetns(saved));
  }
}

export interface LinkState {
  readonly ifindex: number;
  /** null where the link has no Ethernet address (TUN). */
  readonly mac: Mac | null;
  readonly mtu: number;
  /** Set up by the administrator. */
  readonly isUp: boolean;
  /** And has a carrier. */
  readonly isRunning: boolean;
}

export function linkGet(name: string, netnsFd = -1): LinkState {
  const { mac, ...rest } = control((addon) => addon.linkGet(name, netnsFd));
  return { ...rest, mac: mac === null ? null : parseMac(mac)! };
}

export function linkSetUp(name: string, up: boolean, netnsFd = -1): void {
  control((addon) => addon.linkSetUp(name, netnsFd, up));
}

export function linkSetMtu(name: string, mtu: number, netnsFd = -1): void {
  control((addon) => addon.linkSetMtu(name, netnsFd, mtu));
}

export function linkSetMac(name: string, mac: Mac, netnsFd = -1): void {
  control((addon) => addon.linkSetMac(name, netnsFd, formatMac(mac.hi, mac.lo)));
}

/** Frames that wait in a TUN or TAP for its reader before the kernel drops (txqueuelen; 500 by default). */
export function linkSetQueueLength(name: string, frames: number, netnsFd = -1): void {
  control((addon) => addon.linkSetQueueLength(name, netnsFd, frames));
}

// ---- descriptors, shared memory, the service manager ------------------------------------------------------------------

/** Closes a descriptor that this module opened, in whichever thread. Destroy its queues and pollsets first. @throws NativeError EBADF */
export function close(fd: number): void {
  control((addon) => addon.close(fd));
}

/** Makes the calling thread the one at whose end the descriptor is closed. @throws NativeError EBADF */
export function adopt(fd: number): void {
  control((addon) => addon.adopt(fd));
}

/** A counter that poll() can wait for. */
export function eventfd(): number {
  return control((addon) => addon.eventfd());
}

/** Anonymous memory with a fixed size (sealed), bytes. */
export function memfd(name: string, size: number): number {
  return control((addon) => addon.memfd(name, size));
}

/** All memory of a memfd is the system's again, whoever has mapped it; it reads as zeros from now on. @throws NativeError EBADF, EOPNOTSUPP for other files */
export function giveBack(fd: number): void {
  control((addon) => addon.giveBack(fd));
}

/** `size` bytes of a memfd or file from `offset` on (a multiple of the page size), shared with everyone who maps them; unmapped when collected. */
export function mapShared(fd: number, size: number, offset = 0): ArrayBuffer {
  return control((addon) => addon.mapShared(fd, size, offset));
}

/** Memory of `mapShared` is all zero again, and takes none: the work is that of the pages that were touched. @throws NativeError EINVAL for other memory */
export function zeroShared(buffer: ArrayBuffer): void {
  control((addon) => addon.zeroShared(buffer));
}

/** Zeros for a table: untouched pages cost nothing; from 16 MiB on they are of 2 MiB where the kernel has some (base/memory.ts says what that is worth). */
export function zeroPages(size: number): ArrayBuffer {
  return control((addon) => addon.zeroPages(size));
}

/** One datagram to $NOTIFY_SOCKET, as sd_notify(3), with descriptors beside it. A path that begins with @ is abstract. */
export function notify(path: string, text: string, fds: readonly number[] = []): void {
  control((addon) => addon.notify(path, text, fds));
}

export interface Notice {
  /** Of the sender. */
  readonly pid: number;
  readonly text: string;
  /** Now the calling thread's. */
  readonly fds: readonly number[];
}

/** Where a service manager hears what `notify` says: a nonblocking descriptor that a pollset can wait for. @throws NativeError EADDRINUSE … */
export function noticeSocket(path: string): number {
  return control((addon) => addon.noticeSocket(path));
}

/** The next datagram, or null when none waits. */
export function receiveNotice(fd: number): Notice | null {
  return control((addon) => addon.receiveNotice(fd));
}

/** Takes on a descriptor that the process was started with (sd_listen_fds(3)): children do not inherit it, and close() knows it. @throws NativeError EBADF */
export function inherit(fd: number): void {
  control((addon) => addon.inherit(fd));
}

// ---- arenas, queues, pollsets -----------------------------------------------------------------------------------------

/** Registers the memory that frames are read into and sent from; holds on to it. At most 2 GiB of it can be addressed. */
export function registerArena(bytes: Uint8Array): Arena {
  const { resizable, growable } = bytes.buffer as { resizable?: boolean; growable?: boolean };
  if (resizable === true || growable === true) throw new TypeError('an arena must have a fixed size');
  return control((addon) => addon.registerArena(bytes)) as Arena;
}

/** Lets go of the arena, at the latest when its last queue is destroyed. */
export function releaseArena(arena: Arena): void {
  control((addon) => addon.releaseArena(arena));
}

export interface QueueOptions {
  /** Stays the caller's to close. */
  readonly fd: number;
  readonly kind: 'tun' | 'packet';
  readonly arena: Arena;
  /** Entry i is [offset in the arena, length] at 2i and 2i + 1; at most 4096 entries. 64 is the batch of a system call. */
  readonly rx: Int32Array;
  readonly tx: Int32Array;
  /** Bytes that may be written at each rx offset, the vnet header included. */
  readonly rxRoom: number;
  /** As the descriptor was opened: each frame has 10 bytes of header before it, which offsets and lengths include. */
  readonly vnetHdr: boolean;
}

export function createQueue(options: QueueOptions): Queue {
  const { kind, ...rest } = options;
  return control((addon) => addon.createQueue({ ...rest, isPacket: kind === 'packet' })) as Queue;
}

export function destroyQueue(queue: Queue): void {
  control((addon) => addon.destroyQueue(queue));
}

/** At most 31 descriptors; bit i of poll() is fds[i]. */
export function createPollset(fds: readonly number[]): Pollset {
  return control((addon) => addon.createPollset(fds)) as Pollset;
}

export function destroyPollset(pollset: Pollset): void {
  control((addon) => addon.destroyPollset(pollset));
}

// ---- data calls -------------------------------------------------------------------------------------------------------

/**
 * Reads at most `n` frames to the offsets of rx[0..n), writes their lengths, answers how many; 0 when none waits. Never blocks.
 * A frame that did not fit has its length negated: -(whole length) from a packet socket, -(rxRoom + 1) from a TUN, cut to rxRoom.
 * -EINVAL: n is out of range. -EFAULT: an offset leaves no rxRoom in the arena, or a buffer was transferred away. Both before anything
 * is read. Other -errno: the descriptor's own (-EBADFD the device is gone, -ENETDOWN the interface went down; both end a packet's wait).
 */
export function rx(queue: Queue, n: number): number {
  return (loaded ?? load()).rx(queue, n);
}

/** rx, tried up to `spins` times while nothing is there: for bounded polling before sleep. */
export function rxSpin(queue: Queue, n: number, spins: number): number {
  return (loaded ?? load()).rxSpin(queue, n, spins);
}

/**
 * Sends tx[0..n) in order, answers how many went. A frame that was refused does not stop those after it: its length becomes
 * -errno (EAGAIN and ENOBUFS: full; EIO: TAP is down; ENETDOWN; EMSGSIZE; EINVAL: bad vnet header); other lengths stay.
 * -EINVAL: n or a length is out of range. -EFAULT: an entry is not inside the arena. Both before anything is sent.
 */
export function tx(queue: Queue, n: number): number {
  return (loaded ?? load()).tx(queue, n);
}

/**
 * Sleeps until a descriptor is readable or broken (its rx tells), at most `timeoutMs` (-1: for ever). Bit i is fds[i]; 0 on timeout
 * or when a signal came; -errno. Blocks the thread: to end a worker, signal an eventfd of its set.
 */
export function poll(pollset: Pollset, timeoutMs: number): number {
  return (loaded ?? load()).poll(pollset, timeoutMs);
}

/** Wakes who polls it. 0 or -errno. */
export function eventfdSignal(fd: number): number {
  return (loaded ?? load()).eventfdSignal(fd);
}

/** Back to silent: 1 when it had been signalled, 0 when not, or -errno. */
export function eventfdDrain(fd: number): number {
  return (loaded ?? load()).eventfdDrain(fd);
}

/** CLOCK_MONOTONIC in microseconds, with fractions. */
export function clockMonotonicUs(): number {
  return (loaded ?? load()).clockMonotonicUs();
}

/** Let another thread of this CPU run, if one waits (sched_yield(2)). */
export function yieldCpu(): void {
  (loaded ?? load()).yield();
}
