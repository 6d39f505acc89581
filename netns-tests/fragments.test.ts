// Datagrams larger than a frame, balanced and translated, with real sockets: what comes in pieces is put together, sent to its server, and leaves in the
// pieces that its sender made (a tunnel's packet: in pieces no larger than these). Every piece of the captures is verified, and every datagram put together from them.
//
//   client 10.0.1.2 (sends no more than 1400 bytes at once) ─ [front] tapvsd [back] ─ rs1, rs2, MTU 1500
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Lab, labUp } from '../src/lab/lab.ts';
import {
  LAB_BACK_IP,
  LAB_CLIENT_IP,
  LAB_ECHO_PORT,
  LAB_FRONT_IP,
  type LabMethod,
  labConfig,
  labPlan,
} from '../src/lab/plan.ts';
import { runOkIn } from '../src/rtnl/netns.ts';
import { formatIp4 } from '../src/wire/addr.ts';
import { verifyFrame } from '../src/wire/build.ts';
import { sumBytes } from '../src/wire/checksum.ts';
import { faultsOf, watch } from './watch.ts';

const CLIENT_MTU = 1400;
const MTU = 1500;
const IP_HEADER = 20;
const UDP_HEADER = 8;
const SIZES = [4000, 20_000, 60_000];
const TRACKING = [
  { tracking: 'without connection tracking', rules: [], conntrack: 0 },
  {
    tracking: 'what is balanced untracked',
    rules: ['-A FORWARD -m conntrack --ctstate INVALID -j DROP'],
    conntrack: 0,
  },
  { tracking: 'what is balanced tracked', rules: ['-A INPUT -m conntrack --ctstate INVALID -j DROP'], conntrack: 1 },
] as const;

/** An IP packet as it was before somebody cut it: its pieces as (offset, bytes behind the header), and all of it. */
interface Datagram {
  readonly src: string;
  readonly dst: string;
  readonly proto: number;
  readonly pieces: { offset: number; length: number }[];
  readonly packet: Uint8Array;
}

/** All IPv4 packets of a capture, put together; what is wrong with them is thrown. */
function datagrams(frames: readonly Uint8Array[], isTunnelled = false): Datagram[] {
  expect(faultsOf(frames)).toEqual([]);
  const waiting = new Map<string, Uint8Array[]>();
  const whole: Datagram[] = [];
  for (const bytes of frames) {
    if (viewOf(bytes).getUint16(12) !== 0x0800) continue;
    const packet = bytes.subarray(14);
    const m = viewOf(packet);
    const key = [m.getUint16(4), m.getUint8(9), m.getInt32(12), m.getInt32(16)].join();
    const pieces = [...(waiting.get(key) ?? []), packet.subarray(0, m.getUint16(2))];
    waiting.set(key, pieces);
    const last = pieces.find((piece) => !(viewOf(piece).getUint16(6) & 0x2000));
    const has = pieces.reduce((sum, piece) => sum + piece.length - IP_HEADER, 0);
    if (last === undefined || offsetOf(last) + last.length - IP_HEADER !== has) continue;
    waiting.delete(key);
    whole.push(assemble(pieces, IP_HEADER + has));
  }
  expect(waiting.size).toBe(0);
  expect(whole.flatMap(({ packet }) => verifyFrame(packet, { isIp: true }))).toEqual([]);
  return isTunnelled
    ? whole.map((outer) => ({ ...assemble([outer.packet.subarray(IP_HEADER)], 0), pieces: outer.pieces }))
    : whole;
}

function assemble(pieces: readonly Uint8Array[], length: number): Datagram {
  const packet = new Uint8Array(length || pieces[0]!.length);
  for (const piece of pieces) packet.set(piece.subarray(IP_HEADER), IP_HEADER + offsetOf(piece));
  packet.set(pieces.find((piece) => offsetOf(piece) === 0)!.subarray(0, IP_HEADER));
  const m = viewOf(packet);
  if (length !== 0) {
    // The header of the whole: longer, and no piece.
    m.setUint16(2, length);
    m.setUint16(6, 0);
    m.setUint16(10, 0);
    m.setUint16(10, ~sumBytes(m, 0, IP_HEADER) & 0xffff);
  }
  return {
    src: formatIp4(m.getInt32(12)),
    dst: formatIp4(m.getInt32(16)),
    proto: m.getUint8(9),
    pieces: pieces.map((piece) => ({ offset: offsetOf(piece), length: piece.length - IP_HEADER })),
    packet,
  };
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}
const offsetOf = (piece: Uint8Array) => (viewOf(piece).getUint16(6) & 0x1fff) * 8;
/** What a datagram carries: behind IP and UDP. */
const load = ({ packet }: Datagram) => Buffer.from(packet.subarray(IP_HEADER + UDP_HEADER));

/** How a sender with that MTU cuts so many bytes. */
function cut(bytes: number, mtu: number): { offset: number; length: number }[] {
  const room = (mtu - IP_HEADER) & ~7;
  const pieces: { offset: number; length: number }[] = [];
  for (let offset = 0; offset < bytes; offset += room) {
    const left = bytes - offset;
    pieces.push({ offset, length: left <= mtu - IP_HEADER ? left : room });
    if (left <= mtu - IP_HEADER) break;
  }
  return pieces;
}

/** Sends random datagrams of each size, each from a port of its own, and prints who answered that it got just these. */
const ask = (to: string, sizes: readonly number[]) => `import os,socket
for size in ${JSON.stringify(sizes)}:
  s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.settimeout(5)
  sent=os.urandom(size); s.sendto(sent,("${to}",${LAB_ECHO_PORT})); got,peer=s.recvfrom(65535)
  assert got[4:]==sent and peer==("${to}",${LAB_ECHO_PORT}), (len(got), peer)
  print(got[:3].decode(),size)`;

describe.each<LabMethod>(['nat', 'dr', 'tun'])('datagrams in pieces, balanced by %s', (method) => {
  const plan = labPlan({ prefix: `tfg${process.pid}${method[0]}-`, servers: 2, method, checksumOffload: false });
  const { client, servers, vip } = plan;
  let lab: Lab;

  beforeAll(async () => {
    lab = await labUp(plan);
    await runOkIn(client, ['ip', 'route', 'add', vip, 'dev', 'eth0', 'mtu', String(CLIENT_MTU)]);
    await Promise.all([lab.startServers(), lab.startDaemon()]);
  });
  afterAll(async () => {
    await lab?.down();
  });

  it.each(TRACKING)('$tracking', async ({ rules, conntrack }) => {
    await lab.tapvs('sysctl', '-w', `net.ipv4.vs.conntrack=${conntrack}`);
    await lab.tapvs('iptables', '-F');
    for (const rule of rules) expect((await lab.tapvs('iptables', ...rule.split(' '))).status).toBe(0);
    const atClient = await watch(client, 'eth0', `${plan.runDir}/client.pcap`, `host ${vip}`);
    const filter = method === 'tun' ? 'proto 4' : 'proto 17';
    const atServers = await Promise.all(
      servers.map(({ netns, name }) => watch(netns, 'eth0', `${plan.runDir}/${name}.pcap`, `ip ${filter}`)),
    );
    const sizes = [...SIZES, ...SIZES];
    const answers = await lab.run(client, ['python3', '-c', ask(vip, sizes)]);
    expect(answers).toMatchObject({ status: 0, stderr: '' });
    const lines = answers.stdout.trim().split('\n');
    expect(lines.map((line) => Number(line.split(' ')[1]))).toEqual(sizes);
    expect([...new Set(lines.map((line) => line.split(' ')[0]))].sort()).toEqual(['rs1', 'rs2']);

    const seen = datagrams(await atClient.frames());
    const served = (await Promise.all(atServers.map((w) => w.frames()))).map((frames) =>
      datagrams(frames, method === 'tun'),
    );
    const requests = seen.filter(({ src }) => src === LAB_CLIENT_IP);
    expect(requests.map(({ pieces }) => pieces)).toEqual(sizes.map((size) => cut(size + UDP_HEADER, CLIENT_MTU)));
    servers.forEach(({ address, name }, i) => {
      const mine = requests.filter((_, at) => lines[at]!.startsWith(name));
      const arrived = served[i]!.filter(({ src }) => src === LAB_CLIENT_IP);
      expect(arrived.map(({ dst }) => dst)).toEqual(mine.map(() => (method === 'nat' ? address : vip)));
      expect(arrived.map(load).map((bytes, at) => bytes.equals(load(mine[at]!)))).toEqual(mine.map(() => true));
      // In the sender's pieces; a tunnel's packet is another one, and is cut anew: in pieces no larger than the sender's (ip_do_fragment, frag_max_size).
      const wanted =
        method === 'tun' ? mine.map(({ packet }) => cut(packet.length, CLIENT_MTU)) : mine.map(({ pieces }) => pieces);
      expect(arrived.map(({ pieces }) => pieces)).toEqual(wanted);
      if (method !== 'nat') return;
      // The answers come back through the director, in the server's pieces.
      const said = served[i]!.filter(({ src }) => src === address);
      const heard = seen.filter(
        ({ src, packet }) => src === vip && load({ packet } as Datagram).toString('latin1', 0, 3) === name,
      );
      expect(said.map(({ pieces }) => pieces)).toEqual(
        mine.map(({ packet }) => cut(packet.length - IP_HEADER + name.length + 1, MTU)),
      );
      expect(heard.map(({ pieces }) => pieces)).toEqual(said.map(({ pieces }) => pieces));
    });
    const entries = (await lab.tapvs('conntrack', '-L', '-p', 'udp')).stdout.trim().split('\n').filter(Boolean);
    expect(entries.filter((line) => line.includes(`dport=${LAB_ECHO_PORT}`)).length).toBe(conntrack * sizes.length);
  });
});

describe('datagrams in pieces through rules', () => {
  const plan = labPlan({ prefix: `tfgr${process.pid}-`, servers: 1, checksumOffload: false });
  const { client, vip } = plan;
  const server = plan.servers[0]!;
  const forward = `-t nat -A PREROUTING -d ${vip} -p udp --dport ${LAB_ECHO_PORT} -j DNAT --to-destination ${server.address}`;
  const snat = '-t nat -A POSTROUTING -o back -p udp -j SNAT --to-source 10.0.2.1:40000-40100';
  let lab: Lab;

  beforeAll(async () => {
    lab = await labUp(plan);
    for (const to of [vip, server.address]) {
      const via = to === vip ? [] : ['via', LAB_FRONT_IP];
      await runOkIn(client, ['ip', 'route', 'add', to, ...via, 'dev', 'eth0', 'mtu', String(CLIENT_MTU)]);
    }
    await Promise.all([lab.startServers(), lab.startDaemon(labConfig(plan, { ipvsadm: '' }))]);
  });
  afterAll(async () => {
    await lab?.down();
  });

  it.each([
    { name: 'DNAT', rules: [forward], to: vip, origin: LAB_CLIENT_IP },
    { name: 'SNAT', rules: [snat], to: server.address, origin: LAB_BACK_IP },
    { name: 'both', rules: [forward, snat], to: vip, origin: LAB_BACK_IP },
  ])('$name: the same pieces at both ends, in both directions', async ({ rules, to, origin }) => {
    await lab.tapvs('iptables', '-t', 'nat', '-F');
    for (const rule of rules) expect((await lab.tapvs('iptables', ...rule.split(' '))).status).toBe(0);
    const atClient = await watch(client, 'eth0', `${plan.runDir}/client.pcap`, 'udp');
    const atServer = await watch(server.netns, 'eth0', `${plan.runDir}/server.pcap`, 'udp');
    const answers = await lab.run(client, ['python3', '-c', ask(to, SIZES)]);
    expect(answers).toMatchObject({ status: 0, stderr: '', stdout: SIZES.map((size) => `rs1 ${size}\n`).join('') });
    const [near, far] = [datagrams(await atClient.frames()), datagrams(await atServer.frames())];
    const way = ({ src, dst, pieces }: Datagram) => ({ src, dst, pieces });
    const [asked, answered] = [
      SIZES.map((size) => cut(size + UDP_HEADER, CLIENT_MTU)),
      SIZES.map((size) => cut(size + UDP_HEADER + 'rs1 '.length, MTU)),
    ];
    const both = (from: string, at: string) =>
      SIZES.flatMap((_, i) => [
        { src: from, dst: at, pieces: asked[i] },
        { src: at, dst: from, pieces: answered[i] },
      ]);
    expect(near.map(way)).toEqual(both(LAB_CLIENT_IP, to));
    expect(far.map(way)).toEqual(both(origin, server.address));
    expect(near.map(load).every((bytes, i) => bytes.equals(load(far[i]!)))).toBe(true);
    if (origin === LAB_BACK_IP) {
      const ports = far.filter(({ src }) => src === origin).map(({ packet }) => viewOf(packet).getUint16(IP_HEADER));
      for (const port of ports) expect(Math.abs(port - 40_050)).toBeLessThanOrEqual(50);
    }
  });
});
