/** `-m mark`: the packet's mark (net/netfilter/xt_mark.c, mark_mt). */
import { defineMatch } from '../extension.ts';
import { formatMarkMask } from '../values.ts';
import { anyMark, type MarkValue, markOption, saveMark } from './mark-value.ts';

export const mark = defineMatch<MarkValue>({
  name: 'mark',
  man: `mark match options:
[!] --mark value[/mask]    Match nfmark value with optional mask
`,
  init: anyMark,
  options: [markOption('mark')],
  save: saveMark,
  list: (o) => `mark match ${o.isInverted ? '! ' : ''}${formatMarkMask(o.value, o.mask)}`,
  compile: ({ value, mask, isInverted }) => {
    return (p) => ((p.mark & mask) === value) !== isInverted;
  },
});
