/**
 * The net.ipv4.* switches of the stack, by their kernel names (Documentation/networking/ip-sysctl.rst). Values are integers, shown in decimal.
 *
 * Per-interface values stand under `conf.all`, `conf.default` (what new interfaces start with) and `conf.NAME`; the data path reads one effective value from the
 * Interface, combined here as include/linux/inetdevice.h does (IN_DEV_MAXCONF, IN_DEV_ORCONF, IN_DEV_CONF).
 */
import { TICKS_PER_SECOND } from '../base/clock.ts';
import { parseNumber } from '../base/sysctl-number.ts';
import type { Interface } from '../link/interface.ts';
import { NEIGHBOUR_CAPACITY } from '../link/neighbours.ts';
import type { IpStack } from './stack.ts';

const CONF_KEYS = [
  'accept_local',
  'arp_announce',
  'arp_ignore',
  'forwarding',
  'route_localnet',
  'rp_filter',
  'send_redirects',
] as const;
type ConfKey = (typeof CONF_KEYS)[number];
type Conf = Record<ConfKey, number>;

const CONF_MAX: Readonly<Conf> = {
  accept_local: 1,
  arp_announce: 2,
  arp_ignore: 8,
  forwarding: 1,
  route_localnet: 1,
  rp_filter: 2,
  send_redirects: 1,
};

/** Switches of things that this stack does not do: they read 0, and only 0 can be written. */
const FIXED_KEYS = [
  'accept_redirects',
  'accept_source_route',
  'arp_accept',
  'arp_filter',
  'log_martians',
  'proxy_arp',
] as const;

interface Knob {
  readonly min: number;
  readonly max: number;
  get(): number;
  set(value: number): void;
}

const INT_MAX = 0x7fffffff;

function zeroConf(): Conf {
  return {
    accept_local: 0,
    arp_announce: 0,
    arp_ignore: 0,
    forwarding: 0,
    route_localnet: 0,
    rp_filter: 0,
    send_redirects: 0,
  };
}

export class Sysctls {
  readonly #stack: IpStack;
  readonly #knobs = new Map<string, Knob>();
  readonly #all = zeroConf();
  readonly #default = zeroConf();
  readonly #byInterface = new Map<Interface, Conf>();

  constructor(stack: IpStack) {
    this.#stack = stack;
    this.#addIpKnobs();
    this.#addNeighbourKnobs();
    this.#addConf('all', this.#all);
    this.#addConf('default', this.#default);
    const lo = stack.link.interfaces[0];
    if (lo !== null && lo !== undefined) this.addInterface(lo);
  }

  #addIpKnobs(): void {
    const { settings } = this.#stack;
    const number = (name: string, key: keyof typeof settings, min: number, max: number): void => {
      this.#knobs.set(`net.ipv4.${name}`, {
        min,
        max,
        get: () => settings[key],
        set: (value) => {
          settings[key] = value;
        },
      });
    };
    number('ip_default_ttl', 'defaultTtl', 1, 255);
    number('icmp_echo_ignore_all', 'icmpEchoIgnoreAll', 0, 1);
    number('icmp_echo_ignore_broadcasts', 'icmpEchoIgnoreBroadcasts', 0, 1);
    number('icmp_errors_use_inbound_ifaddr', 'icmpUseInboundAddress', 0, 1);
    number('icmp_msgs_burst', 'icmpMessagesBurst', 0, INT_MAX);
    number('icmp_msgs_per_sec', 'icmpMessagesPerSecond', 0, INT_MAX);
    number('icmp_ratelimit', 'icmpRateLimit', 0, 3_600_000);
    number('icmp_ratemask', 'icmpRateMask', 0, INT_MAX);
    this.#addPathKnobs();
    this.#addFragmentKnobs();
    this.#knobs.set('net.ipv4.ip_forward', {
      min: 0,
      max: 1,
      get: () => this.#all.forwarding,
      set: (value) => this.#setForwarding(value),
    });
  }

  /** ip_no_pmtu_disc is of sockets: those behind the host port have their own. What tunnels are told of a path counts whatever it says, as in the kernel (ip_vs_in_icmp). */
  #addPathKnobs(): void {
    const { paths } = this.#stack;
    let noDiscovery = 0;
    this.#knobs.set('net.ipv4.ip_no_pmtu_disc', {
      min: 0,
      max: 255,
      get: () => noDiscovery,
      set: (value) => {
        noDiscovery = value;
      },
    });
    this.#knobs.set('net.ipv4.route.min_pmtu', {
      min: 68,
      max: INT_MAX,
      get: () => paths.minPmtu,
      set: (value) => {
        paths.minPmtu = value;
      },
    });
    this.#knobs.set('net.ipv4.route.mtu_expires', {
      min: 0,
      max: Math.floor(INT_MAX / TICKS_PER_SECOND),
      get: () => paths.expireSeconds,
      set: (value) => {
        paths.expireSeconds = value;
      },
    });
  }

  /** ipfrag_secret_interval is there, and does nothing, as in the kernel since Linux 3.17. */
  #addFragmentKnobs(): void {
    const { fragments } = this.#stack;
    const number = (
      name: string,
      key: 'timeSeconds' | 'maxDistance' | 'highThreshold' | 'lowThreshold',
      min: () => number,
      max: () => number,
    ): void => {
      this.#knobs.set(`net.ipv4.ipfrag_${name}`, {
        get min() {
          return min();
        },
        get max() {
          return max();
        },
        get: () => fragments[key],
        set: (value) => {
          fragments[key] = value;
        },
      });
    };
    const zero = () => 0;
    const any = () => INT_MAX;
    number('time', 'timeSeconds', zero, () => Math.floor(INT_MAX / TICKS_PER_SECOND));
    number('max_dist', 'maxDistance', zero, any);
    number('high_thresh', 'highThreshold', () => fragments.lowThreshold, any);
    number('low_thresh', 'lowThreshold', zero, () => fragments.highThreshold);
    let interval = 0;
    this.#knobs.set('net.ipv4.ipfrag_secret_interval', {
      min: 0,
      max: Math.floor(INT_MAX / TICKS_PER_SECOND),
      get: () => interval,
      set: (value) => {
        interval = value;
      },
    });
  }

  #addNeighbourKnobs(): void {
    const table = this.#stack.link.neighbours;
    const add = (name: string, min: number, max: number, get: () => number, set: (value: number) => void): void => {
      this.#knobs.set(`net.ipv4.neigh.default.${name}`, { min, max, get, set });
    };
    const time = (
      name: string,
      unit: number,
      key: 'baseReachable' | 'delayFirstProbe' | 'retransmit' | 'gcStale',
    ): void => {
      const perUnit = TICKS_PER_SECOND / unit;
      add(
        name,
        1,
        unit * 86400,
        () => Math.round(table[key] / perUnit),
        (value) => {
          table[key] = Math.max(1, Math.round(value * perUnit));
        },
      );
    };
    const count = (
      name: string,
      max: number,
      key: 'gcThresh1' | 'gcThresh2' | 'gcThresh3' | 'unicastProbes' | 'multicastProbes',
    ): void => {
      add(
        name,
        0,
        max,
        () => table[key],
        (value) => {
          table[key] = value;
        },
      );
    };
    time('base_reachable_time_ms', 1000, 'baseReachable');
    time('delay_first_probe_time', 1, 'delayFirstProbe');
    time('gc_stale_time', 1, 'gcStale');
    time('retrans_time_ms', 1000, 'retransmit');
    count('gc_thresh1', NEIGHBOUR_CAPACITY, 'gcThresh1');
    count('gc_thresh2', NEIGHBOUR_CAPACITY, 'gcThresh2');
    count('gc_thresh3', NEIGHBOUR_CAPACITY, 'gcThresh3');
    count('mcast_solicit', 255, 'multicastProbes');
    count('ucast_solicit', 255, 'unicastProbes');
    add(
      'unres_qlen',
      1,
      10_000,
      () => table.queueLimit,
      (value) => {
        table.queueLimit = value;
      },
    );
  }

  #addConf(name: string, conf: Conf): void {
    this.#addFixed(name);
    for (const key of CONF_KEYS) {
      this.#knobs.set(`net.ipv4.conf.${name}.${key}`, {
        min: 0,
        max: CONF_MAX[key],
        get: () => conf[key],
        set: (value) => {
          if (key === 'forwarding' && name === 'all') return this.#setForwarding(value);
          conf[key] = value;
          this.#refresh();
        },
      });
    }
  }

  #addFixed(name: string): void {
    for (const key of FIXED_KEYS) {
      this.#knobs.set(`net.ipv4.conf.${name}.${key}`, { min: 0, max: 0, get: () => 0, set: () => {} });
    }
  }

  /** devinet_sysctl_forward: the switch of all sets every interface and what new ones start with. */
  #setForwarding(value: number): void {
    this.#all.forwarding = value;
    this.#default.forwarding = value;
    for (const conf of this.#byInterface.values()) conf.forwarding = value;
    this.#refresh();
  }

  addInterface(ifc: Interface): void {
    const conf = { ...this.#default };
    this.#byInterface.set(ifc, conf);
    this.#addConf(ifc.name, conf);
    this.#refresh();
  }

  removeInterface(ifc: Interface): void {
    this.#byInterface.delete(ifc);
    for (const key of [...CONF_KEYS, ...FIXED_KEYS]) this.#knobs.delete(`net.ipv4.conf.${ifc.name}.${key}`);
  }

  /** Effective values into the interfaces. */
  #refresh(): void {
    for (const [ifc, conf] of this.#byInterface) {
      ifc.forwarding = conf.forwarding;
      ifc.rpFilter = Math.max(conf.rp_filter, this.#all.rp_filter);
      ifc.acceptLocal = conf.accept_local | this.#all.accept_local;
      ifc.routeLocalnet = conf.route_localnet | this.#all.route_localnet;
      ifc.arpIgnore = Math.max(conf.arp_ignore, this.#all.arp_ignore);
      ifc.sendRedirects = conf.send_redirects | this.#all.send_redirects;
      ifc.arpAnnounce = Math.max(conf.arp_announce, this.#all.arp_announce);
    }
    this.#stack.routes.changed();
  }

  get(key: string): string | undefined {
    return this.#knobs.get(key)?.get().toString();
  }

  /** ENOENT: no such key. EINVAL: no number, or out of range. */
  set(key: string, value: string): 'ENOENT' | 'EINVAL' | null {
    const knob = this.#knobs.get(key);
    if (knob === undefined) return 'ENOENT';
    const number = parseNumber(value);
    if (number === 'nothing') return null;
    if (number === undefined || number < knob.min || number > knob.max) return 'EINVAL';
    knob.set(number);
    return null;
  }

  /** Sorted by key. */
  list(): (readonly [string, string])[] {
    return [...this.#knobs]
      .map(([key, knob]) => [key, knob.get().toString()] as const)
      .sort((a, b) => (a[0] < b[0] ? -1 : 1));
  }
}
