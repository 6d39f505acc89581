/**
 * What is known of paths: the MTU that an ICMP "fragmentation needed" has told of one destination, for ten minutes (RFC 1191 §6.3).
 *
 * As the kernel's exceptions of routes (net/ipv4/route.c: __ip_rt_update_pmtu, update_or_create_fnhe): a path only shrinks; one that claims less than
 * `minPmtu` is put at that and believed no more until it expires. What we forward does not look at it (ip_forward_use_pmtu=0), what we send does.
 */
import { seconds } from '../base/clock.ts';

interface Path {
  mtu: number;
  /** Tick. */
  expires: number;
  isLocked: boolean;
}

/** Paths at once; the oldest goes first. */
const CAPACITY = 4096;

export class PathTable {
  /** net.ipv4.route.mtu_expires, seconds. */
  expireSeconds = 600;
  /** net.ipv4.route.min_pmtu, bytes. */
  minPmtu = 552;
  readonly #paths = new Map<number, Path>();
  /** No path expires before this tick. */
  #nextExpiry = 0;

  get count(): number {
    return this.#paths.size;
  }

  /** Bytes: `mtu` of the device, or less. */
  mtuTo(dst: number, mtu: number, now: number): number {
    if (this.#paths.size === 0) return mtu;
    const path = this.#paths.get(dst);
    return path === undefined || ((path.expires - now) | 0) <= 0 || path.mtu > mtu ? mtu : path.mtu;
  }

  isKnown(dst: number, now: number): boolean {
    const path = this.#paths.get(dst);
    return path !== undefined && ((path.expires - now) | 0) > 0;
  }

  /** @param current what `mtuTo` says now  @returns true when it says something else from now on */
  learn(dst: number, mtu: number, current: number, now: number): boolean {
    if (current < mtu) return false;
    let path = this.#paths.get(dst);
    if (path !== undefined && ((path.expires - now) | 0) <= 0) {
      this.#paths.delete(dst);
      path = undefined;
    }
    if (path?.isLocked) return false;
    const isLocked = mtu < this.minPmtu;
    const learnt = isLocked ? Math.min(current, this.minPmtu) : mtu;
    const expires = (now + seconds(this.expireSeconds)) | 0;
    if (this.#paths.size === 0 || ((expires - this.#nextExpiry) | 0) < 0) this.#nextExpiry = expires;
    if (path === undefined && this.#paths.size >= CAPACITY) this.#paths.delete(this.#paths.keys().next().value!);
    this.#paths.set(dst, { mtu: learnt, expires, isLocked });
    return learnt !== current;
  }

  // cold: copies
  copyFrom(live: PathTable): void {
    this.expireSeconds = live.expireSeconds;
    this.minPmtu = live.minPmtu;
    this.#paths.clear();
    for (const [dst, path] of live.#paths) this.#paths.set(dst, { ...path });
    this.#nextExpiry = live.#nextExpiry;
  }
  // hot again

  /** Forget what is too old. @returns true when something was */
  advance(now: number): boolean {
    if (this.#paths.size === 0 || ((this.#nextExpiry - now) | 0) > 0) return false;
    const before = this.#paths.size;
    let next = 0;
    for (const [dst, path] of this.#paths) {
      if (((path.expires - now) | 0) <= 0) this.#paths.delete(dst);
      else if (next === 0 || ((path.expires - next) | 0) < 0) next = path.expires;
    }
    this.#nextExpiry = next;
    return this.#paths.size !== before;
  }
}
