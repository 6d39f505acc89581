/** `-m multiport`: up to 15 ports and ranges of ports (net/netfilter/xt_multiport.c). */
import { IpProto } from '../../wire/ipv4.ts';
import { BadRule, defineMatch, type ListForm, type Reading } from '../extension.ts';
import { type Header, Inverted } from '../rule.ts';
import { formatPort, protocolName, readPort } from '../values.ts';

interface MultiportOptions {
  side: 'source' | 'destination' | 'either' | undefined;
  ranges: [number, number][];
  isInverted: boolean;
  /** Of the rule, for names of ports. */
  protocol: string;
}

const DCCP = 33;
const PROTOCOLS: readonly number[] = [IpProto.Tcp, IpProto.Udp, IpProto.UdpLite, IpProto.Sctp, DCCP];
/** A range takes two. */
const MOST_PORTS = 15;

/** check_proto */
function protocolOf(header: Header): string {
  if (header.proto === 0) {
    throw new BadRule("multiport needs `-p tcp', `-p udp', `-p udplite', `-p sctp' or `-p dccp'");
  }
  if (!isKnown(header)) throw new BadRule('multiport only works with TCP, UDP, UDPLITE, SCTP and DCCP');
  return protocolName(header.proto)!;
}

function isKnown(header: Header): boolean {
  return PROTOCOLS.includes(header.proto) && (header.inverted & Inverted.Proto) === 0;
}

function readRanges(text: string, reading: Reading, protocol: string): [number, number][] {
  let count = 0;
  return text.split(',').map((word) => {
    const colon = word.indexOf(':');
    count += colon < 0 ? 1 : 2;
    if (count > MOST_PORTS) throw new BadRule('too many ports specified');
    if (colon < 0) {
      const port = readPort(word, protocol, reading);
      return [port, port];
    }
    const low = readPort(word.slice(0, colon), protocol, reading);
    const high = readPort(word.slice(colon + 1), protocol, reading);
    if (low >= high) throw new BadRule('invalid portrange specified');
    return [low, high];
  });
}

const SIDES = {
  source: ['--sports', 'sports'],
  destination: ['--dports', 'dports'],
  either: ['--ports', 'ports'],
} as const;

function option(name: string, aliases: string[], side: 'source' | 'destination' | 'either', excludes: string[]) {
  return {
    name,
    aliases,
    excludes,
    canInvert: true,
    read: (o: MultiportOptions, text: string, isInverted: boolean, reading: Reading): void => {
      o.protocol = protocolOf(reading.header);
      o.side = side;
      o.ranges = readRanges(text, reading, o.protocol);
      o.isInverted = isInverted;
    },
  };
}

export const multiport = defineMatch<MultiportOptions>({
  name: 'multiport',
  man: `multiport match options:
[!] --source-ports port[,port:port,port...]
 --sports ...
				match source port(s)
[!] --destination-ports port[,port:port,port...]
 --dports ...
				match destination port(s)
[!] --ports port[,port:port,port]
				match both source and destination port(s)
`,
  init: () => ({ side: undefined, ranges: [], isInverted: false, protocol: 'tcp' }),
  options: [
    option('source-ports', ['sports'], 'source', ['destination-ports', 'ports']),
    option('destination-ports', ['dports'], 'destination', ['source-ports', 'ports']),
    option('ports', [], 'either', ['source-ports', 'destination-ports']),
  ],
  finish: (o) => {
    if (o.side === undefined) throw new BadRule('multiport expection an option');
  },
  isLegal: (_o, header) => isKnown(header),
  save: (o) => [...(o.isInverted ? ['!'] : []), SIDES[o.side!][0], formatRanges(o)],
  list: (o, form) => `multiport ${SIDES[o.side!][1]} ${o.isInverted ? ' !' : ''}${formatRanges(o, form)}`,
  ports: ({ side, ranges, isInverted }) => {
    const hull: [number, number] = [
      Math.min(...ranges.map(([low]) => low)),
      Math.max(...ranges.map(([, high]) => high)),
    ];
    return {
      source: side === 'source' && !isInverted ? hull : null,
      destination: side === 'destination' && !isInverted ? hull : null,
    };
  },
  compile: ({ side, ranges, isInverted }) => {
    const flat = Int32Array.from(ranges.flat());
    const count = flat.length;
    const isOneOf = (port: number): boolean => {
      for (let i = 0; i < count; i += 2) if (port >= flat[i]! && port <= flat[i + 1]!) return true;
      return false;
    };
    return (p, t) => {
      if (p.isLaterFragment !== 0) return false;
      const { view, l4 } = p;
      if (p.end - l4 < 4) {
        t.isHotDrop = true;
        return false;
      }
      const isMatch =
        (side !== 'destination' && isOneOf(view.getUint16(l4))) ||
        (side !== 'source' && isOneOf(view.getUint16(l4 + 2)));
      return isMatch !== isInverted;
    };
  },
});

function formatRanges({ ranges, protocol }: MultiportOptions, form?: ListForm): string {
  const port = (number: number): string => (form === undefined ? String(number) : formatPort(number, protocol, form));
  return ranges.map(([low, high]) => (low === high ? port(low) : `${port(low)}:${port(high)}`)).join(',');
}
