/** `-m connmark`: the mark of the packet's connection (net/netfilter/xt_connmark.c, connmark_mt). */
import { defineMatch } from '../extension.ts';
import { formatMarkMask } from '../values.ts';
import { anyMark, type MarkValue, markOption, saveMark } from './mark-value.ts';

export const connmark = defineMatch<MarkValue>({
  name: 'connmark',
  man: `connmark match options:
[!] --mark value[/mask]    Match ctmark value with optional mask
`,
  needsConntrack: () => true,
  init: anyMark,
  options: [markOption('connmark')],
  save: saveMark,
  list: (o) => `connmark match ${o.isInverted ? '!' : ''} ${formatMarkMask(o.value, o.mask)}`,
  compile: ({ value, mask, isInverted }) => {
    return (p, { conditions }) =>
      p.entry !== 0 && ((conditions.tracking!.mark(p.entry) & mask) === value) !== isInverted;
  },
});
