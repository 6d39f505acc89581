/**
 * Rate limits of the ICMP messages that we originate.   @hot
 *
 * RFC 1812 §4.3.2.8 asks for one; the shape is the kernel's: a token bucket for all (icmp_global_allow, net/ipv4/icmp.c) and one per target
 * (inet_peer_xrlim_allow, net/ipv4/inetpeer.c: one message per icmp_ratelimit, six at once after a rest). The same bucket bounds what is said of
 * packets without a way (ip_error, net/ipv4/route.c). Targets live in a small direct-mapped table: one that is pushed out starts with a full bucket, which
 * the bucket for all bounds.
 */
import { elapsed, TICKS_PER_SECOND } from '../base/clock.ts';

const PEERS = 1024;
/** Messages that a rested target may get at once (XRLIM_BURST_FACTOR). */
const PEER_BURST = 6;
/** What a target has earned that was never seen: rate_last of a new inet_peer is a minute ago. */
const RESTED = 60 * TICKS_PER_SECOND;
/** ip_rt_error_cost, ip_rt_error_burst. */
const ROUTE_ERROR_COST = TICKS_PER_SECOND;
const ROUTE_ERROR_BURST = 5 * TICKS_PER_SECOND;

export class IcmpLimiter {
  readonly #peer = new Int32Array(PEERS);
  readonly #tokens = new Int32Array(PEERS);
  readonly #last = new Int32Array(PEERS);
  #credit = 0;
  #stamp = 0;
  #isStarted = false;

  copyFrom(live: IcmpLimiter): void {
    this.#peer.set(live.#peer);
    this.#tokens.set(live.#tokens);
    this.#last.set(live.#last);
    this.#credit = live.#credit;
    this.#stamp = live.#stamp;
    this.#isStarted = live.#isStarted;
  }

  /** One of all messages: at most `perSecond`, `burst` at once. */
  allowGlobal(now: number, perSecond: number, burst: number): boolean {
    if (!this.#isStarted) {
      this.#isStarted = true;
      this.#credit = burst;
      this.#stamp = now;
    }
    const passed = Math.min(elapsed(now, this.#stamp), TICKS_PER_SECOND);
    const earned = Math.trunc((perSecond * passed) / TICKS_PER_SECOND);
    if (earned > 0) {
      this.#credit = Math.min(this.#credit + earned, burst);
      this.#stamp = now;
    }
    if (this.#credit === 0) return false;
    this.#credit--;
    return true;
  }

  /** One to this target: one per `interval` ticks, PEER_BURST at once; 0 = no limit, but a bucket that holds nothing. */
  allowPeer(now: number, target: number, interval: number): boolean {
    const slot = this.#fill(now, target, interval * PEER_BURST, false);
    if (this.#tokens[slot]! < interval) return false;
    this.#tokens[slot]! -= interval;
    return true;
  }

  /** One that says there is no way for a packet of this sender: one each second, five at once. */
  allowRouteError(now: number, sender: number): boolean {
    const slot = this.#fill(now, sender, ROUTE_ERROR_BURST, true);
    if (this.#tokens[slot]! < ROUTE_ERROR_COST) return false;
    this.#tokens[slot]! -= ROUTE_ERROR_COST;
    return true;
  }

  /** What a target has earned goes into its bucket; answers the place. @param cuts what is there is cut to `size` even if no time has passed */
  #fill(now: number, target: number, size: number, cuts: boolean): number {
    const slot = (Math.imul(target, 0x9e3779b1) >>> 22) & (PEERS - 1);
    let earned = RESTED;
    if (this.#peer[slot] === target) {
      earned = Math.min(elapsed(now, this.#last[slot]!), RESTED);
    } else {
      this.#peer[slot] = target;
      this.#tokens[slot] = 0;
    }
    this.#last[slot] = now;
    if (cuts || earned !== 0) this.#tokens[slot] = Math.min(this.#tokens[slot]! + earned, size);
    return slot;
  }
}

/** ip_rt_redirect_load, _number, _silence: the pause before the next one doubles; after so many that were ignored there is a long silence. */
const REDIRECT_LOAD = Math.trunc(TICKS_PER_SECOND / 50);
const REDIRECT_NUMBER = 9;
const REDIRECT_SILENCE = REDIRECT_LOAD << (REDIRECT_NUMBER + 1);

/** How often each host was told; hosts share a place when their hashes do. */
export class RedirectLimiter {
  readonly #peer = new Int32Array(PEERS);
  readonly #told = new Int32Array(PEERS);
  readonly #last = new Int32Array(PEERS);

  isAllowed(now: number, peer: number): boolean {
    const at = (Math.imul(peer, 0x9e3779b1) >>> 22) & (PEERS - 1);
    if (this.#peer[at] !== peer || elapsed(now, this.#last[at]!) > REDIRECT_SILENCE) {
      this.#peer[at] = peer;
      this.#told[at] = 0;
    }
    const told = this.#told[at]!;
    if (told >= REDIRECT_NUMBER) {
      this.#last[at] = now;
      return false;
    }
    if (told !== 0 && elapsed(now, this.#last[at]!) <= REDIRECT_LOAD << told) return false;
    this.#last[at] = now;
    this.#told[at] = told + 1;
    return true;
  }

  copyFrom(live: RedirectLimiter): void {
    this.#peer.set(live.#peer);
    this.#told.set(live.#told);
    this.#last.set(live.#last);
  }
}
