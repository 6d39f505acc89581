/**
 * The unit file under a real systemd (PID 1 of namespaces of its own), installed by scripts/install over copies of /usr and /etc:
 * ready, reload, watchdog, stop, with the sandbox switched on. Nothing of it is seen outside.
 *
 *   sh in its own cgroup ─► unshare (mount, pid, net, uts, ipc, cgroup) ─► inner script ─► systemd ─► tapvsd.service
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Status } from '../src/control/api.ts';
import { type RunResult, run } from '../src/rtnl/netns.ts';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const SYSTEMD = '/lib/systemd/systemd';

const CONFIG = `devices:
  - { name: front, kind: tap, addresses: [10.0.1.1/24] }
  - { name: host, kind: tun, host: true, addresses: [10.0.3.1/30], peer: 10.0.3.2/30 }
addresses: [10.0.1.100/32]
sysctl: { net.ipv4.ip_forward: 1 }
ipvsadm: |
  -A -t 10.0.1.100:80 -s rr
  -a -t 10.0.1.100:80 -r 10.0.1.11:80 -m
`;

const dir = mkdtempSync(join(tmpdir(), 'tapvs-systemd-'));
const cgroupRoot = join(dir, 'cgroup');
const cgroup = join(cgroupRoot, `tapvs-systemd-${process.pid}`);

/** Preloaded into the daemon: lets its data worker hang at the next request once /run/hang names the process. */
const HANG = `const { isMainThread } = require('node:worker_threads');
const { readFileSync } = require('node:fs');
const store = Atomics.store;
const isMeant = () => { try { return Number(readFileSync('/run/hang', 'utf8')) === process.pid; } catch { return false; } };
if (!isMainThread) Atomics.store = (...args) => {
  if (isMeant()) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
  return store(...args);
};
`;

/** What runs as PID 1 until systemd takes its place. */
const INNER = `set -e
mount --make-rprivate /
mount -t proc proc /proc
mount -t tmpfs tmpfs /run
cp ${dir}/tapvs.yaml ${dir}/hang.cjs /run
umount -R /sys/fs/cgroup 2>/dev/null || umount -l /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p /dev/net
mount -t tmpfs tmpfs /dev/net
mknod -m 666 /dev/net/tun c 10 200        # as udev leaves it
ip link set lo up
mkdir /run/usr /run/usr-work /run/etc /run/etc-work
mount -t overlay overlay -o lowerdir=/usr,upperdir=/run/usr,workdir=/run/usr-work /usr
mount -t overlay overlay -o lowerdir=/etc,upperdir=/run/etc,workdir=/run/etc-work /etc
rm -rf /etc/systemd/system/*
${ROOT}scripts/install
cp /run/tapvs.yaml /etc/tapvs/tapvs.yaml
mkdir -p /etc/systemd/system/tapvsd.service.d
printf '%s\\n' '[Unit]' DefaultDependencies=no After= Wants= '[Service]' WatchdogSec=2s RestartSec=1s StandardOutput=append:/run/tapvsd.log StandardError=append:/run/tapvsd.log Environment=NODE_OPTIONS=--require=/run/hang.cjs >/etc/systemd/system/tapvsd.service.d/test.conf
printf '%s\\n' '[Unit]' DefaultDependencies=no >/etc/systemd/system/test.target
exec env -i container=x ${SYSTEMD} --system --unit=test.target
`;

/** Why it cannot be tried here; null when it can. */
async function obstacle(): Promise<string | null> {
  if (process.getuid?.() !== 0) return 'needs root';
  if (!existsSync(SYSTEMD)) return `there is no ${SYSTEMD}`;
  if (!existsSync(`${ROOT}dist/src/cli/tapvsd.js`)) return 'not built: run scripts/build';
  mkdirSync(cgroupRoot, { recursive: true });
  const mounted = await run(['mount', '-t', 'cgroup2', 'cgroup2', cgroupRoot]);
  if (mounted.status !== 0) return `cgroup2 cannot be mounted: ${mounted.stderr.trim()}`;
  const unshared = await run(['unshare', '-m', '-p', '-f', '-n', '-u', '-i', '-C', 'true']);
  return unshared.status === 0 ? null : `unshare: ${unshared.stderr.trim()}`;
}

const reason = await obstacle();
if (reason !== null) console.warn(`systemd.test.ts is skipped: ${reason}`);

let outer: ChildProcess;
let pid1 = '';

/** Runs a program in systemd's namespaces. */
const inside = (...argv: string[]): Promise<RunResult> =>
  run(['nsenter', '-t', pid1, '-m', '-p', '-n', '-u', '-i', '-C', '--', ...argv]);
const show = async (property: string): Promise<string> =>
  (await inside('systemctl', 'show', '-p', property, '--value', 'tapvsd')).stdout.trim();
const log = async (): Promise<string> => (await inside('cat', '/run/tapvsd.log')).stdout;

/** Asks again until it is so; each question is a program that runs to its end. */
async function until(what: string, ask: () => Promise<boolean>, seconds = 20): Promise<void> {
  const end = Date.now() + seconds * 1000;
  while (!(await ask())) {
    if (Date.now() > end || outer.exitCode !== null) {
      throw new Error(`${what}: not within ${seconds} s; ${readFileSync(join(dir, 'outer.log'), 'utf8').slice(-2000)}`);
    }
  }
}

describe.skipIf(reason !== null)(`the unit under systemd${reason === null ? '' : ` (skipped: ${reason})`}`, () => {
  beforeAll(async () => {
    mkdirSync(cgroup);
    writeFileSync(join(dir, 'inner.sh'), INNER);
    writeFileSync(join(dir, 'tapvs.yaml'), CONFIG);
    writeFileSync(join(dir, 'hang.cjs'), HANG);
    const unshare = `exec unshare -m -p -f -n -u -i -C --kill-child=KILL sh ${dir}/inner.sh >${dir}/outer.log 2>&1`;
    outer = spawn('sh', ['-c', `echo 0 >${cgroup}/cgroup.procs; ${unshare}`], { stdio: 'ignore' });
    await until('PID 1', async () => {
      pid1 = readFileSync(`/proc/${outer.pid}/task/${outer.pid}/children`, 'utf8').trim();
      return pid1 !== '';
    });
    await until(
      'systemd',
      async () => (await inside('systemctl', 'is-system-running')).stdout.trim() === 'running',
      40,
    );
  });

  afterAll(async () => {
    if (outer?.exitCode === null && outer.signalCode === null) {
      const ended = once(outer, 'exit');
      outer.kill('SIGKILL'); // PID 1 dies with it, and everything below PID 1
      await ended;
    }
    if (existsSync(cgroup)) {
      await until('empty cgroup', async () =>
        readFileSync(join(cgroup, 'cgroup.events'), 'utf8').includes('populated 0'),
      );
      removeCgroup(cgroup);
    }
    if (existsSync(cgroupRoot)) await run(['umount', cgroupRoot]);
    rmSync(dir, { recursive: true });
  });

  it('is ready when start returns', async () => {
    const { status, stderr } = await inside('systemctl', 'start', 'tapvsd');
    expect({ status, stderr, log: status === 0 ? '' : await log() }).toEqual({ status: 0, stderr: '', log: '' });
    expect(await show('ActiveState')).toBe('active');
    expect(await show('StatusText')).toBe('serving 1 services, 1 servers, 2 devices');
    const { stdout } = await inside('curl', '-sS', '--unix-socket', '/run/tapvs/tapvs.sock', 'http://tapvs/v1/status');
    expect((JSON.parse(stdout) as Status).devices.map((device) => device.name)).toEqual(['front', 'host']);
    expect((await inside('tapvs', 'ipvsadm', '-Ln')).stdout).toContain('TCP  10.0.1.100:80 rr');
  });

  it('has CAP_NET_ADMIN and no other, and is not root', async () => {
    const { stdout } = await inside('cat', `/proc/${await show('MainPID')}/status`);
    expect(stdout).toMatch(/^CapEff:\s+0000000000001000$/m); // bit 12
    expect(stdout).toMatch(/^Uid:\s+[1-9]\d{3,}/m);
    const { stdout: said } = await inside('systemd-analyze', 'security', '--no-pager', 'tapvsd');
    const level = /Overall exposure level for tapvsd\.service: ([\d.]+)/.exec(said)?.[1];
    expect(Number(level)).toBeLessThan(2.5);
  });

  it('set the host port up with that', async () => {
    expect((await inside('ip', 'rule')).stdout).toContain('lookup 7791');
    expect((await inside('ip', '-br', '-4', 'addr', 'show', 'dev', 'host')).stdout).toContain('10.0.1.100/32');
  });

  it('reloads', async () => {
    await inside('sed', '-i', 's/-s rr/-s wrr/', '/etc/tapvs/tapvs.yaml');
    expect((await inside('systemctl', 'reload', 'tapvsd')).status).toBe(0);
    await until('the new scheduler', async () => (await inside('tapvs', 'ipvsadm', '-Ln')).stdout.includes(':80 wrr'));
    expect(await show('ActiveState')).toBe('active');
    expect(await show('NRestarts')).toBe('0');
  });

  it('is restarted by the watchdog when it hangs', async () => {
    const before = await show('MainPID');
    await inside('kill', '-STOP', before);
    await until(
      'the restart',
      async () => (await show('NRestarts')) === '1' && (await show('ActiveState')) === 'active',
    );
    expect(await show('MainPID')).not.toBe(before);
    expect((await inside('tapvs', 'ipvsadm', '-Ln')).stdout).toContain('TCP  10.0.1.100:80 wrr');
  });

  it('is restarted by the watchdog when only its data worker hangs', async () => {
    const before = await show('MainPID');
    await inside('sh', '-c', `echo ${before} >/run/hang`);
    await until(
      'the restart',
      async () => (await show('NRestarts')) === '2' && (await show('ActiveState')) === 'active',
    );
    expect(await show('MainPID')).not.toBe(before);
  });

  it.each([
    ['systemctl restart', ['systemctl', 'restart', 'tapvsd']],
    ['kill -9', ['systemctl', 'kill', '--kill-who=main', '-s', 'KILL', 'tapvsd']],
    ['SIGUSR2', ['systemctl', 'kill', '--kill-who=main', '-s', 'USR2', 'tapvsd']],
  ])('%s: the next process goes on with devices and connections', async (_, restart) => {
    const devices = async (): Promise<string> =>
      (await inside('ip', '-o', 'link')).stdout.match(/\d+: (front|host):/g)!.join();
    const connections = async (): Promise<string[]> =>
      [...(await inside('tapvs', 'ipvsadm', '-Lnc')).stdout.matchAll(/SYN_RECV +\S+/g)].map(String).sort();
    // Nobody answers, but the connection is known.
    await inside('curl', '-s', '--max-time', '0.2', 'http://10.0.1.100/');
    const before = { devices: await devices(), connections: await connections() };
    expect(before.connections.length).toBeGreaterThan(0);
    const pid = await show('MainPID');
    const logged = (await log()).length;
    expect((await inside(...restart)).status).toBe(0);
    await until('the next process', async () => (await log()).slice(logged).includes('tapvsd is ready'));
    expect(await show('MainPID')).not.toBe(pid);
    expect((await log()).slice(logged)).toContain('went on from the life before');
    expect({ devices: await devices(), connections: await connections() }).toEqual(before);
    expect(await show('ActiveState')).toBe('active');
  });

  it('begins with nothing when it was stopped between', async () => {
    expect((await inside('systemctl', 'stop', 'tapvsd')).status).toBe(0);
    expect((await inside('ip', '-br', 'link')).stdout).not.toMatch(/^(front|host)\b/m);
    expect((await inside('systemctl', 'start', 'tapvsd')).status).toBe(0);
    expect((await inside('tapvs', 'ipvsadm', '-Lnc')).stdout).not.toContain('SYN_RECV');
  });

  it.each([
    ['packet', '- { name: wire, kind: packet, interface: wire0, addresses: [10.0.7.1/24] }'],
    ['netns', '- { name: wire, kind: tap, netns: away, addresses: [10.0.7.1/24] }'],
  ])('opens a device of that sort with the drop-in %s.conf', async (name, device) => {
    const service = '/etc/systemd/system/tapvsd.service.d';
    await inside('sh', '-c', 'ip link add wire0 type veth peer wire1; mkdir -p /run/netns; ip netns add away');
    await inside('cp', '/etc/tapvs/tapvs.yaml', '/run/before.yaml');
    await inside('sed', '-i', `s|^devices:|&\\n  ${device}|`, '/etc/tapvs/tapvs.yaml');
    expect((await inside('systemctl', 'restart', 'tapvsd')).status).toBe(1);
    expect(await show('ExecMainStatus')).toBe('77');
    await inside('cp', `/usr/lib/tapvs/systemd/${name}.conf`, service);
    await inside('systemctl', 'daemon-reload');
    const { status } = await inside('systemctl', 'restart', 'tapvsd');
    expect({ status, log: status === 0 ? '' : await log() }).toEqual({ status: 0, log: '' });
    await inside('rm', `${service}/${name}.conf`);
    await inside('cp', '/run/before.yaml', '/etc/tapvs/tapvs.yaml');
    await inside('systemctl', 'daemon-reload');
    expect((await inside('systemctl', 'restart', 'tapvsd')).status).toBe(0);
  });

  it('is not restarted with a bad configuration', async () => {
    await inside('sed', '-i', 's/^devices/devcies/', '/etc/tapvs/tapvs.yaml');
    await inside('systemctl', 'restart', 'tapvsd');
    expect(await show('ActiveState')).toBe('failed');
    expect(await log()).toContain("devcies: unknown key (did you mean 'devices'?)");
    await inside('sed', '-i', 's/^devcies/devices/', '/etc/tapvs/tapvs.yaml');
    expect((await inside('systemctl', 'restart', 'tapvsd')).status).toBe(0);
  });

  it('stops and leaves nothing', async () => {
    expect((await inside('systemctl', 'stop', 'tapvsd')).status).toBe(0);
    expect(await show('Result')).toBe('success');
    expect((await inside('ip', '-br', 'link')).stdout).not.toMatch(/^(front|host)\b/m);
    expect((await inside('ip', 'rule')).stdout).not.toContain('779');
    expect((await inside('ls', '/run/tapvs')).status).not.toBe(0);
  });

  it('is taken away by --uninstall', async () => {
    expect((await inside(`${ROOT}scripts/install`, '--uninstall')).status).toBe(0);
    const left = await inside('ls', '/usr/lib/tapvs', '/usr/bin/tapvsd', '/usr/lib/systemd/system/tapvsd.service');
    expect(left.stdout).toBe('');
    expect((await inside('cat', '/etc/tapvs/tapvs.yaml')).stdout).toContain('devices:');
  });
});

/** A cgroup goes by rmdir, its children first. */
function removeCgroup(path: string): void {
  for (const entry of readdirSync(path, { withFileTypes: true })) {
    if (entry.isDirectory()) removeCgroup(join(path, entry.name));
  }
  rmdirSync(path);
}

// A skipped run must not leave the mount that was tried.
if (reason !== null) {
  afterAll(async () => {
    await run(['umount', cgroupRoot]);
    rmSync(dir, { recursive: true, force: true });
  });
}
