// scripts/realserver and scripts/director on hosts that are only namespaces: what they set, that they take it back, what
// their doctors find, and that the commands which the doctors name do mend it.
//
//   <p>a  eth0 10.0.1.11/24 ─┐
//                            ├─ <p>hub  br0          (a host that plays director has the VIP 10.0.1.100 on its eth0)
//   <p>b  eth0 10.0.1.12/24 ─┘
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { addNetns, delNetns, ipBatch, type RunResult, runIn, runOkIn, setSysctls } from '../src/rtnl/netns.ts';

const SCRIPTS = fileURLToPath(new URL('../scripts/', import.meta.url));
const PREFIX = `trs${process.pid}-`;
const [A, B, HUB] = [`${PREFIX}a`, `${PREFIX}b`, `${PREFIX}hub`];
const VIP = '10.0.1.100';
let stateDir = '';

const realserver = (netns: string, ...words: string[]): Promise<RunResult> =>
  runIn(netns, [`${SCRIPTS}realserver`, '--state-dir', stateDir, ...words]);
const director = (netns: string, ...words: string[]): Promise<RunResult> =>
  runIn(netns, [`${SCRIPTS}director`, '--state-dir', stateDir, '--socket', `${stateDir}/none.sock`, ...words]);

async function ok(result: Promise<RunResult>): Promise<string> {
  const { status, stdout, stderr } = await result;
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  return stdout;
}

/** All that the scripts could change: addresses, links, routes, rules, settings. */
async function settings(netns: string): Promise<string> {
  const text = await runOkIn(netns, [
    'sh',
    '-c',
    'ip -o address; ip -o link; ip route show table all; ip rule; cd /proc/sys/net; grep -r . ipv4/conf ipv4/ip_forward bridge 2>/dev/null | sort',
  ]);
  return text.replace(/ qlen \d+| qdisc \S+/g, '');
}

const wrongs = (text: string): string[] => text.split('\n').filter((line) => line.startsWith('WRONG'));
const mends = (text: string): string[] => [...text.matchAll(/^ +mend: (.*)$/gm)].map((match) => match[1]!);

beforeEach(async () => {
  stateDir = mkdtempSync(join(tmpdir(), 'tapvs-rs-'));
  await Promise.all([A, B, HUB].map(addNetns));
  const ends = [
    ['to-a', A, '02:00:00:00:01:81'],
    ['to-b', B, '02:00:00:00:01:82'],
  ] as const;
  await ipBatch(HUB, [
    'link add br0 type bridge forward_delay 0',
    'link set br0 up',
    ...ends.flatMap(([name, netns, mac]) => [
      `link add ${name} type veth peer name eth0 netns ${netns} address ${mac}`,
      `link set ${name} master br0 up`,
    ]),
  ]);
  for (const [i, netns] of [A, B].entries()) {
    await setSysctls(netns, { 'net.ipv6.conf.all.disable_ipv6': 1, 'net.ipv4.conf.all.rp_filter': 1 });
    await ipBatch(netns, [
      `address add 10.0.1.${11 + i}/24 dev eth0`,
      'link set eth0 up',
      'route add default via 10.0.1.254',
    ]);
  }
});
afterEach(async () => {
  await Promise.all([A, B, HUB].map(delNetns));
  rmSync(stateDir, { recursive: true, force: true });
});

const WAYS: readonly (readonly [string, readonly string[]])[] = [
  ['nat', ['--method', 'nat', '--director', '10.0.1.1', VIP]],
  ['nat, source-routed', ['--method', 'nat', '--director', '10.0.1.1', '--source-routed', VIP]],
  ['dr', ['--method', 'dr', VIP, '10.0.1.101']],
];

describe.each(WAYS)('realserver, %s', (_, words) => {
  it('with --dry-run prints what it would do, and does nothing', async () => {
    const before = await settings(A);
    const commands = await ok(realserver(A, 'start', '--dry-run', ...words));
    expect(commands.split('\n').length).toBeGreaterThan(1);
    expect(await settings(A)).toBe(before);
    expect((await realserver(A, 'status')).status).toBe(3);
    // What it prints is what it does: another host that is given these commands ends up the same.
    await ok(realserver(A, 'start', ...words));
    const told = commands.replaceAll('10.0.1.11', '10.0.1.12');
    await runOkIn(B, ['sh', '-ec', told]);
    const [a, b] = [await settings(A), await settings(B)];
    const alike = (text: string): string =>
      text
        .replaceAll('10.0.1.12', '10.0.1.11')
        .replace(/^\d+: eth0.*$/gm, '')
        .replaceAll(':82', ':81');
    expect(alike(b)).toBe(alike(a));
  });

  it('does it once, says so, and takes everything back', async () => {
    const before = await settings(A);
    await ok(realserver(A, 'start', ...words));
    const started = await settings(A);
    expect(started).not.toBe(before);
    expect(await ok(realserver(A, 'start', ...words))).toBe('');
    expect(await ok(realserver(A, 'start', '--dry-run', ...words))).toBe('');
    expect(await settings(A)).toBe(started);
    expect(await ok(realserver(A, 'status'))).toMatch(/^method (nat|dr)\nvip 10\.0\.1\.100\n/);
    const commands = await ok(realserver(A, 'stop', '--dry-run'));
    expect(await settings(A)).toBe(started);
    expect(commands).not.toBe('');
    await ok(realserver(A, 'stop'));
    expect(await settings(A)).toBe(before);
    expect((await realserver(A, 'status')).status).toBe(3);
  });
});

describe('realserver', () => {
  it('keeps what it remembers when it is started again for more, and forgets it with the last VIP', async () => {
    const before = await settings(A);
    await ok(realserver(A, 'start', '--method', 'dr', VIP));
    await ok(realserver(A, 'start', '--method', 'dr', '10.0.1.101'));
    await ok(realserver(A, 'stop', VIP));
    expect(await runOkIn(A, ['ip', '-o', 'address', 'show', 'lo'])).toContain('10.0.1.101/32');
    expect(readFileSync(`/proc/sys/net/ipv4/ip_forward`, 'utf8')).toMatch(/^[01]\n$/);
    expect(await runOkIn(A, ['sysctl', '-n', 'net.ipv4.conf.all.arp_ignore'])).toBe('1\n');
    await ok(realserver(A, 'stop', '10.0.1.101'));
    expect(await settings(A)).toBe(before);
  });

  it('changes its method without mixing them up', async () => {
    const before = await settings(A);
    await ok(realserver(A, 'start', '--method', 'dr', VIP));
    const { status, stderr } = await realserver(A, 'start', '--method', 'nat', '--director', '10.0.1.1', VIP);
    expect({ status, stderr }).toEqual({ status: 0, stderr: 'realserver: was started for dr; that is undone first\n' });
    expect(await runOkIn(A, ['ip', '-o', 'address', 'show', 'lo'])).not.toContain(VIP);
    expect(await runOkIn(A, ['ip', 'route', 'show', 'default'])).toMatch(/^default via 10\.0\.1\.1 /);
    await ok(realserver(A, 'stop'));
    expect(await settings(A)).toBe(before);
  });

  it('leaves alone what somebody else changed meanwhile, and says so', async () => {
    await ok(realserver(A, 'start', '--method', 'dr', VIP));
    await setSysctls(A, { 'net.ipv4.conf.all.arp_announce': 1 });
    const { status, stderr } = await realserver(A, 'stop');
    expect({ status, stderr }).toEqual({
      status: 0,
      stderr: 'realserver: net.ipv4.conf.all.arp_announce is 1 by now, not 2: left alone\n',
    });
    expect(await runOkIn(A, ['sysctl', '-n', 'net.ipv4.conf.all.arp_announce', 'net.ipv4.conf.all.arp_ignore'])).toBe(
      '1\n0\n',
    );
  });

  it('does not take over what another namespace of the same inode number left', async () => {
    await ok(realserver(A, 'start', '--method', 'dr', VIP));
    await ipBatch(A, ['link set eth0 address 02:00:00:00:01:99']);
    expect((await realserver(A, 'status')).status).toBe(3);
  });

  it('routes by source as the textbook does: only what comes from its own address goes to the director', async () => {
    await ok(
      realserver(A, 'start', '--method', 'nat', '--director', '10.0.1.1', '--source-routed', '--table', '80', VIP),
    );
    expect(await runOkIn(A, ['ip', 'route', 'show', 'table', '80'])).toMatch(/^default via 10\.0\.1\.1 dev eth0 *\n$/);
    expect(await runOkIn(A, ['ip', 'rule'])).toMatch(/from 10\.0\.1\.11 lookup (80|lvs)/);
    expect(await runOkIn(A, ['ip', 'route', 'get', '10.0.1.12', 'from', '10.0.1.11'])).toContain('via 10.0.1.1');
    expect(await runOkIn(A, ['ip', 'route', 'show', 'default'])).toContain('via 10.0.1.254');
  });

  it('opens the reverse path where answers leave by another interface', async () => {
    await ipBatch(A, ['link add eth1 type veth peer name far', 'address add 10.7.0.1/24 dev eth1', 'link set eth1 up']);
    await ok(realserver(A, 'start', '--method', 'dr', VIP));
    expect(await runOkIn(A, ['sysctl', '-n', 'net.ipv4.conf.eth0.rp_filter', 'net.ipv4.conf.eth1.rp_filter'])).toBe(
      '0\n2\n',
    );
  });

  it.each([
    [[], 64, 'Usage: realserver'],
    [['start', VIP], 64, 'which --method'],
    [['start', '--method', 'direct', VIP], 64, 'no such method: direct'],
    [['start', '--method', 'dr'], 64, 'which VIP?'],
    [['start', '--method', 'nat', VIP], 64, 'nat needs --director DIP'],
    [['start', '--method', 'dr', '10.0.1'], 64, "'10.0.1' is no IPv4 address"],
    [['start', '--method', 'dr', '10.0.1.256'], 64, "'10.0.1.256' is no IPv4 address"],
    [['start', '--method', 'dr', '--interface', 'eth7', VIP], 1, 'no such interface: eth7'],
    [['start', '--method', 'tun', '--tun-type', 'vxlan', VIP], 64, 'no such tunnel: vxlan'],
    [['start', '--method', 'tun', '--mtu', 'big', VIP], 64, "'big' is no number"],
    [['start', '--method'], 64, '--method needs a value'],
    [['start', 'stop'], 64, 'one of start, stop, status, check'],
    [['--quick'], 64, 'unknown option --quick'],
  ])('refuses %j', async (words, code, message) => {
    const before = await settings(A);
    const { status, stderr } = await realserver(A, ...words);
    expect(stderr).toContain(message);
    expect(status).toBe(code);
    expect(await settings(A)).toBe(before);
    expect((await realserver(A, 'status')).status).toBe(3);
  });
});

describe('realserver, tun', () => {
  /** tunl0 stays when the kernel has it: a module is not taken back. */
  const withoutKernelTunnels = (text: string): string => text.replace(/^.*\b(tunl0|gre0|gretap0|erspan0)\b.*\n/gm, '');

  it('unwraps the tunnel, announces segments that fit it, and takes everything back', async () => {
    const before = await settings(A);
    const planned = await ok(realserver(A, 'start', '--dry-run', '--method', 'tun', VIP));
    expect(planned).toContain('ip rule add priority 7794 from 10.0.1.100 lookup 7794\n');
    expect(await settings(A)).toBe(before);
    await ok(realserver(A, 'start', '--method', 'tun', VIP));
    const started = await settings(A);
    expect(await ok(realserver(A, 'status'))).toContain('tunnel ipip 6080\n');
    expect(await runOkIn(A, ['ip', 'route', 'get', '192.0.2.1', 'from', VIP])).toContain('advmss 1440');
    expect(await runOkIn(A, ['ip', 'route', 'get', '192.0.2.1'])).not.toContain('advmss');
    await ok(realserver(A, 'start', '--method', 'tun', VIP));
    expect(await settings(A)).toBe(started);
    // Another tunnel takes the place of the first; its header is longer.
    await ok(realserver(A, 'start', '--method', 'tun', '--tun-type', 'gue', '--port', '6081', VIP));
    expect(await runOkIn(A, ['ip', 'route', 'get', '192.0.2.1', 'from', VIP])).toContain('advmss 1428');
    await ok(realserver(A, 'stop'));
    expect(withoutKernelTunnels(await settings(A))).toBe(before);
  });

  it('has a doctor that misses the tunnel and the segment size, and its commands mend them', async () => {
    await ipBatch(B, [`address add ${VIP}/32 dev eth0`]);
    await ok(realserver(A, 'start', '--method', 'tun', VIP));
    expect(await ok(realserver(A, 'check'))).toMatch(/all is well\n$/);
    await ipBatch(A, [`rule del from ${VIP} lookup 7794`]);
    const pid = /^process (\d+) /m.exec(await ok(realserver(A, 'status')))?.[1];
    if (pid !== undefined) await runOkIn(A, ['sh', '-c', `kill ${pid}; while [ -e /proc/${pid} ]; do :; done`]);
    else await ipBatch(A, ['link set tunl0 down']);
    const { status, stdout } = await realserver(A, 'check');
    expect(wrongs(stdout)).toEqual([
      expect.stringMatching(pid === undefined ? /tunl0 is down/ : /no ipip tunnel device/),
      expect.stringMatching(/announce segments of 1460 bytes, but only 1440 fit the tunnel/),
    ]);
    expect(status).toBe(1);
    await ok(realserver(A, ...mends(stdout).at(-1)!.split(' ').slice(1)));
    expect(await ok(realserver(A, 'check'))).toMatch(/all is well\n$/);
  });
});

describe('the doctor of a real server', () => {
  /** B plays the director: it has the VIP on its interface and answers ARP for it. */
  beforeEach(async () => {
    await ipBatch(B, [`address add ${VIP}/32 dev eth0`, 'address add 10.0.1.1/24 dev eth0']);
  });

  it('finds nothing wrong with what start did', async () => {
    for (const [, words] of WAYS.slice(0, 2)) {
      await ok(realserver(A, 'start', ...words));
      expect(await ok(realserver(A, 'check'))).toMatch(/all is well\n$/);
      await ok(realserver(A, 'stop'));
    }
    await ok(realserver(A, 'start', '--method', 'dr', VIP));
    const found = await ok(realserver(A, 'check'));
    expect(found).toContain(`exactly one host answers ARP for VIP ${VIP}: 02:00:00:00:01:82`);
    expect(found).toMatch(/all is well\n$/);
  });

  it.each<[string, string, string[], RegExp[]]>([
    [
      'what keeps ARP silent, the way back and lo',
      'dr',
      [
        'sysctl -qw net.ipv4.conf.all.arp_ignore=0 net.ipv4.conf.eth0.arp_ignore=0',
        'sysctl -qw net.ipv4.conf.all.arp_announce=1 net.ipv4.conf.eth0.arp_announce=0',
        'ip route del default',
        'ip link set lo down',
      ],
      [/lo is down/, /arp_ignore is 0/, /arp_announce is 1/, /eth0: rp_filter is 1/],
    ],
    [
      'the VIP on the wire',
      'dr',
      [`ip address add ${VIP}/32 dev eth0`, `ip address del ${VIP}/32 dev lo`],
      [/VIP 10\.0\.1\.100 is on eth0/],
    ],
    [
      'a whole network on lo',
      'dr',
      [`ip address del ${VIP}/32 dev lo`, `ip address add ${VIP}/24 dev lo`],
      [/prefix \/24 on lo/],
    ],
    [
      'answers past the director, and the VIP on a server of nat',
      'nat',
      ['ip route replace default via 10.0.1.254', `ip address add ${VIP}/32 dev lo`],
      [/answers from 10\.0\.1\.11 to clients go via 10\.0\.1\.254/, /with nat only the director has it/],
    ],
  ])('finds %s, and the commands that it names mend it', async (_, method, breaks, expected) => {
    await ok(realserver(A, 'start', '--method', method, ...(method === 'nat' ? ['--director', '10.0.1.1'] : []), VIP));
    for (const command of breaks) await runOkIn(A, command.split(' '));
    const { status, stdout } = await realserver(A, 'check');
    expect(wrongs(stdout)).toEqual(expected.map((pattern) => expect.stringMatching(pattern)));
    expect(status).toBe(1);
    for (const command of mends(stdout)) await runOkIn(A, ['sh', '-ec', command]);
    expect(await ok(realserver(A, 'check'))).toMatch(/all is well\n$/);
  });

  it('works without start having been here, by the words of start', async () => {
    const { status, stdout } = await realserver(A, 'check', '--method', 'dr', VIP);
    expect(wrongs(stdout)).toHaveLength(3);
    expect(stdout).toMatch(/3 things are wrong\n$/);
    expect(status).toBe(1);
    for (const command of mends(stdout)) await runOkIn(A, ['sh', '-ec', command]);
    expect(await ok(realserver(A, 'check', '--method', 'dr', VIP))).toMatch(/all is well\n$/);
  });

  it('hears another host that answers for the VIP, and hears when nobody does', async () => {
    await ok(realserver(A, 'start', '--method', 'dr', VIP));
    await ipBatch(HUB, [`address add ${VIP}/32 dev br0`]);
    const two = await realserver(A, 'check');
    expect(wrongs(two.stdout)).toEqual([
      expect.stringMatching(/several hosts answer ARP for VIP 10\.0\.1\.100: .*02:00:00:00:01:82/),
    ]);
    await ipBatch(HUB, [`address del ${VIP}/32 dev br0`]);
    await ipBatch(B, [`address del ${VIP}/32 dev eth0`]);
    const none = await realserver(A, 'check');
    expect(wrongs(none.stdout)).toEqual([expect.stringMatching(/nobody on eth0 answers ARP for VIP/)]);
  });

  it('finds answers that would go to the director', async () => {
    await ok(realserver(A, 'start', '--method', 'dr', VIP));
    await ipBatch(A, ['route replace default via 10.0.1.1']);
    const { stdout, status } = await realserver(A, 'check');
    expect(wrongs(stdout)).toEqual([
      expect.stringMatching(/the default route goes to 10\.0\.1\.1, which is the director/),
    ]);
    expect(status).toBe(1);
  });

  it('finds a client that nat would answer past the director', async () => {
    await ok(realserver(A, 'start', '--method', 'nat', '--director', '10.0.1.1', VIP));
    const { stdout } = await realserver(A, 'check', '--client', '10.0.1.12');
    expect(wrongs(stdout)).toEqual([expect.stringMatching(/the client 10\.0\.1\.12 is on a network of this host/)]);
    expect(mends(stdout)[0]).toContain('--source-routed');
    await ok(realserver(A, ...mends(stdout)[0]!.split(' ').slice(1)));
    expect(await ok(realserver(A, 'check', '--client', '10.0.1.12'))).toMatch(/all is well\n$/);
  });
});

describe('director', () => {
  const words = ['--method', 'dr', '--bridge', 'br1=eth0', VIP];

  it('makes a bridge of an interface, and takes everything back', async () => {
    await ipBatch(A, ['address flush dev eth0', 'link set eth0 down']);
    await setSysctls(A, { 'net.ipv4.ip_forward': 0 });
    const before = await settings(A);
    const planned = await ok(director(A, 'start', '--dry-run', ...words));
    expect(planned).toContain('ip link add br1 type bridge forward_delay 0 stp_state 0\n');
    expect(planned).toContain('ip link set eth0 master br1\n');
    expect(await settings(A)).toBe(before);
    await ok(director(A, 'start', ...words));
    expect(await runOkIn(A, ['ip', '-br', 'link', 'show', 'master', 'br1'])).toMatch(/^eth0@\S+ +UP /);
    expect(
      await runOkIn(A, [
        'sysctl',
        '-n',
        'net.ipv4.ip_forward',
        'net.ipv4.conf.br1.send_redirects',
        'net.ipv4.conf.all.send_redirects',
      ]),
    ).toBe('1\n0\n0\n');
    if (existsSync('/proc/sys/net/bridge'))
      expect(await runOkIn(A, ['sysctl', '-n', 'net.bridge.bridge-nf-call-iptables'])).toBe('0\n');
    expect(await ok(director(A, 'start', ...words))).toBe('');
    expect(await ok(director(A, 'status'))).toContain('method dr\nvip 10.0.1.100\n');
    await ok(director(A, 'stop'));
    expect(await settings(A)).toBe(before);
  });

  it('does not tear an interface from its addresses', async () => {
    const { status, stderr } = await director(A, 'start', ...words);
    expect(stderr).toContain('eth0 has addresses, and a port of a bridge must have none');
    expect(status).toBe(1);
    expect(await runOkIn(A, ['ip', 'route', 'show', 'default'])).toContain('10.0.1.254');
  });

  it('refuses a VIP that its kernel has', async () => {
    await ipBatch(A, [`address add ${VIP}/32 dev lo`]);
    const { status, stderr } = await director(A, 'start', '--method', 'dr', VIP);
    expect(stderr).toContain(`VIP ${VIP} is an address of this host's kernel (lo)`);
    expect(status).toBe(1);
  });

  it('has a doctor that finds what the kernel does behind the back of tapvs', async () => {
    await ok(director(HUB, 'start', '--method', 'dr', '--bridge', 'br0', VIP));
    await ipBatch(HUB, [`address add ${VIP}/32 dev br0`]);
    await setSysctls(HUB, { 'net.ipv4.ip_forward': 0, 'net.ipv4.conf.br0.send_redirects': 1 });
    const { status, stdout } = await director(HUB, 'check');
    expect(wrongs(stdout)).toEqual([
      expect.stringContaining('ip_forward is 0'),
      expect.stringContaining('br0: send_redirects is on'),
      expect.stringContaining('tapvsd does not answer'),
      expect.stringContaining(`VIP ${VIP} is an address of this host's kernel (br0)`),
    ]);
    expect(status).toBe(1);
    for (const command of mends(stdout).filter((one) => !one.startsWith('systemctl')))
      await runOkIn(HUB, ['sh', '-ec', command]);
    expect(wrongs((await director(HUB, 'check')).stdout)).toEqual([expect.stringContaining('tapvsd does not answer')]);
  });
});
