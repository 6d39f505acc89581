/** The two buckets of ICMP messages: one for all (icmp_global_allow), one per target (inet_peer_xrlim_allow). */
import { describe, expect, it } from 'vitest';
import { seconds } from '../base/clock.ts';
import { IcmpLimiter } from './icmp-limit.ts';

function allowed(times: number, ask: () => boolean): number {
  let count = 0;
  for (let i = 0; i < times; i++) if (ask()) count++;
  return count;
}

describe('the bucket for all', () => {
  it('gives the burst at once, then what each second earns, never more than the burst', () => {
    const limiter = new IcmpLimiter();
    expect(allowed(200, () => limiter.allowGlobal(0, 10, 50))).toBe(50);
    expect(allowed(200, () => limiter.allowGlobal(seconds(1), 10, 50))).toBe(10);
    expect(allowed(200, () => limiter.allowGlobal(seconds(1) + 1, 10, 50))).toBe(0);
    expect(allowed(200, () => limiter.allowGlobal(seconds(2), 1000, 50))).toBe(50);
  });

  it('goes on when the clock wraps', () => {
    const limiter = new IcmpLimiter();
    const start = 0x7fffffff;
    expect(allowed(20, () => limiter.allowGlobal(start, 10, 5))).toBe(5);
    expect(allowed(20, () => limiter.allowGlobal((start + seconds(1)) | 0, 10, 50))).toBe(10);
  });

  it('is full after a rest of months', () => {
    const limiter = new IcmpLimiter();
    expect(limiter.allowGlobal(0, 1000, 50)).toBe(true);
    const later = seconds(150 * 86_400) | 0;
    expect(later).toBeLessThan(0);
    expect(allowed(200, () => limiter.allowGlobal(later, 1000, 50))).toBe(50);
    expect(allowed(200, () => limiter.allowGlobal((later + seconds(1)) | 0, 1000, 50))).toBe(50);
  });
});

describe('the bucket of a target', () => {
  it('gives six at once after a rest, then one per interval; targets do not share', () => {
    const limiter = new IcmpLimiter();
    expect(allowed(20, () => limiter.allowPeer(0, 1, seconds(1)))).toBe(6);
    expect(allowed(20, () => limiter.allowPeer(seconds(1), 1, seconds(1)))).toBe(1);
    expect(allowed(20, () => limiter.allowPeer(seconds(1), 2, seconds(1)))).toBe(6);
    expect(allowed(20, () => limiter.allowPeer(seconds(1), 1, 0))).toBe(20);
  });

  it('holds back what is said of packets without a way: five at once, and none within a second of another message', () => {
    const limiter = new IcmpLimiter();
    expect(allowed(20, () => limiter.allowRouteError(0, 1))).toBe(5);
    expect(allowed(20, () => limiter.allowRouteError(seconds(2), 1))).toBe(2);
    // Each is a message, too, and no time passes between the two questions.
    expect(allowed(20, () => limiter.allowRouteError(0, 2) && limiter.allowPeer(0, 2, 0))).toBe(5);
    expect(limiter.allowPeer(0, 3, 0)).toBe(true);
    expect(limiter.allowRouteError(seconds(0.5), 3)).toBe(false);
    expect(limiter.allowRouteError(seconds(1), 3)).toBe(true);
  });
});
