/**
 * FTP through connection tracking and translation (nf_conntrack_ftp.c, nf_nat_ftp.c; RFC 959, RFC 2428).
 *
 *   client ─► "PORT 10,1,0,2,195,80"  becomes  "PORT 10,2,0,100,195,80" ─► server       and server → 10.2.0.100:50000 is expected, for 10.1.0.2:50000
 *
 * A line counts only right behind a line's end of the same direction; a segment that begins like one and does not end like one is dropped, for a connection must
 * not be announced unread. An announced address that is not the speaker's is left alone, unless nf_conntrack_ftp.loose says otherwise: nobody may open holes to
 * others.
 */
import type { Rng } from '../base/rng.ts';
import { CtDir, CtInfo } from '../conntrack/entry.ts';
import { EXPECT_POLICIES, type Expectations, type NewExpectation } from '../conntrack/expectations.ts';
import { Helper } from '../conntrack/helper-names.ts';
import { Tuple } from '../conntrack/tuple.ts';
import { payloadStart, replaceInPayload } from '../flow/tcp-payload.ts';
import { Verdict } from '../hooks/hooks.ts';
import { Status } from '../model/entry-status.ts';
import { Drop } from '../packet/drop.ts';
import type { Packet } from '../packet/packet.ts';
import { type Announcement, announcementText, FtpLine, readAnnouncement } from '../wire/ftp-lines.ts';
import { IpProto } from '../wire/ipv4.ts';
import { seq } from '../wire/tcp.ts';
import type { Entries } from './entries.ts';
import type { Sequences } from './sequences.ts';

const { Accept: ACCEPT, Drop: DROP } = Verdict;
const TCP = IpProto.Tcp;
const POLICY = EXPECT_POLICIES[Helper.Ftp]!;
const LINE_END = 10;
const HIGHEST_PORT = 65535;
const MOST_ATTEMPTS = 128;
/** Line ends that are remembered of each direction. */
const REMEMBERED = 2;

const tuple = new Tuple();
const found: Announcement = { line: FtpLine.None, address: 0, port: 0, from: 0, to: 0 };

export interface HelperParts {
  readonly entries: Entries;
  readonly expectations: Expectations;
  readonly sequences: Sequences;
  readonly rng: Rng;
}

export class FtpHelper {
  /** Announcements of another one's address are believed, too. */
  isLoose = false;
  readonly #parts: HelperParts;
  /** Sequence numbers right behind line ends, of both directions, by entry. */
  readonly #lineEnds = new Map<number, readonly [number[], number[]]>();

  constructor(parts: HelperParts) {
    this.#parts = parts;
  }

  help(p: Packet, now: number): Verdict {
    // Until both have spoken nothing is read.
    if (p.ctInfo !== CtInfo.Established && p.ctInfo !== CtInfo.EstablishedReply) return ACCEPT;
    const dir = p.ctInfo === CtInfo.Established ? CtDir.Original : CtDir.Reply;
    // As the kernel reads it (skb_linearize), it is no datagram in pieces any more.
    if (p.fragMax !== 0) p.drawn = p.end - p.l4;
    const start = payloadStart(p);
    if (start >= p.end) return ACCEPT;
    const { view, bytes, entry } = p;
    const first = seq(view, p.l4);
    const next = (first + p.end - start) | 0;
    const isLineEnd = bytes[p.end - 1] === LINE_END;
    let lineEnds = this.#lineEnds.get(entry);
    if (lineEnds === undefined) {
      lineEnds = [[], []];
      this.#lineEnds.set(entry, lineEnds);
    }
    const ends = lineEnds[dir]!;
    const verdict = ends.includes(first) ? this.#read(p, now, start, dir, first) : ACCEPT;
    if (isLineEnd && (verdict === ACCEPT || found.line !== FtpLine.Partial)) remember(ends, next);
    return verdict;
  }

  forget(entry: number): void {
    if (this.#lineEnds.size !== 0) this.#lineEnds.delete(entry);
  }

  /** What is remembered, for another life of the daemon. */
  list(): readonly (readonly [entry: number, lineEnds: readonly [number[], number[]]])[] {
    return [...this.#lineEnds];
  }

  inherit(entry: number, lineEnds: readonly [number[], number[]]): void {
    this.#lineEnds.set(entry, lineEnds);
  }

  copyFrom(live: FtpHelper): void {
    this.isLoose = live.isLoose;
    this.#lineEnds.clear();
    for (const [entry, [a, b]] of live.#lineEnds) this.#lineEnds.set(entry, [[...a], [...b]]);
  }

  #read(p: Packet, now: number, start: number, dir: number, first: number): Verdict {
    const { entries, expectations } = this.#parts;
    const { entry } = p;
    entries.tuple(entry, dir, tuple);
    const speaker = tuple.src;
    found.address = speaker;
    const line = readAnnouncement(p.bytes, start, p.end, dir === CtDir.Reply, found);
    if (line === FtpLine.None) return ACCEPT;
    if (line === FtpLine.Partial) return refuse(p, Drop.HelperPartial);
    const isOwn = found.address === speaker;
    if (!isOwn && !this.isLoose) return ACCEPT;
    // Who will come looks for the speaker as the other side knows it.
    entries.tuple(entry, 1 - dir, tuple);
    const isTranslated = (entries.status(entry) & (Status.SrcNat | Status.DstNat)) !== 0;
    const wanted: NewExpectation = {
      master: entry,
      proto: TCP,
      src: tuple.src,
      srcMask: -1,
      srcPort: 0,
      srcPortMask: 0,
      dst: isOwn ? tuple.dst : found.address,
      dstPort: found.port,
      zone: entries.zoneId(entry),
      helper: 'ftp',
      class: 0,
      flags: 0,
      nat: isTranslated ? { dir: 1 - dir, port: found.port } : null,
    };
    if (!isTranslated)
      return expectations.add(now, wanted, POLICY) === null ? ACCEPT : refuse(p, Drop.HelperNoExpectation);
    const port = this.#expect(now, wanted);
    if (port === 0) return refuse(p, Drop.HelperNoExpectation);
    const text = announcementText(line, tuple.dst, port);
    const growth = text.length - (found.to - found.from);
    if (!replaceInPayload(p, found.from, found.to, text)) {
      // What was announced is never heard; a connection announces one at a time.
      expectations.forget(entry);
      return refuse(p, Drop.HelperPayloadTooLong);
    }
    this.#parts.sequences.shift(entry, dir, first, growth);
    return ACCEPT;
  }

  /** On the announced port, else on a random one above it that nobody else expects (nf_nat_exp_find_port). 0: none. */
  #expect(now: number, wanted: NewExpectation): number {
    const { expectations, rng } = this.#parts;
    const above = HIGHEST_PORT - wanted.dstPort;
    let port = wanted.dstPort;
    for (let left = Math.min(above, MOST_ATTEMPTS); ; left--) {
      const errno = expectations.add(now, { ...wanted, dstPort: port }, POLICY);
      if (errno === null) return port;
      if (errno !== 'EBUSY' || left === 0) return 0;
      port = wanted.dstPort + ((rng.next() >>> 8) % above);
    }
  }
}

/** The older of two gives way, unless the new one is older still (update_nl_seq). */
function remember(ends: number[], next: number): void {
  if (ends.includes(next)) return;
  if (ends.length < REMEMBERED) {
    ends.push(next);
    return;
  }
  const oldest = ((ends[0]! - ends[1]!) | 0) < 0 ? 0 : 1;
  if (((next - ends[oldest]!) | 0) > 0) ends[oldest] = next;
}

function refuse(p: Packet, reason: number): Verdict {
  p.drop = reason;
  return DROP;
}
