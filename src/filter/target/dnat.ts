/** `-j DNAT`: another destination for the connection (net/netfilter/xt_nat.c). */
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

export const dnat = defineTarget<RangeOptions>({
  name: 'DNAT',
  man: `DNAT target options:
 --to-destination [<ipaddr>[-<ipaddr>]][:port[-port[/port]]]
				Address to map destination to.
[--random] [--persistent]
`,
  needsConntrack: () => true,
  init: newRange,
  options: [
    { name: 'to-destination', isRequired: true, read: (o, text, _not, reading) => readTarget(o, text, reading, true) },
    flagOption('random'),
    flagOption('persistent'),
  ],
  isLegal: (_o, _header, place) => isReachedFrom(place, 'PREROUTING', 'OUTPUT'),
  save: (o) => ['--to-destination', formatTarget(o), ...flagNames(o).map((name) => `--${name}`)],
  list: (o) => [`to:${formatTarget(o)}`, ...flagNames(o)].join(' '),
  compile: (o) => {
    const range = toRange(o);
    return (p, { conditions }) => conditions.nat!.setup(p.entry, range, Manip.Dst);
  },
});
