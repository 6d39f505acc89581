/** `-j MASQUERADE`: the source becomes the address of the device where the connection leaves (net/netfilter/xt_MASQUERADE.c). */
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

export const masquerade = defineTarget<RangeOptions>({
  name: 'MASQUERADE',
  man: `MASQUERADE target options:
 --to-ports <port>[-<port>]
				Port (range) to map to.
 --random
				Randomize source port.
 --random-fully
				Fully randomize source port.
`,
  needsConntrack: () => true,
  init: newRange,
  options: [
    { name: 'to-ports', read: (o, text, _not, reading) => readPorts(o, text, reading, false) },
    flagOption('random'),
    flagOption('random-fully'),
  ],
  isLegal: (_o, _header, place) => isReachedFrom(place, 'POSTROUTING'),
  save: (o) => {
    const ports = formatPorts(o);
    return [...(ports === '' ? [] : ['--to-ports', ports]), ...flagNames(o).map((name) => `--${name}`)];
  },
  list: (o) => {
    const ports = formatPorts(o);
    return [...(ports === '' ? [] : [`masq ports: ${ports}`]), ...flagNames(o)].join(' ');
  },
  compile: (o) => {
    const range = toRange(o);
    return (p, { conditions }) => conditions.nat!.masquerade(p, range);
  },
});
