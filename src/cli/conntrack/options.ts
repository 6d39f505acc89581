/** The options of conntrack(8), and which command takes which: one table for parsing and checks. The usage text is the tool's own. */
import type { LongOption, ShortOptions, ValueKind } from '../getopt.ts';
import type { CommandName, Pairs, Rules } from './commands.ts';
import { UNKNOWN_HELP } from './protocols.ts';

export type CommandTag = 'L' | 'I' | 'A' | 'D' | 'U' | 'G' | 'F' | 'E' | 'C' | 'S' | 'V' | 'h';

/** In the order in which they are checked. */
export const OPTION_NAMES = [
  'src',
  'dst',
  'reply-src',
  'reply-dst',
  'protonum',
  'timeout',
  'status',
  'zero',
  'event-mask',
  'tuple-src',
  'tuple-dst',
  'mask-src',
  'mask-dst',
  'nat-range',
  'mark',
  'id',
  'family',
  'src-nat',
  'dst-nat',
  'output',
  'secmark',
  'buffer-size',
  'any-nat',
  'zone',
  'label',
  'label-add',
  'label-del',
  'orig-zone',
  'reply-zone',
] as const;

export type OptionName = (typeof OPTION_NAMES)[number];
/** `json` is ours. */
export type OptionTag = OptionName | 'json';

const NOTHING = '00000000000000000000000000000';
/** By command, for each of OPTION_NAMES. */
export const RULES: Readonly<Record<CommandName, Rules>> = {
  list: '22222022000220202222202220022',
  create: '33331120000002200220000202022',
  add: '33331120000002200220000202022',
  update: '22222220000220222222000022200',
  delete: '22222220000220222222000220022',
  get: '33331000000000020002000020000',
  flush: '00000000000000002000000000000',
  event: '22222000200220202222222220022',
  version: NOTHING,
  help: '00002000000000000000000000000',
  'list-expect': '00000000000000002002000000000',
  'create-expect': '11221120011110000000000000000',
  'delete-expect': '11221000000000000000000000000',
  'get-expect': '11221000000000000000000000000',
  'flush-expect': NOTHING,
  'event-expect': '00000000000000000002000000000',
  count: NOTHING,
  'count-expect': NOTHING,
  stats: NOTHING,
  'stats-expect': NOTHING,
};

export const ADDRESS_PAIRS: Pairs<OptionName> = {
  pairs: [
    ['src', 'dst'],
    ['reply-src', 'reply-dst'],
  ],
  missing: ["you have to specify `--src' and `--dst'", "you have to specify `--reply-src' and `--reply-dst'"],
};

/** Long names of a command's letter, its effect on each table. */
export const COMMANDS: Readonly<
  Record<
    CommandTag,
    {
      readonly long: string;
      readonly value: ValueKind;
      readonly names: readonly [CommandName, CommandName | undefined];
    }
  >
> = {
  L: { long: 'dump', value: 'optional', names: ['list', 'list-expect'] },
  I: { long: 'create', value: 'optional', names: ['create', 'create-expect'] },
  A: { long: 'add', value: 'optional', names: ['add', undefined] },
  D: { long: 'delete', value: 'optional', names: ['delete', 'delete-expect'] },
  U: { long: 'update', value: 'optional', names: ['update', undefined] },
  G: { long: 'get', value: 'optional', names: ['get', 'get-expect'] },
  F: { long: 'flush', value: 'optional', names: ['flush', 'flush-expect'] },
  E: { long: 'event', value: 'optional', names: ['event', 'event-expect'] },
  C: { long: 'counter', value: 'optional', names: ['count', 'count-expect'] },
  S: { long: 'stats', value: 'none', names: ['stats', 'stats-expect'] },
  V: { long: 'version', value: 'none', names: ['version', 'version'] },
  h: { long: 'help', value: 'none', names: ['help', 'help'] },
};

interface OptionForm {
  readonly tag: OptionTag;
  readonly short?: string | undefined;
  readonly value: ValueKind;
  /** Before the tag, as a long name. */
  readonly alias?: string | undefined;
}

const FORMS: readonly OptionForm[] = [
  { tag: 'src', short: 's', value: 'required', alias: 'orig-src' },
  { tag: 'dst', short: 'd', value: 'required', alias: 'orig-dst' },
  { tag: 'reply-src', short: 'r', value: 'required' },
  { tag: 'reply-dst', short: 'q', value: 'required' },
  { tag: 'protonum', short: 'p', value: 'required' },
  { tag: 'timeout', short: 't', value: 'required' },
  { tag: 'status', short: 'u', value: 'required' },
  { tag: 'zero', short: 'z', value: 'none' },
  { tag: 'event-mask', short: 'e', value: 'required' },
  { tag: 'tuple-src', short: '[', value: 'required' },
  { tag: 'tuple-dst', short: ']', value: 'required' },
  { tag: 'mask-src', short: '{', value: 'required' },
  { tag: 'mask-dst', short: '}', value: 'required' },
  { tag: 'nat-range', short: 'a', value: 'required' },
  { tag: 'mark', short: 'm', value: 'required' },
  { tag: 'secmark', short: 'c', value: 'required' },
  { tag: 'id', short: 'i', value: 'required' },
  { tag: 'family', short: 'f', value: 'required' },
  { tag: 'src-nat', short: 'n', value: 'optional' },
  { tag: 'dst-nat', short: 'g', value: 'optional' },
  { tag: 'output', short: 'o', value: 'required' },
  { tag: 'buffer-size', short: 'b', value: 'required' },
  { tag: 'any-nat', short: 'j', value: 'optional' },
  { tag: 'zone', short: 'w', value: 'required' },
  { tag: 'label', short: 'l', value: 'required' },
  { tag: 'label-add', short: '<', value: 'required' },
  { tag: 'label-del', short: '>', value: 'optional' },
  { tag: 'orig-zone', short: '(', value: 'required' },
  { tag: 'reply-zone', short: ')', value: 'required' },
  { tag: 'json', value: 'none' },
];

const COMMAND_TAGS = Object.keys(COMMANDS) as CommandTag[];

export const SHORT_OPTIONS: ShortOptions<CommandTag | OptionTag> = new Map<
  string,
  { readonly value: ValueKind; readonly tag: CommandTag | OptionTag }
>([
  ...COMMAND_TAGS.map((tag) => [tag, { value: COMMANDS[tag].value, tag }] as const),
  ...FORMS.flatMap(({ tag, short, value }) => (short === undefined ? [] : [[short, { value, tag }] as const])),
]);

export const LONG_OPTIONS: readonly LongOption<CommandTag | OptionTag>[] = [
  ...COMMAND_TAGS.map((tag) => ({ name: COMMANDS[tag].long, value: COMMANDS[tag].value, tag })),
  ...FORMS.flatMap(({ tag, value, alias }) =>
    (alias === undefined ? [tag] : [alias, tag]).map((name) => ({
      name,
      value: tag === 'id' ? ('optional' as const) : value,
      tag,
    })),
  ),
];

/** The usage that -h prints, word for word the tool's. */
export const USAGE = `Command line interface for the connection tracking system. Version 1.4.7
Usage: conntrack [commands] [options]

Commands:
  -L [table] [options]		List conntrack or expectation table
  -G [table] parameters		Get conntrack or expectation
  -D [table] parameters		Delete conntrack or expectation
  -I [table] parameters		Create a conntrack or expectation
  -U [table] parameters		Update a conntrack
  -E [table] [options]		Show events
  -F [table]			Flush table
  -C [table]			Show counter
  -S				Show statistics

Tables: conntrack, expect, dying, unconfirmed

Conntrack parameters and options:
  -n, --src-nat ip			source NAT ip
  -g, --dst-nat ip			destination NAT ip
  -j, --any-nat ip			source or destination NAT ip
  -m, --mark mark			Set mark
  -c, --secmark secmark			Set selinux secmark
  -e, --event-mask eventmask		Event mask, eg. NEW,DESTROY
  -z, --zero 				Zero counters while listing
  -o, --output type[,...]		Output format, eg. xml
  -l, --label label[,...]		conntrack labels

Expectation parameters and options:
  --tuple-src ip	Source address in expect tuple
  --tuple-dst ip	Destination address in expect tuple

Updating parameters and options:
  --label-add label	Add label
  --label-del label	Delete label

Common parameters and options:
  -s, --src, --orig-src ip		Source address from original direction
  -d, --dst, --orig-dst ip		Destination address from original direction
  -r, --reply-src ip		Source addres from reply direction
  -q, --reply-dst ip		Destination address from reply direction
  -p, --protonum proto		Layer 4 Protocol, eg. 'tcp'
  -f, --family proto		Layer 3 Protocol, eg. 'ipv6'
  -t, --timeout timeout		Set timeout
  -u, --status status		Set status, eg. ASSURED
  -w, --zone value		Set conntrack zone
  --orig-zone value		Set zone for original direction
  --reply-zone value		Set zone for reply direction
  -b, --buffer-size		Netlink socket buffer size
  --mask-src ip			Source mask address
  --mask-dst ip			Destination mask address

`;

export function protocolHelp(name: string, help: string = UNKNOWN_HELP): string {
  return `Proto \`${name}' help:\n${help}`;
}
