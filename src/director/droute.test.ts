/** Direct routing: the packet leaves as it came but for its TTL, to the server's next hop. Cases of the recordings conn_reuse_dr_*, method_*. */
import { beforeEach, describe, expect, it } from 'vitest';
import { ip4 } from '../wire/addr.ts';
import { describePacket, frame, verifyFrame } from '../wire/build.ts';
import { Bench, CLIENT, tcpPacket, VIP } from './test-rig.ts';

const T = `-t ${VIP}:80`;
const to = `${VIP}:80`;

describe('direct routing', () => {
  let b: Bench;
  beforeEach(() => {
    b = new Bench();
    b.run(`-A ${T} -s rr`, `-a ${T} -r 10.0.2.11:80 -g`, `-a ${T} -r 10.0.2.12:80 -g`);
  });
  const go = (flags: string, port = 7000) => b.send(tcpPacket(`${CLIENT}:${port}`, to, flags));

  it('sends to the server’s next hop, unchanged but for the TTL', () => {
    const o = go('S');
    expect(verifyFrame(o.bytes, { isIp: true })).toEqual([]);
    expect(`${o.verdict}: ${describePacket(o.bytes)}`).toBe(
      'reroute: IP 10.0.1.2.7000 > 10.0.1.100.80: tcp [S] seq 0 ack 0 win 65535 len 0 (ttl 63 id 0 DF)',
    );
    expect(o.packet).toMatchObject({ nexthop: ip4('10.0.2.12'), outDevice: 2, ipvsProperty: 1 });
  });

  it('sees the client’s half only: FIN leads to FIN_WAIT, and its port used again is the same connection', () => {
    const state = () => b.connections()[0]!.split(' ').slice(1, 3).join(' ');
    const walk = ['S', '.', 'FA', '.'].map((flags) => {
      go(flags);
      return state();
    });
    expect(walk).toEqual(['60 SYN_RECV', '900 ESTABLISHED', '120 FIN_WAIT', '120 FIN_WAIT']);
    b.run(`-e ${T} -r 10.0.2.12:80 -g -w 0`);
    expect(go('S').packet.nexthop).toBe(ip4('10.0.2.12'));
    go('.');
    go('FA');
    b.director.sysctls.set('conn_reuse_mode', '2');
    expect(go('S').packet.nexthop).toBe(ip4('10.0.2.11'));
    expect(b.director.totals()).toMatchObject({ conns: 2, outPkts: 0 });
  });

  it('answers that do cross us move the state, from then on as of two halves', () => {
    go('S');
    const answer = b.send(tcpPacket(to, `${CLIENT}:7000`, 'SA'), { isLocalOut: true });
    expect(describePacket(answer.bytes)).toContain('IP 10.0.1.100.80 > 10.0.1.2.7000: tcp [S.]');
    go('.');
    go('FA');
    expect(b.connections()[0]).toContain('CLOSE_WAIT');
  });

  it('a server that is ourselves: our own stack', () => {
    b.run('-A -t 10.0.1.101:80 -s rr', '-a -t 10.0.1.101:80 -r 10.0.1.1:80 -g');
    const o = b.send(tcpPacket(`${CLIENT}:1`, '10.0.1.101:80', 'S'));
    expect([o.verdict, describePacket(o.bytes).includes('ttl 64')]).toEqual(['accept', true]);
    b.send(tcpPacket('10.0.1.101:80', `${CLIENT}:1`, 'RA'), { isLocalOut: true });
    expect(b.connections()).toEqual(['tcp 10 CLOSE 10.0.1.2:1 10.0.1.101:80 10.0.1.1:80']);
  });

  it('a loopback server is never reached from outside', () => {
    b.run('-A -t 10.0.1.101:80 -s rr', '-a -t 10.0.1.101:80 -r 127.0.0.1:80 -m');
    expect(b.send(tcpPacket(`${CLIENT}:1`, '10.0.1.101:80', 'S'))).toMatchObject({ verdict: 'drop', reject: '' });
    expect(b.connections()[0]).toContain('SYN_RECV');
  });

  it('ICMP errors of the client’s side go to the same server, as they are', () => {
    go('S');
    const cause = frame()
      .ipv4(VIP, CLIENT, { df: true })
      .tcp({ srcPort: 80, dstPort: 7000 })
      .payload(1400)
      .build()
      .slice(0, 28);
    const o = b.send(frame().ipv4('10.0.1.254', VIP).icmp({ type: 3, code: 4, mtu: 1280 }).payload(cause));
    expect(verifyFrame(o.bytes, { isIp: true })).toEqual([]);
    expect(o.packet.nexthop).toBe(ip4('10.0.2.12'));
    expect(`${o.verdict}: ${describePacket(o.bytes)}`).toContain(
      'reroute: IP 10.0.1.254 > 10.0.1.100: icmp error 3/4 mtu 1280',
    );
  });

  it('TTL and MTU are looked at as for NAT', () => {
    const dying = frame().ipv4(CLIENT, VIP, { ttl: 1 }).tcp({ srcPort: 1, dstPort: 80, flags: 'S' });
    expect(b.send(dying)).toMatchObject({ verdict: 'drop', reject: '11/0' });
    b.routing.backMtu = 1000;
    b.routing.generation++;
    expect(b.send(tcpPacket(`${CLIENT}:2`, to, 'S', 1000))).toMatchObject({ verdict: 'drop', reject: '3/4 1000' });
  });

  it('-e changes the method of new connections only', () => {
    b.run(`-d ${T} -r 10.0.2.11:80`);
    go('S', 1);
    b.run(`-e ${T} -r 10.0.2.12:80 -m`);
    expect(describePacket(go('.', 1).bytes)).toContain('> 10.0.1.100.80');
    expect(describePacket(go('S', 2).bytes)).toContain('> 10.0.2.12.80');
  });
});
