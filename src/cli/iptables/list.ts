/** `iptables -L`, and what -v says of a rule that is changed, byte for byte as iptables-legacy 1.8.9 (print_firewall in iptables/iptables.c, iptables/xshared.c). */
import type { ListForm } from '../../filter/extension.ts';
import { Inverted, type Rule } from '../../filter/rule.ts';
import { protocolName } from '../../filter/values.ts';
import type { ChainRow, RuleCounters } from '../../model/iptables.ts';
import { formatIp4, prefixLength } from '../../wire/addr.ts';

export interface ListOptions {
  readonly verbose: boolean;
  readonly exact: boolean;
  readonly lineNumbers: boolean;
  readonly form: ListForm;
}

/** A count: as it is up to 99999, then in K, M, G, T, rounded at each step. */
function formatCount(count: number, isExact: boolean, exactWidth: number): string {
  if (isExact) return `${String(count).padStart(exactWidth)} `;
  if (count <= 99_999) return `${String(count).padStart(5)} `;
  let scaled = Math.floor((count + 500) / 1000);
  for (const unit of ['K', 'M', 'G']) {
    if (scaled <= 9999) return `${String(scaled).padStart(4)}${unit} `;
    scaled = Math.floor((scaled + 500) / 1000);
  }
  return `${String(scaled).padStart(4)}T `;
}

export function formatChainTitle(chain: ChainRow, { verbose, exact, lineNumbers }: ListOptions): string {
  const count = (value: number): string => formatCount(value, exact, 0).trim();
  const counts = verbose ? ` ${count(chain.packets)} packets, ${count(chain.bytes)} bytes` : '';
  const about = chain.policy === null ? `${chain.references} references` : `policy ${chain.policy}${counts}`;
  const counters = verbose ? (exact ? '    pkts      bytes ' : ' pkts bytes ') : '';
  const devices = verbose ? 'in     out     ' : '';
  const columns = `${lineNumbers ? 'num  ' : ''}${counters}target     prot opt ${devices}`;
  return `Chain ${chain.name} (${about})\n${columns}source               destination         \n`;
}

export function formatRule(counters: RuleCounters, rule: Rule, number: number, options: ListOptions): string {
  const { verbose, exact, lineNumbers, form } = options;
  const { header, target } = rule;
  const { inDevice, outDevice, src, srcMask, dst, dstMask, proto } = header;
  const not = (bit: number, otherwise = ''): string => ((header.inverted & bit) !== 0 ? '!' : otherwise);
  const device = (name: string, bit: number): string =>
    `${not(bit)}${name === '' ? (form.isNumeric ? '*' : 'any') : name}`.padEnd(6);
  let line = lineNumbers ? `${String(number).padEnd(4)} ` : '';
  if (verbose) line += formatCount(counters.packets, exact, 8) + formatCount(counters.bytes, exact, 8);
  line += `${targetName(rule).padEnd(9)} `;
  line += `${not(Inverted.Proto, ' ')}${formatProtocol(proto, form.isNumeric).padEnd(4)} `;
  line += `${fragmentMark(rule)} `;
  if (verbose) line += ` ${device(inDevice, Inverted.In)} ${device(outDevice, Inverted.Out)} `;
  line += `${not(Inverted.Src, ' ')}${formatAddress(src, srcMask, form).padEnd(19)} `;
  line += `${not(Inverted.Dst, ' ')}${formatAddress(dst, dstMask, form).padEnd(19)} `;
  if (target.kind === 'chain' && target.isGoto) line += '[goto] ';
  return `${line}${formatExtensions(rule, form)}\n`;
}

/** `ACCEPT  tcp opt -- in eth0 out *  10.0.0.1  -> 0.0.0.0/0   tcp dpt:80` */
export function formatChangedRule(rule: Rule, form: ListForm): string {
  const { header, target } = rule;
  const { inDevice, outDevice, src, srcMask, dst, dstMask, proto } = header;
  const not = (bit: number, otherwise = ''): string => ((header.inverted & bit) !== 0 ? '!' : otherwise);
  const start = `${targetName(rule)} ${not(Inverted.Proto, ' ')}${formatProtocol(proto, false)} opt ${fragmentMark(rule)}`;
  const devices = `in ${not(Inverted.In)}${inDevice || '*'} out ${not(Inverted.Out)}${outDevice || '*'}`;
  const addresses = `${not(Inverted.Src, ' ')}${formatAddress(src, srcMask, form)} ${not(Inverted.Dst, ' ')}-> ${formatAddress(dst, dstMask, form)}`;
  const goto = target.kind === 'chain' && target.isGoto ? '[goto] ' : '';
  return `${start} ${devices} ${addresses}  ${goto}${formatExtensions(rule, form)}\n`;
}

/** Hosts that a list names when it is not numeric. */
export function hostsOf({ header, matches }: Rule): string[] {
  return [
    ...(header.srcMask === 0 ? [] : [formatIp4(header.src)]),
    ...(header.dstMask === 0 ? [] : [formatIp4(header.dst)]),
    ...matches.flatMap(({ extension, options }) => extension.hosts?.(options) ?? []),
  ];
}

function targetName({ target }: Rule): string {
  if (target.kind === 'none') return '';
  return target.kind === 'extension' ? (target.extension.listName ?? target.extension.name) : target.name;
}

/** 1.8.9 prints numbers with -n, other versions names. */
function formatProtocol(proto: number, isNumeric: boolean): string {
  if (isNumeric) return String(proto);
  return proto === 0 ? 'all' : (protocolName(proto) ?? String(proto));
}

function fragmentMark({ header }: Rule): string {
  if (!header.isFragment) return '--';
  return (header.inverted & Inverted.Fragment) !== 0 ? '!f' : '-f';
}

function formatAddress(ip: number, mask: number, form: ListForm): string {
  if (mask === 0) return form.isNumeric ? '0.0.0.0/0' : 'anywhere';
  const address = (form.isNumeric ? undefined : form.hostName(formatIp4(ip))) ?? formatIp4(ip);
  if (mask === -1) return address;
  return `${address}/${prefixLength(mask) ?? formatIp4(mask)}`;
}

function formatExtensions({ matches, target }: Rule, form: ListForm): string {
  const uses = target.kind === 'extension' ? [...matches, target] : matches;
  let line = '';
  for (const { extension, options } of uses) {
    const text = extension.list(options as never, form);
    if (text !== '') line += ` ${text}`;
  }
  return line;
}
