/**
 * What helpers do with packets of the connections that rules gave them, and what sequence numbers need afterwards (nf_confirm of nf_conntrack_proto.c: both right
 * before confirmation, so that they see what leaves). The hook function stands there while a connection has a helper: rules go, their connections stay.
 */
import type { Rng } from '../base/rng.ts';
import { CtDir, CtInfo } from '../conntrack/entry.ts';
import type { Expectations } from '../conntrack/expectations.ts';
import { Helper } from '../conntrack/helper-names.ts';
import { Hook, type HookOp, type Hooks, Priority, Verdict } from '../hooks/hooks.ts';
import { Status } from '../model/entry-status.ts';
import type { Packet } from '../packet/packet.ts';
import { IpProto, isFragment } from '../wire/ipv4.ts';
import type { Entries } from './entries.ts';
import { FtpHelper } from './helper-ftp.ts';
import { helpTftp } from './helper-tftp.ts';
import { Sequences } from './sequences.ts';

const { Accept: ACCEPT } = Verdict;
const { RelatedReply: RELATED_REPLY, EstablishedReply: FIRST_REPLY } = CtInfo;
const SEQ_ADJUST = Status.SeqAdjust;
const { Tcp: TCP, Udp: UDP } = IpProto;
const LOOPBACK = 0;

export interface HelpersParts {
  readonly hooks: Hooks;
  readonly entries: Entries;
  readonly expectations: Expectations;
  readonly rng: Rng;
}

export class Helpers {
  readonly sequences: Sequences;
  /** Tick; the engine sets it once per breath. */
  now = 0;
  readonly #hooks: Hooks;
  readonly #entries: Entries;
  readonly ftp: FtpHelper;
  readonly #parts: ConstructorParameters<typeof FtpHelper>[0];
  readonly #ops: readonly HookOp[];
  #isStanding = false;
  /** Entries that have one. */
  #helped = 0;

  constructor({ hooks, entries, expectations, rng }: HelpersParts) {
    this.#hooks = hooks;
    this.#entries = entries;
    this.sequences = new Sequences(entries);
    this.#parts = { entries, expectations, rng, sequences: this.sequences };
    this.ftp = new FtpHelper(this.#parts);
    const priority = Priority.ConntrackConfirm - 1;
    const why = 'last but for confirmation: helpers see, and change, what leaves';
    const run = (p: Packet) => this.run(p);
    this.#ops = [
      { hook: Hook.LocalIn, priority, name: 'nat/helper', why, run },
      { hook: Hook.PostRouting, priority, name: 'nat/helper', why, run },
    ];
  }

  run(p: Packet): Verdict {
    const { entry } = p;
    // Helpers read no ICMP; a packet that loops has been here before.
    if (entry === 0 || p.ctInfo === RELATED_REPLY || p.inDevice === LOOPBACK) return ACCEPT;
    const isShifted = (this.#entries.status(entry) & SEQ_ADJUST) !== 0;
    const helper = this.#entries.helper(entry);
    if (helper !== Helper.None && p.l4Fault === 0 && !isFragment(p.view, p.l3)) {
      let verdict: Verdict = ACCEPT;
      if (helper === Helper.Ftp && p.proto === TCP) verdict = this.ftp.help(p, this.now);
      else if (helper === Helper.Tftp && p.proto === UDP) verdict = helpTftp(this.#parts, p, this.now);
      if (verdict !== ACCEPT) return verdict;
    }
    if (isShifted && p.proto === TCP) this.sequences.adjust(p, p.ctInfo >= FIRST_REPLY ? CtDir.Reply : CtDir.Original);
    return ACCEPT;
  }

  /** An entry ends: what it has announced is expected no more. */
  entryEnds(entry: number): void {
    if (this.#entries.helper(entry) === Helper.None) return;
    this.#helped--;
    this.#parts.expectations.forget(entry);
    this.ftp.forget(entry);
    this.sequences.forget(entry);
  }

  /** nf_conntrack_ftp.loose */
  set isFtpLoose(isLoose: boolean) {
    this.ftp.isLoose = isLoose;
  }

  hooks(): readonly HookOp[] {
    return this.#ops;
  }

  /** There is one more connection with a helper. */
  stand(): void {
    this.#helped++;
    if (this.#isStanding) return;
    this.#isStanding = true;
    this.#hooks.register(this.#ops);
  }

  /** Once per tick, when no packet is on its way: nobody is left who has a helper. */
  advance(now: number): void {
    this.now = now;
    if (!this.#isStanding || this.#helped > 0) return;
    this.#isStanding = false;
    this.#hooks.unregister(this.#ops);
  }

  copyFrom(live: Helpers): void {
    if (live.#isStanding) this.stand();
    this.#helped = live.#helped;
    this.now = live.now;
    this.ftp.copyFrom(live.ftp);
    this.sequences.copyFrom(live.sequences);
  }
}
