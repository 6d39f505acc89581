// The daemon is restarted and killed under load, and nobody loses a connection: bench/restart-rig.ts, smaller (`node dist/bench/restart.js` is the full size).
import { readFileSync, writeFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  type BulkReport,
  type HoldReport,
  type NewReport,
  type Peer,
  type PingReport,
  RestartRig,
} from '../bench/restart-rig.ts';
import { endOf, logged } from './daemon-log.ts';

const HELD = 400;
const RATE = 200;
const BULK = 150_000_000;
/** No promise (docs/restart.md has figures), only that nothing waited for a timeout of its own: other tests have this machine, too. */
const SANE_MS = 5_000;

let rig: RestartRig;
let ping: Peer;
let hold: Peer;
let fresh: Peer;

beforeAll(async () => {
  rig = await RestartRig.up(`trs${process.pid}-`);
  hold = await rig.client('hold', HELD);
  expect(await hold.next<HoldReport>()).toEqual({ answered: HELD, silent: 0, moved: 0, errors: {} });
  ping = await rig.client('ping');
  fresh = await rig.client('new', RATE);
});

afterAll(async () => {
  for (const peer of [ping, hold, fresh]) peer?.end();
  await rig?.down();
});

/** Of each host: connections that were reset while they were open, or before (TcpEstabResets and TcpAttemptFails of RFC 4022). */
async function resets(): Promise<string[]> {
  const hosts = [rig.plan.client, ...rig.plan.servers.map(({ netns }) => netns)];
  return await Promise.all(
    hosts.map(async (netns) => {
      const { stdout } = await rig.lab.run(netns, ['grep', '^Tcp:', '/proc/net/snmp']);
      const [names = [], values = []] = stdout.split('\n').map((line) => line.split(' '));
      return ['EstabResets', 'AttemptFails']
        .map((name) => `${netns} ${name} ${values[names.indexOf(name)]}`)
        .join(', ');
    }),
  );
}

describe('a restart under load', () => {
  it.each([
    ['SIGUSR2 to the supervisor', () => rig.supervisor.kill('SIGUSR2')],
    ['kill -9 of the daemon', () => process.kill(rig.daemonPid(), 'SIGKILL')],
    ['SIGUSR2 once more', () => rig.supervisor.kill('SIGUSR2')],
  ])('by %s: no connection is lost', async (_, restart) => {
    const { logFile } = rig.plan;
    const resetBefore = await resets();
    const bulk = await rig.client('bulk', BULK);
    await ping.ask<PingReport>();
    await fresh.ask<NewReport>();
    const before = rig.daemonPid();
    const from = endOf(logFile);
    restart();
    const line = JSON.parse(await logged(logFile, /went on from the life before/, from)) as Record<string, number>;
    expect(line.pid).not.toBe(before);
    expect(line).toMatchObject({ devices: 3, services: 3, dropped: 0 });
    expect(line.connections).toBeGreaterThanOrEqual(HELD);
    expect(line.entries).toBeGreaterThanOrEqual(HELD);
    expect(await hold.ask<HoldReport>()).toEqual({ answered: HELD, silent: 0, moved: 0, errors: {} });
    const { bytes, intact } = await bulk.next<BulkReport>();
    expect({ bytes, intact }).toEqual({ bytes: BULK, intact: true });
    const pinged = await ping.ask<PingReport>();
    expect(pinged.error).toBeUndefined();
    expect(pinged.longestMs).toBeLessThan(SANE_MS);
    const opened = await fresh.ask<NewReport>();
    expect(opened.errors).toEqual({});
    expect(opened.done).toBeGreaterThan(0);
    await logged(logFile, /tapvsd is ready/, from);
    expect(await resets()).toEqual(resetBefore);
    console.log(
      `pause ${line.pauseMs} ms; longest of ping-pong ${pinged.longestMs} ms; slowest new connection ${opened.slowestMs} ms`,
    );
  });

  it('keeps what operators have set', async () => {
    const { stdout } = await rig.lab.tapvs('sysctl', '-n', 'net.ipv4.vs.conntrack');
    expect(stdout).toBe('1\n');
    const rules = await rig.lab.tapvs('iptables-save');
    expect(rules.stdout).toContain('-A INPUT -m conntrack --ctstate INVALID -j DROP');
  });
});

describe('what a restart applies, and when nothing is taken over', () => {
  it('the file as it is now, by the difference; held connections talk on', async () => {
    const { configFile, logFile, servers, vip } = rig.plan;
    const [{ address } = { address: '' }] = servers;
    const text = readFileSync(configFile, 'utf8');
    const line = `-a -t ${vip}:4000 -r ${address}:4000 -m`;
    writeFileSync(configFile, text.replace(line, `${line} -w 7`));
    const from = endOf(logFile);
    rig.supervisor.kill('SIGUSR2');
    await logged(logFile, /went on from the life before/, from);
    await logged(logFile, /tapvsd is ready/, from);
    expect((await rig.lab.tapvs('ipvsadm', '-Ln')).stdout).toMatch(new RegExp(`${address}:4000 +Masq +7 `));
    expect(JSON.parse((await rig.lab.tapvs('status', '--json')).stdout)).toMatchObject({ generation: 2 });
    expect(await hold.ask<HoldReport>()).toEqual({ answered: HELD, silent: 0, moved: 0, errors: {} });
  });

  it('lives that take over and die at once end with one that begins with nothing', async () => {
    const { logFile } = rig.plan;
    const all = endOf(logFile);
    const said = (): string => readFileSync(logFile).subarray(all).toString();
    // The first may still be one that took over, or one that has lasted.
    for (let kills = 0; kills < 3 && !said().includes('begins with nothing'); kills++) {
      const from = endOf(logFile);
      process.kill(rig.daemonPid(), 'SIGKILL');
      await logged(logFile, /tapvsd is ready/, from);
    }
    expect(said()).toContain('the last 2 lives that went on from it ended within 5 s');
    expect((await rig.lab.tapvs('ipvsadm', '-Ln')).stdout).toContain(`TCP  ${rig.plan.vip}:4000 rr`);
    expect((await rig.lab.tapvs('iptables-save')).stdout).not.toContain('INVALID');
  });
});

describe('the end', () => {
  it('SIGTERM ends it for good, and takes everything away', async () => {
    for (const peer of [ping, hold, fresh]) peer.end();
    const ended = new Promise((resolve) => rig.supervisor.once('exit', resolve));
    rig.supervisor.kill('SIGTERM');
    expect(await ended).toBe(0);
    const { stdout } = await rig.lab.run(rig.plan.director, ['ip', '-o', 'link']);
    expect(stdout).not.toMatch(/: (front|back|host)[:@]/);
  });
});

describe('a process that waits for its turn', () => {
  it.each([
    ['SIGUSR2, --no-spare: it is started first', false, (spared: RestartRig) => spared.supervisor.kill('SIGUSR2')],
    ['SIGUSR2: another one is started first', true, (spared) => spared.supervisor.kill('SIGUSR2')],
    ['kill -9: it goes on', true, (spared) => process.kill(spared.daemonPid(), 'SIGKILL')],
    [
      'kill -9, and limits that are others by now: it goes on with new tables',
      true,
      (spared) => {
        const { configFile } = spared.plan;
        writeFileSync(configFile, readFileSync(configFile, 'utf8').replace(/connections: \d+/, 'connections: 150000'));
        process.kill(spared.daemonPid(), 'SIGKILL');
      },
    ],
  ] as [string, boolean, (rig: RestartRig) => void][])('%s', async (_, hasSpare, restart) => {
    const spared = await RestartRig.up(`tsp${process.pid}-`, { hasSpare });
    try {
      const { logFile } = spared.plan;
      const waiting = /process (\d+) waits for its turn/;
      const first = hasSpare ? waiting.exec(await logged(logFile, waiting, 0))?.[1] : 'none';
      const held = await spared.client('hold', 50);
      await held.next<HoldReport>();
      const from = endOf(logFile);
      restart(spared);
      const line = JSON.parse(await logged(logFile, /went on from the life before/, from)) as Record<string, number>;
      const [meanwhile = ''] = readFileSync(logFile).subarray(from).toString().split('went on from');
      const second = waiting.exec(meanwhile)?.[1];
      // The spare of before, or the one that was started for this.
      expect(String(line.pid)).toBe(second ?? first);
      expect(await held.ask<HoldReport>()).toEqual({ answered: 50, silent: 0, moved: 0, errors: {} });
      await logged(logFile, /tapvsd is ready/, from);
      held.end();
      const ended = new Promise((resolve) => spared.supervisor.once('exit', resolve));
      spared.supervisor.kill('SIGTERM');
      expect(await ended).toBe(0);
      console.log(`pause ${line.pauseMs} ms`);
    } finally {
      await spared.down();
    }
  });
});
