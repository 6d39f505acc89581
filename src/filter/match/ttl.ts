/** `-m ttl`: the time to live (net/netfilter/xt_hl.c). */
import { ttl as ttlOf } from '../../wire/ipv4.ts';
import { BadRule, defineMatch, type MatchFunction } from '../extension.ts';
import { readNumber } from '../values.ts';

interface TtlOptions {
  mode: 'eq' | 'ne' | 'lt' | 'gt';
  value: number;
}

const SIGNS = { eq: '==', ne: '!=', lt: '<', gt: '>' } as const;

function bound(mode: 'lt' | 'gt') {
  return {
    name: `ttl-${mode}`,
    excludes: ['ttl-eq', mode === 'lt' ? 'ttl-gt' : 'ttl-lt'],
    read: (o: TtlOptions, text: string): void => {
      o.mode = mode;
      o.value = readNumber('ttl', `ttl-${mode}`, text, 255);
    },
  };
}

export const ttl = defineMatch<TtlOptions>({
  name: 'ttl',
  man: `ttl match options:
[!] --ttl-eq value	Match time to live value
  --ttl-lt value	Match TTL < value
  --ttl-gt value	Match TTL > value
`,
  init: () => ({ mode: 'eq', value: 0 }),
  options: [
    bound('lt'),
    bound('gt'),
    {
      name: 'ttl-eq',
      aliases: ['ttl'],
      canInvert: true,
      excludes: ['ttl-lt', 'ttl-gt'],
      read: (o, text, isInverted) => {
        o.mode = isInverted ? 'ne' : 'eq';
        o.value = readNumber('ttl', 'ttl-eq', text, 255);
      },
    },
  ],
  finish: (_o, _header, given) => {
    if (given.size === 0) {
      throw new BadRule("TTL match: You must specify one of `--ttl-eq', `--ttl-lt', `--ttl-gt");
    }
  },
  save: ({ mode, value }) => (mode === 'ne' ? ['!', '--ttl-eq', String(value)] : [`--ttl-${mode}`, String(value)]),
  list: ({ mode, value }) => `TTL match TTL ${SIGNS[mode]} ${value}`,
  compile: ({ mode, value }): MatchFunction => {
    switch (mode) {
      case 'eq':
        return ({ view, l3 }) => ttlOf(view, l3) === value;
      case 'ne':
        return ({ view, l3 }) => ttlOf(view, l3) !== value;
      case 'lt':
        return ({ view, l3 }) => ttlOf(view, l3) < value;
      case 'gt':
        return ({ view, l3 }) => ttlOf(view, l3) > value;
    }
  },
});
