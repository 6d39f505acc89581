/** Entries and expectations on stdout, in the form that -o asks for; counts them. */
import type { CtEventKind, CtRequester, ExpectationRow } from '../../model/conntrack.ts';
import type { LabelNames } from '../../model/label-names.ts';
import { formatEntry, formatExpectation, timestamp } from './format.ts';
import { saveEntry } from './save.ts';
import type { ShownEntry } from './shown.ts';
import { Output } from './values.ts';
import { formatEntryXml, formatExpectationXml, XML_HEADER } from './xml.ts';

/** Text kept back until it is worth a system call. */
const CHUNK = 65_536;

export class Printer {
  shown = 0;
  readonly #out: (text: string) => void;
  readonly #forms: number;
  readonly #labels: LabelNames | undefined;
  readonly #root: 'conntrack' | 'expect' | undefined;
  #text = '';
  #hasRoot = false;

  /** @param root the element round all of -o xml; undefined for none */
  constructor(
    out: (text: string) => void,
    forms: number,
    labels: LabelNames | undefined,
    root: 'conntrack' | 'expect' | undefined,
  ) {
    this.#out = out;
    this.#forms = forms;
    this.#labels = labels;
    this.#root = root;
  }

  entry(row: ShownEntry): void {
    this.#put(`${this.#entryText(row, undefined)}\n`);
  }

  /** @param at when it happened, ms since 1970 */
  event(row: ShownEntry, at: number, by: CtRequester | undefined): void {
    const who = by === undefined ? '' : ` [USERSPACE] portid=${by.portId} progname=${by.program}`;
    this.#put(`${this.#stamp(at)}${this.#entryText(row, new Date(at))}${who}\n`);
  }

  expectation(row: ExpectationRow, kind: CtEventKind | undefined, at: number): void {
    const isXml = (this.#forms & Output.Xml) !== 0;
    const when = this.#forms & Output.Time ? new Date(at) : undefined;
    const text = isXml ? formatExpectationXml(row, kind, when) : formatExpectation(row, kind);
    this.#put(`${this.#stamp(at)}${text}\n`);
  }

  /** What is kept back goes out. */
  flush(): void {
    if (this.#text !== '') this.#out(this.#text);
    this.#text = '';
  }

  /** Closes the element round all. */
  end(): void {
    if (this.#hasRoot) this.#text += `</${this.#root}>\n`;
    this.flush();
  }

  #stamp(at: number): string {
    return this.#forms & Output.Time && !(this.#forms & Output.Xml) ? timestamp(at) : '';
  }

  #entryText(row: ShownEntry, when: Date | undefined): string {
    const forms = this.#forms;
    if (forms & Output.Save) return saveEntry(row);
    if (forms & Output.Xml) {
      return formatEntryXml(row, forms, this.#labels, Date.now(), forms & Output.Time ? when : undefined);
    }
    return formatEntry(row, forms, this.#labels, Date.now());
  }

  #put(text: string): void {
    if (this.#forms & Output.Xml && this.#root !== undefined && !this.#hasRoot) {
      this.#hasRoot = true;
      this.#text += `${XML_HEADER}<${this.#root}>\n`;
    }
    this.#text += text;
    this.shown++;
    if (this.#text.length >= CHUNK) this.flush();
  }
}
