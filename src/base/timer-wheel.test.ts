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

  it('of one slot fires the last that came into it first; a timer that is in it already keeps its place', () => {
    const wheel = new TimerWheel(4, 0);
    wheel.add(0, 30_000);
    wheel.add(1, 200);
    wheel.add(2, 30_001);
    wheel.add(0, 30_002);
    wheel.add(1, 30_000);
    const fired: number[] = [];
    wheel.advance(40_000, (timer) => fired.push(timer));
    expect(fired).toEqual([1, 2, 0]);
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

  it('fires no more at once than it may, and all in the end, while others come and go', () => {
    const rng = new SeededRng(3);
    const wheel = new TimerWheel(3000, 0);
    const fired = new Int32Array(3000);
    for (let i = 0; i < 2000; i++) wheel.add(i, 1000 + (i % 3) * 400);
    let late = 0;
    let most = 0;
    for (let now = 1; now < 2500; now++) {
      let count = 0;
      wheel.advance(
        now,
        (t) => {
          fired[t]!++;
          count++;
        },
        7,
      );
      most = Math.max(most, count);
      if (wheel.isBehind) late++;
      if (now === 1100) for (let i = 0; i < 2000; i += 10) wheel.cancel(i);
      // New ones are neither lost nor early while the wheel is behind.
      if (now >= 1000 && now < 1200) wheel.add(2000 + now - 1000, now + 1 + ((rng.next() >>> 0) % 60));
    }
    expect(most).toBe(7);
    expect(late).toBeGreaterThan(100);
    expect(wheel.isBehind).toBe(false);
    expect(fired.subarray(2000, 2200).every((n) => n === 1)).toBe(true);
    expect(fired.subarray(0, 2000).every((n, i) => n === 1 || (n === 0 && i % 10 === 0))).toBe(true);
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
