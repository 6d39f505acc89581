/**
 * net.netfilter.nf_conntrack_log_invalid: what is wrong with a packet that belongs to no connection, in the kernel's words (nf_l4proto_log_invalid,
 * net/netfilter/nf_conntrack_proto.c). Cold: called only while the setting asks for it.
 */
import type { Packet } from '../packet/packet.ts';
import type { Conntrack } from './conntrack.ts';

/** The setting is a protocol number, or this one for all of them (IPPROTO_RAW). */
const ALL = 255;

export function sayInvalid(ct: Conntrack, p: Packet, text: string): void {
  const { logInvalid, hasLogger } = ct.sysctls;
  if (ct.onInvalid === null || !hasLogger || (logInvalid !== p.proto && logInvalid !== ALL)) return;
  ct.onInvalid(p, ct.hook, `nf_ct_proto_${p.proto}: ${text} `);
}

/** The same, for who answers whether a packet is sound. */
export function unsound(ct: Conntrack, p: Packet, text: string): false {
  if (ct.sysctls.logInvalid !== 0) sayInvalid(ct, p, text);
  return false;
}
