// rtnl against the real kernel, in two namespaces of its own; the socket is in A (OpenRtnlOptions.enter).
//
//   A ── tvr0 ═══ va ── B
//
// `ip netns exec` asks `ip` what the kernel holds, so that what we read is compared with what iproute2 reads.
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import * as native from '../src/device/native.ts';
import { addNetns, delNetns, ipBatch, listNetns, runIn, runOkIn, setSysctls } from '../src/rtnl/netns.ts';
import { openRtnl, type Rtnl, RtnlError } from '../src/rtnl/rtnl.ts';

const A = `tvr${process.pid}a`;
const B = `tvr${process.pid}b`;
const DEVICES = ['tvr0', 'tvr1', 'tvrbr'];
const TABLE = 7700;

async function refusal(promise: Promise<unknown>): Promise<RtnlError> {
  const error = await promise.then(
    () => null,
    (reason: unknown) => reason,
  );
  if (!(error instanceof RtnlError)) throw new Error(`expected an RtnlError, got ${String(error)}`);
  return error;
}

async function ipJson(text: string): Promise<Record<string, unknown>[]> {
  return JSON.parse((await runOkIn(A, ['ip', '-j', '-d', ...text.split(' ')])) || '[]');
}

let rtnl: Rtnl;

async function removeDevices(): Promise<void> {
  for (const name of DEVICES) if ((await rtnl.findLink(name)) !== null) await rtnl.delLink(name);
}

beforeAll(async () => {
  for (const name of [A, B]) await addNetns(name);
  const netns = native.openNetns(A);
  rtnl = openRtnl({ enter: (fn) => native.withNetns(netns, fn) });
  native.close(netns);
});
afterEach(removeDevices);
afterAll(async () => {
  rtnl?.close();
  for (const name of [A, B]) await delNetns(name);
  expect(listNetns()).not.toContain(A);
});

describe('links', () => {
  it('makes a veth with addresses, MTU and the peer in another namespace', async () => {
    const options = { mac: '02:00:00:00:70:01', peerMac: '02:00:00:00:70:02', mtu: 1400, peerNetns: B };
    await rtnl.createVeth('tvr0', 'va', options);
    expect(await rtnl.getLink('tvr0')).toMatchObject({
      kind: 'veth',
      mac: '02:00:00:00:70:01',
      mtu: 1400,
      isUp: false,
      master: null,
      usesArp: true,
    });
    const peer = JSON.parse(await runOkIn(B, ['ip', '-j', 'link', 'show', 'va']));
    expect(peer[0]).toMatchObject({ address: '02:00:00:00:70:02', mtu: 1400 });
  });

  it('moves a link to a namespace, where ip finds it', async () => {
    await rtnl.createVeth('tvr0', 'tvr1');
    await rtnl.setLink('tvr1', { netns: B });
    expect(await rtnl.findLink('tvr1')).toBeNull();
    expect(await runOkIn(B, ['ip', '-o', 'link', 'show', 'tvr1'])).toContain('tvr1@');
  });

  it('makes a bridge that forwards at once, and puts a port in and out', async () => {
    await rtnl.createBridge('tvrbr', { mac: '02:00:00:00:70:03' });
    const [bridge] = await ipJson('link show tvrbr');
    expect(bridge).toMatchObject({
      address: '02:00:00:00:70:03',
      linkinfo: { info_kind: 'bridge', info_data: { forward_delay: 0, stp_state: 0, mcast_snooping: 0 } },
    });
    await rtnl.createVeth('tvr0', 'tvr1');
    await rtnl.setLink('tvr0', { master: 'tvrbr', up: true });
    expect((await rtnl.getLink('tvr0')).master).toBe('tvrbr');
    expect((await rtnl.listLinks()).find((link) => link.name === 'tvr0')?.master).toBe('tvrbr');
    await rtnl.setLink('tvr0', { master: null });
    expect((await rtnl.getLink('tvr0')).master).toBeNull();
  });

  it('changes up, ARP, MAC, MTU and the IPv4 switches, and reads them back', async () => {
    await rtnl.createVeth('tvr0', 'tvr1');
    const devconf = { rp_filter: 2, accept_local: 1, arp_ignore: 1, arp_announce: 2, forwarding: 1 };
    await rtnl.setLink('tvr0', { up: true, arp: false, mac: '02:00:00:00:70:09', mtu: 1300, devconf });
    const link = await rtnl.getLink('tvr0');
    expect(link).toMatchObject({ isUp: true, usesArp: false, mac: '02:00:00:00:70:09', mtu: 1300 });
    expect(link.devconf).toMatchObject(devconf);
    const names = ['net.ipv4.conf.tvr0.rp_filter', 'net.ipv4.conf.tvr0.arp_announce'];
    expect(await runOkIn(A, ['sysctl', '-n', ...names])).toBe('2\n2\n');
    await rtnl.setLink('tvr0', { up: false, arp: true });
    expect(await rtnl.getLink('tvr0')).toMatchObject({ isUp: false, usesArp: true });
  });

  it('belongs to the namespace that was entered, or to the process’s own', async () => {
    await rtnl.createBridge('tvrbr');
    expect(await runOkIn(A, ['ip', '-br', 'link', 'show', 'tvrbr'])).toContain('tvrbr');
    const here = openRtnl();
    expect(await here.findLink('tvrbr')).toBeNull();
    expect(await here.getLink('lo')).toMatchObject({ index: 1, kind: null });
    here.close();
  });

  it('lists the same links as ip', async () => {
    const names = (await ipJson('link show')).map((link) => link.ifname);
    expect((await rtnl.listLinks()).map((link) => link.name)).toEqual(names);
  });
});

describe('refusals', () => {
  it('says EEXIST, with the command and its subject, in one line', async () => {
    await rtnl.createBridge('tvrbr');
    const error = await refusal(rtnl.createBridge('tvrbr'));
    expect(error).toMatchObject({ code: 'EEXIST', operation: 'link add', subject: 'tvrbr type bridge' });
    expect(error.message).toBe('ip link add tvrbr type bridge: EEXIST: file already exists');
  });

  it('says ENODEV for a device that is not there', async () => {
    expect((await refusal(rtnl.getLink('tvr-none'))).code).toBe('ENODEV');
    expect((await refusal(rtnl.delLink('tvr-none'))).code).toBe('ENODEV');
    expect((await refusal(rtnl.addAddress('tvr-none', '10.9.9.1/24'))).code).toBe('ENODEV');
    expect((await refusal(rtnl.addRoute({ to: '10.9.8.0/24', dev: 'tvr-none' }))).code).toBe('ENODEV');
  });

  it('says ENOENT for a namespace that is not there', async () => {
    expect((await refusal(rtnl.createVeth('tvr0', 'va', { peerNetns: 'tv-rtnl-none' }))).code).toBe('ENOENT');
    expect(await rtnl.findLink('tvr0')).toBeNull();
  });

  it('says EPERM, and what is needed, without CAP_NET_ADMIN', async () => {
    process.seteuid?.(65_534); // an effective user other than root has no effective capabilities
    const error = await refusal(rtnl.createBridge('tvrbr')).finally(() => process.seteuid?.(0));
    expect(error.code).toBe('EPERM');
    expect(error.message).toContain('needs CAP_NET_ADMIN in that network namespace');
  });

  it('refuses text that is no address before it asks the kernel', async () => {
    await expect(rtnl.addAddress('lo', '10.0.0.256/24')).rejects.toThrow("'10.0.0.256/24' is not an IPv4 prefix");
    await expect(rtnl.addAddress('lo', '10.0.0.1/33')).rejects.toThrow(RangeError);
    await expect(rtnl.createVeth('tvr0', 'tvr1', { mac: '02:00' })).rejects.toThrow("'02:00' is not a MAC address");
  });
});

describe('addresses', () => {
  it('adds, lists, replaces and deletes; peers too', async () => {
    await rtnl.createVeth('tvr0', 'tvr1');
    await rtnl.addAddress('tvr0', '192.0.2.1/24');
    expect((await refusal(rtnl.addAddress('tvr0', '192.0.2.1/24'))).code).toBe('EEXIST');
    await rtnl.replaceAddress('tvr0', '192.0.2.1/24');
    await rtnl.addAddress('tvr0', '198.51.100.1/32', { peer: '198.51.100.2', scope: 'link' });
    expect(await rtnl.listAddresses('tvr0')).toEqual([
      { dev: 'tvr0', cidr: '198.51.100.1/32', peer: '198.51.100.2', scope: 253 },
      { dev: 'tvr0', cidr: '192.0.2.1/24', peer: null, scope: 0 },
    ]);
    await rtnl.delAddress('tvr0', '192.0.2.1/24');
    expect((await refusal(rtnl.delAddress('tvr0', '192.0.2.1/24'))).code).toBe('EADDRNOTAVAIL');
    expect((await rtnl.listAddresses()).filter((address) => address.dev === 'tvr0')).toHaveLength(1);
  });
});

describe('routes', () => {
  it('keeps table, metric, scope, type, source and gateway', async () => {
    await rtnl.createVeth('tvr0', 'tvr1');
    await rtnl.addAddress('tvr0', '192.0.2.1/24', { noPrefixRoute: true });
    await rtnl.setLink('tvr0', { up: true });
    await rtnl.setLink('tvr1', { up: true });
    const direct = { to: '192.0.2.0/24', dev: 'tvr0', table: TABLE, src: '192.0.2.1', metric: 42 };
    await rtnl.addRoute(direct);
    expect((await refusal(rtnl.addRoute(direct))).code).toBe('EEXIST');
    await rtnl.replaceRoute({ to: 'default', via: '192.0.2.9', dev: 'tvr0', table: TABLE, onlink: true });
    await rtnl.addRoute({ to: '203.0.113.7', type: 'local', dev: 'tvr0', table: TABLE });
    expect(await rtnl.listRoutes(TABLE)).toEqual([
      {
        to: 'default',
        via: '192.0.2.9',
        dev: 'tvr0',
        table: TABLE,
        metric: 0,
        scope: 0,
        type: 1,
        src: null,
        protocol: 4,
      },
      {
        to: '192.0.2.0/24',
        via: null,
        dev: 'tvr0',
        table: TABLE,
        metric: 42,
        scope: 253,
        type: 1,
        src: '192.0.2.1',
        protocol: 4,
      },
      {
        to: '203.0.113.7/32',
        via: null,
        dev: 'tvr0',
        table: TABLE,
        metric: 0,
        scope: 254,
        type: 2,
        src: null,
        protocol: 4,
      },
    ]);
    expect((await ipJson(`route show table ${TABLE}`)).map((route) => route.dst)).toEqual([
      'default',
      '192.0.2.0/24',
      '203.0.113.7',
    ]);
    await rtnl.delRoute({ to: '192.0.2.0/24', table: TABLE });
    expect((await refusal(rtnl.delRoute({ to: '192.0.2.0/24', table: TABLE }))).code).toBe('ESRCH');
    expect(await rtnl.listRoutes(TABLE)).toHaveLength(2);
  });
});

describe('rules', () => {
  const rule = {
    priority: 7700,
    table: TABLE,
    iif: 'tvr-none',
    from: '192.0.2.0/25',
    to: '198.51.100.0/24',
    fwmark: 7,
  };
  afterEach(async () => {
    for (const { priority } of (await rtnl.listRules()).filter((found) => found.table === TABLE)) {
      await rtnl.delRule({ priority, table: TABLE });
    }
  });

  it('adds, lists and deletes', async () => {
    await rtnl.addRule(rule);
    expect((await refusal(rtnl.addRule(rule))).code).toBe('EEXIST');
    expect((await rtnl.listRules()).filter((found) => found.table === TABLE)).toEqual([{ ...rule, oif: null }]);
    await rtnl.delRule(rule);
    expect((await refusal(rtnl.delRule(rule))).code).toBe('ENOENT');
  });
});

describe('neighbours', () => {
  it('adds a permanent one, over what was there', async () => {
    await rtnl.createVeth('tvr0', 'tvr1');
    await rtnl.setLink('tvr0', { up: true });
    await rtnl.addNeighbour('tvr0', '192.0.2.7', '02:00:00:00:70:77');
    await rtnl.addNeighbour('tvr0', '192.0.2.7', '02:00:00:00:70:78');
    const [neighbour] = await ipJson('neighbour show dev tvr0');
    expect(neighbour).toMatchObject({ dst: '192.0.2.7', lladdr: '02:00:00:00:70:78', state: ['PERMANENT'] });
  });
});

describe('namespaces and programs in them', () => {
  it('runs programs, sets sysctls and batches of ip', async () => {
    await setSysctls(B, { 'net.ipv4.conf.lo.rp_filter': 2, 'net.ipv4.ip_forward': 1 });
    expect(await runOkIn(B, ['sysctl', '-n', 'net.ipv4.conf.lo.rp_filter'])).toBe('2\n');
    await ipBatch(B, ['address add 192.0.2.5/32 dev lo', 'route add blackhole 203.0.113.0/24']);
    expect(await runOkIn(B, ['ip', 'route', 'get', '192.0.2.5'])).toContain('local 192.0.2.5 dev lo');
    await expect(ipBatch(B, ['link set lo up', 'address add 192.0.2.5/32 dev lo'])).rejects.toThrow(
      "at 'ip address add 192.0.2.5/32 dev lo'",
    );
    expect(await runIn(B, ['sh', '-c', 'echo out; echo err >&2; exit 3'])).toEqual({
      status: 3,
      stdout: 'out\n',
      stderr: 'err\n',
    });
  });

  it('many requests at a time take turns', async () => {
    const lists = await Promise.all(Array.from({ length: 20 }, () => rtnl.listLinks()));
    expect(new Set(lists.map((links) => links.length)).size).toBe(1);
  });
});
