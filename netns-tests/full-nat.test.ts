// Real servers that have no route to the client: what they see comes from an address of the director's, and so their answers go back to it.
//
//   client 10.0.1.2 ── br-front ── [front] tapvsd [back 10.0.2.1] ── br-back ── rs1, rs2 10.0.2.11 …: no default route, no route to 10.0.1.0/24
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { type Lab, labUp } from '../src/lab/lab.ts';
import { LAB_BACK_IP, LAB_ECHO_PORT, labConfig, labPlan } from '../src/lab/plan.ts';
import { runIn, runOkIn } from '../src/rtnl/netns.ts';
import { describeFrame } from '../src/wire/build.ts';
import { checksumErrors, faultsWithOffload, type Watch, watch } from './watch.ts';

const plan = labPlan({ prefix: `tfn${process.pid}-`, servers: 2 });
const url = `http://${plan.vip}`;
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

const curl = (path: string) => lab.run(plan.client, ['curl', '-sS', '--max-time', '3', `${url}${path}`]);

/** A UDP client's request and who answered it. */
async function echo(text: string): Promise<string> {
  const ask = `import socket
s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.settimeout(5)
s.sendto(b"${text}",("${plan.vip}",${LAB_ECHO_PORT})); print(s.recvfrom(100))`;
  return (await lab.run(plan.client, ['python3', '-c', ask])).stdout;
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

it('without translation of the source nothing comes back', async () => {
  const { status, stderr } = await curl('/');
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
    const watches = await watchAll('udp');
    expect([await echo('one'), await echo('two')].sort()).toEqual([
      expect.stringMatching(/rs1 .*'10\.0\.1\.100', 7\)/),
      expect.stringMatching(/rs2 .*'10\.0\.1\.100', 7\)/),
    ]);
    const { servers } = await caught(watches);
    expect(servers).toHaveLength(4);
    const size = ['-o', '/dev/null', '-w', '%{size_download}'];
    expect(await lab.curl(...size, `${url}/big?bytes=20000000`)).toBe('20000000');
    for (const ns of places) expect(await checksumErrors(ns)).toBe('');
  });

  it('an ICMP error of a server reaches the client in the words of its own packet', async () => {
    const server = plan.servers[0]!;
    await lab.tapvs('ipvsadm', '-A', '-u', `${plan.vip}:9`);
    await lab.tapvs('ipvsadm', '-a', '-u', `${plan.vip}:9`, '-r', `${server.address}:9`, '-m');
    const watches = await watchAll('icmp');
    const ask = `import socket
s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.settimeout(3); s.connect(("${plan.vip}",9)); s.send(b"x")
try: print(s.recv(100))
except ConnectionRefusedError: print("refused")`;
    expect((await runIn(plan.client, ['python3', '-c', ask])).stdout).toBe('refused\n');
    const { client, servers } = await caught(watches);
    expect(client).toEqual([expect.stringContaining('10.0.1.100 > 10.0.1.2')]);
    expect(servers).toEqual([expect.stringContaining('10.0.2.11 > 10.0.2.1')]);
    await lab.tapvs('ipvsadm', '-D', '-u', `${plan.vip}:9`);
  });
});
