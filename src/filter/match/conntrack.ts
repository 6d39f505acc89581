/** `-m conntrack`: what the packet is to its connection, and what the connection is (net/netfilter/xt_conntrack.c). */
import { CtDir, CtInfo } from '../../conntrack/entry.ts';
import { Tuple } from '../../conntrack/tuple.ts';
import { Status } from '../../model/entry-status.ts';
import { formatIp4, prefixLength } from '../../wire/addr.ts';
import { BadRule, defineMatch, type ListForm, type MatchFunction, type Reading } from '../extension.ts';
import { readHostMask, readNumbers, readPorts } from '../option-values.ts';
import { readProtocol, readWords } from '../values.ts';
import { formatStates, isInState, readStates } from './states.ts';

/** One of the tuples' addresses. */
interface Address {
  ip: number;
  mask: number;
}

interface ConntrackOptions {
  /** Names of the options that were there, in a set of those that are inverted too. */
  given: Set<string>;
  inverted: Set<string>;
  states: number;
  proto: number;
  addresses: Map<string, Address>;
  ports: Map<string, [number, number]>;
  status: number;
  expire: [number, number];
  isReply: boolean;
}

const { Original: ORIGINAL, Reply: REPLY } = CtDir;
const FIRST_REPLY = CtInfo.EstablishedReply;
const STATUSES: readonly (readonly [string, number])[] = [
  ['EXPECTED', Status.Expected],
  ['SEEN_REPLY', Status.SeenReply],
  ['ASSURED', Status.Assured],
  ['CONFIRMED', Status.Confirmed],
];
/** Option, direction of its tuple, is it the source. */
const ADDRESSES = [
  ['ctorigsrc', ORIGINAL, true],
  ['ctorigdst', ORIGINAL, false],
  ['ctreplsrc', REPLY, true],
  ['ctrepldst', REPLY, false],
] as const;
const PORTS = [
  ['ctorigsrcport', ORIGINAL, true],
  ['ctorigdstport', ORIGINAL, false],
  ['ctreplsrcport', REPLY, true],
  ['ctrepldstport', REPLY, false],
] as const;
const original = new Tuple();
const reply = new Tuple();

function readStatuses(text: string): number {
  return readWords(text, [...STATUSES, ['NONE', 0]], (rest) => `Bad ctstatus "${rest}"`);
}

function formatStatuses(bits: number): string {
  if (bits === 0) return 'NONE';
  return STATUSES.filter(([, bit]) => (bits & bit) !== 0)
    .map(([name]) => name)
    .join(',');
}

function formatAddress({ ip, mask }: Address, form?: ListForm): string {
  const name = form?.isNumeric === false ? form.hostName(formatIp4(ip)) : undefined;
  if (ip === 0 && form?.isNumeric === false) return 'anywhere';
  return `${name ?? formatIp4(ip)}${mask === -1 ? '' : `/${prefixLength(mask) ?? formatIp4(mask)}`}`;
}

const range = ([low, high]: readonly [number, number]): string => (low === high ? String(low) : `${low}:${high}`);

/** Each part: its option, and its value in text. */
function parts(o: ConntrackOptions, form?: ListForm): [string, string][] {
  const all: [string, () => string][] = [
    ['ctstate', () => formatStates(o.states)],
    ['ctproto', () => String(o.proto)],
    ...ADDRESSES.map(([name]): [string, () => string] => [name, () => formatAddress(o.addresses.get(name)!, form)]),
    ...PORTS.map(([name]): [string, () => string] => [name, () => range(o.ports.get(name)!)]),
    ['ctstatus', () => formatStatuses(o.status)],
    ['ctexpire', () => range(o.expire)],
    ['ctdir', () => (o.isReply ? 'REPLY' : 'ORIGINAL')],
  ];
  return all.flatMap(([name, text]) => (o.given.has(name) ? [[name, text()] as [string, string]] : []));
}

function option(name: string, read: (o: ConntrackOptions, text: string, reading: Reading) => void, canInvert = true) {
  return {
    name,
    canInvert,
    read: (o: ConntrackOptions, text: string, isInverted: boolean, reading: Reading): void => {
      read(o, text, reading);
      o.given.add(name);
      if (isInverted) o.inverted.add(name);
    },
  };
}

export const conntrack = defineMatch<ConntrackOptions>({
  name: 'conntrack',
  man: `conntrack match options:
[!] --ctstate {INVALID|ESTABLISHED|NEW|RELATED|UNTRACKED|SNAT|DNAT}[,...]
                               State(s) to match
[!] --ctproto proto            Protocol to match; by number or name, e.g. "tcp"
[!] --ctorigsrc address[/mask]
[!] --ctorigdst address[/mask]
[!] --ctreplsrc address[/mask]
[!] --ctrepldst address[/mask]
                               Original/Reply source/destination address
[!] --ctorigsrcport port
[!] --ctorigdstport port
[!] --ctreplsrcport port
[!] --ctrepldstport port
                               TCP/UDP/SCTP orig./reply source/destination port
[!] --ctstatus {NONE|EXPECTED|SEEN_REPLY|ASSURED|CONFIRMED}[,...]
                               Status(es) to match
[!] --ctexpire time[:time]     Match remaining lifetime in seconds against
                               value or range of values (inclusive)
    --ctdir {ORIGINAL|REPLY}   Flow direction of packet
`,
  needsConntrack: () => true,
  init: () => ({
    given: new Set(),
    inverted: new Set(),
    states: 0,
    proto: 0,
    addresses: new Map(),
    ports: new Map(),
    status: 0,
    expire: [0, 0],
    isReply: false,
  }),
  options: [
    option('ctstate', (o, text) => {
      o.states = readStates(text);
    }),
    option('ctproto', (o, text) => {
      // protocols(5) has most names in capitals, too.
      o.proto = readProtocol(text !== 'ALL' && text === text.toUpperCase() ? text.toLowerCase() : text);
    }),
    ...ADDRESSES.map(([name]) =>
      option(name, (o, text, reading) => {
        o.addresses.set(name, readHostMask('conntrack', name, text, reading));
      }),
    ),
    ...PORTS.map(([name]) =>
      option(name, (o, text, reading) => {
        o.ports.set(name, readPorts('conntrack', name, text, reading));
      }),
    ),
    option('ctstatus', (o, text) => {
      o.status = readStatuses(text);
    }),
    option('ctexpire', (o, text) => {
      o.expire = readNumbers('conntrack', 'ctexpire', text);
    }),
    option(
      'ctdir',
      (o, text) => {
        const word = text.toUpperCase();
        if (word !== 'ORIGINAL' && word !== 'REPLY') {
          throw new BadRule(`conntrack: Bad value for "--ctdir" option: "${text}"`);
        }
        o.isReply = word === 'REPLY';
      },
      false,
    ),
  ],
  finish: (o) => {
    if (o.given.size === 0) throw new BadRule('conntrack: At least one option is required');
  },
  save: (o) => parts(o).flatMap(([name, text]) => [...(o.inverted.has(name) ? ['!'] : []), `--${name}`, text]),
  list: (o, form) =>
    parts(o, form)
      .map(([name, text]) => `${o.inverted.has(name) ? '! ' : ''}${name} ${text}`)
      .join(' '),
  hosts: (o) => [...o.addresses.values()].map(({ ip }) => formatIp4(ip)),
  compile: compileConntrack,
});

function compileConntrack(o: ConntrackOptions): MatchFunction {
  const { given, inverted, states } = o;
  const hasState = given.has('ctstate');
  const isStateInverted = inverted.has('ctstate');
  const tests = entryTests(o);
  // What most rules ask.
  if (hasState && tests.length === 0) return (p, t) => isInState(p, t.conditions.tracking!, states) !== isStateInverted;
  return (p, t) => {
    if (hasState && isInState(p, t.conditions.tracking!, states) === isStateInverted) return false;
    // The kernel asks nothing more of a packet without an entry.
    if (p.entry === 0) return hasState;
    for (let i = 0; i < tests.length; i++) if (!tests[i]!(p, t)) return false;
    return true;
  };
}

/** What is asked of the entry, in the kernel's order. */
function entryTests(o: ConntrackOptions): MatchFunction[] {
  const tests: MatchFunction[] = [];
  const isInverted = (name: string): boolean => o.inverted.has(name);
  if (o.given.has('ctdir')) tests.push((p) => p.ctInfo >= FIRST_REPLY === o.isReply);
  if (o.given.has('ctproto') || o.addresses.size > 0 || o.ports.size > 0) {
    tests.push((p, { conditions }) => {
      conditions.tracking!.tuple(p.entry, ORIGINAL, original);
      conditions.tracking!.tuple(p.entry, REPLY, reply);
      return true;
    });
  }
  if (o.given.has('ctproto')) {
    const not = isInverted('ctproto');
    tests.push(() => (original.proto === o.proto) !== not);
  }
  for (const [name, dir, isSource] of ADDRESSES) {
    const address = o.addresses.get(name);
    if (address === undefined) continue;
    const { ip, mask } = address;
    const not = isInverted(name);
    const tuple = dir === ORIGINAL ? original : reply;
    tests.push(() => ((((isSource ? tuple.src : tuple.dst) ^ ip) & mask) === 0) !== not);
  }
  for (const [name, dir, isSource] of PORTS) {
    const ports = o.ports.get(name);
    if (ports === undefined) continue;
    const [low, high] = ports;
    const not = isInverted(name);
    const tuple = dir === ORIGINAL ? original : reply;
    tests.push(() => {
      const port = isSource ? tuple.ports >>> 16 : tuple.ports & 0xffff;
      return (port >= low && port <= high) !== not;
    });
  }
  if (o.given.has('ctstatus')) {
    const not = isInverted('ctstatus');
    tests.push((p, { conditions }) => ((conditions.tracking!.status(p.entry) & o.status) !== 0) !== not);
  }
  if (o.given.has('ctexpire')) {
    const not = isInverted('ctexpire');
    const [low, high] = o.expire;
    tests.push((p, { conditions }) => {
      const left = conditions.tracking!.secondsLeft(p.entry);
      return (left >= low && left <= high) !== not;
    });
  }
  return tests;
}
