/** Names of connection labels: connlabel.conf(5), a bit's number and its name on a line, as libnetfilter_conntrack reads them (src/conntrack/labels.c). */

export const LABELS_FILE = '/etc/xtables/connlabel.conf';
/** A number may be larger than any label that a connection can have. */
const HIGHEST = 0xffff;

export class LabelNames {
  readonly #bits = new Map<string, number>();
  readonly #names = new Map<number, string>();

  constructor(text: string) {
    for (const line of text.split('\n')) {
      const [, number, rest] = /^\s*(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)(.*)$/s.exec(line) ?? [];
      const name = rest?.trim();
      if (number === undefined || name === undefined || !/^[A-Za-z0-9 -]+$/.test(name)) continue;
      const bit = /^0[0-7]/.test(number) ? Number.parseInt(number, 8) : Number(number);
      // Of two that say the same the first one counts.
      if (bit > HIGHEST || this.#names.has(bit) || this.#bits.has(name)) continue;
      this.#bits.set(name, bit);
      this.#names.set(bit, name);
    }
  }

  bit(name: string): number | undefined {
    return this.#bits.get(name);
  }

  name(bit: number): string | undefined {
    return this.#names.get(bit);
  }
}
