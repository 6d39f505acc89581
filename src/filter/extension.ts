/**
 * What a match or a target is: one object that holds its options, what they mean, how they are printed, and its manual. The files of match/ and target/ each
 * define one; parse.ts, save.ts and compile.ts know nothing of any of them.
 */
import type { Packet } from '../packet/packet.ts';
import type { Conditions } from './conditions.ts';
import type { Header, MatchUse } from './rule.ts';
import type { Tracking } from './tracking.ts';

/** The words are no rule: what the classic tool says behind `iptables v1.8.9 (legacy): `. */
export class BadRule extends Error {
  override readonly name = 'BadRule';
}

/** Names of ports, hosts and labels; absent where only numbers are understood. */
export interface PortNames {
  servicePort(service: string, protocol: string): number | undefined;
  /** May throw to be called again later. */
  hostAddress?(host: string): string | undefined;
  /** Why a host has no address, in the resolver's words. */
  hostFault?(host: string): string;
  labelBit?(name: string): number | undefined;
}

/** What an option's reader may ask. */
export interface Reading {
  readonly header: Header;
  readonly names: PortNames | null;
  /** The word behind the option's value, taken; undefined when there is none or it is an option. */
  takeWord(): string | undefined;
  warn(text: string): void;
}

/** Names that rules are written with. */
export interface WriteNames {
  labelName?(bit: number): string | undefined;
}

/** How a listing is wanted: numbers (`-n`), or names. */
export interface ListForm extends WriteNames {
  readonly isNumeric: boolean;
  serviceName(port: number, protocol: string): string | undefined;
  hostName(address: string): string | undefined;
}

export interface OptionSpec<O> {
  /** Long name without the dashes. */
  readonly name: string;
  readonly aliases?: readonly string[];
  /** Absent: a value. */
  readonly value?: 'none' | 'optional';
  readonly canInvert?: boolean;
  readonly canRepeat?: boolean;
  /** Names of options that do not go with it. */
  readonly excludes?: readonly string[];
  readonly isRequired?: boolean;
  /** Its value is free text, not a number or a word of a list. */
  readonly isText?: boolean;
  read(o: O, value: string, isInverted: boolean, reading: Reading): void;
  /** How `-S` writes the value that `save` gave; absent: as it is. */
  write?(value: string, names: WriteNames | null): string;
}

/** Where a rule stands: which table, and from which hooks of it (names of its built-in chains) its chain can be reached. */
export interface Place {
  readonly table: string;
  readonly hooks: readonly string[];
  /** Of the same rule. */
  readonly matches: readonly MatchUse[];
}

/** What one packet's way through a table knows: one record, used again for each packet. */
export interface Traversal {
  /** Hook (hooks.ts) where it is. */
  hook: number;
  /** Device ids as the table sees them, NONE where the hook has none. */
  inDevice: number;
  outDevice: number;
  readonly conditions: Conditions;
  /** A match's third answer: not only no match, the packet ends here (par->hotdrop). */
  isHotDrop: boolean;
}

export type MatchFunction = (p: Packet, t: Traversal) => boolean;

/** A target without an end: the next rule is looked at. */
export const CONTINUE = -1;

/** Answers a Verdict, or CONTINUE. */
export type TargetFunction = (p: Packet, t: Traversal) => number;

interface Extension<O> {
  readonly name: string;
  /** Text for docs and `-h`. */
  readonly man: string;
  readonly options: readonly OptionSpec<O>[];
  init(): O;
  /** After the last option; `given` holds the names of those that were there. @throws BadRule */
  finish?(o: O, header: Header, given: ReadonlySet<string>): void;
  /** May such a rule stand here? The kernel's checkentry: false is EINVAL. */
  isLegal?(o: O, header: Header, place: Place): boolean;
  /** Does it name something that is not there, as a helper? That is ENOENT. */
  isMissing?(o: O, header: Header, tracking: Tracking): boolean;
  /** Is a number beyond what there is? That is ERANGE. */
  isOutOfRange?(o: O): boolean;
  /** Must connections have room for labels? */
  readonly needsLabels?: boolean;
  /** Does it need connection tracking (nf_ct_netns_get in checkentry)? */
  needsConntrack?(o: O): boolean;
  /** What a listing calls it, when that is not its name. */
  readonly listName?: string;
  /** The words of `-S`, from numbers and in one way only. */
  save(o: O): string[];
  /** Its part of a `-L` line, without the blanks around it; '' for nothing. */
  list(o: O, form: ListForm): string;
}

/** Ports outside of which a match never matches a whole packet; null: any. */
export interface PortHint {
  readonly source: readonly [number, number] | null;
  readonly destination: readonly [number, number] | null;
}

export interface MatchExtension<O = unknown> extends Extension<O> {
  /** For the index of long chains; absent: any. */
  ports?(o: O): PortHint;
  /** Addresses that a listing names. */
  hosts?(o: O): string[];
  compile(o: O): MatchFunction;
}

export interface TargetExtension<O = unknown> extends Extension<O> {
  compile(o: O): TargetFunction;
}

/** Options lose their type where the extensions stand in one list: each sees only what its own `init` made. */
export function defineMatch<O>(extension: MatchExtension<O>): MatchExtension {
  return extension as unknown as MatchExtension;
}

export function defineTarget<O>(extension: TargetExtension<O>): TargetExtension {
  return extension as unknown as TargetExtension;
}
