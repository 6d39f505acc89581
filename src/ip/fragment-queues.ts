/**
 * Datagrams that are being put together: a row each, found by source, destination, identification, protocol and user (struct ipq, struct inet_frag_queue).   @hot
 * What the columns mean is reassemble.ts's; here rows come and go.
 */
import { hash4 } from '../base/hash.ts';
import { NONE, type Packet } from '../packet/packet.ts';
import * as ipv4 from '../wire/ipv4.ts';
import { FragmentPeers } from './fragment-peers.ts';

export class FragmentQueues {
  readonly src: Int32Array;
  readonly dst: Int32Array;
  /** Identification << 8 | protocol. */
  readonly key: Int32Array;
  readonly user: Int32Array;
  /** First piece of the list, by offset; NONE: the row is free. */
  readonly head: Int32Array;
  readonly tail: Int32Array;
  readonly pieces: Int32Array;
  /** Payload bytes that are there, and where the furthest piece ends: with LAST_IN, the length of the whole. */
  readonly have: Int32Array;
  readonly length: Int32Array;
  readonly flags: Uint8Array;
  /** Bit per ECN code point seen. */
  readonly ecn: Uint8Array;
  /** The longest piece with its header, and the longest of those with DF. */
  readonly maxSize: Int32Array;
  readonly maxDfSize: Int32Array;
  /** The sender's row, NONE without a distance; the number of the sender's fragments when the last piece came. */
  readonly #peer: Int32Array;
  readonly #distance: Int32Array;
  /** Which came first: a number that grows. */
  readonly #serial: Int32Array;
  /** Tick. */
  readonly expires: Int32Array;
  /** Row + 1. */
  readonly #buckets: Int32Array;
  readonly #next: Int32Array;
  #nextSerial = 0;
  #free = 0;
  readonly #peers: FragmentPeers;
  readonly #seed: number;

  constructor(capacity: number, seed: number) {
    this.#seed = seed;
    const rows = 2 ** Math.ceil(Math.log2(Math.max(capacity, 2)));
    const column = () => new Int32Array(rows);
    this.src = column();
    this.dst = column();
    this.key = column();
    this.user = column();
    this.head = column().fill(NONE);
    this.tail = column();
    this.pieces = column();
    this.have = column();
    this.length = column();
    this.flags = new Uint8Array(rows);
    this.ecn = new Uint8Array(rows);
    this.maxSize = column();
    this.maxDfSize = column();
    this.#peer = column();
    this.#distance = column();
    this.#serial = column();
    this.expires = column();
    this.#buckets = column();
    this.#next = column().map((_, i) => i + 1);
    this.#next[rows - 1] = NONE;
    this.#peers = new FragmentPeers(rows, seed);
  }

  #bucketOf(src: number, dst: number, key: number, user: number): number {
    return hash4(this.#seed, src, dst, key, user) & (this.#buckets.length - 1);
  }

  /** The row of the packet's datagram, NONE when it is not under way. */
  find(p: Packet, user: number): number {
    const { view, l3 } = p;
    const src = ipv4.src(view, l3);
    const dst = ipv4.dst(view, l3);
    const key = (ipv4.id(view, l3) << 8) | ipv4.proto(view, l3);
    let row = this.#buckets[this.#bucketOf(src, dst, key, user)]! - 1;
    while (
      row !== NONE &&
      (this.key[row] !== key || this.src[row] !== src || this.dst[row] !== dst || this.user[row] !== user)
    ) {
      row = this.#next[row]!;
    }
    return row;
  }

  /** A row for the packet's datagram; NONE when all are in use. */
  obtain(p: Packet, user: number, hasDistance: boolean, expires: number): number {
    const row = this.#free;
    if (row === NONE) return NONE;
    this.#free = this.#next[row]!;
    const { view, l3 } = p;
    const src = ipv4.src(view, l3);
    const dst = ipv4.dst(view, l3);
    const key = (ipv4.id(view, l3) << 8) | ipv4.proto(view, l3);
    const bucket = this.#bucketOf(src, dst, key, user);
    this.#next[row] = this.#buckets[bucket]! - 1;
    this.#buckets[bucket] = row + 1;
    this.src[row] = src;
    this.dst[row] = dst;
    this.key[row] = key;
    this.user[row] = user;
    this.#peer[row] = hasDistance ? this.#peers.acquire(src) : NONE;
    this.#distance[row] = 0;
    this.#nextSerial = (this.#nextSerial + 1) | 0;
    this.#serial[row] = this.#nextSerial;
    this.empty(row, expires);
    return row;
  }

  /** The datagram starts anew, and so does its time. */
  empty(row: number, expires: number): void {
    this.head[row] = NONE;
    this.tail[row] = NONE;
    this.pieces[row] = 0;
    this.have[row] = 0;
    this.length[row] = 0;
    this.flags[row] = 0;
    this.ecn[row] = 0;
    this.maxSize[row] = 0;
    this.maxDfSize[row] = 0;
    this.expires[row] = expires;
  }

  /** The row that came first of all but `row`; NONE: there is no other. */
  oldestBut(row: number): number {
    let oldest = NONE;
    for (let i = 0; i < this.head.length; i++) {
      if (i === row || this.head[i] === NONE) continue;
      if (oldest === NONE || ((this.#serial[i]! - this.#serial[oldest]!) | 0) < 0) oldest = i;
    }
    return oldest;
  }

  /** ip_frag_too_far: counts one more fragment of the sender. */
  isTooFar(row: number, most: number): boolean {
    const peer = this.#peer[row]!;
    if (peer === NONE || most === 0) return false;
    const before = this.#distance[row]!;
    const now = this.#peers.count(peer);
    this.#distance[row] = now;
    return this.head[row] !== NONE && ((now - before) | 0) > most;
  }

  free(row: number): void {
    this.head[row] = NONE;
    if (this.#peer[row] !== NONE) this.#peers.release(this.#peer[row]!);
    const bucket = this.#bucketOf(this.src[row]!, this.dst[row]!, this.key[row]!, this.user[row]!);
    let before = NONE;
    for (let at = this.#buckets[bucket]! - 1; at !== row; at = this.#next[at]!) before = at;
    if (before === NONE) this.#buckets[bucket] = this.#next[row]! + 1;
    else this.#next[before] = this.#next[row]!;
    this.#next[row] = this.#free;
    this.#free = row;
  }
}
