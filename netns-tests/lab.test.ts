// The lab itself: it comes up whole, its parts reach each other, two of them do not meet, and nothing stays behind.
import { existsSync } from 'node:fs';
import { afterEach, describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { labDown, labUp } from '../src/lab/lab.ts';
import { isLabNetns, labConfig, labPlan } from '../src/lab/plan.ts';
import { listNetns, pidsIn, runOk, runOkIn, spawnIn, waitForLine } from '../src/rtnl/netns.ts';

const ONE = `tvl${process.pid}a-`;
const TWO = `tvl${process.pid}b-`;

const namespacesOf = (prefix: string): string[] => listNetns().filter((name) => isLabNetns(prefix, name));
/** Devices of a lab that lie in our own namespace, where none belongs. */
const strays = async (): Promise<string[]> =>
  (await runOk(['ip', '-br', 'link'])).match(/^(client|rs\d+|front|back|front0|back0|host|br-front|br-back|br0)\b/gm) ??
  [];

afterEach(async () => {
  await labDown(ONE);
  await labDown(TWO);
});

describe('labUp and labDown', () => {
  it('makes every namespace and leaves nothing behind', async () => {
    const lab = await labUp(labPlan({ prefix: ONE }));
    expect(namespacesOf(ONE)).toEqual(['client', 'director', 'rs1', 'rs2', 'rs3'].map((name) => ONE + name));
    expect(await strays()).toEqual([]);
    const sleeper = spawnIn(`${ONE}rs2`, ['sleep', '1000']);
    const ended = new Promise((resolve) => sleeper.once('exit', (_, signal) => resolve(signal)));
    await lab.down();
    expect(await ended).toBe('SIGKILL');
    expect(namespacesOf(ONE)).toEqual([]);
    expect(await strays()).toEqual([]);
    expect(existsSync(`/run/tapvs-lab-${ONE}`)).toBe(false);
  });

  it('may be repeated: up over an earlier lab, down twice', async () => {
    await labUp(labPlan({ prefix: ONE, servers: 3 }));
    await labUp(labPlan({ prefix: ONE, servers: 1, kind: 'packet' }));
    expect(namespacesOf(ONE)).toEqual(['client', 'director', 'rs1', 'switch'].map((name) => ONE + name));
    await labDown(ONE);
    await labDown(ONE);
    expect(namespacesOf(ONE)).toEqual([]);
  });

  it('refuses prefixes that could match what is not its own', async () => {
    for (const prefix of ['', '-', 'x', 'Tv-', 'a/b-', '../-']) {
      expect(() => labPlan({ prefix })).toThrow(RangeError);
      await expect(labDown(prefix)).rejects.toThrow(RangeError);
    }
    expect(isLabNetns('tv-', 'tv-x-client')).toBe(false);
  });

  it('takes everything down when it is interrupted', async () => {
    const dist = new URL('../dist/src/lab/', import.meta.url).pathname;
    const script = [
      `const { labUp } = await import('${dist}lab.js'); const { labPlan } = await import('${dist}plan.js');`,
      `const lab = await labUp(labPlan({ prefix: '${ONE}' })); await lab.startServers();`,
      "console.log('up'); setInterval(() => {}, 1000);",
    ].join('\n');
    const child = spawnIn(null, [process.execPath, '--input-type=module', '-e', script]);
    const ended = new Promise((resolve) => child.once('exit', (_, signal) => resolve(signal)));
    await waitForLine(child, /^up$/);
    expect(namespacesOf(ONE)).toHaveLength(5);
    child.kill('SIGINT');
    expect(await ended).toBe('SIGINT');
    expect(namespacesOf(ONE)).toEqual([]);
    expect(existsSync(`/run/tapvs-lab-${ONE}`)).toBe(false);
  });
});

describe('a lab that its maker left', () => {
  it('is taken down by its prefix, with the programs in it', async () => {
    const dist = new URL('../dist/src/lab/', import.meta.url).pathname;
    const script = [
      `const { labUp } = await import('${dist}lab.js'); const { labPlan } = await import('${dist}plan.js');`,
      `const lab = await labUp(labPlan({ prefix: '${ONE}' })); await lab.startServers();`,
      "process.kill(process.pid, 'SIGKILL');",
    ].join('\n');
    const child = spawnIn(null, [process.execPath, '--input-type=module', '-e', script]);
    await new Promise((resolve) => child.once('exit', resolve));
    const [orphan] = await pidsIn(`${ONE}rs3`);
    expect(existsSync(`/proc/${orphan}`)).toBe(true);
    await labDown(ONE);
    expect(namespacesOf(ONE)).toEqual([]);
    expect(existsSync(`/run/tapvs-lab-${ONE}`)).toBe(false);
    expect(existsSync(`/proc/${orphan}/exe`)).toBe(false);
  });
});

describe('a lab', () => {
  it('joins client and servers to the bridges of the director, IPv6 off, nothing addressed in the director', async () => {
    const lab = await labUp(labPlan({ prefix: ONE, servers: 2, mtu: 1400 }));
    const { director, client, servers } = lab.plan;
    const ports = JSON.parse(await runOkIn(director, ['ip', '-j', 'link', 'show', 'type', 'veth']));
    expect(
      ports.map((port: { ifname: string; master: string; mtu: number }) => [port.ifname, port.master, port.mtu]),
    ).toEqual([
      ['client', 'br-front', 1400],
      ['rs1', 'br-back', 1400],
      ['rs2', 'br-back', 1400],
    ]);
    expect(await runOkIn(director, ['ip', '-o', 'address', 'show', 'scope', 'global'])).toBe('');
    expect(await runOkIn(client, ['ip', '-6', 'address', 'show', 'dev', 'eth0'])).toBe('');
    expect(await runOkIn(client, ['ip', 'route'])).toContain('default via 10.0.1.1 dev eth0');
    expect(await runOkIn(servers[1]!.netns, ['ip', '-o', '-4', 'address', 'show', 'eth0'])).toContain('10.0.2.12/24');
    await lab.startServers();
    // Servers see each other over br-back, so the segment forwards.
    expect(await runOkIn(servers[0]!.netns, ['curl', '-sS', 'http://10.0.2.12/'])).toBe('rs2\n');
  });

  it('of kind packet has front0 and back0, and the servers on a switch', async () => {
    const lab = await labUp(labPlan({ prefix: ONE, servers: 2, kind: 'packet' }));
    const links = JSON.parse(await runOkIn(lab.plan.director, ['ip', '-j', 'link', 'show', 'type', 'veth']));
    expect(links.map((link: { ifname: string }) => link.ifname).sort()).toEqual(['back0', 'front0']);
    await lab.startServers();
    expect(await runOkIn(lab.plan.servers[0]!.netns, ['curl', '-sS', 'http://10.0.2.12/'])).toBe('rs2\n');
  });

  it('of layout one-arm has all on one segment, and servers that hold the VIP in silence', async () => {
    const lab = await labUp(labPlan({ prefix: ONE, servers: 2, layout: 'one-arm' }));
    await lab.startServers();
    expect(await lab.curl('http://10.0.1.11/')).toBe('rs1\n');
    expect(await runOkIn(lab.plan.servers[0]!.netns, ['ip', 'route', 'get', lab.plan.vip])).toContain('local');
    await expect(lab.curl('--connect-timeout', '1', `http://${lab.plan.vip}/`)).rejects.toThrow('curl');
    expect(await runOkIn(lab.plan.client, ['ip', 'neighbour', 'show', lab.plan.vip])).not.toContain('lladdr');
  });

  it('without checksum offload lets the end systems finish their packets', async () => {
    const lab = await labUp(labPlan({ prefix: ONE, servers: 1, checksumOffload: false }));
    for (const netns of [lab.plan.client, lab.plan.servers[0]!.netns]) {
      const features = await runOkIn(netns, ['ethtool', '-k', 'eth0']);
      expect(features).toContain('tx-checksumming: off');
      expect(features).toContain('tcp-segmentation-offload: off');
    }
  });

  it('stands beside another one', async () => {
    const [one, two] = [
      await labUp(labPlan({ prefix: ONE, servers: 1 })),
      await labUp(labPlan({ prefix: TWO, servers: 1 })),
    ];
    await runOkIn(one.plan.client, ['ip', 'link', 'set', 'eth0', 'down']);
    expect(await runOkIn(two.plan.client, ['ip', '-br', 'link', 'show', 'eth0'])).toContain('UP');
    await one.down();
    expect(namespacesOf(TWO)).toHaveLength(3);
  });

  it('runs web servers that answer with their name', async () => {
    const lab = await labUp(labPlan({ prefix: ONE, servers: 2, layout: 'one-arm' }));
    await lab.startServers();
    expect(await lab.curl('http://10.0.1.11/')).toBe('rs1\n');
    expect(await lab.curl('http://10.0.1.12/client')).toMatch(/^10\.0\.1\.2:\d+\n$/);
    expect(await lab.curl('http://10.0.1.12/big?bytes=1000000')).toHaveLength(1_000_000);
    const echo = ['bash', '-c', `exec 3<>/dev/udp/${lab.plan.vip}/7; printf hello >&3; head -c 9 <&3`];
    expect((await lab.run(`${ONE}rs1`, echo)).stdout).toBe('rs1 hello');
    const pids = await pidsIn(`${ONE}rs1`);
    await lab.down();
    for (const pid of pids) expect(existsSync(`/proc/${pid}`)).toBe(false);
  });
});

describe('the configuration of a lab', () => {
  it('is the file of architecture.md §6', () => {
    const config = parse(labConfig(labPlan({ prefix: ONE, servers: 2 })));
    expect(config.devices.map((device: { name: string; bridge?: string }) => [device.name, device.bridge])).toEqual([
      ['front', 'br-front'],
      ['back', 'br-back'],
      ['host', undefined],
    ]);
    expect(config.ipvsadm).toContain('-A -t 10.0.1.100:80 -s rr\n-a -t 10.0.1.100:80 -r 10.0.2.11:80 -m -w 1\n');
  });
});
