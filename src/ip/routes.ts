/**
 * The routing table: longest prefix, then lowest metric; local addresses before everything.   @hot
 *
 *   dst ─► cache (direct-mapped, by address) ─► levels, in order: local /32, other local lengths, then /32 … /0, one hash of prefixes each
 *
 * A level exists only while it has routes, so a look-up that misses the cache costs one probe per prefix length in use, however many routes there are.
 * Kernel: net/ipv4/fib_trie.c, fib_semantics.c; there the tables "local" and "main" are asked in this order too.
 */
import { finish, type Steps } from '../base/slices.ts';
import { sortInSteps } from '../base/sort.ts';
import { netmask } from '../wire/addr.ts';

/** include/uapi/linux/rtnetlink.h */
export const RouteKind = { Unicast: 1, Local: 2, Broadcast: 3, Blackhole: 6, Unreachable: 7, Prohibit: 8 } as const;
export type RouteKind = (typeof RouteKind)[keyof typeof RouteKind];
export const RouteScope = { Global: 0, Link: 253, Host: 254 } as const;
export const RouteProtocol = { Kernel: 2, Boot: 3, Static: 4 } as const;

const CACHE = 4096;
/** Routes that one command may add to a level: with less room it grows before, with pauses. */
const LEVEL_ROOM = 4;
/** Slots that are looked at without a pause, and routes that are removed. */
const SLOTS_AT_ONCE = 4096;
const REMOVED_AT_ONCE = 16;

/** One route; never changed once it is in the table. */
export class Route {
  readonly prefix: number;
  readonly length: number;
  readonly kind: number;
  /** Gateway; 0 = on-link. */
  readonly via: number;
  readonly device: number;
  /** Preferred source address; 0 = choose by device. */
  readonly source: number;
  readonly metric: number;
  readonly protocol: number;
  readonly scope: number;
  /** Next of the same prefix, by metric. */
  next: Route | null = null;

  constructor(
    prefix: number,
    length: number,
    kind: number,
    via: number,
    device: number,
    source: number,
    metric: number,
    protocol: number,
    scope: number,
  ) {
    this.prefix = prefix;
    this.length = length;
    this.kind = kind;
    this.via = via;
    this.device = device;
    this.source = source;
    this.metric = metric;
    this.protocol = protocol;
    this.scope = scope;
  }

  /** Local and broadcast routes stand in the kernel's table "local", which goes before "main". */
  get isInLocalTable(): boolean {
    return this.kind === RouteKind.Local || this.kind === RouteKind.Broadcast;
  }
}

/** Routes of one table and prefix length: open addressing, linear probing, at most half full. */
class Level {
  readonly length: number;
  readonly isLocal: boolean;
  readonly mask: number;
  count = 0;
  #slots: (Route | null)[] = new Array<Route | null>(8).fill(null);
  #shift = 29;

  constructor(length: number, isLocal: boolean) {
    this.length = length;
    this.isLocal = isLocal;
    this.mask = netmask(length);
  }

  find(prefix: number): Route | null {
    const slots = this.#slots;
    const last = slots.length - 1;
    let at = homeOf(prefix, this.#shift);
    for (let route = slots[at]!; route !== null; route = slots[at]!) {
      if (route.prefix === prefix) return route;
      at = (at + 1) & last;
    }
    return null;
  }

  // cold: the table changes
  /** Put `route` (with its chain) at its prefix, in place of what is there. */
  put(route: Route): void {
    if ((this.count + 1) * 2 > this.#slots.length) finish(this.#grow());
    if (seat(this.#slots, this.#shift, route)) this.count++;
  }

  /** Grow if it is nearly full. */
  *makeRoom(): Steps<void> {
    if ((this.count + LEVEL_ROOM) * 2 > this.#slots.length) yield* this.#grow();
  }

  remove(prefix: number): void {
    const last = this.#slots.length - 1;
    let at = homeOf(prefix, this.#shift);
    while (this.#slots[at]!.prefix !== prefix) at = (at + 1) & last;
    this.#slots[at] = null;
    this.count--;
    // What follows in the same run may have probed over the gap: seat it anew.
    for (at = (at + 1) & last; this.#slots[at] !== null; at = (at + 1) & last) {
      const moved = this.#slots[at]!;
      this.#slots[at] = null;
      this.count--;
      this.put(moved);
    }
  }

  /** The table is the old one until all of the new one is there: nothing may change meanwhile. */
  *#grow(): Steps<void> {
    const slots = new Array<Route | null>(this.#slots.length * 2).fill(null);
    const shift = this.#shift - 1;
    for (const [at, route] of this.#slots.entries()) {
      if (route !== null) seat(slots, shift, route);
      if (at % SLOTS_AT_ONCE === SLOTS_AT_ONCE - 1) yield;
    }
    this.#slots = slots;
    this.#shift = shift;
  }

  *all(): Steps<Route[]> {
    const routes: Route[] = [];
    for (const [at, first] of this.#slots.entries()) {
      for (let route = first; route !== null; route = route.next) routes.push(route);
      if (at % SLOTS_AT_ONCE === SLOTS_AT_ONCE - 1) yield;
    }
    return routes;
  }
  // hot again
}

function homeOf(prefix: number, shift: number): number {
  // Fibonacci hashing (Knuth 6.4): the high bits of a product with 2^32 / φ.
  return Math.imul(prefix, 0x9e3779b1) >>> shift;
}

// cold: the table changes
/** Put a route at its prefix. True when none was there. */
function seat(slots: (Route | null)[], shift: number, route: Route): boolean {
  const last = slots.length - 1;
  let at = homeOf(route.prefix, shift);
  while (slots[at] !== null && slots[at]!.prefix !== route.prefix) at = (at + 1) & last;
  const isNew = slots[at] === null;
  slots[at] = route;
  return isNew;
}
// hot again

export class RouteTable {
  /** Grows with every change; what was looked up before must be looked up again. */
  generation = 1;
  #levels: readonly Level[] = [];
  /** Routes of operators that name a source address: they go with that address. */
  readonly #sourced = new Set<Route>();
  readonly #cacheKey = new Int32Array(CACHE);
  readonly #cacheRoute: (Route | null)[] = new Array<Route | null>(CACHE).fill(null);

  /** The best route to `dst`, whatever its kind, or null. */
  lookup(dst: number): Route | null {
    const slot = (dst ^ (dst >>> 12) ^ (dst >>> 24)) & (CACHE - 1);
    const cached = this.#cacheRoute[slot]!;
    if (cached !== null && this.#cacheKey[slot] === dst) return cached;
    const levels = this.#levels;
    for (let i = 0; i < levels.length; i++) {
      const level = levels[i]!;
      const route = level.find(dst & level.mask);
      if (route !== null) {
        this.#cacheKey[slot] = dst;
        this.#cacheRoute[slot] = route;
        return route;
      }
    }
    return null;
  }

  // cold: the table changes
  /** Become a copy that answers the same for as long as `live` does not change: routes and levels are shared, for a packet only reads them. */
  copyFrom(live: RouteTable): void {
    this.generation = live.generation;
    this.#levels = live.#levels;
    this.#cacheRoute.fill(null);
  }

  /** Chain of the prefix in the table that such a route belongs to, lowest metric first. */
  chain(prefix: number, length: number, isLocal: boolean): Route | null {
    return this.#level(length, isLocal)?.find(prefix) ?? null;
  }

  /** Insert by metric, behind others of the same metric. */
  insert(route: Route): void {
    const level = this.#level(route.length, route.isInLocalTable) ?? this.#addLevel(route.length, route.isInLocalTable);
    const first = level.find(route.prefix);
    if (first === null || route.metric < first.metric) {
      route.next = first;
      level.put(route);
    } else {
      let before = first;
      while (before.next !== null && before.next.metric <= route.metric) before = before.next;
      route.next = before.next;
      before.next = route;
    }
    if (route.source !== 0 && route.protocol !== RouteProtocol.Kernel) this.#sourced.add(route);
    this.changed();
  }

  /** Remove this very route. */
  remove(route: Route): void {
    const level = this.#level(route.length, route.isInLocalTable);
    const first = level?.find(route.prefix) ?? null;
    if (level === undefined || first === null) return;
    if (first === route) {
      if (route.next !== null) level.put(route.next);
      else level.remove(route.prefix);
    } else {
      let before = first;
      while (before.next !== null && before.next !== route) before = before.next;
      if (before.next === route) before.next = route.next;
    }
    this.#sourced.delete(route);
    if (level.count === 0) this.#levels = this.#levels.filter((l) => l !== level);
    this.changed();
  }

  /** Room for what a command adds. As all that takes steps: nobody else may change the table meanwhile. */
  *makeRoom(): Steps<void> {
    for (const level of this.#levels) yield* level.makeRoom();
  }

  /** Remove routes that an operator gave this preferred source. */
  *removeWithSource(source: number): Steps<void> {
    const gone: Route[] = [];
    let looked = 0;
    for (const route of this.#sourced) {
      if (route.source === source) gone.push(route);
      if (++looked % SLOTS_AT_ONCE === 0) yield;
    }
    yield* this.#removeAll(gone);
  }

  /** Remove routes by a device: all of them, or those of some kinds. */
  *removeOf(device: number, kinds?: ReadonlySet<number>): Steps<void> {
    const isMeant = (route: Route): boolean => route.device === device && (kinds?.has(route.kind) ?? true);
    for (const level of this.#levels) yield* this.#removeAll((yield* level.all()).filter(isMeant));
  }

  *#removeAll(routes: readonly Route[]): Steps<void> {
    for (const [i, route] of routes.entries()) {
      this.remove(route);
      if (i % REMOVED_AT_ONCE === REMOVED_AT_ONCE - 1) yield;
    }
  }

  /** All routes: local table first, long prefixes first, then by address and metric. */
  *all(): Steps<Route[]> {
    const routes: Route[] = [];
    for (const level of this.#levels) {
      const ofLevel = yield* level.all();
      const sorted = yield* sortInSteps(ofLevel, (a, b) => (a.prefix >>> 0) - (b.prefix >>> 0) || a.metric - b.metric);
      for (const route of sorted) routes.push(route);
    }
    return routes;
  }

  /** Something that routing answers depend on has changed. */
  changed(): void {
    this.generation = (this.generation + 1) | 0;
    this.#cacheRoute.fill(null);
  }

  #level(length: number, isLocal: boolean): Level | undefined {
    return this.#levels.find((level) => level.length === length && level.isLocal === isLocal);
  }

  #addLevel(length: number, isLocal: boolean): Level {
    const level = new Level(length, isLocal);
    this.#levels = [...this.#levels, level].sort(
      (a, b) => Number(b.isLocal) - Number(a.isLocal) || b.length - a.length,
    );
    return level;
  }
}
