/** What `-m mark` asks of the packet's mark and `-m connmark` of the connection's: are these bits of it so? */
import type { OptionSpec } from '../extension.ts';
import { formatMarkMask, readMarkMask } from '../values.ts';

export interface MarkValue {
  value: number;
  mask: number;
  isInverted: boolean;
}

export function anyMark(): MarkValue {
  return { value: 0, mask: 0, isInverted: false };
}

/** `--mark value[/mask]`. @param extension whose option it is */
export function markOption(extension: string): OptionSpec<MarkValue> {
  return {
    name: 'mark',
    canInvert: true,
    isRequired: true,
    read: (o, text, isInverted) => {
      Object.assign(o, readMarkMask(extension, 'mark', text));
      o.isInverted = isInverted;
    },
  };
}

export function saveMark({ value, mask, isInverted }: MarkValue): string[] {
  return [...(isInverted ? ['!'] : []), '--mark', formatMarkMask(value, mask)];
}
