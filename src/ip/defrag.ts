/**
 * The hook function `ip/defrag` (nf_defrag_ipv4.c: ipv4_conntrack_defrag), before everything that remembers flows.   @hot
 *
 * It stands in the hooks only while somebody needs it: connection tracking, for only the first piece of a datagram has ports. Otherwise fragments pass through a
 * router as they came, each on its own. The director needs whole datagrams too, but only of what it balances: its own hook functions ask for them
 * (hooks/reassembly.ts), as the kernel's do (ip_vs_gather_frags).
 */
import { Hook, type HookOp, Priority, Verdict } from '../hooks/hooks.ts';
import { DefragUser } from '../hooks/reassembly.ts';
import type { Packet } from '../packet/packet.ts';
import { isFragment } from '../wire/ipv4.ts';
import type { IpStack } from './stack.ts';

const ACCEPT = Verdict.Accept;

function defragment(stack: IpStack, p: Packet, user: number): Verdict {
  if (!isFragment(p.view, p.l3)) return ACCEPT;
  // Seen before: it comes back by loopback.
  if (p.entry !== 0 || p.ctInfo !== 0) return ACCEPT;
  return stack.fragments.take(p, user);
}

export class Defrag {
  readonly #stack: IpStack;
  readonly #ops: readonly HookOp[];
  #users = 0;

  constructor(stack: IpStack) {
    this.#stack = stack;
    const priority = Priority.ConntrackDefrag;
    const name = 'ip/defrag';
    this.#ops = [
      {
        hook: Hook.PreRouting,
        priority,
        name,
        why: 'connection tracking needs whole datagrams: only the first piece has ports',
        run: (p) => defragment(stack, p, DefragUser.ConntrackIn),
      },
      {
        hook: Hook.LocalOut,
        priority,
        name,
        why: 'the same for what this machine sends',
        run: (p) => defragment(stack, p, DefragUser.ConntrackOut),
      },
    ];
  }

  // cold: registration
  /** One more who needs whole datagrams (nf_defrag_ipv4_enable). */
  acquire(): void {
    if (this.#users++ === 0) this.#stack.hooks.register(this.#ops);
  }

  release(): void {
    if (--this.#users === 0) this.#stack.hooks.unregister(this.#ops);
  }

  /** Stand in the hooks of a copy as in those of the original. */
  copyFrom(live: Defrag): void {
    if (live.#users > 0 && this.#users === 0) this.#stack.hooks.register(this.#ops);
    this.#users = live.#users;
  }
}
