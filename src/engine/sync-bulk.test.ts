/** The bulk transfer: a backup that joins gets the whole table, whatever the cable loses, in small steps; who is no tapvs is not disturbed. */
import { describe, expect, it } from 'vitest';
import { deliver, Host, SERVICES } from './sync-rig.ts';

/** A cable between two fronts that loses every nth frame. */
function pump(a: Host, b: Host, ticks: number, lossOf = 0): void {
  let n = 0;
  const carry = (from: Host, to: Host) => {
    for (const { bytes } of from.front.takeSent()) {
      if (lossOf > 0 && ++n % lossOf === 0) continue;
      to.front.inject(bytes);
    }
  };
  for (let i = 0; i < ticks; i++) {
    for (const host of [a, b]) {
      host.clock.advance(1);
      host.engine.wake();
      // As often as frames wait: a breath takes a burst of 64.
      for (let more = host.engine.breathe(); more >= 64; more = host.engine.breathe());
    }
    carry(a, b);
    carry(b, a);
  }
}

function transfer(host: Host): { state: string | undefined; records: number } {
  const row = host.engine.director.listDaemons().find(({ role }) => role === 'backup')!;
  return { state: row.transfer, records: row.counters.bulkRecords! };
}

/** Connections of many clients, held open. */
function fill(host: Host, connections: number): void {
  const { director } = host.engine;
  for (let i = 0; i < connections; i++) {
    const client = `10.${20 + (i >> 16)}.${(i >> 8) & 255}.${i & 255}`;
    host.clientAt(client, 1024 + (i % 50_000), i % 10 === 0 ? 443 : 80, 'S');
    if (i % 2 === 0) host.clientAt(client, 1024 + (i % 50_000), i % 10 === 0 ? 443 : 80, '.');
    host.back.takeSent();
  }
  expect(director.conns.count).toBe(connections + Math.ceil(connections / 10));
}

/** All that a connection is, but for the time that is left. */
function table(host: Host): string[] {
  const rows: string[] = [];
  for (let cursor = 0; cursor >= 0; ) {
    const page = host.engine.director.listConnections(cursor, 10_000);
    for (const r of page.rows) {
      const ends = [r.client, r.virtual, r.destination].map((at) => `${at.address}:${at.port}`);
      rows.push(`${r.protocol} ${r.state} ${ends.join(' ')}`);
    }
    cursor = page.next;
  }
  return rows.sort();
}

describe('a backup that joins', () => {
  it('gets 100,000 connections with their templates, in less than 20 datagrams a breath', { timeout: 120_000 }, () => {
    const m = new Host(1, undefined, 150_000);
    m.run(...SERVICES);
    fill(m, 100_000);
    expect(m.start({ role: 'master' })).toBeNull();
    m.wait(5); // what was to be told by itself has been told
    const b = new Host(2, m.clock, 150_000);
    b.run(...SERVICES);
    m.engine.executeIp([{ op: 'neigh-add', device: 'front', address: '10.0.1.252', mac: '02:00:00:00:01:12' }]);
    m.front.takeSent();
    expect(b.start({ role: 'backup' })).toBeNull();
    let most = 0;
    for (let ticks = 0; transfer(b).state !== 'complete' && ticks < 3000; ticks++) {
      pump(m, b, 1);
      most = Math.max(most, b.front.waiting);
    }
    expect(transfer(b)).toEqual({ state: 'complete', records: 110_000 });
    expect(most).toBeLessThan(20);
    expect(b.engine.director.conns.count).toBe(110_000);
    expect(table(b)).toEqual(table(m));
    expect(b.counts()).toEqual(m.counts());
  });

  it('gets it all over a cable that loses every seventh frame, questions, answers and ends alike', () => {
    const m = new Host(1);
    m.run(...SERVICES);
    fill(m, 3000);
    expect(m.start({ role: 'master' })).toBeNull();
    m.wait(5);
    m.front.takeSent();
    const b = new Host(2, m.clock);
    b.run(...SERVICES);
    expect(b.start({ role: 'backup' })).toBeNull();
    for (let i = 0; transfer(b).state !== 'complete' && i < 100; i++) pump(m, b, 100, 7);
    expect(transfer(b).state).toBe('complete');
    expect(table(b)).toEqual(table(m));
  });

  it('keeps what time a connection has left, and templates only with sync_persist_mode', () => {
    const m = new Host(1);
    m.run(...SERVICES);
    m.client(20001, 80, 'S');
    m.client(20001, 80, '.');
    m.client(20002, 443, 'S');
    m.wait(50);
    m.set('sync_persist_mode', '1');
    expect(m.start({ role: 'master' })).toBeNull();
    m.front.takeSent();
    const b = new Host(2, m.clock);
    b.run(...SERVICES);
    expect(b.start({ role: 'backup' })).toBeNull();
    pump(m, b, 100);
    expect(transfer(b)).toEqual({ state: 'complete', records: 2 });
    const left = b.connections().map((line) => line.replace(/ (\d+)$/, (_, s) => ` ${Math.round(Number(s) / 5) * 5}`));
    expect(left).toEqual([
      'tcp ESTABLISHED 10.0.1.2:20001 10.0.1.100:80 10.0.2.12:80 850',
      'tcp NONE 10.0.1.2:0 10.0.1.100:443 10.0.2.11:443 10',
    ]);
    b.wait(15);
    expect(b.connections()).toHaveLength(1);
  });

  it('asks for a minute, less and less often, where nobody answers; to a Linux backup the question is no message', () => {
    const [b, other] = [new Host(1), new Host(2)];
    other.run(...SERVICES);
    expect(other.start({ role: 'backup', syncId: 0 })).toBeNull();
    expect(b.start({ role: 'backup' })).toBeNull();
    b.wait(70);
    expect(transfer(b)).toEqual({ state: 'unanswered', records: 0 });
    const questions = b.messages();
    expect(questions).toHaveLength(6);
    // Its size field is 0: ip_vs_process_message ends at "bogus message size".
    for (const question of questions) expect([question.length / 2, question.slice(4, 8)]).toEqual([24, '0000']);
    for (const question of questions) deliver(other, question);
    expect(other.drop('SyncTaken')).toBe(0);
  });

  it('is answered on its own segment only, and by one master', () => {
    const m = new Host(1);
    m.run(...SERVICES);
    expect(m.start({ role: 'master' })).toBeNull();
    const b = new Host(2);
    expect(b.start({ role: 'backup' })).toBeNull();
    b.wait(0.1);
    const [question] = b.messages();
    m.wait(0.1);
    m.front.takeSent();
    deliver(m, question!, { source: '10.7.7.7' });
    m.wait(0.1);
    expect([m.drop('SyncBulkRefused'), m.front.takeSent()]).toEqual([1, []]);
    deliver(m, question!.replace(/^0005/, '0009'), { source: '10.0.1.252' });
    expect(m.drop('SyncOtherId')).toBe(1);
    deliver(m, question!, { source: '10.0.1.252' });
    expect(m.drop('SyncBulkTaken')).toBe(1);
  });
});
