/** Words of connection tracking that everybody shares: what a packet is to its entry. What an entry has been through is model/entry-status.ts's. */

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
