/** What Linux 6.1 makes of texts written to a sysctl of type int (recordings sysctl_values_*). */
import { describe, expect, it } from 'vitest';
import { parseNumber } from './sysctl-number.ts';

describe('parseNumber', () => {
  it.each([
    ['1', 1],
    ['0', 0],
    ['-1', -1],
    ['4294967296', 4294967296],
    ['  2', 2],
    ['2 ', 2],
    ['1 2', 1],
    ['1\t1', 1],
    ['5\n6', 5],
    ['\n1', 1],
    ['0x1f', 31],
    ['0X2', 2],
    ['-0x10', -16],
    ['010', 8],
    ['-1 5', -1],
    ['', 'nothing'],
  ])('takes %j', (text, value) => {
    expect(parseNumber(text)).toBe(value);
  });

  it.each([' ', '\n', '-', '--1', '+1', 'abc', '1x', '1,', '1.5', '1e3', '09', '0x', '0xg', '- 1', '1'.repeat(22)])(
    'refuses %j',
    (text) => {
      expect(parseNumber(text)).toBe(undefined);
    },
  );
});
