/** ICMP errors about balanced connections, both ways: golden packets after the recordings icmp_*. */
import { beforeEach, describe, expect, it } from 'vitest';
import { describePacket, frame, verifyFrame } from '../wire/build.ts';
import { Bench, CLIENT, tcpPacket, udpPacket, VIP } from './test-rig.ts';

const quoted = (from: string, fromPort: number, to: string, toPort: number) =>
  frame().ipv4(from, to, { ttl: 63, df: true }).udp({ srcPort: fromPort, dstPort: toPort }).payload('who').build();

describe('ICMP errors', () => {
  let b: Bench;
  beforeEach(() => {
    b = new Bench();
    b.run(`-A -u ${VIP}:53 -s rr`, `-a -u ${VIP}:53 -r 10.0.2.11:5353 -m`);
    b.send(udpPacket(`${CLIENT}:6000`, `${VIP}:53`, 'who'));
  });
  const stats = () => b.director.listServices(0, 1).rows[0]!.stats;

  it.each([
    ['port unreachable', 3, 3],
    ['time exceeded', 11, 0],
    ['source quench', 4, 0],
  ])('from the server’s side (%s): the client sees the service', (_name, type, code) => {
    const error = frame()
      .ipv4('10.0.2.11', CLIENT, { tos: 192 })
      .icmp({ type, code })
      .payload(quoted(CLIENT, 6000, '10.0.2.11', 5353));
    const o = b.send(error);
    expect(verifyFrame(o.bytes, { isIp: true })).toEqual([]);
    expect(`${o.verdict}: ${describePacket(o.bytes)}`).toBe(
      `accept: IP 10.0.1.100 > 10.0.1.2: icmp error ${type}/${code} { IP 10.0.1.2.6000 > 10.0.1.100.53: udp len 3 (ttl 63 id 0 DF) } (ttl 64 id 0 tos 0xc0)`,
    );
    // The quoted IP header is sound again, the quoted UDP checksum is left as it was.
    const view = new DataView(o.bytes.buffer);
    const inner = quoted(CLIENT, 6000, '10.0.2.11', 5353);
    expect(view.getUint16(28 + 26)).toBe((inner[26]! << 8) | inner[27]!);
    expect(verifyFrame(o.bytes.slice(28), { isIp: true })).toEqual(['UDP checksum wrong']);
    expect(stats()).toMatchObject({ inPkts: 1, outPkts: 1, outBytes: 59 });
    expect(o.packet.ipvsProperty).toBe(1);
  });

  it('a router between us and the server is translated too', () => {
    const error = frame()
      .ipv4('10.0.2.254', CLIENT)
      .icmp({ type: 11 })
      .payload(quoted(CLIENT, 6000, '10.0.2.11', 5353));
    expect(describePacket(b.send(error).bytes)).toContain('IP 10.0.1.100 > 10.0.1.2: icmp error 11/0');
  });

  it('from the client’s side: the server sees itself quoted', () => {
    const error = frame()
      .ipv4(CLIENT, VIP, { tos: 192 })
      .icmp({ type: 3, code: 3 })
      .payload(quoted(VIP, 53, CLIENT, 6000));
    const o = b.send(error);
    expect(verifyFrame(o.bytes, { isIp: true })).toEqual([]);
    expect(`${o.verdict}: ${describePacket(o.bytes)}`).toBe(
      'reroute: IP 10.0.1.2 > 10.0.2.11: icmp error 3/3 { IP 10.0.2.11.5353 > 10.0.1.2.6000: udp len 3 (ttl 63 id 0 DF) } (ttl 63 id 0 tos 0xc0)',
    );
    expect(o.packet).toMatchObject({ outDevice: 2, ipvsProperty: 1 });
    expect(stats()).toMatchObject({ inPkts: 2, outPkts: 0, inBytes: 31 + 59 });
  });

  it('about TCP, with no more than 8 bytes quoted', () => {
    b.run(`-A -t ${VIP}:80 -s rr`, `-a -t ${VIP}:80 -r 10.0.2.11:80 -m`);
    b.send(tcpPacket(`${CLIENT}:7000`, `${VIP}:80`, 'S'));
    const cause = tcpPacket(`${CLIENT}:7000`, '10.0.2.11:80', 'S').build().slice(0, 28);
    const o = b.send(frame().ipv4('10.0.2.254', CLIENT).icmp({ type: 3, code: 1 }).payload(cause));
    expect(verifyFrame(o.bytes, { isIp: true })).toEqual([]);
    expect(describePacket(o.bytes.slice(28))).toContain('IP 10.0.1.2.7000 > 10.0.1.100.80');
  });

  it('born here on the way out of LOCAL_OUT (host unreachable for a server that does not answer ARP)', () => {
    const error = frame()
      .ipv4('10.0.1.1', CLIENT)
      .icmp({ type: 3, code: 1 })
      .payload(quoted(CLIENT, 6000, '10.0.2.11', 5353));
    const o = b.send(error, { isLocalOut: true });
    expect(`${o.verdict}: ${describePacket(o.bytes)}`).toContain('accept: IP 10.0.1.100 > 10.0.1.2: icmp error 3/1');
  });

  it('does not renew the connection', () => {
    b.wait(100);
    b.send(
      frame()
        .ipv4('10.0.2.11', CLIENT)
        .icmp({ type: 3, code: 3 })
        .payload(quoted(CLIENT, 6000, '10.0.2.11', 5353)),
    );
    expect(b.connections()).toEqual(['udp 200 UDP 10.0.1.2:6000 10.0.1.100:53 10.0.2.11:5353']);
  });

  it('drops one of ours whose checksum is wrong', () => {
    for (const [from, to, inner] of [
      ['10.0.2.11', CLIENT, quoted(CLIENT, 6000, '10.0.2.11', 5353)],
      [CLIENT, VIP, quoted(VIP, 53, CLIENT, 6000)],
    ] as const) {
      const o = b.send(frame().ipv4(from, to).icmp({ type: 3, code: 3, checksum: 1 }).payload(inner));
      expect(o).toMatchObject({ verdict: 'drop', drop: 'DirectorIcmpBad' });
    }
    expect(stats()).toMatchObject({ inPkts: 1, outPkts: 0 });
  });

  it('sends one with a wrong checksum on as it is where nothing is rewritten (recording icmp_in_kinds_dr)', () => {
    b.run('-A -u 10.0.1.101:53 -s rr', '-a -u 10.0.1.101:53 -r 10.0.2.11:53 -g -w 1');
    b.send(udpPacket(`${CLIENT}:6000`, '10.0.1.101:53'));
    const bad = frame()
      .ipv4(CLIENT, '10.0.1.101')
      .icmp({ type: 3, code: 3, checksum: 1 })
      .payload(quoted('10.0.1.101', 53, CLIENT, 6000));
    const before = bad.build();
    const o = b.send(bad);
    expect([o.verdict, o.bytes.slice(20)]).toEqual(['reroute', before.slice(20)]);
  });

  it('leaves alone what is no error, not about ours, or cut short', () => {
    const ours = quoted(CLIENT, 6000, '10.0.2.11', 5353);
    const others = [
      frame().ipv4('10.0.2.11', CLIENT).icmp({ type: 5 }).payload(ours),
      frame().ipv4('10.0.2.11', CLIENT).icmp({ type: 12 }).payload(ours),
      frame()
        .ipv4('10.0.2.11', CLIENT)
        .icmp({ type: 3 })
        .payload(quoted(CLIENT, 6001, '10.0.2.11', 5353)),
      frame().ipv4('10.0.2.11', CLIENT).icmp({ type: 3 }).payload(ours.slice(0, 23)),
      frame().ipv4('10.0.2.11', CLIENT).icmp({ type: 3 }).payload(ours.slice(0, 10)),
      frame()
        .ipv4('10.0.2.11', CLIENT)
        .icmp({ type: 3 })
        .payload(Uint8Array.from(ours, (byte, i) => (i === 0 ? 0x4f : byte))),
    ];
    for (const packet of others) {
      const before = packet.build();
      const o = b.send(before);
      expect(o.verdict).toBe('accept');
      expect(o.bytes).toEqual(before);
    }
  });

  it('drops what is shorter than an ICMP header', () => {
    for (const [from, to] of [
      ['10.0.2.11', CLIENT],
      [CLIENT, VIP],
    ] as const) {
      const cut = frame()
        .ipv4(from, to, { proto: 1 })
        .payload(Uint8Array.of(3, 3, 0, 0));
      expect(b.send(cut)).toMatchObject({ verdict: 'drop', drop: 'DirectorIcmpBad' });
    }
  });

  it('TTL 1 towards the server ends without an error about an error', () => {
    const o = b.send(
      frame()
        .ipv4(CLIENT, VIP, { ttl: 1 })
        .icmp({ type: 3, code: 3 })
        .payload(quoted(VIP, 53, CLIENT, 6000)),
    );
    expect(o).toMatchObject({ verdict: 'drop', drop: 'TtlExceeded', reject: '' });
  });
});
