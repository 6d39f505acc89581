/** Addresses, routes, neighbours and links as plain values: what `tapvs ip` shows and changes. */

export interface AddressRow {
  /** Device name; `lo` for addresses that belong to no device (VIPs of the configuration's `addresses:`). */
  readonly device: string;
  readonly address: string;
  readonly prefixLength: number;
  readonly broadcast?: string | undefined;
  readonly scope: 'global' | 'link' | 'host';
}

export type RouteType = 'unicast' | 'local' | 'broadcast' | 'unreachable' | 'prohibit' | 'blackhole';

export interface RouteRow {
  /** `default`, or a prefix. */
  readonly to: string;
  readonly via?: string | undefined;
  readonly device?: string | undefined;
  readonly source?: string | undefined;
  readonly metric: number;
  readonly type: RouteType;
  readonly protocol: 'kernel' | 'static' | 'boot';
  readonly scope: 'global' | 'link' | 'host';
}

export type NeighbourState = 'INCOMPLETE' | 'REACHABLE' | 'STALE' | 'DELAY' | 'PROBE' | 'FAILED' | 'PERMANENT';

export interface NeighbourRow {
  readonly device: string;
  readonly address: string;
  readonly mac?: string | undefined;
  readonly state: NeighbourState;
}

export interface LinkRow {
  readonly index: number;
  readonly name: string;
  readonly kind: string;
  readonly netns?: string | undefined;
  readonly mtu: number;
  readonly mac?: string | undefined;
  readonly up: boolean;
  readonly stats: {
    readonly rxPackets: number;
    readonly rxBytes: number;
    readonly rxDropped: number;
    readonly txPackets: number;
    readonly txBytes: number;
    readonly txErrors: number;
    readonly txDropped: number;
  };
}

export type IpCommand =
  | {
      readonly op: 'addr-add' | 'addr-replace' | 'addr-del';
      readonly device: string;
      readonly address: string;
      readonly prefixLength: number;
    }
  | {
      readonly op: 'route-add' | 'route-replace' | 'route-del';
      readonly route: Partial<RouteRow> & { readonly to: string };
    }
  | {
      readonly op: 'neigh-add' | 'neigh-replace' | 'neigh-del';
      readonly device: string;
      readonly address: string;
      readonly mac?: string | undefined;
    }
  | { readonly op: 'neigh-flush'; readonly device?: string | undefined }
  | {
      readonly op: 'link-set';
      readonly device: string;
      readonly mtu?: number | undefined;
      readonly up?: boolean | undefined;
      readonly mac?: string | undefined;
    };

/** By the errno that iproute2 would print ("RTNETLINK answers: File exists"); behind a slash what the kernel finds wrong, where one errno says too little. */
export type IpErrno =
  | 'EEXIST'
  | 'ESRCH'
  | 'ENOENT'
  | 'ENODEV'
  | 'EINVAL'
  | 'EINVAL/prefix'
  | 'EINVAL/source'
  | 'EINVAL/gateway'
  | 'EINVAL/host-gateway'
  | 'EINVAL/way'
  | 'EINVAL/mtu-low'
  | 'EINVAL/mtu-high'
  | 'ENETDOWN'
  | 'ENETUNREACH'
  | 'EADDRNOTAVAIL'
  | 'EOPNOTSUPP';
