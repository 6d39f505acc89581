import { expect, it } from 'vitest';
import { nativeProblem } from '../device/native.ts';
import { warmUp } from './warm-up.ts';

it.skipIf(nativeProblem() !== null)('forwards every packet of both lives', () => {
  // 100 connections of 5 packets and 100 datagrams, 5 more packets of each in the next life, and 50 new ones of both kinds; each life says which addresses are its.
  const announced = 4;
  expect(warmUp(100)).toBe(100 * 6 + 100 * 5 + 50 * 6 + announced);
});
