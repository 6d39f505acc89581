/**
 * The daemon from outside: its API over the real socket with a real worker, reload, crash and end.
 *
 *   client ─ br-front ─ tapvsd ─ br-back ─ rs1, rs2      (src/lab, prefix tapvs-ctl-)
 */
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { appendFileSync, existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { type IncomingMessage, request } from 'node:http';
import { connect } from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ErrorBody, ReloadResult, Status } from '../src/control/api.ts';
import { type Lab, labUp } from '../src/lab/lab.ts';
import { LAB_VIP, labConfig, labPlan } from '../src/lab/plan.ts';
import { runOk, spawnIn, stop } from '../src/rtnl/netns.ts';

const plan = labPlan({ prefix: 'tapvs-ctl-', servers: 2 });
const BIN = new URL('../bin/tapvsd', import.meta.url).pathname;
let lab: Lab;
let daemon: ChildProcess;

interface Answer<T> {
  readonly status: number;
  readonly body: T;
}

function send(method: string, path: string, body?: string): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const sent = request({ socketPath: plan.socket, method, path, agent: false }, resolve);
    sent.on('error', reject);
    sent.end(body);
  });
}

async function ask<T>(method: string, path: string, body?: unknown): Promise<Answer<T>> {
  const response = await send(method, path, typeof body === 'string' ? body : JSON.stringify(body));
  let text = '';
  for await (const chunk of response) text += String(chunk);
  return { status: response.statusCode ?? 0, body: JSON.parse(text) as T };
}

async function rows<T>(path: string): Promise<T[]> {
  let text = '';
  for await (const chunk of await send('GET', path)) text += String(chunk);
  return text
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as T);
}

const log = (): string => readFileSync(`${plan.runDir}/tapvsd.log`, 'utf8');
const devicesOf = async (): Promise<string> => runOk(['ip', '-n', plan.director, '-br', 'link']);

/** Resolves when the log has a line with `text` behind its first `from` characters. */
async function logged(text: string, from: number): Promise<void> {
  const end = Date.now() + 5000;
  while (!log().slice(from).includes(text)) {
    if (Date.now() > end) throw new Error(`the log does not say '${text}': ${log().slice(from)}`);
    await ask('GET', '/v1/status');
  }
}

async function exitStatus(child: ChildProcess): Promise<number | string | null> {
  if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
  return child.exitCode ?? child.signalCode;
}

/** Runs bin/tapvsd to its end. */
async function tapvsd(...args: string[]): Promise<{ status: number | string | null; stderr: string; stdout: string }> {
  const child = spawnIn(plan.director, [BIN, ...args]);
  let stdout = '';
  let stderr = '';
  child.stdout?.on('data', (chunk) => {
    stdout += String(chunk);
  });
  child.stderr?.on('data', (chunk) => {
    stderr += String(chunk);
  });
  await once(child, 'close');
  return { status: child.exitCode ?? child.signalCode, stdout, stderr };
}

beforeAll(async () => {
  lab = await labUp(plan);
  await lab.startServers();
  daemon = await lab.startDaemon();
});
afterAll(() => lab?.down());

describe('the API', () => {
  it('answers status', async () => {
    const { status, body } = await ask<Status>('GET', '/v1/status');
    expect(status).toBe(200);
    expect(body).toMatchObject({ pid: daemon.pid, generation: 1, services: 2, servers: 4, workers: 1 });
    expect(body.devices.map((device) => device.name)).toEqual(['front', 'back', 'host']);
    expect(body.devices[0]).toEqual({
      name: 'front',
      kind: 'tap',
      mac: '02:00:00:00:01:01',
      addresses: ['10.0.1.1/24'],
    });
  });

  it('is for the owner and the group', () => {
    expect(statSync(plan.socket).mode & 0o777).toBe(0o660);
  });

  it.each([
    ['GET', '/v1/nothing', undefined, 404, 'not-found'],
    ['GET', '/elsewhere', undefined, 404, 'not-found'],
    ['POST', '/v1/status', {}, 405, 'method-not-allowed'],
    ['POST', '/v1/ipvs', '{', 400, 'bad-request'],
    ['POST', '/v1/ipvs', '[]', 400, 'bad-request'],
    ['POST', '/v1/ipvs', { commands: [{ op: 'explode' }] }, 400, 'bad-request'],
    [
      'POST',
      '/v1/ip',
      { commands: [{ op: 'addr-add', device: 'lo', address: 'x', prefixLength: 32 }] },
      400,
      'bad-request',
    ],
    ['GET', '/v1/sysctl/net.ipv4.nonsense', undefined, 404, 'no-such-key'],
    ['PUT', '/v1/sysctl/net.ipv4.ip_forward', { value: 'many' }, 422, 'bad-value'],
    ['GET', '/v1/ipvs/services?key={}', undefined, 400, 'bad-request'],
    [
      'GET',
      `/v1/ipvs/services?key=${encodeURIComponent(JSON.stringify({ kind: 'address', protocol: 'tcp', address: '10.9.9.9', port: 1 }))}`,
      undefined,
      404,
      'no-such-service',
    ],
    ['GET', '/v1/capture?device=none', undefined, 404, 'no-such-device'],
    ['GET', '/v1/capture?filter=tcp%20prot%2080', undefined, 422, 'bad-filter'],
    ['GET', '/v1/capture?snaplen=-1', undefined, 400, 'bad-request'],
    ['POST', '/v1/clock', { seconds: 1 }, 409, 'not-in-test-mode'],
  ] as const)('%s %s fails by a code of the closed set', async (method, path, body, status, code) => {
    const answer = await ask<ErrorBody>(method, path, body);
    expect([answer.status, answer.body.error.code]).toEqual([status, code]);
    expect(answer.body.error.message).toMatch(/^[^\n]+$/);
  });

  it('lists hooks, drops, addresses, routes, neighbours, links and sysctls', async () => {
    for (const path of ['hooks', 'drops', 'ip/addresses', 'ip/routes', 'ip/neighbours', 'ip/links', 'sysctl']) {
      const { status, body } = await ask<unknown[]>('GET', `/v1/${path}`);
      expect([path, status, Array.isArray(body)]).toEqual([path, 200, true]);
    }
  });

  it('sets a sysctl', async () => {
    const key = 'net.ipv4.vs.sloppy_tcp';
    const path = `/v1/sysctl/${key}`;
    expect((await ask('PUT', path, { value: 1 })).body).toEqual({ key, value: '1' });
    expect((await ask('GET', path)).body).toEqual({ key, value: '1' });
    expect((await ask('PUT', path, { value: '0' })).body).toEqual({ key, value: '0' });
  });

  it('runs each command on its own, in order', async () => {
    const service = { kind: 'address', protocol: 'tcp', address: '10.0.1.100', port: 77 } as const;
    const spec = { key: service, scheduler: 'rr', schedulerFlags: 0, ops: false };
    const commands = [
      { op: 'add-service', service: spec },
      { op: 'add-service', service: spec },
      { op: 'delete-service', service },
      { op: 'delete-service', service },
    ];
    expect((await ask('POST', '/v1/ipvs', { commands })).body).toEqual({ results: [null, 'EEXIST', null, 'ESRCH'] });
  });

  it('streams lists that are longer than a page, to a client that is slow, too', async () => {
    const key = (port: number) => ({ kind: 'address', protocol: 'udp', address: '10.0.1.100', port }) as const;
    const ports = Array.from({ length: 3000 }, (_, i) => 10_000 + i);
    const spec = (port: number) => ({ key: key(port), scheduler: 'rr', schedulerFlags: 0, ops: false });
    const add = ports.map((port) => ({ op: 'add-service', service: spec(port) }));
    const { body } = await ask<{ results: unknown[] }>('POST', '/v1/ipvs', { commands: add });
    expect(body.results.filter((result) => result !== null)).toEqual([]);
    expect(await rows('/v1/ipvs/services')).toHaveLength(3002);

    const response = await send('GET', '/v1/ipvs/services');
    response.pause();
    expect((await ask<Status>('GET', '/v1/status')).body.services).toBe(3002); // nobody waits for it
    let text = '';
    for await (const chunk of response) text += String(chunk);
    expect(text.trim().split('\n')).toHaveLength(3002);

    await ask('POST', '/v1/ipvs', { commands: ports.map((port) => ({ op: 'delete-service', service: key(port) })) });
    expect(await rows('/v1/ipvs/services')).toHaveLength(2);
  });

  it('lets the host port follow the addresses', async () => {
    const command = (op: string) => ({ commands: [{ op, device: 'lo', address: '10.0.1.101', prefixLength: 32 }] });
    const held = () => runOk(['ip', '-n', plan.director, '-br', '-4', 'addr', 'show', 'dev', 'host']);
    expect((await ask('POST', '/v1/ip', command('addr-add'))).body).toEqual({ results: [null] });
    expect(await held()).toContain('10.0.1.101/32');
    await ask('POST', '/v1/ip', command('addr-del'));
    expect(await held()).not.toContain('10.0.1.101/32');
  });

  it('… also of many requests at once, and does not try what a refused command wanted', async () => {
    const from = log().length;
    const many = Array.from({ length: 30 }, (_, i) => `10.0.9.${i + 1}`);
    const change = (op: string) =>
      Promise.all(
        many.map((address) =>
          ask('POST', '/v1/ip', { commands: [{ op, device: 'front', address, prefixLength: 32 }] }),
        ),
      );
    const rules = async (): Promise<number> =>
      (await runOk(['ip', '-n', plan.director, 'rule'])).split('\n').filter((line) => line.includes('from 10.0.9.'))
        .length;
    await change('addr-add');
    expect(await rules()).toBe(30);
    await change('addr-del');
    expect(await rules()).toBe(0);
    const mtu = async (): Promise<string> =>
      (await runOk(['ip', '-n', plan.director, 'link', 'show', 'front'])).match(/mtu \d+/)?.[0] ?? '';
    const before = await mtu();
    const refused = { op: 'link-set', device: 'front', mtu: 1400, mac: '01:00:5e:00:00:01' };
    expect((await ask('POST', '/v1/ip', { commands: [refused] })).body).toEqual({ results: ['EADDRNOTAVAIL'] });
    expect([before, await mtu()]).toEqual(['mtu 1500', 'mtu 1500']);
    expect(log().slice(from)).not.toContain('the kernel does not follow');
  });

  it('captures what tcpdump can read', async () => {
    const response = await send('GET', '/v1/capture?device=front&filter=tcp%20port%2080');
    const chunks: Buffer[] = [];
    const gone = once(response, 'close');
    const [first] = (await once(response, 'data')) as [Buffer]; // the header: the capture runs
    chunks.push(first);
    response.on('data', (chunk: Buffer) => chunks.push(chunk));
    await lab.curl(`http://${LAB_VIP}/`);
    await ask('GET', '/v1/status'); // a round trip behind the packets
    response.destroy();
    await gone;
    const file = `${plan.runDir}/capture.pcapng`;
    writeFileSync(file, Buffer.concat(chunks));
    const text = await runOk(['tcpdump', '-nr', file]);
    expect(text).toMatch(/10\.0\.1\.2\.\d+ > 10\.0\.1\.100\.80: Flags \[S\]/);
    expect(text).toMatch(/10\.0\.1\.100\.80 > 10\.0\.1\.2\.\d+: Flags \[S\.\]/);
  });
});

describe('a reload', () => {
  it('loses no flow, and keeps what was set at run time', async () => {
    const runtime = { kind: 'address', protocol: 'udp', address: '10.0.1.100', port: 9 } as const;
    const service = { key: runtime, scheduler: 'rr', schedulerFlags: 0, ops: false };
    await ask('POST', '/v1/ipvs', { commands: [{ op: 'add-service', service }] });

    // A client that sends one half of its request before and the other half behind the reload.
    const words = 'process.stdin.pipe(require("net").connect(80, "10.0.1.100")).pipe(process.stdout)';
    const slow = spawnIn(plan.client, [process.execPath, '-e', words], { stdio: ['pipe', 'pipe', 'inherit'] });
    slow.stdin?.write('GET / HTTP/1.0\r\n');
    let answered = '';
    slow.stdout?.on('data', (chunk) => {
      answered += String(chunk);
    });
    const established = async () =>
      (await rows<{ state: string }>('/v1/ipvs/connections')).some((row) => row.state === 'ESTABLISHED');
    while (!(await established()));

    const changed = labConfig(plan)
      .replace(/(-r 10\.0\.2\.11:80 .*-w) 1/, '$1 5')
      .replace('net.ipv4.ip_forward: 1', 'net.ipv4.ip_forward: 1\n  net.ipv4.vs.expire_nodest_conn: 1');
    writeFileSync(plan.configFile, changed);
    const { status, body } = await ask<ReloadResult>('POST', '/v1/reload', {});
    expect({ status, ...body }).toEqual({
      status: 200,
      generation: 2,
      changes: ['+ sysctl net.ipv4.vs.expire_nodest_conn = 1', '~ server 10.0.1.100:80 → 10.0.2.11:80 weight 1 → 5'],
    });

    slow.stdin?.end('\r\n');
    await once(slow, 'close');
    expect(answered).toContain('200 OK');
    const keys = (await rows<{ key: unknown }>('/v1/ipvs/services')).map((row) => row.key);
    expect(keys).toContainEqual(runtime);
    await ask('POST', '/v1/ipvs', { commands: [{ op: 'delete-service', service: runtime }] });
  });

  it('by SIGHUP goes back, and gives the sysctl its old value', async () => {
    writeFileSync(plan.configFile, labConfig(plan));
    const before = log().length;
    daemon.kill('SIGHUP');
    await logged('configuration reloaded', before);
    expect((await ask('GET', '/v1/sysctl/net.ipv4.vs.expire_nodest_conn')).body).toMatchObject({ value: '0' });
    expect((await ask<Status>('GET', '/v1/status')).body.generation).toBe(3);
  });

  it('of a bad file changes nothing and says why', async () => {
    appendFileSync(plan.configFile, 'devcies: []\n');
    const { status, body } = await ask<ErrorBody>('POST', '/v1/reload', {});
    expect([status, body.error.code]).toEqual([422, 'bad-config']);
    expect(body.error.message).toContain("devcies: unknown key (did you mean 'devices'?)");
    const before = log().length;
    daemon.kill('SIGHUP');
    await logged('devcies: unknown key', before);
    expect(await lab.curl(`http://${LAB_VIP}/`)).toMatch(/^rs[12]/);
    writeFileSync(plan.configFile, labConfig(plan));
  });
});

describe('the process', () => {
  it('refuses a socket on which another daemon answers, and leaves it alone', async () => {
    const { status, stdout } = await tapvsd('-c', plan.configFile, '-s', plan.socket);
    expect(status).toBe(70);
    expect(stdout).toContain(`another tapvsd listens on ${plan.socket}`);
    expect((await ask('GET', '/v1/status')).status).toBe(200);
  });

  it('says what is wrong by its exit status', async () => {
    expect((await tapvsd('--nonsense')).status).toBe(64);
    expect((await tapvsd('check', '-c', '/nonexistent')).status).toBe(78);
    expect((await tapvsd('check', '-c', plan.configFile)).status).toBe(0);
    const bad = `${plan.runDir}/bad.yaml`;
    writeFileSync(bad, 'sysctl: { net.ipv4.nonsense: 1 }\n');
    const refused = await tapvsd('-c', bad, '-s', `${plan.runDir}/bad.sock`);
    expect([refused.status, refused.stderr.includes(`${bad}:1:11: `)]).toEqual([78, true]);
    expect(existsSync(`${plan.runDir}/bad.sock`)).toBe(false);
  });

  it('starts at once after kill -9', async () => {
    daemon.kill('SIGKILL');
    expect(await exitStatus(daemon)).toBe('SIGKILL');
    expect(existsSync(plan.socket)).toBe(true);
    daemon = spawnIn(plan.director, [BIN, '-c', plan.configFile, '-s', plan.socket]);
    await once(daemon.stdout!, 'data');
    await new Promise<void>((resolve, reject) => {
      const tryAgain = (): void => {
        const socket = connect(plan.socket, () => {
          socket.destroy();
          resolve();
        });
        socket.on('error', () => (daemon.exitCode === null ? setTimeout(tryAgain, 20) : reject(new Error('it ended'))));
      };
      tryAgain();
    });
    expect(await lab.curl(`http://${LAB_VIP}/`)).toMatch(/^rs[12]/);
    // The namespace's own sockets reach it, too: the rules that the dead daemon left were taken over.
    expect((await lab.run(plan.director, ['curl', '-sS', '--max-time', '5', `http://${LAB_VIP}/`])).stdout).toMatch(
      /^rs/,
    );
  });

  it('ends by SIGTERM with status 0 and leaves nothing', async () => {
    daemon.kill('SIGTERM');
    expect(await exitStatus(daemon)).toBe(0);
    expect(existsSync(plan.socket)).toBe(false);
    expect(await devicesOf()).not.toMatch(/^(front|back|host)\b/m);
    expect(await runOk(['ip', '-n', plan.director, 'rule'])).not.toMatch(/779[12]/);
  });

  it('ends by SIGINT while requests are under way', async () => {
    const again = await lab.startDaemon();
    const capture = await send('GET', '/v1/capture');
    capture.on('error', () => {}); // it is cut off
    again.kill('SIGINT');
    expect(await exitStatus(again)).toBe(0);
    await stop(again);
  });
});
