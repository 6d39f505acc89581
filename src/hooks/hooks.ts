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

/** A whole chain: `HookChain.run`. */
type ChainFunction = (p: Packet, from: number) => Verdict;

const acceptAll: ChainFunction = () => ACCEPT;

/** The functions of one hook in their order. */
export class HookChain {
  readonly hook: Hook;
  /**
   * Run the packet through the functions from index `from` on: 0, or the one after the function that queued it.
   * @returns Accept when all accepted; else the verdict that ended it, with `p.hook` and `p.hookIndex` telling where,
   *   and for Drop a reason in `p.drop`.
   */
  run: ChainFunction = acceptAll;
  /** Replaced as a whole by register/unregister, never edited: a packet under way keeps its place. */
  #ops: readonly HookOp[] = [];
  #observer: HookObserver | null = null;

  constructor(hook: Hook) {
    this.hook = hook;
  }

  get ops(): readonly HookOp[] {
    return this.#ops;
  }

  // cold: registration
  /** Those of `ops` that are for this hook. */
  register(...ops: readonly HookOp[]): void {
    let all = this.#ops;
    for (const op of ops) {
      if (op.hook !== this.hook) continue;
      const at = all.findIndex((o) => o.priority > op.priority);
      all = all.toSpliced(at < 0 ? all.length : at, 0, op);
    }
    if (all !== this.#ops) this.#set(all);
  }

  unregister(...ops: readonly HookOp[]): void {
    const left = this.#ops.filter((op) => !ops.includes(op));
    if (left.length < this.#ops.length) this.#set(left);
  }

  /** Let `observer` see each function; null: nobody, which costs nothing. */
  observe(observer: HookObserver | null): void {
    this.#observer = observer;
    this.#set(this.#ops);
  }

  #set(ops: readonly HookOp[]): void {
    this.#ops = ops;
    const observer = this.#observer;
    const run = observer === null ? ops.map((o) => o.run) : ops.map((o) => observed(o, observer));
    const name = `${HOOK_NAMES[this.hook]}${observer === null ? '' : '_OBSERVED'}`;
    this.run = ops.length === 0 ? acceptAll : this.#unrolled(name, run);
  }

  /**
   * A function written for these: each is called at a place of its own, so V8 knows it there and inlines it. In a loop the functions of all chains meet at one place,
   * where none is known (bench/micro, Node 20.20: base 260 → 226 ns a packet, tracking 600 → 569 ns).
   */
  #unrolled(name: string, run: readonly HookFunction[]): ChainFunction {
    const resume: ChainFunction = (p, from) => this.#resume(run, p, from, 0);
    const ended = (p: Packet, verdict: Verdict, at: number): Verdict => this.#ended(run, p, verdict, at, 0);
    const names = run.map((_, i) => `run${i}`);
    const calls = names.map((f, i) => `if ((verdict = ${f}(p)) !== ${ACCEPT}) return ended(p, verdict, ${i});`);
    const lines = ['let verdict;', 'if (from !== 0) return resume(p, from);', ...calls, `return ${ACCEPT};`];
    const make = new Function(
      'resume',
      'ended',
      ...names,
      `return function ${name}(p, from) {\n${lines.join('\n')}\n};`,
    );
    return make(resume, ended, ...run) as ChainFunction;
  }
  // hot again

  #resume(run: readonly HookFunction[], p: Packet, from: number, repeats: number): Verdict {
    for (let i = from; i < run.length; i++) {
      const verdict = run[i]!(p);
      if (verdict !== ACCEPT) return this.#ended(run, p, verdict, i, repeats);
    }
    return ACCEPT;
  }

  /** The function at index `at` has not accepted. @param repeats how often functions have said REPEAT */
  #ended(run: readonly HookFunction[], p: Packet, verdict: Verdict, at: number, repeats: number): Verdict {
    if (verdict === REPEAT && repeats + 1 < MAX_REPEATS) return this.#resume(run, p, at, repeats + 1);
    p.hook = this.hook;
    p.hookIndex = at;
    if (verdict === REPEAT) {
      p.drop = Drop.HookRepeatLoop;
      return DROP;
    }
    if (verdict === DROP && p.drop === Drop.None) p.drop = Drop.Policy;
    return verdict;
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
    for (const chain of this.chains) chain.register(...ops);
  }

  unregister(ops: readonly HookOp[]): void {
    for (const chain of this.chains) chain.unregister(...ops);
  }
}
