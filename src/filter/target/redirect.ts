/** `-j REDIRECT`: the connection ends at this machine (net/netfilter/xt_REDIRECT.c). */
import { portsTarget } from './nat-range.ts';

export const redirect = portsTarget({
  name: 'REDIRECT',
  man: `REDIRECT target options:
 --to-ports <port>[-<port>]
				Port (range) to map to.
 [--random]
`,
  listed: 'redir ports',
  flags: ['random'],
  chains: ['PREROUTING', 'OUTPUT'],
  setup:
    (range) =>
    (p, { conditions, hook }) =>
      conditions.nat!.redirect(p, range, hook),
});
