/**
 * What hook functions may ask of connection tracking, whoever does it. Its owner gets it as an argument: the director and connection tracking do not know each
 * other.   @hot
 */
import type { Packet } from '../packet/packet.ts';
import type { Verdict } from './hooks.ts';

export interface FlowTracking {
  /** False: no packet has an entry. */
  readonly isInUse: boolean;
  /** Is the packet's entry in the table, so not this packet's alone? */
  isConfirmed(p: Packet): boolean;
  /** The packet is nobody's: UNTRACKED. */
  untrack(p: Packet): void;
  /** The packet has no entry, and may get another one. */
  forget(p: Packet): void;
  /** Now, instead of behind everything else. */
  confirm(p: Packet): Verdict;
  /** Answers to the first packet of a connection come from `ip`:`port`. Of a later packet, or an answer, it changes nothing. */
  answersComeFrom(p: Packet, ip: number, port: number): void;
  /** … go to `ip`:`port`. */
  answersGoTo(p: Packet, ip: number, port: number): void;
  /** The packet announces a TCP connection from any port of `src` to `dst`:`port`: it will be RELATED to the packet's, if that has a helper. */
  announce(p: Packet, src: number, dst: number, port: number): void;
  /** The connection is over: its entry ends, if there is one. @param ports source << 16 | destination */
  end(src: number, dst: number, ports: number, proto: number): void;
}
