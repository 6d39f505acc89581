// The daemon's life under traffic: it reloads, ends, is killed and starts again.
//
//   client ─ [front] tapvsd [back] ─ rs1 rs2 rs3
//
// One lab, one daemon at a time; each test leaves a running daemon behind.
import type { ChildProcess } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Lab, labUp } from '../src/lab/lab.ts';
import { labConfig, labPlan } from '../src/lab/plan.ts';
import { runOkIn, spawnIn, waitForLine } from '../src/rtnl/netns.ts';
import { endOf, logged } from './daemon-log.ts';

const plan = labPlan({ prefix: `tlc${process.pid}-`, servers: 3 });
const { director, client, socket, vip, logFile, configFile } = plan;
const [rs1 = '', rs2 = '', rs3 = ''] = plan.servers.map(({ address }) => address);
const url = `http://${vip}`;
const SECOND_VIP = '10.0.1.101';

/** Two servers, equal weights. */
const FIRST = labConfig(plan, {
  ipvsadm: `-A -t ${vip}:80 -s wrr\n-a -t ${vip}:80 -r ${rs1}:80 -m -w 1\n-a -t ${vip}:80 -r ${rs2}:80 -m -w 1\n`,
});
/** rs1 has more weight, rs3 joins, a second VIP appears. */
const SECOND = labConfig(plan, {
  ipvsadm:
    `-A -t ${vip}:80 -s wrr\n-a -t ${vip}:80 -r ${rs1}:80 -m -w 3\n-a -t ${vip}:80 -r ${rs2}:80 -m -w 1\n` +
    `-a -t ${vip}:80 -r ${rs3}:80 -m -w 1\n-A -t ${SECOND_VIP}:80 -s rr\n-a -t ${SECOND_VIP}:80 -r ${rs3}:80 -m -w 1\n`,
}).replace(`addresses: [${vip}/32]`, `addresses: [${vip}/32, ${SECOND_VIP}/32]`);

let lab: Lab;
let daemon: ChildProcess;

/** What the kernel of the director's namespace holds: everything that a daemon could leave behind. */
async function kernelState(): Promise<string> {
  const links = await runOkIn(director, ['ip', '-o', 'link', 'show']);
  const rules = await runOkIn(director, ['ip', 'rule', 'show']);
  const routes = await runOkIn(director, ['ip', 'route', 'show', 'table', 'all']);
  const addresses = await runOkIn(director, ['ip', '-o', '-4', 'address', 'show']);
  // Without the numbers that the kernel gives: indexes and counters.
  const names = links
    .split('\n')
    .map((line) => /^\d+: ([^:@]+)/.exec(line)?.[1] ?? '')
    .sort();
  return [names.join(' '), rules, routes, addresses.replace(/^\d+: /gm, '')].join('\n');
}

async function list(): Promise<string> {
  return (await lab.tapvs('ipvsadm', '-Ln')).stdout;
}

/** Writes the file, sends SIGHUP and waits for the log line that ends the reload. */
async function reload(config: string, pattern: RegExp): Promise<string> {
  writeFileSync(configFile, config);
  const from = endOf(logFile);
  daemon.kill('SIGHUP');
  return logged(logFile, pattern, from);
}

function ended(child: ChildProcess): Promise<number | string | null> {
  return new Promise((resolve) => child.once('exit', (code, signal) => resolve(code ?? signal)));
}

/** A download of `chunks` lines, one each 100 ms; `begun` when the first one has arrived. */
function slowDownload(chunks: number): { begun: Promise<string>; text: Promise<string> } {
  const child = spawnIn(client, ['curl', '-sS', '-N', '--max-time', '30', `${url}/slow?chunks=${chunks}&ms=100`]);
  let text = '';
  child.stdout?.on('data', (chunk: Buffer) => {
    text += chunk.toString();
  });
  return {
    begun: waitForLine(child, /^1$/),
    text: new Promise((resolve) =>
      child.once('close', (status) => resolve(status === 0 ? text : `status ${status}: ${text}`)),
    ),
  };
}

const lines = (count: number): string => Array.from({ length: count }, (_, i) => `${i + 1}\n`).join('');

async function answers(address: string, count: number): Promise<string> {
  const urls = Array.from({ length: count }, () => `http://${address}/`);
  return (await lab.curl('-H', 'Connection: close', ...urls)).trim().split('\n').sort().join(' ');
}

/** Four programs that download without end; resolves when answers come. */
async function startLoad(): Promise<ChildProcess[]> {
  const loop = `while :; do curl -s --max-time 1 ${url}/big?bytes=100000 >/dev/null; done`;
  const load = Array.from({ length: 4 }, () => lab.spawn(client, ['sh', '-c', loop]));
  // The loops take their turns of the same round robin, so which of the servers answers is open; that one does is not.
  expect(await answers(vip, 4)).toMatch(/^rs[12]( rs[12]){3}$/);
  return load;
}

beforeAll(async () => {
  lab = await labUp(plan);
  await lab.startServers();
});
afterAll(async () => {
  await lab?.down();
});

describe('before it runs', () => {
  it('`tapvs status` says so with exit status 69', async () => {
    const { status, stderr } = await lab.tapvs('status');
    expect(status).toBe(69);
    expect(stderr).toContain(socket);
  });

  it('`check` tells a good file from a bad one by its exit status', async () => {
    writeFileSync(configFile, FIRST);
    expect(await lab.tapvsd('check', '--config', configFile)).toMatchObject({ status: 0, stderr: '' });
    writeFileSync(configFile, FIRST.replace('kind: tap', 'kind: tab'));
    const { status, stderr } = await lab.tapvsd('check', '--config', configFile);
    expect(status).toBe(78);
    expect(stderr).toMatch(new RegExp(`^${configFile}:3:\\d+: devices.*'tab' is not one of`));
  });

  it('`--dry-run` prints the plan and changes nothing', async () => {
    writeFileSync(configFile, FIRST);
    const before = await kernelState();
    const { status, stdout } = await lab.tapvsd('--dry-run', '--config', configFile);
    expect(status).toBe(0);
    expect(stdout).toMatch(/^\+ device front tap /m);
    expect(stdout).toContain(`+ address ${vip}/32 dev lo\n`);
    expect(stdout).toMatch(new RegExp(`^\\+ server ${vip}:80 → ${rs2}:80 `, 'm'));
    expect(await kernelState()).toBe(before);
  });
});

describe('running', () => {
  let pristine: string;

  beforeAll(async () => {
    pristine = await kernelState();
    daemon = await lab.startDaemon(FIRST);
  });

  it('answers `tapvs status` with exit status 0', async () => {
    expect((await lab.tapvs('status')).status).toBe(0);
  });

  it('applies a changed file on SIGHUP, and no established flow notices', async () => {
    expect(await answers(vip, 4)).toBe('rs1 rs1 rs2 rs2');
    const download = slowDownload(25);
    await download.begun;
    await reload(SECOND, /configuration reloaded/);
    expect(await answers(vip, 5)).toBe('rs1 rs1 rs1 rs2 rs3');
    expect(await lab.curl(`http://${SECOND_VIP}/`)).toBe('rs3\n');
    expect(await download.text).toBe(lines(25));
    expect(await list()).toMatch(new RegExp(`-> ${rs1}:80 +Masq +3 `));
  });

  it('takes away on SIGHUP what the file no longer has', async () => {
    await reload(FIRST, /configuration reloaded/);
    expect(await answers(vip, 4)).toBe('rs1 rs1 rs2 rs2');
    expect(await list()).not.toContain(SECOND_VIP);
    await expect(lab.curl('--connect-timeout', '1', `http://${SECOND_VIP}/`)).rejects.toThrow('curl');
  });

  it('leaves alone what was added at run time', async () => {
    await lab.tapvs('ipvsadm', '-A', '-t', `${vip}:8080`, '-s', 'rr');
    await lab.tapvs('ipvsadm', '-a', '-t', `${vip}:8080`, '-r', `${rs2}:80`, '-m');
    await reload(SECOND, /configuration reloaded/);
    expect(await lab.curl(`${url}:8080/`)).toBe('rs2\n');
    await reload(FIRST, /configuration reloaded/);
    expect(await lab.curl(`${url}:8080/`)).toBe('rs2\n');
  });

  it('refuses a broken file, saying where, and goes on as before', async () => {
    const before = await list();
    const download = slowDownload(5);
    await download.begun;
    const broken = SECOND.replace('devices:', 'devises:');
    const line = await reload(broken, /not reloaded|tapvs\.yaml:\d/);
    expect(line).toMatch(
      /tapvs\.yaml:1:1: devises: unknown key \(did you mean 'devices'\?\)|tapvs\.yaml:1:1: .*devices/,
    );
    expect(await download.text).toBe(lines(5));
    expect((await list()).replace(/\d+ +\d+ *$/gm, '')).toBe(before.replace(/\d+ +\d+ *$/gm, ''));
    expect(await answers(vip, 2)).toBe('rs1 rs2');
    // An error in the block of ipvsadm has its own line, not that of the block.
    const bad = FIRST.replace(`-r ${rs2}:80 -m -w 1`, `-r ${rs2}:80 -m -w x`);
    const at = bad.split('\n').findIndex((text) => text.includes('-w x')) + 1;
    expect(await reload(bad, /not reloaded|tapvs\.yaml:\d/)).toContain(`tapvs.yaml:${at}:`);
    await reload(FIRST, /configuration reloaded/);
  });

  it('makes a TAP that somebody deleted anew with the next SIGHUP', async () => {
    const from = endOf(logFile);
    await runOkIn(director, ['ip', 'link', 'del', 'front']);
    expect(await logged(logFile, /"device":"front".*the device is gone/, from)).toContain('"level":40');
    await expect(lab.curl('--connect-timeout', '0.5', `${url}/`)).rejects.toThrow('curl');
    await reload(FIRST, /configuration reloaded/);
    expect(await answers(vip, 2)).toBe('rs1 rs2');
  });

  it('is the only one on its socket', async () => {
    const { status, stdout, stderr } = await lab.tapvsd('--config', configFile, '--socket', socket);
    expect(status).toBeGreaterThan(0);
    expect(stdout + stderr).toContain(`another tapvsd listens on ${socket}`);
    expect(await answers(vip, 2)).toBe('rs1 rs2');
    expect(daemon.exitCode).toBeNull();
  });

  it('killed under load, starts again at once and leaves nothing double', async () => {
    const before = await kernelState();
    expect(before).toContain('lookup 7791'); // the host port's rules are among what is compared
    const load = await startLoad();
    // A yardstick under the same load: the program's own code read and the file checked, nothing opened.
    const checking = performance.now();
    expect((await lab.tapvsd('check', '--config', configFile)).status).toBe(0);
    const limit = Math.max(2000, 4 * (performance.now() - checking));
    const death = ended(daemon);
    daemon.kill('SIGKILL');
    expect(await death).toBe('SIGKILL');
    expect(existsSync(socket)).toBe(true); // the next one must make do with it
    const start = performance.now();
    const starting = lab.startDaemon(FIRST);
    const retry = `until curl -sS --connect-timeout 0.1 --max-time 1 ${url}/ 2>/dev/null; do :; done`;
    const first = await runOkIn(client, ['sh', '-c', retry], { timeoutMs: 10_000 });
    const took = performance.now() - start;
    daemon = await starting;
    expect(first).toMatch(/^rs[12]\n$/);
    expect(took).toBeLessThan(limit); // 2 s, unless the machine is so busy that a mere check takes half of one
    expect(await kernelState()).toBe(before);
    await Promise.all(load.map((child) => lab.stop(child)));
  });

  it('ends on SIGTERM under load with status 0, at once, and takes everything along', async () => {
    const load = await startLoad();
    const from = endOf(logFile);
    const start = performance.now();
    const death = ended(daemon);
    daemon.kill('SIGTERM');
    expect(await death).toBe(0);
    expect(performance.now() - start).toBeLessThan(1000);
    await Promise.all(load.map((child) => lab.stop(child)));
    expect(readFileSync(logFile).subarray(from).toString()).not.toMatch(/"level":(50|60)/);
    expect(existsSync(socket)).toBe(false);
    expect(await kernelState()).toBe(pristine);
    expect((await lab.tapvs('status')).status).toBe(69);
  });
});
