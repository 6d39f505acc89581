import { describe, expect, it } from 'vitest';
import { HOOK_NAMES, Hook, type HookOp, Verdict } from '../hooks/hooks.ts';
import type { Packet } from '../packet/packet.ts';
import { frame } from '../wire/build.ts';
import { MAC, Rig } from './rig.ts';

/** Note the order of hooks on every packet. */
function watch(rig: Rig): string[] {
  const seen: string[] = [];
  for (const hook of Object.values(Hook)) {
    const run = (_p: Packet): Verdict => {
      seen.push(HOOK_NAMES[hook]);
      return Verdict.Accept;
    };
    const op: HookOp = { hook, priority: 0, name: 'test/watch', why: 'notes the order', run };
    rig.hooks.register([op]);
  }
  return seen;
}

const toServer = () =>
  frame()
    .eth(MAC.front, MAC.client)
    .ipv4('10.0.1.2', '10.0.2.2', { id: 7 })
    .tcp({ srcPort: 1024, dstPort: 80, flags: 'S' });

describe('the way of a packet', () => {
  it('forwards: TTL one less, MACs of the next hop, hooks in order', () => {
    const rig = new Rig();
    const seen = watch(rig);
    rig.send(rig.front, toServer().build());
    expect(rig.out(rig.back)).toEqual([
      `${MAC.back} > ${MAC.server} IP 10.0.1.2.1024 > 10.0.2.2.80: tcp [S] seq 0 ack 0 win 65535 len 0 (ttl 63 id 7)`,
    ]);
    expect(seen).toEqual(['PREROUTING', 'FORWARD', 'POSTROUTING']);
    expect(rig.unaccounted()).toBe(0);
    expect(rig.stack.stats.forwarded).toBe(1);
  });

  it('answers a ping to itself through LOCAL_IN and LOCAL_OUT', () => {
    const rig = new Rig();
    const seen = watch(rig);
    const ping = frame()
      .eth(MAC.front, MAC.client)
      .ipv4('10.0.1.2', '10.0.1.1', { ttl: 9 })
      .icmp({ type: 8, id: 5, seq: 1 });
    rig.send(rig.front, ping.payload(56).build());
    const [line] = rig.out(rig.front);
    expect(line).toMatch(/IP 10\.0\.1\.1 > 10\.0\.1\.2: icmp echo reply id 5 seq 1 len 56 \(ttl 64 id \d+\)$/);
    expect(seen).toEqual(['PREROUTING', 'LOCAL_IN', 'LOCAL_OUT', 'POSTROUTING']);
    expect(rig.drops()).toEqual({ EchoAnswered: 1 });
    expect(rig.unaccounted()).toBe(0);
  });
});
