/** Copies of stateful objects for a question that must change nothing: what is plain is copied here, what is not copies itself. Not per packet. */

/** Makes itself equal to another one of its kind, as far as a packet could tell. */
export interface Copyable<T> {
  copyFrom(live: T): void;
}

type Column = Int32Array | Uint32Array | Uint8Array | Uint16Array | Int16Array | Float64Array;

/**
 * Copies the public fields of `live` to `copy`, an object of the same class: numbers, booleans and texts; typed arrays (columns of a table: of the first `rows` of
 * the live one's `capacity` rows only; a copy may have room for no more); what has `copyFrom`. Everything else, what is private, and the fields `except`, is
 * the caller's.
 */
export function copyState<T extends object>(
  copy: T,
  live: T,
  rows = 1,
  capacity = 1,
  except: readonly (keyof T)[] = [],
): void {
  for (const key of Object.keys(live) as (keyof T)[]) {
    if (except.includes(key)) continue;
    const value: unknown = live[key];
    if (typeof value === 'number' || typeof value === 'boolean' || typeof value === 'string') {
      copy[key] = live[key];
    } else if (ArrayBuffer.isView(value) && !(value instanceof DataView)) {
      copyRows(copy[key] as Column, value as Column, rows, capacity);
    } else if (typeof value === 'object' && value !== null && 'copyFrom' in value) {
      (copy[key] as Copyable<unknown>).copyFrom(value);
    }
  }
}

/** The first `rows` of `capacity` rows. */
export function copyRows(copy: Column, live: Column, rows: number, capacity: number): void {
  copy.set(live.subarray(0, (live.length / capacity) * rows));
}

/** One row of every public column, at the same place. */
export function adoptRow<T extends object>(copy: T, live: T, row: number, capacity: number): void {
  for (const key of Object.keys(live) as (keyof T)[]) {
    const column: unknown = live[key];
    if (!ArrayBuffer.isView(column) || column instanceof DataView) continue;
    const from = column as Column;
    const width = from.length / capacity;
    for (let i = row * width; i < (row + 1) * width; i++) (copy[key] as Column)[i] = from[i]!;
  }
}
