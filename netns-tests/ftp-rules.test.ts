// FTP through rules of iptables, with a real server and curl: port-forwarded (DNAT), masqueraded, and both; passive and active, short and extended commands.
// What passes at both ends is put together by sequence number: each byte must be the one that the program there saw, though the director has rewritten
// addresses on the way, whose lengths differ. Each end loses some of what arrives, so that there is much to send again and to acknowledge selectively.
//
//   client 10.0.1.2 (far side of the server) ─ [front] tapvsd [back] ─ rs1 10.0.2.11 (far side of the client)
import { randomBytes } from 'node:crypto';
import { chmodSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Lab, labUp } from '../src/lab/lab.ts';
import { LAB_BACK_IP, LAB_CLIENT_IP, LAB_VIP, labConfig, labPlan } from '../src/lab/plan.ts';
import { runOkIn, waitForLine } from '../src/rtnl/netns.ts';
import { formatIp4 } from '../src/wire/addr.ts';
import { type TcpStream, tcpStreams } from './tcp-streams.ts';
import { faultsOf, faultsWithOffload, watch } from './watch.ts';

const BYTES = 100_000;
/** Addresses of the director's, longer in a PORT command than the client's. */
const OUTSIDE = '10.0.2.234';

const HELPER = '-t raw -A PREROUTING -p tcp --dport 21 -j CT --helper ftp';
const SERVER = '10.0.2.11';
const FORWARD = `-t nat -A PREROUTING -d ${LAB_VIP} -p tcp --dport 21 -j DNAT --to-destination ${SERVER}`;
const ROADS = [
  { name: 'port-forwarded', rules: [FORWARD], target: LAB_VIP, origin: LAB_CLIENT_IP },
  {
    name: 'masqueraded',
    rules: ['-t nat -A POSTROUTING -o back -j MASQUERADE'],
    target: SERVER,
    origin: LAB_BACK_IP,
  },
  {
    name: 'port-forwarded and translated to another source',
    rules: [FORWARD, `-t nat -A POSTROUTING -o back -p tcp -j SNAT --to-source ${OUTSIDE}:30000-31000`],
    target: LAB_VIP,
    origin: OUTSIDE,
  },
];
const MODES = [
  { name: 'EPSV', words: [] },
  { name: 'PASV', words: ['--disable-epsv', '--no-ftp-skip-pasv-ip'] },
  { name: 'EPRT', words: ['--ftp-port', '-'] },
  { name: 'PORT', words: ['--ftp-port', '-', '--disable-eprt'] },
];

/** With offload, ends send and get super-packets without checksums; what has changed in length must still be cut rightly. */
const PEERS = [
  { offload: false, roads: ROADS, modes: MODES },
  { offload: true, roads: ROADS.slice(-1), modes: MODES.filter(({ name }) => name === 'PASV' || name === 'PORT') },
];

let lab: Lab;
const iptables = async (line: string) =>
  expect(await lab.tapvs('iptables', ...line.split(' '))).toMatchObject({ status: 0, stderr: '' });
/** What curl's --trace says went over its control connection: what its socket was given, and gave. */
function traced(file: string): { sent: Buffer; received: Buffer } {
  const bytes: Record<string, number[]> = { '=> Send header': [], '<= Recv header': [] };
  let into: number[] | undefined;
  for (const line of readFileSync(file, 'utf8').split('\n')) {
    const hex = /^[0-9a-f]{4,}: ((?:[0-9a-f]{2} ){1,16})/.exec(line);
    if (hex === null) into = bytes[line.slice(0, '=> Send header'.length)];
    else
      into?.push(
        ...hex[1]!
          .trim()
          .split(' ')
          .map((byte) => Number.parseInt(byte, 16)),
      );
  }
  // It keeps silent about how it takes its leave.
  bytes['=> Send header']!.push(...Buffer.from('QUIT\r\n'));
  bytes['<= Recv header']!.push(...Buffer.from('221 Goodbye.\r\n'));
  return { sent: Buffer.from(bytes['=> Send header']!), received: Buffer.from(bytes['<= Recv header']!) };
}

/** The IPv4 identifications of one sender's packets, sorted: a kernel with several processors may change their order between two of its devices. */
const idsFrom = (address: string, frames: readonly Uint8Array[]) =>
  frames
    .map((bytes) => new DataView(bytes.buffer, bytes.byteOffset))
    .filter((m) => formatIp4(m.getInt32(26)) === address)
    .map((m) => m.getUint16(18))
    .sort((a, b) => a - b);
const hostOf = (end: string) => end.split(':')[0];
const isControl = ({ to }: TcpStream) => to.endsWith(':21');
/** The bytes of data connections, in their order: each carries them one way. */
const payloads = (streams: readonly TcpStream[]) =>
  streams.filter((stream) => !isControl(stream)).map(({ sent, received }) => Buffer.concat([sent, received]));

describe.each(PEERS)('peers with offload: $offload', ({ offload, roads, modes }) => {
  const plan = labPlan({ prefix: `tfr${process.pid}${offload ? 1 : 0}-`, servers: 1, checksumOffload: offload });
  const server = plan.servers[0]!;
  const folder = `${plan.runDir}/ftp`;
  const records = `${plan.runDir}/records`;
  const down = randomBytes(BYTES);
  const up = randomBytes(BYTES);

  beforeAll(async () => {
    lab = await labUp(plan);
    for (const path of [folder, `${folder}/many`, records]) mkdirSync(path);
    chmodSync(folder, 0o777);
    // A listing of these over the control connection is many segments.
    for (let i = 0; i < 300; i++) writeFileSync(`${folder}/many/file-${i}`, '');
    writeFileSync(`${folder}/down.bin`, down);
    writeFileSync(`${plan.runDir}/up.bin`, up);
    const program = new URL('ftp-server.py', import.meta.url).pathname;
    const words = ['/usr/bin/python3', program, server.address, folder, records];
    const addresses = `addresses: [${plan.vip}/32, ${OUTSIDE}/32]\n`;
    await Promise.all([
      waitForLine(lab.spawn(server.netns, words), /^ready$/),
      lab.startDaemon(labConfig(plan, { ipvsadm: '' }).replace(/^addresses:.*\n/m, addresses)),
    ]);
    for (const netns of [plan.client, server.netns]) {
      const lose = '-A INPUT -p tcp --tcp-flags SYN,FIN NONE -m statistic --mode nth --every 17 --packet 11 -j DROP';
      await runOkIn(netns, ['iptables', ...lose.split(' ')]);
    }
    await iptables(HELPER);
  });
  afterAll(async () => {
    await lab?.down();
  });

  describe.each(roads)('FTP $name', ({ rules, target, origin }) => {
    beforeAll(async () => {
      if (origin !== LAB_CLIENT_IP) await runOkIn(server.netns, ['ip', 'route', 'flush', 'default']);
      await iptables('-t nat -F');
      for (const rule of rules) await iptables(rule);
    });

    it.each(modes)('$name: a listing, a file down, a file up, every byte in its place', async ({ name, words }) => {
      const nearServer = await watch(server.netns, 'eth0', `${plan.runDir}/${name}-server.pcap`, 'tcp');
      const nearClient = await watch(plan.client, 'eth0', `${plan.runDir}/${name}-client.pcap`, 'tcp');
      const got = `${plan.runDir}/down-${name}.bin`;
      const trace = `${plan.runDir}/${name}.trace`;
      const url = `ftp://${target}`;
      await lab.curl(
        ...['--trace', trace, ...words, '-o', `${plan.runDir}/list-${name}`, `${url}/`, '-o', got, `${url}/down.bin`],
        ...['--next', '-sS', ...words, '-Q', '-STAT many', '-T', `${plan.runDir}/up.bin`, `${url}/up-${name}.bin`],
      );
      await closed();
      const [client, far] = [await nearClient.frames(), await nearServer.frames()];
      const faultsIn = offload ? faultsWithOffload : faultsOf;
      expect([...faultsIn(client), ...faultsIn(far)]).toEqual([]);
      // curl gives lines the end that they have on this machine.
      const list = Buffer.from(
        readFileSync(`${plan.runDir}/list-${name}`, 'latin1').replaceAll('\n', '\r\n'),
        'latin1',
      );
      expect(readFileSync(got).equals(down)).toBe(true);
      expect(readFileSync(`${folder}/up-${name}.bin`).equals(up)).toBe(true);

      // The director sends on what came: nothing is lost, nothing comes twice, nothing is its own.
      if (!offload) {
        expect(idsFrom(target, client)).toEqual(idsFrom(server.address, far));
        expect(idsFrom(origin, far)).toEqual(idsFrom(LAB_CLIENT_IP, client));
      }

      const ends = [
        { frames: client, client: LAB_CLIENT_IP, server: target, seen: traced(trace) },
        { frames: far, client: origin, server: server.address, seen: recorded() },
      ];
      for (const end of ends) {
        const { streams, faults } = tcpStreams(end.frames, !offload);
        expect(faults).toEqual([]);
        expect(streams).toHaveLength(4);
        expect(streams.filter(({ isWhole }) => !isWhole).map(({ from, to }) => `${from} > ${to}`)).toEqual([]);
        const [control, ...data] = streams;
        expect([hostOf(control!.from), control!.to]).toEqual([end.client, `${end.server}:21`]);
        expect(control!.sent.toString()).toBe(end.seen.sent.toString());
        expect(control!.received.toString()).toBe(end.seen.received.toString());
        for (const { from, to } of data) {
          const isActive = words.includes('--ftp-port');
          expect([hostOf(from), hostOf(to)]).toEqual(isActive ? [end.server, end.client] : [end.client, end.server]);
          if (isActive) expect(from).toBe(`${end.server}:20`);
        }
        expect(payloads(streams).map((bytes) => bytes.length)).toEqual([list.length, BYTES, BYTES]);
        expect(Buffer.concat(payloads(streams)).equals(Buffer.concat([list, down, up]))).toBe(true);
        // What is announced is an address of this side.
        const said = `${control!.sent}${control!.received}`;
        const announced = [...said.matchAll(/^(?:PORT |227 .*\()(\d+,\d+,\d+,\d+),|^EPRT \|1\|([\d.]+)\|/gm)];
        expect(announced.map((match) => (match[1] ?? match[2])!.replaceAll(',', '.'))).toEqual(
          name === 'EPSV' ? [] : Array(3).fill(words.includes('--ftp-port') ? end.client : end.server),
        );
      }
      // There was something to mend: what was lost on the control connection itself, too.
      if (!offload) expect(tcpStreams(client).streams[0]!.sacks + tcpStreams(far).streams[0]!.sacks).toBeGreaterThan(0);
    });

    /** When all connections of both ends are closed: what was lost at their ends is sent again after the programs have ended. */
    async function closed(): Promise<void> {
      const words = ['ss', '-Htan', 'exclude', 'listening', 'exclude', 'time-wait'];
      for (const netns of [plan.client, server.netns])
        for (let asked = 0; asked < 300 && (await runOkIn(netns, words)) !== ''; asked++);
    }

    /** What the server's socket saw of its last control connection. */
    function recorded(): { sent: Buffer; received: Buffer } {
      const last = Math.max(...readdirSync(records).map((file) => Number.parseInt(file, 10)));
      return { sent: readFileSync(`${records}/${last}.in`), received: readFileSync(`${records}/${last}.out`) };
    }

    it('what was expected goes with its connection', async () => {
      await lab.tapvs('conntrack', '-F');
      expect((await lab.tapvs('conntrack', '-L', 'expect')).stdout).toBe('');
    });
  });
});
