/** One table: its chains, what they have counted, and how they are listed. A change is made to a draft, which takes their place when all of it could be done. */
import type { Steps } from '../base/slices.ts';
import { Hook } from '../hooks/hooks.ts';
import {
  BUILT_IN_CHAINS,
  type ChainRow,
  type RuleCounters,
  type RuleRow,
  type TableCommand,
  type TableName,
  type TableOutcome,
  type TablePage,
} from '../model/iptables.ts';
import { type Chain, countReferences, newChain, type StoredRule } from './chain.ts';
import { Draft, isLong, Refusal } from './draft.ts';
import { BadRule } from './extension.ts';
import type { Counters } from './program.ts';
import type { Tracking } from './tracking.ts';

const HOOK_OF: Readonly<Record<string, Hook>> = {
  PREROUTING: Hook.PreRouting,
  INPUT: Hook.LocalIn,
  FORWARD: Hook.Forward,
  OUTPUT: Hook.LocalOut,
  POSTROUTING: Hook.PostRouting,
};

/** Commands run between two pauses. */
const COMMANDS = 64;
/** Rules numbered between two pauses. */
const NUMBERED = 4096;

/** What its rules need together. */
export interface Needs {
  readonly conntrack: boolean;
  readonly labels: boolean;
}

export type Refused = Exclude<TableOutcome, null>;

export class Table {
  readonly name: TableName;
  /** Built-in ones first, then the users' by name. */
  chains: readonly Chain[];
  needs: Needs = { conntrack: false, labels: false };
  #references: ReadonlyMap<string, number> | null = null;

  constructor(name: TableName) {
    this.name = name;
    this.chains = BUILT_IN_CHAINS[name].map((chain) => newChain(chain, HOOK_OF[chain]!));
  }

  /** Take over the chains of a draft. */
  adopt(chains: readonly Chain[], needs: Needs): void {
    this.chains = chains;
    this.needs = needs;
    this.#references = null;
  }

  /** Rules know their rows, so that a draft's rules can be found in the program that they come from. */
  *number(): Steps<void> {
    let row = 0;
    for (const { rules } of this.chains) {
      for (const rule of rules) {
        rule.row = row;
        if (++row % NUMBERED === 0) yield;
      }
      row++;
    }
  }

  /** What it would be after the commands, or why it cannot be. @param tracking null: rules that need it cannot be had */
  *draft(commands: readonly TableCommand[], tracking: Tracking | null): Steps<Refused | readonly Chain[]> {
    yield;
    const draft = new Draft(this.name, this.chains, tracking);
    yield;
    let index = 0;
    try {
      for (const command of commands) {
        if (isLong(command)) yield* draft.runLong(command);
        else draft.run(command);
        if (++index % COMMANDS === 0) yield;
      }
      index = -1;
      yield;
      yield* draft.check();
    } catch (error) {
      if (error instanceof Refusal) return { index, fault: error.fault, what: error.what };
      if (error instanceof BadRule) return { index, fault: 'BAD-WORDS', what: error.message };
      throw error;
    }
    const isChange = commands.some(({ op }) => op !== 'check');
    return isChange ? draft.chains : this.chains;
  }

  get references(): ReadonlyMap<string, number> {
    this.#references ??= countReferences(this.chains);
    return this.#references;
  }
}

/** A table as it is listed at one moment. @param counters null: nothing counts */
export interface Listed {
  readonly chains: readonly Chain[];
  readonly references: ReadonlyMap<string, number>;
  readonly counters: Counters | null;
}

/** `limit` rows of the program from row `cursor` on; a chain of which only some rules are there goes on in the next page. */
export function pageOf({ chains, references, counters }: Listed, cursor: number, limit: number): TablePage {
  const end = cursor + limit;
  const found: ChainRow[] = [];
  let start = 0;
  for (const chain of chains) {
    const { name, hook, policy, rules } = chain;
    const last = start + rules.length;
    if (last >= cursor && start < end) {
      const rows: RuleRow[] = [];
      for (let row = Math.max(cursor, start); row < Math.min(end, last); row++)
        rows.push(ruleRow(rules[row - start]!, counters, row));
      const counted = hook === null ? NOTHING : countersOf(chain, counters, last);
      found.push({
        name,
        policy: hook === null ? null : policy,
        ...counted,
        references: references.get(name) ?? 0,
        rules: rows,
      });
    }
    start = last + 1;
  }
  return { chains: found, next: end < start ? end : -1 };
}

const NOTHING = { packets: 0, bytes: 0 };

function countersOf(began: RuleCounters, counters: Counters | null, row: number): RuleCounters {
  if (counters === null) return { packets: began.packets, bytes: began.bytes };
  return { packets: counters.packets[row]!, bytes: counters.bytes[row]! };
}

function ruleRow(rule: StoredRule, counters: Counters | null, row: number): RuleRow {
  return { words: rule.words, ...countersOf(rule, counters, row) };
}
