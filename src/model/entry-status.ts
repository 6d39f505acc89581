/** Bits of an entry's status by the names that conntrack(8) has for them: include/uapi/linux/netfilter/nf_conntrack_common.h, enum ip_conntrack_status. */
export const StatusBit = {
  Expected: 1 << 0,
  SeenReply: 1 << 1,
  Assured: 1 << 2,
  Confirmed: 1 << 3,
  SrcNatDone: 1 << 7,
  DstNatDone: 1 << 8,
  Dying: 1 << 9,
  FixedTimeout: 1 << 10,
  Offload: 1 << 14,
  HwOffload: 1 << 15,
} as const;
