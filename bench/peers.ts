/**
 * The peers: who balances between front and back of a lane, and how each is started. Each peer's configuration is what its
 * own documentation suggests for plain TCP (and UDP) balancing; nothing is slowed down on purpose.
 */
import { existsSync, writeFileSync } from 'node:fs';
import { get } from 'node:http';
import { join } from 'node:path';
import { filterTable, manyRules, nftRules, RULES, TRACKING_RULES } from './rules.ts';
import { type Daemon, run, startDaemon } from './run.ts';
import type { Forwarding, Lane, LaneKind } from './topology.ts';

export type PeerName =
  | 'direct'
  | 'nft'
  | 'nft_rules'
  | 'haproxy'
  | 'nginx'
  | 'tapvs'
  | 'tapvs_dr'
  | 'tapvs_ipip'
  | 'tapvs_ct'
  | 'tapvs_rules'
  | 'tapvs_packet'
  | 'tapvs_packet_dr'
  | 'tapvs_packet_ipip'
  | 'tapvs_packet_ct'
  | 'tapvs_packet_rules';

export interface Peer {
  readonly name: PeerName;
  readonly what: string;
  readonly kind: LaneKind;
  readonly forwarding: Forwarding;
  /** False where the peer cannot carry UDP: its figure is null. */
  readonly udp: boolean;
  /** False where the client itself addresses the servers. */
  readonly hasVip: boolean;
  /** What must exist, and how to get it. */
  readonly needs: readonly { readonly file: string; readonly hint: string }[];
  /** Starts it in its lane; the process that balances, or null when that is the kernel. */
  start(lane: Lane, directory: string): Promise<Daemon | null>;
}

const TCP_PORTS = [5001, 5002, 5003];
const UDP_PORT = 5004;
const ROOT = process.cwd();

const inLane = (lane: Lane, ...command: string[]): string[] => ['ip', 'netns', 'exec', lane.namespace, ...command];

const apt = (file: string, packages: string): { file: string; hint: string } => ({
  file,
  hint: `apt-get install ${packages}`,
});

/** @param rules of each chain, before the last that lets all pass */
function startNft(rules = 0): Peer['start'] {
  return async (lane) => {
    const [first, second] = lane.servers;
    const chains = ['input', 'forward'].map(
      (hook) => `  chain ${hook} {
    type filter hook ${hook} priority filter
${nftRules(rules)}  }
`,
    );
    const ruleset = `table ip bench {
  chain prerouting {
    type nat hook prerouting priority dstnat
    ip daddr ${lane.vip} dnat to numgen inc mod 2 map { 0 : ${first}, 1 : ${second} }
  }
${rules === 0 ? '' : chains.join('')}}
`;
    await run(inLane(lane, 'nft', '-f', '-'), { input: ruleset });
    return null;
  };
}

/** What stands in the filter table of a tapvs lane, as iptables-restore reads it; '' for nothing. */
const FILTERS: Readonly<Record<'none' | 'tracking' | 'rules', string>> = {
  none: '',
  tracking: filterTable(TRACKING_RULES),
  rules: filterTable(manyRules(RULES)),
};

async function startHaproxy(lane: Lane, directory: string): Promise<Daemon> {
  const file = join(directory, `haproxy-${lane.peer}.cfg`);
  const proxies = TCP_PORTS.map(
    (port) => `listen port${port}
  bind ${lane.vip}:${port}
  balance roundrobin
  server rs1 ${lane.servers[0]}:${port}
  server rs2 ${lane.servers[1]}:${port}
`,
  ).join('\n');
  writeFileSync(
    file,
    `global
  maxconn 4000
defaults
  mode tcp
  option splice-auto
  timeout connect 5s
  timeout client 60s
  timeout server 60s
${proxies}`,
  );
  const daemon = startDaemon('haproxy', inLane(lane, 'haproxy', '-db', '-f', file));
  await daemon.ready(() => listens(lane, TCP_PORTS.length));
  return daemon;
}

async function startNginx(lane: Lane, directory: string): Promise<Daemon> {
  const file = join(directory, `nginx-${lane.peer}.conf`);
  const module = '/usr/lib/nginx/modules/ngx_stream_module.so';
  const servers = [...TCP_PORTS, UDP_PORT]
    .map((port) => {
      const udp = port === UDP_PORT ? ' udp' : '';
      return `  upstream port${port} {
    server ${lane.servers[0]}:${port};
    server ${lane.servers[1]}:${port};
  }
  server {
    listen ${lane.vip}:${port}${udp} reuseport;
    proxy_pass port${port};
    proxy_timeout 60s;${udp ? '' : '\n    proxy_half_close on;'}
  }
`;
    })
    .join('');
  writeFileSync(
    file,
    `${existsSync(module) ? `load_module ${module};\n` : ''}daemon off;
pid ${join(directory, 'nginx.pid')};
error_log stderr error;
worker_processes auto;
events { worker_connections 4096; }
stream {
${servers}}
`,
  );
  const daemon = startDaemon('nginx', inLane(lane, 'nginx', '-c', file, '-p', directory));
  await daemon.ready(() => listens(lane, TCP_PORTS.length));
  return daemon;
}

/** True when the namespace has at least so many listening TCP sockets. */
async function listens(lane: Lane, count: number): Promise<boolean> {
  const out = await run(inLane(lane, 'ss', '-Hltn'));
  return out.trim().split('\n').filter(Boolean).length >= count;
}

/** The device entries of tapvsd's configuration file (architecture.md §6). */
function tapvsDevices(lane: Lane): string {
  if (lane.kind === 'tap') {
    return `  - { name: tap-front, kind: tap, bridge: br-front, addresses: [${lane.front}/24] }
  - { name: tap-back, kind: tap, bridge: br-back, addresses: [${lane.backs[0]}/24, ${lane.backs[1]}/24] }
`;
  }
  return `  - { name: front, kind: packet, interface: ${lane.frontDevice}, addresses: [${lane.front}/24] }
  - { name: back1, kind: packet, interface: back1, addresses: [${lane.backs[0]}/24] }
  - { name: back2, kind: packet, interface: back2, addresses: [${lane.backs[1]}/24] }
`;
}

/** ipvsadm's flag for each way of forwarding. */
const METHOD_FLAG: Readonly<Record<Forwarding, string>> = { nat: '-m', dr: '-g', ipip: '-i' };

/** tapvsd's configuration for a lane: the four services, two servers each, round robin. */
export function tapvsConfig(lane: Lane, isTracked = false): string {
  const method = METHOD_FLAG[lane.forwarding];
  const services = [...TCP_PORTS.map((port) => ['-t', port]), ['-u', UDP_PORT]]
    .map(
      ([flag, port]) => `  -A ${flag} ${lane.vip}:${port} -s rr
  -a ${flag} ${lane.vip}:${port} -r ${lane.servers[0]}:${port} ${method}
  -a ${flag} ${lane.vip}:${port} -r ${lane.servers[1]}:${port} ${method}
`,
    )
    .join('');
  return `devices:
${tapvsDevices(lane)}addresses: [${lane.vip}/32]
sysctl:
  net.ipv4.ip_forward: 1
${isTracked ? '  net.ipv4.vs.conntrack: 1\n' : ''}ipvsadm: |
${services}log: { level: warn }
`;
}

/** True once the daemon's API answers `GET /v1/status` with 200. */
function answersStatus(socketPath: string): Promise<boolean> {
  return new Promise((resolve) => {
    get({ socketPath, path: '/v1/status', timeout: 1000 }, (response) => {
      response.resume();
      resolve(response.statusCode === 200);
    }).on('error', () => resolve(false));
  });
}

const startTapvs =
  (filter: keyof typeof FILTERS = 'none'): Peer['start'] =>
  async (lane, directory) => {
    const file = join(directory, `${lane.peer}.yaml`);
    const socket = join(directory, `${lane.peer}.sock`);
    writeFileSync(file, tapvsConfig(lane, filter === 'tracking'));
    // BENCH_NODE_OPTIONS: profile the daemons alone, e.g. '--cpu-prof --cpu-prof-dir=/tmp/prof' (see docs/performance.md).
    const options = process.env.BENCH_NODE_OPTIONS;
    const daemon = startDaemon(
      lane.peer,
      inLane(lane, join(ROOT, 'bin/tapvsd'), '--config', file, '--socket', socket),
      options === undefined ? {} : { NODE_OPTIONS: options },
    );
    await daemon.ready(() => answersStatus(socket));
    if (FILTERS[filter] !== '') {
      await run([join(ROOT, 'bin/tapvs'), '--socket', socket, 'iptables-restore'], { input: FILTERS[filter] });
    }
    return daemon;
  };

const tapvsd = [{ file: join(ROOT, 'bin/tapvsd'), hint: 'scripts/build' }];

/** One kind of device: three ways of forwarding, and NAT with what rules cost. */
function tapvsPeers(name: 'tapvs' | 'tapvs_packet', kind: LaneKind, what: string): Peer[] {
  const common = { kind, udp: true, hasVip: true, needs: tapvsd, start: startTapvs() };
  return [
    { name, what: `${what}, NAT`, forwarding: 'nat', ...common },
    { name: `${name}_dr`, what: `${what}, direct routing: servers answer the client`, forwarding: 'dr', ...common },
    { name: `${name}_ipip`, what: `${what}, IPIP: servers answer the client`, forwarding: 'ipip', ...common },
    {
      ...common,
      name: `${name}_ct`,
      what: `${what}, NAT, all traffic tracked (vs.conntrack=1)`,
      forwarding: 'nat',
      start: startTapvs('tracking'),
    },
    {
      ...common,
      name: `${name}_rules`,
      what: `${what}, NAT, ${RULES} filter rules before the service`,
      forwarding: 'nat',
      start: startTapvs('rules'),
    },
  ];
}

export const PEERS: readonly Peer[] = [
  {
    name: 'direct',
    what: 'the kernel routes, the client picks the server',
    kind: 'kernel',
    forwarding: 'nat',
    udp: true,
    hasVip: false,
    needs: [],
    start: async () => null,
  },
  {
    name: 'nft',
    what: 'kernel nftables DNAT, numgen over two servers',
    kind: 'kernel',
    forwarding: 'nat',
    udp: true,
    hasVip: true,
    needs: [apt('/usr/sbin/nft', 'nftables')],
    start: startNft(),
  },
  {
    name: 'nft_rules',
    what: `the same with ${RULES} filter rules in input and forward`,
    kind: 'kernel',
    forwarding: 'nat',
    udp: true,
    hasVip: true,
    needs: [apt('/usr/sbin/nft', 'nftables')],
    start: startNft(RULES),
  },
  {
    name: 'haproxy',
    what: 'HAProxy, mode tcp',
    kind: 'kernel',
    forwarding: 'nat',
    udp: false,
    hasVip: true,
    needs: [apt('/usr/sbin/haproxy', 'haproxy')],
    start: startHaproxy,
  },
  {
    name: 'nginx',
    what: 'nginx, stream module',
    kind: 'kernel',
    forwarding: 'nat',
    udp: true,
    hasVip: true,
    needs: [apt('/usr/sbin/nginx', 'nginx libnginx-mod-stream')],
    start: startNginx,
  },
  ...tapvsPeers('tapvs', 'tap', 'tapvs on TAP devices in two bridges'),
  ...tapvsPeers('tapvs_packet', 'packet', 'tapvs on packet devices (AF_PACKET on the veth ends)'),
];
