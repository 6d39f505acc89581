/** The helpers that there are; an entry has the number, rules and listings the name. They are assigned by rules alone (`-j CT --helper`), as current kernels do. */

export const Helper = { None: 0, Ftp: 1, Tftp: 2 } as const;
export type Helper = (typeof Helper)[keyof typeof Helper];

/** By number. */
export const HELPER_NAMES = ['', 'ftp', 'tftp'] as const;

/** IP protocol of the connections that a helper reads, by number. */
export const HELPER_PROTOCOLS = [0, 6, 17] as const;
