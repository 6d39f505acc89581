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

/** One thing to do, in order. */
export type LabStep =
  | { readonly do: 'netns'; readonly netns: string }
  | { readonly do: 'sysctl'; readonly netns: string; readonly values: Readonly<Record<string, number>> }
  | { readonly do: 'ip'; readonly netns: string | null; readonly lines: readonly string[] }
  | { readonly do: 'run'; readonly netns: string; readonly argv: readonly string[] };

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
  switch (step.do) {
    case 'netns':
      return [`ip netns add ${step.netns}`, `ip -n ${step.netns} link set lo up`];
    case 'sysctl':
      return Object.entries(step.values).map(([k, v]) => `ip netns exec ${step.netns} sysctl -q -w ${k}=${v}`);
    case 'ip':
      return step.lines.map((line) => (step.netns === null ? `ip ${line}` : `ip -n ${step.netns} ${line}`));
    case 'run':
      return [`ip netns exec ${step.netns} ${step.argv.join(' ')}`];
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

interface Cable {
  readonly netns: string;
  readonly dev: string;
  readonly mac: string;
}

function labSteps(plan: Omit<LabPlan, 'steps'>, checksumOffload: boolean): LabStep[] {
  const { client, director, servers, layout, kind, mtu } = plan;
  const end = ({ netns, dev, mac }: Cable): string => `${dev} netns ${netns} address ${mac} mtu ${mtu}`;
  const cable = (a: Cable, b: Cable): string => `link add ${end(a)} type veth peer name ${end(b)}`;
  const bridge = (dev: string, mac: string): string =>
    `link add ${dev} address ${mac} mtu ${mtu} up type bridge forward_delay 0 stp_state 0 mcast_snooping 0`;
  const port = (dev: string, bridgeName: string): string => `link set ${dev} master ${bridgeName} up`;
  const others = [client, director, ...(plan.switch === null ? [] : [plan.switch])];
  const namespaces = [...others, ...servers.map((server) => server.netns)];

  const steps: LabStep[] = [];
  for (const netns of namespaces) steps.push({ do: 'netns', netns }, { do: 'sysctl', netns, values: QUIET });

  // Where the far ends of the cables are, and which bridge they join there.
  const clientEnd: Cable = { netns: client, dev: 'eth0', mac: LAB_CLIENT_MAC };
  const cables: string[] = [];
  const inDirector: string[] = [];
  const inSwitch: string[] = [];
  const serverSide = plan.switch ?? director;
  const serverLines = plan.switch === null ? inDirector : inSwitch;
  const serverBridge = plan.switch !== null ? 'br0' : layout === 'one-arm' ? 'br-front' : 'br-back';

  if (kind === 'tap') {
    inDirector.push(bridge('br-front', '02:00:00:00:01:fe'));
    if (layout === 'two-arm') inDirector.push(bridge('br-back', '02:00:00:00:02:fe'));
    cables.push(cable(clientEnd, { netns: director, dev: 'client', mac: '02:00:00:00:01:f1' }));
    inDirector.push(port('client', 'br-front'));
  } else {
    inSwitch.push(bridge('br0', '02:00:00:00:02:fe'));
    if (layout === 'two-arm') {
      cables.push(cable(clientEnd, { netns: director, dev: 'front0', mac: '02:00:00:00:01:f0' }));
      cables.push(cable({ netns: serverSide, dev: 'back0', mac: '02:00:00:00:02:f1' }, backEnd(director)));
      inDirector.push('link set front0 up', 'link set back0 up');
      inSwitch.push(port('back0', 'br0'));
    } else {
      cables.push(cable(clientEnd, { netns: serverSide, dev: 'client', mac: '02:00:00:00:01:f1' }));
      cables.push(cable({ netns: serverSide, dev: 'front0', mac: '02:00:00:00:01:f2' }, frontEnd(director)));
      inDirector.push('link set front0 up');
      inSwitch.push(port('client', 'br0'), port('front0', 'br0'));
    }
  }
  servers.forEach(({ netns, mac, name }, i) => {
    const far = { netns: serverSide, dev: name, mac: `02:00:00:00:02:${(i + 0x11).toString(16)}` };
    cables.push(cable({ netns, dev: 'eth0', mac }, far));
    serverLines.push(port(name, serverBridge));
  });

  steps.push({ do: 'ip', netns: null, lines: cables });
  if (plan.switch !== null) steps.push({ do: 'ip', netns: plan.switch, lines: inSwitch });
  steps.push({ do: 'ip', netns: director, lines: inDirector });
  steps.push({ do: 'ip', netns: client, lines: hostLines(`${LAB_CLIENT_IP}/24`, LAB_FRONT_IP) });
  for (const { netns, address } of servers) {
    const lines = hostLines(`${address}/24`, layout === 'one-arm' ? LAB_FRONT_IP : LAB_BACK_IP);
    if (layout === 'one-arm') lines.push(`address add ${LAB_VIP}/32 dev lo`);
    steps.push({ do: 'ip', netns, lines });
    // Direct routing: a server holds the VIP but must not answer ARP for it, nor announce it.
    const values = { 'net.ipv4.conf.all.arp_ignore': 1, 'net.ipv4.conf.all.arp_announce': 2 };
    if (layout === 'one-arm') steps.push({ do: 'sysctl', netns, values });
  }
  if (!checksumOffload) {
    for (const netns of [client, ...servers.map((server) => server.netns)]) {
      steps.push({ do: 'run', netns, argv: ['ethtool', '-K', 'eth0', ...NO_OFFLOAD] });
    }
  }
  return steps;
}

const frontEnd = (netns: string): Cable => ({ netns, dev: 'front0', mac: '02:00:00:00:01:f0' });
const backEnd = (netns: string): Cable => ({ netns, dev: 'back0', mac: '02:00:00:00:02:f0' });

function hostLines(cidr: string, gateway: string): string[] {
  return [`address add ${cidr} dev eth0`, 'link set eth0 up', `route add default via ${gateway}`];
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
