import { expect, it } from 'vitest';
import { ManualClock, TurnableClock } from './clock.ts';

it('goes on by itself, and jumps ahead when told to, across the end of the range', () => {
  const base = new ManualClock(0x7ffffff0);
  const clock = new TurnableClock(base);
  expect(clock.now()).toBe(0);
  base.advance(0x20);
  expect(clock.now()).toBe(0x20);
  clock.advance(0x7fffffff);
  expect(clock.now()).toBe(-0x80000000 + 0x1f);
});

it('stands still while it is held, and goes on from there', () => {
  const base = new ManualClock(100);
  const clock = new TurnableClock(base);
  clock.release();
  clock.hold();
  base.advance(7);
  clock.hold();
  expect(clock.now()).toBe(0);
  clock.advance(1);
  expect(clock.now()).toBe(1);
  clock.release();
  expect(clock.now()).toBe(1);
  base.advance(2);
  expect(clock.now()).toBe(3);
});
