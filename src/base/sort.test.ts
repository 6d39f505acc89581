/** Whatever is sorted with pauses is sorted as at once. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { finish } from './slices.ts';
import { sortInSteps } from './sort.ts';

const byKey = (a: readonly [number, number], b: readonly [number, number]): number => a[0] - b[0];

describe('sorting in steps', () => {
  it('gives what sort gives, equal ones in their order', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 5000 }), fc.integer({ min: 1, max: 1 << 30 }), (length, seed) => {
        const items = Array.from({ length }, (_, i) => [(Math.imul(i + 1, seed) >>> 8) % 1000, i] as const);
        expect(finish(sortInSteps(items, byKey))).toEqual([...items].sort(byKey));
      }),
      { numRuns: 50 },
    );
  });

  it('pauses as often as it is long', () => {
    expect(sortInSteps([[2, 0] as const, [1, 0] as const], byKey).next()).toMatchObject({ done: true });
    const steps = sortInSteps(
      Array.from({ length: 4096 }, (_, i) => [-i, i] as const),
      byKey,
    );
    let pauses = 0;
    while (steps.next().done !== true) pauses++;
    expect(pauses).toBe(7 + 3 * 8);
  });
});
