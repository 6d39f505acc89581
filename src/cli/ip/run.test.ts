/** Forms and complaints of iproute2 6.1 for the same objects, without what tapvsd has none of (qdisc, queue length, IPv6). */
import { rmSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { AddressRow, IpCommand, LinkRow, NeighbourRow, RouteRow } from '../../model/ip.ts';
import { ApiClient } from '../client.ts';
import { CliError } from '../command.ts';
import { ip } from './run.ts';

const stats = { rxPackets: 1, rxBytes: 90, rxDropped: 0, txPackets: 2, txBytes: 180, txErrors: 0, txDropped: 0 };
const LINKS: readonly LinkRow[] = [
  { index: 1, name: 'lo', kind: 'loopback', mtu: 65536, up: true, stats },
  { index: 3, name: 'd0', kind: 'tap', mtu: 1400, mac: '02:00:00:00:01:01', up: true, stats },
  { index: 4, name: 't0', kind: 'tun', mtu: 1500, up: false, stats },
];
const ADDRESSES: readonly AddressRow[] = [
  { device: 'lo', address: '10.9.9.9', prefixLength: 32, scope: 'global' },
  { device: 'd0', address: '10.0.3.1', prefixLength: 30, scope: 'link' },
  { device: 'd0', address: '10.0.1.2', prefixLength: 24, broadcast: '10.0.1.255', scope: 'global' },
];
const route = (row: Partial<RouteRow> & { readonly to: string }): RouteRow => ({
  metric: 0,
  type: 'unicast',
  protocol: 'boot',
  scope: 'global',
  device: 'd0',
  ...row,
});
const ROUTES: readonly RouteRow[] = [
  route({ to: '10.11.0.0/16', via: '10.0.1.3', protocol: 'static' }),
  route({ to: '10.8.1.0/24', type: 'prohibit', device: 'lo' }),
  route({ to: '10.8.0.0/16', type: 'blackhole', device: 'lo', metric: 5 }),
  route({ to: '10.7.0.1', scope: 'link', source: '10.0.1.2' }),
  route({ to: '10.6.0.0/16', type: 'unreachable', device: 'lo' }),
  route({ to: '10.5.0.0/16', via: '10.0.1.3', metric: 10 }),
  route({ to: '10.0.1.0/24', protocol: 'kernel', scope: 'link', source: '10.0.1.1' }),
  route({ to: '10.0.1.1', type: 'local', protocol: 'kernel', scope: 'host', source: '10.0.1.1' }),
  route({ to: '10.0.1.255', type: 'broadcast', protocol: 'kernel', scope: 'link', source: '10.0.1.1' }),
  route({ to: 'default', via: '10.0.1.254' }),
];
const NEIGHBOURS: readonly NeighbourRow[] = [
  { device: 'd0', address: '10.0.1.51', mac: '02:00:00:00:00:51', state: 'STALE' },
  { device: 'd0', address: '10.0.1.50', mac: '02:00:00:00:00:50', state: 'PERMANENT' },
  { device: 'd0', address: '10.0.1.52', state: 'FAILED' },
];

const path = join(tmpdir(), `tapvs-ip-test-${process.pid}.sock`);
const client = new ApiClient(path);
let server: Server;
/** What the daemon was told, and what it answers to that. */
let told: IpCommand[] = [];
let answer: string | null = null;

beforeAll(async () => {
  const lists: Record<string, unknown> = {
    '/v1/ip/links': LINKS,
    '/v1/ip/addresses': ADDRESSES,
    '/v1/ip/routes': ROUTES,
    '/v1/ip/neighbours': NEIGHBOURS,
  };
  server = createServer(async (request, response) => {
    if (request.method === 'GET') {
      response.end(JSON.stringify(lists[request.url ?? '']));
      return;
    }
    let body = '';
    for await (const chunk of request) body += chunk;
    const { commands } = JSON.parse(body) as { commands: IpCommand[] };
    told.push(...commands);
    response.end(JSON.stringify({ results: commands.map(() => answer) }));
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
});

afterAll(async () => {
  client.close();
  await new Promise((resolve) => server.close(resolve));
  rmSync(path, { force: true });
});

beforeEach(() => {
  told = [];
  answer = null;
});

/** What `ip WORDS` prints; a failure as `status: message`. */
async function run(words: string): Promise<string> {
  let text = '';
  const out = (more: string | Uint8Array) => {
    text += String(more);
  };
  try {
    const args = words.split(' ').filter((word) => word !== '');
    const status = await ip.run(args, { program: 'ip', client, stdin: Readable.from([]), out, err: out });
    expect(status).toBe(0);
    return text;
  } catch (error) {
    if (error instanceof CliError) return `${error.exit}: ${error.message}`;
    throw error;
  }
}

describe('ip address', () => {
  it('prints devices with their addresses', async () => {
    expect(await run('addr')).toBe(
      `1: lo: <LOOPBACK,UP,LOWER_UP> mtu 65536 state UNKNOWN group default${' '}
    link/loopback 00:00:00:00:00:00 brd 00:00:00:00:00:00
    inet 10.9.9.9/32 scope global lo
       valid_lft forever preferred_lft forever
3: d0: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1400 state UP group default${' '}
    link/ether 02:00:00:00:01:01 brd ff:ff:ff:ff:ff:ff
    inet 10.0.3.1/30 scope link d0
       valid_lft forever preferred_lft forever
    inet 10.0.1.2/24 brd 10.0.1.255 scope global d0
       valid_lft forever preferred_lft forever
4: t0: <POINTOPOINT,MULTICAST,NOARP> mtu 1500 state DOWN group default${' '}
    link/none${' '}
`,
    );
    expect(await run('-o a s d0')).toBe(
      '3: d0    inet 10.0.3.1/30 scope link d0\\       valid_lft forever preferred_lft forever\n' +
        '3: d0    inet 10.0.1.2/24 brd 10.0.1.255 scope global d0\\       valid_lft forever preferred_lft forever\n',
    );
    expect(await run('-br address')).toBe(
      `lo               UNKNOWN        10.9.9.9/32${' '}
d0               UP             10.0.3.1/30 10.0.1.2/24${' '}
t0               DOWN${' '.repeat(11)}
`,
    );
    expect(await run('addr show to 10.0.1.0/24 up')).not.toContain('10.0.3.1');
    expect(await run('-6 addr')).toBe('');
  });

  it('prints JSON', async () => {
    expect(JSON.parse(await run('-j addr show d0'))).toEqual([
      {
        ifindex: 3,
        ifname: 'd0',
        flags: ['BROADCAST', 'MULTICAST', 'UP', 'LOWER_UP'],
        mtu: 1400,
        operstate: 'UP',
        group: 'default',
        link_type: 'ether',
        address: '02:00:00:00:01:01',
        broadcast: 'ff:ff:ff:ff:ff:ff',
        addr_info: [
          expect.objectContaining({ family: 'inet', local: '10.0.3.1', prefixlen: 30, scope: 'link', label: 'd0' }),
          expect.objectContaining({ local: '10.0.1.2', broadcast: '10.0.1.255' }),
        ],
      },
    ]);
  });

  it('changes what it is told', async () => {
    await run('addr add 10.0.1.5/24 brd + dev d0');
    await run('a a 10.0.1.6 dev d0');
    await run('addr del local 10.0.1.2/24 dev d0');
    await run('addr flush dev d0');
    expect(told).toEqual([
      { op: 'addr-add', device: 'd0', address: '10.0.1.5', prefixLength: 24 },
      { op: 'addr-add', device: 'd0', address: '10.0.1.6', prefixLength: 32 },
      { op: 'addr-del', device: 'd0', address: '10.0.1.2', prefixLength: 24 },
      { op: 'addr-del', device: 'd0', address: '10.0.3.1', prefixLength: 30 },
      { op: 'addr-del', device: 'd0', address: '10.0.1.2', prefixLength: 24 },
    ]);
    expect(await run('addr del 10.0.1.2 dev d0')).toContain('(10.0.1.2/32) to avoid this warning.');
    expect(told.at(-1)).toMatchObject({ prefixLength: 24 });
  });
});

describe('ip route', () => {
  it('prints the main table in the order of the kernel', async () => {
    const text = `default via 10.0.1.254 dev d0${' '}
10.0.1.0/24 dev d0 proto kernel scope link src 10.0.1.1${' '}
10.5.0.0/16 via 10.0.1.3 dev d0 metric 10${' '}
unreachable 10.6.0.0/16${' '}
10.7.0.1 dev d0 scope link src 10.0.1.2${' '}
blackhole 10.8.0.0/16 metric 5${' '}
prohibit 10.8.1.0/24${' '}
10.11.0.0/16 via 10.0.1.3 dev d0 proto static${' '}
`;
    expect(await run('route')).toBe(text);
    expect(await run('r l')).toBe(text);
    expect(await run('route show table local')).toBe(
      `local 10.0.1.1 dev d0 proto kernel scope host src 10.0.1.1${' '}
broadcast 10.0.1.255 dev d0 proto kernel scope link src 10.0.1.1${' '}
`,
    );
    expect(await run('route list via 10.0.1.3')).toBe(
      '10.5.0.0/16 dev d0 metric 10 \n10.11.0.0/16 dev d0 proto static \n',
    );
    expect(await run('-j -p route show default')).toBe(`[ {
        "dst": "default",
        "gateway": "10.0.1.254",
        "dev": "d0",
        "flags": [ ]
    } ]
`);
  });

  it('changes what it is told', async () => {
    await run('route add 10.12.0.0/16 via 10.0.1.3 dev d0 metric 7 src 10.0.1.2 proto static');
    await run('route replace default via 10.0.1.1');
    await run('r d blackhole 10.8.0.0/16');
    expect(told).toEqual([
      {
        op: 'route-add',
        route: {
          to: '10.12.0.0/16',
          via: '10.0.1.3',
          device: 'd0',
          metric: 7,
          source: '10.0.1.2',
          protocol: 'static',
        },
      },
      { op: 'route-replace', route: { to: 'default', via: '10.0.1.1' } },
      { op: 'route-del', route: { to: '10.8.0.0/16', type: 'blackhole' } },
    ]);
    told = [];
    await run('route flush via 10.0.1.3');
    expect(told.map((command) => 'route' in command && command.route.to)).toEqual(['10.11.0.0/16', '10.5.0.0/16']);
  });
});

describe('addresses as iproute2 reads them', () => {
  it.each([
    ['10.1/16', '10.1.0.0/16'],
    ['10.1.2.0/255.255.255.0', '10.1.2.0/24'],
    ['0xa.010.0/0x18', '10.8.0.0/24'],
    ['0/0', 'default'],
    ['10', '10.0.0.0'],
  ])('%s', async (word, to) => {
    await run(`route add ${word} dev d0`);
    expect(told).toEqual([{ op: 'route-add', route: { to, device: 'd0' } }]);
  });
});

describe('ip neigh', () => {
  it('prints and changes', async () => {
    expect(await run('neigh')).toBe(
      '10.0.1.51 dev d0 lladdr 02:00:00:00:00:51 STALE \n' +
        '10.0.1.50 dev d0 lladdr 02:00:00:00:00:50 PERMANENT \n10.0.1.52 dev d0 FAILED \n',
    );
    expect(await run('n show dev d0 nud failed')).toBe('10.0.1.52 FAILED \n');
    expect(await run('-j neigh show 10.0.1.51')).toBe(
      '[{"dst":"10.0.1.51","dev":"d0","lladdr":"02:00:00:00:00:51","state":["STALE"]}]\n',
    );
    expect(await run('-br n show to 10.0.1.51')).toBe(
      '10.0.1.51                               d0               02:00:00:00:00:51\n',
    );
    await run('neigh add 10.0.1.60 lladdr 2:0:0:0:0:60 nud permanent dev d0');
    await run('neigh del 10.0.1.60 dev d0');
    await run('neigh flush all');
    expect(told).toEqual([
      { op: 'neigh-add', device: 'd0', address: '10.0.1.60', mac: '02:00:00:00:00:60' },
      { op: 'neigh-del', device: 'd0', address: '10.0.1.60' },
      { op: 'neigh-flush' },
    ]);
  });
});

describe('ip link', () => {
  it('prints and changes', async () => {
    expect(await run('-s link show d0')).toBe(
      `3: d0: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1400 state UP mode DEFAULT group default${' '}
    link/ether 02:00:00:00:01:01 brd ff:ff:ff:ff:ff:ff
    RX:  bytes packets errors dropped  missed   mcast${' '.repeat(11)}
            90       1      0       0       0       0${' '}
    TX:  bytes packets errors dropped carrier collsns${' '.repeat(11)}
           180       2      0       0       0       0${' '}
`,
    );
    expect(await run('-br link')).toBe(
      `lo               UNKNOWN        00:00:00:00:00:00 <LOOPBACK,UP,LOWER_UP>${' '}
d0               UP             02:00:00:00:01:01 <BROADCAST,MULTICAST,UP,LOWER_UP>${' '}
t0               DOWN           <POINTOPOINT,MULTICAST,NOARP>${' '}
`,
    );
    await run('link set d0 up mtu 1300 address 02:00:00:00:01:02');
    expect(told).toEqual([{ op: 'link-set', device: 'd0', up: true, mtu: 1300, mac: '02:00:00:00:01:02' }]);
  });
});

describe('what iproute2 complains of', () => {
  it.each([
    ['', /^255: Usage: tapvs ip /],
    ['foo', '1: Object "foo" is unknown, try "ip help".'],
    ['-foo addr', '255: Option "-foo" is unknown, try "ip -help".'],
    ['addr foo', '255: Command "foo" is unknown, try "ip address help".'],
    ['route get 10.0.0.1', '255: Command "get" is unknown, try "ip route help".'],
    ['link foo', '255: Command "foo" is unknown, try "ip link help".'],
    ['neigh foo', '255: Command "foo" is unknown, try "ip neigh help".'],
    ['addr add 10.0.1.300/24 dev d0', '1: Error: any valid prefix is expected rather than "10.0.1.300/24".'],
    ['addr add 10.0.1.5/24', '1: Not enough information: "dev" argument is required.'],
    ['addr add 10.0.1.5/24 dev', '255: Command line is not complete. Try option "help"'],
    ['addr add 10.0.1.5/24 dev d0 foo', '255: Error: either "local" is duplicate, or "foo" is a garbage.'],
    ['addr show foo', '1: Device "foo" does not exist.'],
    ['addr flush', '1: Flush requires arguments.'],
    ['route add default via foo', '1: Error: any valid address is expected rather than "foo".'],
    ['route add 10.1.0.0/16 src foo', '1: Error: inet address is expected rather than "foo".'],
    ['route add default src foo', '1: Error: any valid address is expected rather than "foo".'],
    ['route add any via', '255: Error: argument "anycast" is wrong: no such routes here\n'],
    ['route add throw 10.1.0.0/16', '255: Error: argument "throw" is wrong: no such routes here\n'],
    [
      'route add black 10.1.2.0/255.0.255.0',
      '1: Error: any valid prefix is expected rather than "10.1.2.0/255.0.255.0".',
    ],
    ['route show dev foo', '1: Cannot find device "foo"'],
    ['neigh show dev foo', '1: Cannot find device "foo"'],
    ['neigh add 10.0.1.60 nud foo dev d0', '255: Error: argument "foo" is wrong: nud state is bad'],
    ['addr add 10.0.1.5/24 brd foo dev d0', '1: Error: inet address is expected rather than "foo".'],
    [
      'link set averyveryverylongname up',
      '255: Error: argument "averyveryverylongname" is wrong: "dev" not a valid ifname',
    ],
    ['route add 10.1.0.0/16 metric x', '255: Error: argument "x" is wrong: "metric" value is invalid\n'],
    ['route add 10.1.0.0/16 garbage', '255: Error: either "to" is duplicate, or "garbage" is a garbage.'],
    ['route flush', '1: "ip route flush" requires arguments.'],
    ['neigh add 10.0.1.60', '255: Device and destination are required arguments.'],
    ['neigh add 10.0.1.60 lladdr zz dev d0', '1: "zz" is invalid lladdr.'],
    ['neigh add 10.0.1.60 lladdr 2:0:0:0:0 dev d0', '2: Error: Invalid link address.'],
    ['neigh show nud foo', '255: Error: argument "foo" is wrong: nud state is bad'],
    ['route show proto foo', '255: Error: argument "foo" is wrong: invalid "protocol"\n'],
    ['link set d0 address 2:0:0:0:0', '255: Invalid address length 5 - must be 6 bytes'],
    ['link set d0 mtu 5000000000', '255: Error: argument "5000000000" is wrong: Invalid "mtu" value\n'],
    ['neigh add 10.0.1.60 dev d0', '2: Error: No link layer address given.'],
    ['link set', '255: Not enough information: "dev" argument is required.'],
    ['link set d0 mtu x', '255: Error: argument "x" is wrong: Invalid "mtu" value\n'],
    ['link set d0 foo', '255: Error: either "dev" is duplicate, or "foo" is a garbage.'],
  ])('ip %s', async (words, expected) => {
    const said = await run(words);
    if (expected instanceof RegExp) expect(said).toMatch(expected);
    else expect(said).toBe(expected);
    expect(told).toEqual([]);
  });

  it.each([
    ['EEXIST', 'route add 10.5.0.0/16 via 10.0.1.3', '2: RTNETLINK answers: File exists'],
    ['EEXIST', 'addr add 10.0.1.1/24 dev d0', '2: Error: ipv4: Address already assigned.'],
    ['ESRCH', 'route del 10.99.0.0/16', '2: RTNETLINK answers: No such process'],
    ['ENODEV', 'route add 10.99.0.0/16', '2: RTNETLINK answers: No such device'],
    ['ENODEV', 'route add 10.99.0.0/16 dev nope', '1: Cannot find device "nope"'],
    ['ENODEV', 'link set nope up', '1: Cannot find device "nope"'],
    ['EADDRNOTAVAIL', 'addr del 10.0.1.9/24 dev d0', '2: Error: ipv4: Address not found.'],
    ['ENETUNREACH', 'route add 10.1.0.0/16 via 99.1.1.1', '2: Error: Nexthop has invalid gateway.'],
    ['ENETDOWN', 'route add 10.1.0.0/16 dev d0', '2: Error: Device for nexthop is not up.'],
    ['EINVAL/prefix', 'route add 10.1.2.3/24 via 10.0.1.3', '2: Error: Invalid prefix for given prefix length.'],
    ['EINVAL/source', 'route add 10.1.0.0/16 dev d0 src 10.9.9.8', '2: Error: Invalid prefsrc address.'],
    ['EINVAL/mtu-low', 'link set d0 mtu -1', '2: Error: mtu less than device minimum.'],
    ['ENOENT', 'neigh del 10.0.1.99 dev d0', '2: RTNETLINK answers: No such file or directory'],
  ])('%s for ip %s', async (errno, words, expected) => {
    answer = errno;
    expect(await run(words)).toBe(expected);
  });
});
