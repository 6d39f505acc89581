import { describe, expect, it } from 'vitest';
import { SeededRng } from './rng.ts';
import { TimerWheel } from './timer-wheel.ts';

describe('TimerWheel', () => {
  it('fires every timer once, never early, late by at most an eighth of its delay and a slot', () => {
    const rng = new SeededRng(7);
    const start = 0x7fffff00; // the tick counter wraps during the test
    const wheel = new TimerWheel(2000, start);
    const due = new Int32Array(2000);
    const delays = new Int32Array(2000);
    for (let i = 0; i < 2000; i++) {
      delays[i] = 1 + (rng.next() >>> (12 + (i % 16)));
      due[i] = (start + delays[i]!) | 0;
      wheel.add(i, due[i]!);
    }
    const fired = new Int32Array(2000);
    let now = start;
    for (let step = 0; step < 4000; step++) {
      now = (now + 1 + (rng.next() >>> 21)) | 0;
      const before = now;
      wheel.advance(now, (t) => {
        fired[t]!++;
        expect((before - due[t]!) | 0).toBeGreaterThanOrEqual(0);
        expect((before - due[t]!) | 0).toBeLessThanOrEqual(delays[t]! / 7 + 8 + 2048);
      });
    }
    expect(fired.every((n) => n === 1)).toBe(true);
  });

  it('is exact for delays below 63 ticks', () => {
    const wheel = new TimerWheel(64, 5);
    const at: number[] = [];
    for (let d = 1; d < 63; d++) wheel.add(d, 5 + d);
    for (let now = 6; now < 80; now++) wheel.advance(now, (t) => at.push(now - 5 - t));
    expect(at.length).toBe(62);
    expect(at.every((late) => late === 0)).toBe(true);
  });

  it('lets a firing timer cancel its neighbour and restart itself', () => {
    const wheel = new TimerWheel(4, 0);
    const fired: number[] = [];
    for (const t of [0, 1, 2]) wheel.add(t, 10);
    const fire = (t: number) => {
      fired.push(t);
      for (const other of [0, 1, 2]) if (other !== t) wheel.cancel(other);
      if (fired.length < 3) wheel.add(t, 10 * (fired.length + 1));
    };
    wheel.advance(1000, fire);
    expect(fired).toHaveLength(3);
    expect(new Set(fired).size).toBe(1);
    expect([0, 1, 2].some((t) => wheel.isPending(t))).toBe(false);
  });

  it('crosses a month of idle time at once', () => {
    const wheel = new TimerWheel(2, 0);
    wheel.add(0, 250 * 86400 * 31);
    let fired = 0;
    wheel.advance(250 * 86400 * 30, () => fired++);
    expect(fired).toBe(0);
    wheel.advance(250 * 86400 * 36, () => fired++);
    expect(fired).toBe(1);
  });
});
