/**
 * One table: its chains and rules, and what commands do to them, as libiptc and the kernel's checks do it (libiptc/libiptc.c; mark_source_chains and
 * find_check_entry in net/ipv4/netfilter/ip_tables.c). A change is made to a draft, which takes the table's place when all of it could be done.
 */
import type { Steps } from '../base/slices.ts';
import { Hook } from '../hooks/hooks.ts';
import {
  BUILT_IN_CHAINS,
  type ChainRow,
  type NewRule,
  type Policy,
  type TableCommand,
  type TableFault,
  type TableName,
  type TableOutcome,
} from '../model/iptables.ts';
import { type CompiledRule, compileRule } from './compile.ts';
import { BadRule, type MatchExtension, type TargetExtension } from './extension.ts';
import { parseRule } from './parse.ts';
import type { Counters } from './program.ts';
import type { Rule } from './rule.ts';
import { saveRule } from './save.ts';
import type { Tracking } from './tracking.ts';

export interface StoredRule {
  readonly words: readonly string[];
  readonly rule: Rule;
  readonly compiled: CompiledRule;
  readonly needsConntrack: boolean;
  readonly needsLabels: boolean;
  /** Hooks (bits) for which it was found to be legal; -1: not looked at yet. */
  isLegalFor: number;
  /** As of the last look at the program's counters. */
  packets: number;
  bytes: number;
}

export interface Chain {
  readonly name: string;
  /** Null of a user's chain. */
  readonly hook: Hook | null;
  policy: Policy;
  rules: StoredRule[];
  /** Of the policy. */
  packets: number;
  bytes: number;
}

const HOOK_OF: Readonly<Record<string, Hook>> = {
  PREROUTING: Hook.PreRouting,
  INPUT: Hook.LocalIn,
  FORWARD: Hook.Forward,
  OUTPUT: Hook.LocalOut,
  POSTROUTING: Hook.PostRouting,
};

/** Why a command cannot be had; thrown within a draft only, and caught by `Table.change`. */
class Refusal extends Error {
  readonly fault: TableFault;
  readonly what: string | undefined;

  constructor(fault: TableFault, what?: string) {
    super(fault);
    this.fault = fault;
    this.what = what;
  }
}

/** Commands run, or rules checked, between two pauses. */
const COMMANDS = 64;
/** The same of rules that are only passed by. */
const SEEN = 4096;

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

function newChain(name: string, hook: Hook | null): Chain {
  return { name, hook, policy: 'ACCEPT', rules: [], packets: 0, bytes: 0 };
}

function countReferences(chains: readonly Chain[]): Map<string, number> {
  const counts = new Map<string, number>();
  for (const { rules } of chains) {
    for (const { rule } of rules) {
      if (rule.target.kind === 'chain') counts.set(rule.target.name, (counts.get(rule.target.name) ?? 0) + 1);
    }
  }
  return counts;
}

function store({ words, counters }: NewRule): StoredRule {
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
  };
}

/** The matches of a rule, and its target where that is an extension. */
function usesOf({ matches, target }: Rule): readonly Use[] {
  return target.kind === 'extension' ? [...matches, target] : matches;
}

interface Use {
  readonly extension: MatchExtension | TargetExtension;
  readonly options: unknown;
}

function needsConntrack(extension: MatchExtension | TargetExtension, options: unknown): boolean {
  return extension.needsConntrack?.(options) === true;
}

class Draft {
  readonly #table: TableName;
  readonly #tracking: Tracking | null;
  #chains: Chain[];

  constructor(table: TableName, chains: readonly Chain[], tracking: Tracking | null) {
    this.#table = table;
    this.#tracking = tracking;
    // Policies' counters start anew with each change, as libiptc's commit has it; those of rules stay.
    this.#chains = chains.map((chain) => ({ ...chain, rules: [...chain.rules], packets: 0, bytes: 0 }));
  }

  get chains(): readonly Chain[] {
    return this.#chains;
  }

  run(command: TableCommand): void {
    switch (command.op) {
      case 'append': {
        const rule = this.#read(command.rule);
        const { rules } = this.#get(command.chain);
        rules.push(this.#jumping(rule));
        return;
      }
      case 'insert': {
        const rule = this.#read(command.rule);
        const { rules } = this.#get(command.chain);
        if (command.at - 1 > rules.length) throw new Refusal('E2BIG');
        rules.splice(command.at - 1, 0, this.#jumping(rule));
        return;
      }
      case 'replace': {
        const rule = this.#read(command.rule);
        const { rules } = this.#get(command.chain);
        if (command.at > rules.length) throw new Refusal('E2BIG');
        rules[command.at - 1] = this.#jumping(rule);
        return;
      }
      case 'delete':
      case 'check': {
        const stored = this.#read(command.rule);
        const chain = this.#find(command.chain);
        if (chain === undefined) throw new Refusal('NO-RULE');
        const { rule, words } = this.#jumping(stored);
        const { rules } = chain;
        const at = rules.findIndex((other) => areEqual(other.words, words));
        // The tool has other words for a rule with a target that is more than a verdict.
        if (at < 0)
          throw new Refusal(rule.target.kind === 'verdict' || rule.target.kind === 'none' ? 'NO-RULE' : 'ENOENT');
        if (command.op === 'delete') rules.splice(at, 1);
        return;
      }
      case 'delete-at': {
        const { rules } = this.#get(command.chain);
        if (command.at > rules.length) throw new Refusal('E2BIG');
        rules.splice(command.at - 1, 1);
        return;
      }
      case 'flush':
        for (const chain of this.#some(command.chain)) chain.rules = [];
        return;
      case 'zero':
        return this.#zero(command.chain, command.at);
      case 'new-chain':
        if (this.#find(command.chain) !== undefined) throw new Refusal('EEXIST');
        return this.#add(newChain(command.chain, null));
      case 'make-chain': {
        const chain = this.#find(command.chain);
        if (chain === undefined) this.#add(newChain(command.chain, null));
        else chain.rules = [];
        return;
      }
      case 'delete-chain':
        return this.#deleteChains(command.chain);
      case 'rename-chain':
        return this.#rename(command.chain, command.to);
      case 'policy':
        return this.#setPolicy(command);
    }
  }

  /** What the kernel looks at before it takes the whole table: loops, and rules where they must not stand. */
  *check(): Steps<void> {
    const reached = new Map(this.#chains.map((chain) => [chain, new Uint8Array(chain.rules.length)]));
    for (const chain of this.#chains) if (chain.hook !== null) yield* this.#walk(chain, 1 << chain.hook, reached);
    let checked = 0;
    for (const [{ rules }, hooks] of reached) {
      for (let i = 0; i < rules.length; i++) {
        if (i % SEEN === 0) yield;
        const stored = rules[i]!;
        // Most changes of a table leave most rules where they were.
        if (stored.isLegalFor === hooks[i]) continue;
        this.#checkRule(stored.rule, hooks[i]!);
        stored.isLegalFor = hooks[i]!;
        if (++checked % COMMANDS === 0) yield;
      }
    }
  }

  #checkRule(rule: Rule, mask: number): void {
    const { header, matches } = rule;
    const hooks = this.#chains.flatMap(({ hook, name }) => (hook !== null && (mask & (1 << hook)) !== 0 ? [name] : []));
    const place = { table: this.#table, hooks, matches };
    for (const { extension, options } of usesOf(rule)) {
      if (extension.isLegal?.(options, header, place) === false) throw new Refusal('EINVAL');
      if (extension.isOutOfRange?.(options) === true) throw new Refusal('ERANGE');
      if (this.#tracking !== null && extension.isMissing?.(options, header, this.#tracking) === true) {
        throw new Refusal('ENOENT');
      }
    }
  }

  /** mark_source_chains: from which hooks (bits) each rule can be met. What stands behind an unconditional verdict cannot. */
  *#walk(
    chain: Chain,
    hook: number,
    reached: ReadonlyMap<Chain, Uint8Array>,
    done = new Set<Chain>(),
    way = new Set<Chain>(),
  ): Steps<void> {
    if (way.has(chain)) throw new Refusal('ELOOP');
    if (done.has(chain)) return;
    way.add(chain);
    const hooks = reached.get(chain)!;
    const { rules } = chain;
    for (let i = 0; i < rules.length; i++) {
      if (i % SEEN === SEEN - 1) yield;
      hooks[i]! |= hook;
      const { rule, words } = rules[i]!;
      const { target } = rule;
      if (target.kind === 'chain') yield* this.#walk(this.#get(target.name), hook, reached, done, way);
      if (target.kind === 'verdict' && isUnconditional(words)) break;
    }
    way.delete(chain);
    done.add(chain);
  }

  /** Parsed, with a target that exists. */
  #read(rule: NewRule): StoredRule {
    const stored = store(rule);
    const { target } = stored.rule;
    if (this.#tracking === null) {
      const missing = usesOf(stored.rule).find(({ extension, options }) => needsConntrack(extension, options));
      if (missing !== undefined) {
        throw new Refusal(missing === target ? 'NO-TARGET' : 'NO-MATCH', missing.extension.name);
      }
    }
    if (target.kind === 'chain') {
      const chain = this.#find(target.name);
      if (chain === undefined) throw new Refusal(target.isGoto ? 'NO-GOTO' : 'NO-TARGET', target.name);
    }
    return stored;
  }

  /** No rule jumps to a chain that hooks begin with; that is found later than other faults. */
  #jumping(stored: StoredRule): StoredRule {
    const { target } = stored.rule;
    if (target.kind === 'chain' && this.#get(target.name).hook !== null) throw new Refusal('EINVAL');
    return stored;
  }

  #find(name: string): Chain | undefined {
    return this.#chains.find((chain) => chain.name === name);
  }

  #get(name: string): Chain {
    const chain = this.#find(name);
    if (chain === undefined) throw new Refusal('ENOENT');
    return chain;
  }

  #some(name: string | undefined): readonly Chain[] {
    return name === undefined ? this.#chains : [this.#get(name)];
  }

  /** User's chains are in the order of their names (iptcc_chain_index). */
  #add(chain: Chain): void {
    const at = this.#chains.findIndex((other) => other.hook === null && other.name > chain.name);
    this.#chains.splice(at < 0 ? this.#chains.length : at, 0, chain);
  }

  #zero(name: string | undefined, at: number | undefined): void {
    if (name !== undefined && at !== undefined) {
      const { rules } = this.#get(name);
      const rule = rules[at - 1];
      if (rule === undefined) throw new Refusal('E2BIG');
      rules[at - 1] = { ...rule, packets: 0, bytes: 0 };
      return;
    }
    for (const chain of this.#some(name)) {
      chain.rules = chain.rules.map((rule) => ({ ...rule, packets: 0, bytes: 0 }));
      [chain.packets, chain.bytes] = [0, 0];
    }
  }

  #deleteChains(name: string | undefined): void {
    if (name !== undefined && this.#find(name)?.hook != null) throw new Refusal('EINVAL');
    const chains = name === undefined ? this.#chains.filter(({ hook }) => hook === null) : [this.#get(name)];
    for (const chain of chains) {
      if (countReferences(this.#chains).has(chain.name)) throw new Refusal('EMLINK');
      if (chain.rules.length > 0) throw new Refusal('ENOTEMPTY');
      this.#chains = this.#chains.filter((other) => other !== chain);
    }
  }

  /** References follow. */
  #rename(name: string, to: string): void {
    if (this.#find(to) !== undefined) throw new Refusal('EEXIST');
    const chain = this.#find(name);
    if (chain === undefined || chain.hook !== null) throw new Refusal('ENOENT');
    this.#chains = this.#chains.filter((other) => other !== chain);
    this.#add({ ...chain, name: to });
    for (const { rules } of this.#chains) {
      for (const [i, stored] of rules.entries()) {
        const { target } = stored.rule;
        if (target.kind !== 'chain' || target.name !== name) continue;
        const rule = { ...stored.rule, target: { ...target, name: to } };
        rules[i] = { ...stored, rule, words: saveRule(rule) };
      }
    }
  }

  #setPolicy({ chain: name, policy, counters }: Extract<TableCommand, { op: 'policy' }>): void {
    const chain = this.#find(name);
    if (chain === undefined || chain.hook === null) throw new Refusal('NO-BUILT-IN');
    if (policy !== 'ACCEPT' && policy !== 'DROP') throw new Refusal('BAD-POLICY');
    chain.policy = policy;
    if (counters !== undefined) [chain.packets, chain.bytes] = [counters.packets, counters.bytes];
  }
}

/** Only a target: `-j ACCEPT`. */
function isUnconditional(words: readonly string[]): boolean {
  return words.length === 2;
}

function areEqual(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((word, i) => word === b[i]);
}
