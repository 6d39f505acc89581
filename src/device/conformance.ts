/**
 * What every device promises, as one suite over all of them (conformance.test.ts; netns-tests/device-conformance.test.ts for real ones).
 *
 * A subject says how to open the device and how the test plays the world on its other side. Where a device differs for a good reason, the
 * subject says so in `deviations`, and the suite then checks what it says instead.
 */
import { afterEach, describe, expect, it } from 'vitest';
import { Burst } from '../packet/burst.ts';
import { DROP_COUNT, Drop } from '../packet/drop.ts';
import { FRAME_ROOM, type Packet } from '../packet/packet.ts';
import { PacketPool } from '../packet/pool.ts';
import * as checksum from '../wire/checksum.ts';
import * as ipv4 from '../wire/ipv4.ts';
import * as udp from '../wire/udp.ts';
import { type Device, Medium } from './device.ts';

/** The world on the other side of a device under test. */
export interface World {
  readonly device: Device;
  /** Frames travel to the device; resolves when all can be received (or were refused on the way). */
  deliver(frames: readonly Uint8Array[]): Promise<void>;
  /** Waits until the device has let at least `count` frames out, and takes all that have come. */
  collect(count: number): Promise<readonly Uint8Array[]>;
  /** Leaves nothing behind; the device is closed already. */
  end(): Promise<void>;
}

export interface Subject {
  readonly name: string;
  open(pool: PacketPool, drops: Float64Array): Promise<World>;
  readonly deviations?: {
    /** Why nothing can be delivered: the device only sends. */
    readonly sendsOnly?: string;
    /** Why a frame without a whole header is refused on transmit. */
    readonly refusesShort?: string;
    /** Why a frame longer than the MTU is refused on transmit. */
    readonly refusesLong?: string;
  };
}

const SLOTS = 512;
/** Locally administered; the frames of the suite go from one to the other. */
const DST_MAC = [0x02, 0, 0, 0, 0x77, 0x02];
const SRC_MAC = [0x02, 0, 0, 0, 0x77, 0x01];

/** UDP in IPv4 (in Ethernet), told apart by `number`, with `size` bytes of data and right checksums. Addresses are TEST-NET-2 (RFC 5737). */
export function testFrame(medium: Medium, number: number, size = 64): Uint8Array {
  const l3 = medium === Medium.Ethernet ? 14 : 0;
  const l4 = l3 + 20;
  const bytes = new Uint8Array(l4 + 8 + size);
  const m = new DataView(bytes.buffer);
  if (medium === Medium.Ethernet) {
    bytes.set(DST_MAC, 0);
    bytes.set(SRC_MAC, 6);
    m.setUint16(12, 0x0800);
  }
  const src = 0xc6336401 | 0;
  const dst = 0xc6336402 | 0;
  ipv4.emit(m, l3, 28 + size, ipv4.IpProto.Udp, src, dst, 64, 0, number & 0xffff, ipv4.DF);
  udp.emit(m, l4, 40000, 4242, 8 + size);
  for (let i = 0; i < size; i++) bytes[l4 + 8 + i] = (number * 31 + i * 7) & 0xff;
  const sum = checksum.pseudoSum(src, dst, ipv4.IpProto.Udp, 8 + size) + checksum.sumBytes(m, l4, 8 + size);
  udp.setChecksum(m, l4, ~checksum.fold(sum) & 0xffff || 0xffff);
  return bytes;
}

/** A packet of `pool` that holds a copy of `frame`, with l4 and proto as for IPv4 without options. */
export function packetOf(pool: PacketPool, device: Device, frame: Uint8Array): Packet {
  const p = pool.take(0);
  if (p === null) throw new Error('the pool of the test is empty');
  const start = device.medium === Medium.Ethernet ? p.l2 : p.l3;
  p.bytes.set(frame, start);
  p.end = start + frame.length;
  p.l4 = p.l3 + 20;
  if (p.end - p.l3 >= 20) p.proto = ipv4.proto(p.view, p.l3);
  return p;
}

/** A copy of what `p` holds, from where a frame of `device` begins. */
export function frameOf(device: Device, p: Packet): Uint8Array {
  return p.bytes.slice(device.medium === Medium.Ethernet ? p.l2 : p.l3, p.end);
}

export function deviceConformance(subject: Subject): void {
  const { deviations = {} } = subject;
  describe(`${subject.name} keeps the contract of devices`, () => {
    let world: World | undefined;
    let pool: PacketPool;
    let drops: Float64Array;

    async function open(slots = SLOTS): Promise<Device> {
      pool = new PacketPool(slots);
      drops = new Float64Array(DROP_COUNT);
      world = await subject.open(pool, drops);
      return world.device;
    }
    function frames(count: number, size?: number): Uint8Array[] {
      return Array.from({ length: count }, (_, i) => testFrame(world!.device.medium, i, size));
    }
    /** Receives until `count` frames have come; they stay in `burst`-sized lists, freed here. */
    function drain(device: Device, count: number, size = 64): Uint8Array[] {
      const burst = new Burst(size);
      const seen: Uint8Array[] = [];
      while (seen.length < count) {
        const n = device.receive(burst);
        if (n === 0) break;
        expect(n).toBe(burst.count);
        expect(n).toBeLessThanOrEqual(size);
        for (let i = 0; i < n; i++) {
          seen.push(frameOf(device, burst.packets[i]!));
          pool.free(burst.packets[i]!);
        }
        burst.clear();
      }
      return seen;
    }
    function send(device: Device, sent: readonly Uint8Array[]): void {
      const burst = new Burst();
      for (const frame of sent) {
        burst.push(packetOf(pool, device, frame));
        if (burst.isFull) device.transmit(burst);
      }
      device.transmit(burst);
      expect(burst.count).toBe(0);
      expect(burst.packets.every((p) => p === null)).toBe(true);
    }

    afterEach(async () => {
      world?.device.close();
      await world?.end();
      // Every slot has come home, whatever the test did.
      expect(pool.available).toBe(pool.packets.length);
      world = undefined;
    });

    if (deviations.sendsOnly === undefined) {
      it('gives out the bytes that came, in their order, with offsets set', async () => {
        const device = await open();
        const sent = [...frames(100), ...frames(30, 1), ...frames(30, 1400)];
        await world!.deliver(sent);
        expect(drain(device, sent.length)).toEqual(sent);
        expect(device.stats).toMatchObject({
          rxPackets: sent.length,
          rxBytes: sent.reduce((sum, frame) => sum + frame.length, 0),
          rxDropped: 0,
        });
        await world!.deliver(frames(1));
        const burst = new Burst();
        expect(device.receive(burst)).toBe(1);
        const p = burst.packets[0]!;
        expect(p).toMatchObject({
          l2: p.slotStart + 130,
          l3: p.slotStart + 144,
          csumPartial: 0,
          gsoType: 0,
          gsoSize: 0,
        });
        pool.free(p);
      });

      it('never fills a burst beyond its size, and appends to what is in it', async () => {
        const device = await open();
        const sent = frames(50);
        await world!.deliver(sent);
        const burst = new Burst(8);
        burst.push(packetOf(pool, device, sent[0]!));
        expect(device.receive(burst)).toBe(8);
        expect(device.receive(burst)).toBe(8); // full: nothing more is taken
        const seen = Array.from({ length: 8 }, (_, i) => frameOf(device, burst.packets[i]!));
        expect(seen).toEqual([sent[0], ...sent.slice(0, 7)]);
        for (let i = 0; i < 8; i++) pool.free(burst.packets[i]!);
        expect(drain(device, 43, 3)).toEqual(sent.slice(7));
      });

      it('answers 0 when nothing has come', async () => {
        const device = await open();
        expect(device.receive(new Burst())).toBe(0);
      });

      it('lets frames wait while the pool is empty', async () => {
        const device = await open(96);
        const sent = frames(90);
        await world!.deliver(sent);
        const held: Packet[] = [];
        for (let p = pool.take(0); p !== null; p = pool.take(0)) held.push(p);
        const burst = new Burst();
        // A device may hold slots of its own ready; beyond those nothing can come.
        for (let round = 0; round < 3; round++) device.receive(burst);
        const before = burst.count;
        expect(before).toBeLessThanOrEqual(64);
        const seen = Array.from({ length: before }, (_, i) => frameOf(device, burst.packets[i]!));
        for (let i = 0; i < before; i++) pool.free(burst.packets[i]!);
        for (const p of held) pool.free(p);
        expect([...seen, ...drain(device, 90 - before)]).toEqual(sent);
      });

      it('gives back every slot of 2000 frames that went through', async () => {
        const device = await open();
        const burst = new Burst();
        expect(device.receive(burst)).toBe(0);
        const atRest = pool.available;
        let out = 0;
        for (let round = 0; round < 40; round++) {
          await world!.deliver(frames(50));
          for (let got = 0; got < 50; ) {
            const n = device.receive(burst);
            expect(n).toBeGreaterThan(0);
            for (let i = 0; i < n; i++) burst.packets[i]!.l4 = burst.packets[i]!.l3 + 20;
            got += n;
            device.transmit(burst);
          }
          out += (await world!.collect(50)).length;
        }
        expect(out).toBe(2000);
        expect(device.receive(burst)).toBe(0);
        expect(pool.available).toBe(atRest);
        expect(device.stats).toMatchObject({ rxPackets: 2000, txPackets: 2000, txErrors: 0, txDropped: 0 });
      });

      it('leaks nothing when closed while frames wait and packets are out', async () => {
        const device = await open();
        await world!.deliver(frames(20));
        const burst = new Burst(5);
        expect(device.receive(burst)).toBe(5);
        device.close();
        const after = new Burst();
        device.receive(after);
        expect(after.count).toBe(0);
        device.transmit(burst); // the five are freed all the same
        device.close();
      });
    }

    it('sends the bytes of a burst in their order, and counts them', async () => {
      const device = await open();
      const sent = [...frames(64), ...frames(20, 1), ...frames(20, 1400)];
      send(device, sent);
      expect(await world!.collect(sent.length)).toEqual(sent);
      expect(device.stats).toMatchObject({
        txPackets: sent.length,
        txBytes: sent.reduce((sum, frame) => sum + frame.length, 0),
        txErrors: 0,
        txDropped: 0,
      });
    });

    it('takes a burst larger than 64, and an empty one', async () => {
      const device = await open();
      const sent = frames(150);
      const burst = new Burst(150);
      device.transmit(burst);
      for (const frame of sent) burst.push(packetOf(pool, device, frame));
      device.transmit(burst);
      expect(burst.count).toBe(0);
      expect(await world!.collect(150)).toEqual(sent);
    });

    it('accounts for an empty frame and goes on', async () => {
      const device = await open();
      const empty = new Uint8Array(0);
      const whole = frames(2);
      send(device, [whole[0]!, empty, whole[1]!]);
      if (deviations.refusesShort === undefined) {
        expect(await world!.collect(3)).toEqual([whole[0], empty, whole[1]]);
        expect(device.stats).toMatchObject({ txPackets: 3, txErrors: 0 });
      } else {
        expect(await world!.collect(2)).toEqual(whole);
        expect(device.stats).toMatchObject({ txPackets: 2, txErrors: 1 });
        expect(drops[Drop.DeviceTxError]).toBe(1);
      }
    });

    it('accounts for a frame far above the MTU and goes on', async () => {
      const device = await open();
      const whole = frames(2);
      const long = testFrame(device.medium, 7, 9000);
      send(device, [whole[0]!, long, whole[1]!]);
      if (deviations.refusesLong === undefined) {
        expect(await world!.collect(3)).toEqual([whole[0], long, whole[1]]);
        expect(device.stats).toMatchObject({ txPackets: 3, txErrors: 0 });
      } else {
        expect(await world!.collect(2)).toEqual(whole);
        expect(device.stats).toMatchObject({ txPackets: 2, txErrors: 1 });
        expect(drops[Drop.DeviceTxError]).toBe(1);
      }
    });

    it('lets out a packet with a partial checksum as a frame whose checksum is right for whoever must know', async () => {
      const device = await open();
      const [whole] = frames(1);
      const p = packetOf(pool, device, whole!);
      // What the kernel hands over: the pseudo-header's sum in the field.
      const { view, l3, l4 } = p;
      const sum = checksum.pseudoSum(ipv4.src(view, l3), ipv4.dst(view, l3), ipv4.IpProto.Udp, p.end - l4);
      udp.setChecksum(view, l4, checksum.fold(sum));
      p.csumPartial = 1;
      const burst = new Burst();
      burst.push(p);
      device.transmit(burst);
      const [seen] = await world!.collect(1);
      // A device that takes offloads may leave it partial (the medium says so beside the frame); nothing else may differ.
      const at = l4 - (device.medium === Medium.Ethernet ? p.l2 : p.l3) + udp.UDP_CHECKSUM;
      const field = (seen![at]! << 8) | seen![at + 1]!;
      const right = (whole![at]! << 8) | whole![at + 1]!;
      expect(device.canOffload ? [right, checksum.fold(sum)] : [right]).toContain(field);
      expect([...seen!].toSpliced(at, 2)).toEqual([...whole!].toSpliced(at, 2));
      expect(device.stats.txPackets).toBe(1);
    });

    it('holds frames up to the longest IPv4 packet in a slot', () => {
      expect(FRAME_ROOM).toBeGreaterThanOrEqual(14 + 4 + ipv4.IPV4_MAX_LENGTH);
    });
  });
}
