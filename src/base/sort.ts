/** Sorting with pauses: short runs by the engine's own sort, then merges of two and two (Knuth 5.2.4, algorithm L's idea on arrays). */
import type { Steps } from './slices.ts';

/** What is sorted, or merged, without a pause. */
const RUN = 512;

/** A sorted copy; equal ones stay in their order. */
export function* sortInSteps<T>(items: readonly T[], compare: (a: T, b: T) => number): Steps<T[]> {
  let sorted: T[] = [];
  for (let at = 0; at < items.length; at += RUN) {
    for (const item of items.slice(at, at + RUN).sort(compare)) sorted.push(item);
    if (at + RUN < items.length) yield;
  }
  for (let width = RUN; width < sorted.length; width *= 2) {
    const merged: T[] = [];
    for (let from = 0; from < sorted.length; from += 2 * width) {
      const middle = Math.min(from + width, sorted.length);
      const end = Math.min(middle + width, sorted.length);
      for (let a = from, b = middle; a < middle || b < end; ) {
        const isFirst = b === end || (a < middle && compare(sorted[a]!, sorted[b]!) <= 0);
        merged.push(isFirst ? sorted[a++]! : sorted[b++]!);
        if (merged.length % RUN === 0) yield;
      }
    }
    sorted = merged;
  }
  return sorted;
}
