/** Many connections: those whose address went end a share at a time, and those of one source without looking at all others. */
import { expect, it } from 'vitest';
import { SeededRng } from '../base/rng.ts';
import { CtDir } from '../conntrack/entry.ts';
import { Tuple } from '../conntrack/tuple.ts';
import { Hooks } from '../hooks/hooks.ts';
import { HAS_WAY } from '../hooks/own-addresses.ts';
import { Status } from '../model/entry-status.ts';
import { formatIp4, ip4 } from '../wire/addr.ts';
import { Nat } from './nat.ts';
import { Manip, RangeFlag } from './range.ts';
import { newTracking, open as openEntry, tupleOf } from './test-rig.ts';

const FRONT = 1;
const BACK = 2;

it('of thousands of connections that lose their address, packets wait for no more than a tick may end', () => {
  const entries = newTracking(4000);
  const addresses = { sourceOn: () => 0, firstAddress: () => 0, wayTo: () => HAS_WAY };
  const nat = new Nat({ hooks: new Hooks(), entries, addresses, rng: new SeededRng(3) });
  let alive = 0;
  entries.onEnd = (entry) => {
    alive--;
    nat.entryEnds(entry);
  };
  let port = 40000;
  const open = (device: number, to: string): void => {
    const entry = openEntry(entries, tupleOf(`10.1.0.2:${++port} > 10.2.0.2:53`));
    entries.alterReply(entry, tupleOf(`10.2.0.2:53 > ${to}:${port}`));
    expect(entries.insert(entry)).toBeNull();
    nat.inherit(entry, device + 1);
    alive++;
  };
  for (let n = 0; n < 3000; n++) open(BACK, n % 3 === 2 ? '10.2.0.9' : '10.2.0.1');
  for (let n = 0; n < 200; n++) open(FRONT, '10.2.0.1');
  nat.addressGone(BACK, ip4('10.2.0.1'));
  expect([alive, nat.isBehind]).toEqual([2176, true]);
  // Another one goes meanwhile.
  nat.addressGone(FRONT, 0);
  const left: number[] = [];
  while (nat.isBehind) {
    nat.advance();
    left.push(alive);
  }
  expect(left).toEqual([1152, 1000]);
  nat.addressGone(BACK, 0);
  expect([alive, nat.isBehind]).toEqual([0, false]);
});

it('of one port that asks thousands of others, connections end in any order, and those that are left are followed', () => {
  const entries = newTracking(70_000);
  const addresses = { sourceOn: () => 0, firstAddress: () => 0, wayTo: () => HAS_WAY };
  const rng = new SeededRng(4);
  const nat = new Nat({ hooks: new Hooks(), entries, addresses, rng });
  entries.onEnd = (entry) => nat.entryEnds(entry);
  // Each tenth looks alike from outside.
  const open = (n: number): number => {
    const other = `10.${n >> 16}.${(n >> 8) & 255}.${n & 255}:53`;
    const entry = openEntry(entries, tupleOf(`192.168.0.2:40000 > ${other}`));
    entries.alterReply(entry, tupleOf(`${other} > 1.2.3.${n % 10}:40000`));
    entries.addStatus(entry, Status.SrcNatDone | Status.SrcNat);
    nat.inherit(entry, 0);
    return entry;
  };
  const alive = Array.from({ length: 60_000 }, (_, n) => open(n));
  const end = (some: readonly number[]): void => {
    for (const entry of some) entries.kill(entry);
  };
  end(alive.splice(0, 40_000));
  end(alive.splice(-10_000));
  while (alive.length > 20) end(alive.splice((rng.next() >>> 0) % alive.length, 1));
  const range = {
    flags: RangeFlag.MapIps,
    minIp: ip4('1.2.3.0'),
    maxIp: ip4('1.2.3.9'),
    minPort: 0,
    maxPort: 0,
    basePort: 0,
  };
  const follow = (): string => {
    const entry = openEntry(entries, tupleOf('192.168.0.2:40000 > 9.9.9.9:53'));
    nat.setup(entry, range, Manip.Src);
    const t = new Tuple();
    entries.tuple(entry, CtDir.Reply, t);
    entries.kill(entry);
    return formatIp4(t.dst);
  };
  // The newest is asked first.
  while (alive.length > 0) {
    expect(follow()).toBe(`1.2.3.${(alive.at(-1)! - 1) % 10}`);
    end(alive.splice(-1));
  }
});
