/**
 * How far apart the fragments of a datagram came, counted in fragments of the same sender (ip_frag_too_far, net/ipv4/ip_fragment.c): after many others the
 * identification may have gone round, and what waits belongs to another datagram.   @hot
 *
 * A row per sender with datagrams under way, in chains by hash; it goes with its last datagram.
 */
import { hash4 } from '../base/hash.ts';

const NONE = -1;

export class FragmentPeers {
  readonly #src: Int32Array;
  readonly #next: Int32Array;
  readonly #users: Int32Array;
  /** Fragments that came. */
  readonly #count: Int32Array;
  readonly #buckets: Int32Array;
  readonly #seed: number;
  #free = 0;

  /** @param capacity rows, a power of two: as many as datagrams */
  constructor(capacity: number, seed: number) {
    this.#src = new Int32Array(capacity);
    this.#next = Int32Array.from({ length: capacity }, (_, i) => (i + 1 < capacity ? i + 1 : NONE));
    this.#users = new Int32Array(capacity);
    this.#count = new Int32Array(capacity);
    this.#buckets = new Int32Array(capacity).fill(NONE);
    this.#seed = seed;
  }

  /** The sender's row, held by one datagram more. */
  acquire(src: number): number {
    const bucket = this.#bucketOf(src);
    let row = this.#buckets[bucket]!;
    while (row !== NONE && this.#src[row] !== src) row = this.#next[row]!;
    if (row === NONE) {
      row = this.#free;
      this.#free = this.#next[row]!;
      this.#src[row] = src;
      this.#count[row] = 0;
      this.#users[row] = 0;
      this.#next[row] = this.#buckets[bucket]!;
      this.#buckets[bucket] = row;
    }
    this.#users[row]!++;
    return row;
  }

  release(row: number): void {
    if (--this.#users[row]! > 0) return;
    const bucket = this.#bucketOf(this.#src[row]!);
    let before = NONE;
    for (let at = this.#buckets[bucket]!; at !== row; at = this.#next[at]!) before = at;
    if (before === NONE) this.#buckets[bucket] = this.#next[row]!;
    else this.#next[before] = this.#next[row]!;
    this.#next[row] = this.#free;
    this.#free = row;
  }

  /** One more of the sender's fragments. Answers its number. */
  count(row: number): number {
    const number = (this.#count[row]! + 1) | 0;
    this.#count[row] = number;
    return number;
  }

  #bucketOf(src: number): number {
    return hash4(this.#seed, src, 0, 0, 0) & (this.#buckets.length - 1);
  }
}
