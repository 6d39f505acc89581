import { describe, expect, it } from 'vitest';
import { ManualClock } from '../base/clock.ts';
import { SeededRng } from '../base/rng.ts';
import { Burst } from '../packet/burst.ts';
import { DROP_COUNT, Drop } from '../packet/drop.ts';
import { PacketPool } from '../packet/pool.ts';
import { packetOf, testFrame } from './conformance.ts';
import { Medium } from './device.ts';
import { FaultDevice, type FaultRates } from './fault.ts';
import { MemoryDevice } from './memory.ts';

const SLOTS = 1024;
const COUNT = 500;
/** Frames are told apart by the identification of their IP header. */
const idOf = (bytes: Uint8Array): number => (bytes[18]! << 8) | bytes[19]!;

function setUp(rates: FaultRates, seed = 3) {
  const pool = new PacketPool(SLOTS);
  const drops = new Float64Array(DROP_COUNT);
  const clock = new ManualClock(0x7ffffff0); // the tick counter wraps during the test
  const inner = new MemoryDevice(pool);
  const device = new FaultDevice(inner, { rx: rates, tx: rates, pool, rng: new SeededRng(seed), clock, drops });
  const burst = new Burst();
  return {
    pool,
    drops,
    clock,
    inner,
    device,
    /** Ids of what comes in now. */
    received: (): number[] => {
      const ids: number[] = [];
      while (device.receive(burst) > 0) {
        for (let i = 0; i < burst.count; i++) {
          const p = burst.packets[i]!;
          ids.push(p.view.getUint16(p.l3 + 4));
          pool.free(p);
        }
        burst.clear();
      }
      return ids;
    },
    inject: (count: number): void => {
      for (let i = 0; i < count; i++) inner.inject(testFrame(Medium.Ethernet, i));
    },
    send: (count: number): void => {
      for (let i = 0; i < count; i++) {
        burst.push(packetOf(pool, device, testFrame(Medium.Ethernet, i)));
        if (burst.isFull) device.transmit(burst);
      }
      device.transmit(burst);
    },
    sent: (): number[] => inner.takeSent().map((f) => idOf(f.bytes)),
  };
}
const upTo = (n: number): number[] => Array.from({ length: n }, (_, i) => i);

describe('a fault device', () => {
  it('drops about as many as it was told, and counts them', () => {
    const t = setUp({ drop: 0.2 });
    t.inject(COUNT);
    const ids = t.received();
    t.send(COUNT);
    const out = t.sent();
    expect(ids).toEqual([...ids].sort((a, b) => a - b));
    expect(t.drops[Drop.FaultInjected]).toBe(2 * COUNT - ids.length - out.length);
    expect(t.drops[Drop.FaultInjected]).toBeGreaterThan(2 * COUNT * 0.15);
    expect(t.drops[Drop.FaultInjected]).toBeLessThan(2 * COUNT * 0.25);
    expect(t.pool.available).toBe(SLOTS);
  });

  it('duplicates: the twin follows at once', () => {
    const t = setUp({ duplicate: 1 });
    t.inject(COUNT);
    expect(t.received()).toEqual(upTo(COUNT).flatMap((i) => [i, i]));
    t.send(COUNT);
    expect(t.sent()).toEqual(upTo(COUNT).flatMap((i) => [i, i]));
    expect(t.pool.available).toBe(SLOTS);
  });

  it('swaps neighbours, and loses none', () => {
    const t = setUp({ reorder: 0.3 });
    t.send(COUNT);
    t.device.transmit(new Burst());
    const out = t.sent();
    expect(out).not.toEqual(upTo(COUNT));
    expect([...out].sort((a, b) => a - b)).toEqual(upTo(COUNT));
    expect(out.every((id, at) => Math.abs(id - at) <= 1)).toBe(true);
    expect(t.pool.available).toBe(SLOTS);
  });

  it('lets a delayed frame go when its time is over', () => {
    const t = setUp({ delay: 1, delayTicks: 20 });
    t.inject(10);
    t.send(10);
    expect([t.received(), t.sent()]).toEqual([[], []]);
    t.clock.advance(19);
    expect([t.received(), t.sent()]).toEqual([[], []]);
    t.clock.advance(1);
    expect([t.received(), t.sent()]).toEqual([upTo(10), upTo(10)]);
    expect(t.pool.available).toBe(SLOTS);
  });

  it('corrupts one bit, and nothing that is still to be summed', () => {
    const t = setUp({ corrupt: 1 });
    t.send(COUNT);
    const bitsOf = (n: number): number => n.toString(2).replaceAll('0', '').length;
    for (const [i, { bytes }] of t.inner.takeSent().entries()) {
      const whole = testFrame(Medium.Ethernet, i);
      expect(whole.reduce((sum, byte, at) => sum + bitsOf(byte ^ bytes[at]!), 0)).toBe(1);
    }
    const burst = new Burst();
    const p = packetOf(t.pool, t.device, testFrame(Medium.Ethernet, 0));
    p.csumPartial = 1;
    burst.push(p);
    t.device.transmit(burst);
    expect(t.inner.takeSent()[0]!.bytes).toEqual(testFrame(Medium.Ethernet, 0));
  });

  it('is the same for the same seed', () => {
    const run = (seed: number): number[] => {
      const t = setUp({ drop: 0.1, duplicate: 0.1, reorder: 0.1 }, seed);
      t.send(COUNT);
      return t.sent();
    };
    expect(run(8)).toEqual(run(8));
    expect(run(8)).not.toEqual(run(9));
  });

  it('gives back what it holds when closed', () => {
    const t = setUp({ delay: 0.5, reorder: 0.5 });
    t.inject(50);
    t.received();
    t.send(50);
    expect(t.pool.available).toBeLessThan(SLOTS);
    t.device.close();
    expect(t.pool.available).toBe(SLOTS);
  });
});
