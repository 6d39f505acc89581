// The operator's commands against a running daemon: iproute2's words for tapvs's own host, sysctl, hooks, drops, capture.
//
//   client 10.0.1.2 ─ 10.0.1.1 [front] tapvsd [back] 10.0.2.1 ─ rs1 10.0.2.11
//
// What a command says is compared with the classic tool's words; that it did something is seen from outside, by packets.
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Lab, labUp } from '../src/lab/lab.ts';
import { LAB_CLIENT_IP, LAB_CLIENT_MAC, LAB_FRONT_MAC, labPlan } from '../src/lab/plan.ts';
import { type RunResult, runIn, runOk, runOkIn, spawnIn } from '../src/rtnl/netns.ts';
import { describeFrame } from '../src/wire/build.ts';
import { watch } from './watch.ts';

const TAPVS = fileURLToPath(new URL('../bin/tapvs', import.meta.url));
const plan = labPlan({ prefix: `tcl${process.pid}-`, servers: 1 });
const { client, director, vip, runDir } = plan;
const [{ address: rs1, netns: rsNetns } = { address: '', netns: '' }] = plan.servers;
const url = `http://${vip}/`;
let lab: Lab;

/** Runs `tapvs WORDS` split at blanks; must work, and say nothing on stderr. */
async function tapvs(words: string): Promise<string> {
  const { status, stdout, stderr } = await lab.tapvs(...words.split(' '));
  expect({ words, status, stderr }).toEqual({ words, status: 0, stderr: '' });
  return stdout;
}

const refused = (words: string): Promise<RunResult> => lab.tapvs(...words.split(' '));

async function json(words: string): Promise<Record<string, unknown>[]> {
  return JSON.parse(await tapvs(words));
}

async function answersPing(netns: string, address: string): Promise<boolean> {
  return (await runIn(netns, ['ping', '-n', '-c', '1', '-W', '1', address])).status === 0;
}

/** The count of a reason in `tapvs drops`, 0 when it is not listed. */
async function dropped(name: string): Promise<number> {
  const line = (await tapvs('drops')).split('\n').find((text) => text.split(/\s+/).includes(name));
  return Number(/\b\d+\b/.exec(line ?? '')?.[0] ?? 0);
}

beforeAll(async () => {
  lab = await labUp(plan);
  await lab.startServers();
  await lab.startDaemon();
  await lab.curl(url);
});
afterAll(async () => {
  await lab?.down();
});

describe('tapvs ip address', () => {
  const CIDR = '10.0.1.50/24';
  const IP = '10.0.1.50';

  it('adds one, announces it, and takes it away', async () => {
    expect(await answersPing(client, IP)).toBe(false);
    const w = await watch(client, 'eth0', `${runDir}/announce.pcap`, `arp src host ${IP}`);
    expect(await tapvs(`ip addr add ${CIDR} dev front`)).toBe('');
    expect(await answersPing(client, IP)).toBe(true);
    const frames = (await w.frames()).map(describeFrame);
    // Gratuitous: sender and target are the same, to everyone.
    expect(frames[0]).toBe(`${LAB_FRONT_MAC} > ff:ff:ff:ff:ff:ff ARP who-has ${IP} tell ${IP}`);
    expect(await tapvs('ip addr show dev front')).toMatch(/^ {4}inet 10\.0\.1\.50\/24 /m);
    expect(await tapvs(`ip addr del ${CIDR} dev front`)).toBe('');
    expect(await answersPing(client, IP)).toBe(false);
    expect(await tapvs('ip addr')).not.toContain(IP);
  });

  it('refuses in the words of iproute2', async () => {
    await tapvs(`ip addr add ${CIDR} dev front`);
    expect(await refused(`ip addr add ${CIDR} dev front`)).toEqual({
      status: 2,
      stdout: '',
      stderr: 'Error: ipv4: Address already assigned.\n',
    });
    await tapvs(`ip addr del ${CIDR} dev front`);
    expect(await refused(`ip addr del ${CIDR} dev front`)).toEqual({
      status: 2,
      stdout: '',
      stderr: 'Error: ipv4: Address not found.\n',
    });
    expect(await refused(`ip addr add ${CIDR} dev nope`)).toEqual({
      status: 1,
      stdout: '',
      stderr: 'Cannot find device "nope"\n',
    });
  });

  it('prints JSON with -j, as ip does', async () => {
    const front = (await json('ip -j addr show')).find((link) => link.ifname === 'front');
    expect(front).toMatchObject({
      addr_info: [expect.objectContaining({ family: 'inet', local: '10.0.1.1', prefixlen: 24 })],
    });
  });
});

describe('tapvs ip route', () => {
  /** Stands on the client's loopback. */
  const NET = '192.0.2.0/24';
  const IP = '192.0.2.1';

  beforeAll(async () => {
    await runOkIn(client, ['ip', 'addr', 'add', `${IP}/32`, 'dev', 'lo']);
  });

  it('adds, replaces and deletes', async () => {
    expect(await answersPing(rsNetns, IP)).toBe(false);
    await tapvs(`ip route add ${NET} via ${LAB_CLIENT_IP}`);
    expect(await answersPing(rsNetns, IP)).toBe(true);
    expect(await tapvs('ip route')).toMatch(/^192\.0\.2\.0\/24 via 10\.0\.1\.2 dev front/m);
    await tapvs(`ip route replace ${NET} via 10.0.1.99`);
    expect(await tapvs('ip route')).toMatch(/^192\.0\.2\.0\/24 via 10\.0\.1\.99 dev front/m);
    expect(await answersPing(rsNetns, IP)).toBe(false);
    await tapvs(`ip route replace ${NET} via ${LAB_CLIENT_IP} dev front`);
    expect(await answersPing(rsNetns, IP)).toBe(true);
    await tapvs(`ip route del ${NET}`);
    expect(await answersPing(rsNetns, IP)).toBe(false);
    expect(await tapvs('ip route')).not.toContain('192.0.2.0');
  });

  it('refuses in the words of iproute2', async () => {
    await tapvs(`ip route add ${NET} via ${LAB_CLIENT_IP}`);
    const twice = await refused(`ip route add ${NET} via ${LAB_CLIENT_IP}`);
    expect(twice).toEqual({ status: 2, stdout: '', stderr: 'RTNETLINK answers: File exists\n' });
    await tapvs(`ip route del ${NET}`);
    const gone = await refused(`ip route del ${NET}`);
    expect(gone).toEqual({ status: 2, stdout: '', stderr: 'RTNETLINK answers: No such process\n' });
    const unreachable = await refused(`ip route add ${NET} via 198.51.100.1`);
    expect(unreachable).toEqual({ status: 2, stdout: '', stderr: 'Error: Nexthop has invalid gateway.\n' });
  });

  it('prints JSON with -j, as ip does', async () => {
    const route = (await json('ip -j route')).find(({ dst }) => dst === '10.0.1.0/24');
    expect(route).toMatchObject({
      dst: '10.0.1.0/24',
      dev: 'front',
      protocol: 'kernel',
      scope: 'link',
      prefsrc: '10.0.1.1',
    });
  });
});

describe('tapvs ip neigh', () => {
  it('shows who was met, and takes what it is told', async () => {
    const known = new RegExp(
      `^${LAB_CLIENT_IP} dev front lladdr ${LAB_CLIENT_MAC} (REACHABLE|STALE|DELAY|PROBE) *$`,
      'm',
    );
    await lab.curl(url);
    expect(await tapvs('ip neigh')).toMatch(known);
    expect(await json('ip -j neigh')).toContainEqual(
      expect.objectContaining({ dst: LAB_CLIENT_IP, dev: 'front', lladdr: LAB_CLIENT_MAC }),
    );
    await tapvs('ip neigh add 10.0.1.77 lladdr 02:00:00:00:77:77 dev front');
    expect(await tapvs('ip neigh show dev front')).toMatch(
      /^10\.0\.1\.77 (dev front )?lladdr 02:00:00:00:77:77 PERMANENT *$/m,
    );
    const twice = await refused('ip neigh add 10.0.1.77 lladdr 02:00:00:00:77:77 dev front');
    expect(twice).toEqual({ status: 2, stdout: '', stderr: 'RTNETLINK answers: File exists\n' });
    await tapvs('ip neigh del 10.0.1.77 dev front');
    expect(await tapvs('ip neigh')).not.toContain('02:00:00:00:77:77');
  });

  it('a wrong one leads packets astray until it is replaced', async () => {
    await tapvs(`ip neigh replace ${LAB_CLIENT_IP} lladdr 02:00:00:00:77:77 dev front`);
    expect(await answersPing(client, vip)).toBe(false);
    await tapvs(`ip neigh replace ${LAB_CLIENT_IP} lladdr ${LAB_CLIENT_MAC} dev front`);
    expect(await answersPing(client, vip)).toBe(true);
    await tapvs(`ip neigh del ${LAB_CLIENT_IP} dev front`);
    expect(await answersPing(client, vip)).toBe(true);
  });
});

describe('tapvs ip link', () => {
  it('sets the MTU, of the TAP as well', async () => {
    await tapvs('ip link set front mtu 1400');
    expect(await tapvs('ip link show front')).toMatch(/front: <[^>]*> mtu 1400 /);
    const [tap] = JSON.parse(await runOkIn(director, ['ip', '-j', 'link', 'show', 'front']));
    expect(tap.mtu).toBe(1400);
    expect(await json('ip -j link show front')).toMatchObject([{ ifname: 'front', mtu: 1400, address: LAB_FRONT_MAC }]);
    await tapvs('ip link set front mtu 1500');
  });

  it('sets a device down and up', async () => {
    await tapvs('ip link set front down');
    expect(await answersPing(client, vip)).toBe(false);
    await tapvs('ip link set front up');
    expect(await answersPing(client, vip)).toBe(true);
    expect(await lab.curl(url)).toBe('rs1\n');
  });

  it('knows no device that is not there', async () => {
    const { status, stderr } = await refused('ip link show nope');
    expect(stderr).toContain('Device "nope" does not exist.');
    expect(status).toBe(1);
  });
});

describe('tapvs sysctl, drops and hooks', () => {
  it('net.ipv4.ip_forward=0 ends forwarding, and the drops have a name', async () => {
    expect(await answersPing(client, rs1)).toBe(true);
    expect(await tapvs('sysctl net.ipv4.ip_forward=0')).toBe('net.ipv4.ip_forward = 0\n');
    const before = await dropped('ForwardingOff');
    expect(await answersPing(client, rs1)).toBe(false);
    expect(await dropped('ForwardingOff')).toBe(before + 1);
    expect(await tapvs('sysctl net.ipv4.ip_forward=1')).toBe('net.ipv4.ip_forward = 1\n');
    expect(await tapvs('sysctl -n net.ipv4.ip_forward')).toBe('1\n');
    expect(await answersPing(client, rs1)).toBe(true);
  });

  it('lists every key, and refuses what is none', async () => {
    expect(await tapvs('sysctl -a')).toMatch(/^net\.ipv4\.vs\.expire_nodest_conn = 0$/m);
    expect((await refused('sysctl net.ipv4.nope=1')).status).not.toBe(0);
    expect((await refused('sysctl net.ipv4.ip_forward=7')).status).not.toBe(0);
    expect(await tapvs('sysctl net.ipv4.ip_forward')).toBe('net.ipv4.ip_forward = 1\n');
  });

  it('lists the functions of the director at their priorities', async () => {
    const text = await tapvs('hooks');
    const rows = text.split('\n').map((line) => line.trim());
    for (const [hook, priorities] of [
      ['LOCAL_IN', [98, 99]],
      ['FORWARD', [99, 100]],
      ['LOCAL_OUT', [-99, -98]],
    ] as const) {
      const from = rows.findIndex((row) => row.includes(hook));
      expect(from).toBeGreaterThanOrEqual(0);
      for (const priority of priorities) {
        const found = rows.find((row, i) => i >= from && new RegExp(`(^|\\s)${priority}\\s.*director`).test(row));
        expect(found, `${hook} ${priority} in\n${text}`).toBeDefined();
      }
    }
  });
});

describe('tapvs capture', () => {
  /** The comment of each packet of a pcapng file (block type 6, option 1). */
  function comments(file: string): string[] {
    const bytes = readFileSync(file);
    const found: string[] = [];
    for (let at = 0; at + 12 <= bytes.length; at += bytes.readUInt32LE(at + 4)) {
      if (bytes.readUInt32LE(at) !== 6) continue;
      const end = at + bytes.readUInt32LE(at + 4) - 4;
      let option = at + 28 + ((bytes.readUInt32LE(at + 20) + 3) & ~3);
      for (; option + 4 <= end; option += 4 + ((bytes.readUInt16LE(option + 2) + 3) & ~3)) {
        const length = bytes.readUInt16LE(option + 2);
        if (bytes.readUInt16LE(option) === 1) found.push(bytes.toString('utf8', option + 4, option + 4 + length));
      }
    }
    return found;
  }

  /** Runs a shell line in the director's namespace and sends requests until it has ended. */
  async function whileRequests(line: string): Promise<string> {
    const child = spawnIn(director, ['sh', '-c', line], { env: { ...process.env, TAPVS_SOCKET: plan.socket } });
    let text = '';
    let isOver = false;
    child.stdout?.on('data', (chunk: Buffer) => {
      text += chunk.toString();
    });
    const over = new Promise<number | null>((resolve) =>
      child.once('close', (status) => {
        isOver = true;
        resolve(status);
      }),
    );
    const limit = performance.now() + 15_000;
    while (!isOver && performance.now() < limit) await lab.curl(url);
    if (!isOver) child.kill('SIGKILL');
    expect(await over).toBe(0);
    return text;
  }

  it('writes a file that tcpdump reads, each packet with what became of it', async () => {
    const file = `${runDir}/front.pcapng`;
    await whileRequests(`${TAPVS} capture -i front -c 5 -w ${file}`);
    const lines = (await runOk(['tcpdump', '-n', '-r', file])).trim().split('\n');
    expect(lines).toHaveLength(5);
    for (const line of lines) expect(line).toMatch(/ IP 10\.0\.1\.|ARP/);
    const said = comments(file);
    expect(said).toHaveLength(5);
    for (const comment of said) expect(comment).toMatch(/\S+ \S+/);
  });

  it('writes into a pipe', async () => {
    const text = await whileRequests(`${TAPVS} capture -i front -c 5 -w - tcp port 80 | tcpdump -n -r -`);
    const lines = text.trim().split('\n');
    expect(lines).toHaveLength(5);
    for (const line of lines) expect(line).toContain(`${vip}.80`);
  });

  it('refuses a filter or device that it does not understand', async () => {
    const { status, stderr } = await refused('capture -i front -c 1 -w - tcp prot 80');
    expect(status).not.toBe(0);
    expect(stderr).toContain('prot');
    const nope = await refused('capture -i nope -c 1 -w -');
    expect(nope.status).not.toBe(0);
    expect(nope.stderr).toContain("'nope'");
  });

  it('ends with its reader', async () => {
    expect((await whileRequests(`${TAPVS} capture -i front -w - | head -c 24 | wc -c`)).trim()).toBe('24');
  });
});
