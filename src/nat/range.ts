/** What a connection's source or destination may become (struct nf_nat_range2, include/uapi/linux/netfilter/nf_nat.h). */

/** Bits of NatRange.flags; the numbers are the kernel's NF_NAT_RANGE_*. */
export const RangeFlag = {
  MapIps: 1 << 0,
  ProtoSpecified: 1 << 1,
  /** `--random`, `--random-fully`. */
  ProtoRandom: 1 << 2,
  Persistent: 1 << 3,
  ProtoRandomFully: 1 << 4,
  /** `:lo-hi/base`: the distance of the port from `basePort` is kept. */
  ProtoOffset: 1 << 5,
} as const;

export interface NatRange {
  readonly flags: number;
  /** int32; with RangeFlag.MapIps. */
  readonly minIp: number;
  readonly maxIp: number;
  /** Ports, or ids of ICMP, or keys of GRE; with RangeFlag.ProtoSpecified. */
  readonly minPort: number;
  readonly maxPort: number;
  readonly basePort: number;
}

/** Which end is rewritten (enum nf_nat_manip_type). */
export const Manip = { Src: 0, Dst: 1 } as const;
export type Manip = (typeof Manip)[keyof typeof Manip];
