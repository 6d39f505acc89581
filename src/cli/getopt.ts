/**
 * Command lines as getopt_long(3) of the GNU C library reads them: options and arguments mixed, long names abbreviated where that is unambiguous, an
 * optional value only attached. Long options may be added while the words are read.
 */

export type ValueKind = 'none' | 'required' | 'optional';

export interface LongOption<Tag extends string> {
  readonly name: string;
  readonly value: ValueKind;
  readonly tag: Tag;
}

export type ShortOptions<Tag extends string> = ReadonlyMap<string, { readonly value: ValueKind; readonly tag: Tag }>;

/** What next() answers instead of an option: it is not known (or ambiguous), or its value is missing. */
export const UNKNOWN = '?';
export const MISSING = ':';

export class Getopt<Tag extends string> {
  /** Value of the option last read. */
  value: string | undefined = undefined;
  readonly #words: readonly string[];
  readonly #short: ShortOptions<Tag>;
  readonly #long: LongOption<Tag>[];
  readonly #arguments: string[] = [];
  #at = 0;
  /** What is left of a word of short options. */
  #cluster = '';

  /** @param program the name that the program was called by: it stands before the words, and in a complaint about the first of a cluster */
  readonly #program: string;

  constructor(program: string, words: readonly string[], short: ShortOptions<Tag>, long: readonly LongOption<Tag>[]) {
    this.#program = program;
    this.#words = words;
    this.#short = short;
    this.#long = [...long];
  }

  /** argv[optind - 1]: the word that was just finished, which is not always the one that is complained about. */
  get lastWord(): string {
    return this.#at === 0 ? this.#program : this.#words[this.#at - 1]!;
  }

  /** Words that are no options; complete once next() has answered undefined. */
  get arguments(): readonly string[] {
    return this.#arguments;
  }

  /** The first name of an option. */
  nameOf(tag: Tag): string | undefined {
    return this.#long.find((option) => option.tag === tag)?.name;
  }

  add(options: readonly LongOption<Tag>[]): void {
    this.#long.push(...options);
  }

  /** The next word as a value that stands apart, unless it begins like an option, or an attached one was there. */
  takeApart(): string | undefined {
    const word = this.#words[this.#at];
    if (this.value !== undefined || this.#cluster !== '' || word === undefined) return undefined;
    if (word[0] === '-' || word[0] === '!') return undefined;
    this.#at++;
    return word;
  }

  /** Tag of the next option, UNKNOWN or MISSING; undefined at the end. */
  next(): Tag | typeof UNKNOWN | typeof MISSING | undefined {
    this.value = undefined;
    while (this.#cluster === '') {
      const word = this.#words[this.#at];
      if (word === undefined) return undefined;
      if (word[0] !== '-' || word === '-') {
        this.#arguments.push(word);
        this.#at++;
      } else if (word === '--') {
        this.#arguments.push(...this.#words.slice(this.#at + 1));
        this.#at = this.#words.length;
        return undefined;
      } else if (word[1] === '-') {
        this.#at++;
        return this.#nextLong(word.slice(2));
      } else {
        this.#cluster = word.slice(1);
      }
    }
    return this.#nextShort();
  }

  #nextLong(text: string): Tag | typeof UNKNOWN | typeof MISSING {
    const equals = text.indexOf('=');
    const name = equals < 0 ? text : text.slice(0, equals);
    const exact = this.#long.find((option) => option.name === name);
    const near = this.#long.filter((option) => option.name.startsWith(name));
    const option = exact ?? near[0];
    if (option === undefined) return UNKNOWN;
    if (exact === undefined && near.some(({ tag, value }) => tag !== option.tag || value !== option.value))
      return UNKNOWN;
    if (equals >= 0) {
      if (option.value === 'none') return UNKNOWN;
      this.value = text.slice(equals + 1);
    } else if (option.value === 'required') {
      const following = this.#words[this.#at];
      if (following === undefined) return MISSING;
      this.#at++;
      this.value = following;
    }
    return option.tag;
  }

  #nextShort(): Tag | typeof UNKNOWN | typeof MISSING {
    const option = this.#short.get(this.#cluster[0]!);
    const rest = this.#cluster.slice(1);
    this.#cluster = rest;
    if (rest === '') this.#at++;
    if (option === undefined) return UNKNOWN;
    if (option.value === 'none') return option.tag;
    if (rest !== '') {
      this.value = rest;
      this.#cluster = '';
      this.#at++;
    } else if (option.value === 'required') {
      const following = this.#words[this.#at];
      if (following === undefined) return MISSING;
      this.#at++;
      this.value = following;
    }
    return option.tag;
  }
}
