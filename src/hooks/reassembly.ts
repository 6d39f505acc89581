/**
 * Putting fragments together, for hook functions that must see whole datagrams. `ip` implements it; who needs it gets it as an argument.   @hot
 */
import type { Packet } from '../packet/packet.ts';
import type { Verdict } from './hooks.ts';

/**
 * Who puts together (enum ip_defrag_users, include/net/ip.h): fragments that come by different ways are never mixed. Higher bits are free for a zone.
 */
export const DefragUser = {
  LocalDeliver: 0,
  ConntrackIn: 1,
  ConntrackOut: 2,
  DirectorForward: 3,
  DirectorOut: 4,
} as const;
export type DefragUser = (typeof DefragUser)[keyof typeof DefragUser];

export interface Reassembly {
  /**
   * Takes a fragment.
   * @returns Accept: the datagram is complete, and `p` is the whole of it; Stolen: it waits for others; Drop: it ends, `p.drop` says why
   */
  take(p: Packet, user: number): Verdict;
}
