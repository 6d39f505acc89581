/**
 * Work that would stop the data path for too long if it were done in one go: a generator that yields wherever a pause is welcome. Who owns the loop runs some of it
 * between two breaths.
 */
export type Steps<T> = Generator<undefined, T>;

/** The same of a long list, of which some rows come at a pause, and the last in the end. */
export type ListSteps<Row> = Generator<readonly Row[] | undefined, readonly Row[]>;

/** Marks an answer as one that is still being made. */
export class Slices<T> {
  readonly #steps: Generator<readonly unknown[] | undefined, T>;
  /** Of a list: rows that came with the last pause. */
  part: readonly unknown[] | null = null;

  constructor(steps: Generator<readonly unknown[] | undefined, T>) {
    this.#steps = steps;
  }

  /** Go on to the next pause. Undefined: there is more to do. */
  next(): { readonly value: T } | undefined {
    const { done, value } = this.#steps.next();
    this.part = done === true ? null : (value ?? null);
    return done === true ? { value } : undefined;
  }
}

/** How long a piece of work may go on; asked every few steps of it. */
export interface Budget {
  begin(): void;
  readonly isSpent: boolean;
}

export const NO_END: Budget = { begin() {}, isSpent: false };

/** So many milliseconds. */
export class TimeBudget implements Budget {
  readonly #ms: number;
  readonly #now: () => number;
  #end = 0;

  constructor(ms: number, now: () => number) {
    this.#ms = ms;
    this.#now = now;
  }

  begin(): void {
    this.#end = this.#now() + this.#ms;
  }

  get isSpent(): boolean {
    return this.#now() >= this.#end;
  }
}

/** All rows of a list now. */
export function finishList<Row>(steps: ListSteps<Row>): Row[] {
  const rows: Row[] = [];
  for (;;) {
    const { done, value } = steps.next();
    for (const row of value ?? []) rows.push(row);
    if (done === true) return rows;
  }
}

/** All of it now. */
export function finish<T>(steps: Steps<T>): T {
  for (;;) {
    const { done, value } = steps.next();
    if (done === true) return value;
  }
}
