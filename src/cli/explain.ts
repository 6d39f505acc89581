/** `tapvs explain`: what tapvsd would do with a packet, and why; nothing is sent, and nothing changes. */
import type { ExplainSpec, Explanation } from '../control/api.ts';
import { parseIp4 } from '../wire/addr.ts';
import { CHUNK_NAMES } from '../wire/header-fields.ts';
import { type CliCommand, CliError, Exit } from './command.ts';
import { type OptionSpec, type Options, readOptions } from './options.ts';
import { formatWays } from './way-text.ts';

const HELP = `Usage: tapvs explain tcp|udp|sctp SOURCE:PORT DESTINATION:PORT [options]
       tapvs explain icmp SOURCE DESTINATION [options]
What would become of such a packet now: each hook, the service, why the scheduler picks which server,
the connection, the rewrite, where it leaves. Nothing is sent and nothing changes.
  -i, --interface DEVICE   comes in there; without it, where its source is routed
      --flags LETTERS      TCP flags in tcpdump's letters, F S R P . U E W (A is .); default S
      --chunk TYPE         of an sctp packet: init, init-ack, cookie-echo, data, abort, …; default init
      --mark NUMBER        firewall mark
      --ttl NUMBER         default 64
      --length BYTES       of the IP packet; default: no data
      --df                 do not fragment
      --json               for programs
An icmp packet is an echo request. Exit status: 0 it is sent, delivered or answered; 1 it is dropped.
`;

const OPTIONS: readonly OptionSpec[] = [
  { long: '--interface', short: '-i', takesValue: true },
  { long: '--flags', takesValue: true },
  { long: '--chunk', takesValue: true },
  { long: '--mark', takesValue: true },
  { long: '--ttl', takesValue: true },
  { long: '--length', takesValue: true },
  { long: '--df' },
  { long: '--json' },
];

export const explain: CliCommand = {
  async run(args, { client, out }) {
    const options = readOptions('explain', args, OPTIONS);
    if (options.flags.has('help')) {
      out(HELP);
      return 0;
    }
    const answer = await client.post<Explanation>('/v1/explain', readSpec(options));
    out(options.flags.has('json') ? `${JSON.stringify(answer)}\n` : formatWays(answer.ways));
    return answer.ways[0]?.end.kind === 'dropped' ? 1 : 0;
  },
};

function usage(message: string): CliError {
  return new CliError(`tapvs explain: ${message}, see tapvs explain --help`, Exit.Usage);
}

function readSpec(options: Options): ExplainSpec {
  const { flags, values, words } = options;
  const [protocol, from, to, ...rest] = words;
  if (protocol === undefined || from === undefined || to === undefined) {
    throw usage('a protocol, a source and a destination are expected');
  }
  if (rest.length > 0) throw usage(`unexpected "${rest[0]}"`);
  if (!isProtocol(protocol)) throw usage(`unknown protocol "${protocol}"`);
  const hasPorts = protocol !== 'icmp';
  const [source, destination] = [readEnd(from, hasPorts), readEnd(to, hasPorts)];
  const letters = values.get('flags') ?? 'S';
  if (protocol !== 'tcp' && values.has('flags')) throw usage(`--flags is for tcp, not for ${protocol}`);
  if (!/^[FSRP.UEWAC]*$/.test(letters)) throw usage(`--flags ${letters}: letters of FSRP.UEW are expected`);
  return {
    protocol,
    source: source.address,
    destination: destination.address,
    sourcePort: source.port,
    destinationPort: destination.port,
    flags: letters,
    chunk: readChunk(protocol, values.get('chunk')),
    device: values.get('interface'),
    mark: number('--mark', values.get('mark'), 0, 0xffffffff, 0),
    ttl: number('--ttl', values.get('ttl'), 0, 255, 64),
    length: number('--length', values.get('length'), 0, 65535, 0),
    df: flags.has('df'),
  };
}

function isProtocol(word: string): word is ExplainSpec['protocol'] {
  return ['tcp', 'udp', 'sctp', 'icmp'].includes(word);
}

function readChunk(protocol: string, text: string | undefined): number {
  if (text === undefined) return CHUNK_NAMES.indexOf('INIT');
  if (protocol !== 'sctp') throw usage(`--chunk is for sctp, not for ${protocol}`);
  const type = CHUNK_NAMES.indexOf(text.toUpperCase().replace('-', ' '));
  if (type >= 0) return type;
  const names = CHUNK_NAMES.map((name) => name.toLowerCase().replace(' ', '-'));
  throw usage(`--chunk ${text}: one of ${names.join(', ')} is expected`);
}

function readEnd(text: string, hasPort: boolean): { address: string; port: number } {
  const [address, port, ...rest] = text.split(':');
  if (parseIp4(address!) === undefined) throw usage(`"${text}" does not begin with an IPv4 address`);
  if (!hasPort) {
    if (port !== undefined) throw usage(`"${text}": icmp has no ports`);
    return { address: address!, port: 0 };
  }
  if (port === undefined || rest.length > 0 || !/^\d{1,5}$/.test(port) || Number(port) > 65535) {
    throw usage(`"${text}": ADDRESS:PORT is expected`);
  }
  return { address: address!, port: Number(port) };
}

function number(option: string, text: string | undefined, min: number, max: number, fallback: number): number {
  if (text === undefined) return fallback;
  const value = /^(\d{1,10}|0x[0-9a-f]{1,8})$/i.test(text) ? Number(text) : Number.NaN;
  if (value >= min && value <= max) return value;
  throw usage(`${option} ${text}: a number from ${min} to ${max} is expected`);
}
