/**
 * iptables as the control API speaks of it. A rule is a list of words, as `iptables -S` prints them behind the chain's name: one way of writing each rule, so
 * that equal rules have equal words. Numbers only: host, service and device names are the client's business.
 */

export const TABLE_NAMES = ['raw', 'mangle', 'nat', 'filter', 'security'] as const;
export type TableName = (typeof TABLE_NAMES)[number];

/** The built-in chains of each table, in the order of its listings. */
export const BUILT_IN_CHAINS = {
  raw: ['PREROUTING', 'OUTPUT'],
  mangle: ['PREROUTING', 'INPUT', 'FORWARD', 'OUTPUT', 'POSTROUTING'],
  nat: ['PREROUTING', 'INPUT', 'OUTPUT', 'POSTROUTING'],
  filter: ['INPUT', 'FORWARD', 'OUTPUT'],
  security: ['INPUT', 'FORWARD', 'OUTPUT'],
} as const satisfies Readonly<Record<TableName, readonly string[]>>;

/** Bytes of a chain's name at most: XT_EXTENSION_MAXNAMELEN without its final zero. */
export const LONGEST_CHAIN = 28;

export function isChainTooLong(name: string): boolean {
  return Buffer.byteLength(name) > LONGEST_CHAIN;
}

export type Policy = 'ACCEPT' | 'DROP';

/** What 64 bits hold; larger numbers that a user names become this one, as in strtoull(3). */
export const LARGEST_COUNT = 2 ** 64;

export interface RuleCounters {
  readonly packets: number;
  readonly bytes: number;
}

export interface NewRule {
  readonly words: readonly string[];
  /** Zero when absent; a replaced rule's are zero then too. */
  readonly counters?: RuleCounters | undefined;
}

/** One change of a table. Numbers of rules are counted from 1. */
export type TableCommand =
  | { readonly op: 'append'; readonly chain: string; readonly rule: NewRule }
  | { readonly op: 'insert'; readonly chain: string; readonly at: number; readonly rule: NewRule }
  | { readonly op: 'replace'; readonly chain: string; readonly at: number; readonly rule: NewRule }
  | { readonly op: 'delete'; readonly chain: string; readonly rule: NewRule }
  | { readonly op: 'delete-at'; readonly chain: string; readonly at: number }
  | { readonly op: 'check'; readonly chain: string; readonly rule: NewRule }
  | { readonly op: 'flush'; readonly chain?: string | undefined }
  | { readonly op: 'zero'; readonly chain?: string | undefined; readonly at?: number | undefined }
  | { readonly op: 'new-chain'; readonly chain: string }
  /** iptables-restore's `:CHAIN`: made, or emptied when it is there. */
  | { readonly op: 'make-chain'; readonly chain: string }
  | { readonly op: 'delete-chain'; readonly chain?: string | undefined }
  | { readonly op: 'rename-chain'; readonly chain: string; readonly to: string }
  | {
      readonly op: 'policy';
      readonly chain: string;
      readonly policy: string;
      readonly counters?: RuleCounters | undefined;
    };

/** What a command can fail with: the errno that libiptc or the kernel would give, or why the words are no rule. */
export type TableFault =
  | 'ENOENT'
  | 'EEXIST'
  | 'EINVAL'
  | 'E2BIG'
  | 'EMLINK'
  | 'ENOTEMPTY'
  | 'ELOOP'
  | 'ERANGE'
  /** No built-in chain. */
  | 'NO-BUILT-IN'
  /** Neither ACCEPT nor DROP. */
  | 'BAD-POLICY'
  /** `-D`, `-C`: there is no such rule. */
  | 'NO-RULE'
  /** `-j` names neither a target nor a chain; `-g` no chain. */
  | 'NO-TARGET'
  | 'NO-GOTO'
  /** `-m` names a match that cannot be had here. */
  | 'NO-MATCH'
  | 'BAD-WORDS';

/** Null: all of them are done. Else which one cannot be had; then nothing has changed. `index` is -1 when only the table as a whole cannot be. */
export type TableOutcome = {
  readonly index: number;
  readonly fault: TableFault;
  /** The target, chain or words that it is about. */
  readonly what?: string | undefined;
} | null;

export interface TableChange {
  readonly table: TableName;
  readonly commands: readonly TableCommand[];
  /** Say only whether it could be done. */
  readonly isTest?: boolean | undefined;
}

export interface RuleRow extends RuleCounters {
  readonly words: readonly string[];
}

export interface ChainRow {
  readonly name: string;
  /** Null of a user's chain. */
  readonly policy: Policy | null;
  /** Of the policy; zero of a user's chain. */
  readonly packets: number;
  readonly bytes: number;
  /** Rules that jump or go to it. */
  readonly references: number;
  readonly rules: readonly RuleRow[];
}

export interface TableRow {
  readonly name: TableName;
  readonly chains: readonly ChainRow[];
}

/** Some rows of a table: a chain that is longer than a page comes in several. `next` is the cursor of the next page; -1: that was all. */
export interface TablePage {
  readonly chains: readonly ChainRow[];
  readonly next: number;
}

/** All built-in chains let pass, as those of a new table do. */
export function acceptingPolicies(table: TableName): TableCommand[] {
  return BUILT_IN_CHAINS[table].map((chain) => ({ op: 'policy', chain, policy: 'ACCEPT' }));
}
