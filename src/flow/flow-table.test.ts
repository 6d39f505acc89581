import { describe, expect, it } from 'vitest';
import { hash4 } from '../base/hash.ts';
import { SeededRng } from '../base/rng.ts';
import { FlowColumn, FlowTable, NO_FLOW } from './flow-table.ts';

const { Connection, Entry } = FlowColumn;

describe('FlowTable', () => {
  it('agrees with a Map under a random life of many steps, and ends empty', () => {
    const table = new FlowTable(512, 99);
    const model = new Map<string, [number, number]>();
    const rng = new SeededRng(5);
    const tupleOf = (k: number) => [k % 64, k % 7, Math.imul(k, 0x10001), 6 + (k % 2) * 11] as const;
    for (let step = 0; step < 60_000; step++) {
      const k = (rng.next() >>> 1) % 800;
      const [src, dst, ports, kind] = tupleOf(k);
      const key = `${src} ${dst} ${ports} ${kind}`;
      const column = rng.next() & 1 ? Connection : Entry;
      const held = model.get(key);
      const row = table.find(src, dst, ports, kind);
      if (held === undefined) expect(row).toBe(NO_FLOW);
      else expect([table.attached(row, Connection), table.attached(row, Entry)]).toEqual(held);
      if (rng.next() & 1) {
        const made = table.obtain(src, dst, ports, kind);
        if (made === NO_FLOW) {
          expect(model.size).toBe(512);
          continue;
        }
        table.attach(made, column, k + 1);
        const next: [number, number] = held ?? [0, 0];
        next[column] = k + 1;
        model.set(key, next);
      } else if (held !== undefined) {
        table.detach(row, column);
        held[column] = 0;
        if (held[0] === 0 && held[1] === 0) model.delete(key);
      }
      expect(table.size).toBe(model.size);
    }
    for (const key of model.keys()) {
      const [src, dst, ports, kind] = key.split(' ').map(Number) as [number, number, number, number];
      table.detach(table.find(src, dst, ports, kind), Connection);
      const row = table.find(src, dst, ports, kind);
      if (row !== NO_FLOW) table.detach(row, Entry);
    }
    expect(table.size).toBe(0);
  });

  it('says so when it is full, and takes again after a row went', () => {
    const table = new FlowTable(2, 1);
    for (const port of [1, 2]) table.attach(table.obtain(1, 2, port, 6), Connection, port);
    expect(table.obtain(1, 2, 3, 6)).toBe(NO_FLOW);
    table.detach(table.find(1, 2, 1, 6), Connection);
    expect(table.obtain(1, 2, 3, 6)).not.toBe(NO_FLOW);
  });
});

/** Source addresses whose tuples share the bucket of the first one, in a table of `capacity` rows (a power of 2) with seed 1. */
function crowd(count: number, capacity: number): number[] {
  const found: number[] = [];
  const bucket = (src: number) => hash4(1, src, 2, 3, 6) & (capacity - 1);
  for (let src = 0; found.length < count; src++) if (bucket(src) === bucket(0)) found.push(src);
  return found;
}

describe('a bucket', () => {
  it('takes as many rows as the caller says, however much room there is, and again when one has gone', () => {
    const table = new FlowTable(4096, 1);
    const [first, ...others] = crowd(8, 4096) as [number, ...number[]];
    const obtain = (src: number, longest: number) => {
      const row = table.obtain(src, 2, 3, 6, longest);
      if (row !== NO_FLOW) table.attach(row, Entry, 1);
      return row !== NO_FLOW;
    };
    expect([first, ...others].map((src) => obtain(src, 5))).toEqual([true, true, true, true, true, true, false, false]);
    expect([table.chainLength(first, 2, 3, 6), table.size, table.isFull]).toEqual([6, 6, false]);
    // What is there is found, and other buckets take.
    expect([obtain(first, 5), obtain(1, 5)]).toEqual([true, true]);
    table.detach(table.find(first, 2, 3, 6), Entry);
    expect([obtain(first, 5), obtain(others[6]!, 5), obtain(others[6]!, 6)]).toEqual([true, false, true]);
  });

  it('is as full for a copy that has none of its rows', () => {
    const live = new FlowTable(4096, 1);
    const clients = crowd(6, 4096);
    for (const src of clients.slice(0, 5)) live.attach(live.obtain(src, 2, 3, 6), Entry, 1);
    const copy = new FlowTable(64, 2);
    copy.copyFrom(live);
    copy.source = { take: () => NO_FLOW, chainLength: (...tuple) => live.chainLength(...tuple) };
    expect([copy.obtain(clients[5]!, 2, 3, 6, 4), copy.obtain(clients[5]!, 2, 3, 6, 5)]).toEqual([NO_FLOW, 5]);
  });

  it('has a bound when the caller says none', () => {
    const table = new FlowTable(4096, 1);
    const taken = crowd(110, 4096).filter((src) => {
      const row = table.obtain(src, 2, 3, 6);
      if (row !== NO_FLOW) table.attach(row, Connection, 1);
      return row !== NO_FLOW;
    });
    expect(taken).toHaveLength(101);
  });

  it('is short in a full table', () => {
    const capacity = 1 << 16;
    const table = new FlowTable(capacity, 99);
    let longest = 0;
    for (let i = 0; i < capacity; i++) {
      const at = [0x0a000000 + (i >> 4), 0x0a800001, Math.imul(40_000 + (i & 15), 0x10000) | 80, 6] as const;
      table.attach(table.obtain(...at), Entry, i + 1);
      longest = Math.max(longest, table.chainLength(...at));
    }
    expect([table.size, longest < 16]).toEqual([capacity, true]);
  });
});
