/**
 * Translation, helpers and expectations put onto connection tracking: one thing for the engine to make, to copy and to tell the time.
 *
 *   new entry ─► expected? then RELATED, its master's mark, translated as that is      entry ends ─► nobody follows it, expects for it, or shifts its numbers
 */
import type { Allocate } from '../base/memory.ts';
import type { Rng } from '../base/rng.ts';
import { EXPECT_POLICIES, Expectations } from '../conntrack/expectations.ts';
import { HELPER_NAMES } from '../conntrack/helper-names.ts';
import type { Tuple } from '../conntrack/tuple.ts';
import type { Hooks } from '../hooks/hooks.ts';
import type { OwnAddresses } from '../hooks/own-addresses.ts';
import { IpProto } from '../wire/ipv4.ts';
import type { Entries } from './entries.ts';
import { Helpers } from './helpers.ts';
import { Nat } from './nat.ts';

const { Tcp: TCP } = IpProto;

/** Entries whose comings and goings can be watched. */
export interface WatchedEntries extends Entries {
  /** Told of each new entry with the tuple that it began with, before its first packet goes on. */
  onOpen: ((entry: number, t: Tuple, zone: number) => void) | null;
  /** Told of each TCP connection that is announced otherwise than by a helper. */
  onAnnounce: ((master: number, src: number, dst: number, port: number) => void) | null;
  /** Told when an entry gets a helper. */
  onHelper: (() => void) | null;
  /** Told of each entry that ends. */
  onEnd: ((entry: number) => void) | null;
  /** What a helper has added to the numbers of direction `dir`, at the number `seq`. */
  offset: ((entry: number, dir: number, seq: number) => number) | null;
  /** The new entry was announced by `master`: EXPECTED, its mark. */
  expect(entry: number, master: number): void;
  /** In the table, and not on its way out. */
  isAlive(entry: number): boolean;
  isExpectationMuted(master: number, kind: 'new' | 'destroy'): boolean;
}

export interface TranslationParts {
  readonly hooks: Hooks;
  readonly entries: WatchedEntries;
  readonly addresses: OwnAddresses;
  readonly rng: Rng;
  readonly allocate?: Allocate | undefined;
}

export class Translation {
  readonly expectations = new Expectations();
  readonly nat: Nat;
  readonly helpers: Helpers;

  constructor({ hooks, entries, addresses, rng, allocate }: TranslationParts) {
    const { expectations } = this;
    this.nat = new Nat({ hooks, entries, addresses, rng, allocate });
    this.helpers = new Helpers({ hooks, entries, expectations, rng });
    expectations.isMuted = (master, kind) => entries.isExpectationMuted(master, kind);
    const isAlive = (entry: number) => entries.isAlive(entry);
    entries.onOpen = (entry, t, zone) => {
      if (expectations.count === 0) return;
      const met = expectations.meet(t.src, t.dst, t.ports >>> 16, t.ports & 0xffff, t.proto, zone, isAlive);
      if (met === null) return;
      entries.expect(entry, met.master);
      if (met.nat !== null) this.nat.followMaster(entry, met.master, met.nat.dir, met.nat.port);
    };
    entries.onAnnounce = (master, src, dst, dstPort) => {
      const number = entries.helper(master);
      const zone = entries.zoneId(master);
      const exact = { src, srcMask: -1, srcPort: 0, srcPortMask: 0, dst, dstPort };
      const kind = { proto: TCP, zone, helper: HELPER_NAMES[number]!, class: 0, flags: 0, nat: null };
      // That it cannot be expected does not end the packet: then the connection is a new one.
      expectations.add(this.helpers.now, { master, ...exact, ...kind }, EXPECT_POLICIES[number]!);
    };
    entries.onHelper = () => this.helpers.stand();
    entries.onEnd = (entry) => {
      this.nat.entryEnds(entry);
      this.helpers.entryEnds(entry);
    };
    entries.offset = (entry, dir, seq) => this.helpers.sequences.offset(entry, dir, seq);
  }

  /** Once per tick. */
  advance(now: number): void {
    this.helpers.advance(now);
    this.nat.advance();
    this.expectations.advance(now);
  }

  copyFrom(live: Translation): void {
    this.expectations.copyFrom(live.expectations);
    this.nat.copyFrom(live.nat);
    this.helpers.copyFrom(live.helpers);
  }
}
