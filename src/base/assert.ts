/** A programmer's mistake, never a packet's or an operator's: those get a Drop and a typed error. */
export function assert(condition: boolean, why: string): asserts condition {
  if (!condition) throw new Error(`assertion failed: ${why}`);
}
