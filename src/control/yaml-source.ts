/** A YAML text with positions: the plain value, and for each path in it the place where it is written. */
import { isMap, isPair, isScalar, LineCounter, type Node, parseDocument, type Scalar, visit } from 'yaml';
import type { Diagnostic } from './diagnostics.ts';

export type Path = readonly (string | number)[];

/** Where the package speaks to programmers. */
const SAID_BETTER: Readonly<Record<string, string>> = {
  MULTIPLE_DOCS: "a second document begins: '---' may stand once",
};

export interface Place {
  /** Both from 1. */
  readonly line: number;
  readonly column: number;
}

export class YamlSource {
  readonly file: string;
  readonly #text: string;
  readonly #lines: readonly string[];
  readonly #counter = new LineCounter();
  readonly #document: ReturnType<typeof parseDocument>;
  #value: unknown;

  constructor(file: string, text: string) {
    this.file = file;
    this.#text = text;
    this.#lines = text.split(/\r?\n/);
    this.#document = parseDocument(text, { lineCounter: this.#counter, prettyErrors: false, version: '1.2' });
  }

  /** What makes the text no YAML; when there is any, `value` means nothing. */
  syntaxErrors(): Diagnostic[] {
    const warnings = this.#document.warnings.filter((warning) => warning.code === 'TAG_RESOLVE_FAILED');
    const faults = [...this.#document.errors, ...warnings].map((error) =>
      this.at(this.#place(error.pos[0]), '', SAID_BETTER[error.code] ?? error.message),
    );
    return faults.length > 0 ? faults : this.#aliasFaults();
  }

  /** An alias of nothing; or aliases of aliases that would fill the memory ("billion laughs"), against which the package has its guard. */
  #aliasFaults(): Diagnostic[] {
    try {
      this.#value = this.#document.toJS();
      return [];
    } catch (error) {
      let place: Place = { line: 1, column: 1 };
      let message = 'aliases stand for too much';
      visit(this.#document, {
        Alias: (_, alias) => {
          if (alias.resolve(this.#document) !== undefined) return undefined;
          place = this.#place(alias.range?.[0] ?? 0);
          message = `no anchor '&${alias.source}' stands above`;
          return visit.BREAK;
        },
      });
      if (!(error instanceof ReferenceError)) throw error;
      return [this.at(place, '', message)];
    }
  }

  /** Once there are no syntax errors. */
  value(): unknown {
    return this.#value;
  }

  diagnostic(path: Path, message: string): Diagnostic {
    return this.at(this.placeOf(path), path.join('.'), message);
  }

  /** A fault of the key itself: unknown, not its value. */
  keyDiagnostic(path: Path, key: string, message: string): Diagnostic {
    return this.at(this.#placeOfKey(path, key), [...path, key].join('.'), message);
  }

  at(place: Place, path: string, message: string): Diagnostic {
    const sourceLine = this.#lines[place.line - 1] ?? '';
    return { file: this.file, line: place.line, column: place.column, path, message, sourceLine };
  }

  /** The place of a value; when the path leads to nothing, that of the nearest thing around it. */
  placeOf(path: Path): Place {
    for (let length = path.length; length >= 0; length--) {
      const node = length === 0 ? this.#document.contents : this.#document.getIn(path.slice(0, length), true);
      const range = (node as Node | null | undefined)?.range;
      if (range) return this.#place(range[0]);
    }
    return { line: 1, column: 1 };
  }

  /**
   * The lines of a text value with the number of the line in the file that each stands on: those of a literal block (`|`), or one line.
   * Null when the value is folded over several lines, so that its lines are not the file's.
   */
  linesOf(path: Path): { readonly lines: readonly string[]; readonly firstLine: number } | null {
    const node = this.#document.getIn(path, true);
    if (!isScalar(node)) return null;
    const scalar = node as Scalar;
    if (typeof scalar.value !== 'string' || !scalar.range) return null;
    const start = this.#place(scalar.range[0]).line;
    const lines = scalar.value.replace(/\n+$/, '').split('\n');
    if (scalar.type === 'BLOCK_LITERAL') return { lines, firstLine: start + 1 };
    return lines.length === 1 && scalar.type !== 'BLOCK_FOLDED' ? { lines, firstLine: start } : null;
  }

  /** Where the text of a line begins, behind its indentation. */
  lineStart(line: number): Place {
    const indent = /^\s*/.exec(this.#lines[line - 1] ?? '')?.[0].length ?? 0;
    return { line, column: indent + 1 };
  }

  #placeOfKey(path: Path, key: string): Place {
    const map = path.length === 0 ? this.#document.contents : this.#document.getIn(path, true);
    if (isMap(map)) {
      for (const pair of map.items) {
        if (!isPair(pair) || !isScalar(pair.key) || String(pair.key.value) !== key) continue;
        const range = pair.key.range;
        if (range) return this.#place(range[0]);
      }
    }
    return this.placeOf(path);
  }

  #place(offset: number): Place {
    const { line, col } = this.#counter.linePos(Math.min(offset, this.#text.length));
    return { line: Math.max(1, line), column: Math.max(1, col) };
  }
}
