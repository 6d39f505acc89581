/** cache_bypass, schedule_icmp, nat_icmp_send, ignore_tunneled: what is done for packets that no connection or no server is for. */
import { beforeEach, describe, expect, it } from 'vitest';
import { type FrameBuilder, frame } from '../wire/build.ts';
import { dst, src } from '../wire/ipv4.ts';
import { Bench, CLIENT, tcpPacket, udpPacket, VIP } from './test-rig.ts';

const SERVER = '10.0.2.11';
const CACHE = '10.0.2.12';
let b: Bench;

function set(...settings: readonly string[]): void {
  for (const setting of settings) {
    const [name, value] = setting.split('=');
    expect(b.director.sysctls.set(name!, value!)).toBe(null);
  }
}

/** First 28 bytes of a packet from → to, as an error quotes them. */
function quoted(packet: FrameBuilder): Uint8Array {
  return packet.build().slice(0, 28);
}

const noStats = { conns: 0, inPkts: 0, outPkts: 0 };

beforeEach(() => {
  b = new Bench();
});

describe('cache_bypass', () => {
  const MARK = { isLocalOut: true, mark: 7 } as const;
  const syn = () => tcpPacket('10.0.1.1:7000', `${CACHE}:80`, 'S');

  beforeEach(() => b.run('-A -f 7 -s rr'));

  it('off: without a server it is refused', () => {
    expect(b.send(syn(), MARK)).toMatchObject({ verdict: 'drop', drop: 'DirectorNoDestination', reject: '3/3' });
  });

  it('on: it goes where it wants to, by a connection without a server, which nobody counts', () => {
    set('cache_bypass=1');
    const before = syn().build();
    const o = b.send(syn(), MARK);
    expect([o.verdict, o.packet.nexthop]).toEqual(['reroute', dst(new DataView(before.buffer), 0)]);
    // One hop less, else as it was.
    expect([o.bytes[8], dst(new DataView(o.bytes.buffer), 0)]).toEqual([before[8]! - 1, o.packet.nexthop]);
    expect(b.connections()).toEqual([`tcp 60 SYN_RECV 10.0.1.1:7000 ${CACHE}:80 0.0.0.0:0`]);
    expect(b.director.listServices(0, 9).rows[0]!.stats).toMatchObject(noStats);
    expect(b.director.totals()).toMatchObject(noStats);
    b.send(tcpPacket('10.0.1.1:7000', `${CACHE}:80`, 'A'), MARK);
    expect(b.connections()[0]).toContain('ESTABLISHED');
    // A server that comes changes nothing for it, nor one that goes, nor quiescing rules.
    b.run(`-a -f 7 -r ${SERVER}:0 -m -w 1`, `-d -f 7 -r ${SERVER}:0`);
    set('expire_nodest_conn=1');
    b.director.flushGone();
    b.wait(1);
    expect(b.send(tcpPacket('10.0.1.1:7000', `${CACHE}:80`, 'S'), MARK).verdict).toBe('reroute');
    expect(b.connections()).toHaveLength(1);
    b.wait(1000);
    expect(b.connections()).toEqual([]);
  });

  it('refuses what has no route, by the rules of every other packet', () => {
    set('cache_bypass=1');
    expect(b.send(tcpPacket('10.0.1.1:7000', '10.9.9.9:80', 'S'), MARK)).toMatchObject({ drop: 'DirectorNoRoute' });
    const last = frame().ipv4('10.0.1.1', CACHE, { ttl: 1 }).tcp({ srcPort: 1, dstPort: 80, flags: 'S' });
    expect(b.send(last, MARK)).toMatchObject({ drop: 'TtlExceeded', reject: '11/0' });
  });

  it('is for marks, and for addresses that are not ours', () => {
    set('cache_bypass=1');
    b.run('-A -t 10.0.1.101:80 -s rr');
    expect(b.send(tcpPacket(`${CLIENT}:7000`, '10.0.1.101:80', 'S')).drop).toBe('DirectorNoDestination');
    expect(b.send(tcpPacket(`${CLIENT}:7000`, `${VIP}:80`, 'S'), { mark: 7 }).drop).toBe('DirectorNoDestination');
  });

  it('one-packet services keep no connection', () => {
    set('cache_bypass=1');
    b.run('-E -f 7 -s rr -o');
    expect(b.send(udpPacket('10.0.1.1:7000', `${CACHE}:53`), MARK).verdict).toBe('reroute');
    expect(b.connections()).toEqual([]);
  });
});

describe('schedule_icmp', () => {
  const about = (vport: number, cport = 7000) =>
    frame()
      .ipv4(CLIENT, VIP)
      .icmp({ type: 3, code: 4, mtu: 900 })
      .payload(quoted(tcpPacket(`${VIP}:${vport}`, `${CLIENT}:${cport}`, 'A')));

  beforeEach(() => b.run('-A -t 10.0.1.100:80 -s rr', `-a -t 10.0.1.100:80 -r ${SERVER}:80 -m -w 1`));

  it('off: an error about an unknown answer is ours to read', () => {
    expect(b.send(about(80)).verdict).toBe('accept');
    expect(b.connections()).toEqual([]);
  });

  it('on: it makes the connection that the client would have had, for three seconds, and goes to its server', () => {
    set('schedule_icmp=1');
    const o = b.send(about(80));
    expect([o.verdict, b.connections()]).toEqual(['reroute', [`tcp 3 NONE ${CLIENT}:7000 ${VIP}:80 ${SERVER}:80`]]);
    const view = new DataView(o.bytes.buffer);
    expect(src(view, 28)).toBe(dst(view, 0));
    expect(b.send(about(81)).verdict).toBe('accept');
    b.wait(4);
    expect(b.connections()).toEqual([]);
  });

  it('on: no server, no answer', () => {
    set('schedule_icmp=1');
    b.run(`-e -t 10.0.1.100:80 -r ${SERVER}:80 -m -w 0`);
    expect(b.send(about(80))).toMatchObject({ verdict: 'drop', drop: 'DirectorNoDestination', reject: '' });
  });

  it('on: an active FTP client’s data port begins nothing', () => {
    set('schedule_icmp=1');
    expect(b.send(about(80, 20)).verdict).toBe('accept');
  });
});

describe('nat_icmp_send', () => {
  const says = (packet: FrameBuilder) => {
    const { verdict, drop, reject } = b.send(packet);
    return verdict === 'drop' ? `${drop} ${reject}` : verdict;
  };
  const TOLD = 'DirectorNoConnection 3/3';

  beforeEach(() =>
    b.run(
      '-A -t 10.0.1.100:80 -s rr',
      `-a -t 10.0.1.100:80 -r ${SERVER}:80 -m -w 1`,
      '-A -f 7 -s rr',
      `-a -f 7 -r ${CACHE}:53 -m -w 1`,
    ),
  );

  it('off: what a server sends without a connection passes', () => {
    expect(says(tcpPacket(`${SERVER}:80`, `${CLIENT}:7000`, 'A'))).toBe('accept');
  });

  it('on: it is told, unless it resets; other ports, protocols and hosts pass', () => {
    set('nat_icmp_send=1');
    expect(says(tcpPacket(`${SERVER}:80`, `${CLIENT}:7000`, 'A'))).toBe(TOLD);
    expect(says(tcpPacket(`${SERVER}:80`, `${CLIENT}:7000`, 'RA'))).toBe('accept');
    expect(says(tcpPacket(`${SERVER}:81`, `${CLIENT}:7000`, 'A'))).toBe('accept');
    expect(says(tcpPacket('10.0.2.13:80', `${CLIENT}:7000`, 'A'))).toBe('accept');
    expect(says(udpPacket(`${SERVER}:80`, `${CLIENT}:7000`))).toBe('accept');
    // A mark's server is one of all protocols.
    expect(says(udpPacket(`${CACHE}:53`, `${CLIENT}:7000`))).toBe(TOLD);
    expect(says(tcpPacket(`${CACHE}:53`, `${CLIENT}:7000`, 'S'))).toBe(TOLD);
  });

  it('on: not for a server that went, nor for one of another method', () => {
    set('nat_icmp_send=1');
    b.run(`-e -t 10.0.1.100:80 -r ${SERVER}:80 -g -w 1`, `-d -f 7 -r ${CACHE}:53`);
    expect(says(tcpPacket(`${SERVER}:80`, `${CLIENT}:7000`, 'A'))).toBe('accept');
    expect(says(udpPacket(`${CACHE}:53`, `${CLIENT}:7000`))).toBe('accept');
  });
});

describe('ignore_tunneled', () => {
  const tunnelled = () =>
    frame()
      .ipv4(CLIENT, VIP, { proto: 4 })
      .payload(quoted(tcpPacket('1.1.1.1:1', `${VIP}:80`, 'S')));

  it('marks what we cannot balance, so that nobody looks for what is in it', () => {
    b.run('-A -t 10.0.1.100:80 -s rr');
    expect(b.send(tunnelled()).packet.ipvsProperty).toBe(0);
    set('ignore_tunneled=1');
    expect(b.send(tunnelled())).toMatchObject({ verdict: 'accept', packet: { ipvsProperty: 1 } });
  });
});

describe('a client port that is used again', () => {
  it('the old connection counts until the new one is there', () => {
    b.run('-A -t 10.0.1.100:80 -s lc', ...[1, 2].map((n) => `-a -t 10.0.1.100:80 -r 10.0.2.1${n}:80 -m -w 1`));
    const first = b.probe(`${CLIENT}:7000`, `${VIP}:80`);
    expect(b.probe(`${CLIENT}:7000`, `${VIP}:80`)).not.toBe(first);
    expect(b.servers().sort()).toEqual(
      first === '10.0.2.11:80'
        ? ['10.0.2.11:80 1 0 0', '10.0.2.12:80 1 0 1']
        : ['10.0.2.11:80 1 0 1', '10.0.2.12:80 1 0 0'],
    );
  });

  it('after a reset, too; and where the table is full', () => {
    b = new Bench({ maxConnections: 1 });
    b.run('-A -t 10.0.1.100:80 -s rr', ...[1, 2].map((n) => `-a -t 10.0.1.100:80 -r 10.0.2.1${n}:80 -m -w 1`));
    const first = b.probe(`${CLIENT}:7000`, `${VIP}:80`, true);
    b.send(tcpPacket(`${CLIENT}:7000`, `${VIP}:80`, 'R'));
    expect(b.connections()[0]).toContain('CLOSE');
    const second = b.probe(`${CLIENT}:7000`, `${VIP}:80`, true);
    expect([second, b.connections().length]).toEqual([first === '10.0.2.11:80' ? '10.0.2.12:80' : '10.0.2.11:80', 1]);
  });
});

describe('backup_only', () => {
  it.each([
    [true, '1', 'accept'],
    [true, '0', 'reroute'],
    [false, '1', 'reroute'],
  ])('backup: %s, backup_only=%s: %s', (isBackup, value, verdict) => {
    b.run('-A -t 10.0.1.100:80 -s rr', `-a -t 10.0.1.100:80 -r ${SERVER}:80 -m -w 1`);
    b.director.isBackup = isBackup;
    set(`backup_only=${value}`);
    expect(b.send(tcpPacket(`${CLIENT}:7000`, `${VIP}:80`, 'S')).verdict).toBe(verdict);
  });
});
