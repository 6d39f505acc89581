/** `-j NETMAP`: a network becomes another one, host by host (net/netfilter/xt_NETMAP.c). */
import { RangeFlag } from '../../nat/range.ts';
import { formatIp4, prefixLength } from '../../wire/addr.ts';
import { defineTarget } from '../extension.ts';
import { readHostMask } from '../option-values.ts';
import { isReachedFrom } from './nat-range.ts';

interface NetmapOptions {
  ip: number;
  mask: number;
}

export const netmap = defineTarget<NetmapOptions>({
  name: 'NETMAP',
  man: `NETMAP target options:
  --to address[/mask]
				Network address to map to.

`,
  needsConntrack: () => true,
  init: () => ({ ip: 0, mask: -1 }),
  options: [
    {
      name: 'to',
      isRequired: true,
      read: (o, text, _not, reading) => {
        const { ip, mask } = readHostMask('NETMAP', 'to', text, reading);
        // A mask with holes maps nothing but that address.
        o.mask = prefixLength(mask) === undefined ? -1 : mask;
        o.ip = ip & o.mask;
      },
    },
  ],
  isLegal: (_o, _header, place) => isReachedFrom(place, 'PREROUTING', 'OUTPUT', 'POSTROUTING', 'INPUT'),
  save: ({ ip, mask }) => ['--to', `${formatIp4(ip)}/${prefixLength(mask)}`],
  list: ({ ip, mask }) => `to:${formatIp4(ip)}/${prefixLength(mask)}`,
  compile: ({ ip, mask }) => {
    const range = { flags: RangeFlag.MapIps, minIp: ip & mask, maxIp: ip | ~mask, minPort: 0, maxPort: 0, basePort: 0 };
    return (p, { conditions, hook }) => conditions.nat!.netmap(p, range, hook);
  },
});
