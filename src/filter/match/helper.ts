/** `-m helper`: connections that a helper of another one announced (net/netfilter/xt_helper.c). */
import { defineMatch } from '../extension.ts';

interface HelperOptions {
  /** '': any. */
  helper: string;
  isInverted: boolean;
}

/** Bytes, with the final zero. */
const LONGEST = 29;

export const helper = defineMatch<HelperOptions>({
  name: 'helper',
  man: `helper match options:
[!] --helper string        Match helper identified by string
`,
  needsConntrack: () => true,
  init: () => ({ helper: '', isInverted: false }),
  options: [
    {
      name: 'helper',
      canInvert: true,
      isRequired: true,
      isText: true,
      read: (o, text, isInverted) => {
        o.helper = text.slice(0, LONGEST);
        o.isInverted = isInverted;
      },
    },
  ],
  save: (o) => [...(o.isInverted ? ['!'] : []), '--helper', o.helper],
  list: (o) => `helper match ${o.isInverted ? '! ' : ''}"${o.helper}"`,
  compile: ({ helper: wanted, isInverted }) => {
    return (p, { conditions }) => {
      const tracking = conditions.tracking!;
      const master = p.entry === 0 ? 0 : tracking.master(p.entry);
      const name = master === 0 ? '' : tracking.helperName(master);
      // Without an entry, a master or its helper the answer is the inversion alone.
      if (name === '') return isInverted;
      return (wanted === '' || wanted.startsWith(name)) !== isInverted;
    };
  },
});
