/**
 * Long tables of rules: for how long each command about them stops the data path at most.
 *
 *   node --expose-gc dist/bench/long-tables.js [--rules N,N]
 *
 * As million.ts: the engine in this process, each command in the steps in which the worker does it. A step of a change is what is done between two looks at the time
 * (base/slices.ts); the worker does a millisecond's worth of them between two breaths.
 */
import { parseArgs } from 'node:util';
import type { Steps } from '../src/base/slices.ts';
import { COMMANDS, RULES } from '../src/control/rule-changes.ts';
import type { Engine } from '../src/engine/engine.ts';
import { readRules } from '../src/engine/kept-settings.ts';
import type { TableCommand, TableOutcome } from '../src/model/iptables.ts';
import { FEW, Rig } from './rig.ts';
import { iptablesRule } from './rules.ts';
import { type Slice, Stops } from './stops.ts';

const append = (i: number): TableCommand => ({
  op: 'append',
  chain: 'FORWARD',
  rule: { words: iptablesRule(i).split(' ') },
});

/** One step after the other. */
function stepwise(steps: Steps<TableOutcome>): () => Slice {
  return () => {
    const { done, value } = steps.next();
    if (done === true && value !== null) throw new Error(`refused: ${value.fault}`);
    return { result: null, next: done === true ? -1 : 0 };
  };
}

function change({ filter }: Engine, commands: readonly TableCommand[], isTest = false): () => Slice {
  return stepwise(filter.changeInSteps({ table: 'filter', commands, isTest }));
}

function measure(engine: Engine, count: number): boolean {
  const stops = new Stops(engine);
  const what = (name: string): string => `${name}, ${count} rules`;
  const rules = Array.from({ length: count }, (_, i) => append(i));
  const commands: TableCommand[] = [{ op: 'flush' }, ...rules];
  stops.measure(what('iptables-restore: sent'), (at) => {
    // A message is copied on both ends.
    const some = structuredClone(commands.slice(at, at + COMMANDS));
    return { result: null, next: at + some.length < commands.length ? at + some.length : -1 };
  });
  stops.measure(what('iptables-restore --test'), change(engine, commands, true));
  stops.measure(what('iptables-restore'), change(engine, commands));
  for (const name of ['iptables -S', 'iptables -S, again'])
    stops.measure(what(name), (cursor) => {
      const result = engine.filter.page('filter', cursor, RULES);
      return { result, next: result.next };
    });
  const some: readonly [string, TableCommand][] = [
    ['iptables -A', append(count)],
    ['iptables -A, again', append(count + 1)],
    ['iptables -I', { ...append(count + 2), op: 'insert', at: 1 } as TableCommand],
    ['iptables -C of the last', { ...append(count + 1), op: 'check' } as TableCommand],
    ['iptables -D of the last', { ...append(count + 1), op: 'delete' } as TableCommand],
    ['iptables -D 1', { op: 'delete-at', chain: 'FORWARD', at: 1 }],
    ['iptables -Z', { op: 'zero' }],
    ['iptables -N', { op: 'new-chain', chain: 'more' }],
    ['iptables -E', { op: 'rename-chain', chain: 'more', to: 'other' }],
    ['iptables -X', { op: 'delete-chain' }],
  ];
  for (const [name, command] of some) stops.measure(what(name), change(engine, [command]));
  const pieces = readRules(engine)[Symbol.iterator]();
  stops.measure(what('kept for the next life'), () => ({ result: null, next: pieces.next().done === true ? -1 : 0 }));
  stops.measure(what('iptables -F'), change(engine, [{ op: 'flush' }]));
  stops.close();
  return stops.report();
}

function main(): number {
  const { values } = parseArgs({ options: { rules: { type: 'string', default: '10000,50000' } } });
  const rig = new Rig({ ...FEW, what: '' });
  rig.prepare();
  const isTooLong = values.rules.split(',').map((count) => measure(rig.engine, Number(count)));
  return isTooLong.includes(true) ? 1 : 0;
}

process.exitCode = main();
