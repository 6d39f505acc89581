/** Golden packets of masquerading: what goes in, what comes out, every checksum verified. Addresses and cases are those of the recordings. */
import { beforeEach, describe, expect, it } from 'vitest';
import { describePacket, frame, verifyFrame } from '../wire/build.ts';
import { Bench, CLIENT, type Outcome, tcpPacket, udpPacket, VIP } from './test-rig.ts';

function sound(o: Outcome, partialChecksum = false): string {
  expect(verifyFrame(o.bytes, { isIp: true, partialChecksum })).toEqual([]);
  return `${o.verdict}: ${describePacket(o.bytes)}`;
}

describe('NAT', () => {
  let b: Bench;
  beforeEach(() => {
    b = new Bench();
    expect(
      b.run(
        `-A -t ${VIP}:80 -s rr`,
        `-a -t ${VIP}:80 -r 10.0.2.11:8080 -m`,
        `-A -u ${VIP}:53 -s rr`,
        `-a -u ${VIP}:53 -r 10.0.2.11:5353 -m`,
      ),
    ).toEqual([null, null, null, null]);
  });

  it('a request gets the server address and port, one hop less; the answer gets the service back', () => {
    const request = b.send(tcpPacket(`${CLIENT}:7000`, `${VIP}:80`, 'S'));
    expect(sound(request)).toBe(
      'reroute: IP 10.0.1.2.7000 > 10.0.2.11.8080: tcp [S] seq 0 ack 0 win 65535 len 0 (ttl 63 id 0 DF)',
    );
    expect(request.packet).toMatchObject({ outDevice: 2, mtu: 1500, ipvsProperty: 1 });
    const reply = b.send(tcpPacket('10.0.2.11:8080', `${CLIENT}:7000`, 'SA', 'hello'));
    expect(sound(reply)).toBe(
      'accept: IP 10.0.1.100.80 > 10.0.1.2.7000: tcp [S.] seq 0 ack 0 win 65535 len 5 (ttl 64 id 0 DF)',
    );
    expect(b.connections()).toEqual(['tcp 60 SYN_RECV 10.0.1.2:7000 10.0.1.100:80 10.0.2.11:8080']);
  });

  it('UDP both ways, and a checksum of 0 stays 0', () => {
    expect(sound(b.send(udpPacket(`${CLIENT}:6000`, `${VIP}:53`, 'who')))).toBe(
      'reroute: IP 10.0.1.2.6000 > 10.0.2.11.5353: udp len 3 (ttl 63 id 0 DF)',
    );
    expect(sound(b.send(udpPacket('10.0.2.11:5353', `${CLIENT}:6000`, 'rs1')))).toBe(
      'accept: IP 10.0.1.100.53 > 10.0.1.2.6000: udp len 3 (ttl 64 id 0 DF)',
    );
    const bare = b.send(frame().ipv4(CLIENT, VIP).udp({ srcPort: 6000, dstPort: 53, checksum: 0 }).payload('who'));
    expect([bare.bytes[26], bare.bytes[27]]).toEqual([0, 0]);
    expect(b.connections()).toEqual(['udp 300 UDP 10.0.1.2:6000 10.0.1.100:53 10.0.2.11:5353']);
  });

  it('keeps every checksum right, complete and partial, whatever it was', () => {
    for (let i = 0; i < 3000; i++) {
      const data = `${i * 7919}`;
      const partialChecksum = (i & 1) === 1;
      const port = 20000 + (i % 50);
      const udp = frame().ipv4(CLIENT, VIP, { id: i }).udp({ srcPort: port, dstPort: 53, partialChecksum });
      sound(b.send(udp.payload(data), { partial: partialChecksum }), partialChecksum);
      const back = frame().ipv4('10.0.2.11', CLIENT, { id: i }).udp({ srcPort: 5353, dstPort: port, partialChecksum });
      sound(b.send(back.payload(data), { partial: partialChecksum }), partialChecksum);
      const tcp = frame().ipv4(CLIENT, VIP, { id: i }).tcp({ srcPort: port, dstPort: 80, flags: 'S', partialChecksum });
      sound(b.send(tcp.payload(data), { partial: partialChecksum }), partialChecksum);
    }
  });

  it('never sends a UDP checksum of 0 where there was one', () => {
    // Walk the payload until the complete checksum would come out as 0 after translation.
    let seen = 0;
    for (let i = 0; i < 65536 && seen === 0; i++) {
      const word = Uint8Array.of(i >> 8, i & 255);
      const o = b.send(frame().ipv4(CLIENT, VIP).udp({ srcPort: 6000, dstPort: 53 }).payload(word));
      if (o.bytes[26] === 0xff && o.bytes[27] === 0xff) {
        seen++;
        sound(o);
      }
      expect((o.bytes[26]! << 8) | o.bytes[27]!).not.toBe(0);
    }
    expect(seen).toBe(1);
  });

  it('TTL 1 dies here, counted and remembered; TTL 2 passes', () => {
    const dying = b.send(frame().ipv4(CLIENT, VIP, { ttl: 1 }).udp({ srcPort: 20001, dstPort: 53 }).payload('who'));
    expect(dying).toMatchObject({ verdict: 'drop', drop: 'TtlExceeded', reject: '11/0' });
    // The quoted packet is the one that came.
    expect(describePacket(dying.bytes)).toContain('10.0.1.2.20001 > 10.0.1.100.53: udp len 3 (ttl 1');
    const passing = b.send(frame().ipv4(CLIENT, VIP, { ttl: 2 }).udp({ srcPort: 20002, dstPort: 53 }).payload('who'));
    expect(sound(passing)).toContain('ttl 1');
    expect(b.connections()).toEqual([
      'udp 300 UDP 10.0.1.2:20001 10.0.1.100:53 10.0.2.11:5353',
      'udp 300 UDP 10.0.1.2:20002 10.0.1.100:53 10.0.2.11:5353',
    ]);
  });

  it('too long with DF: fragmentation needed with the MTU; without DF, or as a super-packet of short segments, it passes', () => {
    b.routing.backMtu = 1400;
    b.routing.generation++;
    const refused = b.send(udpPacket(`${CLIENT}:6000`, `${VIP}:53`, 1400));
    expect(refused).toMatchObject({ verdict: 'drop', drop: 'FragmentationNeeded', reject: '3/4 1400' });
    expect(b.send(udpPacket(`${CLIENT}:6000`, `${VIP}:53`, 1372)).verdict).toBe('reroute');
    const free = frame().ipv4(CLIENT, VIP).udp({ srcPort: 6000, dstPort: 53 }).payload(1400);
    expect(b.send(free).verdict).toBe('reroute');
    const tcp = () => tcpPacket(`${CLIENT}:7000`, `${VIP}:80`, 'S', 5000);
    expect(b.send(tcp(), { gsoSize: 1360 }).verdict).toBe('reroute');
    expect(b.send(tcp(), { gsoSize: 1361 })).toMatchObject({ verdict: 'drop', reject: '3/4 1400' });
  });

  it('a server of ours gets the translated packet through our own stack', () => {
    b.run(`-A -t 10.0.1.101:80 -s rr`, `-a -t 10.0.1.101:80 -r 10.0.2.1:80 -m`);
    const o = b.send(tcpPacket(`${CLIENT}:7000`, '10.0.1.101:80', 'S'));
    expect(sound(o)).toContain('accept: IP 10.0.1.2.7000 > 10.0.2.1.80: tcp [S]');
    expect(sound(o)).toContain('ttl 64');
    const reply = b.send(tcpPacket('10.0.2.1:80', `${CLIENT}:7000`, 'SA'), { isLocalOut: true });
    expect(sound(reply)).toContain('accept: IP 10.0.1.101.80 > 10.0.1.2.7000');
    // Its answer is no request of its own, though it goes to a client that is balanced.
    expect(b.connections()).toHaveLength(1);
  });

  it('a server without a route: host unreachable', () => {
    b.run('-A -t 10.0.1.102:80 -s rr', '-a -t 10.0.1.102:80 -r 192.0.2.1:80 -m');
    expect(b.send(tcpPacket(`${CLIENT}:7000`, '10.0.1.102:80', 'S'))).toMatchObject({
      verdict: 'drop',
      drop: 'DirectorNoRoute',
      reject: '3/1',
    });
  });

  it('asks routing again when routes changed', () => {
    const packet = () => tcpPacket(`${CLIENT}:7000`, `${VIP}:80`, 'S');
    expect(b.send(packet()).packet.mtu).toBe(1500);
    b.routing.backMtu = 1300;
    expect(b.send(packet()).packet.mtu).toBe(1500);
    b.routing.generation++;
    expect(b.send(packet()).packet.mtu).toBe(1300);
  });

  it('leaves alone what is not its own', () => {
    const others = [
      tcpPacket(`${CLIENT}:7000`, `${VIP}:81`, 'S'),
      tcpPacket(`${CLIENT}:7000`, `${VIP}:80`, '.'),
      tcpPacket(`${CLIENT}:7000`, `${VIP}:80`, 'SR'),
      tcpPacket(`${CLIENT}:20`, `${VIP}:80`, 'S'),
      tcpPacket('10.0.2.11:8080', '10.0.1.9:7000', 'SA'),
      frame().ipv4(CLIENT, VIP).icmp({ type: 8 }).payload('ping'),
    ];
    for (const packet of others) {
      const before = packet.build();
      const o = b.send(before);
      expect([o.verdict, describePacket(o.bytes)]).toEqual(['accept', describePacket(before)]);
      expect(o.bytes).toEqual(before);
    }
    const broadcast = b.send(udpPacket(`${CLIENT}:6000`, `${VIP}:53`), { pktType: 1 });
    expect(broadcast.verdict).toBe('accept');
    expect(b.flows.size).toBe(0);
  });

  it('drops broken transport headers that would be its own, under their names', () => {
    const short = frame()
      .ipv4(CLIENT, VIP, { proto: 6 })
      .payload(Uint8Array.of(0x1b, 0x58, 0, 80, 0, 0));
    expect(b.send(short)).toMatchObject({ verdict: 'drop', drop: 'TcpTooShort' });
    const other = frame()
      .ipv4(CLIENT, VIP, { proto: 6 })
      .payload(Uint8Array.of(0x1b, 0x58, 0, 81, 0, 0));
    expect(b.send(other).verdict).toBe('accept');
    expect(b.send(frame().ipv4(CLIENT, VIP, { proto: 17 }).payload('x')).verdict).toBe('accept');
    const udp = frame().ipv4(CLIENT, VIP).udp({ srcPort: 6000, dstPort: 53, length: 99 }).payload('who');
    expect(b.send(udp)).toMatchObject({ verdict: 'drop', drop: 'UdpBadLength' });
  });

  it('two services of one server share an answer tuple: the newest has it, the older gets it back', () => {
    b.run('-A -t 10.0.1.101:80 -s rr', '-a -t 10.0.1.101:80 -r 10.0.2.11:8080 -m');
    const answer = () => sound(b.send(tcpPacket('10.0.2.11:8080', `${CLIENT}:7000`, 'R')));
    b.send(tcpPacket(`${CLIENT}:7000`, `${VIP}:80`, 'S'));
    b.send(tcpPacket(`${CLIENT}:7000`, '10.0.1.101:80', 'S'));
    expect(answer()).toContain('IP 10.0.1.101.80 >');
    b.wait(12);
    expect(b.connections()).toEqual(['tcp 48 SYN_RECV 10.0.1.2:7000 10.0.1.100:80 10.0.2.11:8080']);
    expect(answer()).toContain('IP 10.0.1.100.80 >');
    b.wait(12);
    expect(b.flows.size).toBe(0);
  });
});
