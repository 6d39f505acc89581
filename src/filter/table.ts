/** One table: its chains, what they have counted, and how they are listed. A change is made to a draft, which takes their place when all of it could be done. */
import type { Steps } from '../base/slices.ts';
import { Hook } from '../hooks/hooks.ts';
import {
  BUILT_IN_CHAINS,
  type ChainRow,
  type TableCommand,
  type TableName,
  type TableOutcome,
} from '../model/iptables.ts';
import { type Chain, countReferences, newChain } from './chain.ts';
import { Draft, Refusal } from './draft.ts';
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

export type Refused = Exclude<TableOutcome, null>;

export class Table {
  readonly name: TableName;
  /** Built-in ones first, then the users' by name. */
  chains: readonly Chain[];

  constructor(name: TableName) {
    this.name = name;
    this.chains = BUILT_IN_CHAINS[name].map((chain) => newChain(chain, HOOK_OF[chain]!));
  }

  /** Does anything in it differ from an empty table? */
  get isInUse(): boolean {
    return this.chains.some((chain) => chain.rules.length > 0 || chain.policy !== 'ACCEPT');
  }

  /** Does one of its rules need connection tracking? */
  get needsConntrack(): boolean {
    return this.chains.some(({ rules }) => rules.some((rule) => rule.needsConntrack));
  }

  /** Does one of its rules look at labels, or set them? */
  get needsLabels(): boolean {
    return this.chains.some(({ rules }) => rules.some((rule) => rule.needsLabels));
  }

  /** Take over what the program has counted. */
  count({ packets, bytes }: Counters): void {
    let row = 0;
    for (const chain of this.chains) {
      const { rules } = chain;
      for (let i = 0; i < rules.length; i++) {
        const rule = rules[i]!;
        rule.packets = packets[row]!;
        rule.bytes = bytes[row]!;
        row++;
      }
      chain.packets = packets[row]!;
      chain.bytes = bytes[row]!;
      row++;
    }
  }

  /** Let new counters go on from what was counted. */
  tell({ packets, bytes }: Counters): void {
    let row = 0;
    for (const chain of this.chains) {
      const { rules } = chain;
      for (let i = 0; i < rules.length; i++) {
        const rule = rules[i]!;
        packets[row] = rule.packets;
        bytes[row] = rule.bytes;
        row++;
      }
      if (chain.hook !== null) {
        packets[row] = chain.packets;
        bytes[row] = chain.bytes;
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
        draft.run(command);
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

  list(): ChainRow[] {
    const references = countReferences(this.chains);
    return this.chains.map((chain) => ({
      name: chain.name,
      policy: chain.hook === null ? null : chain.policy,
      packets: chain.hook === null ? 0 : chain.packets,
      bytes: chain.hook === null ? 0 : chain.bytes,
      references: references.get(chain.name) ?? 0,
      rules: chain.rules.map(({ words, packets, bytes }) => ({ words, packets, bytes })),
    }));
  }
}
