/** For tests: memory that outlives a life without a process that ends. */
import { KEEP_SIZE, type MapMemory } from './keep.ts';

/** A sparse file in plain memory. Whoever maps the same place again gets what lies there. */
export class MemoryFile {
  readonly parts = new Map<number, ArrayBuffer>();

  readonly map: MapMemory = (offset, bytes) => {
    if (offset % 4096 !== 0 || offset + bytes > KEEP_SIZE) throw new Error(`no such place: ${offset}`);
    const part = this.parts.get(offset) ?? new ArrayBuffer(bytes);
    if (part.byteLength !== bytes) throw new Error(`${bytes} bytes at ${offset}, where ${part.byteLength} lie`);
    this.parts.set(offset, part);
    return part;
  };
}
