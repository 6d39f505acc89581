import { expect, it } from 'vitest';
import { ManualClock, TurnableClock } from './clock.ts';

it('goes on by itself, and jumps ahead when told to, across the end of the range', () => {
  const base = new ManualClock(0x7ffffff0);
  const clock = new TurnableClock(base);
  expect(clock.now()).toBe(0x7ffffff0);
  clock.advance(0x20);
  expect(clock.now()).toBe(-0x7ffffff0);
  base.advance(5);
  expect(clock.now()).toBe(-0x7ffffff0 + 5);
});
