import { beforeEach, describe, expect, it } from 'vitest';
import { seconds } from '../base/clock.ts';
import { Status } from '../model/entry-status.ts';
import { type FrameBuilder, frame } from '../wire/build.ts';
import { createEntry } from './commands.ts';
import { Col, ENTRY_SHIFT } from './entries.ts';
import { CLIENT, CtRig, SERVER, tcpFrame as tcp } from './test-rig.ts';
import { Tuple } from './tuple.ts';

let rig: CtRig;
beforeEach(() => {
  rig = new CtRig();
});

const udp = (from: 'c' | 's', port = 4000) =>
  from === 'c'
    ? frame().ipv4(CLIENT, SERVER).udp({ srcPort: port, dstPort: 53 }).payload('?')
    : frame().ipv4(SERVER, CLIENT).udp({ srcPort: 53, dstPort: port }).payload('!');
const ORIGINAL = '10.1.0.2:40000>10.2.0.2:80 10.2.0.2:80>10.1.0.2:40000';

function open(): void {
  rig.send(tcp('c', 'S', 0));
  rig.send(tcp('s', 'S.', 0, 1));
  rig.send(tcp('c', '.', 1, 1));
  rig.told();
}

describe('TCP', () => {
  it('lives as the kernel says: states, events, timeouts', () => {
    expect(rig.send(tcp('c', 'S', 0))).toBe('NEW');
    expect(rig.told()).toEqual([`new protoinfo: SYN_SENT 120 ${ORIGINAL} UNREPLIED`]);
    expect(rig.send(tcp('s', 'S.', 0, 1))).toBe('ESTABLISHED/reply');
    expect(rig.told()).toEqual([`reply protoinfo: SYN_RECV 60 ${ORIGINAL}`]);
    expect(rig.send(tcp('c', '.', 1, 1))).toBe('ESTABLISHED');
    expect(rig.told()).toEqual([`assured protoinfo: ESTABLISHED 432000 ${ORIGINAL} ASSURED`]);
    rig.send(tcp('c', 'P.', 1, 1, { length: 10 }));
    expect(rig.list()).toEqual([`ESTABLISHED 300 ${ORIGINAL} ASSURED`]);
    rig.send(tcp('s', '.', 1, 11));
    expect(rig.list()).toEqual([`ESTABLISHED 432000 ${ORIGINAL} ASSURED`]);
    rig.send(tcp('c', 'F.', 11, 1));
    expect(rig.told()).toEqual([`protoinfo: FIN_WAIT 120 ${ORIGINAL} ASSURED`]);
    rig.send(tcp('s', 'F.', 1, 12));
    expect(rig.told()).toEqual([`protoinfo: LAST_ACK 30 ${ORIGINAL} ASSURED`]);
    rig.send(tcp('c', '.', 12, 2));
    expect(rig.told()).toEqual([`protoinfo: TIME_WAIT 120 ${ORIGINAL} ASSURED`]);
    rig.wait(150);
    expect(rig.told()).toEqual([`destroy: TIME_WAIT 0 ${ORIGINAL} ASSURED`]);
    expect([rig.ct.entries.count, rig.flows.size]).toEqual([0, 0]);
  });

  it('a refused connection leaves nothing, whatever the reset acknowledges', () => {
    rig.send(tcp('c', 'S', 0));
    rig.told();
    expect(rig.send(tcp('s', 'R.', 0, 1))).toBe('ESTABLISHED/reply');
    expect(rig.told()).toEqual([`destroy: CLOSE 120 ${ORIGINAL} UNREPLIED`]);
    expect([rig.ct.entries.count, rig.flows.size, rig.pool.available]).toEqual([0, 0, 4]);
  });

  it.each([
    ['data beyond the window', () => tcp('c', 'P.', 200_000, 1, { length: 5 }), 'INVALID'],
    ['an acknowledgment of what was never sent', () => tcp('c', '.', 1, 5000), 'INVALID'],
    ['old data', () => tcp('c', 'P.', -100_000, 1, { length: 5 }), 'ESTABLISHED'],
    ['a reset below what was acknowledged', () => tcp('c', 'R', -5), 'INVALID'],
    ['SYN and FIN at once', () => tcp('c', 'SF', 1), 'INVALID'],
    ['nothing at all', () => tcp('c', '', 1), 'INVALID'],
  ])('%s', (_, packet, state) => {
    open();
    rig.send(tcp('s', '.', 1, 1));
    expect(rig.send(packet())).toBe(state);
    expect(rig.list()).toEqual([`ESTABLISHED 432000 ${ORIGINAL} ASSURED`]);
  });

  it('one that was closed from either side is opened again by a SYN', () => {
    open();
    rig.send(tcp('c', 'F.', 1, 1));
    rig.send(tcp('s', 'F.', 1, 2));
    rig.send(tcp('c', '.', 2, 2));
    rig.told();
    expect(rig.send(tcp('c', 'S', 90_000))).toBe('NEW');
    expect(rig.told()).toEqual([
      `destroy: TIME_WAIT 120 ${ORIGINAL} ASSURED`,
      `new protoinfo: SYN_SENT 120 ${ORIGINAL} UNREPLIED`,
    ]);
    expect(rig.ct.entries.count).toBe(1);
  });

  it('is picked up in the middle, unless tcp_loose forbids it', () => {
    expect(rig.send(tcp('c', '.', 500, 700))).toBe('NEW');
    expect(rig.list()).toEqual([`ESTABLISHED 300 ${ORIGINAL} UNREPLIED`]);
    expect(rig.send(tcp('s', '.', 700, 500))).toBe('ESTABLISHED/reply');
    rig.ct.sysctls.set('net.netfilter.nf_conntrack_tcp_loose', '0');
    expect(rig.send(tcp('c', '.', 1, 1, { port: 41000 }))).toBe('INVALID');
    expect(rig.ct.entries.count).toBe(1);
  });
});

describe('UDP and ICMP', () => {
  it('a stream is one after two seconds with answers', () => {
    expect(rig.send(udp('c'))).toBe('NEW');
    expect(rig.send(udp('s'))).toBe('ESTABLISHED/reply');
    expect(rig.send(udp('c'))).toBe('ESTABLISHED');
    expect(rig.told().map((line) => line.split(':')[0])).toEqual(['new', 'reply']);
    rig.wait(2.5);
    rig.send(udp('c'));
    expect(rig.told()).toEqual(['assured: 120 10.1.0.2:4000>10.2.0.2:53 10.2.0.2:53>10.1.0.2:4000 ASSURED']);
  });

  it('a stream stays one though time comes round, and one that a command made is one at any time', () => {
    rig.ct.sysctls.udpStreamTimeout = 0x7fffffff;
    const pass = (ticks: number) => {
      rig.now = (rig.now + ticks) | 0;
      rig.ct.advance(rig.now);
    };
    rig.send(udp('c'));
    for (let i = 0; i < 6; i++) {
      rig.send(udp('s'));
      pass(i === 0 ? seconds(3) : 2 ** 29);
      rig.send(udp('c'));
      expect(rig.ct.entries.left(1, rig.now)).toBe(0x7fffffff);
    }
    expect(rig.now).toBeLessThan(0);
    const ports = { src: 4001, dst: 53 };
    const original = { src: '10.1.0.2', dst: '10.2.0.2', proto: 17, ports };
    const reply = { src: '10.2.0.2', dst: '10.1.0.2', proto: 17, ports: { src: 53, dst: 4001 } };
    const spec = { original, reply, timeoutSeconds: 50, status: Status.SeenReply };
    expect(createEntry(rig.ct, spec, () => {})).toBeNull();
    rig.send(frame().ipv4('10.1.0.2', '10.2.0.2').udp({ srcPort: 4001, dstPort: 53 }));
    expect(rig.ct.entries.left(2, rig.now)).toBe(0x7fffffff);
  });

  it('an error belongs to the connection that it is about, and only if it goes to the sender', () => {
    rig.send(udp('c'));
    const quoted = udp('c').build();
    const error = (dst: string, inner: Uint8Array) =>
      frame().ipv4(SERVER, dst).icmp({ type: 3, code: 3 }).payload(inner);
    expect(rig.send(error(CLIENT, quoted))).toBe('RELATED/reply');
    expect(rig.send(error(CLIENT, quoted.slice(0, 24)))).toBe('RELATED/reply');
    expect(rig.send(error(CLIENT, quoted.slice(0, 20)))).toBe('INVALID');
    expect(rig.send(error('10.1.0.9', quoted))).toBe('INVALID');
    expect(rig.send(error(CLIENT, udp('c', 4001).build()))).toBe('INVALID');
    expect(rig.ct.entries.count).toBe(1);
  });

  it('only requests begin something', () => {
    const icmp = (type: number) => frame().ipv4(CLIENT, SERVER).icmp({ type, id: 7, seq: 1 });
    expect([8, 13, 15, 17].map((type) => rig.send(icmp(type)))).toEqual(['NEW', 'NEW', 'NEW', 'NEW']);
    expect([0, 14, 9, 30].map((type) => rig.send(icmp(type)))).toEqual(['INVALID', 'INVALID', 'INVALID', 'INVALID']);
    const answer = frame().ipv4(SERVER, CLIENT).icmp({ type: 0, id: 7, seq: 1 });
    expect(rig.send(answer)).toBe('ESTABLISHED/reply');
  });
});

describe('entries', () => {
  it('of who sends to itself have one tuple, which is given back once', () => {
    const own = () => frame().ipv4(SERVER, SERVER).udp({ srcPort: 5, dstPort: 5 });
    expect([rig.send(own()), rig.send(own())]).toEqual(['NEW', 'ESTABLISHED/reply']);
    rig.send(udp('c'));
    expect([rig.ct.entries.count, rig.flows.size]).toEqual([2, 3]);
    rig.wait(45);
    expect([rig.ct.entries.count, rig.flows.size]).toEqual([0, 0]);
    expect([rig.send(own()), rig.send(udp('c')), rig.send(udp('s'))]).toEqual(['NEW', 'NEW', 'ESTABLISHED/reply']);
    expect([rig.ct.entries.count, rig.flows.size]).toEqual([2, 3]);
  });

  it('end with a first packet that is dropped, and are there when it passes', () => {
    expect(rig.send(udp('c'), { isDropped: true })).toBe('NEW');
    expect([rig.ct.entries.count, rig.flows.size]).toEqual([0, 0]);
    rig.send(udp('c'));
    expect([rig.ct.entries.count, rig.flows.size]).toEqual([1, 2]);
    expect(rig.send(udp('s'), { isDropped: true })).toBe('ESTABLISHED/reply');
    rig.told();
    rig.send(udp('c'));
    expect(rig.told()[0]).toMatch(/^reply: /);
  });

  it('a full table refuses, lets what is not assured go, and keeps what is', () => {
    rig = new CtRig(3);
    open();
    for (const port of [1, 2]) rig.send(udp('c', port));
    expect(rig.send(udp('c', 3))).toBe('NEW');
    expect(rig.ct.stats.earlyDrop).toBe(1);
    rig.wait(40);
    for (const port of [41000, 42000]) {
      rig.send(tcp('c', 'S', 0, 0, { port }));
      rig.send(tcp('s', 'S.', 0, 1, { port }));
      rig.send(tcp('c', '.', 1, 1, { port }));
    }
    expect(rig.list().filter((line) => line.includes('ASSURED'))).toHaveLength(3);
    expect(rig.send(udp('c', 9))).toBe('dropped');
    expect(rig.list()).toHaveLength(3);
    expect(rig.ct.stats.drop).toBe(1);
  });

  it('nf_conntrack_max 0: the rows are the limit, and a small table that was full is not collected', () => {
    rig = new CtRig(3);
    rig.ct.sysctls.set('net.netfilter.nf_conntrack_max', '0');
    for (const port of [41000, 42000, 43000]) {
      rig.send(tcp('c', 'S', 0, 0, { port }));
      rig.send(tcp('s', 'S.', 0, 1, { port }));
      if (port !== 43000) rig.send(tcp('c', '.', 1, 1, { port }));
    }
    expect(rig.send(udp('c', 9))).toBe('NEW');
    expect(rig.ct.stats.earlyDrop).toBe(1);
    rig.wait(1);
    expect(rig.list()).toHaveLength(3);
    rig.wait(40);
    rig.send(tcp('c', 'S', 0, 0, { port: 43000 }));
    rig.send(tcp('s', 'S.', 0, 1, { port: 43000 }));
    rig.send(tcp('c', '.', 1, 1, { port: 43000 }));
    for (const port of [41000, 42000]) rig.send(tcp('c', 'F.', 1, 1, { port }));
    expect(rig.send(udp('c', 9))).toBe('dropped');
    rig.wait(1);
    expect(rig.list()).toHaveLength(3);
  });

  it('of a table that has become far too full, a tick ends no more than packets can wait for', () => {
    rig = new CtRig(3000);
    for (let port = 1; port <= 3000; port++) rig.send(udp('c', port));
    rig.ct.sysctls.set('net.netfilter.nf_conntrack_max', '100');
    const { entries } = rig.ct;
    for (let entry = 1; entry <= 3000; entry++) entries.addStatus(entry, Status.Assured);
    expect(rig.send(udp('c', 5000))).toBe('dropped');
    for (let entry = 1; entry <= 3000; entry++) entries.rows[(entry << ENTRY_SHIFT) + Col.Status]! &= ~Status.Assured;
    const left: number[] = [];
    for (let tick = 0; tick < 4; tick++) {
      rig.ct.advance(++rig.now);
      left.push(entries.count);
    }
    expect(left).toEqual([1976, 952, 94, 94]);
  });

  it('two first packets of one UDP flow under way: the second joins the first', () => {
    const first = rig.take(udp('c'));
    const second = rig.take(udp('c'));
    for (const p of [first, second]) expect(rig.hooks.preRouting.run(p, 0)).toBe(1);
    expect(first.entry).not.toBe(second.entry);
    for (const p of [first, second]) expect(rig.hooks.postRouting.run(p, 0)).toBe(1);
    expect(first.entry).toBe(second.entry);
    for (const p of [first, second]) rig.pool.free(p);
    expect([rig.ct.entries.count, rig.flows.size, rig.ct.stats.clashResolve]).toEqual([1, 2, 1]);
  });

  it('zones keep equal tuples apart', () => {
    rig.ct.templates.push({ zone: 5, zoneDirs: 3, helper: 0, hasEvents: false, muted: 0 });
    expect(rig.send(udp('c'))).toBe('NEW');
    expect(rig.send(udp('c'), { template: 1 })).toBe('NEW');
    expect(rig.send(udp('s'))).toBe('ESTABLISHED/reply');
    expect(rig.send(udp('c'), { template: 1 })).toBe('NEW');
    expect(rig.ct.entries.count).toBe(2);
  });

  it('a zone of one direction is looked at for packets of that direction only, errors about them too', () => {
    const template = rig.ct.templates.push({ zone: 5, zoneDirs: 1, helper: 0, hasEvents: false, muted: 0 }) - 1;
    const other = rig.ct.templates.push({ zone: 5, zoneDirs: 2, helper: 0, hasEvents: false, muted: 0 }) - 1;
    for (const packet of [udp('c'), udp('s')]) rig.send(packet);
    // The entry of zone 0 is not its, but expects the same answers, and it is another connection (nf_ct_can_merge).
    expect(rig.send(udp('c'), { template })).toBe('dropped');
    expect([rig.ct.entries.count, rig.ct.stats.insertFailed, rig.ct.stats.clashResolve]).toEqual([1, 1, 0]);
    const error = (inner: FrameBuilder) =>
      frame().ipv4(SERVER, CLIENT).icmp({ type: 3, code: 3 }).payload(inner.build());
    expect(rig.send(udp('c', 4001), { template: other })).toBe('NEW');
    expect(rig.send(error(udp('c', 4001)))).toBe('INVALID');
    expect(rig.send(error(udp('c', 4001)), { template: other })).toBe('RELATED/reply');
    expect(rig.send(udp('s', 4001), { template: other })).toBe('ESTABLISHED/reply');
    // What stands in the zone of answers is none of who sends.
    expect(rig.send(udp('s', 4001), { template })).toBe('NEW');
  });

  it('two first packets of one UDP flow from both ends: the second is an answer to the first', () => {
    const first = rig.take(udp('c'));
    const second = rig.take(udp('s'));
    for (const p of [first, second]) expect(rig.hooks.preRouting.run(p, 0)).toBe(1);
    for (const p of [first, second]) expect(rig.hooks.postRouting.run(p, 0)).toBe(1);
    expect(first.entry).toBe(second.entry);
    for (const p of [first, second]) rig.pool.free(p);
    expect([rig.ct.entries.count, rig.ct.stats.clashResolve]).toEqual([1, 1]);
  });

  describe('of one tuple, which is the original of one and the reply of the other, in different zones', () => {
    const template = (zone: number, zoneDirs: number): number =>
      rig.ct.templates.push({ zone, zoneDirs, helper: 0, hasEvents: false, muted: 0 }) - 1;
    /** The client's in zone 5, answered in zone 0, where the server begins one that is answered in zone 7. */
    const client = () => rig.send(udp('c'), { template: template(5, 1) });
    const server = () => rig.send(udp('s'), { template: template(7, 2) });
    const plain = () => rig.send(udp('s'));

    it.each([
      ['the client', client, server, ['ESTABLISHED', 'NEW', 'NEW']],
      ['the server', server, client, ['NEW', 'ESTABLISHED/reply', 'ESTABLISHED']],
    ] as const)(
      'are both there when %s begins, and what fits both belongs to the newer one',
      (_, first, second, then) => {
        expect([first(), second(), rig.ct.entries.count, rig.flows.size]).toEqual(['NEW', 'NEW', 2, 4]);
        expect(rig.send(udp('s'), { template: template(5, 1) })).toBe('ESTABLISHED/reply');
        expect([first(), plain(), second()]).toEqual(then);
      },
    );

    it.each([
      ['the newer', 2, 'NEW'],
      ['the older', 1, 'ESTABLISHED/reply'],
    ] as const)('are found when %s one has gone', (_, gone, left) => {
      expect([server(), client()]).toEqual(['NEW', 'NEW']);
      rig.ct.kill(gone);
      expect([rig.flows.size, plain(), rig.ct.entries.count]).toEqual([2, left, 1]);
      rig.ct.kill(3 - gone);
      expect([rig.flows.size, rig.ct.entries.count]).toEqual([0, 0]);
    });

    it('are in no way of each other when a port is chosen', () => {
      server();
      const t = new Tuple();
      rig.ct.tuple(1, 0, t);
      const apart = rig.take(udp('c'));
      apart.ctTemplate = template(5, 1);
      const other = rig.take(udp('c', 4009));
      for (const p of [apart, other]) rig.hooks.preRouting.run(p, 0);
      expect([rig.ct.isTaken(t, apart.entry), rig.ct.isTaken(t, other.entry)]).toEqual([false, true]);
      for (const p of [apart, other]) rig.pool.free(p);
    });
  });

  it.each([
    ['a SYN with higher numbers', 'reply', tcp('c', 'S', 500, 0, { port: 41000 }), true],
    ['a SYN with numbers that are not higher', 'reply', tcp('c', 'S', 0, 0, { port: 41000 }), false],
    ['the middle of a connection', 'reply', tcp('c', '.', 500, 1, { port: 41000 }), false],
    ['a SYN in the way of its own direction', 'original', tcp('c', 'S', 500, 0, { port: 41000 }), false],
  ] as const)(
    'give the tuple of a translated connection that is over to %s, of the %s direction: only the first',
    (_, dir, packet, gives) => {
      open();
      rig.ct.entries.addStatus(1, Status.SrcNat);
      const t = new Tuple();
      rig.ct.tuple(1, dir === 'reply' ? 1 : 0, t);
      const first = rig.take(packet);
      rig.hooks.preRouting.run(first, 0);
      expect(rig.ct.evictClosing(t, first.entry)).toBe(false);
      rig.send(tcp('c', 'R.', 1, 1));
      expect(rig.ct.evictClosing(t, first.entry)).toBe(gives);
      expect(rig.list()).toHaveLength(gives ? 0 : 1);
      rig.pool.free(first);
    },
  );

  it('are told apart only while somebody needs them', () => {
    rig.ct.release();
    expect(rig.send(udp('c'))).toBe('INVALID');
    expect(rig.hooks.preRouting.ops).toEqual([]);
    rig.ct.acquire();
    expect(rig.send(udp('c'))).toBe('NEW');
  });
});
