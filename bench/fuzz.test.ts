import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { fuzz } from './fuzz.ts';

const FRAMES = 40_000;
const shared = fileURLToPath(new URL('../../shared/corpus', import.meta.url));

describe.each([
  { name: 'a director', rules: false },
  { name: 'fragments, connection tracking, NAT, helpers and rules', rules: true },
])('mutated frames through $name', ({ rules }) => {
  it('raise no exception, are all accounted for, and leak nothing from around them', { timeout: 120_000 }, () => {
    const result = fuzz({ frames: FRAMES, seed: 2026, rules, ...(existsSync(shared) && { corpus: shared }) });
    expect(result.faults).toEqual([]);
    expect(result.frames).toBe(FRAMES);
    // It must have reached deep: answers went out, and many different reasons were met.
    expect(result.sent).toBeGreaterThan(5_000);
    expect(result.reasons).toBeGreaterThan(20);
  });
});
