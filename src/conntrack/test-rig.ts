/** For this folder's tests: connection tracking in the hooks of a router, with a hand-cranked clock; packets in, their state and the events out. */
import { seconds } from '../base/clock.ts';
import { SeededRng } from '../base/rng.ts';
import { FlowTable } from '../flow/flow-table.ts';
import { Hook, Hooks, Verdict } from '../hooks/hooks.ts';
import { SCTP_CT_NAMES, TCP_CT_NAMES } from '../model/entry-states.ts';
import { Status } from '../model/entry-status.ts';
import { Drop } from '../packet/drop.ts';
import type { Packet } from '../packet/packet.ts';
import { PacketPool } from '../packet/pool.ts';
import { formatIp4 } from '../wire/addr.ts';
import { type FrameBuilder, frame } from '../wire/build.ts';
import * as ipv4 from '../wire/ipv4.ts';
import { check as checkSctp } from '../wire/sctp.ts';
import { check as checkTcp } from '../wire/tcp.ts';
import { check as checkUdp } from '../wire/udp.ts';
import { CHANGE_NAMES } from './changes.ts';
import { Conntrack } from './conntrack.ts';
import { Col, ENTRY_SHIFT } from './entries.ts';
import { CtInfo } from './entry.ts';
import { Tuple } from './tuple.ts';

const INFO_NAMES: Readonly<Record<number, string>> = {
  [CtInfo.Established]: 'ESTABLISHED',
  [CtInfo.Related]: 'RELATED',
  [CtInfo.New]: 'NEW',
  [CtInfo.EstablishedReply]: 'ESTABLISHED/reply',
  [CtInfo.RelatedReply]: 'RELATED/reply',
  [CtInfo.Untracked]: 'UNTRACKED',
};

export class CtRig {
  readonly hooks = new Hooks();
  readonly pool = new PacketPool(4);
  readonly flows: FlowTable;
  readonly ct: Conntrack;
  /** What was told, as lines. */
  readonly events: string[] = [];
  now = 1000;

  constructor(maxEntries = 64) {
    this.flows = new FlowTable(maxEntries * 2, 7);
    this.ct = new Conntrack({
      hooks: this.hooks,
      pool: this.pool,
      flows: this.flows,
      rng: new SeededRng(5),
      now: this.now,
      maxEntries,
      wallClock: () => 1_700_000_000_000 + this.now * 4,
      defrag: { acquire: () => {}, release: () => {} },
    });
    this.ct.sink = (entry, changes) => {
      const names = CHANGE_NAMES.filter((_, bit) => (changes & (1 << bit)) !== 0);
      this.events.push(`${names.join(' ')}: ${this.line(entry)}`);
    };
    this.ct.acquire();
  }

  wait(s: number): void {
    for (let left = seconds(s); left > 0; left -= 25) {
      this.now = (this.now + Math.min(25, left)) | 0;
      this.ct.advance(this.now);
    }
  }

  /** Events since the last question. */
  told(): string[] {
    return this.events.splice(0);
  }

  /** An entry in few words: state, seconds left, tuples, ASSURED. */
  line(entry: number): string {
    const { entries } = this.ct;
    const proto = entries.proto(entry);
    const state = entries.rows[(entry << ENTRY_SHIFT) + Col.Word]! & 0xff;
    const name = proto === 6 ? `${TCP_CT_NAMES[state]} ` : proto === 132 ? `${SCTP_CT_NAMES[state]} ` : '';
    const assured = (entries.status(entry) & Status.Assured) !== 0 ? ' ASSURED' : '';
    const unreplied = (entries.status(entry) & Status.SeenReply) === 0 ? ' UNREPLIED' : '';
    const left = Math.round(entries.left(entry, this.now) / seconds(1));
    return `${name}${left} ${this.#tuple(entry, 0)} ${this.#tuple(entry, 1)}${unreplied}${assured}`;
  }

  #tuple(entry: number, dir: number): string {
    const t = new Tuple();
    this.ct.entries.tuple(entry, dir, t);
    return `${formatIp4(t.src)}:${t.ports >>> 16}>${formatIp4(t.dst)}:${t.ports & 0xffff}`;
  }

  list(): string[] {
    const { entries } = this.ct;
    const all = Array.from({ length: entries.highWater - 1 }, (_, i) => i + 1);
    return all.filter((entry) => entries.isAlive(entry)).map((entry) => this.line(entry));
  }

  take(packet: FrameBuilder): Packet {
    const bytes = packet.build();
    const p = this.pool.take(bytes.length + 14)!;
    p.bytes.set(bytes, p.l3);
    p.l4 = p.l3 + ipv4.headerLength(p.view, p.l3);
    p.end = p.l3 + bytes.length;
    p.proto = ipv4.proto(p.view, p.l3);
    if (p.proto === 6 && checkTcp(p.view, p.l4, p.end) !== 0) p.l4Fault = Drop.TcpTooShort;
    if (p.proto === 17 && checkUdp(p.view, p.l4, p.end) !== 0) p.l4Fault = Drop.UdpTooShort;
    if (p.proto === 132 && checkSctp(p.view, p.l4, p.end) !== 0) p.l4Fault = Drop.SctpTooShort;
    if (p.proto === 1 && p.end - p.l4 < 8) p.l4Fault = Drop.IcmpTooShort;
    return p;
  }

  /** Through the router; what it is to its connection, `INVALID` or `dropped`. With `isDropped` a rule between the hooks drops it. */
  send(packet: FrameBuilder, options: { readonly isDropped?: boolean; readonly template?: number } = {}): string {
    const p = this.take(packet);
    p.ctTemplate = options.template ?? 0;
    let text = 'dropped';
    if (this.hooks.chains[Hook.PreRouting]!.run(p, 0) === Verdict.Accept) {
      text = p.entry === 0 && p.ctInfo !== CtInfo.Untracked ? 'INVALID' : INFO_NAMES[p.ctInfo]!;
      if (options.isDropped !== true && this.hooks.chains[Hook.PostRouting]!.run(p, 0) !== Verdict.Accept)
        text = 'dropped';
    }
    this.pool.free(p);
    return text;
  }
}

export const CLIENT = '10.1.0.2';
export const SERVER = '10.2.0.2';

/** Numbers are relative to where each side begins. */
export function tcpFrame(
  from: 'c' | 's',
  flags: string,
  seq: number,
  ack = 0,
  more: { readonly length?: number; readonly win?: number; readonly port?: number } = {},
): FrameBuilder {
  const { length = 0, win = 64240, port = 40000 } = more;
  const [own, other] = from === 'c' ? [1000, 5000] : [5000, 1000];
  const [src, dst, srcPort, dstPort] = from === 'c' ? [CLIENT, SERVER, port, 80] : [SERVER, CLIENT, 80, port];
  return frame()
    .ipv4(src, dst)
    .tcp({ srcPort, dstPort, flags, seq: own + seq, ack: flags.includes('.') ? other + ack : 0, window: win })
    .payload(length);
}
