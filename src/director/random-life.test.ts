/** Commands, packets and time in random order: the books stay right and nothing leaks. */
import { describe, expect, it } from 'vitest';
import { SeededRng } from '../base/rng.ts';
import { SCHEDULERS } from './sched/index.ts';
import { Bench, tcpPacket, udpPacket, VIP } from './test-rig.ts';

describe('a long random life', () => {
  it('keeps its books: servers’ counts are the connections, flow rows come and go with them', () => {
    const b = new Bench({ maxConnections: 300, now: 0x7ffff000 });
    const rng = new SeededRng(20);
    const random = (n: number) => (rng.next() >>> 3) % n;
    const method = () => ['-g', '-m', '-b', '-b'][random(4)];
    const local = () => `10.0.2.1:${1025 + random(24)}`;
    const services = [`-t ${VIP}:80`, '-t 10.0.1.101:80', `-u ${VIP}:53`];
    const targets = [`${VIP}:80`, '10.0.1.101:80', `${VIP}:53`];
    const flags = ['S', 'SA', '.', 'FA', 'R', '', 'PA'];
    const { dests, conns } = b.director;
    let mostFull = 0;
    for (let i = 0; i < 40000; i++) {
      const s = random(3);
      const server = `10.0.2.${11 + random(4)}`;
      const client = `10.0.1.${2 + random(3)}:${7000 + random(12)}`;
      const dice = random(100);
      if (dice < 2)
        b.run(
          `${random(2) === 0 ? '-A' : '-E'} ${services[s]} -s ${SCHEDULERS[random(SCHEDULERS.length)]!.name}${['', ' -p 30', ' -p 100'][random(3)]}${s === 2 && random(3) === 0 ? ' -o' : ''}`,
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
      else if (dice < 16)
        b.run(
          `${random(3) === 0 ? '--undrain' : '--drain'} ${services[s]} -r ${server}:${s === 2 ? 53 : 80} ${['', '--deadline 20', '--udp-idle 5'][random(3)]}`,
        );
      else if (dice < 17)
        b.run(`${random(3) === 0 ? '-Q' : '-P'} ${services[s]} -z 10.0.2.1:1025-${1030 + random(20)}`);
      else if (dice < 19) b.wait(random(3) === 0 ? random(200) : 1);
      else if (dice < 60 && s === 2) b.send(udpPacket(client, targets[s]!));
      else if (dice < 60) b.send(tcpPacket(client, targets[s]!, flags[random(7)]!));
      else if (s === 2) b.send(udpPacket(`${server}:53`, random(2) === 0 ? local() : client));
      else b.send(tcpPacket(`${server}:80`, random(2) === 0 ? local() : client, flags[random(7)]!));

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
      const fulls = b.director.listConnections(0, 1000).rows.filter((row) => row.local !== undefined);
      const seen = fulls.map((row) => `${row.protocol} ${row.local!.port} ${row.destination.address}`);
      expect(new Set(seen).size).toBe(seen.length);
      mostFull = Math.max(mostFull, seen.length);
      for (const { localAddresses = [] } of b.director.listServices(0, 10).rows) {
        for (const { conns: its } of localAddresses) expect(its).toBeGreaterThanOrEqual(0);
      }
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
    expect(mostFull).toBeGreaterThan(20);
    b.wait(1200);
    expect([conns.count, b.flows.size]).toEqual([0, 0]);
    b.run('-C');
    b.wait(400);
    expect([dests.count, dests.trashed]).toEqual([0, 0]);
    expect(b.director.locals.room).toBe(65536);
    for (let d = 0; d < dests.highWater; d++) expect(dests.flags[d]).toBe(0);
  }, 30_000);
});
