/** `-j REDIRECT`: the connection ends at this machine (net/netfilter/xt_REDIRECT.c). */
import { defineTarget } from '../extension.ts';
import {
  flagNames,
  flagOption,
  formatPorts,
  isReachedFrom,
  newRange,
  type RangeOptions,
  readPorts,
  toRange,
} from './nat-range.ts';

export const redirect = defineTarget<RangeOptions>({
  name: 'REDIRECT',
  man: `REDIRECT target options:
 --to-ports <port>[-<port>]
				Port (range) to map to.
 [--random]
`,
  needsConntrack: () => true,
  init: newRange,
  options: [
    { name: 'to-ports', read: (o, text, _not, reading) => readPorts(o, text, reading, false) },
    flagOption('random'),
  ],
  isLegal: (_o, _header, place) => isReachedFrom(place, 'PREROUTING', 'OUTPUT'),
  save: (o) => {
    const ports = formatPorts(o);
    return [...(ports === '' ? [] : ['--to-ports', ports]), ...flagNames(o).map((name) => `--${name}`)];
  },
  list: (o) => {
    const ports = formatPorts(o);
    return [...(ports === '' ? [] : [`redir ports ${ports}`]), ...flagNames(o)].join(' ');
  },
  compile: (o) => {
    const range = toRange(o);
    return (p, { conditions, hook }) => conditions.nat!.redirect(p, range, hook);
  },
});
