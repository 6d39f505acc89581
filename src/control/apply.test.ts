import { afterAll, beforeEach, expect, it } from 'vitest';
import { Applier } from './apply.ts';
import { Devices } from './devices.ts';
import type { Action } from './plan.ts';
import { RuleChanges } from './rule-changes.ts';
import { ControlRig } from './test-rig.ts';

const rig = new ControlRig();
let applier: Applier;
beforeEach(() => {
  const line = () => {};
  const log = { debug: line, info: line, warn: line, error: line, level: 'silent' };
  const devices = new Devices(rig, log, { deviceOpened: line, deviceClosed: line });
  applier = new Applier(rig, devices, new RuleChanges(rig));
});
afterAll(() => rig.close());

const KEY = 'net.ipv4.vs.conn_reuse_mode';
const set = (value: string): Action => ({ do: 'sysctl', key: KEY, value, text: '' });
const reset: Action = { do: 'reset-sysctl', key: KEY, text: '' };

it('a sysctl that leaves the file is again what it was before any file named it, each time', async () => {
  const original = rig.engine.getSysctl(KEY);
  for (const value of ['0', '2', '3']) {
    expect(await applier.apply([set(value)])).toEqual([]);
    expect(rig.engine.getSysctl(KEY)).toBe(value);
    expect(applier.sysctlsBefore).toEqual([[KEY, original]]);
    expect(await applier.apply([reset])).toEqual([]);
    expect(rig.engine.getSysctl(KEY)).toBe(original);
    expect(applier.sysctlsBefore).toEqual([]);
  }
});

it('what is refused does not stop the rest', async () => {
  const faults = await applier.apply([
    set('x'),
    { do: 'sysctl', key: 'net.ipv4.nothing', value: '1', text: '' },
    {
      do: 'ip',
      command: { op: 'addr-del', device: 'front', address: '10.9.9.9', prefixLength: 24 },
      text: '- address',
    },
    {
      do: 'ip',
      command: { op: 'addr-add', device: 'nowhere', address: '10.9.9.9', prefixLength: 24 },
      text: '+ address',
    },
    { do: 'ipvs', command: { op: 'set-timeouts', tcp: 77, tcpFin: 0, udp: 0 }, text: '' },
  ]);
  expect(faults.map(({ message }) => message)).toEqual([
    `sysctl ${KEY}: cannot be 'x'`,
    'sysctl net.ipv4.nothing: there is no such key',
    '+ address: ENODEV',
  ]);
  expect(rig.engine.director.info().timeouts.tcp).toBe(77);
});
