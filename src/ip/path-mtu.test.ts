import { describe, expect, it } from 'vitest';
import { seconds } from '../base/clock.ts';
import { PathTable } from './path-mtu.ts';

describe('paths', () => {
  it('shrink only, and are forgotten ten minutes after the last word', () => {
    const t = new PathTable();
    expect(t.learn(1, 1300, 1500, 0)).toBe(true);
    expect(t.mtuTo(1, 1500, 0)).toBe(1300);
    expect([t.mtuTo(2, 1500, 0), t.mtuTo(1, 1200, 0)]).toEqual([1500, 1200]);
    expect(t.learn(1, 1400, t.mtuTo(1, 1500, 0), 0)).toBe(false);
    expect(t.learn(1, 1000, t.mtuTo(1, 1500, 9), seconds(100))).toBe(true);
    expect(t.advance(seconds(600))).toBe(false);
    expect(t.mtuTo(1, 1500, seconds(699))).toBe(1000);
    expect([t.advance(seconds(700)), t.count, t.isKnown(1, seconds(700))]).toEqual([true, 0, false]);
  });

  it('that claim less than min_pmtu are put there, and believed no more until they expire', () => {
    const t = new PathTable();
    expect(t.learn(1, 300, 1500, 0)).toBe(true);
    expect(t.mtuTo(1, 1500, 0)).toBe(552);
    expect(t.learn(1, 0, 552, 5)).toBe(false);
    expect(t.mtuTo(1, 1500, seconds(601))).toBe(1500);
    expect(t.learn(1, 1200, 1500, seconds(601))).toBe(true);
    expect(t.mtuTo(1, 1500, seconds(601))).toBe(1200);
    expect(t.learn(2, 68, 400, 0)).toBe(false);
    expect(t.mtuTo(2, 400, 0)).toBe(400);
  });

  it('are bounded: the oldest gives way', () => {
    const t = new PathTable();
    for (let dst = 0; dst < 5000; dst++) t.learn(dst, 1000, 1500, 0);
    expect([t.count, t.mtuTo(0, 1500, 0), t.mtuTo(4999, 1500, 0)]).toEqual([4096, 1500, 1000]);
  });
});
