/**
 * Rate limits of the ICMP messages that we originate.   @hot
 *
 * RFC 1812 §4.3.2.8 asks for one; the shape is the kernel's: a token bucket for all (icmp_global_allow, net/ipv4/icmp.c) and one per target
 * (inet_peer_xrlim_allow, net/ipv4/inetpeer.c: one message per icmp_ratelimit, six at once after a rest). Targets live in a small direct-mapped table:
 * one that is pushed out starts with a full bucket, which the bucket for all bounds.
 */
import { TICKS_PER_SECOND } from '../base/clock.ts';

const PEERS = 1024;
/** Messages that a rested target may get at once (XRLIM_BURST_FACTOR). */
const PEER_BURST = 6;

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
    const elapsed = Math.min((now - this.#stamp) | 0, TICKS_PER_SECOND);
    const earned = Math.trunc((perSecond * elapsed) / TICKS_PER_SECOND);
    if (earned > 0) {
      this.#credit = Math.min(this.#credit + earned, burst);
      this.#stamp = now;
    }
    if (this.#credit === 0) return false;
    this.#credit--;
    return true;
  }

  /** One to this target: one per `interval` ticks, PEER_BURST at once; 0 = no limit. */
  allowPeer(now: number, target: number, interval: number): boolean {
    if (interval === 0) return true;
    const slot = (Math.imul(target, 0x9e3779b1) >>> 22) & (PEERS - 1);
    const full = interval * PEER_BURST;
    let tokens = full;
    if (this.#peer[slot] === target) {
      const elapsed = (now - this.#last[slot]!) | 0;
      tokens = elapsed < 0 || elapsed > full ? full : Math.min(this.#tokens[slot]! + elapsed, full);
    }
    this.#peer[slot] = target;
    this.#last[slot] = now;
    const isAllowed = tokens >= interval;
    this.#tokens[slot] = isAllowed ? tokens - interval : tokens;
    return isAllowed;
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
    if (this.#peer[at] !== peer || ((now - this.#last[at]!) | 0) > REDIRECT_SILENCE) {
      this.#peer[at] = peer;
      this.#told[at] = 0;
    }
    const told = this.#told[at]!;
    if (told >= REDIRECT_NUMBER) {
      this.#last[at] = now;
      return false;
    }
    if (told !== 0 && ((now - this.#last[at]!) | 0) <= REDIRECT_LOAD << told) return false;
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
