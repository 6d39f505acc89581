// golden/explain/*.json is what the engine says (src/engine/explain.test.ts); here are the words in which it is printed.
import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import type { Way } from '../model/way.ts';
import { formatRecord } from './trace.ts';
import { formatWays } from './way-text.ts';

const GOLDEN = new URL('../../golden/explain/', import.meta.url).pathname;
const NAMES = readdirSync(GOLDEN)
  .filter((file) => file.endsWith('.json'))
  .map((file) => file.slice(0, -'.json'.length));

describe('a way in words', () => {
  it.each(NAMES)('%s', async (name) => {
    const ways = JSON.parse(readFileSync(`${GOLDEN}${name}.json`, 'utf8')) as Way[];
    const text = formatWays(ways);
    await expect(text).toMatchFileSnapshot(`${GOLDEN}${name}.txt`);
    expect(text.split('\n').filter((line) => line.length > 100)).toEqual([]);
  });

  it('says how many packets before it were not traced', () => {
    const ways = JSON.parse(readFileSync(`${GOLDEN}echo.json`, 'utf8')) as Way[];
    const text = formatRecord({ traceId: 1, timeUs: 1_700_000_000_123_456, missed: 7, ways });
    expect(text).toMatch(/^\(7 packets before this one not traced\)\n22:13:20\.123 icmp 10\.0\.1\.2 > 10\.0\.1\.100/);
  });
});
