/**
 * What commands make of a table's chains, as libiptc does it, and what the kernel looks at before it takes them (libiptc/libiptc.c; mark_source_chains and
 * find_check_entry in net/ipv4/netfilter/ip_tables.c).
 */
import type { Steps } from '../base/slices.ts';
import type { NewRule, TableCommand, TableFault, TableName } from '../model/iptables.ts';
import { type Chain, countReferences, needsConntrack, newChain, type StoredRule, storeRule, usesOf } from './chain.ts';
import type { Rule } from './rule.ts';
import { saveRule } from './save.ts';
import type { Tracking } from './tracking.ts';

/** Rules checked between two pauses. */
const CHECKED = 64;
/** The same of rules that are only passed by. */
const SEEN = 4096;
/** The same of rules that are compared, or made anew. */
const MET = 1024;

/** Matches of a rule: the kernel's has 64 KiB at most (ipt_entry.next_offset), and the smallest match takes 40 bytes of them. */
const MOST_MATCHES = 1634;
/** Characters of a rule: more than any has that fits into those 64 KiB. */
const LONGEST_RULE = 2 ** 19;

/** Why a command cannot be had; thrown within a draft only, and caught by `Table.draft`. */
export class Refusal extends Error {
  readonly fault: TableFault;
  readonly what: string | undefined;

  constructor(fault: TableFault, what?: string) {
    super(fault);
    this.fault = fault;
    this.what = what;
  }
}

/** Those that look at rule after rule. */
type LongCommand = Extract<TableCommand, { readonly op: 'delete' | 'check' | 'zero' }>;

export function isLong(command: TableCommand): command is LongCommand {
  return command.op === 'delete' || command.op === 'check' || command.op === 'zero';
}

/** Names that no chain can have. */
const VERDICTS = ['ACCEPT', 'DROP', 'QUEUE', 'RETURN'];

/** A copy of the chains, to be changed; the table takes it when all of the commands could be done. */
export class Draft {
  readonly #table: TableName;
  readonly #tracking: Tracking | null;
  #chains: Chain[];
  readonly #byName: Map<string, Chain>;

  constructor(table: TableName, chains: readonly Chain[], tracking: Tracking | null) {
    this.#table = table;
    this.#tracking = tracking;
    // Policies' counters start anew with each change, as libiptc's commit has it; those of rules stay.
    this.#chains = chains.map((chain) => ({ ...chain, rules: [...chain.rules], packets: 0, bytes: 0 }));
    this.#byName = new Map(this.#chains.map((chain) => [chain.name, chain]));
  }

  get chains(): readonly Chain[] {
    return this.#chains;
  }

  run(command: Exclude<TableCommand, LongCommand>): void {
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
      case 'delete-at': {
        const { rules } = this.#get(command.chain);
        if (command.at > rules.length) throw new Refusal('E2BIG');
        rules.splice(command.at - 1, 1);
        return;
      }
      case 'flush':
        for (const chain of this.#some(command.chain)) chain.rules = [];
        return;
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

  /** Commands that look at rule after rule. */
  *runLong(command: LongCommand): Steps<void> {
    if (command.op === 'zero') return yield* this.#zero(command.chain, command.at);
    const stored = this.#read(command.rule);
    const chain = this.#find(command.chain);
    if (chain === undefined) throw new Refusal('NO-RULE');
    const { rule, words } = this.#jumping(stored);
    const { rules } = chain;
    let at = 0;
    for (; at < rules.length && !areEqual(rules[at]!.words, words); at++) if (at % MET === MET - 1) yield;
    // The tool has other words for a rule with a target that is more than a verdict.
    if (at === rules.length)
      throw new Refusal(rule.target.kind === 'verdict' || rule.target.kind === 'none' ? 'NO-RULE' : 'ENOENT');
    if (command.op === 'delete') rules.splice(at, 1);
  }

  /** What the kernel looks at before it takes the whole table: loops, and rules where they must not stand. */
  *check(): Steps<void> {
    const reached = new Map(this.#chains.map((chain) => [chain, new Uint8Array(chain.rules.length)]));
    const builtIn = this.#chains.filter(({ hook }) => hook !== null);
    for (const chain of builtIn) yield* this.#walk(chain, 1 << chain.hook!, reached);
    let seen = 0;
    let checked = 0;
    for (const [{ rules }, hooks] of reached) {
      if (++seen % SEEN === 0) yield;
      for (let i = 0; i < rules.length; i++) {
        if (++seen % SEEN === 0) yield;
        const stored = rules[i]!;
        // Most changes of a table leave most rules where they were.
        if (stored.isLegalFor === hooks[i]) continue;
        const names = builtIn.flatMap(({ hook, name }) => ((hooks[i]! & (1 << hook!)) !== 0 ? [name] : []));
        this.#checkRule(stored.rule, names);
        stored.isLegalFor = hooks[i]!;
        if (++checked % CHECKED === 0) yield;
      }
    }
  }

  /** @param hooks names of the built-in chains from which it is met */
  #checkRule(rule: Rule, hooks: readonly string[]): void {
    const { header, matches } = rule;
    if (matches.length > MOST_MATCHES) throw new Refusal('EINVAL');
    const place = { table: this.#table, hooks, matches };
    for (const { extension, options } of usesOf(rule)) {
      if (extension.isLegal?.(options, header, place) === false) throw new Refusal('EINVAL');
      if (extension.isOutOfRange?.(options) === true) throw new Refusal('ERANGE');
      if (this.#tracking !== null && extension.isMissing?.(options, header, this.#tracking) === true) {
        throw new Refusal('ENOENT');
      }
    }
  }

  /**
   * mark_source_chains: from which hooks (bits) each rule can be met. What stands behind an unconditional verdict cannot. Chains can be as deep as there are many:
   * the way back is a list.
   */
  *#walk(from: Chain, hook: number, reached: ReadonlyMap<Chain, Uint8Array>): Steps<void> {
    const done = new Set<Chain>();
    const onWay = new Set([from]);
    const way = [{ chain: from, hooks: reached.get(from)!, next: 0 }];
    for (let seen = 1; ; seen++) {
      if (seen % SEEN === 0) yield;
      const here = way.at(-1);
      if (here === undefined) return;
      const { chain, hooks } = here;
      const stored = chain.rules[here.next];
      if (stored === undefined) {
        way.pop();
        onWay.delete(chain);
        done.add(chain);
        continue;
      }
      hooks[here.next++]! |= hook;
      const { target } = stored.rule;
      if (target.kind === 'chain') {
        const to = this.#get(target.name);
        if (onWay.has(to)) throw new Refusal('ELOOP');
        if (done.has(to)) continue;
        onWay.add(to);
        way.push({ chain: to, hooks: reached.get(to)!, next: 0 });
      } else if (target.kind === 'verdict' && isUnconditional(stored)) {
        here.next = chain.rules.length;
      }
    }
  }

  /** Parsed, with a target that exists. */
  #read(rule: NewRule): StoredRule {
    if (rule.words.reduce((length, word) => length + word.length + 1, 0) > LONGEST_RULE) throw new Refusal('EINVAL');
    const stored = storeRule(rule);
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
    return this.#byName.get(name);
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
    this.#byName.set(chain.name, chain);
  }

  #remove(some: ReadonlySet<Chain>): void {
    this.#chains = this.#chains.filter((chain) => !some.has(chain));
    for (const { name } of some) this.#byName.delete(name);
  }

  *#zero(name: string | undefined, at: number | undefined): Steps<void> {
    if (name !== undefined && at !== undefined) {
      const { rules } = this.#get(name);
      const rule = rules[at - 1];
      if (rule === undefined) throw new Refusal('E2BIG');
      rules[at - 1] = { ...rule, packets: 0, bytes: 0, row: -1 };
      return;
    }
    for (const chain of this.#some(name)) {
      const { rules } = chain;
      for (const [i, rule] of rules.entries()) {
        rules[i] = { ...rule, packets: 0, bytes: 0, row: -1 };
        if (i % MET === MET - 1) yield;
      }
      [chain.packets, chain.bytes] = [0, 0];
    }
  }

  #deleteChains(name: string | undefined): void {
    if (name !== undefined && this.#find(name)?.hook != null) throw new Refusal('EINVAL');
    const chains = name === undefined ? this.#chains.filter(({ hook }) => hook === null) : [this.#get(name)];
    const references = countReferences(this.#chains);
    // The tool tries them all, and tells what it met last.
    let fault: TableFault | undefined;
    for (const chain of chains) {
      if (references.has(chain.name)) fault = 'EMLINK';
      else if (chain.rules.length > 0) fault = 'ENOTEMPTY';
    }
    if (fault !== undefined) throw new Refusal(fault);
    this.#remove(new Set(chains));
  }

  /** References follow. */
  #rename(name: string, to: string): void {
    if (this.#find(to) !== undefined || VERDICTS.includes(to)) throw new Refusal('EEXIST');
    const chain = this.#find(name);
    if (chain === undefined || chain.hook !== null) throw new Refusal('ENOENT');
    this.#remove(new Set([chain]));
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

/** Only a target: `-j ACCEPT`. To the kernel any device (`-i +`) is a condition, which no word saves. */
function isUnconditional({ words, rule }: StoredRule): boolean {
  return words.length === 2 && rule.header.inDevice === '' && rule.header.outDevice === '';
}

function areEqual(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((word, i) => word === b[i]);
}
