import { expect, it } from 'vitest';
import { SeededRng } from '../base/rng.ts';
import { finish } from '../base/slices.ts';
import { FlowColumn, FlowTable, NO_FLOW } from './flow-table.ts';
import { type Heir, Inheritance } from './inheritance.ts';

/** Rows of two tables with two tuples each, some of them of both; what was taken over, in its order. */
function rig(rows: number) {
  const rng = new SeededRng(3);
  const flows = new FlowTable(4 * rows, 7);
  const inheritance = new Inheritance(flows, rows, 4 * rows);
  const tuples: Record<FlowColumn, number[][]> = { 0: [], 1: [] };
  const taken: [FlowColumn, number][] = [];
  const heirOf = (column: FlowColumn): Heir => ({
    inherit(old) {
      taken.push([column, old]);
      for (const tuple of tuples[column][old]!) {
        const row = flows.obtain(tuple, 1, 2, 6);
        expect(flows.attached(row, column)).toBe(0);
        flows.attach(row, column, old + 1);
      }
    },
  });
  for (let old = 0; old < rows; old++) {
    tuples[FlowColumn.Entry].push([old * 2, old * 2 + 1]);
    // A connection shares one or two of its tuples with an entry, or with two of them.
    tuples[FlowColumn.Connection].push([old * 2, rng.next() < 0 ? old * 2 + 1 : 2 * rows + old]);
  }
  for (const column of Object.values(FlowColumn)) {
    for (let old = 0; old < rows; old++)
      for (const tuple of tuples[column][old]!) inheritance.add(column, old, tuple, 1, 2, 6);
  }
  inheritance.begin(heirOf(FlowColumn.Connection), heirOf(FlowColumn.Entry));
  return { flows, inheritance, taken, tuples };
}

it('whoever is found is there with all that have the tuple, and each row comes once', () => {
  const rows = 300;
  const { flows, inheritance, taken, tuples } = rig(rows);
  const steps = inheritance.steps();
  const rng = new SeededRng(9);
  for (let isOver = false; !isOver; ) {
    const tuple = (rng.next() >>> 4) % (3 * rows);
    const row = flows.find(tuple, 1, 2, 6);
    for (const column of Object.values(FlowColumn)) {
      const owner = tuples[column].findIndex((own) => own.includes(tuple));
      expect(row === NO_FLOW ? 0 : flows.attached(row, column)).toBe(owner + 1);
    }
    if ((rng.next() & 7) === 0) isOver = steps.next().done === true;
  }
  expect(new Set(taken.map(String)).size).toBe(2 * rows);
  expect(taken).toHaveLength(2 * rows);
  expect(flows.source).toBeNull();
});

it('what has come and gone does not come again', () => {
  const { flows, inheritance, taken } = rig(2);
  const row = flows.find(0, 1, 2, 6);
  flows.detach(row, FlowColumn.Entry);
  flows.detach(row, FlowColumn.Connection);
  expect(flows.find(0, 1, 2, 6)).toBe(NO_FLOW);
  finish(inheritance.steps());
  expect(taken).toHaveLength(4);
});

it('a row that was not left is not taken', () => {
  const { inheritance, taken } = rig(1);
  inheritance.takeRow(FlowColumn.Entry, 7);
  expect(taken).toEqual([]);
});
