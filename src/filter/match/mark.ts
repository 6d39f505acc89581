/** `-m mark`: the packet's mark (net/netfilter/xt_mark.c, mark_mt). */
import { defineMatch } from '../extension.ts';
import { formatMarkMask, readMarkMask } from '../values.ts';

interface MarkOptions {
  value: number;
  mask: number;
  isInverted: boolean;
}

export const mark = defineMatch<MarkOptions>({
  name: 'mark',
  man: `mark match options:
[!] --mark value[/mask]    Match nfmark value with optional mask
`,
  init: () => ({ value: 0, mask: 0, isInverted: false }),
  options: [
    {
      name: 'mark',
      canInvert: true,
      isRequired: true,
      read: (o, text, isInverted) => {
        Object.assign(o, readMarkMask('mark', 'mark', text));
        o.isInverted = isInverted;
      },
    },
  ],
  save: (o) => [...(o.isInverted ? ['!'] : []), '--mark', formatMarkMask(o.value, o.mask)],
  list: (o) => `mark match ${o.isInverted ? '! ' : ''}${formatMarkMask(o.value, o.mask)}`,
  compile: ({ value, mask, isInverted }) => {
    return (p) => ((p.mark & mask) === value) !== isInverted;
  },
});
