/** What the targets of the nat table share: addresses and ports to translate to, and where such a rule may stand. */
import { type NatRange, RangeFlag } from '../../nat/range.ts';
import { formatIp4, parseIp4 } from '../../wire/addr.ts';
import { IpProto } from '../../wire/ipv4.ts';
import {
  BadRule,
  defineTarget,
  type OptionSpec,
  type Place,
  type Reading,
  type TargetExtension,
  type TargetFunction,
} from '../extension.ts';
import { readService } from '../option-values.ts';
import { leadingNumber } from '../values.ts';

/** While it is read; afterwards it is a NatRange. */
export interface RangeOptions {
  flags: number;
  minIp: number;
  maxIp: number;
  minPort: number;
  maxPort: number;
  basePort: number;
}

const { MapIps, ProtoSpecified, ProtoRandom, ProtoRandomFully, Persistent, ProtoOffset } = RangeFlag;
const DCCP = 33;
const WITH_PORTS: readonly number[] = [IpProto.Tcp, IpProto.Udp, IpProto.Sctp, DCCP, IpProto.Icmp];

export function newRange(): RangeOptions {
  return { flags: 0, minIp: 0, maxIp: 0, minPort: 0, maxPort: 0, basePort: 0 };
}

export function toRange({ flags, minIp, maxIp, minPort, maxPort, basePort }: RangeOptions): NatRange {
  return { flags, minIp, maxIp, minPort, maxPort, basePort };
}

/** A number from `low` to 65535 at the start of the text. */
function portNumber(text: string, low = 0): { readonly value: number; readonly rest: string } | undefined {
  const found = leadingNumber(text);
  return found !== undefined && found.value >= low && found.value <= 0xffff ? found : undefined;
}

function servicePort(text: string, reading: Reading): number {
  const port = readService(text, reading);
  if (port === undefined) throw new BadRule(`Port \`${text}' not valid`);
  return port;
}

/** `80`, `http`, `80-90`, `80-90/70`: parse_ports of the tool's libxt_NAT.c. @throws BadRule */
function readPorts(range: RangeOptions, text: string, reading: Reading, canHaveBase: boolean): void {
  if (!WITH_PORTS.includes(reading.header.proto)) {
    throw new BadRule('Need TCP, UDP, SCTP or DCCP with port specification');
  }
  range.flags |= ProtoSpecified;
  const low = portNumber(text);
  range.minPort = low?.value ?? servicePort(text, reading);
  range.maxPort = range.minPort;
  if (low === undefined || low.rest === '') return;
  if (low.rest[0] === ':') throw new BadRule('Invalid port:port syntax - use dash');
  if (low.rest[0] !== '-') throw new BadRule(`Garbage after port value: \`${low.rest}'`);
  const end = low.rest.slice(1);
  const high = portNumber(end);
  if (high === undefined) throw new BadRule(`Port \`${end}' not valid`);
  if (high.value < low.value) throw new BadRule(`Port range \`${end}' funky`);
  range.maxPort = high.value;
  if (high.rest === '') return;
  if (high.rest[0] !== '/') throw new BadRule(`Garbage after port range: \`${high.rest}'`);
  const base = high.rest.slice(1);
  range.basePort = portNumber(base, 1)?.value ?? servicePort(base, reading);
  // The tool reads it for SNAT and MASQUERADE, too, and loses it.
  if (!canHaveBase) throw new BadRule('Shifted portmap ranges not supported with this kernel');
  range.flags |= ProtoOffset;
}

/** `[address[-address]][:ports]`. @throws BadRule */
function readTarget(range: RangeOptions, text: string, reading: Reading, canHaveBase: boolean): void {
  if (text.includes('[')) throw new BadRule('Invalid address format');
  const colon = text.split(':').length === 2 ? text.indexOf(':') : -1;
  const addresses = colon < 0 ? text : text.slice(0, colon);
  if (colon >= 0) readPorts(range, text.slice(colon + 1), reading, canHaveBase);
  if (colon === 0) return;
  const dash = addresses.indexOf('-');
  const [low, high] = dash < 0 ? [addresses, addresses] : [addresses.slice(0, dash), addresses.slice(dash + 1)];
  range.minIp = readAddress(low);
  range.maxIp = readAddress(high);
  range.flags |= MapIps;
}

function readAddress(text: string): number {
  const ip = parseIp4(text);
  if (ip === undefined) throw new BadRule(`Bad IP address "${text}"`);
  return ip;
}

function formatPorts({ flags, minPort, maxPort, basePort }: RangeOptions): string {
  if ((flags & ProtoSpecified) === 0) return '';
  // A base belongs to a range only, be it of one port.
  if ((flags & ProtoOffset) !== 0) return `${minPort}-${maxPort}/${basePort}`;
  return minPort === maxPort ? String(minPort) : `${minPort}-${maxPort}`;
}

function formatTarget(range: RangeOptions): string {
  const { flags, minIp, maxIp } = range;
  const low = (flags & MapIps) === 0 ? '' : formatIp4(minIp);
  const addresses = minIp === maxIp ? low : `${low}-${formatIp4(maxIp)}`;
  const ports = formatPorts(range);
  return ports === '' ? addresses : `${addresses}:${ports}`;
}

type FlagName = 'random' | 'random-fully' | 'persistent';

/** In the order in which they are printed. */
const FLAGS: readonly (readonly [FlagName, number])[] = [
  ['random', ProtoRandom],
  ['random-fully', ProtoRandomFully],
  ['persistent', Persistent],
];

function flagNames({ flags }: RangeOptions): string[] {
  return FLAGS.filter(([, bit]) => (flags & bit) !== 0).map(([name]) => name);
}

function flagOptions(names: readonly FlagName[]): OptionSpec<RangeOptions>[] {
  return FLAGS.filter(([name]) => names.includes(name)).map(([name, bit]) => ({
    name,
    value: 'none',
    read: (o) => {
      o.flags |= bit;
    },
  }));
}

/** In the nat table, and only reached from these chains. */
export function isReachedFrom(place: Place, ...chains: string[]): boolean {
  return place.table === 'nat' && place.hooks.every((hook) => chains.includes(hook));
}

interface NatTarget {
  readonly name: string;
  readonly man: string;
  /** Built-in chains from which a rule of it is reached. */
  readonly chains: readonly string[];
  readonly flags: readonly FlagName[];
  readonly setup: (range: NatRange) => TargetFunction;
}

function natTarget(
  { name, man, chains, flags, setup }: NatTarget,
  option: OptionSpec<RangeOptions>,
  value: (o: RangeOptions) => string,
  listed: (value: string) => string,
): TargetExtension {
  return defineTarget<RangeOptions>({
    name,
    man,
    needsConntrack: () => true,
    init: newRange,
    options: [option, ...flagOptions(flags)],
    isLegal: (_o, _header, place) => isReachedFrom(place, ...chains),
    save: (o) => {
      const text = value(o);
      const its = text === '' && option.isRequired !== true ? [] : [`--${option.name}`, text];
      return [...its, ...flagNames(o).map((flag) => `--${flag}`)];
    },
    list: (o) => {
      const text = value(o);
      const its = text === '' && option.isRequired !== true ? [] : [listed(text)];
      return [...its, ...flagNames(o)].join(' ');
    },
    compile: (o) => setup(toRange(o)),
  });
}

/** To addresses, and to ports of them. @param canHaveBase ports may be said as `80-90/70` */
export function addressTarget(target: NatTarget & { readonly option: string; readonly canHaveBase: boolean }) {
  const { option, canHaveBase } = target;
  const read = (o: RangeOptions, text: string, _not: boolean, reading: Reading): void =>
    readTarget(o, text, reading, canHaveBase);
  return natTarget(target, { name: option, isRequired: true, read }, formatTarget, (text) => `to:${text}`);
}

/** To an address that only the packet's way tells; ports may be said. @param listed what `-L` says before them */
export function portsTarget(target: NatTarget & { readonly listed: string }) {
  const read = (o: RangeOptions, text: string, _not: boolean, reading: Reading): void =>
    readPorts(o, text, reading, false);
  return natTarget(target, { name: 'to-ports', read }, formatPorts, (text) => `${target.listed} ${text}`);
}
