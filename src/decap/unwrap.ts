/**
 * What a tunnel packet carries: headers checked, the inner IPv4 packet found. The outer IP header was checked by the kernel, and so was the UDP
 * checksum of GUE. The kernel's own: ipip_rcv and tunnel4_rcv, gre_parse_header (net/ipv4/gre_demux.c), gue_udp_recv (net/ipv4/fou.c).
 */
import { sumBytes } from '../wire/checksum.ts';
import * as gre from '../wire/gre.ts';
import * as gue from '../wire/gue.ts';
import * as ipv4 from '../wire/ipv4.ts';

export const TUNNEL_TYPES = ['ipip', 'gue', 'gre'] as const;
export type TunnelType = (typeof TUNNEL_TYPES)[number];

/** Why a packet was not taken; the sentence of each stands in the report. */
export const FAULTS = {
  outerTooShort: 'shorter than its outer headers',
  greFlags: 'GRE with a version, key, sequence number or routing',
  greProtocol: 'GRE that carries no IPv4',
  greChecksum: 'GRE checksum wrong',
  gueVersion: 'GUE of another version than 0',
  gueControl: 'GUE control message',
  gueFlags: 'GUE with unknown flags',
  gueProtocol: 'GUE that carries no IPv4',
  gueRemcsum: 'GUE remote checksum beyond the packet',
  innerTooShort: 'inner packet shorter than an IPv4 header',
  innerVersion: 'inner packet is not IPv4',
  innerLength: 'inner packet longer than the outer one, or of an impossible header length',
  innerChecksum: 'inner IPv4 header checksum wrong',
} as const;
export type Fault = keyof typeof FAULTS;

/** Indexed by GreFault, GueFault and Ipv4Fault. */
const GRE_FAULTS: readonly Fault[] = ['outerTooShort', 'outerTooShort', 'greFlags', 'greProtocol'];
const GUE_FAULTS: readonly Fault[] = [
  'outerTooShort',
  'outerTooShort',
  'gueVersion',
  'gueControl',
  'gueFlags',
  'gueProtocol',
];
const INNER_FAULTS: readonly Fault[] = [
  'innerTooShort',
  'innerTooShort',
  'innerVersion',
  'innerLength',
  'innerLength',
  'innerChecksum',
];

/**
 * The inner packet of what stands behind the outer IP header (`ipip`, `gre`) or UDP header (`gue`), as a view of the same memory, link padding cut
 * off; or what is wrong with it. A checksum that GUE left to us is completed in place.
 */
export function unwrap(type: TunnelType, payload: Uint8Array): Uint8Array | Fault {
  const m = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
  const end = payload.byteLength;
  let inner = 0;
  if (type === 'gre') {
    const fault = gre.check(m, 0, end);
    if (fault !== gre.GreFault.None) return GRE_FAULTS[fault]!;
    if (gre.hasChecksum(m, 0) && !gre.isChecksumRight(m, 0, end)) return 'greChecksum';
    inner = gre.headerLength(m, 0);
  } else if (type === 'gue') {
    const fault = gue.check(m, 0, end);
    if (fault !== gue.GueFault.None) return GUE_FAULTS[fault]!;
    inner = gue.headerLength(m, 0);
    if (gue.hasRemcsum(m, 0) && !completeRemcsum(m, inner, gue.remcsumStart(m, 0), gue.remcsumPlace(m, 0))) {
      return 'gueRemcsum';
    }
  }
  const fault = ipv4.check(m, inner, end);
  if (fault !== ipv4.Ipv4Fault.None) return INNER_FAULTS[fault]!;
  return payload.subarray(inner, inner + ipv4.totalLength(m, inner));
}

/** Sum from `start` on (what stands at `place` counts, it is the pseudo-header's part) and put it at `place`: skb_remcsum_process. */
function completeRemcsum(m: DataView, inner: number, start: number, place: number): boolean {
  const end = m.byteLength;
  if (inner + start > end || inner + place + 2 > end || place < start) return false;
  const sum = ~sumBytes(m, inner + start, end - inner - start) & 0xffff;
  m.setUint16(inner + place, sum === 0 ? 0xffff : sum);
  return true;
}
