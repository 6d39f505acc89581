/** Changes of iptables' tables on their way to the worker: one after the other, long ones a few commands at a time. */
import type { TableChange, TableOutcome } from '../model/iptables.ts';
import type { Engine } from './engine-client.ts';

/** Commands in one message: reading it takes the worker well below a millisecond. */
const COMMANDS = 128;

export class RuleChanges {
  readonly #engine: Engine;
  #last: Promise<unknown> = Promise.resolve();

  constructor(engine: Engine) {
    this.#engine = engine;
  }

  /** All or nothing. */
  change(change: TableChange): Promise<TableOutcome> {
    const outcome = this.#last.then(() => this.#send(change));
    this.#last = outcome.catch(() => {});
    return outcome;
  }

  async #send({ commands, ...change }: TableChange): Promise<TableOutcome> {
    let at = 0;
    for (; commands.length - at > COMMANDS; at += COMMANDS) {
      await this.#engine.call('stage-rules', { at, commands: commands.slice(at, at + COMMANDS) });
    }
    return this.#engine.call('change-table', { ...change, at, commands: commands.slice(at) });
  }
}
