/** A rule → its words, as `iptables -S` prints them behind the chain: the one way of writing it. */
import type { WriteNames } from './extension.ts';
import { MATCHES, TARGETS } from './registry.ts';
import { Inverted, type Rule } from './rule.ts';
import { formatNetwork, protocolName } from './values.ts';

export function saveRule({ header, matches, target }: Rule): string[] {
  const words: string[] = [];
  const add = (bit: number, ...more: string[]): void => {
    if ((header.inverted & bit) !== 0) words.push('!');
    words.push(...more);
  };
  const { src, srcMask, dst, dstMask, inDevice, outDevice, proto, inverted } = header;
  if (srcMask !== 0 || (inverted & Inverted.Src) !== 0) add(Inverted.Src, '-s', formatNetwork(src, srcMask));
  if (dstMask !== 0 || (inverted & Inverted.Dst) !== 0) add(Inverted.Dst, '-d', formatNetwork(dst, dstMask));
  if (inDevice !== '' && isTold(inDevice, inverted & Inverted.In)) add(Inverted.In, '-i', inDevice);
  if (outDevice !== '' && isTold(outDevice, inverted & Inverted.Out)) add(Inverted.Out, '-o', outDevice);
  if (proto !== 0) add(Inverted.Proto, '-p', protocolName(proto) ?? String(proto));
  if (header.isFragment) add(Inverted.Fragment, '-f');
  for (const { extension, options } of matches) words.push('-m', extension.name, ...extension.save(options));
  if (target.kind === 'verdict') words.push('-j', target.name);
  else if (target.kind === 'chain') words.push(target.isGoto ? '-g' : '-j', target.name);
  else if (target.kind === 'extension')
    words.push('-j', target.extension.name, ...target.extension.save(target.options));
  return words;
}

/** `-i +` says nothing, and the classic tool saves `! -i +` as nothing too; we keep that one, for it never matches. */
function isTold(device: string, isInverted: number): boolean {
  return device !== '+' || isInverted !== 0;
}

type Write = (value: string, names: WriteNames | null) => string;

/** Options whose value is free text, or written in a way of its own. */
const WRITERS: ReadonlyMap<string, Write> = new Map(
  [...MATCHES, ...TARGETS].flatMap(({ options }) =>
    options.flatMap(({ name, isText, write }): [string, Write][] =>
      write !== undefined ? [[`--${name}`, write]] : isText ? [[`--${name}`, quote]] : [],
    ),
  ),
);

/** Words as -S and iptables-save write them: texts in quotes when they hold more than letters, digits, `-` and `_` (xtables_save_string). */
export function writeWords(words: readonly string[], names: WriteNames | null = null): string {
  let write: Write | undefined;
  let line = '';
  for (const word of words) {
    line += ` ${write === undefined ? word : write(word, names)}`;
    write = write === undefined ? WRITERS.get(word) : undefined;
  }
  return line.slice(1);
}

function quote(text: string): string {
  return /^[\w-]+$/.test(text) ? text : `"${text.replace(/["\\']/g, '\\$&')}"`;
}
