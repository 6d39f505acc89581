/** `-m connlabel`: a label of the packet's connection, which the match can set itself (net/netfilter/xt_connlabel.c). */
import { BadRule, defineMatch } from '../extension.ts';
import { parseNumber } from '../values.ts';

interface ConnlabelOptions {
  bit: number;
  sets: boolean;
  isInverted: boolean;
}

/** Labels that a connection has (XT_CONNLABEL_MAXBIT). */
const LABELS = 128;
/** The tool keeps a number in so many bits. */
const STORED = 0xffff;

export const connlabel = defineMatch<ConnlabelOptions>({
  name: 'connlabel',
  man: `connlabel match options:
[!] --label name     Match if label has been set on connection
    --set            Set label on connection
`,
  needsConntrack: () => true,
  needsLabels: true,
  init: () => ({ bit: 0, sets: false, isInverted: false }),
  options: [
    {
      name: 'label',
      canInvert: true,
      isRequired: true,
      read: (o, text, isInverted, { names }) => {
        if (text === '') throw new BadRule('Argument must have a minimum length of 1 characters\n');
        const bit = parseNumber(text.trimStart()) ?? names?.labelBit?.(text);
        if (bit === undefined) throw new BadRule(`label '${text}' not found or invalid value`);
        o.bit = bit & STORED;
        o.isInverted = isInverted;
      },
      write: (text, names) => `"${names?.labelName?.(Number(text)) ?? text}"`,
    },
    {
      name: 'set',
      value: 'none',
      read: (o) => {
        o.sets = true;
      },
    },
  ],
  isOutOfRange: ({ bit }) => bit >= LABELS,
  save: ({ bit, sets, isInverted }) => [
    ...(isInverted ? ['!'] : []),
    '--label',
    String(bit),
    ...(sets ? ['--set'] : []),
  ],
  list: ({ bit, sets, isInverted }, form) => {
    const name = form.labelName?.(bit);
    const label = form.isNumeric || name === undefined ? bit : `'${name}'`;
    return `connlabel ${isInverted ? '! ' : ''}${label}${sets ? ' set' : ''}`;
  },
  compile: ({ bit, sets, isInverted }) => {
    return (p, { conditions }) => {
      const tracking = conditions.tracking!;
      // An entry from before the first such rule has no place for labels.
      if (p.entry === 0 || !tracking.canHaveLabels(p.entry)) return isInverted;
      if (tracking.hasLabel(p.entry, bit)) return !isInverted;
      if (!sets) return isInverted;
      tracking.setLabel(p.entry, bit);
      return !isInverted;
    };
  },
});
