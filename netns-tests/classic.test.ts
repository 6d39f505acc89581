// The textbook's topology and its lessons, brought up by `tapvs lab` as a person would:
//
//   client eth0 192.168.2.254 ── br-front ── VIP 192.168.2.110 tapvsd DIP 192.168.1.9 ── br-back ── rs1 192.168.1.2, rs2 192.168.1.3
//          eth1 192.168.1.254 ───────────────────────────────────────────────────────────┘        (VIP on lo, silent)
//
// Direct routing: requests by eth0, answers straight back on eth1. NAT: answers must cross the director, by the servers'
// default route or by a source-routed table.
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, describe, expect, it } from 'vitest';
import { Lab } from '../src/lab/lab.ts';
import { LAB_BACK_MAC, LAB_FRONT_MAC, type LabMethod, labPlan } from '../src/lab/plan.ts';
import { listNetns, type RunResult, run, spawnIn } from '../src/rtnl/netns.ts';
import { describeFrame } from '../src/wire/build.ts';
import { watch } from './watch.ts';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const PREFIX = `tcla${process.pid}-`;
const [CIP, CIP_BACK, VIP, DIP, RIP] = [
  '192.168.2.254',
  '192.168.1.254',
  '192.168.2.110',
  '192.168.1.9',
  '192.168.1.2',
];

const tapvsLab = (...words: string[]): Promise<RunResult> =>
  run([`${ROOT}bin/tapvs`, 'lab', ...words, '--prefix', PREFIX], { timeoutMs: 50_000 });
async function up(method: LabMethod): Promise<Lab> {
  const { status, stderr } = await tapvsLab('up', '--topology', 'classic', '--method', method, '--servers', '2');
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  return new Lab(labPlan({ prefix: PREFIX, layout: 'classic', method, servers: 2 }));
}
const mine = (): string[] => listNetns().filter((name) => name.startsWith(PREFIX));

afterAll(async () => {
  await tapvsLab('down');
});

describe('the classic topology', () => {
  it('dr: only the director answers ARP for the VIP, and answers come in by the other interface', async () => {
    const lab = await up('dr');
    const { client, servers } = lab.plan;
    const asked = await lab.run(client, ['arping', '-b', '-c', '2', '-w', '1', '-I', 'eth0', VIP]);
    const macs = [...asked.stdout.matchAll(/\[([0-9A-F:]+)\]/gi)].map((match) => match[1]!.toLowerCase());
    expect(new Set(macs)).toEqual(new Set([LAB_FRONT_MAC]));
    // Nor does a server when it is asked on the network where it is.
    const back = await lab.run(client, ['arping', '-b', '-c', '2', '-w', '1', '-I', 'eth1', '-s', CIP_BACK, VIP]);
    expect(back.stdout).not.toMatch(new RegExp(servers.map((server) => server.mac).join('|'), 'i'));

    const [eth0, eth1] = [
      await watch(client, 'eth0', `${lab.plan.runDir}/eth0.pcap`, 'tcp'),
      await watch(client, 'eth1', `${lab.plan.runDir}/eth1.pcap`, 'tcp'),
    ];
    expect([await lab.curl(`http://${VIP}/`), await lab.curl(`http://${VIP}/`)].sort()).toEqual(['rs1\n', 'rs2\n']);
    const there = (await eth0.frames()).map(describeFrame);
    const here = (await eth1.frames()).map(describeFrame);
    expect(there.filter((line) => !line.includes(`> ${LAB_FRONT_MAC} IP ${CIP}.`))).toEqual([]);
    expect(here.filter((line) => !line.includes(` IP ${VIP}.80 > ${CIP}.`))).toEqual([]);
    expect(here.some((line) => line.startsWith(`${servers[0]!.mac} > `))).toBe(true);
    expect((await tapvsLab('status')).stdout).toMatch(/rs1: all is well\n.*rs2: all is well\n/s);
  });

  it('nat: the three rows of addresses; and what happens when a server answers past the director', async () => {
    const lab = await up('nat');
    const { client, servers, runDir } = lab.plan;
    const rs1 = servers[0]!.netns;
    for (const server of servers.slice(1))
      await lab.tapvs('ipvsadm', '-d', '-t', `${VIP}:80`, '-r', `${server.address}:80`);
    const [atClient, atServer] = [
      await watch(client, 'eth0', `${runDir}/c.pcap`, 'tcp'),
      await watch(rs1, 'eth0', `${runDir}/s.pcap`, 'tcp'),
    ];
    expect(await lab.curl(`http://${VIP}/`)).toBe('rs1\n');
    const [seen, served] = [(await atClient.frames()).map(describeFrame), (await atServer.frames()).map(describeFrame)];
    const way = (lines: string[], from: string, to: string): boolean =>
      lines.some((line) => new RegExp(` IP ${from}\\.\\d+ > ${to}\\.\\d+: tcp`).test(line));
    expect([way(seen, CIP, VIP), way(served, CIP, RIP), way(served, RIP, CIP), way(seen, VIP, CIP)]).toEqual([
      true,
      true,
      true,
      true,
    ]);
    expect([way(seen, RIP, CIP), way(served, CIP, VIP)]).toEqual([false, false]);

    // The server's default route goes to the client's router instead: the client gets SYN+ACK from a stranger.
    await lab.run(rs1, ['ip', 'route', 'replace', 'default', 'via', CIP_BACK]);
    await expect(lab.curl('--connect-timeout', '1', `http://${VIP}/`)).rejects.toThrow('curl');
    const sick = await lab.doctor(rs1);
    expect(sick.status).toBe(1);
    expect(sick.text).toContain(
      `WRONG  answers from ${RIP} to clients go via ${CIP_BACK} instead of through the director ${DIP}`,
    );

    // What the textbook does about it: only what comes from the server's own address goes to the director.
    const start = [
      `${ROOT}scripts/realserver`,
      'start',
      '--method',
      'nat',
      '--director',
      DIP,
      '--source-routed',
      '--state-dir',
      runDir,
    ];
    expect(await lab.run(rs1, start)).toMatchObject({ status: 0, stderr: '' });
    expect((await lab.run(rs1, ['ip', 'rule'])).stdout).toMatch(new RegExp(`from ${RIP} lookup (80|lvs)`));
    const trace = await watch(rs1, 'eth0', `${runDir}/b19.pcap`, 'tcp');
    expect(await lab.curl(`http://${VIP}/`)).toBe('rs1\n');
    const answers = (await trace.frames()).map(describeFrame).filter((line) => line.includes(` IP ${RIP}.80 > `));
    expect(answers.length).toBeGreaterThan(2);
    expect(answers.filter((line) => !line.startsWith(`${servers[0]!.mac} > ${LAB_BACK_MAC} `))).toEqual([]);
    expect((await lab.doctor(rs1)).text).toMatch(/all is well\n$/);
  }, 120_000);
});

describe('tapvs lab', () => {
  afterEach(async () => {
    await tapvsLab('down');
  });

  it('says that a lab is up already, and takes it down with everything in it', async () => {
    await up('dr');
    const again = await tapvsLab('up', '--topology', 'classic', '--method', 'dr', '--servers', '2');
    expect(again).toMatchObject({ status: 0, stdout: expect.stringMatching(/^the lab is up already\n/) });
    expect(await tapvsLab('down')).toMatchObject({ status: 0, stdout: 'the lab is down\n' });
    expect(mine()).toEqual([]);
    expect(existsSync(`/run/tapvs-lab-${PREFIX}`)).toBe(false);
    expect(await tapvsLab('down')).toMatchObject({ status: 0, stdout: 'no lab was up\n' });
    expect(await tapvsLab('status')).toMatchObject({ status: 3, stdout: 'no lab is up\n' });
  });

  it('leaves nothing when it is interrupted while it builds, and down removes what a killed one left', async () => {
    const program = [process.execPath, `${ROOT}dist/src/lab/main.js`, 'up', '--servers', '9', '--prefix', PREFIX];
    for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
      const child = spawnIn(null, program);
      const ended = new Promise((resolve) => child.once('exit', (_, by) => resolve(by)));
      while (mine().length < 3 && child.exitCode === null) await new Promise((resolve) => setImmediate(resolve));
      child.kill(signal);
      expect(await ended).toBe(signal);
      if (signal === 'SIGTERM') expect(mine()).toEqual([]);
    }
    expect(mine().length).toBeGreaterThan(0);
    expect(await tapvsLab('down')).toMatchObject({ status: 0, stdout: 'the lab is down\n' });
    expect(mine()).toEqual([]);
  });

  it.each([
    [['up', '--method', 'direct'], "--method is one of nat, dr, tun, not 'direct'"],
    [['up', '--servers', '0'], 'a lab has 1 to 99 servers, not 0'],
    [['up', '--servers', 'many'], "--servers is a number, not 'many'"],
    [['up', '--topology', 'ring'], "--topology is one of lab, classic, not 'ring'"],
    [['sideways'], 'no such action: sideways'],
    [['up', 'down'], 'unexpected "down"'],
    [['up', '--fast'], 'unknown option --fast'],
  ])('refuses %j', async (words, message) => {
    const { status, stderr } = await tapvsLab(...words);
    expect(stderr).toContain(message);
    expect(status).toBe(64);
    expect(mine()).toEqual([]);
  });
});
