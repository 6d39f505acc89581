/** What rules may ask of the world besides the packet; the engine gives it. */
import type { Routing } from '../hooks/routing.ts';
import type { Nat } from '../nat/nat.ts';
import type { Tracking } from './tracking.ts';

/** Types of addresses, bits as `-m addrtype` numbers them (RTN_*). */
export const AddressType = { Unicast: 1, Local: 2, Broadcast: 3, Multicast: 5 } as const;

export interface HostConditions {
  readonly routing: Routing;
  /** Name of a device, '' for none. */
  deviceName(id: number): string;
  /** Do packets of this device have an Ethernet header before them? */
  isEthernet(id: number): boolean;
  /** AddressType by the local addresses (inet_dev_addr_type); with a device other than NONE, only that one's count. */
  addressType(ip: number, device: number): number;
  /** A line of LOG, with the level of syslog(3), 0…7. */
  log(level: number, text: string): void;
}

/** The same, and connection tracking with translation. Null where there is none: rules that need it are refused. */
export interface Conditions extends HostConditions {
  readonly tracking: Tracking | null;
  readonly nat: Nat | null;
}
