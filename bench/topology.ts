/**
 * The topology: one client, two servers, and for each peer a lane of its own through a balancer namespace.
 *
 *   <prefix>client            <prefix>lb-<peer>                         <prefix>rs1, <prefix>rs2
 *   l<i>  10.i.1.10-17  ────  front 10.i.1.1 │ back1 10.i.2.1  ────  l<i>  10.i.2.11
 *                                            │ back2 10.i.3.1  ────  l<i>  10.i.3.11
 *
 * i = 100 + index of the peer. VIP 10.i.1.100. Every lane is the same number of veth pairs, so a peer differs from another
 * only in what it does between front and back. Lanes that nobody measures are silent.
 *
 * Where servers answer the client directly (DR, IPIP) they have the VIP on lo, and a second leg on the front segment, which is a bridge then:
 *
 *   client l<i> ──── front ─┐              ┌─ tap-front │ tapvs │ tap-back ─┬─ back1 ──── l<i> rs1 ─┐
 *                           ├── br-front ──┘                                └─ back2 ──── l<i> rs2 ─┤ requests
 *   rs1 f<i> ────── front1 ─┤                                                                       │
 *   rs2 f<i> ────── front2 ─┘ ◄──────────────────────────────────────────────────────────── answers ┘
 *
 * A request's way is that of the NAT lane; an answer crosses a veth pair, a bridge and a veth pair, and never the balancer. A packet device has
 * no bridge of its own, so it stands behind one more veth pair on that bridge (port - front0): its requests' way is a pair and a bridge longer than NAT's.
 */
import { readdirSync } from 'node:fs';
import { run } from './run.ts';

/** What answers inside a lane's balancer namespace: the kernel, or a tapvsd that owns the addresses. */
export type LaneKind = 'kernel' | 'tap' | 'packet';

/** How requests reach the servers: with another destination, in another frame, or in an IPv4 packet. */
export type Forwarding = 'nat' | 'dr' | 'ipip';

export interface Lane {
  readonly peer: string;
  readonly kind: LaneKind;
  readonly forwarding: Forwarding;
  /** Balancer namespace. */
  readonly namespace: string;
  readonly vip: string;
  /** Balancer's addresses on front, back1, back2. */
  readonly front: string;
  readonly backs: readonly [string, string];
  /** The two servers as this lane sees them. */
  readonly servers: readonly [string, string];
  /** The servers' devices here, in their namespaces: towards the balancer, and on the front segment (unless NAT). */
  readonly serverDevice: string;
  readonly serverFrontDevice: string;
  /** The servers' addresses on the front segment (unless NAT). */
  readonly serverFronts: readonly [string, string];
  /** The device in the balancer's namespace that a packet device of the balancer takes. */
  readonly frontDevice: string;
  /** The client's addresses on this lane. */
  readonly clients: readonly string[];
}

export interface Topology {
  readonly prefix: string;
  readonly client: string;
  readonly servers: readonly [string, string];
  readonly lanes: readonly Lane[];
}

const PREFIX = 'tvbench';

/** Plans a topology; nothing is created yet. The prefix carries the process id, so that runs do not meet. */
export function planTopology(
  peers: readonly { readonly name: string; readonly kind: LaneKind; readonly forwarding: Forwarding }[],
): Topology {
  const prefix = `${PREFIX}${process.pid}-`;
  return {
    prefix,
    client: `${prefix}client`,
    servers: [`${prefix}rs1`, `${prefix}rs2`],
    lanes: peers.map(({ name, kind, forwarding }, index) => {
      const net = `10.${100 + index}`;
      return {
        peer: name,
        kind,
        forwarding,
        namespace: `${prefix}lb-${name}`,
        vip: `${net}.1.100`,
        front: `${net}.1.1`,
        backs: [`${net}.2.1`, `${net}.3.1`],
        servers: [`${net}.2.11`, `${net}.3.11`],
        serverDevice: `l${index}`,
        serverFrontDevice: `f${index}`,
        serverFronts: [`${net}.1.21`, `${net}.1.22`],
        frontDevice: kind === 'packet' && forwarding !== 'nat' ? 'front0' : 'front',
        clients: Array.from({ length: 8 }, (_, i) => `${net}.1.${10 + i}`),
      };
    }),
  };
}

/** The same in every namespace: no IPv6 chatter, no reverse-path surprises, room for short connections. */
const SYSCTLS = [
  'net.ipv6.conf.all.disable_ipv6=1',
  'net.ipv6.conf.default.disable_ipv6=1',
  'net.ipv4.conf.all.rp_filter=0',
  'net.ipv4.conf.default.rp_filter=0',
  'net.ipv4.ip_local_port_range=10000 65000',
  'net.ipv4.tcp_max_syn_backlog=8192',
  'net.core.somaxconn=8192',
];

/** Creates namespaces, veth pairs, addresses and routes. Throws CommandError. */
export async function buildTopology(topology: Topology): Promise<void> {
  const { client, servers, lanes } = topology;
  const namespaces = [client, ...servers, ...lanes.map((lane) => lane.namespace)];
  await run(['ip', '-batch', '-'], { input: namespaces.map((ns) => `netns add ${ns}\n`).join('') });
  await Promise.all(namespaces.map((ns) => run(['ip', 'netns', 'exec', ns, 'sysctl', '-qw', ...SYSCTLS])));

  const links: string[] = [];
  for (const [i, lane] of lanes.entries()) {
    const at = lane.namespace;
    links.push(`link add name front netns ${at} type veth peer name l${i} netns ${client}`);
    for (const [which, server] of servers.entries()) {
      links.push(`link add name back${which + 1} netns ${at} type veth peer name ${lane.serverDevice} netns ${server}`);
      if (lane.forwarding === 'nat') continue;
      links.push(
        `link add name front${which + 1} netns ${at} type veth peer name ${lane.serverFrontDevice} netns ${server}`,
      );
    }
  }
  await batch(null, links);

  await Promise.all([
    batch(client, [
      'link set lo up',
      ...lanes.flatMap((lane, i) => [
        ...lane.clients.map((address) => `address add ${address}/24 dev l${i}`),
        `link set l${i} up`,
        ...lane.servers.map((server) => `route add ${server}/32 via ${lane.front}`),
      ]),
    ]),
    ...servers.map((ns, which) =>
      batch(ns, ['link set lo up', ...lanes.flatMap((lane) => serverCommands(lane, which))]),
    ),
    ...lanes.map((lane) => batch(lane.namespace, laneCommands(lane))),
  ]);
  const direct = lanes.filter((lane) => lane.forwarding !== 'nat');
  if (direct.length > 0) await Promise.all(servers.map((ns) => haveServiceAddresses(ns, direct)));
  await Promise.all(
    lanes.map((lane) => {
      const own =
        lane.kind === 'kernel'
          ? ['net.ipv4.ip_forward=1']
          : ['net.ipv4.ip_forward=0', '-e', 'net.bridge.bridge-nf-call-iptables=0'];
      return run(['ip', 'netns', 'exec', lane.namespace, 'sysctl', '-qw', ...own]);
    }),
  );
}

function serverCommands(lane: Lane, which: number): string[] {
  const { serverDevice, serverFrontDevice } = lane;
  const own = [`address add ${lane.servers[which]}/24 dev ${serverDevice}`, `link set ${serverDevice} up`];
  if (lane.forwarding === 'nat') {
    return [...own, `route add ${lane.clients[0]!.replace(/\d+$/, '0')}/24 via ${lane.backs[which]}`];
  }
  return [
    ...own,
    `address add ${lane.serverFronts[which]}/24 dev ${serverFrontDevice}`,
    `link set ${serverFrontDevice} up`,
  ];
}

/** The usual settings of a real server of DR or IPIP: never answer or ask by ARP as the service's address, and only then have it. */
async function haveServiceAddresses(namespace: string, lanes: readonly Lane[]): Promise<void> {
  const quiet = ['net.ipv4.conf.all.arp_ignore=1', 'net.ipv4.conf.all.arp_announce=2'];
  await run(['ip', 'netns', 'exec', namespace, 'sysctl', '-qw', ...quiet]);
  await batch(
    namespace,
    lanes.map((lane) => `address add ${lane.vip}/32 dev lo`),
  );
}

function laneCommands(lane: Lane): string[] {
  const legs = lane.forwarding === 'nat' ? [] : ['front1', 'front2'];
  const up = ['lo', 'front', 'back1', 'back2', ...legs].map((name) => `link set ${name} up`);
  switch (lane.kind) {
    case 'kernel':
      return [
        `address add ${lane.front}/24 dev front`,
        `address add ${lane.vip}/32 dev front`,
        `address add ${lane.backs[0]}/24 dev back1`,
        `address add ${lane.backs[1]}/24 dev back2`,
        ...up,
      ];
    case 'tap':
      // Port and spanning tree defaults: no STP, forwarding at once. tapvsd adds its TAPs to the two bridges.
      return [
        ...frontBridge(['front', ...legs]),
        'link add br-back type bridge forward_delay 0 stp_state 0',
        'link set back1 master br-back',
        'link set back2 master br-back',
        ...up,
        'link set br-back up',
      ];
    case 'packet':
      if (lane.forwarding === 'nat') return up;
      return [
        `link add name ${lane.frontDevice} type veth peer name port`,
        ...frontBridge(['front', ...legs, 'port']),
        ...up,
        `link set ${lane.frontDevice} up`,
        'link set port up',
      ];
  }
}

function frontBridge(ports: readonly string[]): string[] {
  return [
    'link add br-front type bridge forward_delay 0 stp_state 0',
    ...ports.map((port) => `link set ${port} master br-front`),
    'link set br-front up',
  ];
}

async function batch(namespace: string | null, lines: readonly string[]): Promise<void> {
  const at = namespace === null ? [] : ['-n', namespace];
  await run(['ip', ...at, '-batch', '-'], { input: lines.map((line) => `${line}\n`).join('') });
}

/** Removes the topology's namespaces, and with them every device. Never throws: what is not there is removed already. */
export async function removeTopology(prefix: string): Promise<void> {
  const ours = namespacesOf(prefix);
  await Promise.all(ours.map((ns) => run(['ip', 'netns', 'del', ns]).catch(() => '')));
}

/** Removes what a killed run left behind: namespaces whose process is no more. */
export async function removeStaleTopologies(): Promise<void> {
  const stale = new Set<string>();
  for (const name of namespacesOf(PREFIX)) {
    const pid = /^tvbench(\d+)-/.exec(name)?.[1];
    if (pid !== undefined && !isAlive(Number(pid))) stale.add(`${PREFIX}${pid}-`);
  }
  for (const prefix of stale) {
    for (const ns of namespacesOf(prefix)) {
      const pids = await run(['ip', 'netns', 'pids', ns]).catch(() => '');
      for (const pid of pids.split('\n').filter(Boolean)) process.kill(Number(pid), 'SIGKILL');
    }
    await removeTopology(prefix);
  }
}

function namespacesOf(prefix: string): string[] {
  try {
    return readdirSync('/run/netns').filter((name) => name.startsWith(prefix));
  } catch {
    return [];
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
