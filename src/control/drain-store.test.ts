import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { ManualClock, seconds } from '../base/clock.ts';
import { SeededRng } from '../base/rng.ts';
import { Engine } from '../engine/engine.ts';
import type { EngineRequestName, EngineRequests } from '../engine/messages.ts';
import type { IpvsCommand, ServiceKey } from '../model/ipvs.ts';
import { DrainStore } from './drain-store.ts';
import type { Engine as EngineCaller } from './engine-client.ts';

const web: ServiceKey = { kind: 'address', protocol: 'tcp', address: '10.0.1.100', port: 80 };
const rs = (n: number) => ({ address: `10.0.2.1${n}`, port: 80 });
const setUp: IpvsCommand[] = [
  { op: 'add-service', service: { key: web, scheduler: 'rr', schedulerFlags: 0, ops: false } },
  ...[1, 2].map(
    (n): IpvsCommand => ({
      op: 'add-server',
      service: web,
      server: { key: rs(n), method: 'masq', weight: 5, upperThreshold: 0, lowerThreshold: 0 },
    }),
  ),
];

let directory = '';
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'tapvs-drains-'));
});
afterEach(() => rmSync(directory, { recursive: true }));

/** One life of the daemon, as far as drains go. */
function life() {
  const clock = new ManualClock(0);
  const engine = new Engine({ clock, rng: new SeededRng(1), maxConnections: 64, maxPackets: 16 });
  const log: string[] = [];
  const line = (_fields: object, message: string) => log.push(message);
  const caller: EngineCaller = {
    async call<N extends EngineRequestName>(name: N, args: EngineRequests[N]['args']) {
      const result =
        name === 'ipvs'
          ? engine.executeIpvs((args as EngineRequests['ipvs']['args']).commands)
          : engine.director.listDrains();
      return structuredClone(result) as EngineRequests[N]['result'];
    },
  };
  const store = new DrainStore(caller, join(directory, 'state'), { info: line, error: line });
  const run = async (...commands: IpvsCommand[]) => {
    expect(engine.executeIpvs(commands)).toEqual(commands.map(() => null));
    await store.changed(commands);
  };
  const pass = (s: number) => {
    for (let left = seconds(s); left > 0; left -= 25) {
      clock.advance(25);
      engine.breathe();
    }
  };
  const weights = () => engine.director.listServices(0, 9, web).rows[0]!.servers.map((server) => server.weight);
  return { engine, store, log, run, pass, weights, drains: () => engine.director.listDrains() };
}

it('a drained server is drained in the next life too, with what is left of its deadline', async () => {
  const first = life();
  await first.store.restore();
  await first.run(...setUp, { op: 'drain', service: web, server: rs(1), deadline: 3600, udpIdle: 20 });
  expect(readdirSync(join(directory, 'state'))).toEqual(['drains.json']);

  const second = life();
  await second.store.restore();
  expect(second.log).toEqual(['drains taken up again']);
  await second.run({ op: 'clear' }, ...setUp);
  expect(second.weights()).toEqual([5, 0]);
  const [drain] = second.drains();
  expect(drain).toMatchObject({ state: 'done', weight: 5, udpIdleSeconds: 20, server: rs(1) });
  expect(drain!.leftSeconds).toBeGreaterThan(3590);
  expect(drain!.leftSeconds).toBeLessThanOrEqual(3601);
  await second.run({ op: 'undrain', service: web, server: rs(1) });
  expect(second.weights()).toEqual([5, 5]);
  expect(readdirSync(join(directory, 'state'))).toEqual([]);
});

it('a deadline that passed while nobody ran is over', async () => {
  const kept = { service: web, server: rs(1), deadline: '2020-01-01T00:00:00Z', udpIdle: null };
  const first = life();
  await first.run(...setUp, { op: 'drain', service: web, server: rs(1) });
  const path = join(directory, 'state', 'drains.json');
  writeFileSync(path, JSON.stringify({ version: 1, drains: [kept] }));
  const second = life();
  await second.store.restore();
  expect(second.drains()).toMatchObject([{ state: 'awaiting', leftSeconds: 0 }]);
  await second.run(...setUp);
  expect(second.drains()).toMatchObject([{ state: 'done', leftSeconds: 0 }]);
});

it('a file that is not ours is left alone and said so', async () => {
  const first = life();
  await first.run(...setUp, { op: 'drain', service: web, server: rs(1) });
  const path = join(directory, 'state', 'drains.json');
  for (const text of ['{', '[]', '{"version":2,"drains":[]}', '{"version":1,"drains":[{"service":{"kind":"x"}}]}']) {
    writeFileSync(path, text);
    const next = life();
    await next.store.restore();
    expect(next.log[0]).toMatch(/drains\.json is not what tapvsd writes: /);
    expect([next.drains(), readFileSync(path, 'utf8')]).toEqual([[], text]);
  }
});

it('a directory that cannot be written is complained about, and the drain goes on', async () => {
  writeFileSync(join(directory, 'state'), 'a file');
  const { run, log, drains } = life();
  await run(...setUp, { op: 'drain', service: web, server: rs(1) });
  expect(log[0]).toMatch(/cannot be written: a restart would forget the drains: EEXIST/);
  expect(drains()).toHaveLength(1);
});
