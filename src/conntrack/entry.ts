/** Words of connection tracking that everybody shares: what a packet is to its entry, and what an entry has been through. */

/** include/uapi/linux/netfilter/nf_conntrack_common.h, enum ip_conntrack_info. `Packet.ctInfo`, beside `Packet.entry`. */
export const CtInfo = {
  Established: 0,
  Related: 1,
  New: 2,
  EstablishedReply: 3,
  RelatedReply: 4,
  Untracked: 7,
} as const;
export type CtInfo = (typeof CtInfo)[keyof typeof CtInfo];

/** The two directions of an entry (IP_CT_DIR_*). */
export const CtDir = { Original: 0, Reply: 1 } as const;

/** Bits of an entry's status, include/uapi/linux/netfilter/nf_conntrack_common.h, enum ip_conntrack_status. */
export const Status = {
  Expected: 1 << 0,
  SeenReply: 1 << 1,
  Assured: 1 << 2,
  Confirmed: 1 << 3,
  SrcNat: 1 << 4,
  DstNat: 1 << 5,
  SeqAdjust: 1 << 6,
  SrcNatDone: 1 << 7,
  DstNatDone: 1 << 8,
  Dying: 1 << 9,
  FixedTimeout: 1 << 10,
  Template: 1 << 11,
  NatClash: 1 << 12,
  Helper: 1 << 13,
} as const;
