// tapvs explain and tapvs trace with a real daemon: what is foretold is what a real curl gets, nothing is changed by asking, and a live packet's way is told as it went.
import { once } from 'node:events';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Lab, labUp } from '../src/lab/lab.ts';
import { type LabMethod, labPlan } from '../src/lab/plan.ts';
import type { TraceRecord, Way } from '../src/model/way.ts';
import { spawnIn } from '../src/rtnl/netns.ts';

const ROOT = new URL('..', import.meta.url).pathname;
const SCHEDULERS = ['rr', 'wrr', 'wlc', 'sh', 'mh', 'rr -p 60', 'wlc -p 60'];
const FLAG = { nat: '-m', dr: '-g', tun: '-i' } as const;

describe.each<{ method: LabMethod }>([{ method: 'nat' }, { method: 'dr' }])('through $method', ({ method }) => {
  const plan = labPlan({ prefix: `tx${process.pid}${method[0]}-`, servers: 2, method });
  const { vip, client, servers } = plan;
  const web = `${vip}:80`;
  let lab: Lab;
  let port = 40_000;

  const tapvs = async (...words: string[]): Promise<string> => {
    const { status, stdout, stderr } = await lab.tapvs(...words);
    expect([words, status, stderr]).toEqual([words, 0, '']);
    return stdout;
  };
  const ask = async (from: string, to: string, ...more: string[]): Promise<{ status: number; ways: Way[] }> => {
    const { status, stdout, stderr } = await lab.tapvs('explain', 'tcp', from, to, '--json', ...more);
    expect(stderr).toBe('');
    return { status, ways: JSON.parse(stdout).ways };
  };
  const traced = (...words: string[]) =>
    spawnIn(plan.director, [`${ROOT}bin/tapvs`, 'trace', '--json', ...words], {
      env: { ...process.env, TAPVS_SOCKET: plan.socket },
    });
  /** The one of a packet's hook functions that matters. */
  const told = (way: Way, name = 'director/request') =>
    way.steps.flatMap((step) => (step.kind === 'hook' ? step.functions : [])).find((fn) => fn.name === name);
  const curl = async (from: number): Promise<string> => {
    const words = ['curl', '-sS', '-m', '20', '--local-port', String(from), `http://${web}/`];
    const { status, stdout, stderr } = await lab.run(client, words);
    expect([status, stderr]).toEqual([0, '']);
    return stdout.trim();
  };
  const rules = async (scheduler: string): Promise<void> => {
    await lab.tapvs('ipvsadm', '-D', '-t', web);
    await tapvs('ipvsadm', '-A', '-t', web, ...`-s ${scheduler}`.split(' '));
    for (const [i, { address }] of servers.entries())
      await tapvs('ipvsadm', '-a', '-t', web, '-r', address, FLAG[method], '-w', String(i + 1));
  };

  beforeAll(async () => {
    lab = await labUp(plan);
    await lab.startServers();
    await lab.startDaemon();
  });
  afterAll(async () => {
    await lab?.down();
  });

  it.each(SCHEDULERS)('foretells the server that answers, %s', async (scheduler) => {
    await rules(scheduler);
    for (let i = 0; i < 4; i++) {
      const from = port++;
      const { ways } = await ask(`${plan.addresses.client}:${from}`, web);
      const server = told(ways[0]!)?.connection?.server;
      const { name } = servers.find(({ address }) => server === `${address}:80`)!;
      expect(await curl(from), `port ${from}`).toBe(name);
    }
  });

  it('changes nothing that can be looked at', async () => {
    await rules('wlc -p 60');
    await curl(port++);
    const look = async () => {
      const texts = [];
      for (const words of ['ipvsadm -Ln', 'ipvsadm -Lnc', 'ipvsadm -Ln --stats', 'drops', 'ip neigh'])
        texts.push(await tapvs(...words.split(' ')));
      // Time goes on meanwhile: not how long connections have left, nor the ARP of live neighbours.
      return texts.map((text) =>
        text
          .replace(/ \d\d:\d\d /g, ' T ')
          .replace(/REACHABLE|STALE|DELAY|PROBE/g, 'N')
          .replace(/^\d+ +Arp.*\n/gm, ''),
      );
    };
    const before = await look();
    expect(before[1]).toContain(`${plan.addresses.client}:${port - 1} `);
    const from = `${plan.addresses.client}:${port - 1}`;
    for (const more of [[], ['--flags', 'F.'], ['--flags', 'R'], ['--ttl', '1'], ['--length', '1500', '--df']])
      await ask(from, web, ...more);
    await ask(`${plan.addresses.client}:${port++}`, web);
    await ask(`${plan.addresses.client}:${port++}`, `${vip}:81`);
    expect(await look()).toEqual(before);
  });

  it('tells both directions of a connection that is there', async () => {
    await rules('rr');
    const from = port++;
    const name = await curl(from);
    const { address } = servers.find((server) => server.name === name)!;
    const source = `${plan.addresses.client}:${from}`;
    const request = await ask(source, web, '--flags', '.');
    expect(told(request.ways[0]!)?.connection).toMatchObject({
      isNew: false,
      direction: 'request',
      server: `${address}:80`,
    });
    expect(request.ways[0]!.end).toMatchObject({
      kind: 'sent',
      via: address,
      neighbour: expect.stringMatching(/^[A-Z]+$/),
    });
    const reply = (await ask(`${address}:80`, source, '--flags', '.')).ways[0]!;
    // Behind DR the answers do not come this way.
    const known = { isNew: false, direction: 'reply', client: source };
    if (method === 'nat') {
      expect(told(reply, 'director/reply')?.connection).toMatchObject(known);
      expect(reply.changes).toContainEqual({ field: 'IP src', from: address, to: vip });
    } else {
      expect(told(reply, 'director/reply')).toMatchObject({ note: 'no connection' });
    }
  });

  it('says why a packet goes nowhere', async () => {
    await rules('rr');
    const fresh = () => `${plan.addresses.client}:${port++}`;
    const ttl = await ask(fresh(), web, '--ttl', '1');
    if (method === 'nat') {
      expect([ttl.status, ttl.ways[0]!.end]).toMatchObject([1, { kind: 'dropped', reason: 'TtlExceeded' }]);
      expect(ttl.ways[1]!.packet).toMatch(/time exceeded/);
    } else {
      expect(ttl.ways[0]!.end.kind).toMatch(/sent|dropped/);
    }
    expect(told((await ask(fresh(), `${vip}:81`)).ways[0]!)?.note).toBe('no connection, no service');
    const ack = (await ask(fresh(), web, '--flags', '.')).ways[0]!;
    expect(told(ack)?.note).toBe(`no connection, and only a SYN begins one to TCP ${web}`);
    for (const { address } of servers) await tapvs('ipvsadm', '-e', '-t', web, '-r', address, FLAG[method], '-w', '0');
    const quiesced = await ask(fresh(), web);
    expect([quiesced.status, quiesced.ways[0]!.end]).toMatchObject([
      1,
      { reason: 'DirectorNoDestination', why: expect.stringContaining('2 quiesced') },
    ]);
  });

  it('traces a live curl, packet by packet', async () => {
    await rules('rr');
    const from = port++;
    const tracer = traced('-i', 'front', 'tcp', 'port', String(from));
    let text = '';
    tracer.stdout!.on('data', (chunk: Buffer) => (text += chunk));
    expect(String((await once(tracer.stderr!, 'data'))[0])).toMatch(/tracing on/);
    const { ways } = await ask(`${plan.addresses.client}:${from}`, web);
    const name = await curl(from);
    const { address } = servers.find((server) => server.name === name)!;
    // Records are posted after each breath: a packet that comes later and is seen says that all before it are.
    while (!/\[F\.\]|\[R/.test(text)) await once(tracer.stdout!, 'data');
    tracer.kill('SIGINT');
    await once(tracer, 'close');
    const records = text
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as TraceRecord);
    const [syn] = records[0]!.ways;
    expect(syn!.packet).toMatch(new RegExp(`^tcp ${plan.addresses.client}:${from} > ${web} \\[S\\]`));
    for (const key of ['service', 'choice', 'connection'] as const)
      expect(told(syn!)?.[key]).toEqual(told(ways[0]!)?.[key]);
    for (const record of records) {
      expect(record.missed).toBe(0);
      const way = record.ways[0]!;
      expect(told(way)?.connection).toMatchObject({ server: `${address}:80`, direction: 'request' });
      expect(way.changes).toContainEqual({ field: 'IP TTL', from: '64', to: '63' });
      const rewritten = way.changes.filter(({ field }) => field === 'IP dst');
      expect(rewritten).toEqual(method === 'nat' ? [{ field: 'IP dst', from: vip, to: address }] : []);
    }
    expect(records.map(({ ways: [way] }) => told(way!)?.connection?.isNew)).toEqual([
      true,
      ...Array(records.length - 1).fill(false),
    ]);
  });

  it('says how many packets a trace left out', async () => {
    const COUNT = 1500;
    const tracer = traced('udp', 'port', '9');
    let text = '';
    tracer.stdout!.on('data', (chunk: Buffer) => (text += chunk));
    expect(String((await once(tracer.stderr!, 'data'))[0])).toMatch(/tracing on/);
    // In handfuls, so that no queue before tapvsd overflows.
    const flood = `import socket, time; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for i in range(${COUNT}):
    s.sendto(b"x", ("${vip}", 9))
    if i % 20 == 19: time.sleep(0.005)`;
    expect((await lab.run(client, ['python3', '-c', flood])).status).toBe(0);
    const all = () =>
      text
        .split('\n')
        .slice(0, -1)
        .map((line) => JSON.parse(line) as TraceRecord);
    const missed = () => all().reduce((sum, record) => sum + record.missed, 0);
    while (missed() === 0) await once(tracer.stdout!, 'data');
    tracer.kill('SIGINT');
    await once(tracer, 'close');
    const count = all().filter(({ ways }) => ways.length > 0).length;
    expect(count).toBeGreaterThanOrEqual(500);
    expect(count + missed()).toBeLessThanOrEqual(COUNT);
  });
});
