/** Arguments of conntrack → what they add up to, or the complaint that the tool makes (Refused); do_parse() of conntrack.c, in its order. */
import type { EntryTable } from '../../model/conntrack.ts';
import { LabelNames } from '../../model/label-names.ts';
import { Getopt, MISSING, UNKNOWN } from '../getopt.ts';
import { type CommandName, checkOptions } from './commands.ts';
import { joinLabels, labelBits, loadLabelNames } from './labels.ts';
import {
  ADDRESS_PAIRS,
  COMMANDS,
  type CommandTag,
  LONG_OPTIONS,
  OPTION_NAMES,
  type OptionName,
  type OptionTag,
  RULES,
  SHORT_OPTIONS,
} from './options.ts';
import { longOptions, PROTOCOLS, type Protocol, type ProtocolOption } from './protocols.ts';
import { Refused } from './refused.ts';
import {
  address,
  atol,
  EventMask,
  eventMask,
  natAddress,
  Output,
  outputForms,
  port,
  statusBits,
  strtoul,
  valueAndMask,
} from './values.ts';

/** One direction of a tuple, as far as it was given. */
export interface Side {
  src?: string;
  dst?: string;
  /** Port, or GRE key. */
  srcPort?: number;
  dstPort?: number;
}

export interface Parsed {
  command: CommandName | undefined;
  table: EntryTable;
  readonly given: Set<OptionName>;
  /** 0: not said. */
  family: 0 | 4 | 6;
  protocol: number | undefined;
  /** Its options; undefined for a protocol that has none. */
  handler: Protocol | undefined;
  readonly original: Side;
  readonly reply: Side;
  readonly expected: Side;
  readonly mask: Side;
  readonly icmp: { type?: number; code?: number; id?: number };
  /** The type was read before an address of its own direction. */
  isIcmpTypeEarly: boolean;
  /** The type was read before the answer's first address. */
  isReplyLate: boolean;
  state: string | undefined;
  readonly tags: { original?: number; reply?: number };
  timeout: number | undefined;
  status: number;
  /** Bits of -u that are looked at in a list. */
  statusMask: number;
  readonly mark: { value: number; mask: number };
  id: number | undefined;
  zone: number | undefined;
  originalZone: number | undefined;
  replyZone: number | undefined;
  readonly sourceNat: { address?: string; port?: number };
  readonly destinationNat: { address?: string; port?: number };
  eventMask: number;
  output: number;
  bufferSize: number;
  labels: string | undefined;
  /** Of --label-add or --label-del; undefined for all. */
  labelChange: string | undefined;
  labelNames: LabelNames | undefined;
  json: boolean;
}

/** Numbers of protocols that have a name beside those with options: getprotobyname(3), as far as /etc/protocols is the usual one. */
export type ProtocolNumbers = (name: string) => number | undefined;

interface Reading {
  readonly parsed: Parsed;
  readonly options: Getopt<CommandTag | OptionTag | ProtocolOption>;
  readonly protocolGiven: Set<ProtocolOption>;
  readonly numbers: ProtocolNumbers;
  readonly warn: (text: string) => void;
}

/** Parse one command line, without the program's name. Throws Refused. */
export function parse(words: readonly string[], numbers: ProtocolNumbers, warn: (text: string) => void): Parsed {
  const parsed: Parsed = {
    command: undefined,
    table: 'conntrack',
    given: new Set(),
    family: 0,
    protocol: undefined,
    handler: undefined,
    original: {},
    reply: {},
    expected: {},
    mask: {},
    icmp: {},
    isIcmpTypeEarly: false,
    isReplyLate: false,
    state: undefined,
    tags: {},
    timeout: undefined,
    status: 0,
    statusMask: 0,
    mark: { value: 0, mask: 0xffffffff },
    id: undefined,
    zone: undefined,
    originalZone: undefined,
    replyZone: undefined,
    sourceNat: {},
    destinationNat: {},
    eventMask: EventMask.All,
    output: 0,
    bufferSize: 0,
    labels: undefined,
    labelChange: undefined,
    labelNames: undefined,
    json: false,
  };
  const options = new Getopt<CommandTag | OptionTag | ProtocolOption>('conntrack', words, SHORT_OPTIONS, LONG_OPTIONS);
  const reading: Reading = { parsed, options, protocolGiven: new Set(), numbers, warn };
  for (let tag = options.next(); tag !== undefined; tag = options.next()) {
    if (tag === MISSING) throw new Refused(`option \`${options.lastWord}' requires an argument`);
    if (tag === UNKNOWN) throw new Refused(`unknown option \`${options.lastWord}'`);
    if (Object.hasOwn(COMMANDS, tag)) readCommand(reading, tag as CommandTag);
    else if (isOption(tag)) readOption(reading, tag);
    else readProtocolOption(reading, tag as ProtocolOption);
  }
  finish(reading);
  return parsed;
}

function isOption(tag: string): tag is OptionTag {
  return tag === 'json' || (OPTION_NAMES as readonly string[]).includes(tag);
}

const TABLES = ['expect', 'conntrack', 'dying', 'unconfirmed'] as const;

function readCommand({ parsed, options }: Reading, tag: CommandTag): void {
  const word = options.takeApart();
  const table = word === undefined ? 'conntrack' : TABLES.find((name) => name.startsWith(word));
  if (table === undefined) throw new Refused(`unknown type \`${word}'`);
  const { long, names } = COMMANDS[tag];
  const isEntries = table === 'dying' || table === 'unconfirmed';
  if (isEntries && tag !== 'L') throw new Refused("Can't do that command with tables `dying' and `unconfirmed'");
  const name = names[table === 'expect' ? 1 : 0];
  if (name === undefined) throw new Refused(`Can't do --${long} on expectations`);
  if (parsed.command !== undefined) throw new Refused('Invalid commands combination');
  parsed.command = name;
  if (table !== 'expect') parsed.table = table;
}

function readOption(reading: Reading, tag: OptionTag): void {
  const { parsed, options, warn } = reading;
  const text = options.value ?? '';
  if (tag === 'nat-range') {
    warn('WARNING: ignoring -a, deprecated option.\n');
    return;
  }
  if (tag === 'json') {
    parsed.json = true;
    return;
  }
  parsed.given.add(tag);
  switch (tag) {
    case 'src':
    case 'dst':
      setAddress(reading, parsed.original, tag, text, parsed.mask);
      return;
    case 'reply-src':
    case 'reply-dst':
      parsed.isReplyLate ||= parsed.icmp.type !== undefined && isEmpty(parsed.reply);
      setAddress(reading, parsed.reply, tag === 'reply-src' ? 'src' : 'dst', text, undefined, tag);
      return;
    case 'tuple-src':
    case 'tuple-dst':
      setAddress(reading, parsed.expected, tag === 'tuple-src' ? 'src' : 'dst', text, parsed.mask);
      return;
    case 'mask-src':
    case 'mask-dst':
      setAddress(reading, parsed.mask, tag === 'mask-src' ? 'src' : 'dst', text, undefined, tag);
      return;
    case 'protonum':
      readProtocol(reading, text);
      return;
    case 'timeout':
      parsed.timeout = atol(text);
      return;
    case 'status': {
      const { set, unset } = statusBits(text, warn);
      parsed.status |= set;
      parsed.statusMask |= unset;
      if (parsed.statusMask === 0) parsed.statusMask = parsed.status;
      // The tool writes it to the mark, too; one that is given later overwrites it.
      parsed.mark.value = parsed.status;
      return;
    }
    case 'zero':
      return;
    case 'event-mask':
      parsed.eventMask = eventMask(text, warn);
      return;
    case 'mark':
      Object.assign(parsed.mark, valueAndMask(text));
      return;
    case 'secmark':
      return;
    case 'id':
      parsed.id = strtoul(text).value;
      return;
    case 'family':
      if (text.startsWith('ipv4')) setFamily(parsed, 4);
      else if (text.startsWith('ipv6')) setFamily(parsed, 6);
      else throw new Refused(`\`${text}' unsupported protocol`);
      return;
    case 'src-nat':
    case 'dst-nat':
    case 'any-nat':
      readNat(reading, tag);
      return;
    case 'output':
      readOutput(reading, text);
      return;
    case 'buffer-size':
      parsed.bufferSize = atol(text);
      return;
    case 'zone':
      parsed.zone = strtoul(text).value & 0xffff;
      return;
    case 'orig-zone':
      parsed.originalZone = strtoul(text).value & 0xffff;
      return;
    case 'reply-zone':
      parsed.replyZone = strtoul(text).value & 0xffff;
      return;
    case 'label':
    case 'label-add':
    case 'label-del':
      readLabels(reading, tag, text);
  }
}

function isEmpty({ src, dst }: Side): boolean {
  return src === undefined && dst === undefined;
}

function setFamily(parsed: Parsed, family: 4 | 6): void {
  if (parsed.family === 0) parsed.family = family;
  else if (parsed.family !== family) throw new Refused('mismatched address family');
}

/** @param masks where a prefix length goes; undefined when the option takes none */
function setAddress(
  { parsed }: Reading,
  side: Side,
  end: 'src' | 'dst',
  text: string,
  masks: Side | undefined,
  option?: OptionName,
): void {
  const { address: found, mask } = address(text, (family) => setFamily(parsed, family), option);
  side[end] = found;
  if (mask === undefined || masks === undefined) return;
  masks[end] = mask;
  parsed.given.add(end === 'src' ? 'mask-src' : 'mask-dst');
}

function readProtocol({ parsed, options, numbers }: Reading, text: string): void {
  const lower = text.toLowerCase();
  const byName = PROTOCOLS.find(({ name }) => name === lower);
  const { value, rest } = strtoul(text);
  const isNumber = rest === '' && text !== '' && value <= 255;
  const number = byName?.number ?? numbers(text) ?? (isNumber ? value : undefined);
  if (number === undefined) throw new Refused(`\`${text}' unsupported protocol`);
  parsed.protocol = number;
  // A name of /etc/protocols for one that has options is only a number.
  parsed.handler =
    byName ?? (numbers(text) === undefined ? PROTOCOLS.find((protocol) => protocol.number === number) : undefined);
  if (parsed.handler !== undefined) options.add(longOptions(parsed.handler));
}

function readNat({ parsed, options }: Reading, tag: 'src-nat' | 'dst-nat' | 'any-nat'): void {
  const text = options.takeApart();
  if (text === undefined) return;
  const split = natAddress(text);
  const { address: found } = address(split.address, (family) => setFamily(parsed, family), tag);
  const nat = { address: found, ...(split.port === undefined ? {} : { port: split.port }) };
  if (tag !== 'dst-nat') Object.assign(parsed.sourceNat, nat);
  if (tag !== 'src-nat') Object.assign(parsed.destinationNat, nat);
}

function readOutput({ parsed, warn }: Reading, text: string): void {
  parsed.output |= outputForms(text, warn);
  if (parsed.output & Output.Labels) readLabelFile(parsed, warn);
  if (parsed.output & Output.Save && parsed.output !== Output.Save) {
    throw new Refused('cannot combine save output with any other output type, use -o save only', 1);
  }
}

/** Without a file each option that asks for it says so. */
function readLabelFile(parsed: Parsed, warn: (text: string) => void): LabelNames {
  parsed.labelNames ??= loadLabelNames(warn);
  return parsed.labelNames ?? new LabelNames('');
}

function readLabels({ parsed, options, warn }: Reading, tag: 'label' | 'label-add' | 'label-del', text: string): void {
  const known = readLabelFile(parsed, warn);
  if (parsed.given.has('label-add') && parsed.given.has('label-del')) {
    throw new Refused('cannot use --label-add and --label-del at the same time', 1);
  }
  const names = tag === 'label-del' ? options.takeApart() : text;
  if (names === undefined) return;
  const bits = labelBits(known, names);
  if (tag === 'label') parsed.labels = joinLabels(parsed.labels, bits);
  else parsed.labelChange = joinLabels(parsed.labelChange, bits);
}

function readProtocolOption({ parsed, options, protocolGiven }: Reading, tag: ProtocolOption): void {
  const text = options.value ?? '';
  protocolGiven.add(tag);
  switch (tag) {
    case 'sport':
    case 'srckey':
      parsed.original.srcPort = port(text);
      return;
    case 'dport':
    case 'dstkey':
      parsed.original.dstPort = port(text);
      return;
    case 'reply-port-src':
    case 'reply-key-src':
      parsed.reply.srcPort = port(text);
      return;
    case 'reply-port-dst':
    case 'reply-key-dst':
      parsed.reply.dstPort = port(text);
      return;
    case 'mask-port-src':
    case 'mask-key-src':
      parsed.mask.srcPort = port(text);
      return;
    case 'mask-port-dst':
    case 'mask-key-dst':
      parsed.mask.dstPort = port(text);
      return;
    case 'tuple-port-src':
    case 'tuple-key-src':
      parsed.expected.srcPort = port(text);
      return;
    case 'tuple-port-dst':
    case 'tuple-key-dst':
      parsed.expected.dstPort = port(text);
      return;
    case 'state':
      parsed.state = readState(parsed.handler, text);
      return;
    case 'role':
      if (text !== 'client' && text !== 'server') throw new Refused(`Unknown DCCP role \`${text}'`);
      return;
    case 'orig-vtag':
      parsed.tags.original = atol(text);
      return;
    case 'reply-vtag':
      parsed.tags.reply = atol(text);
      return;
    case 'icmp-type':
    case 'icmpv6-type':
      parsed.icmp.type = atol(text) & 0xff;
      parsed.isIcmpTypeEarly = isEmpty(parsed.original);
      return;
    case 'icmp-code':
    case 'icmpv6-code':
      parsed.icmp.code = atol(text) & 0xff;
      return;
    case 'icmp-id':
    case 'icmpv6-id':
      parsed.icmp.id = port(text);
  }
}

/** LISTEN is the name that SYN_SENT2 had before Linux 2.6.31. */
function readState(handler: Protocol | undefined, text: string): string {
  const states = handler?.states;
  if (states === undefined || states.names.includes(text)) return text;
  if (handler?.name === 'tcp' && text === 'LISTEN') return 'SYN_SENT2';
  throw new Refused(`${states.label} \`${text}'`);
}

const FAMILY_MAY_BE_ANY: ReadonlySet<CommandName | undefined> = new Set<CommandName>([
  'list',
  'update',
  'delete',
  'get',
  'flush',
  'event',
]);

function finish({ parsed, protocolGiven }: Reading): void {
  const { command, given, handler } = parsed;
  if (parsed.family === 0 && !FAMILY_MAY_BE_ANY.has(command)) parsed.family = 4;
  if (given.has('any-nat') && (given.has('src-nat') || given.has('dst-nat'))) {
    throw new Refused("cannot specify `--src-nat' or `--dst-nat' with `--any-nat'");
  }
  checkOptions(OPTION_NAMES, command === undefined ? '' : RULES[command], given, ADDRESS_PAIRS);
  if (command === 'help' || handler === undefined) return;
  const rules = (command === undefined ? undefined : handler.rules[command]) ?? '';
  checkOptions(handler.options, rules, protocolGiven, handler.pairs);
}
