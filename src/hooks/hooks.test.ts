import { describe, expect, it } from 'vitest';
import { Drop } from '../packet/drop.ts';
import { PacketPool } from '../packet/pool.ts';
import { Hook, HookChain, type HookOp, Verdict } from './hooks.ts';

function chainOf(...ops: [priority: number, name: string, run?: HookOp['run']][]) {
  const ran: string[] = [];
  const chain = new HookChain(Hook.Forward);
  for (const [priority, name, run] of ops) {
    chain.register({
      hook: Hook.Forward,
      priority,
      name,
      why: 'test',
      run: (p) => {
        ran.push(name);
        return run ? run(p) : Verdict.Accept;
      },
    });
  }
  return { chain, ran, packet: new PacketPool(1).take(60)! };
}

describe('HookChain', () => {
  it('runs by priority, equals in order of registration', () => {
    const { chain, ran, packet } = chainOf([100, 'a'], [-200, 'b'], [100, 'c'], [0, 'd'], [-200, 'e']);
    expect(chain.run(packet, 0)).toBe(Verdict.Accept);
    expect(ran).toEqual(['b', 'e', 'd', 'a', 'c']);
  });

  it.each([Verdict.Drop, Verdict.Stolen, Verdict.Queue, Verdict.Reroute])(
    'ends at verdict %i and says where',
    (verdict) => {
      const { chain, ran, packet } = chainOf([1, 'a'], [2, 'b', () => verdict], [3, 'c']);
      expect(chain.run(packet, 0)).toBe(verdict);
      expect(ran).toEqual(['a', 'b']);
      expect([packet.hook, packet.hookIndex]).toEqual([Hook.Forward, 1]);
      expect(packet.drop).toBe(verdict === Verdict.Drop ? Drop.Policy : Drop.None);
    },
  );

  it('goes on behind the function that queued the packet', () => {
    const { chain, ran, packet } = chainOf([1, 'a', () => Verdict.Queue], [2, 'b']);
    chain.run(packet, 0);
    expect(chain.run(packet, packet.hookIndex + 1)).toBe(Verdict.Accept);
    expect(ran).toEqual(['a', 'b']);
  });

  it('runs a function again on REPEAT, and drops the packet of one that never ends', () => {
    let left = 3;
    const again = chainOf([1, 'a', () => (--left > 0 ? Verdict.Repeat : Verdict.Accept)], [2, 'b']);
    expect(again.chain.run(again.packet, 0)).toBe(Verdict.Accept);
    expect(again.ran).toEqual(['a', 'a', 'a', 'b']);
    const endless = chainOf([1, 'a', () => Verdict.Repeat]);
    expect(endless.chain.run(endless.packet, 0)).toBe(Verdict.Drop);
    expect(endless.packet.drop).toBe(Drop.HookRepeatLoop);
  });

  it('keeps the reason a function gave', () => {
    const { chain, packet } = chainOf([
      1,
      'a',
      (p) => {
        p.drop = Drop.DirectorNoDestination;
        return Verdict.Drop;
      },
    ]);
    chain.run(packet, 0);
    expect(packet.drop).toBe(Drop.DirectorNoDestination);
  });

  it('unregisters', () => {
    const { chain, ran, packet } = chainOf([1, 'a'], [2, 'b']);
    chain.unregister(chain.ops[0]!);
    chain.run(packet, 0);
    expect(ran).toEqual(['b']);
  });
});
