/** The life of services, servers and connections, after the recordings of the real kernel. */
import { describe, expect, it } from 'vitest';
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

  it('a long trash is swept over several breaths: each server when it was idle for two minutes, none of those that come back', () => {
    const b = new Bench();
    b.run(`-A ${T} -s rr`);
    const names = Array.from({ length: 600 }, (_, i) => `10.0.${4 + (i >> 8)}.${i & 255}:80`).filter(
      (name) => !/\.(0|255):/.test(name),
    );
    for (const name of names) b.run(`-a ${T} -r ${name} -m`);
    b.run(`-D ${T}`, `-A ${T} -s rr`);
    const { dests } = b.director;
    b.wait(60);
    expect(dests.trashed).toBe(names.length);
    b.wait(119.9);
    expect(dests.trashed).toBe(names.length);
    const room = dests.room;
    // The sweep has begun; some are gone, some come back while it goes on.
    b.wait(0.1);
    expect(dests.trashed).toBeLessThan(names.length);
    for (const name of names.slice(0, 10)) b.run(`-a ${T} -r ${name} -m`);
    b.wait(1);
    expect([dests.trashed, dests.room - room]).toEqual([0, names.length - 10]);
    for (const name of names.slice(10)) b.run(`-a ${T} -r ${name} -m`);
    expect([dests.count, dests.room]).toEqual([names.length, room]);
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
