/**
 * Command lines as popt(3) reads them, because ipvsadm does: options and arguments mixed, long names only in full, `--name=value`, `-nvalue`,
 * `-n=value`, clusters of short options, `--` ends the options. An optional value is taken from the next word unless that begins with a dash.
 */

export interface PoptOption<Tag extends string> {
  readonly tag: Tag;
  readonly long: string;
  readonly short?: string | undefined;
  readonly value?: 'required' | 'optional' | undefined;
}

export type PoptTable<Tag extends string> = {
  readonly long: ReadonlyMap<string, PoptOption<Tag>>;
  readonly short: ReadonlyMap<string, PoptOption<Tag>>;
};

export type PoptFault = 'unknown option' | 'missing argument' | 'option does not take an argument';

export function poptTable<Tag extends string>(options: readonly PoptOption<Tag>[]): PoptTable<Tag> {
  const long = new Map<string, PoptOption<Tag>>();
  const short = new Map<string, PoptOption<Tag>>();
  for (const option of options) {
    if (!long.has(option.long)) long.set(option.long, option);
    if (option.short !== undefined) short.set(option.short, option);
  }
  return { long, short };
}

export class PoptReader<Tag extends string> {
  /** Value of the option last read; undefined when it has none. */
  value: string | undefined = undefined;
  /** Set when next() answered undefined because of a mistake. */
  fault: PoptFault | undefined = undefined;
  #table: PoptTable<Tag>;
  readonly #words: readonly string[];
  readonly #arguments: string[] = [];
  #at = 0;
  #cluster = '';
  #onlyArguments = false;

  constructor(table: PoptTable<Tag>, words: readonly string[]) {
    this.#table = table;
    this.#words = words;
  }

  /** The word that the last option stood in: what popt names in its complaints. */
  get word(): string {
    return this.#words[this.#at - 1] ?? '';
  }

  /** Words that are no options; complete once next() has answered undefined. */
  get arguments(): readonly string[] {
    return this.#arguments;
  }

  /** The options from here on. */
  use(table: PoptTable<Tag>): void {
    this.#table = table;
  }

  /** Tag of the next option; undefined at the end or at a fault. */
  next(): Tag | undefined {
    this.value = undefined;
    while (this.#cluster === '') {
      if (this.#at >= this.#words.length) return undefined;
      const word = this.#words[this.#at++]!;
      if (this.#onlyArguments || word[0] !== '-' || word === '-') {
        this.#arguments.push(word);
      } else if (word === '--') {
        this.#onlyArguments = true;
      } else if (word[1] === '-') {
        const equals = word.indexOf('=');
        const option = this.#table.long.get(equals < 0 ? word.slice(2) : word.slice(2, equals));
        return this.#take(option, equals < 0 ? undefined : word.slice(equals + 1));
      } else {
        this.#cluster = word.slice(1);
      }
    }
    const option = this.#table.short.get(this.#cluster[0]!);
    const rest = this.#cluster.slice(1);
    this.#cluster = '';
    if (rest === '') return this.#take(option, undefined);
    if (rest[0] === '=') return this.#take(option, rest.slice(1));
    if (option?.value !== undefined) return this.#take(option, rest);
    this.#cluster = rest;
    return this.#take(option, undefined);
  }

  #take(option: PoptOption<Tag> | undefined, attached: string | undefined): Tag | undefined {
    if (option === undefined) return this.#fail('unknown option');
    if (option.value === undefined) {
      if (attached !== undefined) return this.#fail('option does not take an argument');
      return option.tag;
    }
    if (attached !== undefined) {
      this.value = attached;
      return option.tag;
    }
    const following = this.#words[this.#at];
    if (option.value === 'optional' && (following === undefined || following[0] === '-')) return option.tag;
    if (following === undefined) return this.#fail('missing argument');
    this.#at++;
    this.value = following;
    return option.tag;
  }

  #fail(fault: PoptFault): undefined {
    this.fault = fault;
    return undefined;
  }
}
