/**
 * The way of a packet through tapvs, as `tapvs explain` and `tapvs trace` show it: values, from the data worker to the terminal.
 *
 * A packet can beget others (an ICMP error, a reset, an ARP request): each has a way of its own, in the order in which they were born.
 */

/** How a service was found. */
export type ServiceMatch = 'mark' | 'exact' | 'ftp' | 'any-port';

export interface WayService {
  /** `TCP 10.0.1.100:80`, `FWM 7` */
  readonly name: string;
  readonly scheduler: string;
  readonly matched: ServiceMatch;
  /** Seconds; absent when it is not persistent. */
  readonly persistence?: number;
  readonly isOnePacket: boolean;
  readonly servers: number;
}

export interface WayTemplate {
  readonly use: 'used' | 'made' | 'given-up';
  /** `10.0.1.0/24 > 10.0.1.100:80` */
  readonly name: string;
  readonly server: string;
  /** Seconds that it had left; absent when it is new. */
  readonly secondsLeft?: number;
}

export interface WayCandidate {
  readonly server: string;
  readonly weight: number;
  readonly active: number;
  readonly inactive: number;
  /** What the scheduler compares. */
  readonly figure: string;
  readonly verdict: 'chosen' | 'lost' | 'quiesced' | 'overloaded';
  readonly why: string;
}

export interface WayChoice {
  readonly scheduler: string;
  /** null: nobody may be picked. */
  readonly server: string | null;
  readonly how: string;
  /** All servers of the service, newest first; empty when there are more than the trace may look at. */
  readonly candidates: readonly WayCandidate[];
}

export interface WayConnection {
  readonly isNew: boolean;
  readonly direction: 'request' | 'reply';
  /** `TCP`, `UDP`, … */
  readonly protocol: string;
  readonly client: string;
  readonly virtual: string;
  /** By full NAT: what the server sees as the client. */
  readonly local?: string;
  readonly server: string;
  /** `masq`, `route`, `tunnel`, `local`, `bypass`, `fullnat` */
  readonly method: string;
  readonly from: string;
  readonly to: string;
  /** Seconds from this packet on. */
  readonly timeoutSeconds: number;
}

/** A connection that had this tuple and made place. */
export interface WayEnded {
  readonly state: string;
  readonly server: string;
  readonly why: string;
}

/** What a hook function did. */
export interface WayFunction {
  readonly name: string;
  /** `ACCEPT`, `DROP`, `REROUTE`, … */
  readonly verdict: string;
  /** Why it had nothing to do. */
  readonly note?: string;
  readonly ended?: WayEnded;
  readonly service?: WayService;
  readonly template?: WayTemplate;
  readonly choice?: WayChoice;
  readonly connection?: WayConnection;
  /** Where the director sends it on. */
  readonly nexthop?: WayHop;
}

export interface WayHop {
  readonly device: string;
  /** Absent on a device without neighbours, and for ourselves. */
  readonly via?: string;
  /** Bytes. */
  readonly mtu: number;
}

export type WayStep =
  | {
      readonly kind: 'hook';
      readonly hook: string;
      readonly verdict: string;
      readonly functions: readonly WayFunction[];
    }
  /** `type` as in iproute2: local, unicast, broadcast, …; none: there is no route. */
  | {
      readonly kind: 'route';
      readonly to: string;
      readonly type: string;
      readonly prefix?: string;
      readonly via?: string;
      readonly device?: string;
    };

export type WayEnd =
  | {
      readonly kind: 'sent';
      readonly device: string;
      readonly via?: string;
      readonly mac?: string;
      /** State of the neighbour: REACHABLE, STALE, … */
      readonly neighbour?: string;
      /** Into how many packets it was cut; 1 when it was not. */
      readonly pieces: number;
      readonly mtu: number;
    }
  /** Up to the kernel of this machine. */
  | { readonly kind: 'host'; readonly device: string }
  | { readonly kind: 'held'; readonly why: string }
  | { readonly kind: 'answered'; readonly reason: string; readonly why: string }
  /** `reason` is the counter of `tapvs drops`; `why` the sentence with the numbers. */
  | { readonly kind: 'dropped'; readonly reason: string; readonly why: string };

/** A field of the headers, as it came and as it left; null: it was not there. */
export interface WayChange {
  readonly field: string;
  readonly from: string | null;
  readonly to: string | null;
}

export interface Way {
  readonly origin: 'received' | 'host' | 'born';
  /** Where it came in; absent for what was born here. */
  readonly device?: string;
  /** One line in tcpdump's spirit. */
  readonly packet: string;
  /** Firewall mark, when it has one. */
  readonly mark?: number;
  readonly steps: readonly WayStep[];
  readonly end: WayEnd;
  /** What left, or is held, one line; absent when nothing is sent. */
  readonly sent?: string;
  readonly changes: readonly WayChange[];
}

export interface ExplainSpec {
  readonly protocol: 'tcp' | 'udp' | 'sctp' | 'icmp';
  readonly source: string;
  readonly destination: string;
  /** TCP, UDP and SCTP. */
  readonly sourcePort: number;
  readonly destinationPort: number;
  /** Of TCP, in tcpdump's letters. */
  readonly flags: string;
  /** Of SCTP: the type of its one chunk. */
  readonly chunk: number;
  readonly device?: string | undefined;
  readonly mark: number;
  readonly ttl: number;
  /** Total length of the IP packet, bytes; 0: as short as it can be. */
  readonly length: number;
  readonly df: boolean;
}

/** The packet's own way first, then those of the packets that it begot. */
export interface Explanation {
  readonly ways: readonly Way[];
}

/** Ways of one packet, as they are streamed; of none when it only says how many were left out. */
export interface TraceRecord extends Explanation {
  readonly traceId: number;
  /** Microseconds since the epoch. */
  readonly timeUs: number;
  /** Packets before this one that the filter selected and that were not traced, because there were too many. */
  readonly missed: number;
}
