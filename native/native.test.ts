/** Over 400 lines: one suite for the whole addon; its parts share the two namespaces and their cleaning up. */
/**
 * The addon against the real kernel, in two namespaces that the tests make and remove:
 *
 *        ┌────────── a ──────────┐        ┌──── b ─────┐
 *        │ TAPs and TUNs      va ┼────────┼ vb         │      va is read and written through a packet socket,
 *        └───────────────────────┘        └────────────┘      vb is the kernel's, 10.79.0.1
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { existsSync, readlinkSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import * as native from '../src/device/native.ts';
import { errnoName, NativeError } from '../src/device/native-error.ts';
import { formatMac, mac } from '../src/wire/addr.ts';

const ADDON = process.env.TAPVS_NATIVE ?? join(dirname(fileURLToPath(import.meta.url)), 'build', 'tapvs.node');
const A = `tvn-${process.pid}-a`;
const B = `tvn-${process.pid}-b`;
const PEER_MAC = [2, 0, 0, 0, 0, 2];
const EFAULT = -14;
const EINVAL = -22;

function whySkipped(): string | null {
  const problem = native.nativeProblem();
  if (problem !== null && process.env.TAPVS_NATIVE === undefined) return problem;
  if (process.getuid?.() !== 0) return 'needs root';
  if (!existsSync('/dev/net/tun')) return 'needs /dev/net/tun';
  return null;
}

const skipped = whySkipped();

function sh(command: string): string {
  return execFileSync('sh', ['-ec', command], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
}

// ---- a queue with an arena of its own, and frames -------------------------------------------------------------------

const ENTRIES = 128;

class Rig {
  readonly view: DataView;
  readonly bytes: Uint8Array;
  readonly rxEntries = new Int32Array(2 * ENTRIES);
  readonly txEntries = new Int32Array(2 * ENTRIES);
  readonly arena: native.Arena;
  readonly queue: native.Queue;
  readonly pollset: native.Pollset;
  readonly slot: number;

  constructor(
    fd: number,
    kind: 'tun' | 'packet',
    options: { vnetHdr?: boolean; room?: number; buffer?: ArrayBuffer | SharedArrayBuffer } = {},
  ) {
    const { vnetHdr = false, room = 65_600 } = options;
    const buffer = options.buffer ?? new ArrayBuffer(2 * ENTRIES * room);
    this.slot = room;
    this.view = new DataView(buffer);
    this.bytes = new Uint8Array(buffer);
    this.arena = native.registerArena(this.bytes);
    for (let i = 0; i < ENTRIES; i++) {
      this.rxEntries[2 * i] = i * room;
      this.txEntries[2 * i] = (ENTRIES + i) * room;
    }
    const { rxEntries: rx, txEntries: tx, arena } = this;
    this.queue = native.createQueue({ fd, kind, arena, rx, tx, rxRoom: room, vnetHdr });
    this.pollset = native.createPollset([fd]);
  }

  send(...frames: readonly (readonly number[])[]): number {
    frames.forEach((frame, i) => {
      this.bytes.set(frame, this.txEntries[2 * i]!);
      this.txEntries[2 * i + 1] = frame.length;
    });
    return native.tx(this.queue, frames.length);
  }

  /** Waits for frames that `wanted` accepts, until there are `count`. */
  async receive(wanted: (frame: Uint8Array) => boolean, count = 1): Promise<Uint8Array[]> {
    const found: Uint8Array[] = [];
    const end = Date.now() + 3000;
    while (found.length < count) {
      if (Date.now() > end) throw new Error(`${found.length} of ${count} frames came within 3 s`);
      native.poll(this.pollset, 100);
      const got = native.rx(this.queue, ENTRIES);
      if (got < 0) throw new Error(errnoName(got));
      for (let i = 0; i < got; i++) {
        const at = this.rxEntries[2 * i]!;
        const frame = this.bytes.slice(at, at + Math.min(Math.abs(this.rxEntries[2 * i + 1]!), this.slot));
        if (wanted(frame)) found.push(frame);
      }
      await new Promise((resolve) => setImmediate(resolve)); // lets children's output in
    }
    return found;
  }

  destroy(): void {
    native.destroyPollset(this.pollset);
    native.destroyQueue(this.queue);
    native.releaseArena(this.arena);
  }
}

function u16(value: number): number[] {
  return [(value >>> 8) & 255, value & 255];
}

function u32(value: number): number[] {
  return [...u16(value >>> 16), ...u16(value)];
}

function checksum(octets: readonly number[]): number {
  let sum = 0;
  octets.forEach((octet, i) => {
    sum += i % 2 === 0 ? octet << 8 : octet;
  });
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}

function ipv4(proto: number, src: readonly number[], dst: readonly number[], payload: readonly number[]): number[] {
  const start = [0x45, 0, ...u16(20 + payload.length), 0, 1, 0x40, 0, 64, proto];
  const sum = checksum([...start, 0, 0, ...src, ...dst]);
  return [...start, ...u16(sum), ...src, ...dst, ...payload];
}

function echoRequest(net: number, dstMac: readonly number[], sequence: number, size = 8): number[] {
  const body = [...u16(sequence), ...new Array<number>(size).fill(0x5a)];
  const icmp = [8, 0, ...u16(checksum([8, 0, 0, 0, 0, 7, ...body])), 0, 7, ...body];
  return [...dstMac, ...PEER_MAC, 8, 0, ...ipv4(1, [10, net, 0, 2], [10, net, 0, 1], icmp)];
}

/** Echo reply with our identifier; its sequence number is at 40. */
function isEchoReply(frame: Uint8Array, at = 0): boolean {
  return (
    frame[at + 12] === 8 && frame[at + 13] === 0 && frame[at + 23] === 1 && frame[at + 34] === 0 && frame[at + 39] === 7
  );
}

function octets(m: { hi: number; lo: number }): number[] {
  return [...u16(m.hi), ...u32(m.lo)];
}

/** The NativeError that `call` throws. */
function errorOf(call: () => unknown): NativeError {
  try {
    call();
  } catch (error) {
    if (error instanceof NativeError) return error;
    throw error;
  }
  throw new Error('nothing was thrown');
}

/** Runs the addon in a child: what a control call fails with there. */
function errorInChild(wrapper: readonly string[], expression: string): NativeError {
  const code = `const a = require(${JSON.stringify(ADDON)}); try { ${expression}; console.log('{}') }
    catch (e) { console.log(JSON.stringify({ errno: e.errno, syscall: e.syscall, device: e.device })) }`;
  const [file = '', ...args] = [...wrapper, process.execPath, '-e', code];
  const { errno, syscall, device } = JSON.parse(execFileSync(file, args, { encoding: 'utf8' }));
  return new NativeError(errno, syscall, device);
}

// ---------------------------------------------------------------------------------------------------------------------

describe('loader', () => {
  it('says which file it could not load, or how to build it', async () => {
    vi.stubEnv('TAPVS_NATIVE', '/nonexistent/tapvs.node');
    vi.resetModules();
    const fresh: typeof native = await import('../src/device/native.ts');
    const problem = fresh.nativeProblem();
    vi.unstubAllEnvs();
    expect(problem).toMatch(/^cannot load the native addon \/nonexistent\/tapvs\.node: /);
  });
});

describe.skipIf(skipped !== null)(`native addon${skipped === null ? '' : ` (skipped: ${skipped})`}`, () => {
  let netnsA = -1;
  let netnsB = -1;
  const children: ChildProcess[] = [];
  const cleanups: (() => void)[] = [];

  function inA(command: string): ChildProcess {
    const { LD_PRELOAD: _, ...env } = process.env; // test-asan's: dd does not survive it
    const child = spawn('sh', ['-c', `exec ip netns exec ${A} bash -c "$0"`, command], {
      env,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    children.push(child);
    return child;
  }

  /** A device of the test that goes with it. */
  function open(options: Omit<native.TunOptions, 'netnsFd'>): number {
    const { fd } = native.openTun({ ...options, netnsFd: netnsA });
    cleanups.unshift(() => native.close(fd));
    return fd;
  }

  function rig(...args: ConstructorParameters<typeof Rig>): Rig {
    const made = new Rig(...args);
    cleanups.unshift(() => made.destroy());
    return made;
  }

  beforeAll(() => {
    sh(`ip netns add ${A}; ip netns add ${B}
      ip -n ${A} link add va type veth peer name vb netns ${B}
      ip -n ${A} link set va up; ip -n ${B} link set vb up
      ip -n ${B} addr add 10.79.0.1/24 dev vb
      ip -n ${B} neigh add 10.79.0.2 lladdr 02:00:00:00:00:02 dev vb`);
    netnsA = native.openNetns(A);
    netnsB = native.openNetns(`/run/netns/${B}`);
  });

  afterEach(() => {
    for (const child of children.splice(0)) child.kill('SIGKILL');
    for (const cleanup of cleanups.splice(0)) cleanup();
  });

  afterAll(() => {
    native.close(netnsA);
    native.close(netnsB);
    sh(`ip netns del ${A}; ip netns del ${B}`);
  });

  function tapWithAddress(name: string, net: number, options: Partial<native.TunOptions> = {}): number {
    const fd = open({ name, kind: 'tap', ...options });
    native.linkSetUp(name, true, netnsA);
    sh(`ip -n ${A} addr add 10.${net}.0.1/24 dev ${name}
      ip -n ${A} neigh add 10.${net}.0.2 lladdr 02:00:00:00:00:02 dev ${name}`);
    return fd;
  }

  describe('TUN and TAP', () => {
    it('reads what the kernel sends: an ARP request', async () => {
      const q = rig(tapWithAddress('t0', 77), 'tun', { buffer: new SharedArrayBuffer(2 * ENTRIES * 65_600) });
      inA('echo > /dev/udp/10.77.0.9/9');
      const [frame] = await q.receive((f) => f[12] === 8 && f[13] === 6);
      expect([...frame!.slice(0, 6)]).toEqual([255, 255, 255, 255, 255, 255]);
      expect([...frame!.slice(38, 42)]).toEqual([10, 77, 0, 9]);
    });

    it('writes what the kernel answers: an echo request to the address of the TAP', async () => {
      const q = rig(tapWithAddress('t0', 77), 'tun');
      const tapMac = octets(native.linkGet('t0', netnsA).mac!);
      expect(q.send(echoRequest(77, tapMac, 1), echoRequest(77, tapMac, 2))).toBe(2);
      const replies = await q.receive(isEchoReply, 2);
      expect(replies.map((f) => f[41])).toEqual([1, 2]);
    });

    it('answers 0 when nothing is there, however often it looks', () => {
      const q = rig(open({ name: 't0', kind: 'tap' }), 'tun');
      expect(native.rx(q.queue, ENTRIES)).toBe(0);
      expect(native.rxSpin(q.queue, ENTRIES, 20)).toBe(0);
      expect(native.poll(q.pollset, 0)).toBe(0);
    });

    it('negates the length of a frame that does not fit', async () => {
      const q = rig(tapWithAddress('t0', 77), 'tun', { room: 60 });
      const tapMac = octets(native.linkGet('t0', netnsA).mac!);
      q.bytes.set(echoRequest(77, tapMac, 1, 16), 60 * ENTRIES);
      q.txEntries.set([60 * ENTRIES, 14 + 20 + 8 + 16]);
      q.bytes.set(echoRequest(77, tapMac, 2, 19), 60 * ENTRIES + 128);
      q.txEntries.set([60 * ENTRIES + 128, 14 + 20 + 8 + 19], 2);
      expect(native.tx(q.queue, 2)).toBe(2);
      const lengths: number[] = [];
      const end = Date.now() + 3000;
      while (lengths.length < 2 && Date.now() < end) {
        native.poll(q.pollset, 100);
        const got = native.rx(q.queue, ENTRIES);
        for (let i = 0; i < got; i++) {
          if (isEchoReply(q.bytes.slice(60 * i, 60 * i + 60))) lengths.push(q.rxEntries[2 * i + 1]!);
        }
      }
      expect(lengths).toEqual([58, -61]);
    });

    it('goes on after a frame that the kernel refuses', async () => {
      const q = rig(tapWithAddress('t0', 77, { vnetHdr: true }), 'tun', { vnetHdr: true });
      const tapMac = octets(native.linkGet('t0', netnsA).mac!);
      const plain = new Array<number>(10).fill(0);
      const badGso = [0, 1, 0, 0, 0, 0, 0, 0, 0, 0]; // TCPv4 segmentation with a segment size of 0
      const sent = q.send(
        [...plain, ...echoRequest(77, tapMac, 1)],
        [...badGso, ...echoRequest(77, tapMac, 2)],
        [...plain, ...echoRequest(77, tapMac, 3)],
      );
      expect(sent).toBe(2);
      expect(q.txEntries[3]).toBe(EINVAL);
      expect(q.txEntries[1]).toBeGreaterThan(0);
      expect((await q.receive((f) => isEchoReply(f, 10), 2)).map((f) => f[51])).toEqual([1, 3]);
    });

    it('marks every frame with EIO while the device is down', () => {
      const q = rig(open({ name: 't0', kind: 'tap' }), 'tun');
      expect(q.send(echoRequest(77, PEER_MAC, 1), echoRequest(77, PEER_MAC, 2))).toBe(0);
      expect([q.txEntries[1], q.txEntries[3]].map((length) => errnoName(length!))).toEqual(['EIO', 'EIO']);
    });

    it('says EBADFD when the device was deleted', () => {
      const q = rig(open({ name: 't0', kind: 'tap' }), 'tun');
      sh(`ip -n ${A} link del t0`);
      expect(native.poll(q.pollset, 1000)).toBe(1);
      expect(errnoName(native.rx(q.queue, 1))).toBe('EBADFD');
    });

    it('opens several queues of one device, and puts one out of service', async () => {
      const first = tapWithAddress('t0', 77, { multiQueue: true });
      const q0 = rig(first, 'tun');
      const q1 = rig(open({ name: 't0', kind: 'tap', multiQueue: true }), 'tun');
      const tapMac = octets(native.linkGet('t0', netnsA).mac!);
      native.setQueue(first, false);
      expect(q1.send(echoRequest(77, tapMac, 2))).toBe(1);
      expect((await q1.receive(isEchoReply))[0]![41]).toBe(2);
      expect(errorOf(() => native.setQueue(first, false))).toMatchObject({ code: 'EINVAL' });
      native.setQueue(first, true);
      expect(q0.send(echoRequest(77, tapMac, 3))).toBe(1);
      // The kernel steers a flow to the queue that it was last seen on (tun.c tun_flow_update).
      expect((await q0.receive(isEchoReply))[0]![41]).toBe(3);
    });

    it('carries super-packets both ways, in one TCP connection with the kernel', async () => {
      const fd = open({ name: 'u0', kind: 'tun', vnetHdr: true, napi: true });
      const offloads = native.setOffload(fd, { csum: true, tso4: true, tsoEcn: true, uso4: true });
      expect(offloads).toMatchObject({ csum: true, tso4: true, tso6: false, tsoEcn: true });
      native.linkSetUp('u0', true, netnsA);
      expect(native.linkGet('u0', netnsA)).toMatchObject({ mac: null, mtu: 1500, isUp: true });
      sh(`ip -n ${A} addr add 10.78.0.1/24 dev u0`);
      const q = rig(fd, 'tun', { vnetHdr: true });
      inA('exec 3<>/dev/tcp/10.78.0.2/80; dd if=/dev/zero bs=60000 count=1 >&3; sleep 5');
      const isTcp = (f: Uint8Array): boolean => f[10] === 0x45 && f[19] === 6;
      const [syn] = await q.receive(isTcp);
      const v = new DataView(syn!.buffer);
      const port = v.getUint16(30);
      let theirs = (v.getUint32(34) + 1) >>> 0;
      // Partial checksums: the field holds the folded pseudo-header sum, the kernel does the rest (virtio 1.2 §5.1.6.2).
      const segment = (gso: number, seq: number, flags: number, options: number[], data: number[]): number[] => {
        const length = 20 + options.length + data.length;
        const pseudo = ~checksum([10, 78, 0, 2, 10, 78, 0, 1, 0, 6, ...u16(length)]) & 0xffff;
        const tcp = [...u16(80), ...u16(port), ...u32(seq), ...u32(theirs), (length - data.length) << 2, flags];
        const end = [...u16(65_535), ...u16(pseudo), 0, 0, ...options, ...data];
        const vnet = [1, gso === 0 ? 0 : 1, 40, 0, gso & 255, gso >> 8, 20, 0, 16, 0];
        return [...vnet, ...ipv4(6, [10, 78, 0, 2], [10, 78, 0, 1], [...tcp, ...end])];
      };
      expect(q.send(segment(0, 1000, 0x12, [2, 4, ...u16(1460)], []))).toBe(1);

      // On a slow first round trip the kernel sends two segments at a time, else all ten (tcp_output.c tcp_tso_autosize).
      const [big] = await q.receive((f) => isTcp(f) && f.length > 2000);
      const header = new DataView(big!.buffer);
      expect(big![0]).toBe(1); // NeedsCsum
      expect(big![1]! & 0x7f).toBe(1); // TCPv4
      expect(header.getUint16(4, true)).toBe(1460);
      expect(header.getUint16(6, true)).toBe(20);
      expect(header.getUint16(8, true)).toBe(16);
      theirs = (header.getUint32(34) + big!.length - 10 - 40) >>> 0;

      const data = new Array<number>(20_000).fill(1);
      expect(q.send(segment(1460, 1001, 0x10, [], data))).toBe(1);
      const acknowledges = (f: Uint8Array): boolean => new DataView(f.buffer).getUint32(38) === 1001 + data.length;
      expect(await q.receive((f) => isTcp(f) && acknowledges(f))).toHaveLength(1);
    });

    it('keeps a persistent device until told otherwise', () => {
      const { fd } = native.openTun({ name: 'p0', kind: 'tap', netnsFd: netnsA, persist: true });
      native.close(fd);
      expect(native.linkGet('p0', netnsA).ifindex).toBeGreaterThan(0);
      native.setPersist(open({ name: 'p0', kind: 'tap' }), false);
      for (const cleanup of cleanups.splice(0)) cleanup();
      expect(errorOf(() => native.linkGet('p0', netnsA)).code).toBe('ENODEV');
    });
  });

  describe('packet sockets', () => {
    function openVa(vnetHdr: boolean): native.PacketSocket {
      const socket = native.openPacket({ interface: 'va', netnsFd: netnsA, vnetHdr });
      cleanups.unshift(() => native.close(socket.fd));
      return socket;
    }

    it('sends and receives more than one batch, with and without vnet header', async () => {
      const vbMac = octets(native.linkGet('vb', netnsB).mac!);
      for (const vnetHdr of [false, true]) {
        const socket = openVa(vnetHdr);
        expect(socket.mtu).toBe(1500);
        expect(socket.ifindex).toBe(native.linkGet('va', netnsA).ifindex);
        expect(socket.mac).toEqual(native.linkGet('va', netnsA).mac);
        const q = rig(socket.fd, 'packet', { vnetHdr });
        const before = vnetHdr ? new Array<number>(10).fill(0) : [];
        const frames = Array.from({ length: 100 }, (_, i) => [...before, ...echoRequest(79, vbMac, i)]);
        expect(q.send(...frames)).toBe(100);
        const replies = await q.receive((f) => isEchoReply(f, before.length), 100);
        expect(replies.map((f) => f[before.length + 41])).toEqual(frames.map((_, i) => i));
      }
    });

    it('negates the length of a frame that does not fit, and tells all of it', async () => {
      const q = rig(openVa(false).fd, 'packet', { room: 64 });
      const vbMac = octets(native.linkGet('vb', netnsB).mac!);
      const request = echoRequest(79, vbMac, 5, 200);
      q.bytes.set(request, 64 * ENTRIES);
      q.txEntries.set([64 * ENTRIES, request.length]);
      expect(native.tx(q.queue, 1)).toBe(1);
      let at = -1;
      await q.receive((f) => {
        const found = isEchoReply(f);
        if (found) at = q.rxEntries.indexOf(-request.length);
        return found;
      });
      expect(at % 2).toBe(1);
    });

    it('goes on after a frame that the kernel refuses', async () => {
      const q = rig(openVa(false).fd, 'packet');
      const vbMac = octets(native.linkGet('vb', netnsB).mac!);
      const tooLong = echoRequest(79, vbMac, 2, 3000);
      expect(q.send(echoRequest(79, vbMac, 1), tooLong, echoRequest(79, vbMac, 3))).toBe(2);
      expect(errnoName(q.txEntries[3]!)).toBe('EMSGSIZE');
      expect((await q.receive(isEchoReply, 2)).map((f) => f[41])).toEqual([1, 3]);
    });

    it('says ENETDOWN when the interface goes down', () => {
      const q = rig(openVa(false).fd, 'packet');
      native.linkSetUp('va', false, netnsA);
      cleanups.push(() => native.linkSetUp('va', true, netnsA));
      expect(native.poll(q.pollset, 1000)).toBe(1);
      let got = 1;
      while (got > 0) got = native.rx(q.queue, ENTRIES);
      expect(errnoName(got)).toBe('ENETDOWN');
    });
  });

  describe('errors that say what to do', () => {
    const options = "{ name: 'tvnx', tap: true }";

    it('EBUSY: the device is open elsewhere', () => {
      open({ name: 't0', kind: 'tap' });
      const error = errorOf(() => open({ name: 't0', kind: 'tap' }));
      expect(error).toMatchObject({ code: 'EBUSY', errno: 16, syscall: 'ioctl TUNSETIFF', device: 't0' });
      expect(error.message).toBe(
        't0: ioctl TUNSETIFF: EBUSY: the device is open in another process; stop that, or choose another name',
      );
      expect(errorOf(() => open({ name: 't0', kind: 'tun' })).hint).toMatch(/another kind of device/);
    });

    it('EPERM: which capability is missing', () => {
      const without = (capability: string): string[] => ['setpriv', `--bounding-set=-${capability}`, '--inh-caps=-all'];
      const tun = errorInChild(without('net_admin'), `a.openTun(${options})`);
      expect(tun).toMatchObject({ code: 'EPERM', hint: expect.stringContaining('CAP_NET_ADMIN') });
      const packet = errorInChild(without('net_raw'), "a.openPacket({ interface: 'lo' })");
      expect(packet).toMatchObject({ code: 'EPERM', hint: expect.stringContaining('CAP_NET_RAW') });
      const netns = errorInChild(without('sys_admin'), "a.enterNetns(a.openNetns('/proc/self/ns/net'))");
      expect(netns).toMatchObject({ code: 'EPERM', hint: expect.stringContaining('CAP_SYS_ADMIN') });
    });

    it('ENOENT: /dev/net/tun is missing', () => {
      const hidden = ['unshare', '-m', 'sh', '-ec', 'mount -t tmpfs none /dev/net; exec "$@"', 'sh'];
      const error = errorInChild(hidden, `a.openTun(${options})`);
      expect(error).toMatchObject({
        code: 'ENOENT',
        hint: expect.stringContaining('mknod -m 666 /dev/net/tun c 10 200'),
      });
    });

    it('interfaces and namespaces that do not exist', () => {
      expect(errorOf(() => native.openPacket({ interface: 'nope', netnsFd: netnsA }))).toMatchObject({
        code: 'ENODEV',
        device: 'nope',
      });
      expect(errorOf(() => native.openNetns('tvn-nope'))).toMatchObject({
        code: 'ENOENT',
        device: '/run/netns/tvn-nope',
      });
      const event = native.eventfd();
      cleanups.push(() => native.close(event));
      expect(errorOf(() => native.withNetns(event, () => 0))).toMatchObject({ code: 'EINVAL', syscall: 'setns' });
      expect(() => native.openTun({ name: 'a-name-that-is-too-long', kind: 'tap' })).toThrow(TypeError);
    });
  });

  describe('misuse', () => {
    it('refuses entries outside the arena, and counts outside the arrays, before any system call', () => {
      const q = rig(tapWithAddress('t0', 77), 'tun', { room: 2000 });
      expect(native.rx(q.queue, ENTRIES + 1)).toBe(EINVAL);
      expect(native.rx(q.queue, -1)).toBe(EINVAL);
      expect(native.tx(q.queue, ENTRIES + 1)).toBe(EINVAL);
      for (const offset of [-1, q.bytes.length - 1999, 0x7fffffff]) {
        q.rxEntries[2] = offset;
        expect(native.rx(q.queue, 2)).toBe(EFAULT);
        expect(native.rx(q.queue, 1)).toBeGreaterThanOrEqual(0);
        q.txEntries.set([0, 60, offset, 2000]);
        expect(native.tx(q.queue, 2)).toBe(EFAULT);
      }
      for (const length of [0, -1]) {
        q.txEntries.set([0, length]);
        expect(native.tx(q.queue, 1)).toBe(EINVAL);
      }
      q.txEntries.set([0, 0x7fffffff]);
      expect(native.tx(q.queue, 1)).toBe(EFAULT);
    });

    it('refuses an arena that was transferred away', () => {
      const buffer = new ArrayBuffer(2 * ENTRIES * 2000);
      const q = rig(open({ name: 't0', kind: 'tap' }), 'tun', { room: 2000, buffer });
      structuredClone(buffer, { transfer: [buffer] });
      expect(native.rx(q.queue, 1)).toBe(EFAULT);
      q.txEntries.set([0, 60]);
      expect(native.tx(q.queue, 1)).toBe(EFAULT);
    });

    it('throws a TypeError for a handle that is none, is of another kind, or is gone', () => {
      const event = native.eventfd();
      cleanups.push(() => native.close(event));
      const q = new Rig(event, 'tun');
      expect(() => native.rx(q.pollset as number as native.Queue, 1)).toThrow(TypeError);
      expect(() => native.poll(q.queue as number as native.Pollset, 0)).toThrow(TypeError);
      expect(() => native.rx('queue' as unknown as native.Queue, 1)).toThrow(TypeError);
      expect(() => native.rx(undefined as unknown as native.Queue, 1)).toThrow(TypeError);
      expect(() => native.rx(q.queue, 1.5)).toThrow(TypeError);
      q.destroy();
      expect(() => native.rx(q.queue, 1)).toThrow(TypeError);
      expect(() => native.tx(q.queue, 1)).toThrow(TypeError);
      expect(() => native.poll(q.pollset, 0)).toThrow(TypeError);
      expect(() => native.destroyQueue(q.queue)).toThrow(TypeError);
      expect(() => native.releaseArena(q.arena)).toThrow(TypeError);
      const again = rig(event, 'tun'); // takes the same rows
      expect(() => native.rx(q.queue, 1)).toThrow(TypeError);
      expect(again.queue).not.toBe(q.queue);
    });

    it('throws a TypeError for wrong options', () => {
      const arena = native.registerArena(new Uint8Array(4096));
      cleanups.push(() => native.releaseArena(arena));
      const good = {
        fd: 0,
        kind: 'tun',
        arena,
        rx: new Int32Array(2),
        tx: new Int32Array(2),
        rxRoom: 100,
        vnetHdr: false,
      } as const;
      for (const bad of [
        { rx: new Int32Array(3) },
        { tx: [] },
        { rxRoom: 4097 },
        { rxRoom: -1 },
        { fd: -1 },
        { arena: 7 },
        { fd: 'x' },
      ]) {
        expect(() => native.createQueue({ ...good, ...(bad as object) }), JSON.stringify(bad)).toThrow(TypeError);
      }
      expect(() => native.createPollset(new Array<number>(32).fill(0))).toThrow(TypeError);
      const resizable: ArrayBuffer = Reflect.construct(ArrayBuffer, [8, { maxByteLength: 16 }]);
      expect(() => native.registerArena(new Uint8Array(resizable))).toThrow(TypeError);
      expect(errorOf(() => native.close(0)).code).toBe('EBADF'); // not opened by the addon
    });
  });

  describe('namespaces and links', () => {
    it('comes back from a namespace, whatever happens there', () => {
      const here = (): string => readlinkSync('/proc/thread-self/ns/net');
      const before = here();
      const there = native.withNetns(netnsA, here);
      expect(there).not.toBe(before);
      expect(native.withNetns(netnsB, () => native.withNetns(netnsA, here))).toBe(there);
      const fails = (): never => {
        throw new RangeError('inside');
      };
      expect(() => native.withNetns(netnsA, fails)).toThrow(RangeError);
      errorOf(() => native.openTun({ name: 'va', kind: 'tap', netnsFd: netnsA })); // va is no TAP
      expect(here()).toBe(before);
    });

    it('reads and sets what a device needs of its link', () => {
      open({ name: 't0', kind: 'tap' });
      native.linkSetMac('t0', mac('02:00:00:00:aa:01'), netnsA);
      native.linkSetMtu('t0', 9000, netnsA);
      native.linkSetQueueLength('t0', 4000, netnsA);
      native.linkSetUp('t0', true, netnsA);
      const link = native.linkGet('t0', netnsA);
      expect(link).toMatchObject({ mtu: 9000, isUp: true, isRunning: true });
      expect(formatMac(link.mac!.hi, link.mac!.lo)).toBe('02:00:00:00:aa:01');
      expect(sh(`ip -n ${A} link show t0`)).toContain('qlen 4000');
      native.linkSetUp('t0', false, netnsA);
      expect(native.linkGet('t0', netnsA).isUp).toBe(false);
      expect(errorOf(() => native.linkSetMtu('t0', 10, netnsA)).hint).toMatch(/MTU/);
    });
  });

  describe('waiting and waking', () => {
    it('polls several descriptors, each with its bit', () => {
      const events = [native.eventfd(), native.eventfd(), native.eventfd()];
      cleanups.push(() => events.forEach(native.close));
      const pollset = native.createPollset(events);
      cleanups.unshift(() => native.destroyPollset(pollset));
      expect(native.poll(pollset, 1)).toBe(0);
      expect(native.eventfdSignal(events[0]!)).toBe(0);
      expect(native.eventfdSignal(events[2]!)).toBe(0);
      expect(native.poll(pollset, -1)).toBe(0b101);
      expect(native.eventfdDrain(events[0]!)).toBe(1);
      expect(native.eventfdDrain(events[0]!)).toBe(0);
      expect(native.poll(pollset, -1)).toBe(0b100);
      expect(errnoName(native.eventfdSignal(-1))).toBe('EBADF');
    });

    it('tells monotonic microseconds', () => {
      const from = process.hrtime.bigint();
      const us = native.clockMonotonicUs();
      expect(us).toBeGreaterThanOrEqual(Number(from / 1000n));
      expect(us).toBeLessThanOrEqual(Number(process.hrtime.bigint() / 1000n) + 1);
    });

    it('notifies a path and an abstract name', async () => {
      for (const path of [`/tmp/tvn-${process.pid}.sock`, `@tvn-${process.pid}`]) {
        const at = path.startsWith('@') ? `"\\0${path.slice(1)}"` : `"${path}"`;
        const code = `import os,socket\ns=socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM);s.bind(${at});print("bound",flush=True);print(s.recv(99).decode())`;
        const child = spawn('python3', ['-c', code], { stdio: ['ignore', 'pipe', 'inherit'] });
        children.push(child);
        const said: string = await new Promise((resolve) => {
          let text = '';
          child.stdout.on('data', (chunk: Buffer) => {
            text += chunk.toString();
            if (text === 'bound\n') native.notify(path, 'READY=1\nSTATUS=serving');
          });
          child.on('exit', () => resolve(text));
        });
        expect(said).toBe('bound\nREADY=1\nSTATUS=serving\n');
        sh(`rm -f /tmp/tvn-${process.pid}.sock`);
        expect(errorOf(() => native.notify(path, 'x')).hint).toMatch(/nobody listens/);
      }
    });

    it.each([
      ['path', `/tmp/tvn-${process.pid}-notice.sock`],
      ['abstract name', `@tvn-${process.pid}-notice`],
    ])('hands descriptors to whoever listens at a %s', (_, path) => {
      const socket = native.noticeSocket(path);
      cleanups.push(() => native.close(socket));
      if (path.startsWith('/')) cleanups.push(() => sh(`rm -f ${path}`));
      expect(errorOf(() => native.noticeSocket(path)).code).toBe('EADDRINUSE');
      expect(native.receiveNotice(socket)).toBeNull();
      const fd = native.memfd('tvn', 4096);
      new Int32Array(native.mapShared(fd, 4096))[0] = 42;
      native.notify(path, 'FDSTORE=1\nFDNAME=one', [fd, fd]);
      native.notify(path, 'READY=1');
      native.close(fd);
      const notice = native.receiveNotice(socket)!;
      expect(notice).toMatchObject({ pid: process.pid, text: 'FDSTORE=1\nFDNAME=one' });
      expect(notice.fds.map((passed) => new Int32Array(native.mapShared(passed, 4096))[0])).toEqual([42, 42]);
      for (const passed of notice.fds) native.close(passed);
      expect(native.receiveNotice(socket)).toEqual({ pid: process.pid, text: 'READY=1', fds: [] });
      expect(native.receiveNotice(socket)).toBeNull();
    });

    it('refuses to pass what it cannot', () => {
      const path = `@tvn-${process.pid}-refused`;
      const socket = native.noticeSocket(path);
      cleanups.push(() => native.close(socket));
      expect(errorOf(() => native.notify(path, 'FDSTORE=1', [-1])).code).toBe('EBADF');
      expect(() => native.notify(path, 'x', new Array(254).fill(0))).toThrow(TypeError);
      expect(() => native.notify(path, 'x', [0.5])).toThrow(TypeError);
      expect(native.receiveNotice(socket)).toBeNull();
      native.notify(path, 'FDSTORE=1', new Array(253).fill(socket));
      const { fds } = native.receiveNotice(socket)!;
      expect(fds.length).toBe(253);
      for (const fd of fds) native.close(fd);
    });

    it('takes on what the process was started with', () => {
      const code = `
        const a = require(process.argv[1]);
        const errors = [];
        const attempt = (run) => { try { run(); errors.push('') } catch (error) { errors.push(error.syscall) } };
        attempt(() => a.close(3));
        attempt(() => a.inherit(3));
        attempt(() => a.close(3));
        attempt(() => a.inherit(3));
        console.log(JSON.stringify(errors));`;
      const said = execFileSync(process.execPath, ['-e', code, ADDON], {
        encoding: 'utf8',
        stdio: ['ignore', 'pipe', 'inherit', 'pipe'],
      });
      expect(JSON.parse(said)).toEqual(['close', '', '', 'fcntl']);
    });
  });

  describe('threads and memory', () => {
    it('shares a memfd between mappings', () => {
      const fd = native.memfd('tvn', 8192);
      const one = new Int32Array(native.mapShared(fd, 8192));
      const other = new Int32Array(native.mapShared(fd, 4096));
      native.close(fd);
      one[5] = 42;
      expect(other[5]).toBe(42);
      expect(one.length).toBe(2048);
      const short = native.memfd('tvn', 4096);
      cleanups.push(() => native.close(short));
      expect(errorOf(() => native.mapShared(short, 4097)).code).toBe('EINVAL');
    });

    it.each([1, 4096, 3 * 4096 + 8, 2 ** 24 - 4096, 2 ** 24 + 8])(
      'has zeros for a table of %i bytes, to its last',
      (size) => {
        const bytes = new Uint8Array(native.zeroPages(size));
        expect([bytes.length, bytes[0], bytes[size - 1]]).toEqual([size, 0, 0]);
        bytes[size - 1] = 7;
        expect(bytes[size - 1]).toBe(7);
        expect(() => native.zeroPages(0)).toThrow(TypeError);
      },
    );

    it('makes shared memory zero again, however it is mapped, and no other', () => {
      const fd = native.memfd('tvn', 3 * 4096);
      cleanups.push(() => native.close(fd));
      const whole = new Int32Array(native.mapShared(fd, 3 * 4096)).fill(7);
      const part = native.mapShared(fd, 4096, 4096);
      native.zeroShared(part);
      expect([whole[0], whole[1023], whole[1024], whole[2047], whole[2048]]).toEqual([7, 7, 0, 0, 7]);
      new Int32Array(part)[3] = 9;
      expect(whole[1027]).toBe(9);
      expect(errorOf(() => native.zeroShared(native.zeroPages(4096))).code).toBe('EINVAL');
      expect(() => native.zeroShared(7 as unknown as ArrayBuffer)).toThrow(TypeError);
    });

    it('gives all memory of a memfd back, whoever has mapped it', () => {
      const fd = native.memfd('tvn', 3 * 4096);
      cleanups.push(() => native.close(fd));
      const mapped = new Int32Array(native.mapShared(fd, 4096, 4096)).fill(7);
      native.giveBack(fd);
      expect(mapped.some((word) => word !== 0)).toBe(false);
      mapped[1] = 9;
      expect(new Int32Array(native.mapShared(fd, 3 * 4096))[1025]).toBe(9);
      expect(errorOf(() => native.giveBack(1_000_000)).code).toBe('EBADF');
    });

    it('maps a part of a memfd', () => {
      const fd = native.memfd('tvn', 3 * 4096);
      cleanups.push(() => native.close(fd));
      const whole = new Int32Array(native.mapShared(fd, 3 * 4096));
      const part = new Int32Array(native.mapShared(fd, 8192, 4096));
      expect(part.length).toBe(2048);
      part[0] = 7;
      expect(whole[1024]).toBe(7);
      expect(errorOf(() => native.mapShared(fd, 8193, 4096)).code).toBe('EINVAL');
      expect(errorOf(() => native.mapShared(fd, 4096, 3 * 4096)).code).toBe('EINVAL');
      for (const offset of [1, -4096]) expect(() => native.mapShared(fd, 4096, offset)).toThrow(TypeError);
    });

    it('works in a worker, and ends with it what it opened', async () => {
      const kept = native.eventfd();
      cleanups.push(() => native.close(kept));
      const code = `
        const { parentPort, workerData } = require('node:worker_threads');
        const a = require(workerData.addon);
        const { fd } = a.openTun({ name: 'w0', tap: true, netnsFd: workerData.netns });
        const entries = () => new Int32Array(128);
        const arena = a.registerArena(new Uint8Array(1 << 20));
        const queue = a.createQueue({ fd, arena, rx: entries(), tx: entries(), rxRoom: 2000, isPacket: false, vnetHdr: false });
        const pollset = a.createPollset([fd, workerData.kept]);
        parentPort.postMessage(a.eventfd());
        parentPort.postMessage(a.rx(queue, 64));
        parentPort.postMessage(a.poll(pollset, -1));`;
      const worker = new Worker(code, { eval: true, workerData: { addon: ADDON, netns: netnsA, kept } });
      const messages: number[] = [];
      const ended = new Promise<number>((resolve, reject) => {
        worker.on('error', reject);
        worker.on('exit', resolve);
      });
      worker.on('message', (message: number) => {
        messages.push(message);
        if (messages.length === 1) native.adopt(message);
        if (messages.length !== 2) return;
        expect(errorOf(() => open({ name: 'w0', kind: 'tap' })).code).toBe('EBUSY');
        native.eventfdSignal(kept);
      });
      expect(await ended).toBe(0);
      const [adopted, ...results] = messages;
      expect(results).toEqual([0, 0b10]);
      expect(native.eventfdSignal(adopted!)).toBe(0); // handed over before the end
      native.close(adopted!);
      open({ name: 'w0', kind: 'tap' }); // the worker's descriptor is closed: no EBUSY
      expect(native.eventfdDrain(kept)).toBe(1); // ours is not
    });
  });
});
