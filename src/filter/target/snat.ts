/** `-j SNAT`: another source address for the connection (net/netfilter/xt_nat.c). */
import { Manip } from '../../nat/range.ts';
import { defineTarget } from '../extension.ts';
import {
  flagNames,
  flagOption,
  formatTarget,
  isReachedFrom,
  newRange,
  type RangeOptions,
  readTarget,
  toRange,
} from './nat-range.ts';

export const snat = defineTarget<RangeOptions>({
  name: 'SNAT',
  man: `SNAT target options:
 --to-source [<ipaddr>[-<ipaddr>]][:port[-port]]
				Address to map source to.
[--random] [--random-fully] [--persistent]
`,
  needsConntrack: () => true,
  init: newRange,
  options: [
    { name: 'to-source', isRequired: true, read: (o, text, _not, reading) => readTarget(o, text, reading, false) },
    flagOption('random'),
    flagOption('random-fully'),
    flagOption('persistent'),
  ],
  isLegal: (_o, _header, place) => isReachedFrom(place, 'POSTROUTING', 'INPUT'),
  save: (o) => ['--to-source', formatTarget(o), ...flagNames(o).map((name) => `--${name}`)],
  list: (o) => [`to:${formatTarget(o)}`, ...flagNames(o)].join(' '),
  compile: (o) => {
    const range = toRange(o);
    return (p, { conditions }) => conditions.nat!.setup(p.entry, range, Manip.Src);
  },
});
