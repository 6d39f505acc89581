import type { Packet } from '../packet/packet.ts';

/**
 * What hook functions may ask of routing. `ip` implements it; hook functions get it as an argument and never see `ip`.   @hot
 * The answer lies in the fields until the next question: nothing is allocated.
 */
export interface Routing {
  /** Look `dst` up as for a packet that we send. False when there is no route or an unreachable one. */
  resolve(dst: number): boolean;
  /** One of our own addresses (also broadcast ones of our networks: `isBroadcast`). */
  readonly isLocal: boolean;
  readonly isBroadcast: boolean;
  /** Gateway, or `dst` itself when on-link. */
  readonly nexthop: number;
  readonly outDevice: number;
  /** Bytes. */
  readonly mtu: number;
  /** Address that we would send from. */
  readonly source: number;
  /**
   * An ICMP message says that packets to `dst` must not be longer: `mtu` of `resolve(dst)` is that for a while.
   * @returns true when something was known of the path before
   */
  learnMtu(dst: number, mtu: number): boolean;
  /** A packet that came in for us is sent on: it records that it was here, if its options ask for that (ip_rcv_options). The sum of its header waits for `sumOptions`. */
  recordOptions(p: Packet): void;
  /** It goes on as it is now (ip_send_check). */
  sumOptions(p: Packet): void;
  /** On its way through FORWARD it is routed anew as if we had sent it: it records its source as the address that it leaves by (ip_rt_get_source). */
  rerouteOptions(p: Packet): void;
  /** Grows when routes or addresses change: what was resolved under an older number must be asked again. */
  readonly generation: number;
}
