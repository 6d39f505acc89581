/** Names of connection labels: connlabel.conf(5), a bit's number and its name on a line. */
import { readFileSync } from 'node:fs';
import { Refused } from './refused.ts';

const FILE = '/etc/xtables/connlabel.conf';
const MAX_BIT = 127;

export class LabelNames {
  readonly #bits = new Map<string, number>();
  readonly #names = new Map<number, string>();

  constructor(text: string) {
    for (const line of text.split('\n')) {
      const m = /^(\d+)[ \t]+([^\s"]+)/.exec(line);
      const bit = Number(m?.[1]);
      if (m === null || bit > MAX_BIT || this.#names.has(bit)) continue;
      this.#bits.set(m[2]!, bit);
      this.#names.set(bit, m[2]!);
    }
  }

  /** Bits of names parted by commas, as in EntryRow. */
  bits(text: string): string {
    let bits = 0n;
    for (const name of text.split(',')) {
      const bit = this.#bits.get(name);
      if (bit === undefined) throw new Refused(`unknown label '${name}'`);
      bits |= 1n << BigInt(bit);
    }
    return hex(bits);
  }

  /** Those bits that have a name, the lowest first. */
  names(labels: string): readonly string[] {
    const bits = BigInt(`0x${labels}`);
    const names: string[] = [];
    for (let bit = 0; bit <= MAX_BIT; bit++) {
      const name = this.#names.get(bit);
      if ((bits >> BigInt(bit)) & 1n && name !== undefined) names.push(name);
    }
    return names;
  }
}

/** Reads the file; without one there are no names, and the tool says so. */
export function loadLabelNames(warn: (text: string) => void): LabelNames {
  try {
    return new LabelNames(readFileSync(FILE, 'utf8'));
  } catch {
    warn('nfct_labelmap_new: No such file or directory\n');
    return new LabelNames('');
  }
}

export function joinLabels(a: string | undefined, b: string): string {
  return a === undefined ? b : hex(BigInt(`0x${a}`) | BigInt(`0x${b}`));
}

function hex(bits: bigint): string {
  return bits.toString(16).padStart(32, '0');
}
