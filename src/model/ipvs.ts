/**
 * The director's things as plain values: what the API carries, ipvsadm prints, the configuration file holds.
 * Addresses are dotted quads here and int32 inside; numbers are decimal; nothing here is per packet.
 */

export type IpvsProtocol = 'tcp' | 'udp' | 'sctp';

/** Identity of a virtual service: an address, or a firewall mark. */
export type ServiceKey =
  | { readonly kind: 'address'; readonly protocol: IpvsProtocol; readonly address: string; readonly port: number }
  | { readonly kind: 'fwmark'; readonly fwmark: number; readonly family: 4 | 6 };

/** Bits of a service's scheduler flags as the kernel numbers them (IP_VS_SVC_F_SCHED1…3): sh-fallback and mh-fallback are 1, sh-port and mh-port 2. */
export const SchedulerFlag = { Flag1: 1, Flag2: 2, Flag3: 4 } as const;

export interface ServiceSpec {
  readonly key: ServiceKey;
  /** rr, wrr, lc, wlc, … */
  readonly scheduler: string;
  /** OR of SchedulerFlag. */
  readonly schedulerFlags: number;
  /** Seconds; undefined = not persistent. */
  readonly persistenceTimeout?: number | undefined;
  /** Dotted mask for the client address; undefined = 255.255.255.255. */
  readonly netmask?: string | undefined;
  /** Persistence engine: `sip`. */
  readonly pe?: string | undefined;
  /** One-packet scheduling. */
  readonly ops: boolean;
}

export type ForwardMethod = 'masq' | 'route' | 'tunnel' | 'local' | 'bypass' | 'fullnat';
export type TunnelType = 'ipip' | 'gue' | 'gre';

export interface ServerKey {
  readonly address: string;
  readonly port: number;
}

export interface ServerSpec {
  readonly key: ServerKey;
  readonly method: ForwardMethod;
  /** 0 = quiesced. */
  readonly weight: number;
  /** Connections, 0 = no limit. */
  readonly upperThreshold: number;
  readonly lowerThreshold: number;
  readonly tunnel?:
    | { readonly type: TunnelType; readonly port: number; readonly checksum: 'none' | 'csum' | 'remcsum' }
    | undefined;
}

/** An address of ours from which a service's connections by full NAT come, with the ports that they may have. */
export interface LocalAddressSpec {
  readonly address: string;
  /** Absent: all from 1025 on, as DPVS has it. */
  readonly ports?: { readonly from: number; readonly to: number } | undefined;
  /** Must have the address. */
  readonly device?: string | undefined;
}

/** A synchronisation daemon. What is left out, or 0, is the kernel's default: 224.0.0.81, port 8848, TTL 1, messages as long as an Ethernet frame carries. */
export interface DaemonSpec {
  readonly role: 'master' | 'backup';
  readonly device: string;
  /** 0…255; a backup with 0 takes in all. */
  readonly syncId: number;
  /** Bytes of a message. */
  readonly maxLength?: number | undefined;
  readonly group?: string | undefined;
  readonly port?: number | undefined;
  readonly ttl?: number | undefined;
}

/** A daemon that runs, with all settings as they came out. */
export interface DaemonRow extends Required<DaemonSpec> {
  readonly maxLength: number;
  readonly group: string;
  readonly port: number;
  readonly ttl: number;
  readonly counters: Readonly<Record<string, number>>;
  /** Of a backup: how the bulk transfer from another tapvs stands. */
  readonly transfer?: 'asking' | 'receiving' | 'complete' | 'unanswered';
}

/** Some services of a list. */
export interface ServicePage {
  readonly rows: readonly ServiceRow[];
  /** The last row's servers go on in the first row of the next page. */
  readonly isCut: boolean;
  /** Cursor of the next page, -1 at the end. */
  readonly next: number;
}

export type IpvsCommand =
  | { readonly op: 'add-service'; readonly service: ServiceSpec }
  | { readonly op: 'edit-service'; readonly service: ServiceSpec }
  | { readonly op: 'delete-service'; readonly service: ServiceKey }
  | { readonly op: 'clear' }
  | { readonly op: 'add-server'; readonly service: ServiceKey; readonly server: ServerSpec }
  | { readonly op: 'edit-server'; readonly service: ServiceKey; readonly server: ServerSpec }
  | { readonly op: 'delete-server'; readonly service: ServiceKey; readonly server: ServerKey }
  /** Another range or device is for new connections; it keeps its place. */
  | {
      readonly op: 'add-local-address' | 'edit-local-address';
      readonly service: ServiceKey;
      readonly local: LocalAddressSpec;
    }
  | {
      readonly op: 'delete-local-address';
      readonly service: ServiceKey;
      readonly local: Pick<LocalAddressSpec, 'address' | 'device'>;
    }
  /** Zero the counters of one service with its servers, or of everything. */
  | { readonly op: 'zero'; readonly service?: ServiceKey | undefined }
  /**
   * Take the server out of service: weight 0, no new client; at the deadline what is left is reset. Seconds; absent: no deadline, idle UDP connections stay.
   * `whenAdded`: a server that is not there yet is drained when it comes.
   */
  | {
      readonly op: 'drain';
      readonly service: ServiceKey;
      readonly server: ServerKey;
      readonly deadline?: number | undefined;
      readonly udpIdle?: number | undefined;
      readonly whenAdded?: boolean | undefined;
    }
  /** The server gets its weight back. */
  | { readonly op: 'undrain'; readonly service: ServiceKey; readonly server: ServerKey }
  /** Seconds; 0 leaves a timeout as it is. */
  | { readonly op: 'set-timeouts'; readonly tcp: number; readonly tcpFin: number; readonly udp: number }
  | { readonly op: 'start-daemon'; readonly daemon: DaemonSpec }
  | { readonly op: 'stop-daemon'; readonly role: 'master' | 'backup' };

/** Counters since creation or the last zeroing. Bytes are IP total lengths; a super-packet counts as its segments. */
export interface IpvsStats {
  readonly conns: number;
  readonly inPkts: number;
  readonly outPkts: number;
  readonly inBytes: number;
  readonly outBytes: number;
  /** Estimated rates per second, rounded as the kernel does. */
  readonly cps: number;
  readonly inPps: number;
  readonly outPps: number;
  readonly inBps: number;
  readonly outBps: number;
}

export interface ServerRow extends ServerSpec {
  readonly activeConns: number;
  readonly inactiveConns: number;
  readonly persistentConns: number;
  readonly stats: IpvsStats;
}

export interface LocalAddressRow extends LocalAddressSpec {
  /** Connections that come from it. */
  readonly conns: number;
  /** How often a port was found in use when one was looked for. */
  readonly conflicts: number;
}

export interface ServiceRow extends ServiceSpec {
  readonly stats: IpvsStats;
  /** Absent when it has none. */
  readonly localAddresses?: readonly LocalAddressRow[] | undefined;
  /** In the kernel's list order: newest first. */
  readonly servers: readonly ServerRow[];
}

/** A server that is being drained. */
export interface DrainRow {
  readonly service: ServiceKey;
  readonly server: ServerKey;
  /** draining → resetting (the deadline is over) → done; awaiting: there is no such server yet. */
  readonly state: 'awaiting' | 'draining' | 'resetting' | 'done';
  readonly elapsedSeconds: number;
  /** Until the deadline; null without one. */
  readonly leftSeconds: number | null;
  readonly udpIdleSeconds: number | null;
  /** What undrain gives back. */
  readonly weight: number;
  /** Connections left. */
  readonly activeConns: number;
  readonly inactiveConns: number;
  readonly persistentConns: number;
  /** UDP connections that ended early because they were idle. */
  readonly idled: number;
  /** Connections that were reset at the deadline, that should have been but nobody answered, and that ended without a reset (UDP). */
  readonly reset: number;
  readonly unanswered: number;
  readonly removed: number;
}

export interface ConnectionRow {
  /** `IP` for a template of a fwmark service. */
  readonly protocol: IpvsProtocol | 'ip';
  readonly expiresSeconds: number;
  /** As `ipvsadm -Lc` prints it: ESTABLISHED, FIN_WAIT, UDP, NONE, ASSURED, … */
  readonly state: string;
  readonly client: ServerKey;
  readonly virtual: ServerKey;
  readonly destination: ServerKey;
  /** By full NAT: what its server sees as the client. */
  readonly local?: ServerKey | undefined;
  readonly pe?: { readonly name: string; readonly data: string } | undefined;
}

export interface IpvsInfo {
  /** Version that the listing's headline shows: 1.2.1. */
  readonly version: string;
  /** Connection table size that the headline shows. */
  readonly size: number;
  /** Seconds. */
  readonly timeouts: { readonly tcp: number; readonly tcpFin: number; readonly udp: number };
}

/** Errors of a command, by the kernel's name of the errno that ipvsadm would see. */
export type IpvsErrno =
  | 'EEXIST'
  | 'ENOENT'
  | 'ESRCH'
  | 'EINVAL'
  | 'ERANGE'
  | 'EOPNOTSUPP'
  | 'ENOSPC'
  | 'EAFNOSUPPORT'
  | 'ENODATA'
  | 'ENODEV'
  | 'EADDRNOTAVAIL';
