/** A scheduler of a copied director: forked from the live one when it is first asked. */
import type { Choice, Scheduler, SchedulerContext } from './scheduler.ts';

export class ForkedScheduler implements Scheduler {
  readonly #live: Scheduler;
  readonly #context: SchedulerContext;
  #own: Scheduler | null = null;

  constructor(live: Scheduler, context: SchedulerContext) {
    this.#live = live;
    this.#context = context;
  }

  #fork(): Scheduler {
    this.#own ??= this.#live.fork(this.#context);
    return this.#own;
  }

  pick(source: number, destination: number, ports: number): number {
    return this.#fork().pick(source, destination, ports);
  }

  explain(source: number, destination: number, ports: number): Choice {
    return this.#fork().explain(source, destination, ports);
  }

  fork(context: SchedulerContext): Scheduler {
    return this.#fork().fork(context);
  }
}
