/** `-m connmark`: the mark of the packet's connection (net/netfilter/xt_connmark.c, connmark_mt). */
import { defineMatch } from '../extension.ts';
import { formatMarkMask, readMarkMask } from '../values.ts';

interface ConnmarkOptions {
  value: number;
  mask: number;
  isInverted: boolean;
}

export const connmark = defineMatch<ConnmarkOptions>({
  name: 'connmark',
  man: `connmark match options:
[!] --mark value[/mask]    Match ctmark value with optional mask
`,
  needsConntrack: () => true,
  init: () => ({ value: 0, mask: 0, isInverted: false }),
  options: [
    {
      name: 'mark',
      canInvert: true,
      isRequired: true,
      read: (o, text, isInverted) => {
        Object.assign(o, readMarkMask('connmark', 'mark', text));
        o.isInverted = isInverted;
      },
    },
  ],
  save: (o) => [...(o.isInverted ? ['!'] : []), '--mark', formatMarkMask(o.value, o.mask)],
  list: (o) => `connmark match ${o.isInverted ? '!' : ''} ${formatMarkMask(o.value, o.mask)}`,
  compile: ({ value, mask, isInverted }) => {
    return (p, { conditions }) =>
      p.entry !== 0 && ((conditions.tracking!.mark(p.entry) & mask) === value) !== isInverted;
  },
});
