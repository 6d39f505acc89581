import { describe, expect, it } from 'vitest';
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
