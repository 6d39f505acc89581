/** `-j MARK`: change the packet's mark (net/netfilter/xt_mark.c, mark_tg). */
import { BadRule, CONTINUE, defineTarget } from '../extension.ts';
import { CHANGE_NAMES, changeOptions, listChange, saveChange } from './mark-change.ts';

/** A MarkChange while it is read. */
interface MarkOptions {
  value: number;
  mask: number;
}

export const mark = defineTarget<MarkOptions>({
  name: 'MARK',
  man: `MARK target options:
  --set-xmark value[/mask]  Clear bits in mask and XOR value into nfmark
  --set-mark value[/mask]   Clear bits in mask and OR value into nfmark
  --and-mark bits           Binary AND the nfmark with bits
  --or-mark bits            Binary OR the nfmark with bits
  --xor-mark bits           Binary XOR the nfmark with bits
`,
  init: () => ({ value: 0, mask: 0 }),
  options: changeOptions('MARK', CHANGE_NAMES, (o, { value, mask }) => {
    o.value = value;
    o.mask = mask;
  }),
  finish: (_o, _header, given) => {
    if (given.size === 0) {
      throw new BadRule('MARK: One of the --set-xmark, --{and,or,xor,set}-mark options is required');
    }
  },
  save: saveChange,
  list: (o) => listChange('MARK', o),
  compile: ({ value, mask }) => {
    return (p) => {
      p.mark = (p.mark & ~mask) ^ value;
      return CONTINUE;
    };
  },
});
