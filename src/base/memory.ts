/**
 * Where big tables get their memory. It is an argument, because the best memory comes from the addon: on 2 MiB pages a table of a million rows that is walked
 * at random misses the TLB far less (bench/micro, subjects `flows` and `flows-active`). What has a name can be kept for the daemon's next life (keep.ts).
 */
export type Allocate = (bytes: number, name?: string) => ArrayBuffer;

/** Plain memory: zeros that become resident as they are touched. */
export const plainMemory: Allocate = (bytes) => new ArrayBuffer(bytes);

/** The columns of one table, each a typed array with a name: `connections.rows`. */
export class Columns {
  readonly #allocate: Allocate;
  readonly #table: string;

  constructor(table: string, allocate: Allocate = plainMemory) {
    this.#allocate = allocate;
    this.#table = table;
  }

  int32(name: string, length: number): Int32Array {
    return new Int32Array(this.#memory(name, length * 4));
  }

  uint32(name: string, length: number): Uint32Array {
    return new Uint32Array(this.#memory(name, length * 4));
  }

  uint16(name: string, length: number): Uint16Array {
    return new Uint16Array(this.#memory(name, length * 2));
  }

  uint8(name: string, length: number): Uint8Array {
    return new Uint8Array(this.#memory(name, length));
  }

  float64(name: string, length: number): Float64Array {
    return new Float64Array(this.#memory(name, length * 8));
  }

  #memory(name: string, bytes: number): ArrayBuffer {
    return this.#allocate(bytes, `${this.#table}.${name}`);
  }
}
