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
  /** What is written is moved by so many bits; to the right where it is negative. */
  shift: number;
}

const MOST_BITS = 32;

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

function shiftOption(side: 'left' | 'right') {
  const name = `${side}-shift-mark`;
  return {
    name,
    read: (o: ConnmarkOptions, text: string): void => {
      const bits = readNumber('CONNMARK', name, text, MOST_BITS);
      o.shift = side === 'left' || bits === 0 ? bits : -bits;
    },
  };
}

function shiftWords(shift: number): string[] {
  return shift === 0 ? [] : [`${shift < 0 ? 'right' : 'left'}-shift-mark`, String(Math.abs(shift))];
}

function shifted(value: number, shift: number): number {
  return shift < 0 ? value >>> -shift : value << shift;
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
  --left-shift-mark value       Left shift the ctmark with bits
  --right-shift-mark value      Right shift the ctmark with bits
`,
  needsConntrack: () => true,
  init: () => ({ mode: undefined, mark: 0, ctMask: -1, nfMask: -1, shift: 0 }),
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
    shiftOption('left'),
    shiftOption('right'),
  ],
  isLegal: ({ shift }) => Math.abs(shift) < MOST_BITS,
  finish: (o) => {
    if (o.mode === undefined) throw new BadRule('CONNMARK target: No operation specified');
  },
  save: ({ mode, mark, ctMask, nfMask, shift }) => {
    const [name, bits] = shiftWords(shift);
    return [
      ...(mode === 'set'
        ? saveChange({ value: mark, mask: ctMask })
        : [`--${mode}-mark`, '--nfmask', formatHex(nfMask), '--ctmask', formatHex(ctMask)]),
      ...(bits === undefined ? [] : [`--${name}`, bits]),
    ];
  },
  list: (o) => [listOperation(o), ...shiftWords(o.shift)].join(' '),
  compile: ({ mode, mark, ctMask, nfMask, shift }): TargetFunction => {
    switch (mode!) {
      case 'set':
        return (p, { conditions }) => {
          const { tracking } = conditions;
          if (p.entry !== 0) tracking!.setMark(p.entry, shifted((tracking!.mark(p.entry) & ~ctMask) ^ mark, shift));
          return CONTINUE;
        };
      case 'save':
        return (p, { conditions }) => {
          const { tracking } = conditions;
          if (p.entry !== 0) {
            tracking!.setMark(p.entry, (tracking!.mark(p.entry) & ~ctMask) ^ shifted(p.mark & nfMask, shift));
          }
          return CONTINUE;
        };
      case 'restore':
        return (p, { conditions }) => {
          if (p.entry !== 0) {
            p.mark = (p.mark & ~nfMask) ^ shifted(conditions.tracking!.mark(p.entry) & ctMask, shift);
          }
          return CONTINUE;
        };
    }
  },
});

function listOperation({ mode, mark, ctMask, nfMask }: ConnmarkOptions): string {
  if (mode === 'set') return listChange('CONNMARK', { value: mark, mask: ctMask });
  if (ctMask === -1 && nfMask === -1) return `CONNMARK ${mode}`;
  if (ctMask === nfMask) return `CONNMARK ${mode} mask ${formatHex(ctMask)}`;
  return mode === 'save'
    ? `CONNMARK save nfmask ${formatHex(nfMask)} ctmask ~${formatHex(ctMask)}`
    : `CONNMARK restore ctmask ${formatHex(ctMask)} nfmask ~${formatHex(nfMask)}`;
}
