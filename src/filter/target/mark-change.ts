/** What MARK does to the packet's mark and CONNMARK to the connection's: five ways to say one change. */
import type { OptionSpec } from '../extension.ts';
import { formatHex, readMarkMask, readNumber } from '../values.ts';

/** The bits of `mask` are cleared, then those of `value` turned over. */
export interface MarkChange {
  readonly value: number;
  readonly mask: number;
}

/** How each option reads its text. */
const CHANGES: Readonly<Record<string, (extension: string, option: string, text: string) => MarkChange>> = {
  'set-xmark': readMarkMask,
  'set-mark': (extension, option, text) => {
    const { value, mask } = readMarkMask(extension, option, text);
    return { value, mask: value | mask };
  },
  'and-mark': (extension, option, text) => ({ value: 0, mask: ~readNumber(extension, option, text) }),
  'or-mark': (extension, option, text) => {
    const value = readNumber(extension, option, text) | 0;
    return { value, mask: value };
  },
  'xor-mark': (extension, option, text) => ({ value: readNumber(extension, option, text) | 0, mask: 0 }),
};

export const CHANGE_NAMES = Object.keys(CHANGES);

/** An option for each way. @param operations names of all options of which a rule has one */
export function changeOptions<O>(
  extension: string,
  operations: readonly string[],
  take: (o: O, change: MarkChange) => void,
): OptionSpec<O>[] {
  return Object.entries(CHANGES).map(([name, read]) => ({
    name,
    excludes: operations.filter((other) => other !== name),
    read: (o, text) => take(o, read(extension, name, text)),
  }));
}

/** As `-S` writes it. */
export function saveChange({ value, mask }: MarkChange): string[] {
  return ['--set-xmark', `${formatHex(value)}/${formatHex(mask)}`];
}

/** As `-L` writes it. */
export function listChange(extension: string, { value, mask }: MarkChange): string {
  if (value === 0) return `${extension} and ${formatHex(~mask)}`;
  if (value === mask) return `${extension} or ${formatHex(value)}`;
  if (mask === 0) return `${extension} xor ${formatHex(value)}`;
  return mask === -1
    ? `${extension} set ${formatHex(value)}`
    : `${extension} xset ${formatHex(value)}/${formatHex(mask)}`;
}
