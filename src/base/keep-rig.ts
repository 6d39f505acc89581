/** For tests: memory that outlives a life without a process that ends. */
import { KEEP_SIZE, type MapMemory } from './keep.ts';

/** A sparse file in plain memory. Whoever maps the same place again gets what lies there. */
export function memoryFile(): MapMemory {
  const parts = new Map<number, ArrayBuffer>();
  return (offset, bytes) => {
    if (offset % 4096 !== 0 || offset + bytes > KEEP_SIZE) throw new Error(`no such place: ${offset}`);
    const part = parts.get(offset) ?? new ArrayBuffer(bytes);
    if (part.byteLength !== bytes) throw new Error(`${bytes} bytes at ${offset}, where ${part.byteLength} lie`);
    parts.set(offset, part);
    return part;
  };
}
