/** ipvsadm's commands: the kernel's errors, pages of the listings, and how fast a large configuration loads. */
import { describe, expect, it } from 'vitest';
import type { ServiceKey } from '../model/ipvs.ts';
import { Bench, CLIENT, tcpPacket, VIP } from './test-rig.ts';

const T = `-t ${VIP}:80`;
const U = `-u ${VIP}:53`;
const to = `${VIP}:80`;

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
      // GUE without a port goes nowhere, whatever the method.
      [`-a ${T} -r 10.0.2.12:80 -i --tun-type gue`, 'EINVAL'],
      [`-e ${T} -r 10.0.2.13:80 -m -w 65536 --tun-type gue`, 'EINVAL'],
      [`-a ${T} -r 10.0.2.12:80 -i -y 1 --tun-type gue`, 'ERANGE'],
      [`-a ${T} -r 10.0.2.12:80 -i --tun-type gue --tun-port 65536`, 'EINVAL'],
      [`-a ${T} -r 10.0.2.12:80 -i --tun-type gue --tun-port 6080`, null],
      [`-e ${T} -r 10.0.2.12:80 -i --tun-type gre --tun-csum`, null],
      [`-d ${T} -r 10.0.2.12:80`, null],
      // What comes later is refused, not ignored.
      [`-A ${U} -s rr --pe other -p 60`, 'ENOENT'],
      ['-A -t 10.0.1.101:0 -s rr', 'EINVAL'],
      ['-A -t 10.0.1.101:80 -s rr -o', 'EINVAL'],
      ['-A -f 0 -s rr', 'EINVAL'],
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

  it('pages through the servers of a service, whoever goes meanwhile', () => {
    const b = new Bench();
    b.run(
      '-A -t 10.0.9.1:80 -s rr',
      `-A ${T} -s rr`,
      '-A -t 10.0.9.3:80 -s rr',
      '-a -t 10.0.9.3:80 -r 10.0.2.11:80 -m',
    );
    for (let i = 1; i <= 25; i++) b.run(`-a ${T} -r 10.0.3.${i}:80 -m`);
    const list = (key?: ServiceKey, gone: readonly number[] = []) => {
      const servers: string[] = [];
      let last = '';
      for (let cursor = 0, isCut = false; cursor >= 0; ) {
        const page = b.director.listServices(cursor, 4, key);
        for (const [i, row] of page.rows.entries()) {
          const vip = row.key.kind === 'address' ? row.key.address : '';
          expect(vip === last).toBe(i === 0 && isCut);
          last = vip;
          for (const server of row.servers) servers.push(`${vip} ${server.key.address}`);
        }
        ({ next: cursor, isCut } = page);
        for (const i of servers.length === 3 ? gone : []) b.run(`-d ${T} -r 10.0.3.${i}:80`);
      }
      return servers;
    };
    const all = Array.from({ length: 25 }, (_, i) => `${VIP} 10.0.3.${25 - i}`);
    expect(list()).toEqual([...all, '10.0.9.3 10.0.2.11']);
    const key = { kind: 'address', protocol: 'tcp', address: VIP, port: 80 } as const;
    expect(list(key)).toEqual(all);
    // 25, 24 and 23 are listed when the next two go.
    expect(list(key, [22, 21])).toEqual(all.filter((name) => !/\.2[21]$/.test(name)));
  });

  it('pages through connections', () => {
    const b = new Bench();
    b.run(`-A ${T} -s rr`, `-a ${T} -r 10.0.2.11:80 -m`);
    for (let i = 0; i < 30; i++) b.send(tcpPacket(`${CLIENT}:${7000 + i}`, to, 'S'));
    const seen = new Set<number>();
    for (let cursor = 0; cursor >= 0; ) {
      const page = b.director.listConnections(cursor, 7);
      for (const row of page.rows) seen.add(row.client.port);
      cursor = page.next;
    }
    expect(seen.size).toBe(30);
  });

  it('does not search a table that was full once for its last connection in one go', () => {
    const b = new Bench({ maxConnections: 40000 });
    b.run(`-A ${T} -s rr`, `-a ${T} -r 10.0.2.11:80 -m`);
    for (let i = 0; i < 40000; i++) b.send(tcpPacket(`${CLIENT}:${7000 + i}`, to, 'S'));
    for (let conn = 0; conn < 39999; conn++) b.director.expire(conn);
    const first = b.director.listConnections(0, 100);
    expect(first).toEqual({ rows: [], next: 16384 });
    const second = b.director.listConnections(first.next, 100);
    const third = b.director.listConnections(second.next, 100);
    expect(third).toMatchObject({ rows: [{ client: { port: 46999 } }], next: -1 });
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
