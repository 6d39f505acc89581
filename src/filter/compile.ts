/** The chains of a table → its program. */
import type { Steps } from '../base/slices.ts';
import { Verdict } from '../hooks/hooks.ts';
import { prefixLength } from '../wire/addr.ts';
import { BLOCK_RULES, BlockIndex, type DeviceHint, type Hints, WORTH_IT } from './block-index.ts';
import type { Chain, StoredRule } from './chain.ts';
import type { MatchFunction, TargetFunction } from './extension.ts';
import {
  type Block,
  Cell,
  type Counters,
  Kind,
  NO_BLOCK,
  NO_CHAIN,
  ONLY_FRAGMENTS,
  type Program,
  ROW_SHIFT,
} from './program.ts';
import { type Header, Inverted, type Rule, type Target } from './rule.ts';
import type { Needs } from './table.ts';

const HOOKS = 5;
const VERDICTS = { ACCEPT: Verdict.Accept, DROP: Verdict.Drop, QUEUE: Verdict.Queue } as const;

/** What a rule compiles to, apart from its place. Made once per rule. */
export interface CompiledRule {
  readonly matches: readonly MatchFunction[] | null;
  readonly target: TargetFunction | null;
}

export function compileRule({ matches, target }: Rule): CompiledRule {
  return {
    matches: matches.length === 0 ? null : matches.map(({ extension, options }) => extension.compile(options)),
    target: target.kind === 'extension' ? target.extension.compile(target.options) : null,
  };
}

/** What a program is made into: counters that hold what its rules begin with, and where those that went on from another program stood there (`StoredRule.row`). */
export interface Compiled {
  readonly program: Program;
  readonly counters: Counters;
  readonly origins: Int32Array;
  readonly needs: Needs;
}

/** The chains must be sound: every jump's chain is there, and there are no loops. */
export function* compile(chains: readonly Chain[]): Steps<Compiled> {
  const starts = new Map<string, number>();
  let count = 0;
  for (const chain of chains) {
    starts.set(chain.name, count);
    count += chain.rules.length + 1;
  }
  const rows = new Int32Array(count << ROW_SHIFT);
  const matches: (readonly MatchFunction[] | null)[] = new Array(count).fill(null);
  const targets: (TargetFunction | null)[] = new Array(count).fill(null);
  const counters = { packets: new Float64Array(count), bytes: new Float64Array(count) };
  const entry = new Int32Array(HOOKS).fill(NO_CHAIN);
  const policy = new Int32Array(HOOKS).fill(NO_CHAIN);
  const origins = new Int32Array(count).fill(-1);
  const needs = { conntrack: false, labels: false };
  const patterns = new Map<string, number>();
  const prefixes = new Map<string, number>();
  const pattern = (name: string): number => {
    if (name === '') return -1;
    const known = patterns.get(name);
    if (known !== undefined) return known;
    const number = patterns.size;
    patterns.set(name, number);
    if (name.endsWith('+')) prefixes.set(name.slice(0, -1), number);
    return number;
  };
  const blockOf = new Int32Array(count).fill(NO_BLOCK);
  const blocks: Block[] = [];
  yield;
  let row = 0;
  for (const chain of chains) {
    yield* addBlocks(chain.rules, row, blocks, blockOf);
    if (chain.hook !== null) entry[chain.hook] = row;
    for (const rule of chain.rules) {
      const at = row << ROW_SHIFT;
      const { header, target } = rule.rule;
      writeHeader(rows, at, header, pattern(header.inDevice), pattern(header.outDevice));
      writeTarget(rows, at, target, starts);
      matches[row] = rule.compiled.matches;
      targets[row] = rule.compiled.target;
      origins[row] = rule.row;
      counters.packets[row] = rule.packets;
      counters.bytes[row] = rule.bytes;
      needs.conntrack ||= rule.needsConntrack;
      needs.labels ||= rule.needsLabels;
      if (++row % BLOCK_RULES === 0) yield;
    }
    if (chain.hook === null) {
      rows[(row << ROW_SHIFT) + Cell.Kind] = Kind.Return;
    } else {
      policy[chain.hook] = row;
      rows[(row << ROW_SHIFT) + Cell.Kind] = Kind.Verdict;
      rows[(row << ROW_SHIFT) + Cell.Argument] = VERDICTS[chain.policy];
      counters.packets[row] = chain.packets;
      counters.bytes[row] = chain.bytes;
    }
    row++;
  }
  const depth = chains.filter((chain) => chain.hook === null).length;
  const program = { rows, count, matches, targets, entry, policy, blockOf, blocks, patterns, prefixes, depth };
  return { program, counters, origins, needs };
}

/** What rules have counted in the program that they come from is theirs in the new one. */
export function goOnCounting({ counters, origins }: Compiled, { packets, bytes }: Counters): void {
  for (let row = 0; row < origins.length; row++) {
    const origin = origins[row]!;
    if (origin < 0) continue;
    counters.packets[row] = packets[origin]!;
    counters.bytes[row] = bytes[origin]!;
  }
}

/** Indexes by their first rule: most changes of a table leave most blocks as they are. */
const known = new WeakMap<StoredRule, { readonly rules: readonly StoredRule[]; readonly index: BlockIndex }>();

function* addBlocks(rules: readonly StoredRule[], row: number, blocks: Block[], blockOf: Int32Array): Steps<void> {
  if (rules.length < WORTH_IT) return;
  for (let at = 0; at < rules.length; at += BLOCK_RULES) {
    const some = rules.slice(at, at + BLOCK_RULES);
    blockOf.fill(blocks.length, row + at, row + at + some.length);
    blocks.push({ index: indexOf(some), start: row + at });
    yield;
  }
}

function indexOf(rules: readonly StoredRule[]): BlockIndex {
  const first = rules[0]!;
  const old = known.get(first);
  if (old?.rules.length === rules.length && old.rules.every((rule, i) => rule.rule === rules[i]!.rule)) {
    return old.index;
  }
  const index = new BlockIndex(rules.map(({ rule }) => hintsOf(rule)));
  known.set(first, { rules, index });
  return index;
}

/** What can be told of a rule without asking it. */
function hintsOf({ header, matches }: Rule): Hints {
  const is = (bit: number): boolean => (header.inverted & bit) !== 0;
  let srcPort: Hints['srcPort'] = null;
  let dstPort: Hints['dstPort'] = null;
  for (const { extension, options } of matches) {
    const hint = extension.ports?.(options);
    if (hint === undefined) continue;
    srcPort ??= narrowed(hint.source);
    dstPort ??= narrowed(hint.destination);
  }
  return {
    src: is(Inverted.Src) ? null : network(header.src, header.srcMask),
    dst: is(Inverted.Dst) ? null : network(header.dst, header.dstMask),
    proto: is(Inverted.Proto) ? 0 : header.proto,
    srcPort,
    dstPort,
    inDevice: deviceHint(header.inDevice, is(Inverted.In)),
    outDevice: deviceHint(header.outDevice, is(Inverted.Out)),
  };
}

function deviceHint(pattern: string, isInverted: boolean): DeviceHint | null {
  return pattern === '' ? null : { pattern, isInverted };
}

function narrowed(range: readonly [number, number] | null): readonly [number, number] | null {
  return range === null || (range[0] === 0 && range[1] === 0xffff) ? null : range;
}

function network(ip: number, mask: number): readonly [number, number] | null {
  return mask === 0 || prefixLength(mask) === undefined ? null : [ip & mask, ip | ~mask];
}

function writeHeader(rows: Int32Array, at: number, header: Header, inPattern: number, outPattern: number): void {
  rows[at + Cell.Src] = header.src;
  rows[at + Cell.SrcMask] = header.srcMask;
  rows[at + Cell.Dst] = header.dst;
  rows[at + Cell.DstMask] = header.dstMask;
  rows[at + Cell.Proto] = header.proto;
  rows[at + Cell.In] = inPattern;
  rows[at + Cell.Out] = outPattern;
  const hasMore = inPattern >= 0 || outPattern >= 0;
  rows[at + Cell.Flags] = header.inverted | (header.isFragment ? ONLY_FRAGMENTS : 0) | (hasMore ? HAS_DEVICES : 0);
}

/** Keeps the header of a rule with -i or -o from being taken for a plain one. */
const HAS_DEVICES = 512;

function writeTarget(rows: Int32Array, at: number, target: Target, starts: ReadonlyMap<string, number>): void {
  const write = (kind: number, argument: number): void => {
    rows[at + Cell.Kind] = kind;
    rows[at + Cell.Argument] = argument;
  };
  if (target.kind === 'none') write(Kind.Count, 0);
  else if (target.kind === 'extension') write(Kind.Function, 0);
  else if (target.kind === 'chain') write(target.isGoto ? Kind.Goto : Kind.Jump, starts.get(target.name)!);
  else if (target.name === 'RETURN') write(Kind.Return, 0);
  else write(Kind.Verdict, VERDICTS[target.name]);
}
