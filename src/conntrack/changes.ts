/** What can happen to an entry: bits of include/uapi/linux/netfilter/nf_conntrack_common.h, enum ip_conntrack_events. */
export const Change = {
  New: 1 << 0,
  Related: 1 << 1,
  Destroy: 1 << 2,
  Reply: 1 << 3,
  Assured: 1 << 4,
  Protoinfo: 1 << 5,
  Helper: 1 << 6,
  Mark: 1 << 7,
  Seqadj: 1 << 8,
  Label: 1 << 10,
} as const;

/** Their names, by bit. */
export const CHANGE_NAMES = [
  'new',
  'related',
  'destroy',
  'reply',
  'assured',
  'protoinfo',
  'helper',
  'mark',
  'seqadj',
  undefined,
  'label',
] as const;
