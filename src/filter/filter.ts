/**
 * Packet filtering: the five tables of iptables and their place in the hooks. A table is registered as soon as somebody has asked for it, be it only for a list (xt_find_table_lock).
 *
 *   raw −300 │ mangle −150 │ filter 0 │ security 50           at the hooks of their built-in chains
 *   nat                                                       asked by NAT itself, once per connection
 */
import { finish, type Steps } from '../base/slices.ts';
import { Hook, type HookFunction, type HookOp, type Hooks, Priority, Verdict } from '../hooks/hooks.ts';
import type { ChainRow, TableChange, TableName, TableOutcome, TablePage, TableRow } from '../model/iptables.ts';
import type { Nat } from '../nat/nat.ts';
import { Drop } from '../packet/drop.ts';
import type { Packet } from '../packet/packet.ts';
import { dst } from '../wire/ipv4.ts';
import { compile, goOnCounting } from './compile.ts';
import type { Conditions, HostConditions } from './conditions.ts';
import { type Listed, pageOf, Table } from './table.ts';
import type { Tracking } from './tracking.ts';
import { Walk } from './traverse.ts';

const PRIORITIES: Readonly<Partial<Record<TableName, number>>> = {
  raw: Priority.Raw,
  mangle: Priority.Mangle,
  filter: Priority.Filter,
  security: Priority.Security,
};

const WHY: Readonly<Partial<Record<TableName, string>>> = {
  raw: 'before connection tracking: what it shall not see, or see otherwise',
  mangle: 'marks, and what else is changed in packets',
  filter: 'what may pass',
  security: 'what may pass, said by another authority',
};

/** A table, its form for packets, and its functions at the hooks. */
class Entry {
  readonly table: Table;
  walk: Walk | null = null;
  ops: readonly HookOp[] = [];

  constructor(name: TableName) {
    this.table = new Table(name);
  }
}

export class Filter {
  readonly #hooks: Hooks;
  readonly #conditions: { -readonly [K in keyof Conditions]: Conditions[K] };
  readonly #tables: Readonly<Record<TableName, Entry>> = {
    raw: new Entry('raw'),
    mangle: new Entry('mangle'),
    nat: new Entry('nat'),
    filter: new Entry('filter'),
    security: new Entry('security'),
  };
  #hasTracking = false;
  #hasNat = false;
  /** The nat table has been in use: what its rules translated goes on without them while there is tracking, as the kernel's table stays once it is there. */
  #hadNat = false;
  /** Tables that somebody has asked for, the latest first: the order of /proc/net/ip_tables_names. */
  #known: TableName[] = [];

  constructor(hooks: Hooks, conditions: HostConditions) {
    this.#hooks = hooks;
    this.#conditions = { ...conditions, tracking: null, nat: null };
  }

  get hadNat(): boolean {
    return this.#hadNat;
  }

  /** In an earlier life of the daemon the nat table was in use. */
  recallNat(): void {
    this.#hadNat = true;
    this.#askForTracking();
  }

  /** There is connection tracking, and translation, from now on. */
  connect(tracking: Tracking, nat: Nat): void {
    this.#conditions.tracking = tracking;
    this.#conditions.nat = nat;
    nat.lookup = (p, hook) => this.#tables.nat.walk?.run(p, hook) ?? Verdict.Accept;
  }

  /** Do all of it, or nothing. */
  change(change: TableChange): TableOutcome {
    return finish(this.changeInSteps(change));
  }

  /** The same with pauses, in which packets meet the old rules. No other change may begin before its end. */
  *changeInSteps({ table: name, commands, isTest = false }: TableChange): Steps<TableOutcome> {
    const entry = this.#know(name);
    const { table } = entry;
    yield* table.number();
    const chains = yield* table.draft(commands, this.#conditions.tracking);
    if ('fault' in chains) return chains;
    if (isTest || chains === table.chains) return null;
    const compiled = yield* compile(chains);
    const walk = new Walk(compiled.program, compiled.counters, this.#conditions);
    yield;
    // From here on without a pause.
    if (entry.walk !== null) goOnCounting(compiled, entry.walk.counters);
    table.adopt(chains, compiled.needs);
    this.#use(entry, walk);
    this.#askForTracking();
    return null;
  }

  /** A whole table. It may be long: whoever shall not stop packets asks for pages. */
  list(name: TableName): TableRow {
    return { name, chains: this.page(name, 0, Infinity).chains };
  }

  /** @param cursor 0, or `next` of the page before; nothing of it holds after a change of the table */
  page(name: TableName, cursor: number, limit: number): TablePage {
    return pageOf(this.#listed(name), cursor, limit);
  }

  /** All of a table as it is now, whatever becomes of it in pauses between two pages. */
  *pages(name: TableName, limit: number): Iterable<readonly ChainRow[]> {
    const listed = this.#listed(name);
    for (let cursor = 0; cursor >= 0; ) {
      const { chains, next } = pageOf(listed, cursor, limit);
      yield chains;
      cursor = next;
    }
  }

  #listed(name: TableName): Listed {
    const { table, walk } = this.#know(name);
    return { chains: table.chains, references: table.references, counters: walk?.counters ?? null };
  }

  get knownTables(): readonly TableName[] {
    return this.#known;
  }

  /** Devices came or went. */
  devicesChanged(): void {
    for (const { walk } of Object.values(this.#tables)) walk?.nameDevices((id) => this.#conditions.deviceName(id));
  }

  /** For questions: the same rules, counters of its own. */
  copyFrom(live: Filter): void {
    for (const name of Object.keys(this.#tables) as TableName[]) {
      const { table, walk } = live.#tables[name];
      const own = this.#tables[name];
      own.table.adopt(table.chains, table.needs);
      if (walk === null) continue;
      const { count } = walk.program;
      const counters = { packets: new Float64Array(count), bytes: new Float64Array(count) };
      this.#use(own, new Walk(walk.program, counters, this.#conditions));
    }
    this.#hadNat = live.#hadNat;
    this.#askForTracking();
  }

  /** The rule, or policy, at which the last packet's way through a table ended: `-A INPUT -s 10.0.0.1/32 -j DROP`. */
  lastRule(
    name: TableName,
  ): { readonly chain: string; readonly number: number; readonly words: readonly string[] } | null {
    const { table, walk } = this.#tables[name];
    if (walk === null) return null;
    let row = walk.last;
    for (const { name: chain, rules, policy } of table.chains) {
      const rule = rules[row];
      if (rule !== undefined) return { chain, number: row + 1, words: rule.words };
      if (row === rules.length) return { chain, number: 0, words: ['-P', policy] };
      row -= rules.length + 1;
    }
    return null;
  }

  #know(name: TableName): Entry {
    const entry = this.#tables[name];
    if (this.#known.includes(name)) return entry;
    this.#known = [name, ...this.#known];
    // Its policies count from now on; with the nat table connections are translated to what they are.
    const { program, counters } = finish(compile(entry.table.chains));
    this.#use(entry, new Walk(program, counters, this.#conditions));
    if (name === 'nat') {
      this.#hadNat = true;
      this.#askForTracking();
    }
    return entry;
  }

  /** Hold connection tracking while a rule needs it, and with it translation, once the nat table has had something to say. */
  #askForTracking(): void {
    const { tracking, nat } = this.#conditions;
    const tables = Object.values(this.#tables).map(({ table }) => table);
    const wantsTracking = tracking !== null && tables.some((table) => table.needs.conntrack);
    const wantsNat = nat !== null && wantsTracking && this.#hadNat;
    tracking?.keepLabels(tables.some((table) => table.needs.labels));
    if (wantsTracking && !this.#hasTracking) tracking.acquire();
    if (wantsNat && !this.#hasNat) nat.acquire();
    if (!wantsNat && this.#hasNat) nat?.release();
    if (!wantsTracking && this.#hasTracking) tracking?.release();
    this.#hasTracking = wantsTracking;
    this.#hasNat = wantsNat;
  }

  #use(entry: Entry, walk: Walk): void {
    entry.walk = walk;
    if (entry.ops.length > 0) return;
    const { name, chains } = entry.table;
    const priority = PRIORITIES[name];
    if (priority === undefined) return;
    entry.ops = chains.flatMap(({ hook }): HookOp[] => (hook === null ? [] : [this.#op(entry, hook, priority)]));
    this.#hooks.register(entry.ops);
  }

  #op(entry: Entry, hook: Hook, priority: number): HookOp {
    const { name } = entry.table;
    const run: HookFunction =
      name === 'mangle' && hook === Hook.LocalOut
        ? (p) => mangleOut(entry.walk!, p, this.#conditions)
        : (p) => entry.walk!.run(p, hook);
    return { hook, priority, name: `filter/${name}`, why: WHY[name]!, run };
  }
}

/**
 * A packet that gets another mark is routed anew, by its destination, whatever way had been chosen for it (ipt_mangle_out, ip_route_me_harder): what direct routing
 * sends to a real server comes back to the service's address, which is ours.
 */
function mangleOut(walk: Walk, p: Packet, { routing }: Conditions): Verdict {
  const { mark } = p;
  const verdict = walk.run(p, Hook.LocalOut);
  if (p.mark === mark || verdict === Verdict.Drop || verdict === Verdict.Stolen) return verdict;
  if (!routing.resolve(dst(p.view, p.l3))) {
    p.drop = Drop.NoRoute;
    return Verdict.Drop;
  }
  if (routing.nexthop !== p.nexthop || routing.outDevice !== p.outDevice) p.nexthop = 0;
  return verdict;
}
