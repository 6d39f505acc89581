// The kernel's side of the host port, as host-port.ts promises it, for each reverse-path filter.
//
//   CLIENT                         HOST
//     eth0 10.0.1.2 ══ client ─ br-front        TUN `host` 10.0.3.2 ─── this test (TunPeer), in the place of tapvs
//
// tapvs's local addresses: the VIP 10.0.1.100, 10.0.1.1 and 10.0.3.1.
import type { ChildProcess } from 'node:child_process';
import { createRequire } from 'node:module';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import * as native from '../src/device/native.ts';
import { configureHostPort, HostPortConflict, planHostPort, removeHostPort } from '../src/rtnl/host-port.ts';
import {
  addNetns,
  delNetns,
  ipBatch,
  runIn,
  runOkIn,
  setSysctls,
  spawnIn,
  stop,
  waitForLine,
} from '../src/rtnl/netns.ts';
import { openRtnl, type Rtnl } from '../src/rtnl/rtnl.ts';
import { datagram, icmp, syn, TunPeer } from './tun-peer.ts';

const HOST = `tvh${process.pid}`;
const CLIENT = `tvh${process.pid}c`;
const VIP = '10.0.1.100';
const CONFIG = {
  device: 'host',
  peer: '10.0.3.2/30',
  localAddresses: [VIP, '10.0.1.1', '10.0.3.1'],
  prefixes: ['10.0.1.0/24', '10.0.2.0/24', '10.0.3.0/30'],
  hasDefault: true,
};

let fd: number;
let tun: TunPeer;
let rtnl: Rtnl;
let listener: ChildProcess;
let ports = 20_000;
/** A source port that no earlier packet of this test has used. */
const port = (): number => ++ports;

const everything = async (): Promise<string[]> => [
  await runOkIn(HOST, ['ip', '-4', 'address', 'show', 'dev', 'host']),
  await runOkIn(HOST, ['ip', '-4', 'route', 'show', 'table', 'all']),
  await runOkIn(HOST, ['ip', 'rule']),
];

beforeAll(async () => {
  for (const name of [HOST, CLIENT]) {
    await addNetns(name);
    await setSysctls(name, { 'net.ipv6.conf.all.disable_ipv6': 1, 'net.ipv6.conf.default.disable_ipv6': 1 });
  }
  await ipBatch(null, [`link add eth0 netns ${CLIENT} type veth peer name client netns ${HOST}`]);
  await ipBatch(CLIENT, ['address add 10.0.1.2/24 dev eth0', 'link set eth0 up']);
  await ipBatch(HOST, ['link add br-front up type bridge forward_delay 0', 'link set client master br-front up']);

  const netns = native.openNetns(HOST);
  const enter = <T>(fn: () => T): T => native.withNetns(netns, fn);
  fd = native.openTun({ name: 'host', kind: 'tun', netnsFd: netns }).fd;
  rtnl = openRtnl({ enter });
  native.close(netns);
  tun = new TunPeer(fd, { serve: true });

  const script =
    "const s = require('net').createServer((c) => c.on('error', () => {}));" +
    "s.listen(8080, '0.0.0.0', () => require('dgram').createSocket('udp4')" +
    ".on('message', function (m, f) { this.send(m, f.port, f.address); }).bind(8080, '0.0.0.0', () => console.log('ready')));";
  listener = spawnIn(HOST, [process.execPath, '-e', script]);
  await waitForLine(listener, /^ready$/);
  await configureHostPort(rtnl, CONFIG);
});

afterAll(async () => {
  rtnl?.close();
  tun?.stop();
  if (listener !== undefined) await stop(listener);
  if (fd !== undefined) native.close(fd);
  for (const name of [HOST, CLIENT]) await delNetns(name);
});

describe.each([0, 1, 2])('with rp_filter %i', (filter) => {
  beforeAll(() => setSysctls(HOST, { 'net.ipv4.conf.all.rp_filter': filter, 'net.ipv4.conf.host.rp_filter': filter }));

  it('what the namespace sends to a VIP goes down the TUN, from 10.0.3.2, and the answer reaches the socket', async () => {
    const from = tun.seen.length;
    expect(await runOkIn(HOST, ['curl', '-sS', '--max-time', '3', `http://${VIP}/`])).toBe('vip\n');
    await tun.next(/^tcp 10\.0\.3\.2:\d+ > 10\.0\.1\.100:80 SYN$/, from);
  });

  it('the same for ICMP', async () => {
    const raw = createRequire(import.meta.url).resolve('raw-socket');
    const script =
      `const raw = require('${raw}'); const s = raw.createSocket({ protocol: raw.Protocol.ICMP });` +
      "const b = Buffer.from('0800000012340001', 'hex'); raw.writeChecksum(b, 2, raw.createChecksum(b));" +
      "s.on('message', (m, from) => { if (m[20] === 0) { console.log('echo reply from ' + from); s.close(); } });" +
      `s.send(b, 0, 8, '${VIP}', () => {}); setTimeout(() => process.exit(1), 3000).unref();`;
    const from = tun.seen.length;
    expect(await runOkIn(HOST, [process.execPath, '-e', script])).toBe(`echo reply from ${VIP}\n`);
    expect(tun.seen.slice(from)).toContain(`icmp 10.0.3.2 > ${VIP} 8/0`);
  });

  it.each(['10.0.1.2', '203.0.113.5'])(
    'sockets accept from %s on every local address and answer from it',
    async (client) => {
      for (const local of [...CONFIG.localAddresses, '10.0.3.2']) {
        const p = port();
        const answer = await tun.exchange(syn(`${client}:${p}`, `${local}:8080`), new RegExp(`:${p} `));
        expect(answer).toBe(`tcp ${local}:8080 > ${client}:${p} SYN,ACK`);
      }
    },
  );

  it('sockets accept from the VIP itself, on 10.0.3.2 and on another local address', async () => {
    for (const local of ['10.0.3.2', '10.0.1.1']) {
      const p = port();
      const answer = await tun.exchange(syn(`${VIP}:${p}`, `${local}:8080`), new RegExp(`:${p} `));
      expect(answer).toBe(`tcp ${local}:8080 > ${VIP}:${p} SYN,ACK`);
    }
  });

  it('closed ports answer with RST and port unreachable, and the kernel with an echo reply', async () => {
    const p = port();
    expect(await tun.exchange(syn(`10.0.1.2:${p}`, `${VIP}:9999`), new RegExp(`:${p} `))).toBe(
      `tcp ${VIP}:9999 > 10.0.1.2:${p} RST,ACK`,
    );
    await tun.exchange(datagram(`10.0.1.2:${p}`, `${VIP}:9999`), /^icmp 10\.0\.1\.100 > 10\.0\.1\.2 3\/3$/);
    await tun.exchange(icmp('10.0.1.2', VIP, 8), /^icmp 10\.0\.1\.100 > 10\.0\.1\.2 0\/0$/);
  });
});

describe('the kernel beside it', () => {
  it('does not answer ARP for a local address on the bridge', async () => {
    for (const address of [VIP, '10.0.1.1', '10.0.3.2']) {
      await runOkIn(CLIENT, ['ip', 'route', 'replace', `${address}/32`, 'dev', 'eth0']);
      const { status } = await runIn(CLIENT, ['curl', '-sS', '--connect-timeout', '0.3', `http://${address}:8080/`]);
      expect(status).not.toBe(0);
      expect(await runOkIn(CLIENT, ['ip', 'neighbour', 'show', address])).not.toContain('lladdr');
    }
  });

  it('answers a UDP request to a socket on 0.0.0.0 from its own address: a limit, as on every host', async () => {
    const p = port();
    const answer = await tun.exchange(datagram(`10.0.1.2:${p}`, `${VIP}:8080`), new RegExp(`:${p}$`));
    expect(answer).toBe(`udp 10.0.3.2:8080 > 10.0.1.2:${p}`);
  });

  it('lets a program bind to a VIP only with ip_nonlocal_bind, and then answers from it', async () => {
    const script = `require('net').createServer().on('error', (e) => { console.log(e.code); process.exit(1); })
      .listen(8081, '${VIP}', () => console.log('ready'))`;
    expect((await runIn(HOST, [process.execPath, '-e', script])).stdout).toBe('EADDRNOTAVAIL\n');
    await setSysctls(HOST, { 'net.ipv4.ip_nonlocal_bind': 1 });
    const bound = spawnIn(HOST, [process.execPath, '-e', script]);
    await waitForLine(bound, /^ready$/);
    const p = port();
    const answer = await tun.exchange(syn(`10.0.1.2:${p}`, `${VIP}:8081`), new RegExp(`:${p} `));
    expect(answer).toBe(`tcp ${VIP}:8081 > 10.0.1.2:${p} SYN,ACK`);
    await stop(bound);
  });

  it('reaches tapvs’s networks and default route through the TUN, but keeps routes of its own', async () => {
    expect(await runOkIn(HOST, ['ip', 'route', 'get', '10.0.2.11'])).toContain('dev host src 10.0.3.2');
    expect(await runOkIn(HOST, ['ip', 'route', 'get', '198.51.100.1'])).toContain('dev host src 10.0.3.2');
    await ipBatch(HOST, ['address add 10.0.2.77/24 dev br-front']);
    expect(await runOkIn(HOST, ['ip', 'route', 'get', '10.0.2.11'])).toContain('dev br-front src 10.0.2.77');
    await ipBatch(HOST, ['address del 10.0.2.77/24 dev br-front']);
  });
});

describe('configureHostPort', () => {
  it('has nothing to do the second time', async () => {
    expect(await planHostPort(rtnl, CONFIG)).toEqual([]);
  });

  it('follows a VIP that goes and one that comes, touching nothing else', async () => {
    const changed = { ...CONFIG, localAddresses: ['10.0.1.101', '10.0.1.1', '10.0.3.1'] };
    const done = await configureHostPort(rtnl, changed);
    expect(done.every((text) => text.includes(VIP) || text.includes('10.0.1.101'))).toBe(true);
    const p = port();
    await tun.exchange(
      syn(`10.0.1.2:${p}`, '10.0.1.101:8080'),
      new RegExp(`^tcp 10.0.1.101:8080 > 10.0.1.2:${p} SYN,ACK$`),
    );
    expect(await runOkIn(HOST, ['ip', 'route', 'get', VIP])).not.toContain('local');
    expect((await everything()).join()).not.toContain(VIP);
    await configureHostPort(rtnl, CONFIG);
    expect(await planHostPort(rtnl, CONFIG)).toEqual([]);
  });

  it('repairs what a device that went down and up has lost', async () => {
    const before = await everything();
    await rtnl.setLink('host', { up: false });
    await rtnl.setLink('host', { up: true });
    expect(await runOkIn(HOST, ['ip', 'route', 'get', VIP])).toContain('local');
    await configureHostPort(rtnl, CONFIG);
    expect((await everything()).map(sorted)).toEqual(before.map(sorted));
    expect(await runOkIn(HOST, ['curl', '-sS', '--max-time', '3', `http://${VIP}/`])).toBe('vip\n');
  });

  it('refuses an address that the kernel owns elsewhere, and says where', async () => {
    await ipBatch(HOST, [`address add ${VIP}/32 dev br-front`]);
    const refused = configureHostPort(rtnl, CONFIG);
    await expect(refused).rejects.toThrow(HostPortConflict);
    await expect(refused).rejects.toThrow(`${VIP} is an address of br-front in this namespace`);
    await ipBatch(HOST, [`address del ${VIP}/32 dev br-front`]);
  });

  it('is taken back without a trace', async () => {
    await removeHostPort(rtnl, CONFIG);
    const [addresses = '', routes = '', rules = ''] = await everything();
    expect(addresses).toBe('');
    expect(routes).not.toContain('dev host');
    expect(rules.trim().split('\n')).toHaveLength(3);
    await removeHostPort(rtnl, { device: 'no-such-device' });
  });
});

const sorted = (text: string): string[] => text.split('\n').sort();
