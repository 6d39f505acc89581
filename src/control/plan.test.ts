import { describe, expect, it } from 'vitest';
import { ManualClock } from '../base/clock.ts';
import { SeededRng } from '../base/rng.ts';
import { Engine } from '../engine/engine.ts';
import type { DaemonSpec, LocalAddressSpec, ServerSpec, ServiceKey, ServiceSpec } from '../model/ipvs.ts';
import { formatIp4, ip4 } from '../wire/addr.ts';
import type { Config, DeviceConfig } from './config.ts';
import { IpvsTableBuilder } from './ipvs-table.ts';
import { plan, planText } from './plan.ts';

const KEY: ServiceKey = { kind: 'address', protocol: 'tcp', address: '10.0.1.100', port: 80 };
const service = (more: Partial<ServiceSpec> = {}): ServiceSpec => ({
  key: KEY,
  scheduler: 'rr',
  schedulerFlags: 0,
  ops: false,
  ...more,
});
const server = (address: string, more: Partial<ServerSpec> = {}): ServerSpec => ({
  key: { address, port: 80 },
  method: 'masq',
  weight: 1,
  upperThreshold: 0,
  lowerThreshold: 0,
  ...more,
});
const device = (name: string, more: Partial<DeviceConfig> = {}): DeviceConfig => ({
  name,
  kind: 'tap',
  netns: null,
  mtu: 1500,
  addresses: [],
  host: false,
  offload: true,
  persist: false,
  ...more,
});

function config(more: Partial<Config>, services: readonly (readonly [ServiceSpec, ...ServerSpec[]])[] = []): Config {
  const builder = new IpvsTableBuilder();
  for (const [spec, ...servers] of services) {
    expect(builder.apply({ op: 'add-service', service: spec })).toBeNull();
    for (const one of servers) expect(builder.apply({ op: 'add-server', service: spec.key, server: one })).toBeNull();
  }
  return {
    texts: new Map(),
    file: '/f',
    devices: [],
    addresses: [],
    routes: [],
    sysctl: new Map(),
    log: { level: 'info' },
    limits: { connections: 1, entries: 1, packets: 1 },
    spin: 0,
    ipvs: builder.table(),
    rules: [],
    ...more,
  };
}

const diff = (from: Config | null, to: Config): string[] => planText(plan(from, to));

describe('a scheduler that takes so many servers only', () => {
  const many = Array.from({ length: 4094 }, (_, i) => server(`10.2.${i >> 8}.${i & 255}`));

  it('is taken when the others are gone, and knows nobody who is', () => {
    const from = config({}, [[service({ scheduler: 'wlc' }), ...many]]);
    const to = config({}, [[service({ scheduler: 'mh' }), ...many.slice(4092), server('10.3.0.1')]]);
    const engine = new Engine({ clock: new ManualClock(0), rng: new SeededRng(1), maxConnections: 10, maxPackets: 8 });
    const run = (a: Config | null, b: Config) =>
      engine.executeIpvs(plan(a, b).flatMap((action) => (action.do === 'ipvs' ? [action.command] : [])));
    expect(run(null, from).filter((errno) => errno !== null)).toEqual([]);
    expect(run(from, to).filter((errno) => errno !== null)).toEqual([]);
    const { services, dests } = engine.director;
    const chosen = Array.from({ length: 60 }, (_, i) => services.schedulers[0]!.pick(i, ip4(KEY.address), 80));
    expect(new Set(chosen.map((d) => formatIp4(dests.ip[d]!)))).toEqual(
      new Set(['10.2.15.252', '10.2.15.253', '10.3.0.1']),
    );
  });
});

describe('a start', () => {
  it('sets everything up in an order that works', () => {
    const to = config(
      {
        devices: [device('front', { bridge: 'br0', addresses: ['10.0.1.1/24'] })],
        addresses: ['10.0.1.100/32'],
        routes: [{ to: 'default', via: '10.0.1.254', metric: 0, type: 'unicast' }],
        sysctl: new Map([['net.ipv4.ip_forward', '1']]),
      },
      [[service({ scheduler: 'wrr', persistenceTimeout: 300 }), server('10.0.2.11', { weight: 2 })]],
    );
    expect(diff(null, to)).toEqual([
      '+ device front tap bridge br0 mtu 1500',
      '+ address 10.0.1.1/24 dev front',
      '+ address 10.0.1.100/32 dev lo',
      '+ route default via 10.0.1.254',
      '+ sysctl net.ipv4.ip_forward = 1',
      '+ service tcp 10.0.1.100:80 scheduler wrr persistent 300',
      '+ server 10.0.1.100:80 → 10.0.2.11:80 method masq weight 2',
    ]);
  });
});

describe('a reload', () => {
  it('of the same file does nothing', () => {
    const make = (): Config =>
      config({ devices: [device('a', { addresses: ['10.0.0.1/24'] })] }, [[service(), server('10.0.2.11')]]);
    expect(plan(make(), make())).toEqual([]);
  });

  it('edits what is in both files, and never deletes it', () => {
    const from = config({}, [[service(), server('10.0.2.11'), server('10.0.2.12')]]);
    const to = config({}, [
      [service({ scheduler: 'wlc' }), server('10.0.2.11', { weight: 2, method: 'route' }), server('10.0.2.13')],
    ]);
    expect(diff(from, to)).toEqual([
      '~ service tcp 10.0.1.100:80 scheduler rr → wlc',
      '~ server 10.0.1.100:80 → 10.0.2.11:80 method masq → route, weight 1 → 2',
      '+ server 10.0.1.100:80 → 10.0.2.13:80 method masq weight 1',
      '- server 10.0.1.100:80 → 10.0.2.12:80',
    ]);
    expect(plan(from, to).map((action) => (action.do === 'ipvs' ? action.command.op : action.do))).toEqual([
      'edit-service',
      'edit-server',
      'add-server',
      'delete-server',
    ]);
  });

  it('local addresses come before servers; what differs is edited', () => {
    const table = (...locals: readonly LocalAddressSpec[]) => {
      const builder = new IpvsTableBuilder();
      builder.apply({ op: 'add-service', service: service() });
      for (const local of locals) {
        expect(builder.apply({ op: 'add-local-address', service: KEY, local })).toBeNull();
        expect(builder.apply({ op: 'add-local-address', service: KEY, local })).toBe('EEXIST');
      }
      builder.apply({ op: 'add-server', service: KEY, server: server('10.0.2.11', { method: 'fullnat' }) });
      return { ...config({}), ipvs: builder.table() };
    };
    const from = table({ address: '10.0.2.1' }, { address: '10.0.2.2', device: 'back' });
    expect(diff(null, from)).toEqual([
      '+ service tcp 10.0.1.100:80 scheduler rr',
      '+ local address 10.0.1.100:80 ← 10.0.2.1',
      '+ local address 10.0.1.100:80 ← 10.0.2.2 dev back',
      '+ server 10.0.1.100:80 → 10.0.2.11:80 method fullnat weight 1',
    ]);
    const to = table({ address: '10.0.2.1', ports: { from: 5000, to: 5999 } });
    expect(diff(from, from)).toEqual([]);
    expect(diff(from, to)).toEqual([
      '- local address 10.0.1.100:80 ← 10.0.2.2',
      '~ local address 10.0.1.100:80 ← 10.0.2.1 ports none → 5000-5999',
    ]);
    const commands = plan(from, to).map((action) => (action.do === 'ipvs' ? action.command.op : action.do));
    expect(commands).toEqual(['delete-local-address', 'edit-local-address']);
  });

  it('deletes a service that is in the old file only', () => {
    expect(diff(config({}, [[service(), server('10.0.2.11')]]), config({}))).toEqual(['- service tcp 10.0.1.100:80']);
  });

  it('changes a device in place where it can', () => {
    const from = config({ devices: [device('a')] });
    const to = config({ devices: [device('a', { mtu: 9000, bridge: 'br0' })] });
    expect(diff(from, to)).toEqual(['~ device a mtu 1500 → 9000, bridge none → br0']);
  });

  it('and makes it anew where it must, with its addresses and all routes', () => {
    const addresses = ['10.0.0.1/24'];
    const routes = [{ to: 'default', via: '10.0.0.254', metric: 0, type: 'unicast' } as const];
    const from = config({ devices: [device('a', { addresses })], routes });
    const to = config({ devices: [device('a', { addresses, netns: 'x' })], routes });
    expect(diff(from, to)).toEqual(['- device a tap mtu 1500', '+ device a tap netns x mtu 1500']);
    expect(plan(from, to).map((action) => action.do)).toEqual(['del-device', 'add-device', 'ip', 'ip']);
  });

  it('moves an address: away first, then there', () => {
    const from = config({ devices: [device('a', { addresses: ['10.0.0.1/24'] }), device('b')] });
    const to = config({ devices: [device('a'), device('b', { addresses: ['10.0.0.1/24'] })] });
    expect(diff(from, to)).toEqual(['- address 10.0.0.1/24 dev a', '+ address 10.0.0.1/24 dev b']);
  });

  it('replaces a route to the same prefix', () => {
    const route = (via: string) => [{ to: 'default', via, metric: 0, type: 'unicast' } as const];
    const actions = plan(config({ routes: route('10.0.0.1') }), config({ routes: route('10.0.0.2') }));
    expect(planText(actions)).toEqual(['~ route default via 10.0.0.1 → default via 10.0.0.2']);
    expect(actions[0]).toMatchObject({ do: 'ip', command: { op: 'route-replace', route: { via: '10.0.0.2' } } });
  });

  it('gives a sysctl that is no longer there its old value back', () => {
    const from = config({
      sysctl: new Map([
        ['a.b', '1'],
        ['a.c', '1'],
      ]),
    });
    const actions = plan(from, config({ sysctl: new Map([['a.c', '2']]) }));
    expect(planText(actions)).toEqual(['- sysctl a.b = 1', '~ sysctl a.c 1 → 2']);
    expect(actions[0]).toMatchObject({ do: 'reset-sysctl', key: 'a.b' });
  });

  it('starts, restarts and stops synchronisation daemons, and leaves those alone that are as they were', () => {
    const daemons = (...specs: DaemonSpec[]) => {
      const builder = new IpvsTableBuilder();
      for (const daemon of specs) expect(builder.apply({ op: 'start-daemon', daemon })).toBeNull();
      return config({ devices: [device('a')], ipvs: builder.table() });
    };
    const master: DaemonSpec = { role: 'master', device: 'a', syncId: 5 };
    const backup: DaemonSpec = { role: 'backup', device: 'a', syncId: 5 };
    const ops = (from: Config, to: Config) =>
      plan(from, to).map((action) => (action.do === 'ipvs' ? action.command : action.do));
    const [none, both] = [daemons(), daemons(master, backup)];
    expect(diff(none, both)).toEqual([
      '+ sync daemon master device a syncid 5',
      '+ sync daemon backup device a syncid 5',
    ]);
    expect(diff(both, daemons(master, backup))).toEqual([]);
    expect(diff(both, daemons({ ...master, syncId: 6 }, backup))).toEqual(['~ sync daemon master syncid 5 → 6']);
    expect(ops(both, daemons({ ...master, syncId: 6 }, backup))).toEqual([
      { op: 'stop-daemon', role: 'master' },
      { op: 'start-daemon', daemon: { ...master, syncId: 6 } },
    ]);
    expect(diff(both, daemons(master))).toEqual(['- sync daemon backup']);
    expect(ops(both, daemons(master))).toEqual([{ op: 'stop-daemon', role: 'backup' }]);
    // A device made anew took its daemons with it.
    expect(diff(both, { ...both, devices: [device('a', { netns: 'x' })] }).slice(-2)).toEqual([
      '+ sync daemon master device a syncid 5',
      '+ sync daemon backup device a syncid 5',
    ]);
  });
});
