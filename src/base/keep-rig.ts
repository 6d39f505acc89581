/** For tests: memory that outlives a life without a process that ends. */
import { KEEP_SIZE, type MapMemory } from './keep.ts';

/** Bytes behind a place: more than all columns of a test's tables, and less than whoever spares mappings asks for. */
const MOST = 2 ** 22;

/** A sparse file in plain memory. Whoever maps a place again, or a part of it, gets what lies there. */
export class MemoryFile {
  readonly parts = new Map<number, ArrayBuffer>();

  readonly map: MapMemory = (offset, bytes) => {
    if (offset % 4096 !== 0 || offset + bytes > KEEP_SIZE) throw new Error(`no such place: ${offset}`);
    for (const [from, part] of this.parts) {
      if (from <= offset && offset + bytes <= from + part.byteLength) return { buffer: part, at: offset - from };
      if (from < offset + bytes && offset < from + part.byteLength)
        throw new Error(`${bytes} bytes at ${offset}, and ${part.byteLength} at ${from}`);
    }
    const part = new ArrayBuffer(Math.min(bytes, MOST));
    this.parts.set(offset, part);
    return { buffer: part, at: 0 };
  };
}
