import { afterEach, describe, expect, it } from 'vitest';
import { int32Of } from '../base/memory.ts';
import { CopyMemory } from './copy-memory.ts';
import { explain } from './explain.ts';
import { ExplainRig, explainSpec } from './explain-rig.ts';
import { forkEngine } from './fork.ts';

const MANY = 2_000_000;
const question = explainSpec('tcp 10.0.1.2:1234 10.0.1.100:80');

describe('memory of copies', () => {
  it('is all zero for each copy, at the same places, and in as many regions as it needs', () => {
    const memory = new CopyMemory();
    const take = () =>
      [3, 2 ** 26, 2 ** 28 - 4096, 2 ** 27].map((words) => int32Of(memory.allocate(words), words >> 2));
    const first = take();
    for (const piece of first) {
      if (piece.length === 0) continue;
      piece[0] = 1;
      piece[piece.length - 1] = 1;
    }
    expect(new Set(first.map((piece) => piece.buffer)).size).toBe(3);
    memory.clear();
    const second = take();
    expect(second.map((piece) => [piece.buffer === first[0]!.buffer, piece.byteOffset])).toEqual(
      first.map((piece) => [piece.buffer === first[0]!.buffer, piece.byteOffset]),
    );
    for (const piece of second) expect([piece.at(0) ?? 0, piece.at(-1) ?? 0]).toEqual([0, 0]);
  });
});

describe('a copy of an engine with room for millions', () => {
  let rig: ExplainRig;

  afterEach(() => rig.engine.close());

  it('answers the same in memory that another copy has had', () => {
    rig = new ExplainRig({ maxConnections: 500 });
    rig.run('-A -t 10.0.1.100:80 -s rr', '-a -t 10.0.1.100:80 -r 10.0.2.11:80 -m');
    const memory = new CopyMemory();
    const answers = [1, 2, 3].map(() => {
      const answer = explain(rig.engine, question, memory.allocate);
      memory.clear();
      return answer;
    });
    expect(answers[0]).toMatchObject({ ways: [{ end: { kind: 'sent', device: 'back' } }] });
    expect(answers).toEqual([answers[0], answers[0], answers[0]]);
    expect(explain(rig.engine, question)).toEqual(answers[0]);
  });

  it('asks the system for no memory by the size of its tables', () => {
    rig = new ExplainRig({ maxConnections: MANY });
    const { conns } = rig.engine.director;
    const { entries } = rig.engine.conntrack;
    // As if all of them had been used once.
    Object.defineProperty(conns, 'highWater', { value: MANY });
    Object.defineProperty(entries, 'highWater', { value: MANY });
    const memory = new CopyMemory();
    let asked = 0;
    const before = process.memoryUsage().arrayBuffers;
    forkEngine(rig.engine, (bytes) => {
      asked += bytes;
      return memory.allocate(bytes);
    });
    const own = process.memoryUsage().arrayBuffers - before;
    expect(asked).toBeGreaterThan(MANY * 300);
    // Regions are counted, too; all else is small.
    expect(own % 2 ** 28).toBeLessThan(2 ** 22);
    memory.clear();
  });
});
