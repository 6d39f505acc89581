/** Chance as an argument: the engine owns one generator, tests seed theirs. */
export interface Rng {
  /** All that it remembers: whoever takes over another one's goes on as that one would. */
  state: number;
  /** Uniform int32. */
  next(): number;
  /** Another one that goes on as this one would. */
  fork(): Rng;
}

/** xorshift32 (Marsaglia 2003, triple 13/17/5): not for secrets, repeatable from its seed. */
export class SeededRng implements Rng {
  state: number;
  constructor(seed: number) {
    this.state = seed | 0 || 0x9e3779b9 | 0;
  }
  next(): number {
    let x = this.state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.state = x;
    return x;
  }
  fork(): SeededRng {
    return new SeededRng(this.state);
  }
}
