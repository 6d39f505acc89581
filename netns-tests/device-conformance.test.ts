// The contract of devices on real ones, and what only the kernel can show: TCP in super-packets through two devices, a device that dies.
//
//   tv-dev      tap `t0`  ◄── AF_PACKET socket of the test          this test: KernelDevice on t0
//               tun `u0`  ◄── routes ──► tun `u1` (the test)        this test: KernelDevice on u0
//               veth `p0` ═══ `p1` ◄── AF_PACKET socket             this test: KernelDevice (packet) on p0
//
//   tv-dev-a 10.77.0.1 ── tap a ── relay in this test ── tap b ── 10.77.0.2 tv-dev-b       (and with packet devices on veth)
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { deviceConformance, type World } from '../src/device/conformance.ts';
import type { Device } from '../src/device/device.ts';
import { KernelDevice, type KernelDeviceOptions } from '../src/device/kernel-device.ts';
import * as native from '../src/device/native.ts';
import { TracerDevice } from '../src/device/tracer.ts';
import { Burst } from '../src/packet/burst.ts';
import { DROP_COUNT, Drop } from '../src/packet/drop.ts';
import { PacketPool } from '../src/packet/pool.ts';
import { addNetns, delNetns, ipBatch, runOkIn, setSysctls, spawnIn, stop, waitForLine } from '../src/rtnl/netns.ts';
import * as ipv4 from '../src/wire/ipv4.ts';

const NS = 'tv-dev';
const A = 'tv-dev-a';
const B = 'tv-dev-b';
const ALL = [NS, A, B];

beforeAll(async () => {
  for (const name of ALL) await delNetns(name);
  for (const name of ALL) {
    await addNetns(name);
    // No router solicitations between the frames that the tests count.
    await setSysctls(name, { 'net.ipv6.conf.all.disable_ipv6': 1, 'net.ipv6.conf.default.disable_ipv6': 1 });
  }
});
afterAll(async () => {
  for (const name of ALL) await delNetns(name);
});

/** Raw frames in and out of a descriptor: how the test stands on the other side, without the code under test. */
class Peer {
  readonly #fd: number;
  readonly #queue: native.Queue;
  readonly #pollset: native.Pollset;
  readonly #bytes = new Uint8Array(64 * 16384);
  readonly #rx = new Int32Array(128);
  readonly #tx = new Int32Array(128);
  readonly #vnet: number;

  constructor(fd: number, kind: 'tun' | 'packet', vnetHdr: boolean) {
    this.#fd = fd;
    this.#vnet = vnetHdr ? 10 : 0;
    const arena = native.registerArena(this.#bytes);
    this.#queue = native.createQueue({ fd, kind, arena, rx: this.#rx, tx: this.#tx, rxRoom: 16384, vnetHdr });
    native.releaseArena(arena);
    this.#pollset = native.createPollset([fd]);
  }

  send(frames: readonly Uint8Array[]): void {
    for (const frame of frames) {
      this.#bytes.fill(0, 0, this.#vnet);
      this.#bytes.set(frame, this.#vnet);
      this.#tx[0] = 0;
      this.#tx[1] = this.#vnet + frame.length;
      expect(native.tx(this.#queue, 1)).toBe(1);
    }
  }

  /** Until `count` have come, or a second has passed without any. */
  receive(count: number): Uint8Array[] {
    const frames: Uint8Array[] = [];
    while (frames.length < count && native.poll(this.#pollset, 1000) > 0) {
      for (let i = 0; i < 64; i++) this.#rx[2 * i] = i * 16384;
      const n = native.rx(this.#queue, 64);
      for (let i = 0; i < n; i++) {
        const start = i * 16384;
        frames.push(this.#bytes.slice(start + this.#vnet, start + this.#rx[2 * i + 1]!));
      }
    }
    return frames;
  }

  close(): void {
    native.destroyPollset(this.#pollset);
    native.destroyQueue(this.#queue);
    native.close(this.#fd);
  }
}

function inNs<T>(name: string, fn: () => T): T {
  const fd = native.openNetns(name);
  try {
    return native.withNetns(fd, fn);
  } finally {
    native.close(fd);
  }
}

function kernelDevice(
  pool: PacketPool,
  drops: Float64Array,
  options: Pick<KernelDeviceOptions, 'name' | 'kind' | 'fd' | 'offload'> & Partial<KernelDeviceOptions>,
): KernelDevice {
  const arena = native.registerArena(pool.bytes);
  try {
    return new KernelDevice({ pool, arena, mtu: 1500, macHi: 0x0200, macLo: 1, drops, ...options });
  } finally {
    native.releaseArena(arena);
  }
}

/** The packet as it was before one router, so that it is itself again behind one. */
function withHop(packet: Uint8Array): Uint8Array {
  const bytes = Uint8Array.from(packet);
  if (bytes.length < ipv4.IPV4_HEADER) return bytes;
  const m = new DataView(bytes.buffer);
  ipv4.setTtl(m, 0, ipv4.ttl(m, 0) + 1);
  ipv4.fillChecksum(m, 0);
  return bytes;
}

/** The world of a device whose other side is one descriptor. */
function worldOf(device: Device, peer: Peer, end: () => Promise<void>): World {
  return {
    device,
    deliver: async (frames) => peer.send(frames),
    collect: async (count) => peer.receive(count),
    end: async () => {
      peer.close();
      await end();
    },
  };
}

/** Everything that tap, tun and packet devices can be asked for here, with and without offloads. */
async function openTap(pool: PacketPool, drops: Float64Array, offload: boolean): Promise<[KernelDevice, Peer]> {
  const { fd } = inNs(NS, () => native.openTun({ name: 't0', kind: 'tap', vnetHdr: offload }));
  if (offload) native.setOffload(fd, { csum: true, tso4: true, tsoEcn: true, uso4: true });
  await ipBatch(NS, ['link set t0 up txqueuelen 2000']);
  const peer = inNs(NS, () => native.openPacket({ interface: 't0', qdiscBypass: true }));
  return [kernelDevice(pool, drops, { name: 't0', kind: 'tap', fd, offload }), new Peer(peer.fd, 'packet', false)];
}

for (const offload of [true, false]) {
  const how = offload ? 'with offloads' : 'plain';
  deviceConformance({
    name: `tap, ${how}`,
    deviations: { refusesShort: 'tun_get_user wants a whole Ethernet header' },
    open: async (pool, drops) => {
      const [device, peer] = await openTap(pool, drops, offload);
      return worldOf(device, peer, async () => {});
    },
  });

  deviceConformance({
    name: `packet, ${how}`,
    deviations: {
      refusesShort: 'packet_snd wants a whole Ethernet header',
      refusesLong: 'packet_snd answers EMSGSIZE above the MTU of the interface',
    },
    open: async (pool, drops) => {
      await ipBatch(NS, ['link add p0 up type veth peer name p1', 'link set p1 up']);
      const [near, far] = inNs(NS, () => [
        native.openPacket({ interface: 'p0', vnetHdr: offload }),
        native.openPacket({ interface: 'p1' }),
      ]);
      const device = kernelDevice(pool, drops, { name: 'p0', kind: 'packet', fd: near!.fd, offload });
      return worldOf(device, new Peer(far!.fd, 'packet', false), () => ipBatch(NS, ['link del p0']));
    },
  });

  deviceConformance({
    name: `tun, ${how}`,
    deviations: { refusesShort: 'tun_get_user looks for the IP version in the first byte' },
    open: async (pool, drops) => {
      const [near, far] = inNs(NS, () => [
        native.openTun({ name: 'u0', kind: 'tun', vnetHdr: offload }),
        native.openTun({ name: 'u1', kind: 'tun' }),
      ]);
      if (offload) native.setOffload(near!.fd, { csum: true, tso4: true, tsoEcn: true, uso4: true });
      await ipBatch(NS, ['link set u0 up mtu 9100 txqueuelen 2000', 'link set u1 up mtu 9100 txqueuelen 2000']);
      await setSysctls(NS, {
        'net.ipv4.ip_forward': 1,
        'net.ipv4.conf.all.rp_filter': 0,
        'net.ipv4.conf.u0.rp_filter': 0,
      });
      await setSysctls(NS, { 'net.ipv4.conf.u1.rp_filter': 0 });
      // What comes in on one goes out on the other, whatever its addresses.
      await ipBatch(NS, ['route add default dev u0 table 100', 'route add default dev u1 table 101']);
      await ipBatch(NS, ['rule add iif u1 lookup 100', 'rule add iif u0 lookup 101']);
      const device = kernelDevice(pool, drops, { name: 'u0', kind: 'tun', fd: near!.fd, offload });
      const peer = new Peer(far!.fd, 'tun', false);
      return {
        device,
        deliver: async (frames) => peer.send(frames.map(withHop)),
        collect: async (count) => peer.receive(count).map(withHop),
        end: async () => {
          peer.close();
          await ipBatch(NS, ['rule del iif u1 lookup 100', 'rule del iif u0 lookup 101']);
        },
      };
    },
  });
}

deviceConformance({
  name: 'tap, wrapped by a tracer',
  deviations: { refusesShort: 'tun_get_user wants a whole Ethernet header' },
  open: async (pool, drops) => {
    const [device, peer] = await openTap(pool, drops, true);
    return worldOf(new TracerDevice(device, () => {}), peer, async () => {});
  },
});

describe('a device that dies', () => {
  it('says so once, and drops what is sent to it', async () => {
    const pool = new PacketPool(256);
    const drops = new Float64Array(DROP_COUNT);
    const { fd } = inNs(NS, () => native.openTun({ name: 'gone', kind: 'tap', vnetHdr: true }));
    await ipBatch(NS, ['link set gone up']);
    const faults: number[] = [];
    const device = kernelDevice(pool, drops, {
      name: 'gone',
      kind: 'tap',
      fd,
      offload: true,
      onFault: (_, errno) => faults.push(errno),
    });
    const burst = new Burst();
    expect(device.receive(burst)).toBe(0);
    await ipBatch(NS, ['link del gone']);
    for (let i = 0; i < 3; i++) expect(device.receive(burst)).toBe(0);
    expect(faults).toHaveLength(1);
    expect(device.isGone).toBe(true);
    expect(device.fd).toBe(-1);
    burst.push(pool.take(60)!);
    device.transmit(burst);
    expect(drops[Drop.DeviceGone]).toBe(1);
    device.close();
    expect(pool.available).toBe(256);
  });

  it('comes back when its interface does', async () => {
    const pool = new PacketPool(256);
    const drops = new Float64Array(DROP_COUNT);
    await ipBatch(NS, ['link add d0 up type veth peer name d1', 'link set d1 up']);
    const { fd } = inNs(NS, () => native.openPacket({ interface: 'd0', vnetHdr: true }));
    const faults: number[] = [];
    const device = kernelDevice(pool, drops, {
      name: 'd0',
      kind: 'packet',
      fd,
      offload: true,
      onFault: (_, errno) => faults.push(errno),
    });
    const burst = new Burst();
    const send = () => {
      const p = pool.take(60)!;
      p.bytes.fill(0xff, p.l2, p.end);
      burst.push(p);
      device.transmit(burst);
    };
    send();
    expect(device.stats).toMatchObject({ txPackets: 1, txErrors: 0 });
    await ipBatch(NS, ['link set d0 down']);
    device.receive(burst);
    send();
    send();
    expect(faults).toHaveLength(1);
    expect(device.stats).toMatchObject({ txPackets: 1, txErrors: 2 });
    await ipBatch(NS, ['link set d0 up']);
    send();
    expect(device.stats).toMatchObject({ txPackets: 2, txErrors: 2 });
    expect(device.isGone).toBe(false);
    expect(device.fault).toBe(0);
    device.close();
    expect(pool.available).toBe(256);
    await ipBatch(NS, ['link del d0']);
  });
});

/** Frames from each of two devices to the other until `stop`; counts the super-packets and the partial checksums that it sees. */
function relay(
  left: Device,
  right: Device,
): { seen: { frames: number; supers: number; partial: number }; stop(): void } {
  const seen = { frames: 0, supers: 0, partial: 0 };
  const burst = new Burst();
  let isStopped = false;
  const breathe = (): void => {
    if (isStopped) return;
    for (const [from, to] of [
      [left, right],
      [right, left],
    ] as const) {
      while (from.receive(burst) > 0) {
        for (let i = 0; i < burst.count; i++) {
          const p = burst.packets[i]!;
          seen.frames++;
          if (p.gsoType !== 0) seen.supers++;
          if (p.csumPartial !== 0) seen.partial++;
        }
        to.transmit(burst);
      }
    }
    setImmediate(breathe);
  };
  breathe();
  return {
    seen,
    stop: () => {
      isStopped = true;
    },
  };
}

const BYTES = 40 << 20;
/** Takes one connection and says what came over it. */
const RECEIVER = `
  const hash = require('crypto').createHash('sha256');
  require('net').createServer((c) => {
    c.on('data', (d) => hash.update(d)).on('end', () => { console.log('sha256 ' + hash.digest('hex')); process.exit(0); });
  }).listen(7000, '10.77.0.2', () => console.log('ready'));`;
/** Sends BYTES bytes of a stream cipher's output, and says the same of them. */
const SENDER = `
  const crypto = require('crypto');
  const data = crypto.createCipheriv('aes-128-ctr', Buffer.alloc(16), Buffer.alloc(16)).update(Buffer.alloc(${BYTES}));
  console.log('sha256 ' + crypto.createHash('sha256').update(data).digest('hex'));
  require('net').connect(7000, '10.77.0.2').end(data);`;

describe('a TCP stream through two devices', () => {
  async function open(
    kind: 'tap' | 'tun' | 'packet',
    offload: boolean,
    pool: PacketPool,
    drops: Float64Array,
  ): Promise<[Device, Device]> {
    const devices: Device[] = [];
    for (const [ns, name, address] of [
      [A, 'ra', '10.77.0.1/24'],
      [B, 'rb', '10.77.0.2/24'],
    ] as const) {
      let fd: number;
      if (kind === 'packet') {
        // The stack of A and of B is on one end of a veth pair, the device on the other.
        await ipBatch(ns, [`link add ${name} type veth peer name ${name}x`, `link set ${name}x up`]);
        fd = inNs(ns, () => native.openPacket({ interface: `${name}x`, vnetHdr: offload })).fd;
      } else {
        fd = inNs(ns, () => native.openTun({ name, kind, vnetHdr: offload })).fd;
        if (offload) native.setOffload(fd, { csum: true, tso4: true, tsoEcn: true, uso4: true });
      }
      // Two veth ends and a plain device would trade in partial checksums and super-packets that nobody can see: so turn those off.
      if (!offload && kind === 'packet')
        await runOkIn(ns, ['ethtool', '-K', name, 'tx', 'off', 'tso', 'off', 'gso', 'off']);
      await ipBatch(ns, [`address add ${address} dev ${name}`, `link set ${name} up txqueuelen 2000`]);
      devices.push(kernelDevice(pool, drops, { name, kind, fd, offload }));
    }
    return devices as [Device, Device];
  }

  it.each([
    ['tap', true],
    ['tun', true],
    ['packet', true],
    ['tap', false],
    ['tun', false],
    ['packet', false],
  ] as const)('%s, offload %s: arrives as it was sent', async (kind, offload) => {
    const pool = new PacketPool(512);
    const drops = new Float64Array(DROP_COUNT);
    const [left, right] = await open(kind, offload, pool, drops);
    const wire = relay(left, right);
    const receiver = spawnIn(B, [process.execPath, '-e', RECEIVER]);
    try {
      await waitForLine(receiver, /^ready$/);
      const arrived = waitForLine(receiver, /^sha256/, 30_000);
      const sent = await runOkIn(A, [process.execPath, '-e', SENDER]);
      expect(await arrived).toBe(sent.trim());
    } finally {
      await stop(receiver);
      wire.stop();
      left.close();
      right.close();
      if (kind === 'packet')
        for (const [ns, name] of [
          [A, 'ra'],
          [B, 'rb'],
        ] as const)
          await ipBatch(ns, [`link del ${name}`]);
    }
    const { frames, supers, partial } = wire.seen;
    if (offload) {
      // 40 MiB are 29,000 segments; whole super-packets are many fewer.
      expect(supers).toBeGreaterThan(100);
      expect(partial).toBeGreaterThanOrEqual(supers);
      expect(frames).toBeLessThan(20_000);
    } else {
      expect({ supers, partial }).toEqual({ supers: 0, partial: 0 });
      expect(frames).toBeGreaterThan(BYTES / 1500);
    }
    expect(pool.available).toBe(512);
    expect(drops[Drop.VnetHeaderBad]).toBe(0);
    expect(drops[Drop.DeviceTxError]).toBe(0);
  });
});
