/**
 * Work that would stop the data path for too long if it were done in one go: a generator that yields wherever a pause is welcome. Who owns the loop runs some of it
 * between two breaths.
 */
export type Steps<T> = Generator<undefined, T>;

/** Marks an answer as one that is still being made. */
export class Slices<T> {
  readonly #steps: Steps<T>;

  constructor(steps: Steps<T>) {
    this.#steps = steps;
  }

  /** Go on to the next pause. Undefined: there is more to do. */
  next(): { readonly value: T } | undefined {
    const { done, value } = this.#steps.next();
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

/** All of it now. */
export function finish<T>(steps: Steps<T>): T {
  for (;;) {
    const { done, value } = steps.next();
    if (done === true) return value;
  }
}
