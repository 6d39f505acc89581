// What tapvs says, and passes on, when a packet cannot go its way: TTL, MTU, ports without a listener, impossible sources.
//
//   client 10.0.1.2 ─ 10.0.1.1 [front] tapvsd [back] 10.0.2.1 ─ rs1 10.0.2.11
//
// The second lab has a wide front (4000 bytes) and a narrow way to the server (1300 bytes inside tapvs).
import { createHash } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Lab, labUp } from '../src/lab/lab.ts';
import {
  LAB_CLIENT_IP,
  LAB_CLIENT_MAC,
  LAB_FRONT_IP,
  LAB_FRONT_MAC,
  LAB_VIP,
  type LabKind,
  labPlan,
} from '../src/lab/plan.ts';
import { runIn, runOkIn, waitForLine } from '../src/rtnl/netns.ts';
import { describeFrame, describePacket, frame, verifyFrame } from '../src/wire/build.ts';
import { faultsOf, watch } from './watch.ts';

const RS1 = '10.0.2.11';
const IP_HEADER = 20;
const QUOTE = IP_HEADER + 8;
/** RFC 1812 §4.3.2.3: an error has at most 576 bytes. */
const MAX_QUOTED = 576 - QUOTE;

/** Python that sends the frames of its standard input (hexadecimal, one a line) from eth0. */
const SEND = `import socket,sys
out=socket.socket(socket.AF_PACKET,socket.SOCK_RAW); out.bind(("eth0",0))
answers=socket.socket(socket.AF_INET,socket.SOCK_RAW,socket.IPPROTO_ICMP); answers.settimeout(5)
for line in sys.stdin: out.send(bytes.fromhex(line))`;
/** … and prints the first ICMP packet that the host gets afterwards. */
const SEND_AND_HEAR = `${SEND}\nprint(answers.recv(65535).hex())`;

const fromClient = () => frame().eth(LAB_FRONT_MAC, LAB_CLIENT_MAC);
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

async function send(netns: string, ...frames: Uint8Array[]): Promise<void> {
  await runOkIn(netns, ['python3', '-c', SEND], { input: `${frames.map(hex).join('\n')}\n` });
}

/** Sends a frame and answers the ICMP packet (from its IP header on) that comes back. */
async function answerTo(netns: string, bytes: Uint8Array): Promise<Uint8Array> {
  const text = await runOkIn(netns, ['python3', '-c', SEND_AND_HEAR], { input: `${hex(bytes)}\n` });
  return Uint8Array.from(Buffer.from(text.trim(), 'hex'));
}

/** A drop counter, from the API. */
async function drops(lab: Lab, name: string): Promise<number> {
  const { socket, director } = lab.plan;
  const text = await runOkIn(director, ['curl', '-sS', '--unix-socket', socket, 'http://tapvs/v1/drops']);
  const rows: { name: string; count: number }[] = JSON.parse(text);
  return rows.find((row) => row.name === name)?.count ?? 0;
}

async function add(lab: Lab, service: string, server: string): Promise<void> {
  expect(await lab.tapvs('ipvsadm', '-A', ...service.split(' '), '-s', 'rr')).toMatchObject({ status: 0, stderr: '' });
  const words = ['-a', ...service.split(' '), '-r', server, '-m'];
  expect(await lab.tapvs('ipvsadm', ...words)).toMatchObject({ status: 0, stderr: '' });
}

describe.each<LabKind>(['tap', 'packet'])('errors and their quotations, on %s devices', (kind) => {
  const plan = labPlan({ prefix: `tic${process.pid}${kind[0]}a-`, servers: 1, kind, checksumOffload: false });
  const rs = plan.servers[0]!.netns;
  let lab: Lab;

  beforeAll(async () => {
    lab = await labUp(plan);
    await lab.startServers();
    await lab.startDaemon();
    await lab.curl(`http://${plan.vip}/`); // all neighbours know each other
  });
  afterAll(async () => {
    await lab?.down();
  });

  it.each([
    { what: 'a short datagram', bytes: 40, source: LAB_FRONT_IP, to: RS1 },
    { what: 'a long datagram, cut to 576 bytes', bytes: 1400, source: LAB_FRONT_IP, to: RS1 },
    { what: 'a datagram to a service, in its name', bytes: 40, source: LAB_VIP, to: LAB_VIP },
  ])('TTL 1: time exceeded, quoting $what', async ({ bytes, source, to }) => {
    const echo = { srcPort: 40_000, dstPort: 7 };
    const probe = fromClient().ipv4(LAB_CLIENT_IP, to, { ttl: 1, id: 4711 }).udp(echo).payload(bytes).build();
    const before = await drops(lab, 'TtlExceeded');
    const answer = await answerTo(plan.client, probe);
    expect(verifyFrame(answer, { isIp: true })).toEqual([]);
    const quoted = probe.subarray(14, 14 + Math.min(probe.length - 14, MAX_QUOTED));
    expect(describePacket(answer)).toContain(`IP ${source} > ${LAB_CLIENT_IP}: icmp error 11/0 {`);
    expect(hex(answer.subarray(QUOTE))).toBe(hex(quoted));
    expect(await drops(lab, 'TtlExceeded')).toBe(before + 1);
  });

  it('is what traceroute needs: first 10.0.1.1, then the server', async () => {
    const first = await runIn(plan.client, ['ping', '-n', '-c', '1', '-t', '1', '-W', '2', RS1]);
    expect(first.stdout).toContain(`From ${LAB_FRONT_IP} icmp_seq=1 Time to live exceeded`);
    expect((await runIn(plan.client, ['ping', '-n', '-c', '1', '-t', '2', '-W', '2', RS1])).status).toBe(0);
  });

  it('translates port unreachable of a real server, so that the client’s socket sees it', async () => {
    await add(lab, `-u ${LAB_VIP}:5000`, `${RS1}:5001`);
    const w = await watch(plan.client, 'eth0', `${plan.runDir}/refused.pcap`, 'icmp');
    const ask = `import socket
s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.settimeout(5); s.connect(("${LAB_VIP}",5000)); s.send(b"hello")
try: s.recv(100)
except OSError as e: print(type(e).__name__, s.getsockname()[1])`;
    const [error, port] = (await runOkIn(plan.client, ['python3', '-c', ask])).trim().split(' ');
    expect(error).toBe('ConnectionRefusedError');
    const frames = await w.frames();
    expect(faultsOf(frames)).toEqual([]);
    expect(frames.map(describeFrame).join('\n')).toContain(
      `IP ${LAB_VIP} > ${LAB_CLIENT_IP}: icmp error 3/3 { IP ${LAB_CLIENT_IP}.${port} > ${LAB_VIP}.5000: udp`,
    );
  });

  it.each([LAB_VIP, LAB_FRONT_IP, RS1])(
    'a ping of 3000 bytes to %s, in fragments both ways, is answered',
    async (to) => {
      const { status, stdout } = await runIn(plan.client, [
        'ping',
        '-n',
        '-c',
        '2',
        '-i',
        '0.2',
        '-W',
        '2',
        '-s',
        '3000',
        to,
      ]);
      expect(stdout).toContain('3008 bytes from');
      expect(status).toBe(0);
    },
  );

  it('drops and counts sources that cannot be', async () => {
    const sources = ['127.0.0.1', '224.0.0.1', '255.255.255.255', '0.0.0.1', LAB_FRONT_IP, LAB_VIP, '10.0.1.255'];
    const frames = sources.map((source) =>
      fromClient().ipv4(source, LAB_VIP, {}).tcp({ srcPort: 4000, dstPort: 80, flags: 'S' }).build(),
    );
    const before = await drops(lab, 'MartianSource');
    const w = await watch(rs, 'eth0', `${plan.runDir}/martians.pcap`, 'tcp port 80');
    await send(plan.client, ...frames);
    await lab.curl(`http://${LAB_VIP}/`); // came behind them through the same device
    expect((await drops(lab, 'MartianSource')) - before).toBe(sources.length);
    const seen = (await w.frames()).map(describeFrame);
    expect(seen.length).toBeGreaterThan(0);
    expect(
      seen.filter((text) => !text.includes(`IP ${LAB_CLIENT_IP}.`) && !text.includes(`> ${LAB_CLIENT_IP}.`)),
    ).toEqual([]);
  });
});

describe.each<LabKind>(['tap', 'packet'])('a narrow way to the server, on %s devices', (kind) => {
  const plan = labPlan({ prefix: `tic${process.pid}${kind[0]}b-`, servers: 1, kind, mtu: 4000 });
  const rs = plan.servers[0]!.netns;
  const MTU = 1300;
  let lab: Lab;

  beforeAll(async () => {
    lab = await labUp(plan);
    await lab.startServers();
    await lab.startDaemon();
    expect(await lab.tapvs('ip', 'link', 'set', 'back', 'mtu', String(MTU))).toMatchObject({ status: 0, stderr: '' });
    await lab.curl(`http://${plan.vip}/`);
  });
  afterAll(async () => {
    await lab?.down();
  });

  it('cuts datagrams of 3000 bytes without DF into pieces that the server puts together', async () => {
    await add(lab, `-u ${LAB_VIP}:9`, `${RS1}:9`);
    const serve = `import socket,hashlib
s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.bind(("0.0.0.0",9)); print("ready",flush=True)
while True:
  data,peer=s.recvfrom(65535); s.sendto(f"{len(data)} {hashlib.sha256(data).hexdigest()}".encode(),peer)`;
    await waitForLine(lab.spawn(rs, ['python3', '-c', serve]), /ready/);
    const w = await watch(rs, 'eth0', `${plan.runDir}/fragments.pcap`, `src host ${LAB_CLIENT_IP}`);
    // IP_MTU_DISCOVER = IP_PMTUDISC_DONT: DF is clear.
    const ask = `import socket
s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.settimeout(5); s.setsockopt(socket.IPPROTO_IP,10,0)
s.connect(("${LAB_VIP}",9)); s.send(bytes(range(250))*12); print(s.recv(100).decode())`;
    const data = Uint8Array.from({ length: 3000 }, (_, i) => i % 250);
    const digest = createHash('sha256').update(data).digest('hex');
    expect((await runOkIn(plan.client, ['python3', '-c', ask])).trim()).toBe(`3000 ${digest}`);
    const frames = await w.frames();
    expect(faultsOf(frames)).toEqual([]);
    const pieces = frames.map((bytes) => {
      const view = new DataView(bytes.buffer, bytes.byteOffset + 14);
      const word = view.getUint16(6);
      return { length: view.getUint16(2), more: (word & 0x2000) !== 0, offset: (word & 0x1fff) * 8 };
    });
    // 3008 bytes of UDP: each piece but the last the largest multiple of 8 that fits into 1300 − 20.
    expect(pieces).toEqual([
      { length: 1300, more: true, offset: 0 },
      { length: 1300, more: true, offset: 1280 },
      { length: IP_HEADER + 448, more: false, offset: 2560 },
    ]);
  });

  it('owes fragmentation needed, with the MTU, to who forbids that', async () => {
    const { status, stdout } = await runIn(plan.client, [
      'ping',
      '-n',
      '-c',
      '1',
      '-W',
      '2',
      '-M',
      'do',
      '-s',
      '1400',
      RS1,
    ]);
    expect(stdout).toContain(`From ${LAB_FRONT_IP} icmp_seq=1 Frag needed and DF set (mtu = ${MTU})`);
    expect(status).toBe(1);
    expect((await runIn(plan.client, ['ping', '-n', '-c', '1', '-M', 'do', '-s', '1272', RS1])).status).toBe(0);
  });

  it('lets a big upload to the service find its segment size', async () => {
    expect(await runOkIn(plan.client, ['ip', 'route', 'get', LAB_VIP])).not.toContain('mtu');
    const before = await drops(lab, 'FragmentationNeeded');
    const body = Buffer.alloc(5_000_000, 'tapvs path mtu ');
    const up = await lab.run(
      plan.client,
      ['curl', '-sS', '--max-time', '20', '--data-binary', '@-', `http://${LAB_VIP}/`],
      {
        input: body.toString(),
      },
    );
    expect(up).toMatchObject({ stdout: `${body.length} ${createHash('sha256').update(body).digest('hex')}\n` });
    expect(await runOkIn(plan.client, ['ip', 'route', 'get', LAB_VIP])).toContain(`mtu ${MTU}`);
    expect(await drops(lab, 'FragmentationNeeded')).toBeGreaterThan(before);
  });
});
