// TFTP through rules of iptables, with a real server and curl: port-forwarded (DNAT), masqueraded, and both, through a firewall that lets in only what was announced.
// The server answers from another port than it was asked at: without the helper nobody knows whose that is.
//
//   client 10.0.1.2 (far side of the server) ─ [front] tapvsd [back] ─ rs1 10.0.2.11 (far side of the client)
import { randomBytes } from 'node:crypto';
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Lab, labUp } from '../src/lab/lab.ts';
import { LAB_BACK_IP, LAB_CLIENT_IP, LAB_VIP, labConfig, labPlan } from '../src/lab/plan.ts';
import { runOkIn, waitForLine } from '../src/rtnl/netns.ts';
import { formatIp4 } from '../src/wire/addr.ts';
import { faultsOf, watch } from './watch.ts';

/** Not a multiple of a block's 512 bytes. */
const BYTES = 20_100;
const BLOCKS = Math.ceil(BYTES / 512);
const TFTP = 69;
const SERVER = '10.0.2.11';
/** One more address of the director's. */
const OUTSIDE = '10.0.2.234';

const HELPER = '-t raw -A PREROUTING -p udp --dport 69 -j CT --helper tftp';
const FIREWALL = [
  '-P FORWARD DROP',
  '-A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT',
  '-A FORWARD -i front -p udp --dport 69 -j ACCEPT',
  '-A FORWARD -i back -m conntrack --ctstate RELATED -m helper --helper tftp -j ACCEPT',
];
const FORWARD = `-t nat -A PREROUTING -d ${LAB_VIP} -p udp --dport 69 -j DNAT --to-destination ${SERVER}`;
const ROADS = [
  { name: 'port-forwarded', rules: [FORWARD], target: LAB_VIP, origin: LAB_CLIENT_IP },
  { name: 'masqueraded', rules: ['-t nat -A POSTROUTING -o back -j MASQUERADE'], target: SERVER, origin: LAB_BACK_IP },
  {
    name: 'port-forwarded and translated to another source',
    rules: [FORWARD, `-t nat -A POSTROUTING -o back -p udp -j SNAT --to-source ${OUTSIDE}:30000-31000`],
    target: LAB_VIP,
    origin: OUTSIDE,
  },
];

interface Datagram {
  readonly from: string;
  readonly to: string;
  readonly fromPort: number;
  readonly toPort: number;
  readonly payload: string;
}

/** The UDP datagrams of Ethernet frames. */
function datagrams(frames: readonly Uint8Array[]): Datagram[] {
  return frames.map((bytes) => {
    const m = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    const l4 = 14 + (m.getUint8(14) & 15) * 4;
    const end = l4 + m.getUint16(l4 + 4);
    return {
      from: formatIp4(m.getInt32(26)),
      to: formatIp4(m.getInt32(30)),
      fromPort: m.getUint16(l4),
      toPort: m.getUint16(l4 + 2),
      payload: Buffer.from(bytes.slice(l4 + 8, end)).toString('hex'),
    };
  });
}

const from = (address: string, all: readonly Datagram[]) => all.filter((one) => one.from === address);
const payloads = (all: readonly Datagram[]) => all.map(({ payload }) => payload);

describe('TFTP', () => {
  const plan = labPlan({ prefix: `ttr${process.pid}-`, servers: 1, checksumOffload: false });
  const server = plan.servers[0]!;
  const folder = `${plan.runDir}/tftp`;
  const down = randomBytes(BYTES);
  const up = randomBytes(BYTES);
  let lab: Lab;
  const iptables = async (line: string) =>
    expect(await lab.tapvs('iptables', ...line.split(' '))).toMatchObject({ status: 0, stderr: '' });

  beforeAll(async () => {
    lab = await labUp(plan);
    mkdirSync(folder);
    chmodSync(folder, 0o777);
    writeFileSync(`${folder}/down.bin`, down);
    writeFileSync(`${plan.runDir}/up.bin`, up);
    const program = new URL('tftp-server.py', import.meta.url).pathname;
    const addresses = `addresses: [${plan.vip}/32, ${OUTSIDE}/32]\n`;
    await Promise.all([
      waitForLine(lab.spawn(server.netns, ['/usr/bin/python3', program, server.address, folder]), /^ready$/),
      lab.startDaemon(labConfig(plan, { ipvsadm: '' }).replace(/^addresses:.*\n/m, addresses)),
    ]);
    for (const rule of [HELPER, ...FIREWALL]) await iptables(rule);
  });
  afterAll(async () => {
    await lab?.down();
  });

  describe.each(ROADS)('$name', ({ rules, target, origin }) => {
    beforeAll(async () => {
      if (origin !== LAB_CLIENT_IP) await runOkIn(server.netns, ['ip', 'route', 'flush', 'default']);
      await iptables('-t nat -F');
      for (const rule of rules) await iptables(rule);
      await lab.tapvs('conntrack', '-F');
    });

    it('a file down and a file up, every block in its place', async () => {
      const nearServer = await watch(server.netns, 'eth0', `${plan.runDir}/${origin}-server.pcap`, 'udp');
      const nearClient = await watch(plan.client, 'eth0', `${plan.runDir}/${origin}-client.pcap`, 'udp');
      const got = `${plan.runDir}/down-${origin}.bin`;
      await lab.curl('-o', got, `tftp://${target}/down.bin`);
      await lab.curl('-T', `${plan.runDir}/up.bin`, `tftp://${target}/up-${origin}.bin`);
      const [client, far] = [await nearClient.frames(), await nearServer.frames()];
      expect([...faultsOf(client), ...faultsOf(far)]).toEqual([]);
      expect(readFileSync(got).equals(down)).toBe(true);
      expect(readFileSync(`${folder}/up-${origin}.bin`).equals(up)).toBe(true);

      const ends = [
        { all: datagrams(client), client: LAB_CLIENT_IP, server: target },
        { all: datagrams(far), client: origin, server: SERVER },
      ];
      for (const end of ends) {
        const [asked, answered] = [from(end.client, end.all), from(end.server, end.all)];
        // Nobody is seen but the two as this side knows them.
        expect(asked.length + answered.length).toBe(end.all.length);
        expect(asked.every(({ to }) => to === end.server) && answered.every(({ to }) => to === end.client)).toBe(true);
        const ports = new Set(answered.map(({ fromPort }) => fromPort));
        expect([ports.size, ports.has(TFTP)]).toEqual([2, false]);
        expect(asked.filter(({ toPort }) => toPort === TFTP)).toHaveLength(2);
        expect(new Set(answered.map(({ toPort }) => toPort))).toEqual(new Set(asked.map(({ fromPort }) => fromPort)));
      }
      const [near, there] = ends.map(({ all }) => all);
      expect(payloads(from(LAB_CLIENT_IP, near!))).toEqual(payloads(from(origin, there!)));
      expect(payloads(from(target, near!))).toEqual(payloads(from(SERVER, there!)));
      // A request, a block or its acknowledgement each way.
      expect(new Set(payloads(from(LAB_CLIENT_IP, near!))).size).toBeGreaterThanOrEqual(2 * BLOCKS);
    });

    it('the transfer is a connection of its own, and nothing is expected any more', async () => {
      const { stdout } = await lab.tapvs('conntrack', '-L', '-p', 'udp');
      const transfers = stdout.split('\n').filter((line) => line.startsWith('udp') && !line.includes('dport=69 '));
      expect(transfers).toHaveLength(2);
      for (const line of transfers) expect(line).toContain(`src=${SERVER} dst=${origin}`);
      expect((await lab.tapvs('conntrack', '-L', 'expect')).stdout).toBe('');
    });
  });

  it('does not get through without its helper', async () => {
    await iptables('-t raw -F');
    await lab.tapvs('conntrack', '-F');
    const words = ['curl', '-sS', '--max-time', '2', '-o', '/dev/null', `tftp://${LAB_VIP}/down.bin`];
    expect((await lab.run(plan.client, words)).status).toBe(28);
  });
});
