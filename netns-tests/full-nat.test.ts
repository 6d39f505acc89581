// Real servers that have no route to the client: what they see comes from an address of the director's, and so their answers go back to it.
//
//   client 10.0.1.2 ── br-front ── [front] tapvsd [back 10.0.2.1] ── br-back ── rs1, rs2 10.0.2.11 …: no default route, no route to 10.0.1.0/24
import { createHash } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { type Lab, labUp } from '../src/lab/lab.ts';
import { LAB_BACK_IP, LAB_ECHO_PORT, LAB_FRONT_IP, LAB_KERNEL_IP, labConfig, labPlan } from '../src/lab/plan.ts';
import { runIn, runOkIn } from '../src/rtnl/netns.ts';
import { describeFrame } from '../src/wire/build.ts';
import { checksumErrors, faultsWithOffload, type Watch, watch } from './watch.ts';

const plan = labPlan({ prefix: `tfn${process.pid}-`, servers: 2 });
const url = `http://${plan.vip}`;
const TAPVS = fileURLToPath(new URL('../bin/tapvs', import.meta.url));
const places = [plan.client, ...plan.servers.map((s) => s.netns)];
let lab: Lab;

beforeAll(async () => {
  lab = await labUp(plan);
  for (const { netns } of plan.servers) await runOkIn(netns, ['ip', 'route', 'del', 'default']);
  await lab.startServers();
  await lab.startDaemon(labConfig(plan, { sysctl: { 'net.ipv4.vs.conntrack': 1 } }));
});
afterAll(async () => {
  await lab?.down();
});

const curl = (path: string, seconds = 10) =>
  lab.run(plan.client, ['curl', '-sS', '--max-time', String(seconds), `${url}${path}`]);

/** A UDP client's request and who answered it. */
async function echo(text: string): Promise<string> {
  const ask = `import socket
s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.settimeout(10)
s.sendto(b"${text}",("${plan.vip}",${LAB_ECHO_PORT})); print(s.recvfrom(100))`;
  return (await lab.run(plan.client, ['python3', '-c', ask])).stdout;
}

/** A UDP client that asks at a port where no server listens. */
async function refused(): Promise<string> {
  const ask = `import socket
s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.settimeout(10); s.connect(("${plan.vip}",9)); s.send(b"x")
try: print(s.recv(100))
except ConnectionRefusedError: print("refused")`;
  return (await runIn(plan.client, ['python3', '-c', ask])).stdout;
}

let captures = 0;
const watchAll = (filter = 'ip') =>
  Promise.all(places.map((ns) => watch(ns, 'eth0', `${plan.runDir}/full${captures++}.pcap`, filter)));

/** What was caught at the client and at the servers, with every checksum looked at. */
async function caught(watches: readonly Watch[]): Promise<{ client: string[]; servers: string[] }> {
  const [client = [], ...servers] = await Promise.all(watches.map((w) => w.frames()));
  expect(faultsWithOffload([...client, ...servers.flat()])).toEqual([]);
  return { client: client.map(describeFrame), servers: servers.flat().map(describeFrame) };
}

/** Who spoke to whom. */
const pairs = (lines: readonly string[]): string[] =>
  [
    ...new Set(
      lines.map((line) => line.replace(/^.* IP (\d+\.\d+\.\d+\.\d+)\S* > (\d+\.\d+\.\d+\.\d+)\S*: .*$/, '$1 > $2')),
    ),
  ].sort();

/** What the servers see when all comes from `local`. */
const pairsOf = (local: string): string[] =>
  plan.servers.flatMap(({ address }) => [`${local} > ${address}`, `${address} > ${local}`]).sort();

/** Each server answers a datagram, which takes four frames on their side, and 20 MB come through. */
async function expectEchoesAndMegabytes(): Promise<void> {
  const watches = await watchAll('udp');
  expect([await echo('one'), await echo('two')].sort()).toEqual([
    expect.stringMatching(/rs1 .*'10\.0\.1\.100', 7\)/),
    expect.stringMatching(/rs2 .*'10\.0\.1\.100', 7\)/),
  ]);
  const { servers } = await caught(watches);
  expect(servers).toHaveLength(4);
  const size = ['-o', '/dev/null', '-w', '%{size_download}'];
  expect(await lab.curl(...size, `${url}/big?bytes=20000000`)).toBe('20000000');
}

it('without translation of the source nothing comes back', async () => {
  const { status, stderr } = await curl('/', 3);
  expect([status, stderr]).toEqual([28, expect.stringContaining('timed out')]);
});

describe.each([
  { rule: 'MASQUERADE', words: '-o back -j MASQUERADE' },
  { rule: 'SNAT to one address', words: `-p tcp --dport 80 -j SNAT --to-source ${LAB_BACK_IP}:20000-29999` },
])('net.ipv4.vs.conntrack and POSTROUTING: $rule', ({ words }) => {
  const rules = [words, `-p udp -j SNAT --to-source ${LAB_BACK_IP}`];
  beforeEach(async () => {
    await lab.tapvs('iptables', '-t', 'nat', '-F');
    await lab.tapvs('conntrack', '-F');
    for (const rule of rules) {
      const words = `-t nat -A POSTROUTING -d 10.0.2.0/24 ${rule}`.split(' ');
      expect(await lab.tapvs('iptables', ...words)).toMatchObject({ status: 0, stderr: '' });
    }
  });

  it('TCP: the servers talk with the director alone, the client with the service alone', async () => {
    const watches = await watchAll('tcp');
    const answers = [await curl('/'), await curl('/'), await curl('/client')];
    expect(
      answers
        .slice(0, 2)
        .map(({ stdout }) => stdout)
        .sort(),
    ).toEqual(['rs1\n', 'rs2\n']);
    expect(answers[2]!.stdout).toMatch(new RegExp(`^${LAB_BACK_IP.replaceAll('.', '\\.')}:\\d+\n$`));
    const { client, servers } = await caught(watches);
    expect(client.length).toBeGreaterThan(20);
    expect(pairs(client)).toEqual(['10.0.1.100 > 10.0.1.2', '10.0.1.2 > 10.0.1.100']);
    expect(servers.length).toBeGreaterThan(20);
    expect(pairs(servers)).toEqual(pairsOf(LAB_BACK_IP));
    const { stdout } = await lab.tapvs('conntrack', '-L', '-p', 'tcp');
    expect(stdout).toMatch(/src=10\.0\.1\.2 dst=10\.0\.1\.100 .*dport=80 src=10\.0\.2\.11 dst=10\.0\.2\.1 sport=80 /);
  });

  it('UDP and 20 MB', async () => {
    await expectEchoesAndMegabytes();
    for (const ns of places) expect(await checksumErrors(ns)).toBe('');
  });

  it('an ICMP error of a server reaches the client in the words of its own packet', async () => {
    const server = plan.servers[0]!;
    await lab.tapvs('ipvsadm', '-A', '-u', `${plan.vip}:9`);
    await lab.tapvs('ipvsadm', '-a', '-u', `${plan.vip}:9`, '-r', `${server.address}:9`, '-m');
    const watches = await watchAll('icmp');
    expect(await refused()).toBe('refused\n');
    const { client, servers } = await caught(watches);
    expect(client).toEqual([expect.stringContaining('10.0.1.100 > 10.0.1.2')]);
    expect(servers).toEqual([expect.stringContaining('10.0.2.11 > 10.0.2.1')]);
    await lab.tapvs('ipvsadm', '-D', '-u', `${plan.vip}:9`);
  });
});

describe('a pool of local addresses', () => {
  const service = { tcp: `-t ${plan.vip}:80`, udp: `-u ${plan.vip}:${LAB_ECHO_PORT}`, none: `-u ${plan.vip}:9` };
  const restore = (lines: readonly string[]) =>
    lab.run(plan.director, ['env', `TAPVS_SOCKET=${plan.socket}`, TAPVS, 'ipvsadm', '-R'], {
      input: `${lines.join('\n')}\n`,
    });
  const table = Object.values(service).flatMap((name) => [
    `-A ${name} -s rr`,
    `-P ${name} -z ${LAB_BACK_IP}:40000-49999 -F back`,
    ...plan.servers.map(({ address }) => `-a ${name} -r ${address}:${name.split(':')[1]} -b -w 1`),
  ]);

  beforeAll(async () => {
    await lab.tapvs('iptables', '-t', 'nat', '-F');
    await lab.tapvs('ipvsadm', '-C');
    expect(await restore(table)).toMatchObject({ status: 0, stderr: '' });
  });

  it('is saved as it was restored', async () => {
    const { stdout } = await lab.tapvs('ipvsadm', '-Sn');
    expect(stdout.trim().split('\n').sort()).toEqual([...table].sort());
  });

  it('TCP: the servers talk with the director alone, the client with the service alone', async () => {
    const watches = await watchAll('tcp');
    const answers = [await curl('/'), await curl('/'), await curl('/client')];
    const names = answers.slice(0, 2).map(({ stdout }) => stdout);
    expect(names.sort()).toEqual(['rs1\n', 'rs2\n']);
    expect(answers[2]!.stdout).toMatch(/^10\.0\.2\.1:4\d{4}\n$/);
    const { client, servers } = await caught(watches);
    expect(pairs(client)).toEqual(['10.0.1.100 > 10.0.1.2', '10.0.1.2 > 10.0.1.100']);
    expect(pairs(servers)).toEqual(pairsOf(LAB_BACK_IP));
    const { stdout } = await lab.tapvs('ipvsadm', '-Lnc');
    expect(stdout).toMatch(/^TCP .* 10\.0\.1\.2:\d+ +10\.0\.1\.100:80 +10\.0\.2\.1[12]:80 +10\.0\.2\.1:4\d{4}$/m);
    expect((await lab.tapvs('ipvsadm', '-G', ...service.tcp.split(' '))).stdout).toMatch(
      /^VIP:VPORT +TOTAL +SNAT_IP +CONFLICTS +CONNS +\n10\.0\.1\.100:80 +1 +\n +10\.0\.2\.1:40000-49999 0 +3 +\n$/,
    );
    expect((await lab.tapvs('ipvsadm', '-Ln')).stdout).toMatch(/-> 10\.0\.2\.11:80 +FullNat 1 /);
    expect((await lab.tapvs('conntrack', '-L', '-p', 'tcp')).stdout).toBe('');
  });

  it('UDP, 20 MB down and 10 MB up', async () => {
    await expectEchoesAndMegabytes();
    const body = Buffer.alloc(10_000_000, 'tapvs ');
    const up = await lab.run(plan.client, ['curl', '-sS', '--data-binary', '@-', `${url}/`], {
      input: body.toString(),
    });
    expect(up.stdout).toBe(`${body.length} ${createHash('sha256').update(body).digest('hex')}\n`);
    for (const ns of places) expect(await checksumErrors(ns)).toBe('');
  });

  it('an ICMP error of a server reaches the client in the words of its own packet', async () => {
    const watches = await watchAll('icmp');
    expect(await refused()).toBe('refused\n');
    const { client, servers } = await caught(watches);
    expect(client).toEqual([
      expect.stringMatching(/10\.0\.1\.100 > 10\.0\.1\.2: icmp error 3\/3 \{ IP 10\.0\.1\.2\.\d+ > 10\.0\.1\.100\.9:/),
    ]);
    expect(servers).toEqual([expect.stringMatching(/10\.0\.2\.1[12] > 10\.0\.2\.1: icmp/)]);
  });

  it('a datagram in fragments, there and back', async () => {
    const ask = `import socket
s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.settimeout(10)
s.sendto(b"x"*4000,("${plan.vip}",${LAB_ECHO_PORT})); print(len(s.recvfrom(9000)[0]))`;
    const watches = await watchAll('ip');
    expect(Number((await lab.run(plan.client, ['python3', '-c', ask])).stdout)).toBeGreaterThanOrEqual(4000);
    const { client, servers } = await caught(watches);
    expect(client.length).toBe(6);
    expect(pairs(servers)).toEqual([expect.stringContaining('10.0.2.1 >'), expect.stringContaining('> 10.0.2.1')]);
  });

  it('a server on the director, at the kernel’s end of the host port and at an address of ours', async () => {
    await lab.startServer(plan.director, 'director', { http: 8080, echo: 8007 });
    const own = `-t ${plan.vip}:90`;
    for (const address of [LAB_KERNEL_IP, LAB_FRONT_IP]) {
      const lines = [`-A ${own} -s rr`, `-P ${own} -z ${LAB_BACK_IP}`, `-a ${own} -r ${address}:8080 -b`];
      expect(await restore(lines)).toMatchObject({ status: 0, stderr: '' });
      expect(await lab.curl(`${url}:90/client`)).toMatch(/^10\.0\.2\.1:\d+\n$/);
      await restore([`-D ${own}`]);
    }
  });

  it('a client on the director is served, too', async () => {
    const own = await lab.run(plan.director, ['curl', '-sS', '--max-time', '10', `${url}/client`]);
    expect(own.stdout).toMatch(/^10\.0\.2\.1:4\d{4}\n$/);
  });

  it('explain says where a connection would come from', async () => {
    const { stdout } = await lab.tapvs('explain', 'tcp', '10.0.1.2:40000', `${plan.vip}:80`);
    expect(stdout).toMatch(
      /new: TCP 10\.0\.1\.2:40000 > 10\.0\.1\.100:80 > 10\.0\.2\.1:4\d{4} > 10\.0\.2\.1[12]:80 \(fullnat\)/,
    );
  });

  it('a server that is drained resets what is left, on both sides', async () => {
    await restore([`-e ${service.tcp} -r ${plan.servers[1]!.address}:80 -b -w 0`]);
    const slow = lab.run(plan.client, [
      'curl',
      '-sS',
      '--max-time',
      '60',
      '--limit-rate',
      '10k',
      '-o',
      '/dev/null',
      `${url}/big?bytes=2000000`,
    ]);
    await established();
    const words = [
      '--drain',
      ...service.tcp.split(' '),
      '-r',
      `${plan.servers[0]!.address}:80`,
      '--deadline',
      '1',
      '--wait',
    ];
    expect((await lab.tapvs('ipvsadm', ...words)).stdout).toMatch(/ 1 reset, 0 unanswered, /);
    expect((await slow).stderr).toMatch(/reset by peer/i);
    const left = await runOkIn(plan.servers[0]!.netns, ['ss', '-Htn', 'state', 'established', 'sport', '=', ':80']);
    expect(left).toBe('');
  });

  it('a local address must be ours', async () => {
    const words = ['ipvsadm', '-P', ...service.tcp.split(' '), '-z', '10.0.2.77'];
    expect(await lab.tapvs(...words)).toMatchObject({ status: 255, stderr: expect.stringContaining('not ours') });
    await lab.tapvs('ip', 'addr', 'add', '10.0.2.77/32', 'dev', 'back');
    expect(await lab.tapvs(...words, '-F', 'front')).toMatchObject({ status: 255 });
    expect(await lab.tapvs(...words, '-F', 'back')).toMatchObject({ status: 0, stderr: '' });
    await lab.tapvs('ipvsadm', '--undrain', ...service.tcp.split(' '), '-r', `${plan.servers[0]!.address}:80`);
    const seen = new Set<string>();
    for (let i = 0; i < 4; i++) seen.add((await curl('/client')).stdout.split(':')[0]!);
    expect([...seen].sort()).toEqual(['10.0.2.1', '10.0.2.77']);
  });

  /** The director has seen a connection's handshake. */
  async function established(): Promise<void> {
    while (!/ESTABLISHED/.test((await lab.tapvs('ipvsadm', '-Lnc')).stdout)) await lab.tapvs('status');
  }
});
