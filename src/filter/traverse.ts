/**
 * A packet goes through a table (net/ipv4/netfilter/ip_tables.c, ipt_do_table).   @hot
 *
 * ACCEPT and DROP end it at any depth; RETURN, and the end of a user's chain, go back behind the last jump; a goto leaves no way back, so that the end of its
 * chain returns to where the chain before it would have returned. In a built-in chain RETURN means the policy. A matching rule counts, whatever its target.
 */
import { Hook, Verdict } from '../hooks/hooks.ts';
import { Drop } from '../packet/drop.ts';
import { NONE, type Packet } from '../packet/packet.ts';
import { dst as dstOf, IpProto, src as srcOf } from '../wire/ipv4.ts';
import type { BlockIndex } from './block-index.ts';
import type { Conditions } from './conditions.ts';
import { DEVICE_COLUMNS, DeviceBits } from './device-bits.ts';
import { CONTINUE, type Traversal } from './extension.ts';
import { Cell, type Counters, Kind, NO_BLOCK, NO_CHAIN, ONLY_FRAGMENTS, type Program, ROW_SHIFT } from './program.ts';
import { Inverted } from './rule.ts';

const { Accept: ACCEPT, Drop: DROP } = Verdict;
const { LocalOut: LOCAL_OUT, PreRouting: PRE_ROUTING, LocalIn: LOCAL_IN } = Hook;
const { Src: SRC, SrcMask: SRC_MASK, Dst: DST, DstMask: DST_MASK, Proto: PROTO } = Cell;
const { In: IN, Out: OUT, Flags: FLAGS, Kind: KIND, Argument: ARGUMENT } = Cell;
const { Verdict: VERDICT, Return: RETURN, Jump: JUMP, Goto: GOTO, Function: FUNCTION } = Kind;
const { In: NOT_IN, Out: NOT_OUT, Src: NOT_SRC, Dst: NOT_DST, Proto: NOT_PROTO } = Inverted;
const NOT_FRAGMENT = Inverted.Fragment;
const ABSENT = NO_CHAIN;
const OUTSIDE = NO_BLOCK;
const { Tcp: TCP, Udp: UDP, Sctp: SCTP } = IpProto;
const GO_ON = CONTINUE;
const FRAGMENTS = ONLY_FRAGMENTS;
const NO_DEVICE = NONE;
const { FilterRule: BY_RULE, FilterPolicy: BY_POLICY, FilterHotDrop: BY_MATCH, None: NO_REASON } = Drop;

const COLUMNS = DEVICE_COLUMNS;

/** A table as packets meet it. */
export class Walk {
  readonly program: Program;
  readonly counters: Counters;
  /** Row of a pattern × DEVICE_COLUMNS + device + 1: does its name fit? */
  readonly devices: Uint8Array;
  /** Places in `devices` that are 1. */
  readonly #fitting: number[] = [];
  /** By block: its rules by devices; null where none names one. */
  readonly #inDevices: readonly (DeviceBits | null)[];
  readonly #outDevices: readonly (DeviceBits | null)[];
  readonly #stack: Int32Array;
  readonly #t: Traversal;
  /** Row that ended the last packet; for whoever wants to know why. */
  last = 0;

  // cold: making
  constructor(program: Program, counters: Counters, conditions: Conditions) {
    this.program = program;
    this.counters = counters;
    this.devices = new Uint8Array(program.patterns.size * COLUMNS);
    this.#stack = new Int32Array(program.depth + 1);
    this.#t = { hook: 0, inDevice: NONE, outDevice: NONE, conditions, isHotDrop: false };
    const fits = (pattern: string, device: number): boolean => this.#isDevice(program.patterns.get(pattern)!, device);
    const bitsOf = (hints: BlockIndex['inDevices'], { words }: BlockIndex): DeviceBits | null =>
      hints === null ? null : new DeviceBits(hints, words, fits);
    this.#inDevices = program.blocks.map(({ index }) => bitsOf(index.inDevices, index));
    this.#outDevices = program.blocks.map(({ index }) => bitsOf(index.outDevices, index));
    this.nameDevices((id) => conditions.deviceName(id));
  }

  /** Devices came or went: compare their names with the patterns. */
  nameDevices(nameOf: (id: number) => string): void {
    const { patterns, prefixes } = this.program;
    for (const at of this.#fitting.splice(0)) this.devices[at] = 0;
    const mark = (row: number, column: number): void => {
      this.devices[row * COLUMNS + column] = 1;
      this.#fitting.push(row * COLUMNS + column);
    };
    const any = prefixes.get('');
    if (any !== undefined) mark(any, 0);
    // Rules may name thousands of devices of which a few are there.
    for (let column = 1; column < COLUMNS; column++) {
      const name = nameOf(column - 1);
      if (name === '') continue;
      const row = patterns.get(name);
      if (row !== undefined) mark(row, column);
      for (const [prefix, number] of prefixes) if (name.startsWith(prefix)) mark(number, column);
    }
    for (const bits of this.#inDevices) bits?.forget();
    for (const bits of this.#outDevices) bits?.forget();
  }
  // hot again

  run(p: Packet, hook: number): Verdict {
    const { rows, matches, targets, entry, policy } = this.program;
    let row = entry[hook]!;
    if (row === ABSENT) return ACCEPT;
    const { packets, bytes } = this.counters;
    if (row === policy[hook]) {
      // A chain without rules.
      packets[row]!++;
      bytes[row]! += p.end - p.l3;
      this.last = row;
      const verdict = rows[(row << ROW_SHIFT) + ARGUMENT]! as Verdict;
      if (verdict === DROP) p.drop = BY_POLICY;
      return verdict;
    }
    const { view, l3 } = p;
    const src = srcOf(view, l3);
    const dst = dstOf(view, l3);
    const proto = p.proto;
    const t = this.#t;
    t.hook = hook;
    t.inDevice = hook === LOCAL_OUT || p.isLocalOut !== 0 ? NO_DEVICE : p.inDevice;
    t.outDevice = hook === PRE_ROUTING || hook === LOCAL_IN ? NO_DEVICE : p.outDevice;
    t.isHotDrop = false;
    const stack = this.#stack;
    let depth = 0;
    const { blocks } = this.program;
    const { blockOf } = this.program;
    // A match may end what is cut off or a fragment, whatever its ports: then all rules are asked.
    const hasIndex = blocks.length > 0 && p.isLaterFragment === 0 && p.l4Fault === NO_REASON;
    const hasPorts = hasIndex && (proto === TCP || proto === UDP || proto === SCTP) && p.end - p.l4 >= 4;
    let active = OUTSIDE;
    for (;;) {
      if (hasIndex) {
        const block = blockOf[row]!;
        if (block !== OUTSIDE) {
          const { index, start } = blocks[block]!;
          if (block !== active) {
            index.ask(src, dst, proto, hasPorts ? view.getInt32(p.l4) : 0, hasPorts);
            const inBits = this.#inDevices[block]!;
            if (inBits !== null) {
              const at = inBits.of(t.inDevice);
              index.cameIn(inBits.bits, at);
            }
            const outBits = this.#outDevices[block]!;
            if (outBits !== null) {
              const at = outBits.of(t.outDevice);
              index.leaves(outBits.bits, at);
            }
            active = block;
          }
          const next = index.next(row - start);
          row = start + next;
          if (next === index.count) continue;
        }
      }
      const at = row << ROW_SHIFT;
      const flags = rows[at + FLAGS]!;
      const wanted = rows[at + PROTO]!;
      if (
        flags === 0
          ? (src & rows[at + SRC_MASK]!) !== rows[at + SRC]! ||
            (dst & rows[at + DST_MASK]!) !== rows[at + DST]! ||
            (wanted !== 0 && wanted !== proto)
          : !this.#fits(p, at, flags, src, dst)
      ) {
        row++;
        continue;
      }
      const tests = matches[row]!;
      if (tests !== null) {
        let i = 0;
        while (i < tests.length && tests[i]!(p, t)) i++;
        if (t.isHotDrop) {
          this.last = row;
          p.drop = BY_MATCH;
          return DROP;
        }
        if (i < tests.length) {
          row++;
          continue;
        }
      }
      packets[row]!++;
      bytes[row]! += p.end - p.l3;
      switch (rows[at + KIND]!) {
        case VERDICT: {
          const verdict = rows[at + ARGUMENT]! as Verdict;
          this.last = row;
          if (verdict === DROP) p.drop = row === policy[hook] ? BY_POLICY : BY_RULE;
          return verdict;
        }
        case RETURN:
          row = depth === 0 ? policy[hook]! : stack[--depth]!;
          continue;
        case JUMP:
          stack[depth++] = row + 1;
          row = rows[at + ARGUMENT]!;
          continue;
        case GOTO:
          row = rows[at + ARGUMENT]!;
          continue;
        case FUNCTION: {
          const verdict = targets[row]!(p, t);
          if (verdict === GO_ON) break;
          this.last = row;
          if (verdict === DROP && p.drop === NO_REASON) p.drop = BY_RULE;
          return verdict as Verdict;
        }
        default:
      }
      row++;
    }
  }

  /** The header of a rule with devices, inversions or fragments (ip_packet_match). */
  #fits(p: Packet, at: number, flags: number, src: number, dst: number): boolean {
    const { rows } = this.program;
    if (((src & rows[at + SRC_MASK]!) === rows[at + SRC]!) === ((flags & NOT_SRC) !== 0)) return false;
    if (((dst & rows[at + DST_MASK]!) === rows[at + DST]!) === ((flags & NOT_DST) !== 0)) return false;
    const proto = rows[at + PROTO]!;
    if (proto !== 0 && (proto === p.proto) === ((flags & NOT_PROTO) !== 0)) return false;
    const { inDevice, outDevice } = this.#t;
    const inPattern = rows[at + IN]!;
    if (inPattern >= 0 && this.#isDevice(inPattern, inDevice) === ((flags & NOT_IN) !== 0)) return false;
    const outPattern = rows[at + OUT]!;
    if (outPattern >= 0 && this.#isDevice(outPattern, outDevice) === ((flags & NOT_OUT) !== 0)) return false;
    if ((flags & FRAGMENTS) === 0) return true;
    return (p.isLaterFragment !== 0) !== ((flags & NOT_FRAGMENT) !== 0);
  }

  #isDevice(pattern: number, device: number): boolean {
    return this.devices[pattern * COLUMNS + device + 1] === 1;
  }
}
