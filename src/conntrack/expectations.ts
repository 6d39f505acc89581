/**
 * Expected connections (nf_conntrack_expect.c): what a helper has read that somebody is about to open. A new connection that fits is RELATED to the one that
 * announced it. Few, short-lived and rare: plain objects; a packet asks only while there are any, only when it opens a connection, and only those of its port.
 */
import { seconds } from '../base/clock.ts';

/** NF_CT_EXPECT_*. */
export const ExpectFlag = { Permanent: 1, Inactive: 2, Userspace: 4 } as const;

export interface Expectation {
  /** As `-o id` prints it. */
  readonly id: number;
  /** The connection that announced it: a row of the entry table. */
  readonly master: number;
  readonly proto: number;
  readonly src: number;
  readonly srcMask: number;
  readonly srcPort: number;
  readonly srcPortMask: number;
  readonly dst: number;
  readonly dstPort: number;
  readonly zone: number;
  readonly helper: string;
  readonly class: number;
  readonly flags: number;
  /** How the connection is to be translated, as its master is: for packets of this direction of the master's, to this port; null: not at all. */
  readonly nat: { readonly dir: number; readonly port: number } | null;
  /** Tick. */
  readonly expires: number;
}

/** All but what the table gives. */
export type NewExpectation = Omit<Expectation, 'id' | 'expires'>;

/** struct nf_conntrack_expect_policy: of one class of a helper. */
export interface ExpectPolicy {
  /** Of one master at most; 0: any number. */
  readonly maxExpected: number;
  readonly timeoutSeconds: number;
}

/** Of the helpers that there are, by number (helper-names.ts); whose number is 0 expects nobody. */
export const EXPECT_POLICIES: readonly ExpectPolicy[] = [
  { maxExpected: 0, timeoutSeconds: 0 },
  { maxExpected: 1, timeoutSeconds: 300 },
  { maxExpected: 1, timeoutSeconds: 300 },
];

/** Counters of `conntrack -S expect`: connections that were expected, expectations that came, and went. */
export interface ExpectStats {
  met: number;
  made: number;
  ended: number;
}

/** Those whose time is over that end in one tick: packets shall not wait for all. */
export const MOST_EXPIRE = 1024;

export type ExpectErrno = 'EBUSY' | 'EMFILE' | 'EALREADY';

export class Expectations {
  /** net.netfilter.nf_conntrack_expect_max. */
  max = 4096;
  readonly stats: ExpectStats = { met: 0, made: 0, ended: 0 };
  /** Are such events about expectations of this entry unwanted? null: none are. */
  isMuted: ((master: number, kind: 'new' | 'destroy') => boolean) | null = null;
  /** Told of each that comes and goes. */
  onEvent: ((kind: 'new' | 'destroy', expectation: Expectation) => void) | null = null;
  /** In order of coming. */
  readonly #all = new Set<Expectation>();
  /** By destination port and protocol (`keyOf`), and by master; each in order of coming. */
  readonly #byPort = new Map<number, Expectation[]>();
  readonly #byMaster = new Map<number, Expectation[]>();
  /** Tick; nobody's time is over before. */
  #earliest = 0;
  /** Where a list goes on that has come to this id. */
  #listed: { last: number; readonly rest: Iterator<Expectation, undefined> } | null = null;
  #nextId = 1;
  /** Grows with each that comes or goes. */
  changes = 0;

  get count(): number {
    return this.#all.size;
  }

  list(): readonly Expectation[] {
    return [...this.#all];
  }

  /** Those that came after `id` (0: all), in their order, as many as `limit`. */
  after(id: number, limit: number): Expectation[] {
    const some: Expectation[] = [];
    // An iterator stays good whoever comes and goes; a list that somebody else has overtaken begins anew, and passes by what it has had.
    const isNext = id !== 0 && this.#listed?.last === (id | 0);
    const listed = isNext ? this.#listed! : { last: id, rest: this.#all.values() as Iterator<Expectation, undefined> };
    this.#listed = listed;
    while (some.length < limit) {
      const e = listed.rest.next().value;
      if (e === undefined) {
        this.#listed = null;
        break;
      }
      if (id !== 0 && ((e.id - id) | 0) <= 0) continue;
      listed.last = e.id;
      some.push(e);
    }
    return some;
  }

  /** nf_ct_expect_related: the same again replaces itself; one too many of its master takes the place of the oldest. Null: it is expected now. */
  add(now: number, wanted: NewExpectation, policy: ExpectPolicy): ExpectErrno | null {
    for (const e of this.#byPort.get(keyOf(wanted.dstPort, wanted.proto)) ?? []) {
      if (e.master === wanted.master && isSame(e, wanted)) {
        if (e.class !== wanted.class) return 'EALREADY';
        this.remove(e);
        break;
      }
      if (isClash(e, wanted)) return 'EBUSY';
    }
    const { maxExpected } = policy;
    if (maxExpected !== 0) {
      const kin = (this.#byMaster.get(wanted.master) ?? []).filter((e) => e.class === wanted.class);
      if (kin.length >= maxExpected) this.remove(kin[0]!);
    }
    if (this.#all.size >= this.max) return 'EMFILE';
    const id = this.#nextId;
    this.#nextId = (this.#nextId + 1) | 0 || 1;
    const expectation = { ...wanted, id, expires: (now + seconds(policy.timeoutSeconds)) | 0 };
    this.#put(expectation);
    this.changes++;
    this.stats.made++;
    this.#tell('new', expectation);
    return null;
  }

  /**
   * The expectation that a first packet meets, which ends with that unless it is permanent (nf_ct_find_expectation).
   * @param isAlive is this entry confirmed, and not on its way out? Nobody can know what an unconfirmed connection has announced.
   */
  meet(
    src: number,
    dst: number,
    srcPort: number,
    dstPort: number,
    proto: number,
    zone: number,
    isAlive: (entry: number) => boolean,
  ): Expectation | null {
    const some = this.#byPort.get(keyOf(dstPort, proto));
    if (some === undefined) return null;
    for (const e of some) {
      if (e.dst !== dst || e.zone !== zone) continue;
      if (((e.src ^ src) & e.srcMask) !== 0 || ((e.srcPort ^ srcPort) & e.srcPortMask) !== 0) continue;
      if ((e.flags & ExpectFlag.Inactive) !== 0) continue;
      if (!isAlive(e.master)) return null;
      if ((e.flags & ExpectFlag.Permanent) === 0) this.remove(e);
      this.stats.met++;
      return e;
    }
    return null;
  }

  #tell(kind: 'new' | 'destroy', expectation: Expectation): void {
    if (this.onEvent === null || this.isMuted?.(expectation.master, kind)) return;
    this.onEvent(kind, expectation);
  }

  #put(expectation: Expectation): void {
    const { expires } = expectation;
    if (this.#all.size === 0 || ((expires - this.#earliest) | 0) < 0) this.#earliest = expires;
    addTo(this.#byPort, keyOf(expectation.dstPort, expectation.proto), expectation);
    addTo(this.#byMaster, expectation.master, expectation);
    this.#all.add(expectation);
  }

  remove(expectation: Expectation): void {
    if (!this.#all.delete(expectation)) return;
    removeFrom(this.#byPort, keyOf(expectation.dstPort, expectation.proto), expectation);
    removeFrom(this.#byMaster, expectation.master, expectation);
    this.changes++;
    this.stats.ended++;
    this.#tell('destroy', expectation);
  }

  /** The entry that announced them ends (nf_ct_remove_expectations). */
  forget(master: number): void {
    for (const e of [...(this.#byMaster.get(master) ?? [])]) this.remove(e);
  }

  clear(): void {
    for (const e of this.#all) this.remove(e);
  }

  /** Ends the oldest ones, as many as `limit`, up to the one with the id `last` (0: the latest there is). Answers its id while there are more, else 0. */
  clearSome(last: number, limit: number): number {
    const end = last === 0 ? (this.#nextId - 1) | 0 : last;
    let left = limit;
    for (const e of this.#all) {
      if (((e.id - end) | 0) > 0) break;
      if (left-- === 0) return end;
      this.remove(e);
    }
    return 0;
  }

  /** What nobody came for ends. */
  advance(now: number): void {
    if (this.#all.size === 0 || ((this.#earliest - now) | 0) > 0) return;
    let left = MOST_EXPIRE;
    let earliest = (now + 0x7fffffff) | 0;
    for (const e of this.#all) {
      if (((e.expires - now) | 0) <= 0 && left > 0) {
        left--;
        this.remove(e);
      } else if (((e.expires - earliest) | 0) < 0) {
        earliest = e.expires;
      }
    }
    this.#earliest = earliest;
  }

  /** One that an earlier life of the daemon has left. */
  inherit(expectation: Expectation): void {
    this.#put(expectation);
    if (expectation.id >= this.#nextId) this.#nextId = expectation.id + 1;
  }

  /** Become a copy, which tells nobody. */
  copyFrom(live: Expectations): void {
    this.max = live.max;
    this.#nextId = live.#nextId;
    this.#all.clear();
    this.#byPort.clear();
    this.#byMaster.clear();
    for (const e of live.#all) this.#put(e);
  }
}

function addTo(lists: Map<number, Expectation[]>, key: number, expectation: Expectation): void {
  const list = lists.get(key);
  if (list === undefined) lists.set(key, [expectation]);
  else list.push(expectation);
}

function removeFrom(lists: Map<number, Expectation[]>, key: number, expectation: Expectation): void {
  const list = lists.get(key)!;
  if (list.length === 1) lists.delete(key);
  else list.splice(list.indexOf(expectation), 1);
}

function keyOf(dstPort: number, proto: number): number {
  return (proto << 16) | dstPort;
}

function isSame(a: NewExpectation, b: NewExpectation): boolean {
  return (
    isSameEnd(a, b) &&
    a.src === b.src &&
    a.srcMask === b.srcMask &&
    a.srcPort === b.srcPort &&
    a.srcPortMask === b.srcPortMask
  );
}

/** expect_clash: could one packet meet both? */
function isClash(a: NewExpectation, b: NewExpectation): boolean {
  return (
    isSameEnd(a, b) &&
    ((a.src ^ b.src) & a.srcMask & b.srcMask) === 0 &&
    ((a.srcPort ^ b.srcPort) & a.srcPortMask & b.srcPortMask) === 0
  );
}

function isSameEnd(a: NewExpectation, b: NewExpectation): boolean {
  return a.dst === b.dst && a.dstPort === b.dstPort && a.proto === b.proto && a.zone === b.zone;
}
