/**
 * Where big tables get their memory. It is an argument, because the best memory comes from the addon: on 2 MiB pages a table of a million rows that is walked
 * at random misses the TLB far less (bench/micro, subjects `flows` and `flows-active`). What has a name can be kept for the daemon's next life (keep.ts).
 */
export type Allocate = (bytes: number, name?: string) => Span;

/** A piece of memory, all zero, on a multiple of eight bytes. */
export interface Span {
  readonly buffer: ArrayBuffer;
  readonly at: number;
}

/** Plain memory: zeros that become resident as they are touched. */
export const plainMemory: Allocate = (bytes) => wholeOf(new ArrayBuffer(bytes));

export function wholeOf(buffer: ArrayBuffer): Span {
  return { buffer, at: 0 };
}

export function int32Of({ buffer, at }: Span, length: number): Int32Array {
  return new Int32Array(buffer, at, length);
}

export function int16Of({ buffer, at }: Span, length: number): Int16Array {
  return new Int16Array(buffer, at, length);
}

export function uint16Of({ buffer, at }: Span, length: number): Uint16Array {
  return new Uint16Array(buffer, at, length);
}

export function uint8Of({ buffer, at }: Span, length: number): Uint8Array {
  return new Uint8Array(buffer, at, length);
}

/** The columns of one table, each a typed array with a name: `connections.rows`. */
export class Columns {
  readonly #allocate: Allocate;
  readonly #table: string;

  constructor(table: string, allocate: Allocate = plainMemory) {
    this.#allocate = allocate;
    this.#table = table;
  }

  int32(name: string, length: number): Int32Array {
    return int32Of(this.#memory(name, length * 4), length);
  }

  uint32(name: string, length: number): Uint32Array {
    const { buffer, at } = this.#memory(name, length * 4);
    return new Uint32Array(buffer, at, length);
  }

  uint16(name: string, length: number): Uint16Array {
    const { buffer, at } = this.#memory(name, length * 2);
    return new Uint16Array(buffer, at, length);
  }

  uint8(name: string, length: number): Uint8Array {
    const { buffer, at } = this.#memory(name, length);
    return new Uint8Array(buffer, at, length);
  }

  float64(name: string, length: number): Float64Array {
    const { buffer, at } = this.#memory(name, length * 8);
    return new Float64Array(buffer, at, length);
  }

  #memory(name: string, bytes: number): Span {
    return this.#allocate(bytes, `${this.#table}.${name}`);
  }
}
