/**
 * The rules of one table, flat: what compile.ts makes and traverse.ts walks through.   @hot
 *
 *   rows      one rule each, 16 ints: addresses and masks, protocol, device patterns, inversions, what its target is
 *   matches   by row: functions to ask when the header fits; null when the header says all
 *   targets   by row: the function of a target with a will of its own
 *
 *   chain by chain:  rule rule rule … end │ rule … end │ …      the last row of a built-in chain is its policy, of a user's chain RETURN
 *
 * It is never changed, only replaced; the counters beside it are what moves.
 */
import type { BlockIndex } from './block-index.ts';
import type { MatchFunction, TargetFunction } from './extension.ts';

export const ROW_SHIFT = 4;

/** Ints of a row. */
export const Cell = {
  Src: 0,
  SrcMask: 1,
  Dst: 2,
  DstMask: 3,
  /** 0: all. */
  Proto: 4,
  /** Row of the device patterns, -1 for all devices. */
  In: 5,
  Out: 6,
  /** Bits of Inverted, and ONLY_FRAGMENTS; 0 for the plain header that most rules have. */
  Flags: 7,
  /** Kind. */
  Kind: 8,
  /** Of a verdict: which; of a jump or goto: the row to go to. */
  Argument: 9,
} as const;

/** Beside the bits of Inverted. */
export const ONLY_FRAGMENTS = 256;

export const Kind = { Count: 0, Verdict: 1, Return: 2, Jump: 3, Goto: 4, Function: 5 } as const;

/** Hooks (hooks.ts) are five. */
export const NO_CHAIN = -1;

/** Neighbouring rules of a long chain, with their index. */
export interface Block {
  readonly index: BlockIndex;
  /** First row. */
  readonly start: number;
}

export const NO_BLOCK = -1;

export interface Program {
  readonly rows: Int32Array;
  readonly count: number;
  readonly matches: readonly (readonly MatchFunction[] | null)[];
  readonly targets: readonly (TargetFunction | null)[];
  /** First row and policy's row of the built-in chain at each hook; NO_CHAIN where the table has none. */
  readonly entry: Int32Array;
  readonly policy: Int32Array;
  /** Index of the block that the row belongs to, in `blocks`; NO_BLOCK outside of blocks. */
  readonly blockOf: Int32Array;
  readonly blocks: readonly Block[];
  /** Names of devices with which -i and -o want to be compared. */
  readonly patterns: ReadonlyMap<string, number>;
  /** Those that end with `+`, without it. */
  readonly prefixes: ReadonlyMap<string, number>;
  /** Chains that can be on the way at once. */
  readonly depth: number;
}

/** Packets and bytes by row. */
export interface Counters {
  readonly packets: Float64Array;
  readonly bytes: Float64Array;
}
