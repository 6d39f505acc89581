import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { type ControlState, hasSameLimits, readControlState, writeControlState } from './control-state.ts';

const dir = mkdtempSync(join(tmpdir(), 'tapvs-state-'));
afterAll(() => rmSync(dir, { recursive: true }));

const BEFORE = `devices: []
limits: { connections: 5000 }
ipvsadm: |
  -A -t 10.0.1.100:80 -s rr
`;
const file = join(dir, 'tapvs.yaml');
const state: Omit<ControlState, 'version'> = {
  texts: [[file, BEFORE]],
  limits: { connections: 5000, entries: 5000, packets: 2048 },
  spin: 20,
  generation: 3,
  sysctlsBefore: [['net.ipv4.ip_forward', '0']],
};

describe('what one life tells the next', () => {
  it('comes back as it was', () => {
    expect(readControlState(writeControlState(state))).toEqual({ version: 1, ...state });
  });

  it.each([
    ['nothing', ''],
    ['no JSON', '{'],
    ['of another version', writeControlState(state).replace('"version":1', '"version":2')],
    ['without a configuration', writeControlState({ ...state, texts: [] })],
    ['JSON of something else', 'null'],
  ])('is refused when it is %s', (_, text) => {
    expect(readControlState(text)).toBeNull();
  });

  it.each([
    ['the same file', BEFORE, true],
    ['another scheduler', BEFORE.replace('-s rr', '-s wrr'), true],
    ['a limit that changed', BEFORE.replace('5000', '6000'), false],
    ['a limit that went', BEFORE.replace(/^limits.*\n/m, ''), false],
    ['a limit on a line of its own', BEFORE.replace('{ connections: 5000 }', '\n  connections: 6000'), false],
    ['spin that came', `${BEFORE}spin: 0\n`, false],
  ])('says whether the tables have their size: %s', (_, text, isSame) => {
    writeFileSync(file, text);
    expect(hasSameLimits({ version: 1, ...state })).toBe(isSame);
  });

  it('does not trust a file that is gone', () => {
    expect(hasSameLimits({ version: 1, ...state, texts: [[join(dir, 'gone'), BEFORE]] })).toBe(false);
  });
});
