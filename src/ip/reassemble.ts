/**
 * Reassembly: RFC 791 §3.2, RFC 1122 §3.3.2, RFC 5722 §3 (overlaps end a datagram).   @hot
 *
 *   fragment ─► its datagram (source, destination, identification, protocol, user) ─► list by offset ─► all there? ─► the last to come becomes the whole
 *
 * As the kernel's ip_defrag (net/ipv4/ip_fragment.c, inet_fragment.c): the first bytes to come win, a copy or a part of what is there is ignored, a middle piece
 * is trimmed to a multiple of 8; time exceeded 11/1 when the time is up and the first fragment is there (not for what we only forward); congestion marks of
 * the pieces are brought together (RFC 3168 §5.3). Nothing is allocated: fragments wait in their own slots, and a slot holds the longest datagram.
 *
 * Memory is counted as the kernel counts it, roughly: what a fragment's buffer would take there. Our own bound, a share of the pool, comes after that.
 */
import { seconds } from '../base/clock.ts';
import type { Rng } from '../base/rng.ts';
import { Verdict } from '../hooks/hooks.ts';
import { DefragUser, type Reassembly } from '../hooks/reassembly.ts';
import { drop } from '../link/link.ts';
import { Drop } from '../packet/drop.ts';
import { FLOW_UNKNOWN, HEADROOM, NONE, type Packet, SLOT_SIZE } from '../packet/packet.ts';
import { ETH_HEADER } from '../wire/ethernet.ts';
import { IcmpType } from '../wire/icmpv4.ts';
import * as ipv4 from '../wire/ipv4.ts';
import { FragmentQueues } from './fragment-queues.ts';
import { icmpError } from './icmp.ts';
import { RouteKind } from './routes.ts';
import type { IpStack } from './stack.ts';
import { gateTransport } from './transport.ts';

const { Accept: ACCEPT, Drop: DROP, Stolen: STOLEN } = Verdict;
const { LocalDeliver: LOCAL_DELIVER, ConntrackIn: CONNTRACK_IN, ConntrackOut: CONNTRACK_OUT } = DefragUser;
const { DF, MF, IPV4_MAX_LENGTH } = ipv4;
const { FragmentBad: BAD, FragmentDuplicate: DUPLICATE, ReassemblyFull: FULL } = Drop;
const { FragmentTooFar: TOO_FAR } = Drop;
const LOCAL = RouteKind.Local;
const { Tcp: TCP, Sctp: SCTP } = ipv4.IpProto;
const OFFSET = 0x1fff;
const TCP_HEADER = 20;
const SCTP_HEADER = 12;
/** Fragments that wait, as a part of the pool; and of one datagram. */
const POOL_SHARE = 4;
const MOST_PIECES = 256;
const TIME_EXCEEDED = IcmpType.TimeExceeded;
const REASSEMBLY_TIME = 1;
const ECN_MASK = 3;
const ECN_CE = 3;
const NOT_ECT_BIT = 1;
const CE_BIT = 8;
/** INET_FRAG_FIRST_IN, INET_FRAG_LAST_IN. */
const FIRST_IN = 1;
const LAST_IN = 2;
/** Bytes that the kernel counts beside a fragment's own (sk_buff, skb_shared_info, headroom), and for a datagram (struct ipq). */
const PIECE_OVERHEAD = 640;
const DATAGRAM_OVERHEAD = 200;

export class Fragments implements Reassembly {
  /** net.ipv4.ipfrag_time, seconds. */
  timeSeconds = 30;
  /** net.ipv4.ipfrag_high_thresh, bytes: above it nothing more is taken; 0: nothing at all. */
  highThreshold = 4 << 20;
  /** net.ipv4.ipfrag_low_thresh, bytes: since Linux 4.17 only a bound of the other one. */
  lowThreshold = 3 << 20;
  /** net.ipv4.ipfrag_max_dist, fragments of the same sender between two of a datagram; 0: any. */
  maxDistance = 64;
  /** Fragments that wait, and their bytes as the kernel counts them. */
  held = 0;
  memory = 0;
  readonly #stack: IpStack;
  readonly #queues: FragmentQueues;

  // Columns of packets, by their place in the pool: bytes from … to of the datagram; 1: it continues its forerunner's run (FRAG_CB, frag_run_len).
  readonly #from: Int32Array;
  readonly #to: Int32Array;
  readonly #continues: Uint8Array;
  /** Lengths of the pieces that a whole was put together from, and how many: what its sender cut it into. */
  readonly #cuts: Uint16Array;
  readonly #cutCount: Uint16Array;

  constructor(stack: IpStack, rng: Rng) {
    this.#stack = stack;
    const slots = stack.pool.packets.length;
    this.#queues = new FragmentQueues(slots / POOL_SHARE, rng.fork().next());
    this.#from = new Int32Array(slots);
    this.#to = new Int32Array(slots);
    this.#continues = new Uint8Array(slots);
    this.#cuts = new Uint16Array(slots * MOST_PIECES);
    this.#cutCount = new Uint16Array(slots);
  }

  take(p: Packet, user: number): Verdict {
    if (this.highThreshold === 0 || this.memory > this.highThreshold) return end(p, FULL);
    const row = this.#rowOf(p, user);
    if (row === NONE) return end(p, FULL);
    if (this.#queues.isTooFar(row, this.maxDistance)) this.#restart(row);
    const { view, l3 } = p;
    const word = ipv4.fragmentWord(view, l3);
    const header = ipv4.headerLength(view, l3);
    const from = (word & OFFSET) << 3;
    let to = from + p.end - l3 - header;
    if ((word & MF) === 0) {
      // Two ends, or bytes behind the end: the datagram is not what it says.
      if (
        to < this.#queues.length[row]! ||
        ((this.#queues.flags[row]! & LAST_IN) !== 0 && to !== this.#queues.length[row])
      ) {
        return this.#refuse(row, p);
      }
      this.#queues.flags[row]! |= LAST_IN;
      this.#queues.length[row] = to;
    } else {
      to &= ~7;
      if (to > this.#queues.length[row]!) {
        if ((this.#queues.flags[row]! & LAST_IN) !== 0) return this.#refuse(row, p);
        this.#queues.length[row] = to;
      }
    }
    if (to === from || this.#queues.pieces[row]! >= MOST_PIECES) return this.#refuse(row, p);
    p.end = l3 + header + to - from;
    const reason = this.#insert(row, p, from, to);
    if (reason === DUPLICATE) return end(p, DUPLICATE);
    if (reason !== Drop.None) return this.#refuse(row, p);
    const size = p.end - l3;
    this.#queues.have[row]! += to - from;
    this.#queues.ecn[row]! |= 1 << (ipv4.tos(view, l3) & ECN_MASK);
    if (from === 0) this.#queues.flags[row]! |= FIRST_IN;
    if (size > this.#queues.maxSize[row]!) this.#queues.maxSize[row] = size;
    if ((word & DF) !== 0 && size > this.#queues.maxDfSize[row]!) this.#queues.maxDfSize[row] = size;
    if (this.#queues.flags[row] !== (FIRST_IN | LAST_IN) || this.#queues.have[row] !== this.#queues.length[row])
      return STOLEN;
    return this.#join(row, p);
  }

  /** End what waits for too long; its sender is told when we have the first fragment and are its receiver. */
  advance(): void {
    if (this.held === 0) return;
    const { link } = this.#stack;
    for (let row = 0; row < this.#queues.head.length; row++) {
      if (this.#queues.head[row] === NONE || ((this.#queues.expires[row]! - link.now) | 0) > 0) continue;
      if ((this.#queues.flags[row]! & FIRST_IN) !== 0) this.#tellSender(row);
      this.#end(row, Drop.ReassemblyTimeout);
    }
  }

  /** How many pieces a whole was put together from, when it may leave in these; 0: it leaves in pieces no longer than `fragMax`. */
  cutCount(p: Packet): number {
    return this.#cutCount[p.index]!;
  }

  /** Payload bytes of piece `i` of a whole. */
  cut(p: Packet, i: number): number {
    return this.#cuts[p.index * MOST_PIECES + i]!;
  }

  /** What was drawn into the first piece (Packet.drawn) is no longer in those behind it; when nothing is left there, it is no datagram in pieces. */
  draw(p: Packet): void {
    const from = p.index * MOST_PIECES;
    const count = this.#cutCount[p.index]!;
    let left = p.drawn - this.#cuts[from]!;
    p.drawn = 0;
    if (count === 0 || left <= 0) return;
    this.#cuts[from]! += left;
    let kept = 1;
    for (let i = 1; i < count; i++) {
      const piece = this.#cuts[from + i]! - left;
      left = Math.max(0, -piece);
      if (piece > 0) this.#cuts[from + kept++] = piece;
    }
    this.#cutCount[p.index] = kept === 1 ? 0 : kept;
  }

  // cold: copies
  copyFrom(live: Fragments): void {
    this.timeSeconds = live.timeSeconds;
    this.highThreshold = live.highThreshold;
    this.lowThreshold = live.lowThreshold;
    this.maxDistance = live.maxDistance;
    // What waits is left out: explain asks about whole packets only.
  }
  // hot again

  /** The row of the packet's datagram, known or new; NONE when there is no room. */
  #rowOf(p: Packet, user: number): number {
    const row = this.#queues.find(p, user);
    const most = Math.max(1, Math.trunc(this.#stack.pool.packets.length / POOL_SHARE));
    while (this.held >= most) {
      const oldest = this.#queues.oldestBut(row);
      if (oldest === NONE) break;
      this.#end(oldest, FULL);
    }
    return row !== NONE ? row : this.#obtain(p, user);
  }

  #obtain(p: Packet, user: number): number {
    const row = this.#queues.obtain(p, user, this.maxDistance !== 0, this.#deadline());
    if (row !== NONE) this.memory += DATAGRAM_OVERHEAD;
    return row;
  }

  #free(row: number): void {
    this.#queues.free(row);
    this.memory -= DATAGRAM_OVERHEAD;
  }

  #deadline(): number {
    return (this.#stack.link.now + seconds(this.timeSeconds)) | 0;
  }

  /** ip_frag_reinit. */
  #restart(row: number): void {
    this.#dropPieces(row, TOO_FAR);
    this.#queues.empty(row, this.#deadline());
  }

  /** Into the list by offset (inet_frag_queue_insert). Answers why not: Drop.FragmentDuplicate, or Drop.FragmentBad for an overlap. */
  #insert(row: number, p: Packet, from: number, to: number): number {
    const { packets } = this.#stack.pool;
    const i = p.index;
    let before = this.#queues.tail[row]!;
    this.#continues[i] = 0;
    if (before !== NONE && this.#to[before]! < to) {
      if (from < this.#to[before]!) return BAD;
      if (from === this.#to[before]) this.#continues[i] = 1;
    } else if (before !== NONE) {
      // Past all pieces that end before it; what it meets is a run of pieces that came one after the other.
      let at = this.#queues.head[row]!;
      before = NONE;
      while (at !== NONE && this.#to[at]! <= from) {
        before = at;
        at = packets[at]!.next;
      }
      if (at !== NONE && this.#from[at]! < to) return this.#isInRun(at, from, to) ? DUPLICATE : BAD;
    }
    this.#from[i] = from;
    this.#to[i] = to;
    if (before === NONE) {
      p.next = this.#queues.head[row]!;
      this.#queues.head[row] = i;
    } else {
      p.next = packets[before]!.next;
      packets[before]!.next = i;
    }
    if (p.next === NONE) this.#queues.tail[row] = i;
    this.#queues.pieces[row]!++;
    this.held++;
    this.memory += this.#memoryOf(i);
    return Drop.None;
  }

  /** Do the pieces from `at` on that came in one run have all bytes `from … to`? */
  #isInRun(at: number, from: number, to: number): boolean {
    if (this.#from[at]! > from) return false;
    const { packets } = this.#stack.pool;
    let last = at;
    for (let next = packets[at]!.next; next !== NONE && this.#continues[next] !== 0; next = packets[next]!.next) {
      last = next;
    }
    return to <= this.#to[last]!;
  }

  /** All pieces are there: the last to come, `p`, becomes the whole (ip_frag_reasm). */
  #join(row: number, p: Packet): Verdict {
    const { pool, link } = this.#stack;
    const { packets } = pool;
    const { bytes, view } = p;
    const first = packets[this.#queues.head[row]!]!;
    const header = ipv4.headerLength(first.view, first.l3);
    const length = header + this.#queues.length[row]!;
    const ecn = this.#queues.ecn[row]!;
    // RFC 3168 §5.3: pieces of a sender that knows ECN and of one that does not are no datagram.
    if (length > IPV4_MAX_LENGTH || ((ecn & NOT_ECT_BIT) !== 0 && ecn !== NOT_ECT_BIT)) {
      return this.#refuse(row, p);
    }
    // What was taken out of a tunnel stands further behind in its slot than a frame does.
    const slotEnd = p.slotStart + SLOT_SIZE;
    const l3 = p.l3 + length <= slotEnd ? p.l3 : p.slotStart + HEADROOM + ETH_HEADER;
    if (first === p) {
      bytes.copyWithin(l3, p.l3, p.end);
    } else {
      bytes.copyWithin(l3 + header + this.#from[p.index]!, p.l3 + ipv4.headerLength(view, p.l3), p.end);
      bytes.copyWithin(l3, first.l3, first.l3 + header);
    }
    p.l3 = l3;
    p.l2 = l3 - ETH_HEADER;
    p.mark = first.mark;
    p.pktType = first.pktType;
    p.ipvsProperty = first.ipvsProperty;
    this.#keepCuts(row, p);
    const isDf = this.#queues.maxDfSize[row] === this.#queues.maxSize[row];
    p.fragMax = this.#queues.maxSize[row]!;
    for (let at = this.#queues.head[row]!; at !== NONE; ) {
      const piece = packets[at]!;
      at = piece.next;
      this.#release(piece);
      if (piece === p) continue;
      const from = piece.l3 + ipv4.headerLength(view, piece.l3);
      bytes.copyWithin(l3 + header + this.#from[piece.index]!, from, piece.end);
      this.#stack.stats.held--;
      drop(link, piece, Drop.FragmentJoined);
    }
    this.#free(row);
    p.end = l3 + length;
    ipv4.setTotalLength(view, l3, length);
    ipv4.setFragmentWord(view, l3, isDf ? DF : 0);
    if ((ecn & CE_BIT) !== 0) ipv4.setTos(view, l3, ipv4.tos(view, l3) | ECN_CE);
    ipv4.fillChecksum(view, l3);
    p.isLaterFragment = 0;
    p.l4Fault = 0;
    p.csumPartial = 0;
    p.csumValid = 0;
    p.flow = FLOW_UNKNOWN;
    gateTransport(p);
    return ACCEPT;
  }

  /**
   * What the sender cut it into. For ourselves the kernel joins the pieces for good (ip_frag_coalesce_ok); and its look for a socket at once pulls a TCP header
   * that is cut in two into the first piece (tcp_v4_early_demux), which then fits no more; checking SCTP's CRC does
   * the same: such datagrams are cut anew.
   */
  #keepCuts(row: number, p: Packet): void {
    const { packets } = this.#stack.pool;
    const first = this.#queues.head[row]!;
    const isCutAnew = this.#queues.user[row] === LOCAL_DELIVER || this.#to[first]! < pulled(p.proto);
    this.#cutCount[p.index] = isCutAnew ? 0 : this.#queues.pieces[row]!;
    let to = p.index * MOST_PIECES;
    for (let at = first; at !== NONE; at = packets[at]!.next) this.#cuts[to++] = this.#to[at]! - this.#from[at]!;
  }

  /** ip_expire: only the receiver says so, and connection tracking is none for what is forwarded. */
  #tellSender(row: number): void {
    const stack = this.#stack;
    const first = stack.pool.packets[this.#queues.head[row]!]!;
    const user = this.#queues.user[row]! & 0xff;
    if (user === CONNTRACK_OUT) return;
    if (user === CONNTRACK_IN) {
      if (stack.routes.lookup(this.#queues.dst[row]!)?.kind !== LOCAL) return;
      first.isLocalIn = 1;
    }
    icmpError(stack, first, TIME_EXCEEDED, REASSEMBLY_TIME, 0);
  }

  /** The datagram will not be whole, and `p`, in its list or not, ends with it. */
  #refuse(row: number, p: Packet): Verdict {
    if (this.#queues.head[row] !== NONE) this.#takeOut(row, p);
    this.#end(row, BAD);
    return end(p, BAD);
  }

  /** Out of the list again, if it is there. */
  #takeOut(row: number, p: Packet): void {
    const { packets } = this.#stack.pool;
    let before = NONE;
    for (let at = this.#queues.head[row]!; at !== NONE; at = packets[at]!.next) {
      if (at === p.index) {
        if (before === NONE) this.#queues.head[row] = p.next;
        else packets[before]!.next = p.next;
        this.#release(p);
        return;
      }
      before = at;
    }
  }

  #end(row: number, reason: number): void {
    this.#dropPieces(row, reason);
    this.#free(row);
  }

  #dropPieces(row: number, reason: number): void {
    const { pool, link, stats } = this.#stack;
    for (let at = this.#queues.head[row]!; at !== NONE; ) {
      const piece = pool.packets[at]!;
      at = piece.next;
      this.#release(piece);
      stats.held--;
      drop(link, piece, reason);
    }
    this.#queues.head[row] = NONE;
  }

  #release(p: Packet): void {
    p.next = NONE;
    this.held--;
    this.memory -= this.#memoryOf(p.index);
  }

  #memoryOf(i: number): number {
    return PIECE_OVERHEAD + ((this.#to[i]! - this.#from[i]! + 63) & ~63);
  }
}

/** Bytes that the kernel has looked at in one piece before the datagram leaves. */
function pulled(proto: number): number {
  return proto === TCP ? TCP_HEADER : proto === SCTP ? SCTP_HEADER : 0;
}

function end(p: Packet, reason: number): Verdict {
  p.drop = reason;
  return DROP;
}
