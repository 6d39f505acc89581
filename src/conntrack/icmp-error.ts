/** ICMP errors: the connection that they are about (nf_conntrack_proto_icmp.c, nf_conntrack_inet_error).   @hot */
import type { Packet } from '../packet/packet.ts';
import { formatIp4 } from '../wire/addr.ts';
import { ICMP_HEADER } from '../wire/icmpv4.ts';
import * as ipv4 from '../wire/ipv4.ts';
import type { Conntrack } from './conntrack.ts';
import { sayInvalid } from './log-invalid.ts';
import { tupleAt } from './trackers.ts';
import { Tuple } from './tuple.ts';

const IPV4_HEADER = ipv4.IPV4_HEADER;
const LATER_FRAGMENT = 0x1fff;

const quoted = new Tuple();
const found = new Tuple();

/**
 * (entry << 1 | direction of the quoted packet's answer) + 1, or 0: nobody sent such a packet, or the error does not go to its sender. What is quoted was sent by
 * the error's receiver, so its answer's tuple is looked up, and the error is the answer.
 */
export function relatedEntry(ct: Conntrack, p: Packet): number {
  const { view, end } = p;
  const inner = p.l4 + ICMP_HEADER;
  if (end - inner < IPV4_HEADER) return 0;
  const l4 = inner + ipv4.headerLength(view, inner);
  if (l4 < inner + IPV4_HEADER || l4 > end) return 0;
  if ((ipv4.fragmentWord(view, inner) & LATER_FRAGMENT) !== 0) return 0;
  if (!tupleAt(view, inner, l4, end, ipv4.proto(view, inner), quoted) || !quoted.canInvert()) return 0;
  quoted.invert();
  const { zone, zoneDirs } = ct.templates[p.ctTemplate]!;
  const { entries } = ct;
  const value =
    zoneDirs === 3
      ? entries.lookup(quoted, zone)
      : entries.lookupApart(quoted, (zoneDirs & 1) !== 0 ? zone : 0, (zoneDirs & 2) !== 0 ? zone : 0);
  if (value === 0) return 0;
  const entry = (value - 1) >> 1;
  if (ct.entries.left(entry, ct.now) <= 0) return 0;
  const dir = (value - 1) & 1;
  ct.entries.tuple(entry, dir, found);
  if (ipv4.dst(view, p.l3) === found.dst) return value;
  if (ct.sysctls.logInvalid !== 0) sayOther(ct, p);
  return 0;
}

// cold: the log
function sayOther(ct: Conntrack, p: Packet): void {
  sayInvalid(ct, p, `outer daddr ${formatIp4(ipv4.dst(p.view, p.l3))} != inner ${formatIp4(found.dst)}`);
}
// hot again
