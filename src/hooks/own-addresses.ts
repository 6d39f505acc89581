/** Answers of `wayTo`. */
export const HAS_WAY = -1;
export const SILENCE = -2;

/** What hook functions may ask of this host's addresses. `ip` implements it; hook functions get it as an argument and never see `ip`.   @hot */
export interface OwnAddresses {
  /**
   * The address for what leaves by `device` to `nexthop`, whatever the route prefers (inet_select_addr, scope universe): the device's own in the network of the next
   * hop, else its first, else another device's. 0 when there is none.
   */
  sourceOn(device: number, nexthop: number): number;
  /** The device's own first address; 0 when it has none. */
  firstAddress(device: number): number;
  /** Is there a way for what we send to `dst`? HAS_WAY; else what its sender is owed: the code of an ICMP destination unreachable, or SILENCE. */
  wayTo(dst: number): number;
}
