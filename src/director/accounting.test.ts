/** Counters: exact, zeroable, estimated with the kernel's arithmetic. */
import { describe, expect, it } from 'vitest';
import { frame } from '../wire/build.ts';
import { Bench, CLIENT, tcpPacket, udpPacket, VIP } from './test-rig.ts';

const T = `-t ${VIP}:80`;
const U = `-u ${VIP}:53`;
const to = `${VIP}:80`;
const data = (b: Bench, from: string) => b.send(tcpPacket(from, to, 'PA', 'who\n'));

function twoServers(): Bench {
  const b = new Bench();
  b.run(`-A ${T} -s rr`, `-a ${T} -r 10.0.2.11:80 -m`, `-a ${T} -r 10.0.2.12:80 -m`);
  return b;
}

describe('counters', () => {
  it('count IP bytes per server, service and in all, and -Z hides what was', () => {
    const b = twoServers();
    const row = () => b.director.listServices(0, 9).rows[0]!;
    b.probe(`${CLIENT}:1`, to, true);
    data(b, `${CLIENT}:1`);
    const expected = { conns: 1, inPkts: 3, outPkts: 1, inBytes: 40 + 40 + 44, outBytes: 40 };
    expect(row().stats).toMatchObject(expected);
    expect(row().servers[0]!.stats).toMatchObject(expected);
    expect(row().servers[1]!.stats).toMatchObject({ conns: 0, inPkts: 0 });
    expect(b.director.totals()).toMatchObject(expected);
    expect(b.run(`-Z ${T}`)).toEqual([null]);
    expect(row().stats).toMatchObject({ conns: 0, inPkts: 0, outPkts: 0, inBytes: 0, outBytes: 0 });
    expect(b.servers()[0]).toBe('10.0.2.12:80 1 1 0');
    expect(b.director.totals()).toMatchObject(expected);
    data(b, `${CLIENT}:1`);
    expect(row().servers[0]!.stats).toMatchObject({ conns: 0, inPkts: 1, inBytes: 44 });
    b.run('-Z');
    expect(b.director.totals()).toMatchObject({ conns: 0, inPkts: 0, inBytes: 0 });
  });

  it('count a super-packet as the segments that it becomes', () => {
    const b = twoServers();
    const stats = () => b.director.totals();
    b.send(tcpPacket(`${CLIENT}:1`, to, 'S'));
    b.run('-Z');
    b.send(
      frame()
        .ipv4(CLIENT, VIP)
        .tcp({ srcPort: 1, dstPort: 80, options: new Array(12).fill(1) })
        .payload(4000),
      { gsoSize: 1448 },
    );
    expect(stats()).toMatchObject({ inPkts: 3, inBytes: 4000 + 3 * 52 });
    b.send(frame().ipv4('10.0.2.12', CLIENT).tcp({ srcPort: 80, dstPort: 1 }).payload(2896), { gsoSize: 1448 });
    expect(stats()).toMatchObject({ outPkts: 2, outBytes: 2896 + 2 * 40 });
    b.run(`-A ${U} -s rr`, `-a ${U} -r 10.0.2.11:53 -m`, '-Z');
    b.send(udpPacket(`${CLIENT}:1`, `${VIP}:53`, 3000), { gsoSize: 1000, gsoType: 5 });
    expect(stats()).toMatchObject({ inPkts: 3, inBytes: 3000 + 3 * 28 });
  });

  it('stand still with run_estimation=0', () => {
    const b = twoServers();
    b.director.sysctls.set('run_estimation', '0');
    b.probe(`${CLIENT}:1`, to);
    b.wait(5);
    expect(b.director.totals()).toMatchObject({ conns: 0, inPkts: 0 });
    b.director.sysctls.set('run_estimation', '1');
    b.wait(5);
    expect(b.director.totals()).toMatchObject({ conns: 1, inPkts: 4 });
  });
});

describe('estimated rates', () => {
  it('a steady 1000 connections a second and one burst of 800, as the kernel shows them', () => {
    const b = new Bench();
    const shown: number[] = [];
    b.wait(0.04);
    for (let n = 1; n <= 16; n++) {
      b.director.total.live[0]! += 2000;
      b.wait(2);
      if ([1, 4, 8, 12, 16].includes(n)) shown.push(b.director.totals().cps);
    }
    expect(shown).toEqual([250, 684, 900, 968, 990]);
    const burst = new Bench();
    burst.wait(0.04);
    burst.director.total.live[0]! += 800;
    burst.director.total.live[3]! += 8000;
    burst.wait(2);
    expect(burst.director.totals()).toMatchObject({ cps: 100, inBps: 1000 });
    burst.wait(2);
    expect(burst.director.totals()).toMatchObject({ cps: 75, inBps: 750 });
    burst.wait(120);
    expect(burst.director.totals()).toMatchObject({ cps: 0, inBps: 0 });
  });
});
