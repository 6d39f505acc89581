/**
 * UDP has one state (net/netfilter/ipvs/ip_vs_proto_udp.c): every datagram in either direction starts its timeout anew, and the connection never
 * counts as active.
 *
 *              NORMAL
 *   any        NORMAL, 300 s
 */
import { seconds } from '../base/clock.ts';

export const UdpState = { Normal: 0 } as const;
/** As `ipvsadm -Lc` prints them. */
export const UDP_STATE_NAMES = ['UDP'] as const;

/** Ticks in each state, a copy that `--set` may change. */
export function udpTimeouts(): Int32Array {
  return Int32Array.of(seconds(300));
}
