/** `-j CONNMARK`: the connection's mark, and from it to the packet's and back (net/netfilter/xt_connmark.c, connmark_tg). */
import { BadRule, CONTINUE, defineTarget, type TargetFunction } from '../extension.ts';
import { formatHex, readMarkMask, readNumber } from '../values.ts';

interface ConnmarkOptions {
  mode: 'set' | 'save' | 'restore' | undefined;
  /** Of set: as in MARK. */
  mark: number;
  /** Bits of the connection's mark, and of the packet's. */
  ctMask: number;
  nfMask: number;
}

const OPERATIONS = ['set-xmark', 'set-mark', 'and-mark', 'or-mark', 'xor-mark', 'save-mark', 'restore-mark'];
const others = (name: string): string[] => OPERATIONS.filter((other) => other !== name);

function operation(name: string, read: (o: ConnmarkOptions, text: string) => void) {
  return {
    name,
    excludes: others(name),
    read: (o: ConnmarkOptions, text: string): void => {
      o.mode = 'set';
      read(o, text);
    },
  };
}

function copy(name: string, mode: 'save' | 'restore') {
  return {
    name,
    value: 'none' as const,
    excludes: others(name),
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
    operation('set-xmark', (o, text) => {
      const { value, mask } = readMarkMask('CONNMARK', 'set-xmark', text);
      [o.mark, o.ctMask] = [value, mask];
    }),
    operation('set-mark', (o, text) => {
      const { value, mask } = readMarkMask('CONNMARK', 'set-mark', text);
      [o.mark, o.ctMask] = [value, mask | value];
    }),
    operation('and-mark', (o, text) => {
      [o.mark, o.ctMask] = [0, ~readNumber('CONNMARK', 'and-mark', text)];
    }),
    operation('or-mark', (o, text) => {
      o.mark = readNumber('CONNMARK', 'or-mark', text) | 0;
      o.ctMask = o.mark;
    }),
    operation('xor-mark', (o, text) => {
      [o.mark, o.ctMask] = [readNumber('CONNMARK', 'xor-mark', text) | 0, 0];
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
      ? ['--set-xmark', `${formatHex(mark)}/${formatHex(ctMask)}`]
      : [`--${mode}-mark`, '--nfmask', formatHex(nfMask), '--ctmask', formatHex(ctMask)],
  list: ({ mode, mark, ctMask, nfMask }) => {
    if (mode !== 'set') {
      if (ctMask === -1 && nfMask === -1) return `CONNMARK ${mode}`;
      if (ctMask === nfMask) return `CONNMARK ${mode} mask ${formatHex(ctMask)}`;
      return mode === 'save'
        ? `CONNMARK save nfmask ${formatHex(nfMask)} ctmask ~${formatHex(ctMask)}`
        : `CONNMARK restore ctmask ${formatHex(ctMask)} nfmask ~${formatHex(nfMask)}`;
    }
    if (mark === 0) return `CONNMARK and ${formatHex(~ctMask)}`;
    if (mark === ctMask) return `CONNMARK or ${formatHex(mark)}`;
    if (ctMask === 0) return `CONNMARK xor ${formatHex(mark)}`;
    if (ctMask === -1) return `CONNMARK set ${formatHex(mark)}`;
    return `CONNMARK xset ${formatHex(mark)}/${formatHex(ctMask)}`;
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
