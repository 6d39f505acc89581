/** Connection synchronisation over engines with memory for cables: what the master sends against what Linux 6.1 sent, and what a backup makes of it. */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { describeFrame, frame, verifyFrame } from '../wire/build.ts';
import { deliver, Host, SERVICES, VIP } from './sync-rig.ts';

const GOLDEN = readFileSync(new URL('../../golden/sync/linux-6.1-master.txt', import.meta.url), 'utf8');

/** IGMP and UDP payloads of the recorded step, in hexadecimal. */
function golden(step: string): string[] {
  const lines = GOLDEN.split('\n').filter((line) => line.startsWith(`${step} `));
  return lines.map((line) => line.split(' ')[3]!.slice(step === 'igmp' ? 0 : 56));
}

function master(): Host {
  const host = new Host(1);
  host.run(...SERVICES);
  expect(host.start({ role: 'master' })).toBeNull();
  host.wait(0.1);
  host.front.takeSent();
  return host;
}

describe('the master', () => {
  it('sends the same bytes as Linux 6.1: held, persistent, UDP, closed and reset connections, by state and packet', () => {
    const m = master();
    // rr begins with the newest server, 10.0.2.12 by direct routing.
    for (const flags of ['S', '.', 'P.', '.', 'P.', '.']) m.client(20001, 80, flags);
    m.wait(3);
    expect(m.messages()).toEqual(golden('held-dr'));

    m.client(20002, 443, 'S');
    m.server('10.0.2.11', 443, 20002, 'S.');
    for (const flags of ['.', 'P.', '.', 'P.', '.']) m.client(20002, 443, flags);
    m.wait(3);
    expect(m.messages()).toEqual(golden('persistent'));

    for (let i = 0; i < 4; i++) m.client(30000, 53, 'u');
    m.wait(3);
    expect(m.messages()).toEqual(golden('udp'));

    for (const port of [20007, 20008, 20009, 20010, 20011]) {
      const isTranslated = port % 2 === 1;
      m.client(port, 80, 'S');
      if (isTranslated) m.server('10.0.2.11', 80, port, 'S.');
      for (const flags of ['.', 'P.']) m.client(port, 80, flags);
      if (isTranslated) m.server('10.0.2.11', 80, port, 'FP.');
      m.client(port, 80, 'F.');
    }
    m.wait(3);
    expect(m.messages()).toEqual(golden('five-closed'));

    m.client(20001, 80, 'F.');
    m.wait(1);
    m.client(20002, 443, 'R');
    m.wait(3);
    expect(m.messages()).toEqual(golden('close-and-reset'));
  });

  it('speaks version 0 when sync_version says so, and repeats as sync_refresh_period and sync_retries say', () => {
    const m = master();
    m.set('sync_version', '0');
    m.client(20012, 443, 'S');
    m.server('10.0.2.11', 443, 20012, 'S.');
    for (const flags of ['.', 'P.', '.', 'P.', '.']) m.client(20012, 443, flags);
    for (const flags of ['S', '.', 'P.', 'F.']) m.client(20013, 80, flags);
    m.wait(5);
    expect(m.messages()).toEqual(golden('version-0'));

    m.set('sync_version', '1');
    m.set('sync_threshold', '0 0');
    m.set('sync_refresh_period', '10');
    m.set('sync_retries', '2');
    m.client(20014, 443, 'S');
    m.server('10.0.2.11', 443, 20014, 'S.');
    for (const flags of ['.', 'P.', '.', 'P.', '.']) m.client(20014, 443, flags);
    for (const pause of [3, 3, 6, 12]) {
      m.wait(pause);
      for (const flags of ['P.', '.']) m.client(20014, 443, flags);
    }
    m.wait(3);
    expect(m.messages()).toEqual(golden('refresh'));
  });

  it('tells nothing of one packet alone, and of templates only when sync_persist_mode says so', () => {
    const m = master();
    m.run(`-A -u ${VIP}:5353 -s rr -o`, `-a -u ${VIP}:5353 -r 10.0.2.11:5353 -m`);
    for (let i = 0; i < 5; i++) m.client(30000, 5353, 'u');
    m.set('sync_persist_mode', '1');
    m.client(20002, 443, 'S');
    m.server('10.0.2.11', 443, 20002, 'S.');
    for (const flags of ['.', 'P.', '.', 'P.', '.']) m.client(20002, 443, flags);
    m.wait(3);
    const [message, ...others] = m.messages();
    expect(others).toEqual([]);
    // Six templates, and not the connection between them.
    expect(message!.slice(8, 10)).toBe('06');
    expect(message!.length / 2).toBe(8 + 6 * 36);
  });

  it('fills messages up to --sync-maxlen, spreads them over sync_ports, and loses what sync_qlen_max has no room for', () => {
    const m = new Host(1);
    m.run(...SERVICES);
    m.set('sync_ports', '4');
    expect(m.start({ role: 'master', maxLength: 100, syncId: 9, group: '239.1.2.3', port: 9000, ttl: 7 })).toBeNull();
    m.set('sync_qlen_max', '5');
    m.wait(0.1);
    m.front.takeSent();
    for (let i = 0; i < 64; i++) for (const flags of ['S', '.', 'P.']) m.client(20000 + i, 80, flags);
    m.wait(3);
    const sent = m.multicasts().filter(({ bytes }) => bytes[14 + 9] === 17);
    // 2 records of 36 bytes each; 16 connections a port: 8 messages, of which 5 may wait and the last is still being filled.
    const ports = sent.map(({ bytes }) => (bytes[36]! << 8) | bytes[37]!).sort();
    expect(ports).toEqual([9000, 9001, 9002, 9003].flatMap((port) => Array.from({ length: 6 }, () => port)));
    expect(describeFrame(sent[0]!.bytes)).toContain('10.0.1.1');
    expect(verifyFrame(sent[0]!.bytes)).toEqual([]);
    const ip = sent[0]!.bytes.subarray(14);
    expect([ip[1], ip[6]! & 0x40, ip[8], ...ip.subarray(16, 20)]).toEqual([0, 0, 7, 239, 1, 2, 3]);
    expect([...sent[0]!.bytes.subarray(0, 6)]).toEqual([1, 0, 0x5e, 1, 2, 3]);
    expect(m.engine.director.listDaemons()[0]!.counters).toMatchObject({ messages: 24, lost: 8 });
  });

  it('gathers full messages for 20 ms or 8 of them, and lets none wait longer than 2 s', () => {
    const m = new Host(1);
    m.run(...SERVICES);
    expect(m.start({ role: 'master', maxLength: 44 })).toBeNull();
    m.wait(0.1);
    m.front.takeSent();
    const connect = (n: number) => {
      for (const flags of ['S', '.', 'P.']) m.client(20000 + n, 80, flags);
    };
    connect(0);
    m.wait(1.9);
    expect(m.messages()).toEqual([]);
    m.wait(0.2);
    expect(m.messages()).toHaveLength(1);
    for (let n = 1; n < 4; n++) connect(n);
    m.wait(0.012);
    expect(m.messages()).toEqual([]);
    m.wait(0.02);
    expect(m.messages()).toHaveLength(2);
    for (let n = 4; n < 13; n++) connect(n);
    m.wait(0.004);
    expect(m.messages()).toHaveLength(9);
  });
});

/** Frames of one host's front to another's, as a switch would carry them. */
function carry(from: Host, to: Host): number {
  const frames = from.front.takeSent();
  for (const { bytes } of frames) to.front.inject(bytes);
  to.engine.wake();
  to.engine.breathe();
  return frames.length;
}

function backup(...services: readonly string[]): Host {
  const host = new Host(2);
  host.run(...(services.length === 0 ? SERVICES : services));
  expect(host.start({ role: 'backup' })).toBeNull();
  host.wait(0.1);
  host.front.takeSent();
  host.back.takeSent();
  return host;
}

describe('full NAT', () => {
  const full = (host: Host) =>
    host.run(
      `-A -t ${VIP}:443 -s rr -p 60`,
      `-P -t ${VIP}:443 -z ${host.engine.stack.resolve(0x0a000201) && host.engine.stack.isLocal ? '10.0.2.1' : '10.0.2.252'}`,
      `-a -t ${VIP}:443 -r 10.0.2.11:443 -b`,
    );

  it('connections are told to nobody, templates as of NAT; a backup takes the templates', () => {
    const m = new Host(1);
    full(m);
    m.start({ role: 'master' });
    m.wait(0.1);
    m.front.takeSent();
    for (const flags of ['S', '.', 'P.', '.', 'P.', '.']) m.client(20002, 443, flags);
    expect(m.connections()).toHaveLength(2);
    m.wait(3);
    const messages = m.messages();
    expect(messages).toHaveLength(1);
    const b = new Host(2);
    full(b);
    b.start({ role: 'backup' });
    b.wait(0.1);
    deliver(b, messages[0]!);
    expect(b.connections()).toEqual(['tcp ASSURED 10.0.1.2:0 10.0.1.100:443 10.0.2.11:443 60']);
    b.client(20003, 443, 'S');
    expect(b.connections()).toContain('tcp SYN_RECV 10.0.1.2:20003 10.0.1.100:443 10.0.2.11:443 60');
  });

  it('what another director balances by NAT is not taken for a server that is reached by full NAT here', () => {
    const b = new Host(2);
    b.run(`-A -t ${VIP}:443 -s rr -p 60`, `-a -t ${VIP}:443 -r 10.0.2.11:443 -b`);
    b.start({ role: 'backup' });
    b.wait(0.1);
    for (const message of golden('persistent')) deliver(b, message);
    expect(b.connections()).toEqual(['tcp ASSURED 10.0.1.2:0 10.0.1.100:443 10.0.2.11:443 60']);
    expect(b.engine.director.locals.list(0)).toEqual([]);
    b.wait(400);
    expect(b.engine.director.conns.count).toBe(0);
  });
});

describe('the backup', () => {
  it('has the connections that the kernel tells of, bound to the servers that it has itself, and counts them there', () => {
    const b = backup();
    for (const step of ['held-dr', 'persistent', 'udp']) for (const message of golden(step)) deliver(b, message);
    expect(b.connections()).toEqual([
      'tcp ASSURED 10.0.1.2:0 10.0.1.100:443 10.0.2.11:443 60',
      'tcp ESTABLISHED 10.0.1.2:20001 10.0.1.100:80 10.0.2.12:80 900',
      'tcp ESTABLISHED 10.0.1.2:20002 10.0.1.100:443 10.0.2.11:443 900',
      'udp UDP 10.0.1.2:30000 10.0.1.100:53 10.0.2.11:53 300',
    ]);
    expect(b.counts()).toEqual([
      '10.0.2.11:443 1 0 1',
      '10.0.2.11:53 0 1 0',
      '10.0.2.11:80 0 0 0',
      '10.0.2.12:80 1 0 0',
    ]);
    deliver(b, golden('close-and-reset')[0]!);
    expect(b.counts()).toEqual([
      '10.0.2.11:443 0 1 1',
      '10.0.2.11:53 0 1 0',
      '10.0.2.11:80 0 0 0',
      '10.0.2.12:80 0 1 0',
    ]);
    expect(b.connections()).toContain('tcp FIN_WAIT 10.0.1.2:20001 10.0.1.100:80 10.0.2.12:80 120');
    expect(b.connections()).toContain('tcp CLOSE 10.0.1.2:20002 10.0.1.100:443 10.0.2.11:443 10');
    // Synchronised connections are not counted as made here.
    expect(b.engine.director.totals()).toMatchObject({ conns: 0, inPkts: 0, outPkts: 0 });
    expect(b.drop('SyncTaken')).toBe(4);
  });

  it('gives a version 0 message the timeouts that it has itself', () => {
    const b = backup();
    deliver(b, golden('version-0')[0]!);
    expect(b.connections()).toEqual([
      'tcp ASSURED 10.0.1.2:0 10.0.1.100:443 10.0.2.11:443 180',
      'tcp ESTABLISHED 10.0.1.2:20012 10.0.1.100:443 10.0.2.11:443 900',
      'tcp FIN_WAIT 10.0.1.2:20013 10.0.1.100:80 10.0.2.12:80 120',
    ]);
  });

  it('forwards a connection without a server to its address, and binds it at the next message once the server is there', () => {
    const b = backup(`-A -t ${VIP}:8080 -s rr`);
    deliver(b, golden('held-dr')[0]!);
    expect(b.connections()).toEqual(['tcp ESTABLISHED 10.0.1.2:20001 10.0.1.100:80 10.0.2.12:80 900']);
    b.client(20001, 80, 'P.');
    const [sent] = b.back.takeSent();
    expect(describeFrame(sent!.bytes)).toContain('10.0.1.2.20001 > 10.0.1.100.80');
    expect(Buffer.from(sent!.bytes.subarray(0, 6)).toString('hex')).toBe('020000000212');
    b.run(...SERVICES.slice(0, 3));
    expect(b.counts()).toEqual(['10.0.2.11:80 0 0 0', '10.0.2.12:80 0 0 0']);
    deliver(b, golden('held-dr')[0]!);
    expect(b.counts()).toEqual(['10.0.2.11:80 0 0 0', '10.0.2.12:80 1 0 0']);
    b.client(20001, 80, 'F.');
    expect(b.counts()).toEqual(['10.0.2.11:80 0 0 0', '10.0.2.12:80 0 1 0']);
    b.wait(130);
    expect(b.connections()).toEqual([]);
    expect(b.counts()).toEqual(['10.0.2.11:80 0 0 0', '10.0.2.12:80 0 0 0']);
  });

  it('binds to a server of another method, and finds its answers then', () => {
    // The message says direct routing; here the server translates.
    const b = backup(`-A -t ${VIP}:80 -s rr`);
    deliver(b, golden('held-dr')[0]!);
    b.run(`-a -t ${VIP}:80 -r 10.0.2.12:80 -m`);
    deliver(b, golden('held-dr')[0]!);
    b.server('10.0.2.12', 80, 20001, '.');
    const [sent] = b.front.takeSent();
    expect(describeFrame(sent!.bytes)).toContain('10.0.1.100.80 > 10.0.1.2.20001');
  });

  it('replaces a connection that has another server now, but not by the news of its end', () => {
    const b = backup();
    const [held] = golden('held-dr');
    deliver(b, held!);
    const elsewhere = held!.replace(/0a00020c$/, '0a00020b');
    deliver(b, elsewhere.replace('00000083', '00000183'));
    expect(b.connections()).toEqual(['tcp ESTABLISHED 10.0.1.2:20001 10.0.1.100:80 10.0.2.12:80 900']);
    deliver(b, elsewhere);
    expect(b.connections()).toEqual(['tcp ESTABLISHED 10.0.1.2:20001 10.0.1.100:80 10.0.2.11:80 900']);
    expect(b.counts()).toContain('10.0.2.12:80 0 0 0');
    expect(b.counts()).toContain('10.0.2.11:80 1 0 0');
  });

  it('names what it does not take: other syncids, sizes, records; and is deaf on other ports, groups and after its end', () => {
    const b = backup();
    const [held] = golden('held-dr');
    deliver(b, held!.replace(/^0005/, '0006'));
    deliver(b, `${held!}00`);
    deliver(b, '0005');
    deliver(b, held!.replace('00060024', '00061024'));
    expect(
      ['SyncOtherId', 'SyncBadSize', 'SyncTooShort', 'SyncBadRecord'].map((n) => b.drop(n as 'SyncTaken')),
    ).toEqual([1, 1, 1, 1]);
    deliver(b, held!, { port: 8849 });
    deliver(b, held!, { group: '224.0.0.82' });
    expect(b.drop('MulticastNotForUs')).toBe(2);
    deliver(b, held!, { source: '10.0.1.252' });
    expect(b.drop('MartianSource')).toBe(1);
    b.engine.executeIpvs([{ op: 'stop-daemon', role: 'backup' }]);
    deliver(b, held!);
    expect(b.drop('MulticastNotForUs')).toBe(3);
    expect(b.connections()).toEqual([]);
  });

  it('passes over records that the kernel passes over: one packet, a template without a state or with a port to come', () => {
    const b = backup();
    const [held] = golden('held-dr');
    for (const [flags, state] of [
      ['0000e060', '0001'],
      ['00003000', '0001'],
      ['00001800', '0001'],
      ['00001000', '0002'],
      ['00000083', '000b'],
    ] as const) {
      deliver(b, held!.replace('000000830001', flags + state));
    }
    expect(b.connections()).toEqual([]);
    expect(b.drop('SyncTaken')).toBe(5);
    expect(b.engine.director.listDaemons()[0]!.counters.skipped).toBe(5);
  });

  it('goes on with the shifted sequence numbers of an FTP control connection', () => {
    const ftp = [`-A -t ${VIP}:21 -s rr`, `-a -t ${VIP}:21 -r 10.0.2.11:21 -m`];
    const m = new Host(1);
    m.run(...ftp);
    expect(m.start({ role: 'master' })).toBeNull();
    for (const flags of ['S', '.']) m.client(20001, 21, flags);
    m.engine.director.ftp.takeShift(0, 1000, -2, 7);
    m.wait(0.1);
    m.front.takeSent();
    m.client(20001, 21, 'P.');
    m.wait(3);
    const b = backup(...ftp);
    const [message] = m.messages();
    deliver(b, message!);
    expect(b.engine.director.ftp.shiftOf(0)).toEqual({ correction: 1000, before: -2, after: 7 });
    // type 1, length 24: the inbound half is zero
    expect(message).toContain(`0118${'0'.repeat(24)}000003e800000007fffffffe`);
  });

  it('leaves everything to the master while backup_only is set', () => {
    const b = backup();
    deliver(b, golden('held-dr')[0]!);
    b.set('backup_only', '1');
    b.client(20001, 80, 'P.');
    expect(b.back.takeSent()).toEqual([]);
    b.engine.executeIpvs([{ op: 'stop-daemon', role: 'backup' }]);
    b.client(20001, 80, 'P.');
    expect(b.back.takeSent()).toHaveLength(1);
  });

  it('hears a master of tapvs on all its ports, beside a master of its own', () => {
    const [m, b] = [new Host(1), new Host(2)];
    for (const host of [m, b]) {
      host.set('sync_ports', '4');
      host.run(...SERVICES);
    }
    expect(m.start({ role: 'master', syncId: 1 })).toBeNull();
    expect(m.start({ role: 'backup', syncId: 2 })).toBeNull();
    expect(b.start({ role: 'backup', syncId: 1 })).toBeNull();
    expect(b.start({ role: 'master', syncId: 2 })).toBeNull();
    expect(b.start({ role: 'master', syncId: 3 })).toBe('EEXIST');
    for (let i = 0; i < 40; i++) for (const flags of ['S', '.', 'P.']) m.client(20000 + i, 80, flags);
    for (let i = 0; i < 30; i++) {
      m.wait(0.1);
      carry(m, b);
      b.wait(0.1);
      carry(b, m);
    }
    const withoutTime = (lines: string[]) => lines.map((line) => line.replace(/ \d+$/, ''));
    expect(withoutTime(b.connections())).toEqual(withoutTime(m.connections()));
    expect(b.counts()).toEqual(m.counts());
    expect(m.drop('SyncOtherId') + b.drop('SyncOtherId')).toBe(0);
  });
});

describe('membership of the group', () => {
  const igmp = (host: Host) =>
    host
      .multicasts()
      .filter(({ bytes }) => bytes[14 + 9] === 2)
      .map(({ bytes }) => Buffer.from(bytes).toString('hex'));

  it('is told and given up as Linux tells it, twice each', () => {
    const host = new Host(1);
    host.front.takeSent();
    expect(host.start({ role: 'backup', group: '239.1.1.1' })).toBeNull();
    host.wait(2);
    host.engine.executeIpvs([{ op: 'stop-daemon', role: 'backup' }]);
    host.wait(2);
    const recorded = GOLDEN.split('\n').filter((line) => line.startsWith('igmp '));
    // All but our MAC is the same.
    const expected = recorded.map((line) => line.split(' ')[2]!.slice(0, 12) + line.split(' ')[3]!);
    expect(igmp(host).map((hex) => hex.slice(0, 12) + hex.slice(28))).toEqual(expected);
  });

  const ask = (host: Host, payload: string, to = '224.0.0.1') => {
    const bytes = new Uint8Array(Buffer.from(payload, 'hex'));
    const ip = frame().eth('01:00:5e:00:00:01', '02:00:00:00:01:77').ipv4('10.0.1.77', to, { ttl: 1, proto: 2 });
    host.front.inject(ip.payload(bytes).build());
    host.engine.wake();
    host.engine.breathe();
  };

  it('is repeated when a router asks, within the time that it gives', () => {
    const host = new Host(1);
    host.start({ role: 'backup' });
    host.wait(2);
    host.front.takeSent();
    ask(host, '110aeef50000000000000000'); // version 3, one second, all groups
    host.wait(1.1);
    const [report, ...others] = igmp(host);
    expect(others).toEqual([]);
    expect(report!.slice(76)).toBe('2200fbac0000000102000000e0000051');
    expect(host.drop('IgmpTaken')).toBe(1);
    ask(host, '1100ffff00000000');
    expect(host.drop('IgmpMalformed')).toBe(1);
    const deaf = new Host(2);
    ask(deaf, '110aeef50000000000000000');
    expect(deaf.drop('MulticastNotForUs')).toBe(1);
  });

  it('is spoken of in version 2 while a querier of version 2 is there', () => {
    const host = new Host(1);
    host.start({ role: 'backup' });
    host.wait(2);
    host.front.takeSent();
    ask(host, '110aeef500000000');
    host.wait(1.1);
    const [report] = igmp(host);
    expect(report!.slice(0, 12)).toBe('01005e000051');
    expect(report!.slice(76)).toBe('160009aee0000051');
    host.engine.executeIpvs([{ op: 'stop-daemon', role: 'backup' }]);
    host.wait(2);
    const leaves = igmp(host);
    expect(leaves).toHaveLength(1);
    expect(leaves[0]!.slice(0, 12)).toBe('01005e000002');
    expect(leaves[0]!.slice(76, 80)).toBe('1700');
  });
});
