// Over 400 lines: the table of all that can become of one packet, in one place.
import { describe, expect, it } from 'vitest';
import { HOOK_NAMES, Hook, Verdict } from '../hooks/hooks.ts';
import { Drop } from '../packet/drop.ts';
import { type Packet, REJECT_TCP_RESET } from '../packet/packet.ts';
import { ip4 } from '../wire/addr.ts';
import { describePacket, frame } from '../wire/build.ts';
import { diff32 } from '../wire/checksum.ts';
import * as icmp from '../wire/icmpv4.ts';
import * as ipv4 from '../wire/ipv4.ts';
import { adjustChecksum, dst, setDst, setSrc } from '../wire/ipv4.ts';
import { receive, reinject, release } from './receive.ts';
import { MAC, Rig } from './rig.ts';

/** Note the order of hooks on every packet. */
function watch(rig: Rig): string[] {
  const seen: string[] = [];
  for (const hook of Object.values(Hook)) {
    on(rig, hook, () => {
      seen.push(HOOK_NAMES[hook]);
      return Verdict.Accept;
    });
  }
  return seen;
}

function on(rig: Rig, hook: Hook, run: (p: Packet) => Verdict, priority = 0): void {
  rig.hooks.register([{ hook, priority, name: `test/${rig.hooks.chains[hook]!.ops.length}`, why: 'test', run }]);
}

const toServer = (fields = {}) =>
  frame()
    .eth(MAC.front, MAC.client)
    .ipv4('10.0.1.2', '10.0.2.2', { id: 7, ...fields })
    .tcp({ srcPort: 1024, dstPort: 80, flags: 'S' });
const toUs = (fields = {}) => frame().eth(MAC.front, MAC.client).ipv4('10.0.1.2', '10.0.1.1', fields);
const fromHost = (dst: string) => frame().ipv4('10.0.3.2', dst, { id: 3 });

describe('the order of hooks', () => {
  it('external to external: PREROUTING, FORWARD, POSTROUTING; TTL one less, MACs of the next hop', () => {
    const rig = new Rig();
    const seen = watch(rig);
    rig.send(rig.front, toServer().build());
    expect(rig.out(rig.back)).toEqual([
      `${MAC.back} > ${MAC.server} IP 10.0.1.2.1024 > 10.0.2.2.80: tcp [S] seq 0 ack 0 win 65535 len 0 (ttl 63 id 7)`,
    ]);
    expect(seen).toEqual(['PREROUTING', 'FORWARD', 'POSTROUTING']);
    expect(rig.stack.stats.forwarded).toBe(1);
    expect(rig.unaccounted()).toBe(0);
  });

  it('external to local, and the answer local to external', () => {
    const rig = new Rig();
    const seen = watch(rig);
    rig.send(rig.front, toUs({ ttl: 9, df: true }).icmp({ type: 8, id: 5, seq: 1 }).payload(56).build());
    expect(rig.out(rig.front)).toEqual([
      expect.stringMatching(/IP 10\.0\.1\.1 > 10\.0\.1\.2: icmp echo reply id 5 seq 1 len 56 \(ttl 64 id \d+\)$/),
    ]);
    expect(seen).toEqual(['PREROUTING', 'LOCAL_IN', 'LOCAL_OUT', 'POSTROUTING']);
    expect(rig.drops()).toEqual({ EchoAnswered: 1 });
    expect(rig.unaccounted()).toBe(0);
  });

  it('local to local: out, looped, and in; the echo of our own address comes back up the host port', () => {
    const rig = new Rig({ hostPort: true });
    const seen = watch(rig);
    rig.send(rig.host, fromHost('10.0.1.1').icmp({ type: 8, id: 1, seq: 1 }).build());
    const pass = ['LOCAL_OUT', 'POSTROUTING', 'PREROUTING', 'LOCAL_IN'];
    expect(seen).toEqual([...pass, ...pass]);
    expect(rig.out(rig.host)).toEqual([expect.stringContaining('10.0.1.1 > 10.0.3.2: icmp echo reply id 1 seq 1')]);
    expect(rig.stack.stats.deliveredToHost).toBe(1);
    expect(rig.unaccounted()).toBe(0);
  });

  it('from the host port to the outside: LOCAL_OUT, POSTROUTING, and no TTL is taken', () => {
    const rig = new Rig({ hostPort: true });
    const seen = watch(rig);
    rig.send(rig.host, fromHost('10.0.2.2').tcp({ srcPort: 1, dstPort: 80 }).build());
    expect(seen).toEqual(['LOCAL_OUT', 'POSTROUTING']);
    expect(rig.out(rig.back)[0]).toContain('10.0.3.2.1 > 10.0.2.2.80');
    expect(rig.unaccounted()).toBe(0);
  });
});

describe('verdicts', () => {
  it('DROP counts its reason, and sends the error or the reset that goes with it', () => {
    const rig = new Rig();
    on(rig, Hook.Forward, (p) => {
      p.drop = Drop.DirectorNoDestination;
      p.rejectType = p.proto === 6 ? REJECT_TCP_RESET : 3;
      p.rejectCode = 3;
      return Verdict.Drop;
    });
    rig.send(rig.front, toServer().build());
    const udp = frame()
      .eth(MAC.front, MAC.client)
      .ipv4('10.0.1.2', '10.0.2.2', { tos: 0x14 })
      .udp({ srcPort: 5, dstPort: 6 });
    rig.send(rig.front, udp.payload('x').build());
    expect(rig.out(rig.front)).toEqual([
      `${MAC.front} > ${MAC.client} IP 10.0.2.2.80 > 10.0.1.2.1024: tcp [R.] seq 0 ack 1 win 0 len 0 (ttl 64 id 0 DF)`,
      expect.stringMatching(
        /10\.0\.1\.1 > 10\.0\.1\.2: icmp error 3\/3 { IP 10\.0\.1\.2\.5 > 10\.0\.2\.2\.6: udp len 1 \(ttl 63 id 0 tos 0x14\) } \(ttl 64 id \d+ tos 0xd4\)/,
      ),
    ]);
    expect(rig.drops()).toEqual({ DirectorNoDestination: 2 });
    expect(rig.unaccounted()).toBe(0);
  });

  it('REROUTE sends from LOCAL_OUT, by the next hop that the hook chose, with the packet as it is', () => {
    const rig = new Rig();
    const seen = watch(rig);
    on(rig, Hook.LocalIn, (p) => {
      p.nexthop = ip4('10.0.2.2');
      p.outDevice = rig.interfaceOf(rig.back).id;
      return Verdict.Reroute;
    });
    rig.send(rig.front, toUs({ ttl: 5 }).udp({ srcPort: 1, dstPort: 2 }).build());
    expect(rig.out(rig.back)).toEqual([expect.stringMatching(`${MAC.server} IP 10.0.1.2.1 > 10.0.1.1.2: .* \\(ttl 5`)]);
    expect(seen).toEqual(['PREROUTING', 'LOCAL_IN', 'LOCAL_OUT', 'POSTROUTING']);
    expect(rig.unaccounted()).toBe(0);
  });

  it('REROUTE without a next hop goes by the new destination, also when LOCAL_OUT changes it', () => {
    const rig = new Rig({ hostPort: true });
    const nat = (p: Packet): Verdict => {
      const to = ip4('10.0.2.2');
      const from = dst(p.view, p.l3);
      if (from === to) return Verdict.Accept;
      setDst(p.view, p.l3, to);
      adjustChecksum(p.view, p.l3, diff32(from, to));
      return Verdict.Reroute;
    };
    on(rig, Hook.LocalOut, nat);
    rig.send(rig.host, fromHost('10.0.1.2').icmp({ type: 8 }).build());
    expect(rig.out(rig.back)).toEqual([expect.stringContaining('10.0.3.2 > 10.0.2.2: icmp echo request')]);
    expect(rig.out(rig.front)).toEqual([]);
  });

  it('a packet that is re-routed without end is dropped as a loop', () => {
    const rig = new Rig();
    on(rig, Hook.LocalIn, () => Verdict.Reroute);
    rig.send(rig.front, toUs().udp({ srcPort: 1, dstPort: 2 }).build());
    expect(rig.drops()).toEqual({ HopLoop: 1 });
    expect(rig.unaccounted()).toBe(0);
  });

  it('QUEUE hands the packet to its handler and goes on behind the function that queued', () => {
    const rig = new Rig();
    const seen: string[] = [];
    const note = (name: string, verdict: Verdict) => (): Verdict => {
      seen.push(name);
      return verdict;
    };
    on(rig, Hook.Forward, note('before', Verdict.Accept));
    on(rig, Hook.Forward, (p) => {
      p.queue = 7;
      return note('queue', Verdict.Queue)();
    });
    on(rig, Hook.Forward, note('after', Verdict.Accept));
    const held: Packet[] = [];
    rig.send(rig.front, toServer().build());
    expect(rig.drops()).toEqual({ QueueNoHandler: 1 });
    rig.hooks.queues.set(7, (p) => held.push(p) < 2);
    rig.send(rig.front, toServer().build());
    expect(rig.stack.stats.held).toBe(1);
    expect(rig.unaccounted()).toBe(0);
    reinject(rig.stack, held[0]!, Verdict.Accept);
    rig.flush();
    expect(rig.out(rig.back)).toHaveLength(1);
    expect(seen).toEqual(['before', 'queue', 'before', 'queue', 'after']);
    rig.send(rig.front, toServer().build());
    expect(rig.drops()).toEqual({ QueueNoHandler: 1, QueueFull: 1 });
    expect(rig.unaccounted()).toBe(0);
  });

  it('STOLEN is held until it is given back or released, from every hook', () => {
    for (const hook of Object.values(Hook)) {
      const rig = new Rig({ hostPort: true });
      const stolen: Packet[] = [];
      on(rig, hook, (p) => {
        stolen.push(p);
        return Verdict.Stolen;
      });
      const isOut = hook === Hook.LocalOut || hook === Hook.PostRouting;
      const ping = frame().ipv4('10.0.3.2', '10.0.2.2').icmp({ type: 8 }).build();
      const send = () =>
        isOut
          ? rig.send(rig.host, ping)
          : rig.send(rig.front, (hook === Hook.LocalIn ? toUs() : toServer()).udp({ srcPort: 1, dstPort: 2 }).build());
      send();
      expect(rig.stack.stats.held).toBe(1);
      reinject(rig.stack, stolen[0]!, Verdict.Accept);
      send();
      release(rig.stack, stolen[1]!, Drop.Policy);
      rig.flush();
      expect(rig.drops()).toEqual({ Policy: 1 });
      expect(rig.stack.stats.held).toBe(0);
      expect(rig.unaccounted()).toBe(0);
      expect(rig.pool.available).toBe(rig.pool.packets.length);
    }
  });

  it('QUEUE at LOCAL_OUT keeps the next hop that a hook chose, and routes anew when a hook changed the destination', () => {
    const rig = new Rig({ hostPort: true });
    const held: Packet[] = [];
    rig.hooks.queues.set(0, (p) => held.push(p) > 0);
    on(rig, Hook.LocalOut, () => Verdict.Queue, 10);
    on(rig, Hook.LocalIn, (p) => {
      p.nexthop = ip4('10.0.2.2');
      p.outDevice = rig.interfaceOf(rig.back).id;
      return Verdict.Reroute;
    });
    rig.send(rig.front, toUs().udp({ srcPort: 1, dstPort: 2 }).build());
    reinject(rig.stack, held[0]!, Verdict.Accept);
    rig.flush();
    expect(rig.out(rig.back)[0]).toContain(`${MAC.server} IP 10.0.1.2.1 > 10.0.1.1.2`);
    on(rig, Hook.LocalOut, (p) => {
      adjustChecksum(p.view, p.l3, diff32(dst(p.view, p.l3), ip4('10.0.1.2')));
      setDst(p.view, p.l3, ip4('10.0.1.2'));
      return Verdict.Accept;
    });
    rig.send(rig.host, fromHost('10.0.2.2').icmp({ type: 8 }).build());
    reinject(rig.stack, held[1]!, Verdict.Accept);
    rig.flush();
    expect(rig.out(rig.front)[0]).toContain('IP 10.0.3.2 > 10.0.1.2');
    expect(rig.unaccounted()).toBe(0);
  });

  it('SNAT in POSTROUTING is what leaves', () => {
    const rig = new Rig();
    on(rig, Hook.PostRouting, (p) => {
      const to = ip4('10.0.2.1');
      adjustChecksum(p.view, p.l3, diff32(ip4('10.0.1.2'), to));
      setSrc(p.view, p.l3, to);
      return Verdict.Accept;
    });
    rig.send(rig.front, frame().eth(MAC.front, MAC.client).ipv4('10.0.1.2', '10.0.2.2').icmp({ type: 8 }).build());
    expect(rig.out(rig.back)[0]).toContain('IP 10.0.2.1 > 10.0.2.2');
  });
});

describe('local delivery', () => {
  it('without a host port answers as a host without sockets', () => {
    const rig = new Rig();
    rig.send(rig.front, toUs().tcp({ srcPort: 9, dstPort: 81, flags: 'S', seq: 100 }).payload('ab').build());
    rig.send(rig.front, toUs({ tos: 0x13 }).tcp({ srcPort: 9, dstPort: 81, flags: '.', seq: 100, ack: 777 }).build());
    rig.send(rig.front, toUs().tcp({ srcPort: 9, dstPort: 81, flags: 'R', seq: 100 }).build());
    rig.send(rig.front, toUs({ df: true }).udp({ srcPort: 9, dstPort: 81 }).payload('abc').build());
    rig.send(rig.front, toUs({ proto: 132 }).payload(20).build());
    const at = `${MAC.front} > ${MAC.client} IP 10.0.1.1`;
    expect(rig.out(rig.front)).toEqual([
      `${at}.81 > 10.0.1.2.9: tcp [R.] seq 0 ack 103 win 0 len 0 (ttl 64 id 0 DF)`,
      `${at}.81 > 10.0.1.2.9: tcp [R] seq 777 ack 0 win 0 len 0 (ttl 64 id 0 tos 0x10 DF)`,
      expect.stringMatching(/icmp error 3\/3 { IP .* udp len 3 \(ttl 64 id 0 DF\) } \(ttl 64 id \d+ tos 0xc0\)/),
      expect.stringContaining('icmp error 3/2'),
    ]);
    expect(rig.drops()).toEqual({ ResetSent: 2, NoHostPort: 1, UnreachableSent: 1, ProtocolUnreachable: 1 });
    expect(rig.unaccounted()).toBe(0);
  });

  it('tells the time of day by ICMP', () => {
    const rig = new Rig();
    rig.stack.timeOfDayMs = () => 86_399_999;
    rig.send(rig.front, toUs().icmp({ type: 13, id: 6, seq: 1 }).payload(20).build());
    const [reply] = rig.outBytes(rig.front);
    const view = new DataView(reply!.buffer, reply!.byteOffset + 34);
    expect(reply!.length).toBe(34 + 20);
    expect([view.getUint8(0), view.getUint16(4), view.getUint16(6)]).toEqual([14, 6, 1]);
    expect([view.getUint32(12), view.getUint32(16)]).toEqual([86_399_999, 86_399_999]);
    expect(icmp.check(view, 0, 20)).toBe(icmp.IcmpFault.None);
    expect(rig.unaccounted()).toBe(0);
  });

  it('answers nothing whose checksum is wrong', () => {
    const rig = new Rig();
    rig.send(rig.front, toUs().tcp({ srcPort: 9, dstPort: 81, checksum: 1 }).build());
    rig.send(rig.front, toUs().udp({ srcPort: 9, dstPort: 81, checksum: 1 }).build());
    rig.send(rig.front, toUs().icmp({ type: 8, checksum: 1 }).build());
    expect(rig.out(rig.front)).toEqual([]);
    expect(rig.drops()).toEqual({ TcpBadChecksum: 1, UdpBadChecksum: 1, IcmpBadChecksum: 1 });
  });

  it('gives the host port what is for the peer, whatever it is, and what is for addresses that the kernel owns', () => {
    const rig = new Rig({ hostPort: true });
    const toPeer = () => frame().eth(MAC.front, MAC.client).ipv4('10.0.1.2', '10.0.3.2', { ttl: 1 });
    rig.send(rig.front, toPeer().icmp({ type: 8 }).build());
    rig.send(rig.front, toPeer().tcp({ srcPort: 1, dstPort: 22, flags: 'S' }).build());
    expect(rig.out(rig.host).map((line) => line.split(':')[0])).toEqual([
      'IP 10.0.1.2 > 10.0.3.2',
      'IP 10.0.1.2.1 > 10.0.3.2.22',
    ]);
    rig.stack.hostAddresses = new Set();
    rig.send(rig.front, toUs().udp({ srcPort: 1, dstPort: 53 }).build());
    expect(rig.out(rig.host)).toEqual([]);
    expect(rig.out(rig.front)).toHaveLength(1);
    rig.stack.hostAddresses = new Set([ip4('10.0.1.1')]);
    rig.send(rig.front, toUs().udp({ srcPort: 1, dstPort: 53 }).build());
    expect(rig.out(rig.host)).toHaveLength(1);
    expect(rig.stack.stats.deliveredToHost).toBe(3);
    expect(rig.unaccounted()).toBe(0);
  });

  it('a VIP of lo is local everywhere, and speaks from itself', () => {
    const rig = new Rig();
    rig.run({ op: 'addr-add', device: 'lo', address: '10.0.1.100', prefixLength: 32 });
    rig.flush();
    expect(rig.out(rig.front)).toEqual([]);
    rig.send(rig.front, frame().eth(MAC.front, MAC.client).ipv4('10.0.1.2', '10.0.1.100').icmp({ type: 8 }).build());
    expect(rig.out(rig.front)[0]).toContain('IP 10.0.1.100 > 10.0.1.2: icmp echo reply');
  });
});

describe('redirects', () => {
  const onSegment = () =>
    frame().eth(MAC.front, MAC.client).ipv4('10.0.1.2', '10.0.1.9').udp({ srcPort: 1, dstPort: 2 }).build();

  it('tell a sender on the segment of a better next hop, less and less often', () => {
    const rig = new Rig();
    rig.sysctl('net.ipv4.conf.front.send_redirects', 1);
    rig.neighbour('front', '10.0.1.9', MAC.client);
    rig.send(rig.front, onSegment());
    // It leaves before the packet that it is about, and quotes it as it goes on (ip_forward).
    const first = rig.out(rig.front);
    expect(first).toHaveLength(2);
    expect(first[0]).toMatch(/icmp error 5\/1 .*\{ IP 10\.0\.1\.2\.1 > 10\.0\.1\.9\.2: udp .*ttl 63/);
    expect(first[1]).toMatch(/IP 10\.0\.1\.2\.1 > 10\.0\.1\.9\.2: udp .*ttl 63/);
    for (let i = 0; i < 2; i++) rig.send(rig.front, onSegment());
    const redirected = () => rig.out(rig.front).filter((line) => line.includes('icmp error 5/1')).length;
    expect(redirected()).toBe(0);
    rig.pass(1);
    rig.send(rig.front, onSegment());
    expect(redirected()).toBe(1);
    expect(rig.unaccounted()).toBe(0);
  });

  it('are not sent unless they are asked for, nor to strangers', () => {
    const rig = new Rig();
    rig.neighbour('front', '10.0.1.9', MAC.client);
    rig.send(rig.front, onSegment());
    rig.sysctl('net.ipv4.conf.all.send_redirects', 1);
    rig.send(
      rig.front,
      frame().eth(MAC.front, MAC.client).ipv4('10.9.0.2', '10.0.1.9').udp({ srcPort: 1, dstPort: 2 }).build(),
    );
    expect(rig.out(rig.front).filter((line) => line.includes('icmp error'))).toEqual([]);
  });
});

describe('ICMP errors of forwarding', () => {
  it('reach the kernel behind the host port from an address that is not its own', () => {
    const rig = new Rig({ hostPort: true });
    rig.send(rig.host, fromHost('10.0.9.9').udp({ srcPort: 1, dstPort: 2 }).build());
    rig.send(rig.host, fromHost('10.0.1.9').udp({ srcPort: 1, dstPort: 2 }).build());
    rig.pass(3.2);
    const errors = rig.out(rig.host);
    expect(errors[0]).toContain('IP 10.0.3.1 > 10.0.3.2: icmp error 3/0 { IP 10.0.3.2.1 > 10.0.9.9.2');
    expect(errors[1]).toContain('IP 10.0.3.1 > 10.0.3.2: icmp error 3/1 { IP 10.0.3.2.1 > 10.0.1.9.2');
    expect(rig.unaccounted()).toBe(0);
  });

  it('time exceeded quotes the original TTL', () => {
    const rig = new Rig();
    rig.send(rig.front, toServer({ ttl: 1 }).build());
    expect(rig.out(rig.front)[0]).toMatch(
      /10\.0\.1\.1 > 10\.0\.1\.2: icmp error 11\/0 { .*\(ttl 1 id 7\) } \(ttl 64 id \d+ tos 0xc0\)/,
    );
    expect(rig.drops()).toEqual({ TtlExceeded: 1 });
  });

  it('no route, unreachable, prohibit and blackhole each say what the kernel says', () => {
    const rig = new Rig();
    rig.sysctl('net.ipv4.icmp_ratelimit', 0);
    rig.run({ op: 'route-add', route: { to: '10.5.0.0/16', type: 'unreachable' } });
    rig.run({ op: 'route-add', route: { to: '10.6.0.0/16', type: 'prohibit' } });
    rig.run({ op: 'route-add', route: { to: '10.7.0.0/16', type: 'blackhole' } });
    for (const to of ['10.4.0.1', '10.5.0.1', '10.6.0.1', '10.7.0.1']) {
      rig.send(
        rig.front,
        frame().eth(MAC.front, MAC.client).ipv4('10.0.1.2', to).udp({ srcPort: 1, dstPort: 2 }).build(),
      );
    }
    expect(rig.out(rig.front).map((line) => /error (\S+)/.exec(line)?.[1])).toEqual(['3/0', '3/1', '3/13']);
    expect(rig.drops()).toEqual({ NoRoute: 1, RouteUnreachable: 3 });
  });

  it('without ip_forward it is silent', () => {
    const rig = new Rig();
    rig.sysctl('net.ipv4.ip_forward', 0);
    rig.send(rig.front, toServer().build());
    rig.send(rig.front, toServer({ ttl: 1 }).build());
    expect(rig.out(rig.front)).toEqual([]);
    expect(rig.drops()).toEqual({ ForwardingOff: 2 });
  });

  it('is never sent about an ICMP error, a later fragment, or to a sender that is none', () => {
    const rig = new Rig();
    const head = (src: string, fields = {}) =>
      frame()
        .eth(MAC.front, MAC.client)
        .ipv4(src, '10.0.2.2', { ttl: 1, ...fields });
    rig.send(rig.front, head('10.0.1.2').icmp({ type: 3, code: 1 }).payload(28).build());
    rig.send(rig.front, head('10.0.1.2', { offset: 64, proto: 17 }).payload(20).build());
    rig.send(rig.front, head('240.0.0.1').udp({ srcPort: 1, dstPort: 2 }).build());
    expect(rig.out(rig.front)).toEqual([]);
    rig.send(rig.front, head('10.0.1.2').icmp({ type: 8 }).build());
    expect(rig.out(rig.front)).toHaveLength(1);
  });

  it('is limited for each target to a burst of six, then one a second; fragmentation needed is not', () => {
    const rig = new Rig();
    const burst = (n: number, fields: object, length: number) => {
      for (let i = 0; i < n; i++) rig.send(rig.front, toServer(fields).payload(length).build());
      return rig.out(rig.front).length;
    };
    expect(burst(10, { ttl: 1 }, 0)).toBe(6);
    expect(rig.stack.stats.icmpRateLimited).toBe(4);
    expect(burst(10, { df: true }, 2000)).toBe(10);
    rig.pass(1);
    expect(burst(10, { ttl: 1 }, 0)).toBe(1);
    expect(rig.unaccounted()).toBe(0);
  });

  it('quotes at most 576 bytes in all', () => {
    const rig = new Rig();
    rig.send(rig.front, toServer({ ttl: 1 }).payload(1000).build());
    expect(rig.outBytes(rig.front)[0]!.length).toBe(14 + 576);
  });
});

describe('127/8 where route_localnet says so', () => {
  const localnet = (device: string): Rig => {
    const rig = new Rig({ hostPort: true });
    rig.sysctl(`net.ipv4.conf.${device}.route_localnet`, 1);
    return rig;
  };
  const udp = (src: string, dst: string) =>
    frame().eth(MAC.front, MAC.client).ipv4(src, dst).udp({ srcPort: 1, dstPort: 2 }).build();

  it.each(['front', 'all'])('is ours, as any other address (%s)', (device) => {
    const rig = localnet(device);
    rig.stack.hostAddresses = new Set();
    rig.send(rig.front, udp('10.0.1.2', '127.0.0.1'));
    expect(rig.out(rig.front)[0]).toContain('127.0.0.1 > 10.0.1.2: icmp error 3/3');
  });

  it('passes as a source that is no address of ours, where the way back is not looked at', () => {
    const rig = localnet('front');
    rig.send(rig.front, udp('127.0.0.2', '10.0.2.2'));
    expect(rig.out(rig.back)[0]).toContain('127.0.0.2.1 > 10.0.2.2.2');
    rig.send(rig.front, udp('127.0.0.1', '10.0.2.2'));
    rig.sysctl('net.ipv4.conf.front.rp_filter', 1);
    rig.send(rig.front, udp('127.0.0.2', '10.0.2.2'));
    expect([rig.out(rig.back), rig.drops()]).toEqual([[], { MartianSource: 2 }]);
  });

  it('leaves as a source of this machine by such a device only', () => {
    const rig = localnet('front');
    const send = (dst: string) =>
      rig.send(rig.host, frame().ipv4('127.0.0.1', dst).udp({ srcPort: 1, dstPort: 2 }).build());
    send('10.0.1.2');
    send('10.0.2.2');
    expect([rig.out(rig.front).length, rig.out(rig.back), rig.drops()]).toEqual([1, [], { MartianSource: 1 }]);
  });

  it('comes from the host port to 127/8 when that is one', () => {
    const rig = localnet('host');
    rig.stack.hostAddresses = new Set();
    rig.send(rig.host, frame().ipv4('10.0.3.2', '127.0.0.1').udp({ srcPort: 1, dstPort: 2 }).build());
    expect(rig.out(rig.host)[0]).toContain('127.0.0.1 > 10.0.3.2: icmp error 3/3');
  });

  it('is asked for by ARP', () => {
    const question = frame()
      .eth(MAC.all, MAC.client)
      .arp({ op: 'request', senderMac: MAC.client, sender: '10.0.1.2', target: '127.0.0.1' })
      .build();
    const rig = new Rig();
    rig.send(rig.front, question);
    expect(rig.drops()).toEqual({ ArpMalformed: 1 });
    rig.sysctl('net.ipv4.conf.front.route_localnet', 1);
    rig.send(rig.front, question);
    expect(rig.drops()).toEqual({ ArpMalformed: 1, ArpAnswered: 1 });
  });
});

describe('what no packet may be', () => {
  const cases: [string, Uint8Array, string][] = [
    [
      'loopback source',
      frame().eth(MAC.front, MAC.client).ipv4('127.0.0.1', '10.0.2.2').udp({ srcPort: 1, dstPort: 2 }).build(),
      'MartianSource',
    ],
    [
      'multicast source',
      frame().eth(MAC.front, MAC.client).ipv4('224.0.0.5', '10.0.2.2').udp({ srcPort: 1, dstPort: 2 }).build(),
      'MartianSource',
    ],
    [
      'zero source',
      frame().eth(MAC.front, MAC.client).ipv4('0.0.0.0', '10.0.2.2').udp({ srcPort: 1, dstPort: 2 }).build(),
      'MartianSource',
    ],
    [
      'our own source',
      frame().eth(MAC.front, MAC.client).ipv4('10.0.2.1', '10.0.2.2').udp({ srcPort: 1, dstPort: 2 }).build(),
      'MartianSource',
    ],
    [
      'broadcast source',
      frame().eth(MAC.front, MAC.client).ipv4('10.0.1.255', '10.0.2.2').udp({ srcPort: 1, dstPort: 2 }).build(),
      'MartianSource',
    ],
    [
      'loopback destination',
      frame().eth(MAC.front, MAC.client).ipv4('10.0.1.2', '127.0.0.1').udp({ srcPort: 1, dstPort: 2 }).build(),
      'MartianDestination',
    ],
    [
      'zero destination',
      frame().eth(MAC.front, MAC.client).ipv4('10.0.1.2', '0.0.0.0').udp({ srcPort: 1, dstPort: 2 }).build(),
      'MartianDestination',
    ],
    [
      'unicast in a broadcast frame',
      frame().eth(MAC.all, MAC.client).ipv4('10.0.1.2', '10.0.2.2').udp({ srcPort: 1, dstPort: 2 }).build(),
      'BroadcastForward',
    ],
    [
      'multicast',
      frame().eth('01:00:5e:00:00:05', MAC.client).ipv4('10.0.1.2', '224.0.0.5', { proto: 89 }).build(),
      'MulticastNotForUs',
    ],
    [
      'directed broadcast',
      frame().eth(MAC.all, MAC.client).ipv4('10.0.1.2', '10.0.1.255').udp({ srcPort: 1, dstPort: 2 }).build(),
      'BroadcastNotForUs',
    ],
    [
      'directed broadcast of another net',
      frame().eth(MAC.front, MAC.client).ipv4('10.0.1.2', '10.0.2.255').udp({ srcPort: 1, dstPort: 2 }).build(),
      'BroadcastNotForUs',
    ],
    [
      'limited broadcast',
      frame().eth(MAC.all, MAC.client).ipv4('0.0.0.0', '255.255.255.255').udp({ srcPort: 68, dstPort: 67 }).build(),
      'BroadcastNotForUs',
    ],
    [
      'broadcast ping',
      frame().eth(MAC.all, MAC.client).ipv4('10.0.1.2', '10.0.1.255').icmp({ type: 8 }).build(),
      'BroadcastNotForUs',
    ],
    ['frame for another', frame().eth(MAC.server, MAC.client).ipv4('10.0.1.2', '10.0.2.2').build(), 'NotForUs'],
    ['short frame', frame().eth(MAC.front, MAC.client).build().slice(0, 12), 'FrameTooShort'],
    ['IPv6', frame().eth(MAC.front, MAC.client, 0x86dd).payload(40).build(), 'EtherTypeUnknown'],
    ['truncated header', frame().eth(MAC.front, MAC.client).payload(10).build(), 'Ipv4TooShort'],
    [
      'version 5',
      frame().eth(MAC.front, MAC.client).ipv4('10.0.1.2', '10.0.2.2', { version: 5 }).build(),
      'Ipv4BadVersion',
    ],
    [
      'IHL 4',
      frame().eth(MAC.front, MAC.client).ipv4('10.0.1.2', '10.0.2.2', { ihl: 4 }).build(),
      'Ipv4BadHeaderLength',
    ],
    [
      'total length',
      frame().eth(MAC.front, MAC.client).ipv4('10.0.1.2', '10.0.2.2', { totalLength: 99 }).build(),
      'Ipv4BadTotalLength',
    ],
    [
      'header checksum',
      frame().eth(MAC.front, MAC.client).ipv4('10.0.1.2', '10.0.2.2', { checksum: 7 }).build(),
      'Ipv4BadChecksum',
    ],
    [
      'source route',
      frame()
        .eth(MAC.front, MAC.client)
        .ipv4('10.0.1.2', '10.0.2.2', { options: [131, 7, 4, 1, 2, 3, 4] })
        .build(),
      'Ipv4SourceRoute',
    ],
    [
      'bad option length',
      frame()
        .eth(MAC.front, MAC.client)
        .ipv4('10.0.1.2', '10.0.2.2', { options: [7, 9, 4, 0] })
        .build(),
      'Ipv4BadOptions',
    ],
    [
      'short TCP to us',
      frame().eth(MAC.front, MAC.client).ipv4('10.0.1.2', '10.0.1.1', { proto: 6 }).payload(12).build(),
      'TcpTooShort',
    ],
    [
      'TCP offset to us',
      frame()
        .eth(MAC.front, MAC.client)
        .ipv4('10.0.1.2', '10.0.1.1')
        .tcp({ srcPort: 1, dstPort: 2, dataOffset: 4 })
        .build(),
      'TcpBadOffset',
    ],
    [
      'UDP length to us',
      frame()
        .eth(MAC.front, MAC.client)
        .ipv4('10.0.1.2', '10.0.1.1')
        .udp({ srcPort: 1, dstPort: 2, length: 99 })
        .build(),
      'UdpBadLength',
    ],
  ];
  it.each(cases)('%s is dropped by name', (_what, bytes, reason) => {
    const rig = new Rig();
    const before = rig.pool.available;
    rig.send(rig.front, bytes);
    expect(rig.drops()).toEqual({ [reason]: 1 });
    expect(rig.out(rig.back)).toEqual([]);
    expect(rig.unaccounted()).toBe(0);
    expect(rig.pool.available).toBe(before);
  });

  it('but a broken transport in transit is forwarded, as a router does, and 240/4 passes', () => {
    const rig = new Rig();
    const head = (src: string, proto: number) => frame().eth(MAC.front, MAC.client).ipv4(src, '10.0.2.2', { proto });
    rig.send(rig.front, head('10.0.1.2', 6).payload(12).build());
    rig.send(rig.front, head('240.0.0.1', 99).payload(12).build());
    expect(rig.back.sent.splice(0)).toHaveLength(2);
    expect(rig.drops()).toEqual({});
  });

  it('a recorded route gets the address that the packet leaves by, while there is room', () => {
    const rig = new Rig();
    rig.send(rig.front, toServer({ options: [7, 7, 4, 0, 0, 0, 0] }).build());
    rig.send(rig.front, toServer({ options: [1, 7, 7, 8, 9, 9, 9, 9] }).build());
    const [first, second] = rig.outBytes(rig.back);
    expect([...first!.slice(34, 42)]).toEqual([7, 7, 8, 10, 0, 2, 1, 0]);
    expect([...second!.slice(34, 42)]).toEqual([1, 7, 7, 8, 9, 9, 9, 9]);
    expect(ipv4.check(new DataView(first!.buffer, first!.byteOffset), 14, first!.length)).toBe(0);
  });

  it('link padding is cut off', () => {
    const rig = new Rig();
    rig.send(rig.front, toServer().pad(60).build());
    expect(rig.outBytes(rig.back)[0]!.length).toBe(54);
  });

  it('an option whose pointer is wrong earns a parameter problem that points at it', () => {
    const rig = new Rig();
    // As Linux 6.18 answered: a pointer into the fixed part, an option too short for one, a slot that does not fit.
    for (const [options, at] of [
      [[1, 7, 7, 3, 0, 0, 0, 0], 23],
      [[1, 7, 2, 0, 0, 0, 0, 0], 22],
      [[1, 7, 7, 6, 0, 0, 0, 0], 23],
    ] as const) {
      rig.send(rig.front, toServer({ options: [...options] }).build());
      const reply = rig.outBytes(rig.front)[0]!;
      expect(describePacket(reply.slice(14))).toContain('icmp error 12/0');
      expect(reply[14 + 20 + 4]).toBe(at);
    }
  });

  it('rp_filter 1 wants the way back by the same device, 2 any way', () => {
    const run = (value: number, src: string): Record<string, number> => {
      const rig = new Rig();
      rig.sysctl('net.ipv4.conf.front.rp_filter', value);
      rig.send(
        rig.front,
        frame().eth(MAC.front, MAC.client).ipv4(src, '10.0.2.2').udp({ srcPort: 1, dstPort: 2 }).build(),
      );
      return rig.drops();
    };
    expect(run(0, '10.9.9.9')).toEqual({});
    expect(run(0, '10.0.2.9')).toEqual({});
    expect(run(1, '10.0.2.9')).toEqual({ ReversePath: 1 });
    expect(run(1, '10.0.1.9')).toEqual({});
    expect(run(2, '10.0.2.9')).toEqual({});
    expect(run(2, '10.9.9.9')).toEqual({ ReversePath: 1 });
  });

  it('a device that was set down receives nothing, and there is no way by it', () => {
    const rig = new Rig();
    rig.run({ op: 'link-set', device: 'back', up: false });
    rig.send(rig.front, toServer().build());
    receive(rig.stack, rig.interfaceOf(rig.back), rig.pool.take(60)!);
    expect(rig.drops()).toEqual({ DeviceGone: 1, NoRoute: 1 });
    expect(rig.unaccounted()).toBe(0);
  });
});
