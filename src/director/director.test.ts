/** The life of services, servers and connections, after the recordings of the real kernel. */
import { describe, expect, it } from 'vitest';
import { SeededRng } from '../base/rng.ts';
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

describe('commands', () => {
  it('answer with the kernel’s errors', () => {
    const b = new Bench();
    const expected: readonly (readonly [string, string | null])[] = [
      [`-A ${T} -s rr`, null],
      [`-A ${T} -s rr`, 'EEXIST'],
      [`-A ${T} -s nosuch`, 'EEXIST'],
      ['-A -t 10.0.1.101:80 -s nosuch', 'ENOENT'],
      [`-E -t 10.0.1.101:80 -s rr`, 'ESRCH'],
      [`-E ${T} -s nosuch`, 'ENOENT'],
      [`-E ${T} -s wrr`, null],
      ['-D -u 10.0.1.100:80', 'ESRCH'],
      [`-a ${T} -r 10.0.2.11:80 -m`, null],
      [`-a ${T} -r 10.0.2.11:80 -m`, 'EEXIST'],
      [`-a ${T} -r 10.0.2.11:8080 -m`, null],
      [`-a ${T} -r 10.0.2.15:0 -m`, null],
      [`-a ${T} -r 10.0.2.13:80 -m -w 65536`, null],
      [`-a ${T} -r 10.0.2.12:80 -m -w 2147483648`, 'ERANGE'],
      [`-a ${T} -r 10.0.2.12:80 -m -x 1 -y 2`, 'ERANGE'],
      [`-a ${T} -r 10.0.2.12:80 -m -y 2`, 'ERANGE'],
      ['-a -t 10.0.1.101:80 -r 10.0.2.11:80 -m', 'ESRCH'],
      ['-e -t 10.0.1.101:80 -r 10.0.2.11:80 -m', 'ESRCH'],
      ['-d -t 10.0.1.101:80 -r 10.0.2.11:80', 'ESRCH'],
      [`-e ${T} -r 10.0.2.99:80 -m`, 'ENOENT'],
      [`-d ${T} -r 10.0.2.99:80`, 'ENOENT'],
      [`-a ${T} -r 224.0.0.1:80 -m`, 'EINVAL'],
      [`-a ${T} -r 0.0.0.0:80 -m`, 'EINVAL'],
      [`-a ${T} -r 255.255.255.255:80 -m`, 'EINVAL'],
      [`-a ${T} -r 10.0.2.255:80 -m`, 'EINVAL'],
      [`-a ${T} -r 10.0.2.300:80 -m`, 'EINVAL'],
      ['-A -t 0.0.0.0:80 -s rr', null],
      ['-Z -u 10.0.1.100:99', 'ESRCH'],
      ['-Z', null],
      ['--set 20 5 3', null],
      ['--set 0 9 0', null],
      ['--set 9000000 0 0', 'EINVAL'],
      // What comes later is refused, not ignored.
      [`-a ${T} -r 10.0.2.12:80 -i`, 'EINVAL'],
      [`-A ${U} -s rr --pe sip -p 60`, 'ENOENT'],
      ['-A -t 10.0.1.101:0 -s rr', 'EINVAL'],
      ['-A -t 10.0.1.101:80 -s rr -o', 'EINVAL'],
      ['-A -f 0 -s rr', 'EINVAL'],
      ['-A -t 10.0.1.101:80 -s sh', 'ENOENT'],
    ];
    expect(expected.map(([line]) => [line, b.run(line)[0]])).toEqual(expected.map((e) => [...e]));
    expect(b.director.info().timeouts).toEqual({ tcp: 20, tcpFin: 9, udp: 3 });
    expect(b.servers()).toEqual([
      '10.0.2.13:80 65536 0 0',
      '10.0.2.15:0 1 0 0',
      '10.0.2.11:8080 1 0 0',
      '10.0.2.11:80 1 0 0',
    ]);
  });

  it('pages through services and finds one by key', () => {
    const b = new Bench();
    for (let i = 1; i <= 25; i++) b.run(`-A -t 10.0.9.${i}:80 -s rr`);
    b.run('-D -t 10.0.9.7:80');
    const seen: string[] = [];
    for (let cursor = 0; cursor >= 0; ) {
      const page = b.director.listServices(cursor, 10);
      expect(page.rows.length).toBeLessThanOrEqual(10);
      for (const row of page.rows) seen.push(row.key.kind === 'address' ? row.key.address : '');
      cursor = page.next;
    }
    expect(new Set(seen).size).toBe(24);
    const key = { kind: 'address', protocol: 'tcp', address: '10.0.9.8', port: 80 } as const;
    expect(b.director.listServices(0, 10, key).rows.map((r) => r.key)).toEqual([key]);
    expect(b.director.listServices(0, 10, { ...key, protocol: 'udp' }).rows).toEqual([]);
  });

  it('pages through connections', () => {
    const b = twoServers();
    for (let i = 0; i < 30; i++) b.send(tcpPacket(`${CLIENT}:${7000 + i}`, to, 'S'));
    const seen = new Set<number>();
    for (let cursor = 0; cursor >= 0; ) {
      const page = b.director.listConnections(cursor, 7);
      for (const row of page.rows) seen.add(row.client.port);
      cursor = page.next;
    }
    expect(seen.size).toBe(30);
  });
});

describe('no usable server', () => {
  it.each(['tcp', 'udp'])('%s: port unreachable, nothing remembered', (protocol) => {
    const b = new Bench();
    b.run(`-A ${T} -s rr`, `-A ${U} -s rr`);
    const packet = protocol === 'tcp' ? tcpPacket(`${CLIENT}:1`, to, 'S') : udpPacket(`${CLIENT}:1`, `${VIP}:53`);
    expect(b.send(packet)).toMatchObject({ verdict: 'drop', drop: 'DirectorNoDestination', reject: '3/3' });
    expect(b.flows.size).toBe(0);
    expect(b.director.totals()).toMatchObject({ conns: 0, inPkts: 0 });
  });
});

describe('weight 0', () => {
  it('keeps what is open and gets nothing new', () => {
    const b = twoServers();
    const held = [1, 2, 3, 4].map((i) => b.probe(`${CLIENT}:${i}`, to, true));
    expect(held).toEqual(['10.0.2.12:80', '10.0.2.11:80', '10.0.2.12:80', '10.0.2.11:80']);
    b.run(`-e ${T} -r 10.0.2.11:80 -m -w 0`);
    expect([5, 6, 7].map((i) => b.probe(`${CLIENT}:${i}`, to))).toEqual(Array(3).fill('10.0.2.12:80'));
    expect(data(b, `${CLIENT}:2`).verdict).toBe('reroute');
    expect(b.servers()).toEqual(['10.0.2.12:80 1 2 3', '10.0.2.11:80 0 2 0']);
  });
});

describe('thresholds', () => {
  it('-x 2 -y 1: refuses at 2, comes back below 1', () => {
    const b = new Bench();
    b.run(`-A ${T} -s rr`, `-a ${T} -r 10.0.2.11:80 -m -x 2 -y 1`, `-a ${T} -r 10.0.2.12:80 -m`);
    const go = (from: number, n: number, hold: boolean) =>
      Array.from({ length: n }, (_, i) => b.probe(`10.0.1.3:${from + i}`, to, hold).slice(8, 9)).join('');
    expect(go(20001, 8, true)).toBe('21212222');
    b.close('10.0.1.3:20002', to, '10.0.2.11:80');
    expect(go(20009, 4, false)).toBe('2222');
    b.send(tcpPacket('10.0.1.3:20004', to, 'R'));
    b.wait(13);
    expect(go(20013, 4, false)).toBe('2222');
    b.wait(128);
    expect(go(20017, 4, false)).toBe('1212');
  });

  it('without -y the overload ends below three quarters', () => {
    const b = new Bench();
    b.run(`-A ${T} -s rr`, `-a ${T} -r 10.0.2.11:80 -m -x 4`);
    for (let i = 1; i <= 4; i++) b.probe(`${CLIENT}:${i}`, to, true);
    expect(b.probe(`${CLIENT}:5`, to)).toBe('refused');
    b.send(tcpPacket(`${CLIENT}:1`, to, 'R'));
    b.wait(13);
    expect(b.probe(`${CLIENT}:5`, to)).toBe('refused');
    b.send(tcpPacket(`${CLIENT}:2`, to, 'R'));
    b.wait(13);
    expect(b.probe(`${CLIENT}:5`, to)).toBe('10.0.2.11:80');
  });

  it('-e raises, lowers and lifts it', () => {
    const b = new Bench();
    b.run(`-A ${T} -s rr`, `-a ${T} -r 10.0.2.11:80 -m -x 2`);
    let port = 0;
    const go = () => b.probe(`${CLIENT}:${++port}`, to, true) === 'refused';
    expect([go(), go(), go()]).toEqual([false, false, true]);
    b.run(`-e ${T} -r 10.0.2.11:80 -m -x 4`);
    expect([go(), go(), go()]).toEqual([false, false, true]);
    b.run(`-e ${T} -r 10.0.2.11:80 -m -x 1`);
    expect(go()).toBe(true);
    b.run(`-e ${T} -r 10.0.2.11:80 -m`);
    expect(go()).toBe(false);
  });
});

describe('a removed server', () => {
  it('expire_nodest_conn=0: its connections are silent, and go on when it is added again', () => {
    const b = twoServers();
    b.probe(`${CLIENT}:1`, to, true);
    b.probe(`${CLIENT}:2`, to, true);
    b.run(`-d ${T} -r 10.0.2.11:80`);
    expect(data(b, `${CLIENT}:1`).verdict).toBe('reroute');
    expect(data(b, `${CLIENT}:2`)).toMatchObject({ verdict: 'drop', drop: 'DirectorDestinationGone', reject: '' });
    expect(b.connections()).toHaveLength(2);
    expect(b.servers()).toEqual(['10.0.2.12:80 1 1 0']);
    b.run(`-a ${T} -r 10.0.2.11:80 -m -w 5`);
    expect(b.servers()).toEqual(['10.0.2.11:80 5 1 0', '10.0.2.12:80 1 1 0']);
    expect(data(b, `${CLIENT}:2`).verdict).toBe('reroute');
  });

  it('expire_nodest_conn=1: the packet reaches our own stack, which resets; the other connections go too', () => {
    const b = twoServers();
    for (let i = 1; i <= 6; i++) b.probe(`${CLIENT}:${i}`, to, true);
    expect(b.director.sysctls.set('net.ipv4.vs.expire_nodest_conn', '1')).toBe(null);
    b.run(`-d ${T} -r 10.0.2.11:80`);
    expect(data(b, `${CLIENT}:2`).verdict).toBe('accept');
    expect(b.connections()).toHaveLength(5);
    b.wait(0.1);
    expect(b.connections()).toHaveLength(3);
    expect(b.probe(`${CLIENT}:4`, to)).toBe('10.0.2.12:80');
  });

  it('UDP with expire_nodest_conn=1 moves to another server, weight 0 does not move it', () => {
    const b = new Bench();
    b.director.sysctls.set('expire_nodest_conn', '1');
    b.run(`-A ${U} -s rr`, `-a ${U} -r 10.0.2.11:53 -m`, `-a ${U} -r 10.0.2.12:53 -m`);
    const ask = () =>
      b
        .send(udpPacket(`${CLIENT}:1`, `${VIP}:53`))
        .bytes.slice(16, 20)
        .join('.');
    expect(ask()).toBe('10.0.2.12');
    b.run(`-e ${U} -r 10.0.2.12:53 -m -w 0`);
    expect(ask()).toBe('10.0.2.12');
    b.run(`-d ${U} -r 10.0.2.12:53`);
    expect(ask()).toBe('10.0.2.11');
  });

  it('brings its counters back from the trash, which forgets it after two idle minutes', () => {
    const b = new Bench();
    b.run(`-A ${T} -s rr`, `-a ${T} -r 10.0.2.11:80 -m`);
    b.probe(`${CLIENT}:1`, to, true);
    const stats = () => b.director.listServices(0, 9).rows[0]!.servers[0]!.stats;
    const before = stats();
    expect(before.conns).toBe(1);
    b.run(`-d ${T} -r 10.0.2.11:80`, `-a ${T} -r 10.0.2.11:80 -m`);
    expect(stats()).toEqual(before);
    b.run(`-d ${T} -r 10.0.2.11:80`);
    b.wait(900);
    expect(b.director.dests.trashed).toBe(1);
    // 900 s of timeout and up to an eighth of it late; then idle from one sweep to the sweep after two minutes.
    b.wait(120 + 240);
    expect(b.director.dests.trashed).toBe(0);
    b.run(`-a ${T} -r 10.0.2.11:80 -m`);
    expect(stats().conns).toBe(0);
  });
});

describe('a removed service', () => {
  it('the last one: everything passes; added again, its connections go on', () => {
    const b = twoServers();
    b.probe(`${CLIENT}:1`, to, true);
    b.run(`-D ${T}`);
    expect(data(b, `${CLIENT}:1`).verdict).toBe('accept');
    expect(b.connections()).toHaveLength(1);
    expect(b.probe(`${CLIENT}:2`, to)).toBe('refused');
    b.run(`-A ${T} -s rr`, `-a ${T} -r 10.0.2.11:80 -m`, `-a ${T} -r 10.0.2.12:80 -m`);
    expect(b.servers()).toEqual(['10.0.2.12:80 1 1 0', '10.0.2.11:80 1 0 0']);
    expect(data(b, `${CLIENT}:1`).verdict).toBe('reroute');
    // The counters of another service's server begin anew.
    expect(b.director.listServices(0, 9).rows[0]!.servers[0]!.stats).toMatchObject({ conns: 0, inPkts: 1 });
  });

  it('one of two: silence', () => {
    const b = twoServers();
    b.run('-A -t 10.0.1.101:80 -s rr', '-a -t 10.0.1.101:80 -r 10.0.2.11:80 -m');
    b.probe(`${CLIENT}:1`, to, true);
    b.run(`-D ${T}`);
    expect(data(b, `${CLIENT}:1`)).toMatchObject({ verdict: 'drop', drop: 'DirectorDestinationGone' });
    b.run('-C');
    expect(data(b, `${CLIENT}:1`).verdict).toBe('accept');
    expect(b.director.services.count + b.director.dests.count).toBe(0);
  });
});

describe('a client port used again', () => {
  it('in TIME_WAIT: a new connection, elsewhere; with conn_reuse_mode=0 the old one', () => {
    const b = new Bench();
    b.run(`-A ${T} -s rr`, ...[1, 2, 3].map((i) => `-a ${T} -r 10.0.2.1${i}:80 -m`));
    const again = () => b.probe(`${CLIENT}:7000`, to);
    expect([again(), again(), again(), again()].map((s) => s.slice(8, 9)).join('')).toBe('3213');
    expect(b.connections()).toHaveLength(1);
    b.director.sysctls.set('conn_reuse_mode', '0');
    expect([again(), again()].map((s) => s.slice(8, 9)).join('')).toBe('33');
    b.run(`-e ${T} -r 10.0.2.13:80 -m -w 0`);
    expect(again()).toBe('10.0.2.13:80');
    b.director.sysctls.set('expire_nodest_conn', '1');
    expect(again()).toBe('10.0.2.12:80');
  });

  it('in ESTABLISHED: the same connection', () => {
    const b = twoServers();
    b.probe(`${CLIENT}:1`, to, true);
    expect(b.send(tcpPacket(`${CLIENT}:1`, to, 'S')).verdict).toBe('reroute');
    expect(b.connections()).toEqual([`tcp 900 ESTABLISHED ${CLIENT}:1 ${to} 10.0.2.12:80`]);
  });
});

describe('sloppy_tcp', () => {
  it('lets a connection be joined midway, but never by a reset', () => {
    const b = twoServers();
    expect(data(b, `${CLIENT}:1`).verdict).toBe('accept');
    b.director.sysctls.set('sloppy_tcp', '1');
    expect(b.send(tcpPacket(`${CLIENT}:1`, to, 'RA')).verdict).toBe('accept');
    expect(data(b, `${CLIENT}:1`).verdict).toBe('reroute');
    expect(b.connections()).toEqual([`tcp 900 ESTABLISHED ${CLIENT}:1 ${to} 10.0.2.12:80`]);
  });
});

describe('a client on this machine', () => {
  it('is balanced on its way out, and gets its answers on its way in', () => {
    const b = twoServers();
    const out = b.send(tcpPacket('10.0.1.1:1', to, 'S'), { isLocalOut: true });
    expect(out.verdict).toBe('reroute');
    const back = b.send(tcpPacket('10.0.2.12:80', '10.0.1.1:1', 'SA'));
    expect(back.verdict).toBe('accept');
    expect(back.bytes.slice(12, 16).join('.')).toBe(VIP);
    expect(b.connections()).toEqual([`tcp 60 SYN_RECV 10.0.1.1:1 ${to} 10.0.2.12:80`]);
  });
});

describe('timers', () => {
  it('every packet begins the timeout anew; idle connections end late by at most an eighth, never early', () => {
    for (const now of [0, 0x7fffff00]) {
      const b = new Bench({ now });
      b.run(`-A ${T} -s rr`, `-a ${T} -r 10.0.2.11:80 -m`);
      b.probe(`${CLIENT}:1`, to, true);
      b.probe(`${CLIENT}:2`, to, true);
      b.wait(600);
      data(b, `${CLIENT}:1`);
      expect(b.connections().map((c) => c.split(' ')[1])).toEqual(['300', '900']);
      b.wait(299.8);
      expect(b.connections()).toHaveLength(2);
      b.wait(30);
      expect(b.connections().map((c) => c.split(' ')[1])).toEqual(['570']);
      b.wait(569.8);
      expect(b.connections()).toHaveLength(1);
      b.wait(120);
      expect(b.connections()).toHaveLength(0);
      expect(b.flows.size).toBe(0);
    }
  });

  it('a state with a shorter timeout shortens a running timer', () => {
    const b = twoServers();
    b.probe(`${CLIENT}:1`, to, true);
    b.send(tcpPacket(`${CLIENT}:1`, to, 'R'));
    b.wait(9.9);
    expect(b.connections()).toHaveLength(1);
    b.wait(1.4);
    expect(b.connections()).toHaveLength(0);
  });

  it('--set holds for what sends after it', () => {
    const b = twoServers();
    b.run('--set 20 5 3', `-A ${U} -s rr`, `-a ${U} -r 10.0.2.11:53 -m`);
    b.probe(`${CLIENT}:1`, to, true);
    b.send(udpPacket(`${CLIENT}:3`, `${VIP}:53`));
    b.run('--set 900 120 300');
    const left = () => b.connections().map((c) => c.split(' ')[1]);
    expect(left()).toEqual(['20', '3']);
    b.wait(4);
    expect(left()).toEqual(['16']);
    data(b, `${CLIENT}:1`);
    expect(left()).toEqual(['900']);
  });
});

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

describe('full tables', () => {
  it('drop under their name and leak nothing', () => {
    for (const options of [{ maxConnections: 10 }, { maxConnections: 100, flowRows: 20 }]) {
      const b = new Bench(options);
      b.run(`-A ${T} -s rr`, `-a ${T} -r 10.0.2.11:80 -m`);
      for (let i = 1; i <= 10; i++) expect(b.send(tcpPacket(`${CLIENT}:${i}`, to, 'S')).verdict).toBe('reroute');
      const o = b.send(tcpPacket(`${CLIENT}:11`, to, 'S'));
      expect(o).toMatchObject({ verdict: 'drop', drop: 'DirectorConnTableFull' });
      expect(b.servers()).toEqual(['10.0.2.11:80 1 10 0']);
      expect(b.flows.size).toBe(20);
      b.wait(70);
      expect([b.flows.size, b.director.conns.count]).toEqual([0, 0]);
      expect(b.send(tcpPacket(`${CLIENT}:11`, to, 'S')).verdict).toBe('reroute');
    }
  });
});

describe('a long random life', () => {
  it('keeps its books: servers’ counts are the connections, flow rows come and go with them', () => {
    const b = new Bench({ maxConnections: 300, now: 0x7ffff000 });
    const rng = new SeededRng(20);
    const random = (n: number) => (rng.next() >>> 3) % n;
    const method = () => (random(3) === 0 ? '-g' : '-m');
    const services = [`-t ${VIP}:80`, '-t 10.0.1.101:80', `-u ${VIP}:53`];
    const targets = [`${VIP}:80`, '10.0.1.101:80', `${VIP}:53`];
    const flags = ['S', 'SA', '.', 'FA', 'R', '', 'PA'];
    const { dests, conns } = b.director;
    for (let i = 0; i < 40000; i++) {
      const s = random(3);
      const server = `10.0.2.${11 + random(4)}`;
      const client = `10.0.1.${2 + random(3)}:${7000 + random(12)}`;
      const dice = random(100);
      if (dice < 2)
        b.run(
          `${random(2) === 0 ? '-A' : '-E'} ${services[s]} -s ${['rr', 'wrr', 'lc', 'wlc'][random(4)]}${['', ' -p 30', ' -p 100'][random(3)]}${s === 2 && random(3) === 0 ? ' -o' : ''}`,
        );
      else if (dice < 3) b.run(random(20) === 0 ? '-C' : `-D ${services[s]}`);
      else if (dice < 9)
        b.run(`-a ${services[s]} -r ${server}:${s === 2 ? 53 : 80} ${method()} -w ${random(3)} -x ${random(40)}`);
      else if (dice < 11)
        b.run(`-e ${services[s]} -r ${server}:${s === 2 ? 53 : 80} ${method()} -w ${random(3)} -x ${random(40)}`);
      else if (dice < 13) b.run(`-d ${services[s]} -r ${server}:${s === 2 ? 53 : 80}`);
      else if (dice < 14)
        b.director.sysctls.set(random(2) === 0 ? 'expire_nodest_conn' : 'expire_quiescent_template', String(random(2)));
      else if (dice < 15) b.director.sysctls.set('conn_reuse_mode', String(random(4)));
      else if (dice < 17) b.wait(random(3) === 0 ? random(200) : 1);
      else if (dice < 60 && s === 2) b.send(udpPacket(client, targets[s]!));
      else if (dice < 60) b.send(tcpPacket(client, targets[s]!, flags[random(7)]!));
      else if (s === 2) b.send(udpPacket(`${server}:53`, client));
      else b.send(tcpPacket(`${server}:80`, client, flags[random(7)]!));

      if (i % 50 !== 0) continue;
      let counted = 0;
      let listed = 0;
      for (let d = 0; d < dests.highWater; d++) {
        if (dests.flags[d] === 0) continue;
        expect(Math.min(dests.active[d]!, dests.inactive[d]!, dests.persistent[d]!)).toBeGreaterThanOrEqual(0);
        counted += dests.references(d);
        listed += dests.isAvailable(d) ? 1 : 0;
      }
      expect(counted).toBe(conns.count);
      expect(listed).toBe(dests.count);
      let controlled = 0;
      let controlling = 0;
      for (let c = 0; c < conns.highWater; c++) {
        controlled += conns.control[c]! > 0 ? 1 : 0;
        controlling += conns.controlled[c]!;
        if (conns.control[c]! > 0) expect(conns.isUsed(conns.control[c]! - 1)).toBe(true);
      }
      expect(controlled).toBe(controlling);
      // A row per request tuple, and one per answer tuple, which connections may share.
      expect(b.flows.size).toBeLessThanOrEqual(2 * conns.count);
      const { rows } = b.director.listConnections(0, 1000);
      const templates = rows.filter((r) => r.client.port === 0).length;
      expect(rows.length).toBe(conns.count);
      expect(b.flows.size).toBeGreaterThanOrEqual(conns.count - templates);
    }
    b.wait(1200);
    expect([conns.count, b.flows.size]).toEqual([0, 0]);
    b.run('-C');
    b.wait(400);
    expect([dests.count, dests.trashed]).toEqual([0, 0]);
    for (let d = 0; d < dests.highWater; d++) expect(dests.flags[d]).toBe(0);
  });
});

describe('20,000 services of 10 servers', () => {
  it('load', () => {
    const b = new Bench({ services: 20000 });
    const commands = [];
    for (let s = 0; s < 20000; s++) {
      const key = {
        kind: 'address',
        protocol: 'tcp',
        address: `10.${s >> 14}.${(s >> 7) & 127}.${s & 127}`,
        port: 80,
      } as const;
      commands.push({ op: 'add-service', service: { key, scheduler: 'wlc', schedulerFlags: 0, ops: false } } as const);
      for (let i = 1; i <= 10; i++) {
        const server = {
          key: { address: `10.200.${s & 127}.${i}`, port: 80 },
          method: 'masq',
          weight: 1,
          upperThreshold: 0,
          lowerThreshold: 0,
        } as const;
        commands.push({ op: 'add-server', service: key, server } as const);
      }
    }
    const start = performance.now();
    const results = b.director.execute(commands);
    const took = performance.now() - start;
    expect(results.every((r) => r === null)).toBe(true);
    expect([b.director.services.count, b.director.dests.count]).toEqual([20000, 200000]);
    console.info(`220,000 commands in ${took.toFixed(0)} ms: ${Math.round(220000 / took)} a millisecond`);
  });
});
