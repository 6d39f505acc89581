/** A parsed line → what the daemon is to do with the table. */
import type { CommandLine } from '../../filter/parse.ts';
import { saveRule } from '../../filter/save.ts';
import type { NewRule, TableCommand } from '../../model/iptables.ts';

/** None for lines that only list. */
export function tableCommands(line: CommandLine): TableCommand[] {
  const { command, number: at, counters } = line;
  const chain = line.chain ?? '';
  const rules = line.rules.map((rule): NewRule => ({ words: saveRule(rule), counters }));
  switch (command) {
    case 'A':
      return rules.map((rule) => ({ op: 'append', chain, rule }));
    case 'I':
      // Each at the same place: the last one stands first.
      return rules.map((rule) => ({ op: 'insert', chain, at, rule }));
    case 'R':
      return rules.map((rule) => ({ op: 'replace', chain, at, rule }));
    case 'D':
      return rules.map((rule) => ({ op: 'delete', chain, rule }));
    case 'C':
      return rules.map((rule) => ({ op: 'check', chain, rule }));
    case 'd':
      return [{ op: 'delete-at', chain, at }];
    case 'F':
      return [{ op: 'flush', chain: line.chain }];
    case 'Z':
      return [{ op: 'zero', chain: line.chain }];
    case 'z':
      return [{ op: 'zero', chain: line.chain, at }];
    case 'N':
      return [{ op: 'new-chain', chain }];
    case 'X':
      return [{ op: 'delete-chain', chain: line.chain }];
    case 'E':
      return [{ op: 'rename-chain', chain, to: line.newName }];
    case 'P':
      return [{ op: 'policy', chain, policy: line.policy, counters }];
    case 'L':
    case 'S':
      if (line.alsoZero === false) return [];
      return [{ op: 'zero', chain: line.chain, ...(line.alsoZero === 'rule' ? { at } : {}) }];
  }
}
