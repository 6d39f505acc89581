/** `-j CONNMARK`: the connection's mark, and from it to the packet's and back (net/netfilter/xt_connmark.c, connmark_tg). */
import { BadRule, CONTINUE, defineTarget, type TargetFunction } from '../extension.ts';
import { formatHex, readNumber } from '../values.ts';
import { CHANGE_NAMES, changeOptions, listChange, saveChange } from './mark-change.ts';

interface ConnmarkOptions {
  mode: 'set' | 'save' | 'restore' | undefined;
  /** Of set: with `ctMask` a MarkChange. */
  mark: number;
  /** Bits of the connection's mark, and of the packet's. */
  ctMask: number;
  nfMask: number;
}

const OPERATIONS = [...CHANGE_NAMES, 'save-mark', 'restore-mark'];

function copy(name: string, mode: 'save' | 'restore') {
  return {
    name,
    value: 'none' as const,
    excludes: OPERATIONS.filter((other) => other !== name),
    read: (o: ConnmarkOptions): void => {
      o.mode = mode;
    },
  };
}

export const connmark = defineTarget<ConnmarkOptions>({
  name: 'CONNMARK',
  man: `CONNMARK target options:
  --set-xmark value[/ctmask]    Zero mask bits and XOR ctmark with value
  --save-mark [--ctmask mask] [--nfmask mask]
                                Copy ctmark to nfmark using masks
  --restore-mark [--ctmask mask] [--nfmask mask]
                                Copy nfmark to ctmark using masks
  --set-mark value[/mask]       Set conntrack mark value
  --save-mark [--mask mask]     Save the packet nfmark in the connection
  --restore-mark [--mask mask]  Restore saved nfmark value
  --and-mark value              Binary AND the ctmark with bits
  --or-mark value               Binary OR  the ctmark with bits
  --xor-mark value              Binary XOR the ctmark with bits
`,
  needsConntrack: () => true,
  init: () => ({ mode: undefined, mark: 0, ctMask: -1, nfMask: -1 }),
  options: [
    ...changeOptions<ConnmarkOptions>('CONNMARK', OPERATIONS, (o, { value, mask }) => {
      o.mode = 'set';
      o.mark = value;
      o.ctMask = mask;
    }),
    copy('save-mark', 'save'),
    copy('restore-mark', 'restore'),
    {
      name: 'ctmask',
      excludes: ['mask'],
      read: (o, text) => {
        o.ctMask = readNumber('CONNMARK', 'ctmask', text) | 0;
      },
    },
    {
      name: 'nfmask',
      excludes: ['mask'],
      read: (o, text) => {
        o.nfMask = readNumber('CONNMARK', 'nfmask', text) | 0;
      },
    },
    {
      name: 'mask',
      excludes: ['ctmask', 'nfmask'],
      read: (o, text) => {
        o.ctMask = readNumber('CONNMARK', 'mask', text) | 0;
        o.nfMask = o.ctMask;
      },
    },
  ],
  finish: (o) => {
    if (o.mode === undefined) throw new BadRule('CONNMARK target: No operation specified');
  },
  save: ({ mode, mark, ctMask, nfMask }) =>
    mode === 'set'
      ? saveChange({ value: mark, mask: ctMask })
      : [`--${mode}-mark`, '--nfmask', formatHex(nfMask), '--ctmask', formatHex(ctMask)],
  list: ({ mode, mark, ctMask, nfMask }) => {
    if (mode !== 'set') {
      if (ctMask === -1 && nfMask === -1) return `CONNMARK ${mode}`;
      if (ctMask === nfMask) return `CONNMARK ${mode} mask ${formatHex(ctMask)}`;
      return mode === 'save'
        ? `CONNMARK save nfmask ${formatHex(nfMask)} ctmask ~${formatHex(ctMask)}`
        : `CONNMARK restore ctmask ${formatHex(ctMask)} nfmask ~${formatHex(nfMask)}`;
    }
    return listChange('CONNMARK', { value: mark, mask: ctMask });
  },
  compile: ({ mode, mark, ctMask, nfMask }): TargetFunction => {
    switch (mode!) {
      case 'set':
        return (p, { conditions }) => {
          const { tracking } = conditions;
          if (p.entry !== 0) tracking!.setMark(p.entry, (tracking!.mark(p.entry) & ~ctMask) ^ mark);
          return CONTINUE;
        };
      case 'save':
        return (p, { conditions }) => {
          const { tracking } = conditions;
          if (p.entry !== 0) {
            tracking!.setMark(p.entry, (tracking!.mark(p.entry) & ~ctMask) ^ (p.mark & nfMask));
          }
          return CONTINUE;
        };
      case 'restore':
        return (p, { conditions }) => {
          if (p.entry !== 0) p.mark = (p.mark & ~nfMask) ^ (conditions.tracking!.mark(p.entry) & ctMask);
          return CONTINUE;
        };
    }
  },
});
