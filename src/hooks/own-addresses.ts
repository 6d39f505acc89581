/** What hook functions may ask of this host's addresses. `ip` implements it; hook functions get it as an argument and never see `ip`.   @hot */
export interface OwnAddresses {
  /**
   * The address for what leaves by `device` to `nexthop`, whatever the route prefers (inet_select_addr, scope universe): the device's own in the network of the next
   * hop, else its first, else another device's. 0 when there is none.
   */
  sourceOn(device: number, nexthop: number): number;
  /** The device's own first address; 0 when it has none. */
  firstAddress(device: number): number;
  /** Is there a way for what we send to `dst`? */
  hasWayTo(dst: number): boolean;
}
