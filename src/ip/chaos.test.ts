import { describe, expect, it } from 'vitest';
import { SeededRng } from '../base/rng.ts';
import { Hook, Verdict } from '../hooks/hooks.ts';
import { Drop } from '../packet/drop.ts';
import { type Packet, REJECT_TCP_RESET } from '../packet/packet.ts';
import { formatIp4, ip4 } from '../wire/addr.ts';
import { frame } from '../wire/build.ts';
import { GsoType } from '../wire/virtio-net.ts';
import { reinject, release } from './receive.ts';
import { MAC, Rig } from './rig.ts';

const ADDRESSES = [
  '10.0.1.1',
  '10.0.1.2',
  '10.0.1.9',
  '10.0.1.100',
  '10.0.2.1',
  '10.0.2.2',
  '10.0.2.9',
  '10.0.3.1',
  '10.0.3.2',
  '10.0.9.9',
  '10.0.1.255',
  '240.0.0.1',
  '127.0.0.1',
];

/** Hook functions that answer anything, frames of every kind, time that passes: whatever happens, each packet ends exactly once. */
describe('chaos', () => {
  it.each([1, 2, 3, 4])('seed %i: every packet is accounted for, and the pool is whole afterwards', (seed) => {
    const rng = new SeededRng(seed);
    const below = (n: number): number => (rng.next() >>> 1) % n;
    const pick = <T>(of: readonly T[]): T => of[below(of.length)]!;
    const rig = new Rig({ hostPort: true, slots: 512 });
    rig.run({ op: 'addr-add', device: 'lo', address: '10.0.1.100', prefixLength: 32 });
    rig.sysctl('net.ipv4.icmp_ratelimit', 0);
    rig.back.canOffload = seed % 2 === 0;
    const held: Packet[] = [];
    rig.hooks.queues.set(1, (p) => {
      if (below(4) === 0) return false;
      held.push(p);
      return true;
    });
    let isWild = true;
    const wild = (p: Packet): Verdict => {
      if (!isWild) return Verdict.Accept;
      switch (below(24)) {
        case 0:
          p.rejectType = pick([0, 3, 11, REJECT_TCP_RESET]);
          return Verdict.Drop;
        case 1:
          held.push(p);
          return Verdict.Stolen;
        case 2:
          p.queue = pick([0, 1]);
          return Verdict.Queue;
        case 3:
          if (below(2) === 0) {
            p.nexthop = ip4(pick(ADDRESSES));
            p.outDevice = pick([-1, 0, 1, 2, 3, 9]);
          }
          return Verdict.Reroute;
        case 4:
          return Verdict.Repeat;
        case 5:
          p.view.setInt32(p.l3 + 16, ip4(pick(ADDRESSES)));
          return Verdict.Accept;
        default:
          return Verdict.Accept;
      }
    };
    for (const hook of Object.values(Hook)) {
      for (const priority of [0, 1])
        rig.hooks.register([{ hook, priority, name: `${priority}`, why: 'chaos', run: wild }]);
    }
    const settleOne = (): void => {
      const [p] = held.splice(below(held.length), 1);
      if (below(4) === 0) release(rig.stack, p!, Drop.Policy);
      else reinject(rig.stack, p!, pick([Verdict.Accept, Verdict.Accept, Verdict.Repeat, Verdict.Drop]));
      rig.flush();
    };
    for (let i = 0; i < 4000; i++) {
      const device = pick([rig.front, rig.back, rig.host]);
      const [src, dst] = [pick(ADDRESSES), below(20) === 0 ? formatIp4(rng.next()) : pick(ADDRESSES)];
      const start = frame();
      if (device !== rig.host) start.eth(pick([device === rig.front ? MAC.front : MAC.back, MAC.all]), MAC.client);
      const ip = start.ipv4(src, dst, {
        ttl: 1 + below(4),
        df: below(2) === 0,
        mf: below(9) === 0,
        offset: pick([0, 0, 0, 0, 64]),
      });
      const length = pick([0, 7, 900, 3000]);
      const kind = below(4);
      if (kind === 0) ip.tcp({ srcPort: 1, dstPort: 2, partialChecksum: true });
      else if (kind === 1) ip.udp({ srcPort: 1, dstPort: 2, partialChecksum: true });
      else ip.icmp({ type: pick([0, 3, 8, 11, 13]) });
      const isSuper = kind < 2 && length === 3000;
      const gsoType = isSuper ? (kind === 0 ? GsoType.TcpV4 : GsoType.UdpL4) : 0;
      rig.send(device, ip.payload(length).build(), {
        csumPartial: kind < 2 ? 1 : 0,
        gsoType,
        gsoSize: isSuper ? 1000 : 0,
      });
      if (held.length > 50) settleOne();
      if (below(100) === 0) rig.pass(0.5);
      expect(rig.unaccounted()).toBe(0);
      for (const out of [rig.front, rig.back, rig.host]) out.sent.length = 0;
    }
    isWild = false;
    while (held.length > 0) settleOne();
    // The errors about what waited in vain may have to wait in vain themselves.
    // And so must fragments.
    rig.pass(40);
    expect(rig.stack.stats.held).toBe(0);
    expect(rig.unaccounted()).toBe(0);
    expect(rig.pool.available).toBe(rig.pool.packets.length);
    expect(Object.keys(rig.drops()).length).toBeGreaterThan(12);
  });
});
