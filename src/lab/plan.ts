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
// Layout `one-arm` has no back network: the servers stand beside the client (10.0.1.11…) and hold the VIP on `lo`, as
// direct routing wants it. Nothing is made in the namespace of the caller, so labs with different prefixes do not meet.

export type LabKind = 'tap' | 'packet';
export type LabLayout = 'two-arm' | 'one-arm';

export interface LabOptions {
  /** Begins the name of each namespace: letters, digits and dashes, a dash last (`tv1-`). */
  readonly prefix: string;
  /** Real servers, 1…99; default 3. */
  readonly servers?: number;
  readonly kind?: LabKind;
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
}

/** One end of a veth pair. */
export interface VethEnd {
  readonly netns: string;
  readonly dev: string;
  readonly mac: string;
}

/** One thing to do, in order. All but `netns`, `sysctl` and `run` are rtnetlink requests in the namespace. */
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
);

export interface LabPlan {
  readonly prefix: string;
  readonly kind: LabKind;
  readonly layout: LabLayout;
  readonly mtu: number;
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

const PREFIX = /^[a-z][a-z0-9-]{0,15}-$/;

/** @throws RangeError when the prefix or the number of servers is not usable. */
export function labPlan(options: LabOptions): LabPlan {
  const { prefix, servers: count = 3, kind = 'tap', layout = 'two-arm', checksumOffload = true, mtu = 1500 } = options;
  checkPrefix(prefix);
  if (!Number.isInteger(count) || count < 1 || count > 99)
    throw new RangeError(`a lab has 1 to 99 servers, not ${count}`);
  const subnet = layout === 'one-arm' ? 1 : 2;
  const servers = Array.from({ length: count }, (_, i): LabServer => {
    const mac = `02:00:00:00:0${subnet}:${(i + 0x81).toString(16)}`;
    return { name: `rs${i + 1}`, netns: `${prefix}rs${i + 1}`, address: `10.0.${subnet}.${11 + i}`, mac };
  });
  const runDir = labRunDir(prefix);
  const plan: Omit<LabPlan, 'steps'> = {
    prefix,
    kind,
    layout,
    mtu,
    client: `${prefix}client`,
    director: `${prefix}director`,
    switch: kind === 'packet' ? `${prefix}switch` : null,
    servers,
    vip: LAB_VIP,
    runDir,
    configFile: `${runDir}/tapvs.yaml`,
    socket: `${runDir}/tapvs.sock`,
    logFile: `${runDir}/tapvsd.log`,
  };
  return { ...plan, steps: labSteps(plan, checksumOffload) };
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
  const { client, director, servers, layout, kind, mtu } = plan;
  const veth = (a: VethEnd, peer: VethEnd): LabStep => ({ do: 'veth', ...a, mtu, peer });
  const bridge = (netns: string, dev: string, mac: string): LabStep => ({ do: 'bridge', netns, dev, mac, mtu });
  const up = (netns: string, ...devs: string[]): LabStep[] => devs.map((dev) => ({ do: 'link', netns, dev }));
  const port = (netns: string, dev: string, master: string): LabStep => ({ do: 'link', netns, dev, master });
  const others = [client, director, ...(plan.switch === null ? [] : [plan.switch])];
  const namespaces = [...others, ...servers.map((server) => server.netns)];

  const steps: LabStep[] = [];
  for (const netns of namespaces) {
    steps.push({ do: 'netns', netns }, ...up(netns, 'lo'), { do: 'sysctl', netns, values: QUIET });
  }

  // Where the far ends of the veth pairs are, and which bridge they join there.
  const clientEnd: VethEnd = { netns: client, dev: 'eth0', mac: LAB_CLIENT_MAC };
  const pairs: LabStep[] = [];
  const links: LabStep[] = [];
  const serverSide = plan.switch ?? director;
  const serverBridge = plan.switch !== null ? 'br0' : layout === 'one-arm' ? 'br-front' : 'br-back';

  if (kind === 'tap') {
    links.push(bridge(director, 'br-front', '02:00:00:00:01:fe'));
    if (layout === 'two-arm') links.push(bridge(director, 'br-back', '02:00:00:00:02:fe'));
    pairs.push(veth(clientEnd, { netns: director, dev: 'client', mac: '02:00:00:00:01:f1' }));
    links.push(port(director, 'client', 'br-front'));
  } else {
    links.push(bridge(serverSide, 'br0', '02:00:00:00:02:fe'));
    const front: VethEnd = { netns: director, dev: 'front0', mac: '02:00:00:00:01:f0' };
    if (layout === 'two-arm') {
      const back: VethEnd = { netns: director, dev: 'back0', mac: '02:00:00:00:02:f0' };
      pairs.push(veth(clientEnd, front), veth({ netns: serverSide, dev: 'back0', mac: '02:00:00:00:02:f1' }, back));
      links.push(...up(director, 'front0', 'back0'), port(serverSide, 'back0', 'br0'));
    } else {
      pairs.push(veth(clientEnd, { netns: serverSide, dev: 'client', mac: '02:00:00:00:01:f1' }));
      pairs.push(veth({ netns: serverSide, dev: 'front0', mac: '02:00:00:00:01:f2' }, front));
      links.push(...up(director, 'front0'), port(serverSide, 'client', 'br0'), port(serverSide, 'front0', 'br0'));
    }
  }
  servers.forEach(({ netns, mac, name }, i) => {
    const far = { netns: serverSide, dev: name, mac: `02:00:00:00:02:${(i + 0x11).toString(16)}` };
    pairs.push(veth({ netns, dev: 'eth0', mac }, far));
    links.push(port(serverSide, name, serverBridge));
  });

  steps.push(...pairs, ...links, ...hostSteps(client, `${LAB_CLIENT_IP}/24`, LAB_FRONT_IP));
  for (const { netns, address } of servers) {
    steps.push(...hostSteps(netns, `${address}/24`, layout === 'one-arm' ? LAB_FRONT_IP : LAB_BACK_IP));
    if (layout !== 'one-arm') continue;
    // Direct routing: a server holds the VIP but must not answer ARP for it, nor announce it.
    steps.push({ do: 'address', netns, dev: 'lo', cidr: `${LAB_VIP}/32` });
    const values = { 'net.ipv4.conf.all.arp_ignore': 1, 'net.ipv4.conf.all.arp_announce': 2 };
    steps.push({ do: 'sysctl', netns, values });
  }
  if (!checksumOffload) {
    for (const netns of [client, ...servers.map((server) => server.netns)]) {
      steps.push({ do: 'run', netns, argv: ['ethtool', '-K', 'eth0', ...NO_OFFLOAD] });
    }
  }
  return steps;
}

function hostSteps(netns: string, cidr: string, gateway: string): LabStep[] {
  return [
    { do: 'address', netns, dev: 'eth0', cidr },
    { do: 'link', netns, dev: 'eth0' },
    { do: 'route', netns, to: 'default', via: gateway },
  ];
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

/** The lab's service: HTTP and echo on the VIP, round robin over all servers; NAT, or direct routing when one-armed. */
export function labServices(plan: LabPlan, scheduler = 'rr'): string {
  const method = plan.layout === 'one-arm' ? '-g' : '-m';
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
  const lines = ['devices:', ...device('front', LAB_FRONT_MAC, LAB_FRONT_IP)];
  if (plan.layout === 'two-arm') lines.push(...device('back', LAB_BACK_MAC, LAB_BACK_IP));
  if (host) {
    lines.push('  - name: host', '    kind: tun', '    host: true');
    lines.push(`    addresses: [${LAB_HOST_IP}/30]`, `    peer: ${LAB_KERNEL_IP}/30`);
  }
  lines.push(`addresses: [${plan.vip}/32]`, 'sysctl:', '  net.ipv4.ip_forward: 1');
  for (const [name, value] of Object.entries(sysctl)) {
    if (name !== 'net.ipv4.ip_forward') lines.push(`  ${name}: ${value}`);
  }
  const rules = ipvsadm.split('\n').filter((line) => line.trim() !== '');
  if (rules.length > 0) lines.push('ipvsadm: |', ...rules.map((rule) => `  ${rule}`));
  lines.push(`log: { level: ${logLevel} }`);
  return `${lines.join('\n')}\n${extra}`;
}
