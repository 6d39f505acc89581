/** Chains and rules as a table keeps them. */
import type { Hook } from '../hooks/hooks.ts';
import type { NewRule, Policy } from '../model/iptables.ts';
import { type CompiledRule, compileRule } from './compile.ts';
import type { MatchExtension, TargetExtension } from './extension.ts';
import { parseRule } from './parse.ts';
import type { Rule } from './rule.ts';
import { saveRule } from './save.ts';

export interface StoredRule {
  readonly words: readonly string[];
  readonly rule: Rule;
  readonly compiled: CompiledRule;
  readonly needsConntrack: boolean;
  readonly needsLabels: boolean;
  /** Hooks (bits) for which it was found to be legal; -1: not looked at yet. */
  isLegalFor: number;
  /** What it began with; what it has counted since stands in the program's counters. */
  readonly packets: number;
  readonly bytes: number;
  /** While a table is being changed: its row in the program as it was before; -1: it was not in it. */
  row: number;
}

export interface Chain {
  readonly name: string;
  /** Null of a user's chain. */
  readonly hook: Hook | null;
  policy: Policy;
  rules: StoredRule[];
  /** Of the policy, as for rules. */
  packets: number;
  bytes: number;
}

export function newChain(name: string, hook: Hook | null): Chain {
  return { name, hook, policy: 'ACCEPT', rules: [], packets: 0, bytes: 0 };
}

/** How many rules jump to each chain, by its name. */
export function countReferences(chains: readonly Chain[]): Map<string, number> {
  const counts = new Map<string, number>();
  for (const { rules } of chains) {
    for (const { rule } of rules) {
      if (rule.target.kind === 'chain') counts.set(rule.target.name, (counts.get(rule.target.name) ?? 0) + 1);
    }
  }
  return counts;
}

/** @throws BadRule */
export function storeRule({ words, counters }: NewRule): StoredRule {
  const rule = parseRule(words);
  return {
    words: saveRule(rule),
    rule,
    compiled: compileRule(rule),
    needsConntrack: usesOf(rule).some(({ extension, options }) => needsConntrack(extension, options)),
    needsLabels: usesOf(rule).some(({ extension }) => extension.needsLabels === true),
    isLegalFor: -1,
    packets: counters?.packets ?? 0,
    bytes: counters?.bytes ?? 0,
    row: -1,
  };
}

/** The matches of a rule, and its target where that is an extension. */
export function usesOf({ matches, target }: Rule): readonly Use[] {
  return target.kind === 'extension' ? [...matches, target] : matches;
}

interface Use {
  readonly extension: MatchExtension | TargetExtension;
  readonly options: unknown;
}

export function needsConntrack(extension: MatchExtension | TargetExtension, options: unknown): boolean {
  return extension.needsConntrack?.(options) === true;
}
