/** The protocols that conntrack(8) has options for (extensions/libct_proto_*.c): one table for parsing, checks, `-o save` and help. */
import type { CtTuple, EntryRow } from '../../model/conntrack.ts';
import { SCTP_CT_NAMES, TCP_CT_NAMES } from '../../model/entry-states.ts';
import type { LongOption } from '../getopt.ts';
import type { CommandName, Pairs, Rules } from './commands.ts';
import { swap32 } from './values.ts';

export type ProtocolOption =
  | 'sport'
  | 'dport'
  | 'reply-port-src'
  | 'reply-port-dst'
  | 'mask-port-src'
  | 'mask-port-dst'
  | 'state'
  | 'tuple-port-src'
  | 'tuple-port-dst'
  | 'orig-vtag'
  | 'reply-vtag'
  | 'role'
  | 'icmp-type'
  | 'icmp-code'
  | 'icmp-id'
  | 'icmpv6-type'
  | 'icmpv6-code'
  | 'icmpv6-id'
  | 'srckey'
  | 'dstkey'
  | 'reply-key-src'
  | 'reply-key-dst'
  | 'mask-key-src'
  | 'mask-key-dst'
  | 'tuple-key-src'
  | 'tuple-key-dst';

/** What of an entry is saved here. */
type Saved = Pick<EntryRow, 'original' | 'reply' | 'state' | 'tags'>;

export interface Protocol {
  readonly name: string;
  readonly number: number;
  /** In the order in which they are checked. */
  readonly options: readonly ProtocolOption[];
  readonly rules: Partial<Record<CommandName, Rules>>;
  readonly pairs?: Pairs<ProtocolOption> | undefined;
  readonly states?: { readonly label: string; readonly names: readonly string[] } | undefined;
  readonly help: string;
  /** Words of a line of `-o save`. */
  readonly save: (row: Saved) => string;
}

/** Of SCTP's the tool knows those that were there when it was written. */
const SCTP_STATES = SCTP_CT_NAMES.filter((name) => name !== 'HEARTBEAT_SENT');
const DCCP_STATES = [
  'NONE',
  'REQUEST',
  'RESPOND',
  'PARTOPEN',
  'OPEN',
  'CLOSEREQ',
  'CLOSING',
  'TIMEWAIT',
  'IGNORE',
  'INVALID',
];

const PORT_OPTIONS = [
  'sport',
  'dport',
  'reply-port-src',
  'reply-port-dst',
  'mask-port-src',
  'mask-port-dst',
] as const satisfies readonly ProtocolOption[];
const TUPLE_PORTS = ['tuple-port-src', 'tuple-port-dst'] as const satisfies readonly ProtocolOption[];

const PORT_HELP =
  '  --orig-port-src\t\toriginal source port\n' +
  '  --orig-port-dst\t\toriginal destination port\n' +
  '  --reply-port-src\t\treply source port\n' +
  '  --reply-port-dst\t\treply destination port\n' +
  '  --mask-port-src\t\tmask source port\n' +
  '  --mask-port-dst\t\tmask destination port\n' +
  '  --tuple-port-src\t\texpectation tuple src port\n' +
  '  --tuple-port-src\t\texpectation tuple dst port\n';

function portPairs(
  replyMissing = "you have to specify `--reply-src-port' and `--reply-dst-port'",
): Pairs<ProtocolOption> {
  return {
    pairs: [
      ['sport', 'dport'],
      ['reply-port-src', 'reply-port-dst'],
    ],
    missing: ["you have to specify `--sport' and `--dport'", replyMissing],
  };
}

/** What stands between the ports' masks and the tuple's ports (`middle`) and behind these (`end`), by kind of command. */
interface MoreRules {
  readonly middle: string;
  readonly makes: string;
  readonly end: string;
  readonly makesEnd: string;
  readonly changesEnd: string;
  readonly getsEnd: string;
}

const NO_MORE: MoreRules = { middle: '', makes: '', end: '', makesEnd: '', changesEnd: '', getsEnd: '' };

/** Rules of a protocol with ports, or keys. */
function portRules({ middle, makes, end, makesEnd, changesEnd, getsEnd }: MoreRules): Protocol['rules'] {
  const zeros = (text: string) => text.replace(/./g, '0');
  return {
    list: `222200${middle}00${end}`,
    create: `333300${makes}00${makesEnd}`,
    add: `333300${makes}00${makesEnd}`,
    update: `222200${middle}00${changesEnd}`,
    delete: `222200${middle}00${end}`,
    get: `333300${middle}00${getsEnd}`,
    event: `222200${middle}00${end}`,
    'create-expect': `110011${zeros(middle)}11${zeros(end)}`,
    'delete-expect': `111100${zeros(middle)}00${zeros(end)}`,
    'get-expect': `111100${zeros(middle)}00${zeros(end)}`,
  };
}

function portsOf({ original, reply }: Saved): string {
  if (original.ports === undefined || reply.ports === undefined) return '';
  return (
    `--sport ${original.ports.src} --dport ${original.ports.dst} ` +
    `--reply-port-src ${reply.ports.src} --reply-port-dst ${reply.ports.dst} `
  );
}

function stateOf({ state }: Saved): string {
  return state === undefined ? '' : `--state ${state} `;
}

function icmpOf({ icmp }: CtTuple, prefix: string): string {
  return icmp === undefined
    ? ''
    : `--${prefix}-type ${icmp.type} --${prefix}-code ${icmp.code} --${prefix}-id ${icmp.id} `;
}

function keysOf({ original, reply }: Saved): string {
  if (original.gre === undefined || reply.gre === undefined) return '';
  return (
    `--srckey ${original.gre.srcKey} --dstkey ${original.gre.dstKey} ` +
    `--reply-key-src ${reply.gre.srcKey} --reply-key-dst ${reply.gre.dstKey} `
  );
}

function icmp(name: 'icmp' | 'icmpv6', number: number): Protocol {
  return {
    name,
    number,
    options: [`${name}-type`, `${name}-code`, `${name}-id`],
    rules: { list: '222', create: '112', add: '112', update: '222', delete: '222', get: '112', event: '222' },
    help: ['type', 'code', 'id'].map((what) => `  --${name}-${what}\t\t\t${name} ${what}\n`).join(''),
    save: (row) => icmpOf(row.original, name),
  };
}

const datagram = { options: [...PORT_OPTIONS, ...TUPLE_PORTS], rules: portRules(NO_MORE), help: PORT_HELP };

export const PROTOCOLS: readonly Protocol[] = [
  {
    name: 'tcp',
    number: 6,
    options: [...PORT_OPTIONS, 'state', ...TUPLE_PORTS],
    rules: portRules({ ...NO_MORE, middle: '2', makes: '1' }),
    pairs: portPairs(),
    states: { label: 'unknown TCP state', names: TCP_CT_NAMES },
    help: `${PORT_HELP}  --state\t\t\tTCP state, fe. ESTABLISHED\n`,
    save: (row) => portsOf(row) + stateOf(row),
  },
  { name: 'udp', number: 17, ...datagram, pairs: portPairs(), save: portsOf },
  { name: 'udplite', number: 136, ...datagram, pairs: portPairs(), save: portsOf },
  {
    name: 'sctp',
    number: 132,
    options: [...PORT_OPTIONS, 'state', ...TUPLE_PORTS, 'orig-vtag', 'reply-vtag'],
    rules: portRules({ middle: '2', makes: '1', end: '00', makesEnd: '11', changesEnd: '22', getsEnd: '22' }),
    pairs: portPairs(),
    states: { label: 'unknown SCTP state', names: SCTP_STATES },
    help:
      `${PORT_HELP}  --state\t\t\tSCTP state, fe. ESTABLISHED\n` +
      '  --orig-vtag\t\toriginal verification tag\n' +
      '  --reply-vtag\t\treply verification tag\n',
    save: (row) =>
      portsOf(row) +
      stateOf(row) +
      (row.tags === undefined
        ? ''
        : `--orig-vtag ${swap32(row.tags.original)} --reply-vtag ${swap32(row.tags.reply)} `),
  },
  {
    name: 'dccp',
    number: 33,
    options: [...PORT_OPTIONS, 'state', ...TUPLE_PORTS, 'role'],
    rules: portRules({ middle: '2', makes: '1', end: '0', makesEnd: '1', changesEnd: '0', getsEnd: '0' }),
    pairs: portPairs("you have to specify `--reply-port-src' and `--report-port-dst'"),
    states: { label: 'Unknown DCCP state', names: DCCP_STATES },
    help: `${PORT_HELP}  --state\t\t\tDCCP state, fe. RESPOND\n`,
    save: (row) => portsOf(row) + stateOf(row),
  },
  icmp('icmp', 1),
  icmp('icmpv6', 58),
  {
    name: 'gre',
    number: 47,
    options: [
      'srckey',
      'dstkey',
      'reply-key-src',
      'reply-key-dst',
      'mask-key-src',
      'mask-key-dst',
      'tuple-key-src',
      'tuple-key-dst',
    ],
    rules: portRules(NO_MORE),
    pairs: {
      pairs: [
        ['srckey', 'dstkey'],
        ['reply-key-src', 'reply-key-dst'],
      ],
      missing: [
        "you have to specify `--srckey' and `--dstkey'",
        "you have to specify `--reply-src-key' and `--reply-dst-key'",
      ],
    },
    help:
      '  --orig-key-src\t\toriginal source key\n' +
      '  --orig-key-dst\t\toriginal destination key\n' +
      '  --reply-key-src\t\treply source key\n' +
      '  --reply-key-dst\t\treply destination key\n' +
      '  --mask-key-src\t\tmask source key\n' +
      '  --mask-key-dst\t\tmask destination key\n' +
      '  --tuple-key-src\t\texpectation tuple src key\n' +
      '  --tuple-key-src\t\texpectation tuple dst key\n',
    save: keysOf,
  },
];

/** What has no options: any other protocol. */
export const UNKNOWN_HELP = '  no options (unsupported)\n';

/** Other names of the options. */
const ALIASES: Partial<Record<ProtocolOption, readonly string[]>> = {
  sport: ['orig-port-src', 'sport'],
  dport: ['orig-port-dst', 'dport'],
  srckey: ['srckey', 'orig-key-src'],
  dstkey: ['dstkey', 'orig-key-dst'],
};

export function longOptions(protocol: Protocol): readonly LongOption<ProtocolOption>[] {
  return protocol.options.flatMap((tag) =>
    (ALIASES[tag] ?? [tag]).map((name) => ({ name, value: 'required' as const, tag })),
  );
}

/** By the name that libnetfilter_conntrack prints. */
export function protocolName(number: number): string {
  return PROTOCOLS.find((protocol) => protocol.number === number)?.name ?? 'unknown';
}

/** Whether a line prints ports, keys or an ICMP question, even where there are none. */
export function hasPorts(number: number): boolean {
  return number === 6 || number === 17 || number === 33 || number === 132 || number === 136;
}
