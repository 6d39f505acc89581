/** Changes of iptables' tables, and questions for them, on their way to the worker: one after the other, long ones a few commands or rules at a time. */
import type { ChainRow, RuleRow, TableChange, TableName, TableOutcome, TableRow } from '../model/iptables.ts';
import type { Engine } from './engine-client.ts';

/** Commands in one message: reading it takes the worker well below a millisecond. */
export const COMMANDS = 128;

/** Rules in one answer. */
export const RULES = 512;

export class RuleChanges {
  readonly #engine: Engine;
  #last: Promise<unknown> = Promise.resolve();

  constructor(engine: Engine) {
    this.#engine = engine;
  }

  /** All or nothing. */
  change(change: TableChange): Promise<TableOutcome> {
    return this.#inTurn(() => this.#send(change));
  }

  /** A table as it is at one moment, but for its counters. */
  list(name: TableName): Promise<TableRow> {
    return this.#inTurn(() => this.#read(name));
  }

  #inTurn<T>(run: () => Promise<T>): Promise<T> {
    const outcome = this.#last.then(run);
    this.#last = outcome.catch(() => {});
    return outcome;
  }

  async #read(table: TableName): Promise<TableRow> {
    const chains: (ChainRow & { readonly rules: RuleRow[] })[] = [];
    for (let cursor = 0; cursor >= 0; ) {
      const page = await this.#engine.call('list-table', { table, cursor, limit: RULES });
      for (const chain of page.chains) {
        const last = chains.at(-1);
        if (last?.name === chain.name) last.rules.push(...chain.rules);
        else chains.push({ ...chain, rules: [...chain.rules] });
      }
      cursor = page.next;
    }
    return { name: table, chains };
  }

  async #send({ commands, ...change }: TableChange): Promise<TableOutcome> {
    let at = 0;
    for (; commands.length - at > COMMANDS; at += COMMANDS) {
      await this.#engine.call('stage-rules', { at, commands: commands.slice(at, at + COMMANDS) });
    }
    return this.#engine.call('change-table', { ...change, at, commands: commands.slice(at) });
  }
}
