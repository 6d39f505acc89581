// The lab as data: which namespaces, devices, addresses and switches, and the configuration of the daemon in its middle.
//
// kind `tap`                                           kind `packet`
//
//   <p>client   eth0 10.0.1.2/24                         <p>client   eth0 10.0.1.2/24
//                │ veth                                               │ veth
//   <p>director  client ─ br-front ─ TAP front           <p>director  front0 ─ AF_PACKET
//                                    tapvsd                                    tapvsd
//                rs1… ─── br-back ── TAP back                         back0 ── AF_PACKET
//                │ veth                                               │ veth
//   <p>rs1…      eth0 10.0.2.11/24…                      <p>switch    back0 ─ br0 ─ rs1…
//                                                                     │ veth
//                                                        <p>rs1…      eth0 10.0.2.11/24…
//
// Layouts, and the forwarding method that each is made for:
//   two-arm   nat   as drawn: servers on the back network, default route through tapvs
//   one-arm   dr    no back network: the servers stand beside the client (10.0.1.11…)
//   two-leg   tun   as two-arm, and each server has a second leg on the front network, to answer clients directly
//   classic   any   the textbook's: the client has a leg on both networks, and the director's VIP is its front address
//                     client 192.168.2.254 ── VIP 192.168.2.110 tapvs DIP 192.168.1.9 ── RIP 192.168.1.2…
//                            192.168.1.254 ──────────────────────────────────────────── the way back of dr and tun
//
// scripts/realserver makes real servers of the server namespaces, scripts/director prepares the director's. Nothing is
// made in the namespace of the caller, so labs with different prefixes do not meet.

export type LabMethod = 'nat' | 'dr' | 'tun';
export type LabKind = 'tap' | 'packet';
export type LabLayout = 'two-arm' | 'one-arm' | 'two-leg' | 'classic';

export interface LabOptions {
  /** Begins the name of each namespace: letters, digits and dashes, a dash last (`tv1-`). */
  readonly prefix: string;
  /** Real servers, 1…99; default 3. */
  readonly servers?: number;
  readonly kind?: LabKind;
  /** Default: the one that the layout is made for; nat for two-arm, dr for classic. */
  readonly method?: LabMethod;
  /** Default: the one made for the method. */
  readonly layout?: LabLayout;
  /** Default true. False: client and servers finish checksums and segments themselves, so that captures show them. */
  readonly checksumOffload?: boolean;
  /** MTU of every segment; default 1500. */
  readonly mtu?: number;
}

export interface LabServer {
  /** rs1, rs2, … */
  readonly name: string;
  readonly netns: string;
  readonly address: string;
  readonly mac: string;
  /** Its second leg (layout two-leg), on the front network. */
  readonly front: { readonly address: string; readonly mac: string } | null;
}

/** Who has which address. */
interface LabAddresses {
  readonly client: string;
  /** tapvs's own address on the front network: the VIP in layout classic. */
  readonly front: string;
  /** tapvs's own address on the back network; null when there is none. */
  readonly back: string | null;
  readonly vip: string;
}

/** One end of a veth pair. */
export interface VethEnd {
  readonly netns: string;
  readonly dev: string;
  readonly mac: string;
}

/** One thing to do, in order. All but `netns`, `sysctl`, `run` and `script` are rtnetlink requests in the namespace. */
export type LabStep = { readonly netns: string } & (
  | { readonly do: 'netns' }
  | { readonly do: 'sysctl'; readonly values: Readonly<Record<string, number>> }
  | { readonly do: 'veth'; readonly dev: string; readonly mac: string; readonly mtu: number; readonly peer: VethEnd }
  /** A bridge that forwards at once (rtnl.ts createBridge), up. */
  | { readonly do: 'bridge'; readonly dev: string; readonly mac: string; readonly mtu: number }
  /** Sets the link up, as a port of `master` when it names one. */
  | { readonly do: 'link'; readonly dev: string; readonly master?: string }
  | { readonly do: 'address'; readonly dev: string; readonly cidr: string }
  | { readonly do: 'route'; readonly to: string; readonly via: string }
  | { readonly do: 'run'; readonly argv: readonly string[] }
  /** A script of the checkout's scripts/: its name and words. */
  | { readonly do: 'script'; readonly argv: readonly string[] }
);

export interface LabPlan {
  readonly prefix: string;
  readonly kind: LabKind;
  readonly method: LabMethod;
  readonly layout: LabLayout;
  readonly mtu: number;
  readonly addresses: LabAddresses;
  readonly client: string;
  readonly director: string;
  /** The namespace of the servers' bridge (kind `packet`), else null. */
  readonly switch: string | null;
  readonly servers: readonly LabServer[];
  readonly vip: string;
  readonly runDir: string;
  readonly configFile: string;
  readonly socket: string;
  /** What the daemon says, of all its starts. */
  readonly logFile: string;
  readonly steps: readonly LabStep[];
}

export const LAB_CLIENT_IP = '10.0.1.2';
export const LAB_VIP = '10.0.1.100';
export const LAB_FRONT_IP = '10.0.1.1';
export const LAB_BACK_IP = '10.0.2.1';
/** tapvs's own MACs. */
export const LAB_FRONT_MAC = '02:00:00:00:01:01';
export const LAB_BACK_MAC = '02:00:00:00:02:01';
export const LAB_CLIENT_MAC = '02:00:00:00:01:02';
/** The host port: tapvs's side and the kernel's side of the TUN. */
export const LAB_HOST_IP = '10.0.3.1';
export const LAB_KERNEL_IP = '10.0.3.2';
/** HTTP (TCP) and the echo (UDP) of each server. */
export const LAB_HTTP_PORT = 80;
export const LAB_ECHO_PORT = 7;

const LAYOUT_OF: Readonly<Record<LabMethod, LabLayout>> = { nat: 'two-arm', dr: 'one-arm', tun: 'two-leg' };
const METHOD_OF: Readonly<Record<LabLayout, LabMethod>> = {
  'two-arm': 'nat',
  'one-arm': 'dr',
  'two-leg': 'tun',
  classic: 'dr',
};
const CLASSIC_ROUTER = '192.168.1.254';

const PREFIX = /^[a-z][a-z0-9-]{0,15}-$/;

/** @throws RangeError when the prefix or the number of servers is not usable. */
export function labPlan(options: LabOptions): LabPlan {
  const { prefix, servers: count = 3, kind = 'tap', checksumOffload = true, mtu = 1500 } = options;
  checkPrefix(prefix);
  if (!Number.isInteger(count) || count < 1 || count > 99)
    throw new RangeError(`a lab has 1 to 99 servers, not ${count}`);
  const layout = options.layout ?? LAYOUT_OF[options.method ?? 'nat'];
  const method = options.method ?? METHOD_OF[layout];
  if (layout === 'one-arm' && method === 'nat')
    throw new RangeError(
      'a lab of layout one-arm cannot do nat: the servers would answer the client past the director',
    );
  if (layout === 'two-arm' && method === 'dr')
    throw new RangeError(
      'a lab of layout two-arm cannot do dr: the servers have no way to the client but the director',
    );
  if (layout === 'two-arm' && method === 'tun')
    throw new RangeError(
      'a lab of layout two-arm cannot do tun: the servers have no way to the client but the director',
    );
  const servers = Array.from({ length: count }, (_, i) => labServer(prefix, layout, i));
  const runDir = labRunDir(prefix);
  const plan: Omit<LabPlan, 'steps'> = {
    prefix,
    kind,
    method,
    layout,
    mtu,
    addresses: labAddresses(layout),
    client: `${prefix}client`,
    director: `${prefix}director`,
    switch: kind === 'packet' ? `${prefix}switch` : null,
    servers,
    vip: labAddresses(layout).vip,
    runDir,
    configFile: `${runDir}/tapvs.yaml`,
    socket: `${runDir}/tapvs.sock`,
    logFile: `${runDir}/tapvsd.log`,
  };
  return { ...plan, steps: labSteps(plan, checksumOffload) };
}

function labAddresses(layout: LabLayout): LabAddresses {
  if (layout === 'classic')
    return { client: '192.168.2.254', front: '192.168.2.110', back: '192.168.1.9', vip: '192.168.2.110' };
  return { client: LAB_CLIENT_IP, front: LAB_FRONT_IP, back: layout === 'one-arm' ? null : LAB_BACK_IP, vip: LAB_VIP };
}

function labServer(prefix: string, layout: LabLayout, i: number): LabServer {
  const last = (i + 0x81).toString(16);
  const name = `rs${i + 1}`;
  // On the front network .100 is the VIP's.
  const front = { address: `10.0.1.${11 + i < 100 ? 11 + i : 12 + i}`, mac: `02:00:00:00:01:${last}` };
  const base = { name, netns: `${prefix}${name}`, mac: `02:00:00:00:02:${last}`, front: null };
  switch (layout) {
    case 'one-arm':
      return { ...base, ...front };
    case 'two-leg':
      return { ...base, address: `10.0.2.${11 + i}`, front };
    case 'two-arm':
      return { ...base, address: `10.0.2.${11 + i}` };
    case 'classic': // .9 is the director's
      return { ...base, address: `192.168.1.${i < 7 ? 2 + i : 3 + i}` };
  }
}

/** @throws RangeError; a prefix must never match what is not the lab's. */
export function checkPrefix(prefix: string): void {
  if (!PREFIX.test(prefix))
    throw new RangeError(`'${prefix}' is no prefix for a lab: use letters, digits, and a dash last`);
}

export function labRunDir(prefix: string): string {
  return `/run/tapvs-lab-${prefix}`;
}

/** Whether a namespace is one of the lab's. */
export function isLabNetns(prefix: string, name: string): boolean {
  return name.startsWith(prefix) && /^(client|director|switch|rs\d+)$/.test(name.slice(prefix.length));
}

/** The plan as shell commands, for people. */
export function formatPlan(plan: LabPlan): string {
  return `${plan.steps.flatMap(commands).join('\n')}\n`;
}

function commands(step: LabStep): string[] {
  const { netns } = step;
  const end = (e: VethEnd, mtu: number): string => `${e.dev} netns ${e.netns} address ${e.mac} mtu ${mtu}`;
  switch (step.do) {
    case 'netns':
      return [`ip netns add ${netns}`];
    case 'sysctl':
      return Object.entries(step.values).map(([k, v]) => `ip netns exec ${netns} sysctl -q -w ${k}=${v}`);
    case 'veth':
      return [`ip link add ${end(step, step.mtu)} type veth peer name ${end(step.peer, step.mtu)}`];
    case 'bridge': {
      const kind = 'type bridge forward_delay 0 stp_state 0 mcast_snooping 0';
      return [`ip -n ${netns} link add ${step.dev} address ${step.mac} mtu ${step.mtu} up ${kind}`];
    }
    case 'link':
      return [`ip -n ${netns} link set ${step.dev}${step.master === undefined ? '' : ` master ${step.master}`} up`];
    case 'address':
      return [`ip -n ${netns} address add ${step.cidr} dev ${step.dev}`];
    case 'route':
      return [`ip -n ${netns} route add ${step.to} via ${step.via}`];
    case 'run':
      return [`ip netns exec ${netns} ${step.argv.join(' ')}`];
    case 'script':
      return [`ip netns exec ${netns} scripts/${step.argv.join(' ')}`];
  }
}

// ---------------------------------------------------------------------------------------------------------------------

/** No router solicitations or DAD in captures; no reverse-path filter anywhere. */
const QUIET = {
  'net.ipv6.conf.all.disable_ipv6': 1,
  'net.ipv6.conf.default.disable_ipv6': 1,
  'net.ipv4.conf.all.rp_filter': 0,
  'net.ipv4.conf.default.rp_filter': 0,
};
const NO_OFFLOAD = ['tx', 'off', 'rx', 'off', 'tso', 'off', 'gso', 'off', 'gro', 'off'];

function labSteps(plan: Omit<LabPlan, 'steps'>, checksumOffload: boolean): LabStep[] {
  const { client, director, servers, layout, kind, mtu, addresses } = plan;
  const veth = (a: VethEnd, peer: VethEnd): LabStep => ({ do: 'veth', ...a, mtu, peer });
  const others = [client, director, ...(plan.switch === null ? [] : [plan.switch])];
  const namespaces = [...others, ...servers.map((server) => server.netns)];

  const steps: LabStep[] = [];
  for (const netns of namespaces) {
    steps.push({ do: 'netns', netns }, { do: 'link', netns, dev: 'lo' }, { do: 'sysctl', netns, values: QUIET });
  }

  // The bridges lie in the director's namespace, or, for packet devices, in one of their own. There the front network
  // needs no bridge while the client is alone on it.
  const hub = plan.switch ?? director;
  const frontBridge = kind === 'tap' ? 'br-front' : layout === 'one-arm' ? 'br0' : layout === 'two-leg' ? 'br1' : null;
  const backBridge = layout === 'one-arm' ? null : kind === 'tap' ? 'br-back' : 'br0';
  const pairs: LabStep[] = [];
  const links: LabStep[] = [];
  const bridge = (dev: string | null, mac: string): void => {
    if (dev !== null) links.push({ do: 'bridge', netns: hub, dev, mac, mtu });
  };
  /** A cable from a host to a bridge of the hub. */
  const plug = (a: VethEnd, dev: string, mac: string, master: string): void => {
    pairs.push(veth(a, { netns: hub, dev, mac }));
    links.push({ do: 'link', netns: hub, dev, master });
  };
  bridge(frontBridge, '02:00:00:00:01:fe');
  bridge(backBridge, '02:00:00:00:02:fe');

  const clientEnd: VethEnd = { netns: client, dev: 'eth0', mac: LAB_CLIENT_MAC };
  const frontEnd: VethEnd = { netns: director, dev: 'front0', mac: '02:00:00:00:01:f0' };
  const backEnd: VethEnd = { netns: director, dev: 'back0', mac: '02:00:00:00:02:f0' };
  if (frontBridge === null) pairs.push(veth(clientEnd, frontEnd));
  else {
    plug(clientEnd, 'client', '02:00:00:00:01:f1', frontBridge);
    if (kind === 'packet') plug(frontEnd, 'front0', '02:00:00:00:01:f2', frontBridge);
  }
  if (kind === 'packet') {
    if (backBridge !== null) plug(backEnd, 'back0', '02:00:00:00:02:f1', backBridge);
  }
  if (layout === 'classic' && backBridge !== null)
    plug({ netns: client, dev: 'eth1', mac: '02:00:00:00:02:02' }, 'client1', '02:00:00:00:02:f2', backBridge);
  servers.forEach(({ netns, mac, name, front }, i) => {
    const last = (i + 0x11).toString(16);
    plug({ netns, dev: 'eth0', mac }, name, `02:00:00:00:02:${last}`, backBridge ?? frontBridge!);
    if (front !== null)
      plug({ netns, dev: 'eth1', mac: front.mac }, `${name}-front`, `02:00:00:00:01:${last}`, frontBridge!);
  });

  steps.push(...pairs, ...links, ...hostSteps(client, 'eth0', addresses.client));
  if (layout === 'classic') steps.push(...hostSteps(client, 'eth1', CLASSIC_ROUTER));
  else steps.push({ do: 'route', netns: client, to: 'default', via: addresses.front });
  for (const { netns, address, front } of servers) {
    steps.push(...hostSteps(netns, 'eth0', address));
    if (front !== null) steps.push(...hostSteps(netns, 'eth1', front.address));
    if (layout === 'classic' && plan.method !== 'nat')
      steps.push({ do: 'route', netns, to: 'default', via: CLASSIC_ROUTER });
  }
  if (!checksumOffload) {
    for (const netns of [client, ...servers.map((server) => server.netns)]) {
      steps.push({ do: 'run', netns, argv: ['ethtool', '-K', 'eth0', ...NO_OFFLOAD] });
    }
    for (const { netns, front } of servers) {
      if (front !== null) steps.push({ do: 'run', netns, argv: ['ethtool', '-K', 'eth1', ...NO_OFFLOAD] });
    }
    if (layout === 'classic') steps.push({ do: 'run', netns: client, argv: ['ethtool', '-K', 'eth1', ...NO_OFFLOAD] });
  }
  steps.push({ do: 'script', netns: director, argv: ['director', 'start', ...directorWords(plan)] });
  for (const { netns } of servers) {
    steps.push({ do: 'script', netns, argv: ['realserver', 'start', ...realserverWords(plan)] });
  }
  return steps;
}

function hostSteps(netns: string, dev: string, address: string): LabStep[] {
  return [
    { do: 'address', netns, dev, cidr: `${address}/24` },
    { do: 'link', netns, dev },
  ];
}

function directorWords({ method, kind, addresses, vip, runDir }: Omit<LabPlan, 'steps'>): string[] {
  const names = addresses.back === null ? ['front'] : ['front', 'back'];
  const devices = names.flatMap((name) => (kind === 'tap' ? ['--bridge', `br-${name}`] : ['--interface', `${name}0`]));
  return ['--method', method, ...devices, '--state-dir', runDir, vip];
}

function realserverWords({ method, addresses, vip, runDir }: Omit<LabPlan, 'steps'>): string[] {
  const way = method === 'nat' ? ['--director', addresses.back ?? addresses.front] : [];
  return ['--method', method, ...way, '--state-dir', runDir, vip];
}

// ---------------------------------------------------------------------------------------------------------------------

export interface LabConfigOptions {
  /** Replaces the service of the lab: lines of `ipvsadm -R`. */
  readonly ipvsadm?: string;
  readonly sysctl?: Readonly<Record<string, number | string>>;
  /** Further top-level YAML, appended as it is. */
  readonly extra?: string;
  /** False: no host port. */
  readonly host?: boolean;
  readonly logLevel?: string;
}

/** The lab's service: HTTP and echo on the VIP, round robin over all servers, by the lab's method. */
export function labServices(plan: LabPlan, scheduler = 'rr'): string {
  const method = { nat: '-m', dr: '-g', tun: '-i' }[plan.method];
  const services = [`-t ${plan.vip}:${LAB_HTTP_PORT}`, `-u ${plan.vip}:${LAB_ECHO_PORT}`];
  const lines = services.flatMap((service) => [
    `-A ${service} -s ${scheduler}`,
    ...plan.servers.map(({ address }) => `-a ${service} -r ${address}:${service.split(':')[1]} ${method} -w 1`),
  ]);
  return `${lines.join('\n')}\n`;
}

/** The daemon's configuration file for this lab (architecture.md §6). */
export function labConfig(plan: LabPlan, options: LabConfigOptions = {}): string {
  const { sysctl = {}, extra = '', host = true, logLevel = 'info' } = options;
  const ipvsadm = options.ipvsadm ?? labServices(plan);
  const device = (name: 'front' | 'back', mac: string, address: string): string[] => [
    `  - name: ${name}`,
    `    kind: ${plan.kind}`,
    plan.kind === 'tap' ? `    bridge: br-${name}` : `    interface: ${name}0`,
    `    mac: ${mac}`,
    `    mtu: ${plan.mtu}`,
    `    addresses: [${address}/24]`,
  ];
  const { front, back } = plan.addresses;
  const lines = ['devices:', ...device('front', LAB_FRONT_MAC, front)];
  if (back !== null) lines.push(...device('back', LAB_BACK_MAC, back));
  if (host) {
    lines.push('  - name: host', '    kind: tun', '    host: true');
    lines.push(`    addresses: [${LAB_HOST_IP}/30]`, `    peer: ${LAB_KERNEL_IP}/30`);
  }
  if (plan.vip !== front) lines.push(`addresses: [${plan.vip}/32]`);
  lines.push('sysctl:', '  net.ipv4.ip_forward: 1');
  for (const [name, value] of Object.entries(sysctl)) {
    if (name !== 'net.ipv4.ip_forward') lines.push(`  ${name}: ${value}`);
  }
  const rules = ipvsadm.split('\n').filter((line) => line.trim() !== '');
  if (rules.length > 0) lines.push('ipvsadm: |', ...rules.map((rule) => `  ${rule}`));
  lines.push(`log: { level: ${logLevel} }`);
  return `${lines.join('\n')}\n${extra}`;
}
