import { describe, expect, it } from 'vitest';
import { finish, type Steps } from '../base/slices.ts';
import type { IpCommand, RouteRow } from '../model/ip.ts';
import { ip4 } from '../wire/addr.ts';
import { MAC, Rig } from './rig.ts';

const short = (r: RouteRow): string =>
  [
    r.type === 'unicast' ? '' : r.type,
    r.to,
    r.via && `via ${r.via}`,
    r.device && `dev ${r.device}`,
    r.source && `src ${r.source}`,
    r.metric && `metric ${r.metric}`,
  ]
    .filter(Boolean)
    .join(' ');
const main = (rig: Rig): string[] =>
  rig.control
    .listRoutes()
    .filter((r) => r.type !== 'local' && r.type !== 'broadcast')
    .map(short);

describe('addresses', () => {
  it('bring their local, broadcast and network routes, and take them away', () => {
    const rig = new Rig();
    expect(rig.control.listRoutes().map(short)).toEqual([
      'local 10.0.1.1 dev front src 10.0.1.1',
      'broadcast 10.0.1.255 dev front src 10.0.1.1',
      'local 10.0.2.1 dev back src 10.0.2.1',
      'broadcast 10.0.2.255 dev back src 10.0.2.1',
      'local 127.0.0.0/8 dev lo src 127.0.0.1',
      '10.0.1.0/24 dev front src 10.0.1.1',
      '10.0.2.0/24 dev back src 10.0.2.1',
    ]);
    rig.run({ op: 'addr-del', device: 'front', address: '10.0.1.1', prefixLength: 24 });
    rig.run({ op: 'addr-del', device: 'back', address: '10.0.2.1', prefixLength: 24 });
    expect(rig.control.listRoutes().map(short)).toEqual(['local 127.0.0.0/8 dev lo src 127.0.0.1']);
  });

  it('/31 and /32 have no broadcast, /32 no network; of two in one network the other takes over', () => {
    const rig = new Rig();
    rig.run({ op: 'addr-add', device: 'front', address: '10.8.0.1', prefixLength: 32 });
    rig.run({ op: 'addr-add', device: 'front', address: '10.9.0.0', prefixLength: 31 });
    const of = (text: string) =>
      rig.control
        .listRoutes()
        .map(short)
        .filter((line) => line.includes(text));
    expect(of('10.8.')).toEqual(['local 10.8.0.1 dev front src 10.8.0.1']);
    expect(of('10.9.')).toEqual(['local 10.9.0.0 dev front src 10.9.0.0', '10.9.0.0/31 dev front src 10.9.0.0']);
    rig.run({ op: 'addr-add', device: 'front', address: '10.0.1.50', prefixLength: 24 });
    rig.run({ op: 'addr-del', device: 'front', address: '10.0.1.1', prefixLength: 24 });
    expect(main(rig)).toContain('10.0.1.0/24 dev front src 10.0.1.50');
    expect(rig.control.listAddresses().map((a) => a.address)).toEqual([
      '10.0.2.1',
      '10.8.0.1',
      '10.9.0.0',
      '10.0.1.50',
    ]);
  });

  it.each<[IpCommand, string]>([
    [{ op: 'addr-add', device: 'front', address: '10.0.1.1', prefixLength: 24 }, 'EEXIST'],
    [{ op: 'addr-add', device: 'nope', address: '10.0.1.3', prefixLength: 24 }, 'ENODEV'],
    [{ op: 'addr-add', device: 'front', address: '10.0.1.300', prefixLength: 24 }, 'EINVAL'],
    [{ op: 'addr-add', device: 'front', address: '10.0.1.3', prefixLength: 33 }, 'EINVAL'],
    [{ op: 'addr-del', device: 'front', address: '10.0.1.3', prefixLength: 24 }, 'EADDRNOTAVAIL'],
    [{ op: 'route-add', route: { to: '10.0.1.0/24', device: 'back' } }, 'EEXIST'],
    [{ op: 'route-add', route: { to: '10.0.1.1/24', device: 'back' } }, 'EINVAL/prefix'],
    [{ op: 'route-add', route: { to: '10.50.0.0/16' } }, 'ENODEV'],
    [{ op: 'route-add', route: { to: '10.50.0.0/16', device: 'nope' } }, 'ENODEV'],
    [{ op: 'route-add', route: { to: 'default', via: '10.77.0.1' } }, 'ENETUNREACH'],
    [{ op: 'route-add', route: { to: 'default', via: '10.0.1.2', device: 'back' } }, 'ENETUNREACH'],
    [{ op: 'route-add', route: { to: 'default', via: '10.0.1.1' } }, 'ENETUNREACH'],
    [{ op: 'route-add', route: { to: 'default', device: 'front', source: '10.77.0.1' } }, 'EINVAL/source'],
    [{ op: 'route-add', route: { to: '10.60.0.0/16', type: 'prohibit', device: 'lo' } }, 'EINVAL/way'],
    [{ op: 'route-add', route: { to: '10.60.0.0/16', type: 'local', via: '10.0.1.2' } }, 'EINVAL/host-gateway'],
    [{ op: 'route-add', route: { to: '10.60.0.0/16', type: 'broadcast', via: '10.0.1.2' } }, 'EINVAL/gateway'],
    [{ op: 'route-del', route: { to: '10.0.1.1/24' } }, 'EINVAL/prefix'],
    [{ op: 'link-set', device: 'front', mtu: 67 }, 'EINVAL/mtu-low'],
    [{ op: 'link-set', device: 'front', mtu: 65536 }, 'EINVAL/mtu-high'],
    [{ op: 'link-set', device: 'front', mac: 'ff:ff:ff:ff:ff:ff' }, 'EADDRNOTAVAIL'],
    [{ op: 'link-set', device: 'front', mac: '00:00:00:00:00:00' }, 'EADDRNOTAVAIL'],
    [{ op: 'route-del', route: { to: '10.50.0.0/16' } }, 'ESRCH'],
    [{ op: 'route-del', route: { to: '10.0.1.0/24', device: 'back' } }, 'ESRCH'],
    [{ op: 'neigh-add', device: 'front', address: '10.0.1.2', mac: MAC.client }, 'EEXIST'],
    [{ op: 'neigh-add', device: 'front', address: '10.0.1.3', mac: 'xx' }, 'EINVAL'],
    [{ op: 'neigh-del', device: 'front', address: '10.0.1.3' }, 'ENOENT'],
    [{ op: 'neigh-flush', device: 'nope' }, 'ENODEV'],
    [{ op: 'link-set', device: 'front', mtu: 20 }, 'EINVAL/mtu-low'],
    [{ op: 'link-set', device: 'nope', up: true }, 'ENODEV'],
  ])('%o fails with %s and changes nothing', (command, errno) => {
    const rig = new Rig();
    const before = [
      rig.control.listAddresses(),
      rig.control.listRoutes(),
      rig.control.listNeighbours(),
      rig.control.listLinks(),
    ];
    expect(rig.control.run(command)).toBe(errno);
    expect([
      rig.control.listAddresses(),
      rig.control.listRoutes(),
      rig.control.listNeighbours(),
      rig.control.listLinks(),
    ]).toEqual(before);
  });
});

describe('routes', () => {
  it('longest prefix, then metric; replace; delete by what is given', () => {
    const rig = new Rig();
    rig.run({ op: 'route-add', route: { to: 'default', via: '10.0.1.254', metric: 20, protocol: 'static' } });
    rig.run({ op: 'route-add', route: { to: 'default', via: '10.0.2.254', metric: 10 } });
    rig.run({ op: 'route-add', route: { to: '10.50.0.0/16', via: '10.0.1.253', source: '10.0.2.1' } });
    const hop = (dst: string): number | null => (rig.stack.resolve(ip4(dst)) ? rig.stack.nexthop : null);
    expect(hop('8.8.8.8')).toBe(ip4('10.0.2.254'));
    expect(hop('10.50.1.1')).toBe(ip4('10.0.1.253'));
    expect(rig.stack.source).toBe(ip4('10.0.2.1'));
    rig.run({ op: 'route-replace', route: { to: 'default', via: '10.0.2.253', metric: 10 } });
    expect(hop('8.8.8.8')).toBe(ip4('10.0.2.253'));
    rig.run({ op: 'route-del', route: { to: 'default', via: '10.0.2.253' } });
    expect(hop('8.8.8.8')).toBe(ip4('10.0.1.254'));
    rig.run({ op: 'route-del', route: { to: 'default' } });
    expect(hop('8.8.8.8')).toBeNull();
    expect(main(rig)).toEqual([
      '10.0.1.0/24 dev front src 10.0.1.1',
      '10.0.2.0/24 dev back src 10.0.2.1',
      '10.50.0.0/16 via 10.0.1.253 dev front src 10.0.2.1',
    ]);
  });

  it('resolve tells hook functions all that they may ask', () => {
    const rig = new Rig({ hostPort: true });
    const ask = (dst: string) => [
      rig.stack.resolve(ip4(dst)),
      rig.stack.isLocal,
      rig.stack.isBroadcast,
      rig.stack.outDevice,
      rig.stack.mtu,
    ];
    expect(ask('10.0.2.9')).toEqual([true, false, false, 2, 1500]);
    expect(rig.stack.source).toBe(ip4('10.0.2.1'));
    expect(ask('10.0.1.1')).toEqual([true, true, false, 0, 65536]);
    expect(ask('10.0.3.2')).toEqual([true, true, false, 0, 65536]);
    expect(ask('10.0.1.255')).toEqual([true, false, true, 1, 1500]);
    expect(ask('9.9.9.9')[0]).toBe(false);
    const before = rig.stack.generation;
    rig.run({ op: 'link-set', device: 'back', mtu: 1400 });
    expect(rig.stack.generation).not.toBe(before);
    rig.run({ op: 'link-set', device: 'back', up: false });
    expect(ask('10.0.2.9')[0]).toBe(false);
  });
});

describe('interfaces', () => {
  it('that go down lose their routes but those of their addresses; networks come back with them', () => {
    const rig = new Rig();
    const all = () => rig.control.listRoutes().map(short);
    const of = (device: string) => all().filter((line) => line.includes(device));
    const [before, front] = [of('dev back'), of('dev front')];
    rig.run({ op: 'route-add', route: { to: '10.50.0.0/16', via: '10.0.2.2' } });
    rig.run({ op: 'route-add', route: { to: '10.51.0.0/16', type: 'blackhole' } });
    rig.run({ op: 'link-set', device: 'back', up: false });
    expect(of('dev back')).toEqual(['local 10.0.2.1 dev back src 10.0.2.1']);
    expect(all()).toContain('blackhole 10.51.0.0/16');
    rig.run({ op: 'addr-add', device: 'back', address: '10.6.0.1', prefixLength: 24 });
    expect(of('10.6.')).toEqual(['local 10.6.0.1 dev back src 10.6.0.1']);
    const refused = (route: Partial<RouteRow> & { to: string }) => rig.control.run({ op: 'route-add', route });
    expect([
      refused({ to: '10.5.0.0/16', device: 'back' }),
      refused({ to: '10.4.0.0/16', via: '10.6.0.9' }),
      refused({ to: '10.3.0.0/16', device: 'back', type: 'local' }),
    ]).toEqual(['ENETDOWN', 'ENETUNREACH', null]);
    rig.run({ op: 'route-del', route: { to: '10.3.0.0/16', type: 'local' } });
    rig.run({ op: 'link-set', device: 'back', up: true });
    expect(of('10.6.0')).toHaveLength(3);
    rig.run({ op: 'addr-del', device: 'back', address: '10.6.0.1', prefixLength: 24 });
    // The route by a gateway is whoever's who made it.
    expect([of('dev back'), of('dev front')]).toEqual([before, front]);
  });

  it('take their addresses, routes, neighbours and sysctls with them; the id is used again', () => {
    const rig = new Rig({ hostPort: true });
    rig.run({ op: 'route-add', route: { to: '10.50.0.0/16', via: '10.0.2.2' } });
    finish(rig.control.removeInterface(2));
    expect(main(rig)).toEqual(['10.0.3.0/30 dev host src 10.0.3.1', '10.0.1.0/24 dev front src 10.0.1.1']);
    expect(rig.control.listNeighbours()).toHaveLength(1);
    expect(rig.control.sysctls.get('net.ipv4.conf.back.rp_filter')).toBeUndefined();
    expect(rig.control.addInterface(rig.back).id).toBe(2);
    expect(rig.control.listLinks().map((l) => [l.index, l.name, l.kind, l.mac])).toEqual([
      [1, 'lo', 'loopback', undefined],
      [2, 'front', 'memory', MAC.front],
      [3, 'back', 'memory', MAC.back],
      [4, 'host', 'memory', undefined],
    ]);
  });

  it('a new MAC is announced', () => {
    const rig = new Rig();
    rig.run({ op: 'link-set', device: 'front', mac: '02:00:00:00:00:55' });
    rig.flush();
    expect(rig.out(rig.front)).toEqual([`02:00:00:00:00:55 > ${MAC.all} ARP who-has 10.0.1.1 tell 10.0.1.1`]);
  });
});

describe('sysctl', () => {
  it.each([
    ['0x20', '32'],
    ['010', '8'],
    [' 7 99', '7'],
    ['', '64'],
  ])('reads %j as the kernel does', (text, value) => {
    const { sysctls } = new Rig().control;
    expect(sysctls.set('net.ipv4.ip_default_ttl', text)).toBeNull();
    expect(sysctls.get('net.ipv4.ip_default_ttl')).toBe(value);
  });

  it('reads, writes, and says what is unknown or wrong', () => {
    const { sysctls } = new Rig().control;
    expect(sysctls.get('net.ipv4.ip_forward')).toBe('1');
    expect(sysctls.set('net.ipv4.ip_forward', '0')).toBeNull();
    expect(sysctls.get('net.ipv4.conf.front.forwarding')).toBe('0');
    expect(sysctls.set('net.ipv4.ip_forward', 'yes')).toBe('EINVAL');
    expect(sysctls.set('net.ipv4.ip_forward', '2')).toBe('EINVAL');
    expect(sysctls.set('net.ipv4.nope', '1')).toBe('ENOENT');
    expect(sysctls.set('net.ipv4.conf.all.send_redirects', '0')).toBeNull();
    expect(sysctls.set('net.ipv4.conf.all.send_redirects', '2')).toBe('EINVAL');
    expect(sysctls.get('net.ipv4.nope')).toBeUndefined();
    const list = sysctls.list();
    expect(list.length).toBeGreaterThan(30);
    for (const [key, value] of list) {
      expect(sysctls.set(key, value), key).toBeNull();
      expect(sysctls.get(key)).toBe(value);
    }
  });

  it('combines all and the interface as the kernel does', () => {
    const rig = new Rig();
    const front = rig.interfaceOf(rig.front);
    rig.sysctl('net.ipv4.conf.all.rp_filter', 1);
    rig.sysctl('net.ipv4.conf.front.rp_filter', 2);
    expect([front.rpFilter, rig.interfaceOf(rig.back).rpFilter]).toEqual([2, 1]);
    rig.sysctl('net.ipv4.conf.back.forwarding', 0);
    expect([front.forwarding, rig.interfaceOf(rig.back).forwarding]).toEqual([1, 0]);
    rig.sysctl('net.ipv4.conf.default.arp_ignore', 1);
    rig.control.addInterface(rig.host);
    expect([front.arpIgnore, rig.interfaceOf(rig.host).arpIgnore]).toEqual([0, 1]);
  });
});

describe('long lists', () => {
  const COUNT = 3000;
  const to = (i: number): string => `20.${i >> 8}.${i & 255}.7`;

  /** How often it paused, and what it said. */
  function drain<T>(steps: Steps<T>): { pauses: number; value: T } {
    for (let pauses = 0; ; pauses++) {
      const { done, value } = steps.next();
      if (done === true) return { pauses, value };
    }
  }

  it('of routes are made, told and taken away with pauses, and are as they would be without', () => {
    const rig = new Rig();
    rig.run({ op: 'addr-add', device: 'lo', address: '10.7.0.1', prefixLength: 32 });
    const before = main(rig);
    const add = Array.from({ length: COUNT }, (_, i): IpCommand => {
      const at = (i * 7) % COUNT;
      const route = {
        to: to(at),
        via: i % 3 === 0 ? '10.0.1.2' : '10.0.2.2',
        source: i % 2 === 0 ? '10.7.0.1' : undefined,
      };
      return { op: 'route-add', route };
    });
    const run = (...commands: readonly IpCommand[]) => drain(rig.control.runInSteps(commands));
    const added = run(...add);
    expect([added.pauses > COUNT, new Set(added.value)]).toEqual([true, new Set([null])]);
    const mine = (): string[] => main(rig).filter((line) => line.startsWith('20.'));
    const sorted = (routes: readonly IpCommand[]): string[] =>
      routes
        .flatMap((c) => (c.op === 'route-add' ? [c.route] : []))
        .sort((a, b) => (ip4(a.to) >>> 0) - (ip4(b.to) >>> 0))
        .map(
          ({ to: prefix, via, source }) =>
            `${prefix} via ${via} dev ${via === '10.0.1.2' ? 'front' : 'back'}${source === undefined ? '' : ` src ${source}`}`,
        );
    expect(mine()).toEqual(sorted(add));
    let parts = 0;
    for (const steps = rig.control.routesInSteps(); ; ) {
      const { done, value } = steps.next();
      expect(value?.length ?? 0).toBeLessThanOrEqual(256);
      if (value !== undefined) parts++;
      if (done === true) break;
    }
    expect(parts).toBeGreaterThan(COUNT / 256);
    const without = run({ op: 'addr-del', device: 'lo', address: '10.7.0.1', prefixLength: 32 });
    expect(without.pauses).toBeGreaterThan(50);
    const rest = add.filter((_, i) => i % 2 === 1);
    expect(mine()).toEqual(sorted(rest));
    expect(run({ op: 'link-set', device: 'front', up: false }).pauses).toBeGreaterThan(20);
    expect(mine()).toEqual(sorted(rest).filter((line) => line.includes('dev back')));
    run({ op: 'link-set', device: 'front', up: true });
    expect(drain(rig.control.removeInterface(rig.interfaceOf(rig.back).id)).pauses).toBeGreaterThan(50);
    expect(main(rig)).toEqual(before.filter((line) => line.includes('dev front')));
  });

  it('of neighbours and addresses are told in parts', () => {
    const rig = new Rig();
    const many = Array.from({ length: 600 }, (_, i) => `10.0.${2 + (i >> 8)}.${i & 255}`);
    for (const c of many.map((address) => ({ op: 'addr-add', device: 'lo', address, prefixLength: 32 }) as const))
      rig.run(c);
    expect(
      rig.control
        .listAddresses()
        .filter(({ device }) => device === 'lo')
        .map(({ address }) => address),
    ).toEqual(many);
    const peers = Array.from({ length: 600 }, (_, i) => `10.8.${i >> 8}.${i & 255}`);
    for (const c of peers.map((address) => ({ op: 'neigh-add', device: 'back', address, mac: MAC.server }) as const))
      rig.run(c);
    const told = rig.control.listNeighbours().map(({ address }) => address);
    expect(told.filter((address) => address.startsWith('10.8.'))).toEqual(peers);
  });
});
