/** `-m udp`: ports of UDP (net/netfilter/xt_tcpudp.c, udp_mt). */
import { IpProto } from '../../wire/ipv4.ts';
import { defineMatch } from '../extension.ts';
import { readPorts } from '../option-values.ts';
import { Inverted } from '../rule.ts';
import { listPorts, savePorts } from '../values.ts';
import { transport } from './transport.ts';

interface UdpOptions {
  source: [number, number];
  isSourceInverted: boolean;
  destination: [number, number];
  isDestinationInverted: boolean;
}

const UDP = IpProto.Udp;

export const udp = defineMatch<UdpOptions>({
  name: 'udp',
  man: `udp match options:
[!] --source-port port[:port]
 --sport ...
				match source port(s)
[!] --destination-port port[:port]
 --dport ...
				match destination port(s)
`,
  init: () => ({
    source: [0, 0xffff],
    isSourceInverted: false,
    destination: [0, 0xffff],
    isDestinationInverted: false,
  }),
  options: [
    {
      name: 'source-port',
      aliases: ['sport'],
      canInvert: true,
      read: (o, value, isInverted, reading) => {
        o.source = readPorts('udp', 'source-port', value, reading);
        o.isSourceInverted = isInverted;
      },
    },
    {
      name: 'destination-port',
      aliases: ['dport'],
      canInvert: true,
      read: (o, value, isInverted, reading) => {
        o.destination = readPorts('udp', 'destination-port', value, reading);
        o.isDestinationInverted = isInverted;
      },
    },
  ],
  isLegal: (_o, header) => header.proto === UDP && (header.inverted & Inverted.Proto) === 0,
  save: (o) => [
    ...savePorts('--sport', o.source, o.isSourceInverted),
    ...savePorts('--dport', o.destination, o.isDestinationInverted),
  ],
  list: (o, form) => {
    const ports = [
      listPorts('spt', o.source, o.isSourceInverted, 'udp', form),
      listPorts('dpt', o.destination, o.isDestinationInverted, 'udp', form),
    ].filter((part) => part !== '');
    return ports.length === 0 ? 'udp' : `udp ${ports.join(' ')}`;
  },
  ports: (o) => ({
    source: o.isSourceInverted ? null : o.source,
    destination: o.isDestinationInverted ? null : o.destination,
  }),
  compile: ({ source, isSourceInverted, destination, isDestinationInverted }) => {
    const [sourceLow, sourceHigh] = source;
    const [low, high] = destination;
    return transport(8, ({ view, l4 }) => {
      const from = view.getUint16(l4);
      const to = view.getUint16(l4 + 2);
      const isMatch =
        (from >= sourceLow && from <= sourceHigh) !== isSourceInverted &&
        (to >= low && to <= high) !== isDestinationInverted;
      return isMatch ? 1 : 0;
    });
  },
});
