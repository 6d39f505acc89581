/** `-m tcp`: ports, flags and options of TCP (net/netfilter/xt_tcpudp.c, tcp_mt).   */
import { IpProto } from '../../wire/ipv4.ts';
import { TcpFlag } from '../../wire/tcp.ts';
import { BadRule, defineMatch, type MatchFunction } from '../extension.ts';
import { Inverted } from '../rule.ts';
import { listPorts, parseNumber, readPortRange, savePorts } from '../values.ts';
import { hasTcpOption, transport } from './transport.ts';

interface TcpOptions {
  source: [number, number];
  isSourceInverted: boolean;
  destination: [number, number];
  isDestinationInverted: boolean;
  flagMask: number;
  flags: number;
  isFlagsInverted: boolean;
  /** 0: none asked for. */
  option: number;
  isOptionInverted: boolean;
  given: Set<string>;
}

const TCP = IpProto.Tcp;
const FLAGS: readonly (readonly [string, number])[] = [
  ['FIN', TcpFlag.Fin],
  ['SYN', TcpFlag.Syn],
  ['RST', TcpFlag.Rst],
  ['PSH', TcpFlag.Psh],
  ['ACK', TcpFlag.Ack],
  ['URG', TcpFlag.Urg],
];
const ALL = 0x3f;
const SYN_MASK = TcpFlag.Syn | TcpFlag.Rst | TcpFlag.Ack | TcpFlag.Fin;

function readFlags(text: string): number {
  let flags = 0;
  for (const word of text.split(',').filter((part) => part !== '')) {
    const name = word.toUpperCase();
    const bit = name === 'ALL' ? ALL : name === 'NONE' ? 0 : FLAGS.find(([known]) => known === name)?.[1];
    if (bit === undefined) throw new BadRule(`Unknown TCP flag \`${word}'`);
    flags |= bit;
  }
  return flags;
}

/** `NONE NONE` asks nothing; `NONE SYN` what no packet has. */
function hasFlags({ flagMask, flags, isFlagsInverted }: TcpOptions): boolean {
  return flagMask !== 0 || flags !== 0 || isFlagsInverted;
}

function formatFlags(flags: number): string {
  const names = FLAGS.filter(([, bit]) => (flags & bit) !== 0).map(([name]) => name);
  return names.length === 0 ? 'NONE' : names.join(',');
}

/** Each of these once, whatever its name (the old style of the tool). */
function once(o: TcpOptions, what: string, message: string): void {
  if (o.given.has(what)) throw new BadRule(message);
  o.given.add(what);
}

export const tcp = defineMatch<TcpOptions>({
  name: 'tcp',
  man: `tcp match options:
[!] --tcp-flags mask comp	match when TCP flags & mask == comp
				(Flags: SYN ACK FIN RST URG PSH ALL NONE)
[!] --syn			match when only SYN flag set
				(equivalent to --tcp-flags SYN,RST,ACK,FIN SYN)
[!] --source-port port[:port]
 --sport ...
				match source port(s)
[!] --destination-port port[:port]
 --dport ...
				match destination port(s)
[!] --tcp-option number        match if TCP option set
`,
  init: () => ({
    source: [0, 0xffff],
    isSourceInverted: false,
    destination: [0, 0xffff],
    isDestinationInverted: false,
    flagMask: 0,
    flags: 0,
    isFlagsInverted: false,
    option: 0,
    isOptionInverted: false,
    given: new Set(),
  }),
  options: [
    {
      name: 'source-port',
      aliases: ['sport'],
      canInvert: true,
      canRepeat: true,
      read: (o, value, isInverted, reading) => {
        once(o, 'source', "Only one `--source-port' allowed");
        o.source = readPortRange(value, 'tcp', reading);
        o.isSourceInverted = isInverted;
      },
    },
    {
      name: 'destination-port',
      aliases: ['dport'],
      canInvert: true,
      canRepeat: true,
      read: (o, value, isInverted, reading) => {
        once(o, 'destination', "Only one `--destination-port' allowed");
        o.destination = readPortRange(value, 'tcp', reading);
        o.isDestinationInverted = isInverted;
      },
    },
    {
      name: 'syn',
      value: 'none',
      canInvert: true,
      canRepeat: true,
      read: (o, _value, isInverted) => {
        once(o, 'flags', "Only one of `--syn' or `--tcp-flags'  allowed");
        o.flagMask = SYN_MASK;
        o.flags = TcpFlag.Syn;
        o.isFlagsInverted = isInverted;
      },
    },
    {
      name: 'tcp-flags',
      canInvert: true,
      canRepeat: true,
      read: (o, value, isInverted, reading) => {
        once(o, 'flags', "Only one of `--syn' or `--tcp-flags'  allowed");
        const comparison = reading.takeWord();
        if (comparison === undefined) throw new BadRule('--tcp-flags requires two args.');
        o.flagMask = readFlags(value);
        o.flags = readFlags(comparison);
        o.isFlagsInverted = isInverted;
      },
    },
    {
      name: 'tcp-option',
      canInvert: true,
      canRepeat: true,
      read: (o, value, isInverted) => {
        once(o, 'option', "Only one `--tcp-option' allowed");
        const number = parseNumber(value, 255);
        if (number === undefined || number === 0) throw new BadRule(`Bad TCP option "${value}"`);
        o.option = number;
        o.isOptionInverted = isInverted;
      },
    },
  ],
  isLegal: (_o, header) => header.proto === TCP && (header.inverted & Inverted.Proto) === 0,
  save: (o) => [
    ...savePorts('--sport', o.source, o.isSourceInverted),
    ...savePorts('--dport', o.destination, o.isDestinationInverted),
    ...(o.option === 0 ? [] : [...(o.isOptionInverted ? ['!'] : []), '--tcp-option', String(o.option)]),
    ...(!hasFlags(o)
      ? []
      : [...(o.isFlagsInverted ? ['!'] : []), '--tcp-flags', formatFlags(o.flagMask), formatFlags(o.flags)]),
  ],
  list: (o, form) => {
    const parts = [
      'tcp',
      listPorts('spt', o.source, o.isSourceInverted, 'tcp', form),
      listPorts('dpt', o.destination, o.isDestinationInverted, 'tcp', form),
    ];
    if (o.option !== 0) parts.push(`option=${o.isOptionInverted ? '!' : ''}${o.option}`);
    if (hasFlags(o)) {
      const hex = (flags: number): string => `0x${flags.toString(16).toUpperCase().padStart(2, '0')}`;
      const format = form.isNumeric ? hex : formatFlags;
      parts.push(`flags:${o.isFlagsInverted ? '!' : ''}${format(o.flagMask)}/${format(o.flags)}`);
    }
    return parts.filter((part) => part !== '').join(' ');
  },
  ports: (o) => ({
    source: o.isSourceInverted ? null : o.source,
    destination: o.isDestinationInverted ? null : o.destination,
  }),
  compile: (o): MatchFunction => {
    const ports = portTest(o);
    const { flagMask, flags, isFlagsInverted, option, isOptionInverted } = o;
    const asksFlags = hasFlags(o);
    return transport(20, (p) => {
      const { view, l4 } = p;
      if (!ports(view.getUint16(l4), view.getUint16(l4 + 2))) return 0;
      if (asksFlags && ((view.getUint8(l4 + 13) & flagMask) === flags) === isFlagsInverted) return 0;
      if (option === 0) return 1;
      const found = hasTcpOption(p, option);
      return found < 0 ? found : (found === 1) !== isOptionInverted ? 1 : 0;
    });
  },
});

/** Both ranges; apart from their inversions. */
function portTest(o: TcpOptions): (source: number, destination: number) => boolean {
  const [sourceLow, sourceHigh] = o.source;
  const [low, high] = o.destination;
  const { isSourceInverted, isDestinationInverted } = o;
  return (source, destination) =>
    (source >= sourceLow && source <= sourceHigh) !== isSourceInverted &&
    (destination >= low && destination <= high) !== isDestinationInverted;
}
