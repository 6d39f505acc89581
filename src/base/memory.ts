/**
 * Where big tables get their memory. It is an argument, because the best memory comes from the addon: on 2 MiB pages a table of a million rows that is walked
 * at random misses the TLB far less (bench/micro, subjects `flows` and `flows-active`).
 */
export type Allocate = (bytes: number) => ArrayBuffer;

/** Plain memory: zeros that become resident as they are touched. */
export const plainMemory: Allocate = (bytes) => new ArrayBuffer(bytes);
