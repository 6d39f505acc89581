import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { fuzz } from './fuzz.ts';

const shared = fileURLToPath(new URL('../../shared/corpus', import.meta.url));

describe('mutated frames', () => {
  it('raise no exception, are all accounted for, and leak nothing from around them', { timeout: 120_000 }, () => {
    const result = fuzz({ frames: 60_000, seed: 2026, ...(existsSync(shared) && { corpus: shared }) });
    expect(result.faults).toEqual([]);
    expect(result.frames).toBe(60_000);
    // It must have reached deep: answers went out, and many different reasons were met.
    expect(result.sent).toBeGreaterThan(5_000);
    expect(result.reasons).toBeGreaterThan(20);
  });
});
