/**
 * UDP of this host's own, as its sockets would do it: what hook functions' owners send between packets, and what they listen for. `ip` implements it;
 * its owner gets it as an argument and never sees `ip`.
 */

/**
 * Takes a datagram: `length` bytes of payload at `at`, which are the packet's and may not be kept.
 * @returns the Drop reason under which the packet ends: that it was taken in, or what was wrong with it; Drop.None when it is not for this listener
 */
export type DatagramReceiver = (m: DataView, at: number, length: number, src: number, srcPort: number) => number;

export interface Datagrams {
  /** Id of the device, or NONE (packet.ts). */
  findDevice(name: string): number;
  /** Bytes. */
  deviceMtu(device: number): number;
  /** Our address on the device, else another of ours; 0 when there is none. */
  addressOn(device: number): number;
  /** Is it an address of the device itself? */
  hasAddress(device: number, ip: number): boolean;
  /** Is the address in a network of the device? */
  isOnLink(device: number, ip: number): boolean;
  /** Hand what comes to `ip`:`port` by `device` to `receive`, and to whoever else listens there. A multicast `ip` is a group: it is joined, and left with its last listener. */
  listen(device: number, ip: number, port: number, receive: DatagramReceiver): void;
  /** Not an error when it does not listen there. */
  unlisten(device: number, ip: number, port: number, receive: DatagramReceiver): void;
  /** Send from between packets, not from inside a hook. What does not go is counted as a drop. */
  send(datagram: Outgoing, bytes: Uint8Array, length: number): void;
}

export interface Outgoing {
  readonly device: number;
  readonly src: number;
  readonly srcPort: number;
  readonly dst: number;
  readonly dstPort: number;
  readonly ttl: number;
}
