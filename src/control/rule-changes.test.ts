import { afterEach, describe, expect, it } from 'vitest';
import type { TableCommand } from '../model/iptables.ts';
import { RuleChanges } from './rule-changes.ts';
import { ControlRig } from './test-rig.ts';

const rig = new ControlRig();
const rules = new RuleChanges(rig);
afterEach(() => rig.close());

const append = (chain: string, port: number): TableCommand => ({
  op: 'append',
  chain,
  rule: { words: ['-p', 'tcp', '-m', 'tcp', '--dport', String(port), '-j', 'DROP'] },
});
const many = (chain: string, count: number): TableCommand[] =>
  Array.from({ length: count }, (_, i) => append(chain, i + 1));
const lengths = () => rig.engine.filter.list('filter').chains.map((chain) => chain.rules.length);

describe('changes of a table', () => {
  it('come whole and one after the other, however long they are', async () => {
    const outcomes = await Promise.all([
      rules.change({ table: 'filter', commands: many('INPUT', 1000) }),
      rules.change({ table: 'filter', commands: [...many('FORWARD', 400), append('nowhere', 1)] }),
      rules.change({ table: 'filter', commands: many('OUTPUT', 128) }),
    ]);
    expect(outcomes).toEqual([null, { index: 400, fault: 'ENOENT', what: undefined }, null]);
    expect(lengths()).toEqual([1000, 0, 128]);
  });

  it('are not met half-way by whoever lists the table', async () => {
    const [, before, , after] = await Promise.all([
      rules.change({ table: 'mangle', commands: many('INPUT', 1500) }),
      rules.list('mangle'),
      rules.change({ table: 'mangle', commands: [{ op: 'flush' }, ...many('OUTPUT', 3)] }),
      rules.list('mangle'),
    ]);
    const rows = (table: typeof before) => table.chains.map((chain) => [chain.name, chain.rules.length]);
    expect(rows(before)).toEqual([
      ['PREROUTING', 0],
      ['INPUT', 1500],
      ['FORWARD', 0],
      ['OUTPUT', 0],
      ['POSTROUTING', 0],
    ]);
    expect(after).toEqual(rig.engine.filter.list('mangle'));
  });

  it('are refused when commands that came before are lost', async () => {
    await rig.call('stage-rules', { at: 0, commands: many('INPUT', 3) });
    await rig.call('stage-rules', { at: 0, commands: many('INPUT', 2) });
    await expect(rig.call('change-table', { table: 'raw', at: 3, commands: [] })).rejects.toThrow('3 commands');
    await expect(rig.call('change-table', { table: 'raw', at: 2, commands: [] })).rejects.toThrow('2 commands');
  });
});
