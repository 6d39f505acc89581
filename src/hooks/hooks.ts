/**
 * The five hooks.   @hot
 *
 *                      ┌──────────────► FORWARD ──────────────┐
 *                      │                                      ▼
 *  device ─► PREROUTING ─► route                  route ─► POSTROUTING ─► device
 *                      │                            ▲
 *                      └─► LOCAL_IN ─► host     LOCAL_OUT ◄─ host, and what the director sends on
 *
 * Functions are registered with a priority (ascending; among equals in order of registration, as nf_hook_entries_grow puts
 * them) and answer a verdict. They edit the packet; they never send it: `ip` does, and knows nothing of who is registered.
 */
import { Drop } from '../packet/drop.ts';
import type { Packet } from '../packet/packet.ts';

export const Hook = { PreRouting: 0, LocalIn: 1, Forward: 2, LocalOut: 3, PostRouting: 4 } as const;
export type Hook = (typeof Hook)[keyof typeof Hook];
export const HOOK_NAMES = ['PREROUTING', 'LOCAL_IN', 'FORWARD', 'LOCAL_OUT', 'POSTROUTING'] as const;

/**
 * Numbers of include/uapi/linux/netfilter.h; Reroute is the one word we add: "send me again from LOCAL_OUT". The packet is routed anew by
 * its destination, or by `nexthop` when a hook has set that.
 */
export const Verdict = { Drop: 0, Accept: 1, Stolen: 2, Queue: 3, Repeat: 4, Reroute: 5 } as const;
export type Verdict = (typeof Verdict)[keyof typeof Verdict];

/** include/uapi/linux/netfilter_ipv4.h, enum nf_ip_hook_priorities. */
export const Priority = {
  First: -2147483648,
  RawBeforeDefrag: -450,
  ConntrackDefrag: -400,
  Raw: -300,
  SelinuxFirst: -225,
  Conntrack: -200,
  Mangle: -150,
  NatDst: -100,
  Filter: 0,
  Security: 50,
  NatSrc: 100,
  SelinuxLast: 225,
  ConntrackHelper: 300,
  ConntrackConfirm: 2147483647,
} as const;

export type HookFunction = (p: Packet) => Verdict;

export interface HookOp {
  readonly hook: Hook;
  readonly priority: number;
  /** `owner/function`, unique in its hook: `director/request`. */
  readonly name: string;
  /** One line for `tapvs hooks`: why it stands here. */
  readonly why: string;
  readonly run: HookFunction;
}

/** Sees each function of the chains before and after it ran. It must neither keep nor change the packet. */
export interface HookObserver {
  before(p: Packet, op: HookOp): void;
  after(p: Packet, op: HookOp, verdict: Verdict): void;
}

/** A function that says REPEAT this often for one packet is broken. */
const MAX_REPEATS = 64;

const { Drop: DROP, Accept: ACCEPT, Repeat: REPEAT } = Verdict;

/** The functions of one hook in their order. */
export class HookChain {
  readonly hook: Hook;
  /** Replaced as a whole by register/unregister, never edited: a packet under way keeps its place. */
  #ops: readonly HookOp[] = [];
  #run: readonly HookFunction[] = [];
  #observer: HookObserver | null = null;

  constructor(hook: Hook) {
    this.hook = hook;
  }

  get ops(): readonly HookOp[] {
    return this.#ops;
  }

  register(op: HookOp): void {
    const at = this.#ops.findIndex((o) => o.priority > op.priority);
    this.#set(this.#ops.toSpliced(at < 0 ? this.#ops.length : at, 0, op));
  }

  unregister(op: HookOp): void {
    this.#set(this.#ops.filter((o) => o !== op));
  }

  /**
   * Run the packet through the functions from index `from` on: 0, or the one after the function that queued it.
   * @returns Accept when all accepted; else the verdict that ended it, with `p.hook` and `p.hookIndex` telling where,
   *   and for Drop a reason in `p.drop`.
   */
  run(p: Packet, from: number): Verdict {
    const run = this.#run;
    let repeats = 0;
    for (let i = from; i < run.length; i++) {
      const verdict = run[i]!(p);
      if (verdict === ACCEPT) continue;
      if (verdict === REPEAT && ++repeats < MAX_REPEATS) {
        i--;
        continue;
      }
      p.hook = this.hook;
      p.hookIndex = i;
      if (verdict === REPEAT) {
        p.drop = Drop.HookRepeatLoop;
        return DROP;
      }
      if (verdict === DROP && p.drop === Drop.None) p.drop = Drop.Policy;
      return verdict;
    }
    return ACCEPT;
  }

  #set(ops: readonly HookOp[]): void {
    this.#ops = ops;
    const observer = this.#observer;
    this.#run = observer === null ? ops.map((o) => o.run) : ops.map((o) => observed(o, observer));
  }

  /** Let `observer` see each function; null: nobody, which costs nothing. */
  observe(observer: HookObserver | null): void {
    this.#observer = observer;
    this.#set(this.#ops);
  }
}

function observed(op: HookOp, observer: HookObserver): HookFunction {
  return (p) => {
    observer.before(p, op);
    const verdict = op.run(p);
    observer.after(p, op, verdict);
    return verdict;
  };
}

/** A queue handler takes packets out of a hook; it gives each back by `Hooks.reinject`, or frees it for good. Answers false when it has no room. */
export type QueueHandler = (p: Packet) => boolean;

/** All five chains and the queue handlers. */
export class Hooks {
  readonly chains: readonly HookChain[] = [
    new HookChain(Hook.PreRouting),
    new HookChain(Hook.LocalIn),
    new HookChain(Hook.Forward),
    new HookChain(Hook.LocalOut),
    new HookChain(Hook.PostRouting),
  ];
  readonly preRouting = this.chains[Hook.PreRouting]!;
  readonly localIn = this.chains[Hook.LocalIn]!;
  readonly forward = this.chains[Hook.Forward]!;
  readonly localOut = this.chains[Hook.LocalOut]!;
  readonly postRouting = this.chains[Hook.PostRouting]!;
  readonly queues = new Map<number, QueueHandler>();

  // cold: registration
  observe(observer: HookObserver | null): void {
    for (const chain of this.chains) chain.observe(observer);
  }

  register(ops: readonly HookOp[]): void {
    for (const op of ops) this.chains[op.hook]!.register(op);
  }

  unregister(ops: readonly HookOp[]): void {
    for (const op of ops) this.chains[op.hook]!.unregister(op);
  }
}
