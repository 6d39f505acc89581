import { describe, expect, it } from 'vitest';
import { describeFrame, frame } from '../wire/build.ts';
import { MAC, Rig } from './rig.ts';

const request = (target: string, sender = '10.0.1.9', senderMac: string = MAC.client) =>
  frame().eth(MAC.all, senderMac).arp({ op: 'request', senderMac, sender, target }).pad(60).build();
const reply = (sender: string, senderMac: string, to: string = MAC.front) =>
  frame().eth(to, senderMac).arp({ op: 'reply', senderMac, sender, targetMac: MAC.front, target: '10.0.1.1' }).build();
const udpTo = (dst: string) => frame().eth(MAC.back, MAC.server).ipv4('10.0.2.2', dst).udp({ srcPort: 1, dstPort: 2 });
const NEW = '02:00:00:00:00:77';

function stateOf(rig: Rig, address: string): string | undefined {
  return rig.control.listNeighbours().find((n) => n.address === address)?.state;
}

describe('ARP answers', () => {
  it('for our addresses, on any interface, and learns who asked', () => {
    const rig = new Rig();
    rig.run({ op: 'addr-add', device: 'lo', address: '10.0.1.100', prefixLength: 32 });
    rig.send(rig.front, request('10.0.1.1'));
    rig.send(rig.front, request('10.0.1.100'));
    rig.send(rig.front, request('10.0.2.1'));
    rig.send(rig.front, request('10.0.1.77'));
    expect(rig.out(rig.front)).toEqual(
      ['10.0.1.1', '10.0.1.100', '10.0.2.1'].map(
        (ip) => `${MAC.front} > ${MAC.client} ARP ${ip} is-at ${MAC.front} to 10.0.1.9`,
      ),
    );
    expect(stateOf(rig, '10.0.1.9')).toBe('STALE');
    // The fourth refreshes the neighbour, but is not answered.
    expect(rig.drops()).toEqual({ ArpAnswered: 3, ArpLearned: 1 });
    expect(rig.unaccounted()).toBe(0);
  });

  it('a probe (no sender address) is answered and teaches nothing', () => {
    const rig = new Rig();
    rig.send(rig.front, request('10.0.1.1', '0.0.0.0'));
    expect(rig.out(rig.front)).toHaveLength(1);
    expect(rig.control.listNeighbours().map((n) => n.address)).not.toContain('0.0.0.0');
  });

  it('one who claims our own address is not answered', () => {
    const rig = new Rig();
    rig.send(rig.front, request('10.0.1.1', '10.0.1.1'));
    expect(rig.out(rig.front)).toEqual([]);
    expect(rig.drops()).toEqual({ ArpIgnored: 1 });
  });

  it.each([
    [0, ['10.0.1.1', '10.0.2.1', '10.0.1.100'], 3],
    [1, ['10.0.1.1', '10.0.2.1', '10.0.1.100'], 1],
    [8, ['10.0.1.1', '10.0.2.1', '10.0.1.100'], 0],
  ])('arp_ignore %i', (value, targets, answers) => {
    const rig = new Rig();
    rig.run({ op: 'addr-add', device: 'lo', address: '10.0.1.100', prefixLength: 32 });
    rig.sysctl('net.ipv4.conf.all.arp_ignore', value);
    for (const target of targets) rig.send(rig.front, request(target));
    expect(rig.out(rig.front)).toHaveLength(answers);
  });

  it('arp_ignore 2 wants the sender in the network of the address', () => {
    const rig = new Rig();
    rig.sysctl('net.ipv4.conf.front.arp_ignore', 2);
    rig.send(rig.front, request('10.0.1.1', '10.0.7.7'));
    expect(rig.out(rig.front)).toEqual([]);
    rig.send(rig.front, request('10.0.1.1', '10.0.1.7'));
    expect(rig.out(rig.front)).toHaveLength(1);
  });

  it('malformed ARP has a name', () => {
    const rig = new Rig();
    rig.send(rig.front, frame().eth(MAC.all, MAC.client, 0x0806).payload(20).build());
    rig.send(
      rig.front,
      frame()
        .eth(MAC.all, MAC.client)
        .arp({ op: 9, senderMac: MAC.client, sender: '10.0.1.9', target: '10.0.1.1' })
        .build(),
    );
    expect(rig.drops()).toEqual({ ArpMalformed: 2 });
  });
});

describe('announcements', () => {
  it('an address that appears on a device is announced once; one of lo is not', () => {
    const rig = new Rig();
    rig.run({ op: 'addr-add', device: 'front', address: '10.0.1.50', prefixLength: 24 });
    rig.run({ op: 'addr-add', device: 'lo', address: '10.0.1.100', prefixLength: 32 });
    rig.flush();
    expect(rig.out(rig.front)).toEqual([`${MAC.front} > ${MAC.all} ARP who-has 10.0.1.50 tell 10.0.1.50`]);
    expect(rig.unaccounted()).toBe(0);
  });

  it('of others move a known neighbour, and make no new one', () => {
    const rig = new Rig();
    rig.send(rig.front, request('10.0.1.1', '10.0.1.9'));
    rig.out(rig.front);
    rig.send(rig.front, request('10.0.1.9', '10.0.1.9', NEW));
    rig.send(rig.front, request('10.0.1.8', '10.0.1.8', NEW));
    expect(rig.control.listNeighbours().find((n) => n.address === '10.0.1.9')).toMatchObject({
      mac: NEW,
      state: 'STALE',
    });
    expect(rig.control.listNeighbours().map((n) => n.address)).not.toContain('10.0.1.8');
    expect(rig.drops()).toEqual({ ArpAnswered: 1, ArpLearned: 1, ArpIgnored: 1 });
  });

  it('an answer moves one that nobody has moved for a second, or for months', () => {
    const rig = new Rig();
    const macNow = () => rig.control.listNeighbours().find((n) => n.address === '10.0.1.9')?.mac;
    rig.send(rig.front, request('10.0.1.1', '10.0.1.9'));
    rig.send(rig.front, reply('10.0.1.9', NEW));
    expect(macNow()).toBe(MAC.client);
    rig.pass(2);
    rig.send(rig.front, reply('10.0.1.9', NEW));
    expect(macNow()).toBe(NEW);
    for (let i = 0; i < 3; i++) {
      rig.clock.advance(2 ** 30);
      rig.pass(0.1);
    }
    rig.send(rig.front, reply('10.0.1.9', MAC.client));
    expect(macNow()).toBe(MAC.client);
  });

  it('do not move a neighbour that was set by hand', () => {
    const rig = new Rig();
    rig.run({ op: 'neigh-add', device: 'front', address: '10.0.1.9', mac: MAC.client });
    rig.send(rig.front, request('10.0.1.9', '10.0.1.9', NEW));
    rig.send(rig.front, reply('10.0.1.9', NEW));
    expect(rig.control.listNeighbours().find((n) => n.address === '10.0.1.9')).toMatchObject({
      mac: MAC.client,
      state: 'PERMANENT',
    });
  });
});

describe('resolution', () => {
  it('a packet waits for the answer, those behind it too, and all go in order', () => {
    const rig = new Rig();
    for (let i = 0; i < 3; i++) rig.send(rig.back, udpTo('10.0.1.9').payload(i).build());
    expect(rig.out(rig.front)).toEqual([`${MAC.front} > ${MAC.all} ARP who-has 10.0.1.9 tell 10.0.1.1`]);
    expect(rig.stack.stats.held).toBe(3);
    expect(rig.unaccounted()).toBe(0);
    rig.send(rig.front, reply('10.0.1.9', NEW));
    expect(rig.out(rig.front).map((line) => line.slice(20, 37) + /udp len \d/.exec(line)?.[0])).toEqual(
      [0, 1, 2].map((i) => `${NEW}udp len ${i}`),
    );
    expect(stateOf(rig, '10.0.1.9')).toBe('REACHABLE');
    expect(rig.stack.stats.held).toBe(0);
    expect(rig.unaccounted()).toBe(0);
  });

  it('it is asked again, and given up, on the very tick', () => {
    const rig = new Rig();
    rig.passTicks(10); // amid two looks at the states
    rig.send(rig.back, udpTo('10.0.1.9').build());
    expect(rig.out(rig.front)).toHaveLength(1);
    for (const expected of [1, 1, 0]) {
      rig.passTicks(249);
      expect(rig.out(rig.front)).toHaveLength(0);
      expect(rig.out(rig.back)).toHaveLength(0);
      rig.passTicks(1);
      expect(rig.out(rig.front)).toHaveLength(expected);
    }
    expect(rig.out(rig.back)).toHaveLength(1);
  });

  it('three questions a second apart, then host unreachable for each that waited; the next packet asks anew', () => {
    const rig = new Rig();
    rig.send(rig.back, udpTo('10.0.1.9').build());
    rig.send(rig.back, udpTo('10.0.1.9').build());
    expect(rig.out(rig.front)).toHaveLength(1);
    rig.pass(1);
    expect(rig.out(rig.front)).toHaveLength(1);
    rig.pass(1);
    expect(rig.out(rig.front)).toHaveLength(1);
    expect(rig.out(rig.back)).toEqual([]);
    rig.pass(1.1);
    expect(rig.out(rig.front)).toHaveLength(0);
    expect(rig.out(rig.back)).toEqual([
      expect.stringContaining('10.0.2.1 > 10.0.2.2: icmp error 3/1 { IP 10.0.2.2.1 > 10.0.1.9.2'),
      expect.stringContaining('icmp error 3/1'),
    ]);
    expect(stateOf(rig, '10.0.1.9')).toBe('FAILED');
    expect(rig.drops()).toEqual({ NeighbourFailed: 2 });
    rig.send(rig.back, udpTo('10.0.1.9').build());
    expect(rig.out(rig.front)).toHaveLength(1);
    expect(stateOf(rig, '10.0.1.9')).toBe('INCOMPLETE');
    expect(rig.unaccounted()).toBe(0);
  });

  it('the queue is bounded: the oldest goes, counted', () => {
    const rig = new Rig({ slots: 1024 });
    for (let i = 0; i < 110; i++) rig.send(rig.back, udpTo('10.0.1.9').build());
    expect(rig.stack.stats.held).toBe(101);
    expect(rig.drops()).toEqual({ NeighbourQueueFull: 9 });
    rig.run({ op: 'neigh-del', device: 'front', address: '10.0.1.9' });
    expect(rig.stack.stats.held).toBe(0);
    expect(rig.unaccounted()).toBe(0);
  });

  it('all queues together leave most of the pool free', () => {
    const rig = new Rig({ slots: 64 });
    for (let i = 2; i < 250; i++) rig.send(rig.back, udpTo(`10.0.1.${i + 1}`).build());
    expect(rig.stack.stats.held).toBe(16);
    expect(rig.pool.available).toBe(48);
    expect(rig.unaccounted()).toBe(0);
  });

  it('a used neighbour is confirmed: DELAY, a unicast question, REACHABLE again; an unused one goes STALE', () => {
    const rig = new Rig();
    rig.send(rig.back, udpTo('10.0.1.9').build());
    rig.send(rig.front, reply('10.0.1.9', NEW));
    rig.out(rig.front);
    rig.pass(46);
    expect(stateOf(rig, '10.0.1.9')).toBe('STALE');
    expect(rig.out(rig.front)).toEqual([]);
    rig.send(rig.back, udpTo('10.0.1.9').build());
    expect(rig.out(rig.front)).toHaveLength(1);
    expect(stateOf(rig, '10.0.1.9')).toBe('DELAY');
    rig.pass(5.2);
    expect(stateOf(rig, '10.0.1.9')).toBe('PROBE');
    expect(rig.out(rig.front)).toEqual([`${MAC.front} > ${NEW} ARP who-has 10.0.1.9 tell 10.0.1.1`]);
    rig.send(rig.front, reply('10.0.1.9', NEW));
    expect(stateOf(rig, '10.0.1.9')).toBe('REACHABLE');
  });

  it('one that answers no more fails after three unicast questions', () => {
    const rig = new Rig();
    rig.send(rig.front, request('10.0.1.1', '10.0.1.9'));
    rig.send(rig.back, udpTo('10.0.1.9').build());
    rig.pass(9);
    expect(stateOf(rig, '10.0.1.9')).toBe('FAILED');
    expect(rig.out(rig.front).filter((line) => line.includes('who-has'))).toHaveLength(3);
  });

  it('the table has a limit: failed and idle entries make room, live ones do not', () => {
    const rig = new Rig({ slots: 1024 });
    rig.sysctl('net.ipv4.neigh.default.gc_thresh3', 4);
    for (const i of [3, 4, 5]) rig.send(rig.back, udpTo(`10.0.1.${i}`).build());
    expect(rig.drops()).toEqual({ NeighbourTableFull: 1 });
    rig.pass(4);
    rig.send(rig.back, udpTo('10.0.1.6').build());
    expect(rig.drops()).toMatchObject({ NeighbourTableFull: 1 });
    expect(stateOf(rig, '10.0.1.6')).toBe('INCOMPLETE');
    expect(rig.unaccounted()).toBe(0);
  });

  it('a multicast next hop and a broadcast have their MAC without asking', () => {
    const rig = new Rig({ hostPort: true });
    rig.run({ op: 'route-add', route: { to: '224.0.0.0/4', device: 'front' } });
    rig.send(rig.host, frame().ipv4('10.0.3.2', '239.1.2.3').udp({ srcPort: 1, dstPort: 2 }).build());
    rig.send(rig.host, frame().ipv4('10.0.3.2', '10.0.1.255').udp({ srcPort: 1, dstPort: 2 }).build());
    const [multicast, broadcast] = rig.outBytes(rig.front).map(describeFrame);
    expect(multicast).toContain('> 01:00:5e:01:02:03 IP');
    expect(broadcast).toContain(`> ${MAC.all} IP`);
  });
});
