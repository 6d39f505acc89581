/** A rule as a value: its header tests, its matches in their order, its target. */
import type { MatchExtension, TargetExtension } from './extension.ts';

/** Bits of `Header.inverted`, include/uapi/linux/netfilter_ipv4/ip_tables.h. */
export const Inverted = { In: 1, Out: 2, Src: 8, Dst: 16, Fragment: 32, Proto: 64 } as const;

export interface Header {
  /** int32, masked. */
  src: number;
  srcMask: number;
  dst: number;
  dstMask: number;
  /** 0: all. */
  proto: number;
  /** Device name, with `+` at its end for any that begins so; '' for all. */
  inDevice: string;
  outDevice: string;
  /** Only later fragments (or only others, when inverted). */
  isFragment: boolean;
  inverted: number;
}

export interface MatchUse {
  readonly extension: MatchExtension;
  readonly options: unknown;
}

export type VerdictName = 'ACCEPT' | 'DROP' | 'QUEUE' | 'RETURN';

/** `chain` also where the parser cannot know whether the word names one. */
export type Target =
  | { readonly kind: 'none' }
  | { readonly kind: 'verdict'; readonly name: VerdictName }
  | { readonly kind: 'chain'; readonly name: string; readonly isGoto: boolean }
  | { readonly kind: 'extension'; readonly extension: TargetExtension; readonly options: unknown };

export interface Rule {
  readonly header: Readonly<Header>;
  readonly matches: readonly MatchUse[];
  readonly target: Target;
}

export function newHeader(): Header {
  return {
    src: 0,
    srcMask: 0,
    dst: 0,
    dstMask: 0,
    proto: 0,
    inDevice: '',
    outDevice: '',
    isFragment: false,
    inverted: 0,
  };
}
