/** `-j MASQUERADE`: the source becomes the address of the device where the connection leaves (net/netfilter/xt_MASQUERADE.c). */
import { portsTarget } from './nat-range.ts';

export const masquerade = portsTarget({
  name: 'MASQUERADE',
  man: `MASQUERADE target options:
 --to-ports <port>[-<port>]
				Port (range) to map to.
 --random
				Randomize source port.
 --random-fully
				Fully randomize source port.
`,
  listed: 'masq ports:',
  flags: ['random', 'random-fully'],
  chains: ['POSTROUTING'],
  setup:
    (range) =>
    (p, { conditions }) =>
      conditions.nat!.masquerade(p, range),
});
