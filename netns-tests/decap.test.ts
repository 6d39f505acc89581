// `tapvs decap` as a real server runs it: tunnel packets of each kind from a neighbour, and what the kernel behind the TUN makes of them.
//
//   SENDER eth0 10.9.0.1 ══ eth0 10.9.0.2 SERVER (10.9.9.9 on lo, UDP port 53) ── TUN tun7 ◄─ tapvs decap
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import * as native from '../src/device/native.ts';
import { addNetns, delNetns, ipBatch, runIn, setSysctls, spawnIn, stop, waitForLine } from '../src/rtnl/netns.ts';
import { ip4 } from '../src/wire/addr.ts';
import { frame } from '../src/wire/build.ts';
import { fold, pseudoSum, sumBytes } from '../src/wire/checksum.ts';
import * as gre from '../src/wire/gre.ts';
import * as gue from '../src/wire/gue.ts';
import * as udp from '../src/wire/udp.ts';

const SENDER = `tvd${process.pid}a`;
const SERVER = `tvd${process.pid}b`;
const TAPVS = fileURLToPath(new URL('../bin/tapvs', import.meta.url));
const [IPIP, GRE, UDP, ICMP] = [4, 47, 17, 1];

interface RawSocket {
  on(event: 'message', listener: (packet: Buffer) => void): void;
  send(b: Buffer, at: number, length: number, to: string, sent: (error: Error | null) => void): void;
  close(): void;
}
const raws = new Map<number, RawSocket>();
/** `type/code` of the ICMP messages that the sender got. */
const errors: string[] = [];
let onError: () => void = () => {};
let listener: ChildProcess;
let decap: ChildProcess;
let said = '';

function send(protocol: number, bytes: Uint8Array, to = '10.9.0.2'): Promise<void> {
  return new Promise((resolve, reject) => {
    const b = Buffer.from(bytes);
    raws.get(protocol)!.send(b, 0, b.length, to, (error) => (error === null ? resolve() : reject(error)));
  });
}

const inner = (data: string) =>
  frame().ipv4('10.9.0.1', '10.9.9.9').udp({ srcPort: 7000, dstPort: 53 }).payload(data).build();

/** Header of `length` bytes, written by `emit`, before `payload`. */
function wrap(length: number, payload: Uint8Array, emit: (m: DataView) => void): Uint8Array {
  const bytes = new Uint8Array(length + payload.length);
  bytes.set(payload, length);
  emit(new DataView(bytes.buffer));
  return bytes;
}

/** In UDP from 10.9.0.1 to the GUE port, without a checksum. */
const overUdp = (payload: Uint8Array, port = 6080) =>
  wrap(udp.UDP_HEADER, payload, (m) => udp.emit(m, 0, 40000, port, m.byteLength));

/** What the server's program says next that matches. */
const heard = (pattern: RegExp) => waitForLine(listener, pattern, 3000);

async function startDecap(...words: string[]): Promise<void> {
  decap = spawnIn(SERVER, [TAPVS, 'decap', '--device', 'tun7', ...words]);
  said = '';
  decap.stderr!.on('data', (chunk: Buffer) => {
    said += chunk.toString();
  });
  await waitForLine(decap, /^ready/);
  await setSysctls(SERVER, { 'net.ipv4.conf.tun7.rp_filter': 0 });
}

beforeAll(async () => {
  for (const name of [SENDER, SERVER]) {
    await addNetns(name);
    await setSysctls(name, {
      'net.ipv6.conf.all.disable_ipv6': 1,
      'net.ipv6.conf.default.disable_ipv6': 1,
      'net.ipv4.conf.all.rp_filter': 0,
    });
  }
  await ipBatch(null, [`link add eth0 netns ${SENDER} type veth peer name eth0 netns ${SERVER}`]);
  await ipBatch(SENDER, ['address add 10.9.0.1/24 dev eth0', 'link set eth0 up', 'route add 10.9.9.9 via 10.9.0.2']);
  await ipBatch(SERVER, ['address add 10.9.0.2/24 dev eth0', 'address add 10.9.9.9/32 dev lo', 'link set eth0 up']);
  const script =
    "require('dgram').createSocket('udp4').on('message', (m, f) => console.log(f.address + ':' + f.port + ' ' + m.length + ' ' + m.toString().slice(0, 20)))" +
    ".bind(53, '10.9.9.9', () => console.log('listening'));";
  listener = spawnIn(SERVER, [process.execPath, '-e', script]);
  await heard(/^listening$/);
  const module = createRequire(import.meta.url)('raw-socket') as {
    createSocket(o: { protocol: number; bufferSize: number }): RawSocket;
  };
  const netns = native.openNetns(SENDER);
  for (const protocol of [IPIP, GRE, UDP, ICMP]) {
    raws.set(
      protocol!,
      native.withNetns(netns, () => module.createSocket({ protocol: protocol!, bufferSize: 2048 })),
    );
  }
  native.close(netns);
  raws.get(ICMP!)!.on('message', (packet) => {
    errors.push(`${packet[20]}/${packet[21]}`);
    onError();
  });
});

afterAll(async () => {
  for (const raw of raws.values()) raw.close();
  if (listener !== undefined) await stop(listener);
  for (const name of [SENDER, SERVER]) await delNetns(name);
});

describe('tapvs decap', () => {
  beforeEach(() => startDecap('--type', 'ipip', '--type=gre', '--type', 'gue', '--gue-port', '6080'));
  afterEach(() => stop(decap));

  it('gives what IPIP, GRE and GUE carry to the kernel, and the kernel tells nobody that it knows no such protocol', async () => {
    errors.length = 0;
    const greSum = wrap(8, inner('gre-csum'), (m) => {
      gre.emit(m, 0, true);
      gre.setChecksum(m, 0, ~sumBytes(m, 0, m.byteLength) & 0xffff);
    });
    const open = inner('gue-remcsum');
    const m = new DataView(open.buffer);
    m.setUint16(26, fold(pseudoSum(ip4('10.9.0.1'), ip4('10.9.9.9'), UDP!, open.length - 20)));
    const cases: [string, number, Uint8Array][] = [
      ['ipip', IPIP!, inner('ipip')],
      ['gre', GRE!, wrap(4, inner('gre'), (h) => gre.emit(h, 0, false))],
      ['gre-csum', GRE!, greSum],
      ['gue', UDP!, overUdp(wrap(4, inner('gue'), (h) => gue.emit(h, 0)))],
      ['gue-remcsum', UDP!, overUdp(wrap(12, open, (h) => gue.emitRemcsum(h, 0, 20, 26)))],
    ];
    for (const [name, protocol, bytes] of cases) {
      const line = heard(new RegExp(` ${name}$`));
      await send(protocol, bytes);
      expect(await line).toBe(`10.9.0.1:7000 ${name.length} ${name}`);
    }
    // Two fragments of one outer packet: the kernel puts them together.
    const long = heard(/ 1472 big/);
    await send(IPIP!, inner('big'.padEnd(1472, '.')));
    expect(await long).toContain('10.9.0.1:7000');
    expect(errors).toEqual([]);
  });

  it('counts what it refuses by reason, on SIGUSR1 and at the end', async () => {
    await send(IPIP!, new Uint8Array(24).fill(0x65));
    await send(
      GRE!,
      wrap(8, inner('x'), (m) => m.setUint32(0, 0x20000800)),
    );
    await send(UDP!, overUdp(wrap(4, inner('x'), (m) => m.setUint8(0, 0x20))));
    const line = heard(/ last$/);
    await send(IPIP!, inner('last'));
    await line;
    decap.kill('SIGUSR1');
    while (!said.includes('refused')) await once(decap.stderr!, 'data');
    expect(said.split('\n').sort()).toEqual([
      '',
      'tun7: 1 ipip, 0 gre, 0 gue, 32 bytes',
      'tun7: 1 refused, GRE with a version, key, sequence number or routing',
      'tun7: 1 refused, GUE control message',
      'tun7: 1 refused, inner packet is not IPv4',
    ]);
    said = '';
    decap.kill('SIGTERM');
    expect(await once(decap, 'close')).toEqual([0, null]);
    expect(said).toContain('tun7: 1 ipip, 0 gre, 0 gue, 32 bytes\n');
    expect((await runIn(SERVER, ['ip', 'link', 'show', 'tun7'])).status).toBe(1);
    // And now that nobody takes them, the kernel says so.
    errors.length = 0;
    const answered = new Promise<void>((resolve) => {
      onError = resolve;
    });
    await send(
      GRE!,
      wrap(4, inner('x'), (m) => gre.emit(m, 0, false)),
    );
    await answered;
    expect(errors[0]).toMatch(/^3\/[23]$/);
  });

  it('says in one line why it cannot run', async () => {
    const again = await runIn(SERVER, [TAPVS, 'decap', '--device', 'tun7']);
    expect([again.status, again.stderr]).toEqual([
      69,
      'tapvs decap: tun7: ioctl TUNSETIFF: EBUSY: the device is open in another process; stop that, or choose another name\n',
    ]);
    for (const [words, text] of [
      [[], '--device is needed, see tapvs decap --help'],
      [['--device', 'far-too-long-a-name'], 'no device name: "far-too-long-a-name"'],
      [['--device', 'x', '--type', 'vxlan'], 'no tunnel type: "vxlan" (ipip, gue, gre)'],
      [['--device', 'x', '--gue-port', '0'], 'no port: "0"'],
      [['--device', 'x', '--local', '10.0.0'], 'no IPv4 address: "10.0.0"'],
    ] as const) {
      const bad = await runIn(SERVER, [TAPVS, 'decap', ...words]);
      expect([bad.status, bad.stderr]).toEqual([64, `tapvs decap: ${text}\n`]);
    }
  });
});

it('--local: what is addressed to another of the host’s addresses is left alone', async () => {
  await startDecap('--local', '10.9.9.9');
  try {
    const line = heard(/ here$/);
    await send(IPIP!, inner('elsewhere'));
    await send(IPIP!, inner('here'), '10.9.9.9');
    await line;
    decap.kill('SIGTERM');
    await once(decap, 'close');
    expect(said).toBe('tun7: 1 ipip, 32 bytes\n');
  } finally {
    await stop(decap);
  }
});
