/** Full NAT: golden packets both ways, errors about them, which local address and port a connection gets, and what does not go together. */
import { beforeEach, describe, expect, it } from 'vitest';
import { describePacket, frame, verifyFrame } from '../wire/build.ts';
import { Bench, CLIENT, type Outcome, sctpPacket, tcpPacket, udpPacket, VIP } from './test-rig.ts';

const LIP = '10.0.2.1';
const RIP = '10.0.2.11';

function sound(o: Outcome, partialChecksum = false): string {
  expect(verifyFrame(o.bytes, { isIp: true, partialChecksum })).toEqual([]);
  return `${o.verdict}: ${describePacket(o.bytes)}`;
}

/** The source of a packet that went to a server. */
function sourceOf(o: Outcome): string {
  return /IP (\S+) >/.exec(describePacket(o.bytes))![1]!;
}

let b: Bench;
const run = (...lines: string[]) => expect(b.run(...lines)).toEqual(lines.map(() => null));
const locals = (service = 0) => b.director.listServices(0, 10).rows[service]!.localAddresses;

describe('packets', () => {
  beforeEach(() => {
    b = new Bench();
    run(
      `-A -t ${VIP}:80 -s rr`,
      `-P -t ${VIP}:80 -z ${LIP}:5000-5999`,
      `-a -t ${VIP}:80 -r ${RIP}:8080 -b`,
      `-A -u ${VIP}:53 -s rr`,
      `-P -u ${VIP}:53 -z ${LIP}:5000-5999`,
      `-a -u ${VIP}:53 -r ${RIP}:5353 -b`,
    );
  });

  it('a request comes from the local address, its answer goes to the client', () => {
    const request = b.send(tcpPacket(`${CLIENT}:7000`, `${VIP}:80`, 'S'));
    expect(sound(request)).toBe(
      'reroute: IP 10.0.2.1.5000 > 10.0.2.11.8080: tcp [S] seq 0 ack 0 win 65535 len 0 (ttl 63 id 0 DF)',
    );
    expect(request.packet).toMatchObject({ outDevice: 2, mtu: 1500, ipvsProperty: 1 });
    const reply = b.send(tcpPacket(`${RIP}:8080`, `${LIP}:5000`, 'SA', 'hello'));
    expect(sound(reply)).toBe(
      'reroute: IP 10.0.1.100.80 > 10.0.1.2.7000: tcp [S.] seq 0 ack 0 win 65535 len 5 (ttl 63 id 0 DF)',
    );
    expect(reply.packet).toMatchObject({ outDevice: 1, mtu: 1500, ipvsProperty: 1 });
    expect(b.connections()).toEqual(['tcp 60 SYN_RECV 10.0.1.2:7000 10.0.1.100:80 10.0.2.11:8080']);
    const [row] = b.director.listConnections(0, 10).rows;
    expect(row!.local).toEqual({ address: LIP, port: 5000 });
    expect(b.director.listServices(0, 1).rows[0]!.stats).toMatchObject({ conns: 1, inPkts: 1, outPkts: 1 });
    expect(b.director.listServices(0, 1).rows[0]!.servers[0]).toMatchObject({ method: 'fullnat', activeConns: 1 });
  });

  it('UDP, where a checksum of 0 stays 0', () => {
    expect(sound(b.send(udpPacket(`${CLIENT}:6000`, `${VIP}:53`, 'who')))).toBe(
      'reroute: IP 10.0.2.1.5000 > 10.0.2.11.5353: udp len 3 (ttl 63 id 0 DF)',
    );
    expect(sound(b.send(udpPacket(`${RIP}:5353`, `${LIP}:5000`, 'rs1')))).toBe(
      'reroute: IP 10.0.1.100.53 > 10.0.1.2.6000: udp len 3 (ttl 63 id 0 DF)',
    );
    const bare = b.send(frame().ipv4(CLIENT, VIP).udp({ srcPort: 6000, dstPort: 53, checksum: 0 }).payload('who'));
    expect([bare.bytes[26], bare.bytes[27]]).toEqual([0, 0]);
  });

  it('SCTP gets its CRC anew', () => {
    run(`-A --sctp-service ${VIP}:9 -s rr`, `-P --sctp-service ${VIP}:9 -z ${LIP}`);
    run(`-a --sctp-service ${VIP}:9 -r ${RIP}:9 -b`);
    expect(sound(b.send(sctpPacket(`${CLIENT}:7000`, `${VIP}:9`, 1)))).toContain('IP 10.0.2.1.1025 > 10.0.2.11.9');
    expect(sound(b.send(sctpPacket(`${RIP}:9`, `${LIP}:1025`, 2)))).toContain('IP 10.0.1.100.9 > 10.0.1.2.7000');
  });

  it('keeps every checksum right, complete and partial, of super-packets too', () => {
    for (let i = 0; i < 2000; i++) {
      const data = `${i * 7919}`;
      const partialChecksum = (i & 1) === 1;
      const options = { partial: partialChecksum, gsoSize: i % 3 === 0 && partialChecksum ? 100 : 0 };
      const srcPort = 20000 + (i % 50);
      const tcp = frame().ipv4(CLIENT, VIP, { id: i }).tcp({ srcPort, dstPort: 80, flags: 'S', partialChecksum });
      const there = b.send(tcp.payload(data), options);
      sound(there, partialChecksum);
      const dstPort = Number(sourceOf(there).split('.')[4]);
      const back = frame().ipv4(RIP, LIP, { id: i }).tcp({ srcPort: 8080, dstPort, flags: 'SA', partialChecksum });
      const home = b.send(back.payload(data), options);
      sound(home, partialChecksum);
      expect(describePacket(home.bytes)).toContain(`10.0.1.100.80 > 10.0.1.2.${srcPort}:`);
    }
  });

  it('an answer may not be too long for the way to the client, nor too old, nor without a way', () => {
    b.send(tcpPacket(`${CLIENT}:7000`, `${VIP}:80`, 'S'));
    const old = frame().ipv4(RIP, LIP, { ttl: 1 }).tcp({ srcPort: 8080, dstPort: 5000, flags: 'SA' });
    expect(b.send(old)).toMatchObject({ verdict: 'drop', drop: 'TtlExceeded', reject: '11/0' });
    b.routing.backMtu = 9000;
    const long = b.send(tcpPacket(`${RIP}:8080`, `${LIP}:5000`, '.', 1600));
    expect(long).toMatchObject({ verdict: 'drop', drop: 'FragmentationNeeded', reject: '3/4 1500' });
    b.send(tcpPacket('10.0.1.3:7000', `${VIP}:80`, 'S'));
    b.routing.resolve = () => false;
    const lost = b.send(tcpPacket(`${RIP}:8080`, `${LIP}:5001`, 'SA'));
    expect(lost).toMatchObject({ verdict: 'drop', drop: 'DirectorNoClientRoute', reject: '3/1' });
    // Nothing of it was rewritten: the error goes to the server, and quotes its own packet.
    expect(describePacket(lost.bytes)).toContain('IP 10.0.2.11.8080 > 10.0.2.1.5001');
  });

  it('a server that goes on with what we do not know is told so, with nat_icmp_send', () => {
    expect(b.send(tcpPacket(`${RIP}:8080`, `${LIP}:5000`, '.')).verdict).toBe('accept');
    b.director.sysctls.set('nat_icmp_send', '1');
    expect(b.send(tcpPacket(`${RIP}:8080`, `${LIP}:5000`, '.'))).toMatchObject({
      drop: 'DirectorNoConnection',
      reject: '3/3',
    });
  });
});

describe('ICMP errors', () => {
  const quoted = (from: string, fromPort: number, to: string, toPort: number) =>
    frame().ipv4(from, to, { ttl: 63, df: true }).udp({ srcPort: fromPort, dstPort: toPort }).payload('who').build();

  beforeEach(() => {
    b = new Bench();
    run(`-A -u ${VIP}:53 -s rr`, `-P -u ${VIP}:53 -z ${LIP}:5000-5999`, `-a -u ${VIP}:53 -r ${RIP}:5353 -b`);
    b.send(udpPacket(`${CLIENT}:6000`, `${VIP}:53`, 'who'));
  });

  it.each([
    ['the server', RIP],
    ['a router before it', '10.0.2.254'],
  ])('of %s: the client sees the service, and its own packet', (_who, from) => {
    const error = frame()
      .ipv4(from, LIP)
      .icmp({ type: 3, code: 3 })
      .payload(quoted(LIP, 5000, RIP, 5353));
    const o = b.send(error);
    expect(sound(o)).toBe(
      'reroute: IP 10.0.1.100 > 10.0.1.2: icmp error 3/3 { IP 10.0.1.2.6000 > 10.0.1.100.53: udp len 3 (ttl 63 id 0 DF) } (ttl 63 id 0)',
    );
    expect(o.packet).toMatchObject({ outDevice: 1, ipvsProperty: 1 });
  });

  it('of the client: the server sees the local address, and its own packet', () => {
    const error = frame()
      .ipv4(CLIENT, VIP)
      .icmp({ type: 3, code: 3 })
      .payload(quoted(VIP, 53, CLIENT, 6000));
    const o = b.send(error);
    expect(sound(o)).toBe(
      'reroute: IP 10.0.2.1 > 10.0.2.11: icmp error 3/3 { IP 10.0.2.11.5353 > 10.0.2.1.5000: udp len 3 (ttl 63 id 0 DF) } (ttl 63 id 0)',
    );
    expect(o.packet).toMatchObject({ outDevice: 2, ipvsProperty: 1 });
  });

  it('a wrong checksum is not made right', () => {
    const error = frame()
      .ipv4(RIP, LIP)
      .icmp({ type: 3, code: 3 })
      .payload(quoted(LIP, 5000, RIP, 5353))
      .build();
    error[error.length - 1]! ^= 1;
    expect(b.send(error)).toMatchObject({ verdict: 'drop', drop: 'DirectorIcmpBad' });
  });
});

describe('the choice of an address and a port', () => {
  const syn = (i: number, vip = `${VIP}:80`) =>
    b.send(tcpPacket(`10.0.1.${2 + (i >> 14)}:${1024 + (i & 0x3fff)}`, vip, 'S'));

  beforeEach(() => {
    b = new Bench();
    run(`-A -t ${VIP}:80 -s rr`);
  });

  it('goes round the addresses, and each takes its ports in turn', () => {
    b.routing.locals.add(0x0a000202 as never);
    run(`-P -t ${VIP}:80 -z ${LIP}:100-199`, `-P -t ${VIP}:80 -z 10.0.2.2:200-299`);
    run(`-E -t ${VIP}:80 -s wlc`, `-a -t ${VIP}:80 -r ${RIP} -b`);
    expect([0, 1, 2, 3].map((i) => sourceOf(syn(i)))).toEqual([
      '10.0.2.2.200',
      '10.0.2.1.100',
      '10.0.2.2.201',
      '10.0.2.1.101',
    ]);
    expect(locals()).toMatchObject([
      { address: LIP, ports: { from: 100, to: 199 }, conns: 2, conflicts: 0 },
      { address: '10.0.2.2', ports: { from: 200, to: 299 }, conns: 2, conflicts: 0 },
    ]);
  });

  it('one address and 100 ports: a port has one connection a server; when all are taken that has a name; they come back', () => {
    run(`-P -t ${VIP}:80 -z ${LIP}:5000-5099`, `-a -t ${VIP}:80 -r ${RIP} -b`);
    const used = new Set<string>();
    for (let i = 0; i < 100; i++) used.add(sourceOf(syn(i)));
    expect(used.size).toBe(100);
    for (let i = 100; i < 200; i++) {
      expect(syn(i)).toMatchObject({ verdict: 'drop', drop: 'DirectorNoLocalPort', reject: '' });
    }
    expect(b.director.conns.count).toBe(100);
    // Towards another server all ports are free.
    run(`-a -t ${VIP}:80 -r 10.0.2.12 -b`, `-e -t ${VIP}:80 -r ${RIP} -b -w 0`);
    const others = new Set<string>();
    for (let i = 200; i < 300; i++) others.add(sourceOf(syn(i)));
    expect([...others].sort()).toEqual([...used].sort());
    expect(locals()![0]).toMatchObject({ conns: 200 });
    b.wait(130);
    expect([b.director.conns.count, b.flows.size, locals()![0]!.conns]).toEqual([0, 0, 0]);
    expect(syn(300).verdict).toBe('reroute');
  });

  it('thousands through one address: no tuple twice, nearly every port is found, and each quickly', () => {
    b = new Bench({ maxConnections: 65536 });
    run(`-A -t ${VIP}:80 -s rr`, `-P -t ${VIP}:80 -z ${LIP}:10000-29999`, `-a -t ${VIP}:80 -r ${RIP} -b`);
    const used = new Set<string>();
    let last = 0;
    for (; last < 25000; last++) {
      const o = syn(last);
      if (o.verdict === 'drop') {
        expect(o.drop).toBe('DirectorNoLocalPort');
        break;
      }
      used.add(sourceOf(o));
    }
    expect(used.size).toBe(last);
    expect(last).toBe(20000);
    // In turn, each was free when it was asked for: but the last, whose search was long.
    expect(locals()![0]!.conflicts).toBe(256);
  });

  it('with a tenth of the ports free, few looks find one', () => {
    b = new Bench({ maxConnections: 65536 });
    run(`-A -t ${VIP}:80 -s rr`, `-P -t ${VIP}:80 -z ${LIP}:10000-19999`, `-a -t ${VIP}:80 -r ${RIP} -b`);
    for (let i = 0; i < 10000; i++) syn(i);
    const before = locals()![0]!.conflicts;
    // A stretch of the range becomes free, far from the port whose turn it is; nine tenths of it are taken again.
    for (let conn = 4000; conn < 5000; conn++) b.director.expire(conn);
    for (let i = 10000; i < 10900; i++) expect(syn(i).verdict).toBe('reroute');
    expect(new Set(b.director.listConnections(0, 20000).rows.map((row) => row.local!.port)).size).toBe(9900);
    expect(locals()![0]!.conflicts - before).toBeLessThan(900 * 40);
  });

  it('does without: no pool, and an address that is not ours any more', () => {
    run(`-a -t ${VIP}:80 -r ${RIP} -b`);
    expect(syn(0)).toMatchObject({ verdict: 'drop', drop: 'DirectorNoLocalAddress', reject: '' });
    run(`-P -t ${VIP}:80 -z ${LIP}`);
    expect(sourceOf(syn(1))).toBe('10.0.2.1.1025');
    b.routing.locals.clear();
    b.routing.locals.add(0x0a000164 as never);
    expect(syn(2)).toMatchObject({ verdict: 'drop', drop: 'DirectorNoLocalAddress' });
    expect(b.director.conns.count).toBe(1);
  });

  it('an address that is taken out keeps its connections', () => {
    run(`-P -t ${VIP}:80 -z ${LIP}`, `-a -t ${VIP}:80 -r ${RIP} -b`);
    syn(0);
    run(`-Q -t ${VIP}:80 -z ${LIP}`);
    expect(locals()).toBeUndefined();
    expect(sound(b.send(tcpPacket(`${RIP}:80`, `${LIP}:1025`, 'SA')))).toContain('IP 10.0.1.100.80 > 10.0.1.2.1024');
    expect(syn(1).drop).toBe('DirectorNoLocalAddress');
    // It begins anew, and takes no port that is still in use.
    run(`-P -t ${VIP}:80 -z ${LIP}`);
    expect(sourceOf(syn(2))).not.toBe('10.0.2.1.1025');
    expect(locals()).toMatchObject([{ conns: 1, conflicts: 1 }]);
    b.wait(130);
    expect([b.director.conns.count, locals()![0]!.conns]).toEqual([0, 0]);
    run(`-D -t ${VIP}:80`);
    expect([b.director.locals.room, b.director.locals.isEmpty(0)]).toEqual([65536, true]);
  });

  it('an address that gets other ports keeps its place, and its connections theirs', () => {
    b.routing.locals.add(0x0a000202 as never);
    run(`-P -t ${VIP}:80 -z ${LIP}`, `-P -t ${VIP}:80 -z 10.0.2.2`, `-a -t ${VIP}:80 -r ${RIP} -b`);
    syn(0);
    syn(1);
    const edit = (from: number, to: number, address = LIP) =>
      b.director.execute([
        {
          op: 'edit-local-address',
          service: { kind: 'address', protocol: 'tcp', address: VIP, port: 80 },
          local: { address, ports: { from, to } },
        },
      ]);
    const port = b.director.listConnections(0, 10).rows.find((row) => row.local!.address === LIP)!.local!.port;
    expect(edit(1025, 65535)).toEqual([null]);
    expect(locals()).toMatchObject([
      { address: LIP, conns: 1 },
      { address: '10.0.2.2', conns: 1 },
    ]);
    expect(edit(7000, 7000)).toEqual([null]);
    expect(locals()).toMatchObject([
      { address: LIP, ports: { from: 7000, to: 7000 }, conns: 0 },
      { address: '10.0.2.2' },
    ]);
    expect(edit(1, 2, '10.0.1.1')).toEqual(['ENOENT']);
    expect(sound(b.send(tcpPacket(`${RIP}:80`, `${LIP}:${port}`, 'SA')))).toContain('IP 10.0.1.100.80 >');
    expect([syn(2), syn(3)].map(sourceOf)).toContain('10.0.2.1.7000');
    // A second one finds no other port there, and goes to the other address.
    expect([syn(4), syn(5)].map(sourceOf)).toEqual([
      expect.stringMatching(/^10\.0\.2\.2\./),
      expect.stringMatching(/^10\.0\.2\.2\./),
    ]);
  });

  it('persistence: a client keeps its server, each connection has a port of its own', () => {
    run(`-E -t ${VIP}:80 -s rr -p 60`, `-P -t ${VIP}:80 -z ${LIP}`);
    run(`-a -t ${VIP}:80 -r ${RIP} -b`, `-a -t ${VIP}:80 -r 10.0.2.12 -b`);
    const lines = [0, 1, 2].map((i) => sound(syn(i)));
    expect(new Set(lines.map((line) => /> (\S+):/.exec(line)![1])).size).toBe(1);
    expect(new Set(lines.map((line) => /IP (\S+) >/.exec(line)![1])).size).toBe(3);
    expect(b.director.listConnections(0, 10).rows.filter((row) => row.local === undefined)).toHaveLength(1);
  });

  it('a service of all ports, and one by mark, give the server the port that the client asked for', () => {
    run(`-A -t 10.0.1.101:0 -s rr -p 60`, `-P -t 10.0.1.101:0 -z ${LIP}`, `-a -t 10.0.1.101:0 -r ${RIP}:0 -b`);
    expect(sound(syn(0, '10.0.1.101:8443'))).toContain('IP 10.0.2.1.1025 > 10.0.2.11.8443');
    run('-A -f 7 -s rr', `-P -f 7 -z ${LIP}`, `-a -f 7 -r ${RIP}:0 -b`);
    const marked = b.send(udpPacket(`${CLIENT}:9`, '10.0.1.102:99'), { mark: 7 });
    expect(sound(marked)).toContain('IP 10.0.2.1.1025 > 10.0.2.11.99');
  });
});

describe('commands', () => {
  beforeEach(() => {
    b = new Bench();
    run(`-A -t ${VIP}:80 -s rr`, `-A -u ${VIP}:53 -s rr -o`, `-A -t ${VIP}:21 -s rr`);
  });

  it.each([
    ['an address that is not ours', `-P -t ${VIP}:80 -z 10.0.2.9`, 'EADDRNOTAVAIL'],
    ['one of loopback', `-P -t ${VIP}:80 -z 127.0.0.1`, 'EADDRNOTAVAIL'],
    ['no address', `-P -t ${VIP}:80 -z 10.0.2`, 'EINVAL'],
    ['no ports', `-P -t ${VIP}:80 -z ${LIP}:9-8`, 'EINVAL'],
    ['port 0', `-P -t ${VIP}:80 -z ${LIP}:0-8`, 'EINVAL'],
    ['no service', `-P -t ${VIP}:81 -z ${LIP}`, 'ESRCH'],
    ['a device that is not there', `-P -t ${VIP}:80 -z ${LIP} -F nowhere`, 'ENODEV'],
    ['what is not in the pool', `-Q -t ${VIP}:80 -z ${LIP}`, 'ENOENT'],
    ['of no service', `-Q -t ${VIP}:81 -z ${LIP}`, 'ESRCH'],
    ['full NAT with one packet a connection', `-a -u ${VIP}:53 -r ${RIP} -b`, 'EOPNOTSUPP'],
    ['full NAT and FTP', `-a -t ${VIP}:21 -r ${RIP} -b`, 'EOPNOTSUPP'],
  ])('%s is refused', (_what, line, errno) => {
    expect(b.run(line)).toEqual([errno]);
    expect(locals()).toBeUndefined();
  });

  it('an address twice, and one-packet scheduling later, are refused', () => {
    run(`-P -t ${VIP}:80 -z ${LIP}`);
    expect(b.run(`-P -t ${VIP}:80 -z ${LIP}:1-2`)).toEqual(['EEXIST']);
    run(`-A -u ${VIP}:99 -s rr`, `-a -u ${VIP}:99 -r ${RIP} -b`);
    expect(b.run(`-E -u ${VIP}:99 -s rr -o`)).toEqual(['EOPNOTSUPP']);
    run(`-a -t ${VIP}:21 -r ${RIP} -m`);
    expect(b.run(`-e -t ${VIP}:21 -r ${RIP} -b`)).toEqual(['EOPNOTSUPP']);
  });

  it('a connection keeps the method that it began with', () => {
    run(`-P -t ${VIP}:80 -z ${LIP}`, `-a -t ${VIP}:80 -r ${RIP} -m`);
    b.send(tcpPacket(`${CLIENT}:7000`, `${VIP}:80`, 'S'));
    run(`-e -t ${VIP}:80 -r ${RIP} -b`);
    expect(sourceOf(b.send(tcpPacket(`${CLIENT}:7000`, `${VIP}:80`, '.')))).toBe('10.0.1.2.7000');
    expect(sourceOf(b.send(tcpPacket(`${CLIENT}:7001`, `${VIP}:80`, 'S')))).toBe('10.0.2.1.1025');
    run(`-e -t ${VIP}:80 -r ${RIP} -m`);
    expect(sourceOf(b.send(tcpPacket(`${CLIENT}:7001`, `${VIP}:80`, '.')))).toBe('10.0.2.1.1025');
  });

  it('is never tracked, whatever net.ipv4.vs.conntrack says', () => {
    b.director.sysctls.set('conntrack', '1');
    run(`-P -t ${VIP}:80 -z ${LIP}`, `-a -t ${VIP}:80 -r ${RIP} -b`);
    b.send(tcpPacket(`${CLIENT}:7000`, `${VIP}:80`, 'S'));
    expect(b.director.conns.rows[5]! & 0x8000).toBe(0);
  });
});
