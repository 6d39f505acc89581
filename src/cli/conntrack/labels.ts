/** Connection labels on conntrack's command line and in its lines. */
import type { LabelNames } from '../../model/label-names.ts';
import { readLabelNames } from '../label-file.ts';
import { Refused } from './refused.ts';

/** The highest bit that a connection has. */
const MAX_BIT = 127;

/** Bits of names parted by commas, as in EntryRow. */
export function labelBits(known: LabelNames, text: string): string {
  let bits = 0n;
  for (const name of text.split(',')) {
    const bit = known.bit(name);
    if (bit === undefined || bit > MAX_BIT) throw new Refused(`unknown label '${name}'`);
    bits |= 1n << BigInt(bit);
  }
  return hex(bits);
}

/** Those bits that have a name, the lowest first. */
export function labelNames(known: LabelNames, labels: string): readonly string[] {
  const bits = BigInt(`0x${labels}`);
  const names: string[] = [];
  for (let bit = 0; bit <= MAX_BIT; bit++) {
    const name = known.name(bit);
    if ((bits >> BigInt(bit)) & 1n && name !== undefined) names.push(name);
  }
  return names;
}

/** Reads the file; without one there are no names, the tool says so, and lists no labels. */
export function loadLabelNames(warn: (text: string) => void): LabelNames | undefined {
  const names = readLabelNames();
  if (names === undefined) warn('nfct_labelmap_new: No such file or directory\n');
  return names;
}

export function joinLabels(a: string | undefined, b: string): string {
  return a === undefined ? b : hex(BigInt(`0x${a}`) | BigInt(`0x${b}`));
}

function hex(bits: bigint): string {
  return bits.toString(16).padStart(32, '0');
}
