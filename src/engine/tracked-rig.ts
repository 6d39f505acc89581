/** For tests of translation and helpers: a host in memory (ip/rig.ts) that tracks connections, with rules as functions. */
import { SeededRng } from '../base/rng.ts';
import { Conntrack } from '../conntrack/conntrack.ts';
import { CtDir } from '../conntrack/entry.ts';
import { Tuple } from '../conntrack/tuple.ts';
import { FlowTable } from '../flow/flow-table.ts';
import { Verdict } from '../hooks/hooks.ts';
import { Rig } from '../ip/rig.ts';
import { Translation } from '../nat/translation.ts';
import type { Packet } from '../packet/packet.ts';
import { formatIp4 } from '../wire/addr.ts';

export class TrackedRig extends Rig {
  readonly conntrack: Conntrack;
  readonly translation: Translation;
  /** What the nat table would do, by hook; and which hooks have asked it. */
  readonly rules = new Map<number, (p: Packet, hook: number) => Verdict>();
  readonly asked: number[] = [];

  constructor(options: { readonly hostPort?: boolean } = {}) {
    super(options);
    const { hooks, pool, stack } = this;
    this.conntrack = new Conntrack({
      hooks,
      pool,
      flows: new FlowTable(2000, 7),
      rng: new SeededRng(3),
      now: this.clock.now(),
      maxEntries: 1000,
      wallClock: () => 0,
      defrag: stack.defrag,
    });
    this.translation = new Translation({
      hooks,
      entries: this.conntrack,
      addresses: stack,
      rng: new SeededRng(9),
    });
    const { nat } = this.translation;
    nat.lookup = (p, hook) => {
      this.asked.push(hook);
      return this.rules.get(hook)?.(p, hook) ?? Verdict.Accept;
    };
    nat.acquire();
    stack.onAddressGone = (device, ip) => nat.addressGone(device, ip);
  }

  override pass(seconds: number): void {
    super.pass(seconds);
    this.conntrack.advance(this.clock.now());
    this.translation.advance(this.clock.now());
  }

  /** `10.0.2.2:53 > 10.0.2.100:40000`: what an entry's answers look like. */
  replyOf(entry: number): string {
    const t = new Tuple();
    this.conntrack.tuple(entry, CtDir.Reply, t);
    return `${formatIp4(t.src)}:${t.ports >>> 16} > ${formatIp4(t.dst)}:${t.ports & 0xffff}`;
  }
}
