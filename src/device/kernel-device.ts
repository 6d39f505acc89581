/**
 * A device of the kernel: TAP, TUN, or an AF_PACKET socket on an interface. One class serves all three, because they differ only in how
 * they were opened and in where a frame begins.   @hot
 *
 *   slot   | headroom … vnet(10) | Ethernet 14 | IPv4 …     tap, packet: frame from l2, vnet header at l2 - 10
 *   slot   | headroom …            vnet(10)    | IPv4 …     tun: frame from l3, vnet header at l3 - 10
 *
 * Up to BURST packets of the pool are *armed*: their slots stand in the rx array that the addon reads into. A filled one goes to the burst,
 * and a fresh one from the pool takes its place. While the pool is empty fewer are armed, and frames wait in the kernel.
 *
 * Statistics count frames as the kernel hands them over: a super-packet is one, as in the kernel's own counters of a TAP.
 */
import { BURST, type Burst } from '../packet/burst.ts';
import { Drop } from '../packet/drop.ts';
import { FRAME_ROOM, type Packet } from '../packet/packet.ts';
import type { PacketPool } from '../packet/pool.ts';
import { ETH_HEADER } from '../wire/ethernet.ts';
import { VNET_HEADER } from '../wire/virtio-net.ts';
import { type Device, Medium, noStats } from './device.ts';
import * as native from './native.ts';
import { completeChecksum, readVnet, writeVnet } from './vnet.ts';

const {
  FrameTruncated: FRAME_TRUNCATED,
  VnetHeaderBad: VNET_HEADER_BAD,
  DeviceTxFull: DEVICE_TX_FULL,
  DeviceTxError: DEVICE_TX_ERROR,
  DeviceGone: DEVICE_GONE,
} = Drop;

/** Errors by number, as the addon answers them (include/uapi/asm-generic/errno*.h). */
const EIO = 5;
const ENXIO = 6;
const EBADF = 9;
const EAGAIN = 11;
const ENODEV = 19;
const EBADFD = 77;
const ENETDOWN = 100;
const ENOBUFS = 105;

/** When frames of a burst are longer than this on average (bytes), the next burst is short: 16 super-packets of 64 KiB fit the second-level cache, 64 do not. */
const SUPER_FRAME = 16_384;
const SUPER_BURST = 16;

export interface KernelDeviceOptions {
  readonly name: string;
  readonly kind: 'tap' | 'tun' | 'packet';
  /** As native.openTun or native.openPacket gave it; `close` closes it (poll sets that hold it go first). */
  readonly fd: number;
  readonly pool: PacketPool;
  /** What native.registerArena(pool.bytes) answered. */
  readonly arena: native.Arena;
  /** Bytes. */
  readonly mtu: number;
  /** tapvs's own MAC; 0, 0 on a tun. */
  readonly macHi: number;
  readonly macLo: number;
  /** Opened with the vnet header; then super-packets and partial checksums are taken on transmit. */
  readonly offload: boolean;
  /** Counter per Drop reason. */
  readonly drops: Float64Array;
  /** Told once when the device begins to fail (errno > 0): interface down, device removed. And again only after it has worked between. */
  readonly onFault?: (device: KernelDevice, errno: number) => void;
}

export class KernelDevice implements Device {
  readonly name: string;
  readonly kind: 'tap' | 'tun' | 'packet';
  readonly medium: Medium;
  mtu: number;
  macHi: number;
  macLo: number;
  readonly canOffload: boolean;
  readonly stats = noStats();
  /** -1 once the device is gone or closed: nothing to poll any more. */
  fd: number;
  /** True when the kernel has removed the device: nothing comes any more, what is transmitted is dropped as DeviceGone. */
  isGone = false;
  /** Last error of the device, errno > 0; 0 while it works. */
  fault = 0;

  readonly #pool: PacketPool;
  readonly #queue: native.Queue;
  readonly #drops: Float64Array;
  readonly #onFault: ((device: KernelDevice, errno: number) => void) | undefined;
  readonly #openFd: number;
  /** Bytes of vnet header before each frame, 10 or 0. */
  readonly #vnetBytes: number;
  /** From l2 to where the frame begins: 0, or 14 on an Ip device. */
  readonly #skip: number;
  /** Pairs (offset of vnet header, length). */
  readonly #rx = new Int32Array(2 * BURST);
  readonly #tx = new Int32Array(2 * BURST);
  readonly #armed: (Packet | null)[] = new Array<Packet | null>(BURST).fill(null);
  #armedCount = 0;
  /** Entries from the front whose slots the last receive gave away; filled again by the next, with the slots that were freed last and are still in the cache. */
  #holes = 0;
  /** Frames that the next receive asks for. */
  #mostWanted = BURST;
  /** Packets of the transmit call under way, in the order of `#tx`. */
  readonly #sending: (Packet | null)[] = new Array<Packet | null>(BURST).fill(null);
  #isClosed = false;

  constructor(options: KernelDeviceOptions) {
    this.name = options.name;
    this.kind = options.kind;
    this.medium = options.kind === 'tun' ? Medium.Ip : Medium.Ethernet;
    this.mtu = options.mtu;
    this.macHi = options.macHi;
    this.macLo = options.macLo;
    this.canOffload = options.offload;
    this.fd = options.fd;
    this.#openFd = options.fd;
    this.#pool = options.pool;
    this.#drops = options.drops;
    this.#onFault = options.onFault;
    this.#vnetBytes = options.offload ? VNET_HEADER : 0;
    this.#skip = this.medium === Medium.Ip ? ETH_HEADER : 0;
    this.#queue = native.createQueue({
      fd: options.fd,
      kind: options.kind === 'packet' ? 'packet' : 'tun',
      arena: options.arena,
      rx: this.#rx,
      tx: this.#tx,
      rxRoom: FRAME_ROOM - this.#skip,
      vnetHdr: options.offload,
    });
    this.#arm();
  }

  receive(burst: Burst): number {
    return this.receiveSpinning(burst, 0);
  }

  /** As `receive`, but asks up to `spins` times more while nothing has come: saves the sleep when traffic is dense. */
  receiveSpinning(burst: Burst, spins: number): number {
    if (this.isGone || this.#isClosed) return burst.count;
    if (this.#holes > 0) {
      this.#rearm(this.#holes);
      this.#holes = 0;
    }
    if (this.#armedCount < BURST) this.#arm();
    const room = burst.packets.length - burst.count;
    const want = Math.min(room, this.#armedCount, this.#mostWanted);
    if (want === 0) return burst.count;
    const n = spins === 0 ? native.rx(this.#queue, want) : native.rxSpin(this.#queue, want, spins);
    if (n <= 0) {
      if (n !== 0 && n !== -EAGAIN) this.#failed(-n);
      return burst.count;
    }
    this.fault = 0;
    let bytes = 0;
    for (let i = 0; i < n; i++) {
      const p = this.#armed[i]!;
      const length = this.#rx[2 * i + 1]!;
      if (!this.#take(p, length)) continue; // its slot stays armed
      bytes += length;
      burst.push(p);
      this.#armed[i] = null;
    }
    this.#holes = n;
    this.#mostWanted = bytes > n * SUPER_FRAME ? SUPER_BURST : BURST;
    return burst.count;
  }

  transmit(burst: Burst): void {
    // A burst may be larger than BURST; the addon's arrays are not.
    let from = 0;
    while (from < burst.count) {
      const to = burst.count - from > BURST ? from + BURST : burst.count;
      this.#send(burst, from, to);
      from = to;
    }
    burst.clear();
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    for (let i = 0; i < this.#armedCount; i++) {
      const p = this.#armed[i]!;
      if (p !== null) this.#pool.free(p);
      this.#armed[i] = null;
    }
    this.#holes = 0;
    this.#armedCount = 0;
    native.destroyQueue(this.#queue);
    this.fd = -1;
    native.close(this.#openFd);
  }

  /** A filled slot becomes a packet; false when it must be dropped (and is counted). */
  #take(p: Packet, length: number): boolean {
    const start = p.l2 + this.#skip;
    const bytes = length < 0 ? 0 : length - this.#vnetBytes;
    if (length < 0 || bytes < 0) return this.#refuse(FRAME_TRUNCATED);
    p.end = start + bytes;
    if (this.#vnetBytes !== 0 && !readVnet(p, start - VNET_HEADER, start)) {
      // The offload fields may be half set; the slot is used again as it is.
      p.csumPartial = 0;
      p.csumValid = 0;
      p.gsoType = 0;
      p.gsoSize = 0;
      return this.#refuse(VNET_HEADER_BAD);
    }
    this.stats.rxPackets++;
    this.stats.rxBytes += bytes;
    return true;
  }

  #refuse(reason: number): boolean {
    this.stats.rxDropped++;
    this.#drops[reason]!++;
    return false;
  }

  /** Arm slots at the end of the rx array until it is full or the pool empty. */
  #arm(): void {
    while (this.#armedCount < BURST && this.#armAt(this.#armedCount)) this.#armedCount++;
  }

  #armAt(i: number): boolean {
    const p = this.#pool.take(0);
    if (p === null) return false;
    this.#armed[i] = p;
    this.#rx[2 * i] = p.l2 + this.#skip - this.#vnetBytes;
    return true;
  }

  /** Fill the gaps among the first `n` entries; when the pool is empty, with armed ones from the end, so that the armed ones stay a prefix. */
  #rearm(n: number): void {
    for (let i = 0; i < n && i < this.#armedCount; i++) {
      if (this.#armed[i] !== null || this.#armAt(i)) continue;
      while (this.#armedCount > i && this.#armed[this.#armedCount - 1] === null) this.#armedCount--;
      if (this.#armedCount <= i) return;
      const last = --this.#armedCount;
      this.#armed[i] = this.#armed[last]!;
      this.#rx[2 * i] = this.#rx[2 * last]!;
      this.#armed[last] = null;
    }
  }

  #send(burst: Burst, from: number, to: number): void {
    const tx = this.#tx;
    let n = 0;
    for (let i = from; i < to; i++) {
      const p = burst.packets[i]!;
      burst.packets[i] = null;
      const start = p.l2 + this.#skip;
      const header = start - this.#vnetBytes;
      const isSayable = this.#vnetBytes === 0 ? completeChecksum(p) : writeVnet(p, header, start);
      if (this.isGone || this.#isClosed) {
        this.#lose(p, DEVICE_GONE);
      } else if (!isSayable || p.end <= start) {
        // (An empty frame would make the addon refuse the whole call.)
        this.#lose(p, DEVICE_TX_ERROR);
      } else {
        tx[2 * n] = header;
        tx[2 * n + 1] = p.end - header;
        this.#sending[n++] = p;
      }
    }
    if (n === 0) return;
    const answer = native.tx(this.#queue, n);
    if (answer < 0) {
      const reason = this.#failed(-answer);
      for (let i = 0; i < n; i++) this.#lose(this.#sending[i]!, reason);
      return;
    }
    for (let i = 0; i < n; i++) {
      const p = this.#sending[i]!;
      const result = tx[2 * i + 1]!;
      if (result < 0) {
        this.#lose(p, this.#failed(-result));
        continue;
      }
      this.stats.txPackets++;
      this.stats.txBytes += p.end - p.l2 - this.#skip;
      this.#pool.free(p);
    }
    if (answer > 0) this.fault = 0;
  }

  #lose(p: Packet, reason: number): void {
    if (reason === DEVICE_TX_ERROR) this.stats.txErrors++;
    else this.stats.txDropped++;
    this.#drops[reason]!++;
    this.#pool.free(p);
  }

  /** Note an error of the device, tell of the first; answers the reason under which a frame that met it is dropped. */
  #failed(errno: number): number {
    if (errno === EAGAIN || errno === ENOBUFS) return DEVICE_TX_FULL;
    const isGone = errno === EBADFD || errno === ENODEV || errno === ENXIO || errno === EBADF;
    // EINVAL, EMSGSIZE and the like are about one frame, not about the device.
    if (!isGone && errno !== EIO && errno !== ENETDOWN) return DEVICE_TX_ERROR;
    const isNews = this.fault === 0 || (isGone && !this.isGone);
    this.fault = errno;
    if (isGone) {
      this.isGone = true;
      this.fd = -1;
    }
    if (isNews && this.#onFault !== undefined) this.#onFault(this, errno);
    return isGone ? DEVICE_GONE : DEVICE_TX_ERROR;
  }
}
