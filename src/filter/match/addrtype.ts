/** `-m addrtype`: what kind of address source or destination is (net/netfilter/xt_addrtype.c). */
import { NONE } from '../../packet/packet.ts';
import { dst, src } from '../../wire/ipv4.ts';
import type { HostConditions } from '../conditions.ts';
import { BadRule, defineMatch } from '../extension.ts';
import { readWords } from '../values.ts';

interface AddrtypeOptions {
  /** Bits by the place in TYPES; 0: not asked. */
  source: number;
  isSourceInverted: boolean;
  destination: number;
  isDestinationInverted: boolean;
  limit: 'in' | 'out' | undefined;
}

/** By number, include/uapi/linux/rtnetlink.h; the local table, which is what is asked, holds few of them. */
const TYPES = [
  'UNSPEC', 'UNICAST', 'LOCAL', 'BROADCAST', 'ANYCAST', 'MULTICAST', 'BLACKHOLE', 'UNREACHABLE', 'PROHIBIT', 'THROW',
  'NAT', 'XRESOLVE',
]; // biome-ignore format: a table

const BITS = TYPES.map((name, type): [string, number] => [name, 1 << type]);

/** The tool quotes what is wrong in two ways. */
function readTypes(text: string): number {
  return readWords(text, BITS, (rest, isLast) => `addrtype: bad type ${isLast ? `"${rest}"` : `\`${rest}'`}`);
}

function formatTypes(types: number): string {
  return TYPES.filter((_name, type) => (types & (1 << type)) !== 0).join(',');
}

export const addrtype = defineMatch<AddrtypeOptions>({
  name: 'addrtype',
  man: `Address type match options:
 [!] --src-type type[,...]      Match source address type
 [!] --dst-type type[,...]      Match destination address type
     --limit-iface-in           Match only on the packet's incoming device
     --limit-iface-out          Match only on the packet's outgoing device

Valid types:           
${TYPES.map((name) => `                                ${name}\n`).join('')}`,
  init: () => ({
    source: 0,
    isSourceInverted: false,
    destination: 0,
    isDestinationInverted: false,
    limit: undefined,
  }),
  options: [
    {
      name: 'src-type',
      canInvert: true,
      read: (o, text, isInverted) => {
        o.source = readTypes(text);
        o.isSourceInverted = isInverted;
      },
    },
    {
      name: 'dst-type',
      canInvert: true,
      read: (o, text, isInverted) => {
        o.destination = readTypes(text);
        o.isDestinationInverted = isInverted;
      },
    },
    {
      name: 'limit-iface-in',
      value: 'none',
      excludes: ['limit-iface-out'],
      read: (o) => {
        o.limit = 'in';
      },
    },
    {
      name: 'limit-iface-out',
      value: 'none',
      excludes: ['limit-iface-in'],
      read: (o) => {
        o.limit = 'out';
      },
    },
  ],
  finish: (_o, _header, given) => {
    if (!given.has('src-type') && !given.has('dst-type')) {
      throw new BadRule('addrtype: you must specify --src-type or --dst-type');
    }
  },
  isLegal: ({ limit }, _header, { hooks }) =>
    !hooks.some((hook) =>
      limit === 'out'
        ? hook === 'PREROUTING' || hook === 'INPUT'
        : limit === 'in' && (hook === 'POSTROUTING' || hook === 'OUTPUT'),
    ),
  save: (o) => [
    ...(o.source === 0 ? [] : [...(o.isSourceInverted ? ['!'] : []), '--src-type', formatTypes(o.source)]),
    ...(o.destination === 0
      ? []
      : [...(o.isDestinationInverted ? ['!'] : []), '--dst-type', formatTypes(o.destination)]),
    ...(o.limit === undefined ? [] : [`--limit-iface-${o.limit}`]),
  ],
  list: (o) => {
    const words = ['ADDRTYPE match'];
    if (o.source !== 0) words.push(`src-type ${o.isSourceInverted ? '!' : ''}${formatTypes(o.source)}`);
    if (o.destination !== 0) words.push(`dst-type ${o.isDestinationInverted ? '!' : ''}${formatTypes(o.destination)}`);
    if (o.limit !== undefined) words.push(`limit-${o.limit}`);
    return words.join(' ');
  },
  compile: ({ source, isSourceInverted, destination, isDestinationInverted, limit }) => {
    return (p, { conditions, inDevice, outDevice }) => {
      const { view, l3 } = p;
      const device = limit === undefined ? NONE : limit === 'in' ? inDevice : outDevice;
      if (source !== 0 && isOf(conditions, src(view, l3), device, source) === isSourceInverted) return false;
      return destination === 0 || isOf(conditions, dst(view, l3), device, destination) !== isDestinationInverted;
    };
  },
});

function isOf(conditions: HostConditions, ip: number, device: number, types: number): boolean {
  return (types & (1 << conditions.addressType(ip, device))) !== 0;
}
