/** IPv4 options of balanced packets, as netns-tests/oracle/recorded/ip_options_*.txt has them from the kernel: what they record of us, and where. */
import { describe, expect, it } from 'vitest';
import { frame } from '../wire/build.ts';
import * as ipv4 from '../wire/ipv4.ts';
import { ExplainRig, RIG_MAC } from './explain-rig.ts';

const ZEROS = [0, 0, 0, 0];
const VIP = [10, 0, 1, 100];
const FRONT = [10, 0, 1, 1];
const BACK = [10, 0, 2, 1];
const ROUTE = [1, 7, 11, 4, ...ZEROS, ...ZEROS];
const ADDRESS_AND_TIME = [68, 12, 5, 1, ...ZEROS, ...ZEROS];

function newRig(method: string): ExplainRig {
  const rig = new ExplainRig();
  rig.engine.stack.timeOfDayMs = () => 0x01020304;
  expect(rig.run('-A -u 10.0.1.100:53 -s rr', '-P -u 10.0.1.100:53 -z 10.0.2.1:5000-5999')).toEqual([null, null]);
  expect(rig.run(`-a -u 10.0.1.100:53 -r 10.0.2.11:53 ${method}`)).toEqual([null]);
  return rig;
}

const request = (options: readonly number[], more = {}) =>
  frame()
    .eth(RIG_MAC.front, RIG_MAC.client)
    .ipv4('10.0.1.2', '10.0.1.100', { options: [...options], ...more })
    .udp({ srcPort: 4000, dstPort: 53 });
const answer = (options: readonly number[]) =>
  frame()
    .eth(RIG_MAC.back, '02:00:00:00:02:11')
    .ipv4('10.0.2.11', '10.0.1.2', { options: [...options] })
    .udp({ srcPort: 53, dstPort: 4000 });

/** Options of the IPv4 header at `l3` of the one frame that left, whose sum is right. */
function optionsOf(sent: ReturnType<ExplainRig['send']>, l3 = 14): number[] {
  expect(sent).toHaveLength(1);
  const { bytes } = sent[0]!.frame;
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  expect(ipv4.check(view, l3, bytes.length)).toBe(ipv4.Ipv4Fault.None);
  return [...bytes.slice(l3 + 20, l3 + ipv4.headerLength(view, l3))];
}

describe('a balanced request', () => {
  it.each([
    ['masquerading', '-m', 14],
    ['direct routing', '-g', 14],
    ['IPIP', '-i', 34],
    ['GRE with a sum', '-i --tun-type gre --tun-csum', 42],
    ['full NAT', '-b', 14],
  ])('records the service address as where it was, and not where it leaves: %s', (_, method, l3) => {
    const rig = newRig(method);
    expect(optionsOf(rig.send(rig.front, request(ROUTE).build()), l3)).toEqual([1, 7, 11, 8, ...VIP, ...ZEROS]);
    expect(optionsOf(rig.send(rig.front, request(ADDRESS_AND_TIME).build()), l3)).toEqual([
      ...[68, 12, 13, 1],
      ...VIP,
      ...[1, 2, 3, 4],
    ]);
  });

  it('that may go no further is answered with the way that it has recorded', () => {
    const rig = newRig('-m');
    const sent = rig.send(rig.front, request(ROUTE, { ttl: 1 }).build());
    expect(optionsOf(sent)).toEqual([7, 11, 12, ...VIP, ...VIP, 0]);
  });

  it('of ours goes up the host port as it came', () => {
    const rig = new ExplainRig({ hostPort: true });
    rig.run('-A -u 10.0.1.100:53 -s rr', '-a -u 10.0.1.100:53 -r 10.0.3.2:53 -m');
    const [sent] = rig.send(rig.front, request(ROUTE).build());
    expect(sent).toMatchObject({ device: 'host' });
    expect([...sent!.frame.bytes.slice(20, 32)]).toEqual(ROUTE);
  });
});

describe('a balanced answer', () => {
  it.each([
    ['the service address, for it is routed anew', '1', VIP],
    ['where it leaves, unless it is', '0', FRONT],
  ])('records %s', (_, reroute, address) => {
    const rig = newRig('-m');
    rig.engine.setSysctl('net.ipv4.vs.snat_reroute', reroute);
    rig.send(rig.front, request([]).build());
    expect(optionsOf(rig.send(rig.back, answer(ROUTE).build()))).toEqual([1, 7, 11, 8, ...address, ...ZEROS]);
    expect(optionsOf(rig.send(rig.back, answer(ADDRESS_AND_TIME).build()))).toEqual([
      ...[68, 12, 13, 1],
      ...BACK,
      ...[1, 2, 3, 4],
    ]);
  });
});
