/** Templates, one-packet scheduling, firewall marks, after the recordings persist_*, conn_reuse_persist, udp_ops*, fwmark_*. */
import { describe, expect, it } from 'vitest';
import { Bench, CLIENT, tcpPacket, udpPacket, VIP } from './test-rig.ts';

const T = `-t ${VIP}:80`;
const U = `-u ${VIP}:53`;
const to = `${VIP}:80`;

function three(service: string, options: string, port: number): Bench {
  const b = new Bench();
  b.run(`-A ${service} -s rr ${options}`, ...[1, 2, 3].map((i) => `-a ${service} -r 10.0.2.1${i}:${port} -m`));
  return b;
}
const last = (server: string) => server.slice(8, 9);
const templates = (b: Bench) => b.connections().filter((c) => c.includes(':0 '));

describe('persistence', () => {
  it('a client keeps its server; the template is ASSURED once a connection was established', () => {
    const b = three(T, '-p 60', 80);
    b.send(tcpPacket('10.0.1.3:1', to, 'S'));
    expect(b.connections()).toEqual([
      'tcp 60 NONE 10.0.1.3:0 10.0.1.100:80 10.0.2.13:80',
      'tcp 60 SYN_RECV 10.0.1.3:1 10.0.1.100:80 10.0.2.13:80',
    ]);
    expect([2, 3, 4].map((i) => last(b.probe(`10.0.1.3:${i}`, to)))).toEqual(['3', '3', '3']);
    expect(last(b.probe('10.0.1.4:1', to))).toBe('2');
    expect(templates(b)).toEqual([
      'tcp 60 ASSURED 10.0.1.3:0 10.0.1.100:80 10.0.2.13:80',
      'tcp 60 ASSURED 10.0.1.4:0 10.0.1.100:80 10.0.2.12:80',
    ]);
    const row = b.director.listServices(0, 9).rows[0]!;
    expect(row.servers.map((s) => s.persistentConns)).toEqual([1, 1, 0]);
    expect(row.stats.conns).toBe(5);
    expect(row.persistenceTimeout).toBe(60);
  });

  it('a netmask makes one client of a network', () => {
    const b = three(T, '-p 60 -M 255.255.255.0', 80);
    expect(['10.0.1.3:1', '10.0.1.9:1', '10.0.3.3:1', '10.0.3.4:1'].map((c) => last(b.probe(c, to))).join('')).toBe(
      '3322',
    );
    expect(templates(b)[0]).toBe('tcp 60 ASSURED 10.0.1.0:0 10.0.1.100:80 10.0.2.13:80');
  });

  it('the template outlives its connections, by minutes once it had to wait for one', () => {
    const b = three(T, '-p 30', 80);
    b.probe('10.0.1.3:1', to, true);
    b.wait(43);
    expect(templates(b)).toHaveLength(1);
    const left = () => Number(templates(b)[0]?.split(' ')[1] ?? -1);
    // It fired at 30 s, or two later, found its connection and waits a minute.
    expect(left()).toBeGreaterThanOrEqual(46);
    expect(left()).toBeLessThanOrEqual(50);
    b.probe('10.0.1.3:2', to);
    expect(left()).toBe(60);
    b.send(tcpPacket('10.0.1.3:1', to, 'R'));
    b.wait(20);
    expect(left()).toBe(40);
    b.wait(250);
    expect([b.director.conns.count, b.flows.size]).toEqual([0, 0]);
    expect(b.servers().every((s) => s.endsWith(' 0 0'))).toBe(true);
  });

  it('a removed server: the client moves, the old template is renamed and stays', () => {
    const b = new Bench();
    b.run(`-A ${T} -s rr -p 60`, `-a ${T} -r 10.0.2.11:80 -m`, `-a ${T} -r 10.0.2.12:80 -m`);
    expect([last(b.probe('10.0.1.3:1', to)), last(b.probe('10.0.1.4:1', to))]).toEqual(['2', '1']);
    b.run(`-d ${T} -r 10.0.2.12:80`);
    expect([last(b.probe('10.0.1.3:2', to)), last(b.probe('10.0.1.4:2', to))]).toEqual(['1', '1']);
    expect(templates(b)).toEqual([
      'tcp 60 ASSURED 10.0.1.3:0 10.0.1.100:65535 10.0.2.12:65535',
      'tcp 60 ASSURED 10.0.1.3:0 10.0.1.100:80 10.0.2.11:80',
      'tcp 60 ASSURED 10.0.1.4:0 10.0.1.100:80 10.0.2.11:80',
    ]);
    b.run(`-a ${T} -r 10.0.2.12:80 -m`);
    expect(['10.0.1.3:3', '10.0.1.4:3', '10.0.1.5:3', '10.0.1.6:3'].map((c) => last(b.probe(c, to))).join('')).toBe(
      '1121',
    );
    b.wait(400);
    expect([b.director.conns.count, b.flows.size]).toEqual([0, 0]);
  });

  it('weight 0 does not move a client, expire_quiescent_template=1 does', () => {
    const b = three(T, '-p 60', 80);
    const probe = (port: number) => [3, 4, 5, 6].map((c) => last(b.probe(`10.0.1.${c}:${port}`, to))).join('');
    expect(probe(1)).toBe('3213');
    b.run(`-e ${T} -r 10.0.2.11:80 -m -w 0`, `-e ${T} -r 10.0.2.12:80 -m -w 0`);
    expect(probe(2)).toBe('3213');
    b.director.sysctls.set('expire_quiescent_template', '1');
    expect(probe(3)).toBe('3333');
    expect(templates(b).filter((t) => t.includes('65535'))).toHaveLength(2);
  });

  it('an overloaded server keeps the clients that it has', () => {
    const b = new Bench();
    b.run(`-A ${T} -s rr -p 60`, `-a ${T} -r 10.0.2.11:80 -m -x 1`);
    expect(b.probe('10.0.1.3:1', to, true)).toBe('10.0.2.11:80');
    expect(b.probe('10.0.1.3:2', to, true)).toBe('10.0.2.11:80');
    expect(b.probe('10.0.1.4:1', to)).toBe('refused');
  });

  it('-E without -p ends it, templates stay for when it returns', () => {
    const b = three(T, '-p 60', 80);
    const probe = (port: number) => [3, 4, 3, 4].map((c, i) => last(b.probe(`10.0.1.${c}:${port + i}`, to))).join('');
    expect(probe(1)).toBe('3232');
    b.run(`-E ${T} -s rr`);
    expect(probe(11)).toBe('1321');
    b.run(`-E ${T} -s rr -p 30`);
    expect(probe(21)).toBe('3232');
  });

  it('a port used again keeps its connection', () => {
    const b = three(T, '-p 60', 80);
    expect([1, 2, 3].map(() => last(b.probe(`${CLIENT}:7000`, to))).join('')).toBe('333');
    expect(b.connections()).toEqual([
      'tcp 120 TIME_WAIT 10.0.1.2:7000 10.0.1.100:80 10.0.2.13:80',
      'tcp 60 ASSURED 10.0.1.2:0 10.0.1.100:80 10.0.2.13:80',
    ]);
  });

  it('port 0 serves all ports that have no service of their own', () => {
    const b = new Bench();
    b.run(
      `-A -t ${VIP}:0 -s rr -p 60`,
      `-a -t ${VIP}:0 -r 10.0.2.11:0 -m`,
      `-A ${T} -s rr`,
      `-a ${T} -r 10.0.2.12:80 -m`,
    );
    expect(b.probe(`${CLIENT}:1`, to)).toBe('10.0.2.12:80');
    expect(b.probe(`${CLIENT}:2`, `${VIP}:443`)).toBe('10.0.2.11:443');
    expect(templates(b)).toEqual(['tcp 60 ASSURED 10.0.1.2:0 10.0.1.100:0 10.0.2.11:0']);
  });

  it('UDP: an answer assures the template', () => {
    const b = three(U, '-p 20', 53);
    b.run('--set 0 0 10');
    b.send(udpPacket('10.0.1.3:1', `${VIP}:53`));
    expect(templates(b)).toEqual(['udp 20 NONE 10.0.1.3:0 10.0.1.100:53 10.0.2.13:53']);
    b.send(udpPacket('10.0.2.13:53', '10.0.1.3:1'));
    expect(templates(b)).toEqual(['udp 20 ASSURED 10.0.1.3:0 10.0.1.100:53 10.0.2.13:53']);
    b.wait(13);
    expect(b.connections()).toHaveLength(1);
    b.wait(10);
    expect(b.connections()).toHaveLength(0);
  });

  it('FTP’s service takes the ports of data connections of a persistent client, and lets them pass without one', () => {
    const b = new Bench();
    b.run(`-A -t ${VIP}:21 -s rr -p 60`, ...[1, 2].map((i) => `-a -t ${VIP}:21 -r 10.0.2.1${i}:21 -m`));
    expect(b.probe(`${CLIENT}:1`, `${VIP}:21`, true)).toBe('10.0.2.12:21');
    expect(b.probe(`${CLIENT}:2`, `${VIP}:40000`, true)).toBe('10.0.2.12:40000');
    expect(b.send(tcpPacket(`${CLIENT}:3`, `${VIP}:22`, 'S')).verdict).toBe('accept');
    b.run(`-E -t ${VIP}:21 -s rr`);
    expect(b.send(tcpPacket(`${CLIENT}:4`, `${VIP}:40000`, 'S')).verdict).toBe('accept');
  });

  it('a full table refuses without leaking', () => {
    const b = new Bench({ maxConnections: 3 });
    b.run(`-A ${T} -s rr -p 60`, `-a ${T} -r 10.0.2.11:80 -m`);
    const go = (client: string) => b.send(tcpPacket(client, to, 'S'));
    expect(go('10.0.1.3:1').verdict).toBe('reroute');
    expect(go('10.0.1.4:1')).toMatchObject({ verdict: 'drop', drop: 'DirectorConnTableFull' });
    expect(go('10.0.1.4:1')).toMatchObject({ verdict: 'drop', drop: 'DirectorConnTableFull' });
    b.wait(300);
    expect([b.director.conns.count, b.flows.size, b.servers()[0]]).toEqual([0, 0, '10.0.2.11:80 1 0 0']);
  });
});

describe('one-packet scheduling', () => {
  it('asks the scheduler for every datagram and remembers nothing', () => {
    const b = three(U, '-o', 53);
    const ask = () => b.send(udpPacket(`${CLIENT}:6000`, `${VIP}:53`)).bytes[19]! - 10;
    expect([ask(), ask(), ask(), ask()].join('')).toBe('3213');
    expect(b.connections()).toEqual([]);
    expect(b.flows.size).toBe(0);
    expect(b.director.totals()).toMatchObject({ conns: 4, inPkts: 4, inBytes: 4 * 31, outPkts: 0 });
    // The answer is nobody's: it leaves with the server's own address.
    expect(
      b
        .send(udpPacket('10.0.2.13:53', `${CLIENT}:6000`))
        .bytes.slice(12, 16)
        .join('.'),
    ).toBe('10.0.2.13');
  });

  it('with persistence leaves the template only, unassured', () => {
    const b = three(U, '-o -p 30', 53);
    const ask = (client: string) => b.send(udpPacket(`${client}:1`, `${VIP}:53`)).bytes[19]! - 10;
    expect([ask('10.0.1.9'), ask('10.0.1.9'), ask('10.0.1.3'), ask('10.0.1.9')].join('')).toBe('3323');
    expect(b.connections()).toEqual([
      'udp 30 NONE 10.0.1.3:0 10.0.1.100:53 10.0.2.12:53',
      'udp 30 NONE 10.0.1.9:0 10.0.1.100:53 10.0.2.13:53',
    ]);
    b.wait(40);
    expect(b.connections()).toEqual([]);
  });
});

describe('firewall marks', () => {
  it('win over an address; port 0 keeps the packet’s port; a persistent client keeps its server over protocols', () => {
    const b = new Bench();
    b.run('-A -f 7 -s rr -p 60', '-a -f 7 -r 10.0.2.11:0 -m', '-a -f 7 -r 10.0.2.12:0 -m', `-A ${T} -s rr`);
    expect(b.probe(`${CLIENT}:1`, to, true, 7)).toBe('10.0.2.12:80');
    expect(b.probe(`${CLIENT}:2`, `${VIP}:443`, true, 7)).toBe('10.0.2.12:443');
    expect(b.send(udpPacket(`${CLIENT}:3`, `${VIP}:53`), { mark: 7 }).bytes[19]).toBe(12);
    expect(b.probe('10.0.1.9:1', to, true, 7)).toBe('10.0.2.11:80');
    expect(b.probe('10.0.1.9:2', to, true, 8)).toBe('refused');
    expect(b.connections().filter((c) => c.startsWith('ip'))).toEqual([
      'ip 60 ASSURED 10.0.1.2:0 0.0.0.7:0 10.0.2.12:0',
      'ip 60 ASSURED 10.0.1.9:0 0.0.0.7:0 10.0.2.11:0',
    ]);
    expect(b.director.listServices(0, 9).rows[0]!.key).toEqual({ kind: 'fwmark', fwmark: 7, family: 4 });
    expect(b.run('-D -f 8', '-D -f 7')).toEqual(['ESRCH', null]);
  });

  it('a server’s own port is used for every port, without persistence', () => {
    const b = new Bench();
    b.run('-A -f 1 -s rr', '-a -f 1 -r 10.0.2.11:8080 -m');
    expect(b.probe(`${CLIENT}:1`, `${VIP}:443`, true, 1)).toBe('10.0.2.11:8080');
  });
});
