/** drop_packet, drop_entry, secure_tcp and the memory that they watch (recordings drop_packet_*, drop_entry_*, secure_tcp_*, amemthresh_*). */
import { beforeEach, describe, expect, it } from 'vitest';
import { Bench, CLIENT, tcpPacket, udpPacket, VIP } from './test-rig.ts';

const SERVER = '10.0.2.11';
let b: Bench;

function set(...settings: readonly string[]): void {
  for (const setting of settings) {
    const [name, value] = setting.split('=');
    expect(b.director.sysctls.set(name!, value!)).toBe(null);
  }
}

/** Whether the SYNs of these ports were dropped: `x`, or forwarded: `.` */
function syns(first: number, count: number): string {
  let told = '';
  for (let port = first; port < first + count; port++) {
    const o = b.send(tcpPacket(`${CLIENT}:${port}`, `${VIP}:80`, 'S'));
    if (o.verdict === 'drop') expect([o.drop, o.reject]).toEqual(['DirectorDropPacket', '']);
    told += o.verdict === 'drop' ? 'x' : '.';
  }
  return told;
}

const modes = () => ['drop_entry', 'drop_packet', 'secure_tcp'].map((name) => b.director.sysctls.get(name)).join(' ');

beforeEach(() => {
  b = new Bench();
  b.run('-A -t 10.0.1.100:80 -s rr', `-a -t 10.0.1.100:80 -r ${SERVER}:80 -m -w 1`);
  // A bench's tables are small; nothing is short here unless a test says so.
  set('amemthresh=1');
});

describe('drop_packet', () => {
  it('always: the first and then every am_droprate-th packet that would begin a connection', () => {
    set('am_droprate=3', 'drop_packet=3');
    expect(syns(7000, 7)).toBe('x..x..x');
    expect(b.director.conns.count).toBe(4);
  });

  it('lets connections that are there alone, and what is for no service', () => {
    expect(syns(7000, 1)).toBe('.');
    set('am_droprate=1', 'drop_packet=3');
    expect(syns(7001, 2)).toBe('xx');
    expect(b.send(tcpPacket(`${CLIENT}:7000`, `${VIP}:80`, 'A')).verdict).toBe('reroute');
    expect(b.send(tcpPacket(`${CLIENT}:7000`, `${VIP}:81`, 'S')).verdict).toBe('accept');
  });

  it('drops UDP too', () => {
    b.run('-A -u 10.0.1.100:53 -s rr', `-a -u 10.0.1.100:53 -r ${SERVER}:53 -m -w 1`);
    set('am_droprate=2', 'drop_packet=3');
    const verdicts = [1, 2, 3, 4].map((port) => b.send(udpPacket(`${CLIENT}:${port}`, `${VIP}:53`)).verdict);
    expect(verdicts).toEqual(['drop', 'reroute', 'drop', 'reroute']);
  });

  it('takes a new rate after a second; 0 drops nothing, one below 0 everything', () => {
    set('am_droprate=1', 'drop_packet=3');
    set('am_droprate=0');
    expect(syns(7000, 1)).toBe('x');
    b.wait(1.2);
    expect(syns(7001, 3)).toBe('...');
    set('am_droprate=-3');
    b.wait(1.2);
    expect(syns(7004, 3)).toBe('xxx');
    set('drop_packet=0');
    expect(syns(7007, 2)).toBe('..');
  });
});

describe('memory', () => {
  it('is what is left of our tables', () => {
    // 4096 connections of 74 bytes, 8192 flow rows of 32.
    expect(b.director.defence.available).toBe(Math.floor((4096 * 74 + 8192 * 32) / 4096));
    syns(7000, 200);
    expect(b.director.defence.available).toBe(Math.floor((3896 * 74 + 7792 * 32) / 4096));
  });

  it('moves the automatic modes, at once when one is written, else within a second; 0 and 3 stay', () => {
    set('drop_entry=2', 'drop_packet=2', 'secure_tcp=2');
    expect(modes()).toBe('1 1 1');
    set('amemthresh=100000000');
    expect(modes()).toBe('1 1 1');
    b.wait(1.2);
    expect(modes()).toBe('2 2 2');
    set('amemthresh=0', 'drop_entry=3');
    b.wait(1.2);
    expect(modes()).toBe('3 1 1');
    set('amemthresh=-5', 'drop_packet=0');
    b.wait(1.2);
    expect(modes()).toBe('3 0 1');
    set('amemthresh=100000000', 'drop_packet=1');
    expect(modes()).toBe('3 2 2');
  });

  it('gives the rate: amemthresh over what is missing', () => {
    const { available } = b.director.defence;
    set(`amemthresh=${available + 30}`, 'drop_packet=1');
    const rate = Math.floor((available + 30) / 30);
    expect(rate).toBeGreaterThan(3);
    expect(syns(7000, rate)).toBe(`${'.'.repeat(rate - 1)}x`);
  });
});

describe('secure_tcp', () => {
  const state = () => b.connections()[0]!.split(' ')[2];

  it.each([
    ['0', 'SYN_RECV', 'ESTABLISHED'],
    ['1', 'SYN_RECV', 'ESTABLISHED'],
    ['3', 'SYNACK', 'SYNACK'],
  ])('%s: a handshake is %s, then %s', (mode, opened, acknowledged) => {
    set(`secure_tcp=${mode}`);
    b.send(tcpPacket(`${CLIENT}:7000`, `${VIP}:80`, 'S'));
    b.send(tcpPacket(`${SERVER}:80`, `${CLIENT}:7000`, 'SA'));
    expect(state()).toBe(opened);
    b.send(tcpPacket(`${CLIENT}:7000`, `${VIP}:80`, 'A'));
    expect(state()).toBe(acknowledged);
    b.send(tcpPacket(`${SERVER}:80`, `${CLIENT}:7000`, 'A'));
    expect(state()).toBe('ESTABLISHED');
  });
});

describe('drop_entry', () => {
  /** Long enough that a row that may go is met: (1 - 1/32)^600 is nothing. */
  const LONG = 600;

  it('takes half-open connections; spares those that count', () => {
    set('drop_entry=3');
    syns(7000, 40);
    b.probe(`${CLIENT}:8000`, `${VIP}:80`);
    b.probe(`${CLIENT}:8001`, `${VIP}:80`, true);
    b.wait(20);
    const left = b.connections().filter((line) => line.includes('SYN_RECV')).length;
    // A half, give or take: (31/32)^20 of 40 are 21.
    expect(left).toBeGreaterThan(8);
    expect(left).toBeLessThan(34);
    expect(b.connections().filter((line) => /TIME_WAIT|ESTABLISHED/.test(line))).toHaveLength(2);
  });

  it('takes an idle connection of few packets after a minute, not one of many', () => {
    b.director.tcpTimeouts.fill(LONG * 1000);
    b.probe(`${CLIENT}:8000`, `${VIP}:80`, true);
    b.probe(`${CLIENT}:8001`, `${VIP}:80`, true);
    for (let i = 0; i < 8; i++) b.send(tcpPacket(`${CLIENT}:8001`, `${VIP}:80`, 'A', 'x'));
    set('drop_entry=3');
    b.wait(59);
    expect(b.connections()).toHaveLength(2);
    b.wait(LONG);
    expect(b.connections().map((line) => line.split(' ')[3])).toEqual([`${CLIENT}:8001`]);
    expect(b.director.dests.active[0]! + b.director.dests.inactive[0]!).toBe(1);
  });

  it('takes UDP that is idle; nothing in mode 1', () => {
    b.director.udpTimeouts.fill(LONG * 1000);
    b.run('-A -u 10.0.1.100:53 -s rr', `-a -u 10.0.1.100:53 -r ${SERVER}:53 -m -w 1`);
    b.send(udpPacket(`${CLIENT}:1`, `${VIP}:53`));
    set('drop_entry=1');
    b.wait(LONG);
    expect(b.connections()).toHaveLength(1);
    set('drop_entry=3');
    b.wait(LONG);
    expect(b.connections()).toEqual([]);
  });

  it('takes a template that is not sure of its client with its last connection, never one that is needed or sure', () => {
    b.run('-A -t 10.0.1.101:80 -s rr -p 3000', `-a -t 10.0.1.101:80 -r ${SERVER}:80 -m -w 1`);
    b.send(tcpPacket('10.0.1.3:7000', '10.0.1.101:80', 'S'));
    b.probe('10.0.1.4:7000', '10.0.1.101:80', true);
    for (let i = 0; i < 8; i++) b.send(tcpPacket('10.0.1.4:7000', '10.0.1.101:80', 'A', 'x'));
    const templates = () => b.connections().filter((line) => /ASSURED|NONE/.test(line)).length;
    expect(templates()).toBe(2);
    set('drop_entry=3');
    b.wait(LONG);
    expect(b.connections().map((line) => line.replace(/ \d+ /, ' '))).toEqual([
      'tcp ASSURED 10.0.1.4:0 10.0.1.101:80 10.0.2.11:80',
      'tcp ESTABLISHED 10.0.1.4:7000 10.0.1.101:80 10.0.2.11:80',
    ]);
    expect(b.director.dests.persistent.reduce((sum, n) => sum + n)).toBe(1);
  });
});
