/** `-j MARK`: change the packet's mark (net/netfilter/xt_mark.c, mark_tg). */
import { BadRule, CONTINUE, defineTarget } from '../extension.ts';
import { formatHex, readMarkMask, readNumber } from '../values.ts';

/** The bits of `mask` are cleared, then those of `value` turned over. */
interface MarkOptions {
  value: number;
  mask: number;
}

const NAMES = ['set-xmark', 'set-mark', 'and-mark', 'or-mark', 'xor-mark'];
const others = (name: string): string[] => NAMES.filter((other) => other !== name);

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
  options: [
    {
      name: 'set-xmark',
      excludes: others('set-xmark'),
      read: (o, text) => void Object.assign(o, readMarkMask('MARK', 'set-xmark', text)),
    },
    {
      name: 'set-mark',
      excludes: others('set-mark'),
      read: (o, text) => {
        const { value, mask } = readMarkMask('MARK', 'set-mark', text);
        o.value = value;
        o.mask = value | mask;
      },
    },
    {
      name: 'and-mark',
      excludes: others('and-mark'),
      read: (o, text) => {
        o.value = 0;
        o.mask = ~readNumber('MARK', 'and-mark', text);
      },
    },
    {
      name: 'or-mark',
      excludes: others('or-mark'),
      read: (o, text) => {
        o.value = readNumber('MARK', 'or-mark', text) | 0;
        o.mask = o.value;
      },
    },
    {
      name: 'xor-mark',
      excludes: others('xor-mark'),
      read: (o, text) => {
        o.value = readNumber('MARK', 'xor-mark', text) | 0;
        o.mask = 0;
      },
    },
  ],
  finish: (_o, _header, given) => {
    if (given.size === 0) {
      throw new BadRule('MARK: One of the --set-xmark, --{and,or,xor,set}-mark options is required');
    }
  },
  save: ({ value, mask }) => ['--set-xmark', `${formatHex(value)}/${formatHex(mask)}`],
  list: ({ value, mask }) => {
    if (value === 0) return `MARK and ${formatHex(~mask)}`;
    if (value === mask) return `MARK or ${formatHex(value)}`;
    if (mask === 0) return `MARK xor ${formatHex(value)}`;
    return mask === -1 ? `MARK set ${formatHex(value)}` : `MARK xset ${formatHex(value)}/${formatHex(mask)}`;
  },
  compile: ({ value, mask }) => {
    return (p) => {
      p.mark = (p.mark & ~mask) ^ value;
      return CONTINUE;
    };
  },
});
