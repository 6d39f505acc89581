/**
 * Memory of copies of the engine, each of which lives for one question (fork.ts). Tables of a million rows are as large in a copy as in the engine, and the question touches
 * a few pages of them: asking the system for the memory, counting it for the garbage collector and giving it back would stop packets for a hundred times as long as the
 * question. So it is mapped once, and only what was touched is made zero again.
 */
import type { Allocate } from '../base/memory.ts';
import { close, mapShared, memfd, zeroShared } from '../device/native.ts';

/** Address space taken at a time; what is not touched costs nothing. */
const REACH = 2 ** 28;
/** Each piece begins on a cache line. */
const LINE = 64;

export class CopyMemory {
  readonly #regions: ArrayBuffer[] = [];
  /** Region that pieces come from, and where the next one begins. */
  #at = 0;
  #used = 0;

  /** Until `clear`. */
  readonly allocate: Allocate = (bytes) => {
    while (this.#at < this.#regions.length && this.#used + bytes > this.#regions[this.#at]!.byteLength) {
      this.#at++;
      this.#used = 0;
    }
    if (this.#at === this.#regions.length) this.#regions.push(region(bytes));
    const piece = { buffer: this.#regions[this.#at]!, at: this.#used };
    this.#used += Math.ceil(bytes / LINE) * LINE;
    return piece;
  };

  /** Nobody has any of it any more. */
  clear(): void {
    for (const buffer of this.#regions) zeroShared(buffer);
    this.#at = 0;
    this.#used = 0;
  }
}

function region(bytes: number): ArrayBuffer {
  const size = Math.ceil(bytes / REACH) * REACH;
  const fd = memfd('tapvs-copy', size);
  try {
    return mapShared(fd, size);
  } finally {
    close(fd);
  }
}
