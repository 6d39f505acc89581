import { describe, expect, it } from 'vitest';
import { Burst } from '../packet/burst.ts';
import { Drop } from '../packet/drop.ts';
import { PacketPool } from '../packet/pool.ts';
import { packetOf, testFrame } from './conformance.ts';
import { Medium } from './device.ts';
import { MemoryDevice } from './memory.ts';
import { TracerDevice } from './tracer.ts';

describe('a memory device', () => {
  it('carries the offload fields both ways, over a cable too', () => {
    const pool = new PacketPool(8);
    const [a, b] = MemoryDevice.pair(pool);
    const burst = new Burst();
    a.inject(testFrame(Medium.Ethernet, 1, 5000), { csumPartial: 1, gsoType: 5, gsoSize: 1400 });
    a.receive(burst);
    const p = burst.packets[0]!;
    expect(p).toMatchObject({ csumPartial: 1, csumValid: 0, gsoType: 5, gsoSize: 1400 });
    a.transmit(burst);
    b.receive(burst);
    expect(burst.packets[0]).toMatchObject({ csumPartial: 1, gsoType: 5, gsoSize: 1400 });
  });

  it('takes a builder', () => {
    const pool = new PacketPool(8);
    const device = new MemoryDevice(pool);
    device.inject((view, at) => {
      view.setUint16(at, 0xbeef);
      return 2;
    });
    const burst = new Burst();
    device.receive(burst);
    device.transmit(burst);
    expect(device.takeSent().map((f) => f.bytes)).toEqual([new Uint8Array([0xbe, 0xef])]);
    expect(device.takeSent()).toEqual([]);
  });

  it('refuses what its queue cannot hold, and drops what no slot can', () => {
    const pool = new PacketPool(8);
    const device = new MemoryDevice(pool, { queueLimit: 2 });
    const frame = testFrame(Medium.Ethernet, 0);
    expect([device.inject(frame), device.inject(new Uint8Array(70_000)), device.inject(frame)]).toEqual([
      true,
      true,
      false,
    ]);
    expect(device.receive(new Burst())).toBe(1);
    expect(device.drops[Drop.FrameTruncated]).toBe(1);
    expect(device.waiting).toBe(0);
  });

  it('counts what finds the other end of the cable full', () => {
    const pool = new PacketPool(8);
    const [a] = MemoryDevice.pair(pool, {}, { queueLimit: 1 });
    const burst = new Burst();
    for (let i = 0; i < 3; i++) burst.push(packetOf(pool, a, testFrame(Medium.Ethernet, i)));
    a.transmit(burst);
    expect(a.stats).toMatchObject({ txPackets: 1, txDropped: 2 });
    expect(a.drops[Drop.DeviceTxFull]).toBe(2);
    expect(pool.available).toBe(8);
  });

  it('replays frames round and round for a bench, and keeps none', () => {
    const pool = new PacketPool(100);
    const device = new MemoryDevice(pool);
    device.preload([0, 1, 2].map((i) => testFrame(Medium.Ethernet, i)));
    device.play(200);
    const burst = new Burst();
    const ids: number[] = [];
    while (device.receive(burst) > 0) {
      for (let i = 0; i < burst.count; i++) ids.push(burst.packets[i]!.view.getUint16(burst.packets[i]!.l3 + 4));
      device.transmit(burst);
    }
    expect(ids).toEqual(Array.from({ length: 200 }, (_, i) => i % 3));
    expect(device.sent).toEqual([]);
    expect(device.stats).toMatchObject({ rxPackets: 200, txPackets: 200 });
    expect(pool.available).toBe(100);
  });
});

describe('a tracer', () => {
  it('tells one line per frame, each way', () => {
    const pool = new PacketPool(8);
    const memory = new MemoryDevice(pool, { name: 'front' });
    const lines: string[] = [];
    const device = new TracerDevice(memory, (line) => lines.push(line));
    memory.inject(testFrame(Medium.Ethernet, 5));
    memory.inject(new Uint8Array(3), { gsoType: 1, gsoSize: 1400 });
    const burst = new Burst();
    device.receive(burst);
    burst.packets[1]!.gsoType = 0;
    device.transmit(burst);
    const udp =
      '02:00:00:00:77:01 > 02:00:00:00:77:02 IP 198.51.100.1.40000 > 198.51.100.2.4242: udp len 64 (ttl 64 id 5 DF)';
    expect(lines).toEqual([
      `front in  ${udp}`,
      'front in  short frame of 3 bytes gso 1400',
      `front out ${udp}`,
      'front out short frame of 3 bytes',
    ]);
  });
});
