/**
 * Words as getopt_long(3) reads them for iptables: options and other words in their order, long names also abbreviated, `--name=value`, `-nvalue`, clusters of
 * short options. The table of long options grows while it is read, by each extension that is loaded.
 */

export interface LongOption {
  readonly name: string;
  readonly value: 'none' | 'required' | 'optional';
  /** What the reader answers with; equal names of the newest extension win. */
  readonly tag: unknown;
}

/** `fault` is for the word that could not be read. */
export type Word =
  | { readonly kind: 'option'; readonly tag: unknown; readonly value: string | undefined }
  | { readonly kind: 'other'; readonly text: string }
  | { readonly kind: 'fault'; readonly isKnown: boolean; readonly word: string };

export type ShortOptions = ReadonlyMap<string, LongOption>;

export class WordReader {
  readonly #program: string;
  readonly #words: readonly string[];
  readonly #short: ShortOptions;
  #long: readonly LongOption[];
  readonly #base: number;
  #at = 0;
  /** Rest of a cluster. */
  #cluster = '';
  /** Place to go back to. */
  #last = { at: 0, cluster: '' };

  /** @param program it stands before the words, and in what is said of the first of them */
  constructor(program: string, words: readonly string[], short: ShortOptions, long: readonly LongOption[]) {
    this.#program = program;
    this.#words = words;
    this.#short = short;
    this.#long = long;
    this.#base = long.length;
  }

  /** Options of an extension: behind the program's own, before those of extensions that came earlier. One that comes again moves. */
  add(options: readonly LongOption[]): void {
    const others = this.#long.slice(this.#base).filter((option) => !options.includes(option));
    this.#long = [...this.#long.slice(0, this.#base), ...options, ...others];
  }

  /** Read the last word again, now that there are more options. */
  again(): void {
    this.#at = this.#last.at;
    this.#cluster = this.#last.cluster;
  }

  get isAtEnd(): boolean {
    return this.#cluster === '' && this.#at >= this.#words.length;
  }

  /** The next word when it is neither an option nor `!`; it is taken then. */
  takeWord(): string | undefined {
    if (this.#cluster !== '') return undefined;
    const word = this.#words[this.#at];
    if (word === undefined || word[0] === '-' || word[0] === '!') return undefined;
    this.#at++;
    return word;
  }

  /** Undefined at the end, or at `--`, behind which nothing is read. */
  next(): Word | undefined {
    this.#last = { at: this.#at, cluster: this.#cluster };
    if (this.#cluster === '') {
      const word = this.#words[this.#at];
      if (word === undefined) return undefined;
      this.#at++;
      if (word === '--') return undefined;
      if (word[0] !== '-' || word === '-') return { kind: 'other', text: word };
      if (word[1] === '-') return this.#takeLong(word);
      this.#cluster = word.slice(1);
    }
    const letter = this.#cluster[0]!;
    const rest = this.#cluster.slice(1);
    this.#cluster = '';
    const option = this.#short.get(letter);
    if (option === undefined) {
      this.#cluster = rest;
      // argv[optind - 1]: within a cluster that is still the word before it.
      const word = this.#words[this.#at - (rest === '' ? 1 : 2)] ?? this.#program;
      return { kind: 'fault', isKnown: false, word };
    }
    if (option.value === 'none') {
      this.#cluster = rest;
      return { kind: 'option', tag: option.tag, value: undefined };
    }
    return this.#take(option, rest === '' ? undefined : rest);
  }

  #takeLong(word: string): Word {
    const equals = word.indexOf('=');
    const name = equals < 0 ? word.slice(2) : word.slice(2, equals);
    const option = this.#find(name);
    if (option === undefined) return { kind: 'fault', isKnown: false, word };
    if (option.value !== 'none') return this.#take(option, equals < 0 ? undefined : word.slice(equals + 1));
    if (equals >= 0) return { kind: 'fault', isKnown: false, word };
    return { kind: 'option', tag: option.tag, value: undefined };
  }

  #find(name: string): LongOption | undefined {
    const exact = this.#long.find((option) => option.name === name);
    if (exact !== undefined) return exact;
    const [first, ...others] = this.#long.filter((option) => option.name.startsWith(name));
    if (first === undefined || name === '') return undefined;
    return others.every((option) => option.tag === first.tag) ? first : undefined;
  }

  #take(option: LongOption, attached: string | undefined): Word {
    if (attached !== undefined || option.value === 'optional') {
      return { kind: 'option', tag: option.tag, value: attached };
    }
    const value = this.#words[this.#at];
    if (value === undefined) return { kind: 'fault', isKnown: true, word: this.#words[this.#at - 1]! };
    this.#at++;
    return { kind: 'option', tag: option.tag, value };
  }
}
