/** What a tracker answers of a packet. */
export const CtResult = {
  Accept: 0,
  /** It belongs to nobody: it goes on without an entry. */
  Invalid: 1,
  /** Its entry was ended: look again (NF_REPEAT). */
  Repeat: 2,
  Drop: 3,
} as const;
