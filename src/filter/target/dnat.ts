/** `-j DNAT`: another destination for the connection (net/netfilter/xt_nat.c). */
import { Manip } from '../../nat/range.ts';
import { addressTarget } from './nat-range.ts';

export const dnat = addressTarget({
  name: 'DNAT',
  man: `DNAT target options:
 --to-destination [<ipaddr>[-<ipaddr>]][:port[-port[/port]]]
				Address to map destination to.
[--random] [--persistent]
`,
  option: 'to-destination',
  canHaveBase: true,
  flags: ['random', 'persistent'],
  chains: ['PREROUTING', 'OUTPUT'],
  setup:
    (range) =>
    (p, { conditions }) =>
      conditions.nat!.setup(p.entry, range, Manip.Dst),
});
