/** What the real tools make of such a file. */
import { expect, it } from 'vitest';
import { LabelNames } from './label-names.ts';

const FILE = `# comment
0	eth0-in
1 eth0-out
2 bar
 3 leading
5 "quoted"
6 six seven
1 dup
7 bar
0x10 hex
010 octal
11
12   \t trail  \t\r
-4 neg
13x glued
14 a,b
15 x#y
#16 hash
65535 most
65536 more
19 end`;

it.each([
  ['eth0-in', 0],
  ['eth0-out', 1],
  ['bar', 2],
  ['leading', 3],
  ['six seven', 6],
  ['hex', 16],
  ['octal', 8],
  ['trail', 12],
  ['x glued', 13],
  ['most', 65535],
  ['end', 19],
  ['dup', undefined],
  ['"quoted"', undefined],
  ['six', undefined],
  ['neg', undefined],
  ['a,b', undefined],
  ['x#y', undefined],
  ['hash', undefined],
  ['more', undefined],
])('%s is label %s', (name, bit) => {
  const names = new LabelNames(FILE);
  expect(names.bit(name)).toBe(bit);
  if (bit !== undefined) expect(names.name(bit)).toBe(name);
});
