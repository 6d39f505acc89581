/** `-j SNAT`: another source address for the connection (net/netfilter/xt_nat.c). */
import { Manip } from '../../nat/range.ts';
import { addressTarget } from './nat-range.ts';

export const snat = addressTarget({
  name: 'SNAT',
  man: `SNAT target options:
 --to-source [<ipaddr>[-<ipaddr>]][:port[-port]]
				Address to map source to.
[--random] [--random-fully] [--persistent]
`,
  option: 'to-source',
  canHaveBase: false,
  flags: ['random', 'random-fully', 'persistent'],
  chains: ['POSTROUTING', 'INPUT'],
  setup:
    (range) =>
    (p, { conditions }) =>
      conditions.nat!.setup(p.entry, range, Manip.Src),
});
