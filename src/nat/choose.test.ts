/** Which translation a connection gets: what the kernel gave (10.2.0.100 and its neighbours, by client) and the rules for ports. */
import { beforeEach, describe, expect, it } from 'vitest';
import { SeededRng } from '../base/rng.ts';
import type { Conntrack } from '../conntrack/conntrack.ts';
import { Col, ENTRY_SHIFT } from '../conntrack/entries.ts';
import { CtDir } from '../conntrack/entry.ts';
import { TcpCt } from '../conntrack/tcp-states.ts';
import { Tuple } from '../conntrack/tuple.ts';
import { Hooks } from '../hooks/hooks.ts';
import { HAS_WAY } from '../hooks/own-addresses.ts';
import { Status } from '../model/entry-status.ts';
import { formatIp4, ip4 } from '../wire/addr.ts';
import { Nat } from './nat.ts';
import { Manip, type NatRange, RangeFlag } from './range.ts';
import { newTracking, open, tupleOf } from './test-rig.ts';

let entries: Conntrack;
let nat: Nat;

beforeEach(() => {
  entries = newTracking();
  const addresses = { sourceOn: () => 0, firstAddress: () => 0, wayTo: () => HAS_WAY };
  nat = new Nat({ hooks: new Hooks(), entries, addresses, rng: new SeededRng(3) });
  entries.onEnd = (entry) => nat.entryEnds(entry);
});

interface To {
  readonly ip?: string;
  readonly ports?: readonly [number, number, number?];
  readonly flags?: number;
}

function rangeOf({ ip, ports, flags = 0 }: To): NatRange {
  const [low, high] = (ip ?? '0.0.0.0').split('-') as [string, string?];
  return {
    flags: flags | (ip === undefined ? 0 : RangeFlag.MapIps) | (ports === undefined ? 0 : RangeFlag.ProtoSpecified),
    minIp: ip4(low),
    maxIp: ip4(high ?? low),
    minPort: ports?.[0] ?? 0,
    maxPort: ports?.[1] ?? 0,
    basePort: ports?.[2] ?? 0,
  };
}

/** A new connection is bound and confirmed; what it looks like behind the translation, or `dropped` when its answers are another's. */
function bind(text: string, to: To, manip: Manip = Manip.Src, proto = 17, zone = 0): string {
  const entry = open(entries, tupleOf(text, proto), zone);
  expect(nat.setup(entry, rangeOf(to), manip)).toBe(1);
  const t = new Tuple();
  entries.tuple(entry, CtDir.Reply, t);
  if (entries.insert(entry) !== null) {
    entries.kill(entry);
    return 'dropped';
  }
  t.invert();
  return `${formatIp4(t.src)}:${t.ports >>> 16} > ${formatIp4(t.dst)}:${t.ports & 0xffff}`;
}

const sourceOf = (line: string) => line.split(' ')[0];
const portOf = (line: string) => Number(line.split(/[: ]/)[1]);

describe('an address of a range', () => {
  it.each([
    [2, '101', '100', '3'],
    [3, '100', '103', '4'],
    [4, '100', '103', '2'],
    [5, '100', '102', '4'],
    [6, '101', '100', '5'],
    [7, '102', '101', '2'],
  ])('is what the kernel gives to client .%i', (client, byBoth, bySource, server) => {
    const from = `10.1.0.${client}:3000`;
    const range = '10.2.0.100-10.2.0.103';
    expect(sourceOf(bind(`${from} > 10.2.0.2:53`, { ip: range }))).toBe(`10.2.0.${byBoth}:3000`);
    const persistent = { ip: range, flags: RangeFlag.Persistent };
    expect(sourceOf(bind(`${from} > 10.2.0.2:54`, persistent, Manip.Src, 6))).toBe(`10.2.0.${bySource}:3000`);
    expect(sourceOf(bind(`${from} > 10.2.0.3:54`, persistent, Manip.Src, 6))).toBe(`10.2.0.${bySource}:3000`);
    expect(bind(`${from} > 10.1.0.1:53`, { ip: '10.2.0.2-10.2.0.5' }, Manip.Dst)).toBe(`${from} > 10.2.0.${server}:53`);
  });

  it('lies in the range whatever its size', () => {
    for (let i = 0; i < 200; i++) {
      const ip = ip4(sourceOf(bind(`10.${i}.7.9:1 > 10.2.0.2:53`, { ip: '1.2.3.4-250.0.0.9' }))!.split(':')[0]!) >>> 0;
      expect(ip >= ip4('1.2.3.4') >>> 0 && ip <= ip4('250.0.0.9') >>> 0).toBe(true);
    }
  });
});

describe('a source port', () => {
  const to = { ip: '10.2.0.100' };

  it.each([
    [300, 1, 511],
    [700, 600, 1023],
    [40000, 1024, 65535],
  ])('stays when it is free, and else stays in its class: %i in %i–%i', (port, low, high) => {
    expect(sourceOf(bind(`10.1.0.2:${port} > 10.2.0.2:80`, to))).toBe(`10.2.0.100:${port}`);
    for (let client = 3; client < 60; client++) {
      const other = portOf(bind(`10.1.0.${client}:${port} > 10.2.0.2:80`, to));
      expect(other !== port && other >= low && other <= high).toBe(true);
    }
  });

  it('is the same for all that the client does with it (RFC 4787), in each zone', () => {
    bind('10.1.0.3:40000 > 10.2.0.2:53', to);
    const moved = sourceOf(bind('10.1.0.2:40000 > 10.2.0.2:53', to));
    expect(moved).not.toBe('10.2.0.100:40000');
    expect(sourceOf(bind('10.1.0.2:40000 > 10.2.0.3:53', to))).toBe(moved);
    expect(sourceOf(bind('10.1.0.2:40000 > 10.2.0.4:53', to, Manip.Src, 17, 5))).toBe('10.2.0.100:40000');
    expect(sourceOf(bind('10.1.0.2:40000 > 10.2.0.4:53', to, Manip.Src, 6))).toBe('10.2.0.100:40000');
  });

  it('is the same in a copy, which tells the original nothing', () => {
    bind('10.1.0.3:40000 > 10.2.0.2:53', to);
    const moved = sourceOf(bind('10.1.0.2:40000 > 10.2.0.2:53', to));
    const live = nat;
    const addresses = { sourceOn: () => 0, firstAddress: () => 0, wayTo: () => HAS_WAY };
    nat = new Nat({ hooks: new Hooks(), entries, addresses, rng: new SeededRng(8) });
    nat.copyFrom(live);
    expect(sourceOf(bind('10.1.0.2:40000 > 10.2.0.3:53', to))).toBe(moved);
    expect(sourceOf(bind('10.1.0.9:7 > 10.2.0.3:53', { ip: '10.2.0.101' }))).toBe('10.2.0.101:7');
    nat = live;
    expect(sourceOf(bind('10.1.0.9:7 > 10.2.0.4:53', { ip: '10.2.0.100-10.2.0.101' }))).not.toBe('10.2.0.101:7');
  });

  it('is forgotten with its last connection', () => {
    bind('10.1.0.3:40000 > 10.2.0.2:53', to);
    bind('10.1.0.2:40000 > 10.2.0.2:53', to);
    entries.kill(2);
    expect(sourceOf(bind('10.1.0.2:40000 > 10.2.0.3:53', to))).toBe('10.2.0.100:40000');
  });

  it('of a range: kept inside, found until the range is full, then the last try stays and is dropped', () => {
    const range = { ...to, ports: [5000, 5003] as const };
    expect(portOf(bind('10.1.0.2:5002 > 10.2.0.2:53', range))).toBe(5002);
    const ports = [3, 4, 5].map((n) => portOf(bind(`10.1.0.${n}:3000 > 10.2.0.2:53`, range)));
    expect(ports.toSorted()).toEqual([5000, 5001, 5003]);
    expect(bind('10.1.0.9:3000 > 10.2.0.2:53', range)).toBe('dropped');
    expect(bind('10.1.0.9:3000 > 10.2.0.3:53', range)).not.toBe('dropped');
    expect(bind('10.1.0.2:1 > 10.2.0.2:80', { ...to, ports: [7000, 7000] }, Manip.Src, 6)).toContain('.100:7000 ');
    expect(bind('10.1.0.3:1 > 10.2.0.2:80', { ...to, ports: [7000, 7000] }, Manip.Src, 6)).toBe('dropped');
  });

  it('takes that of a closed TCP connection when tries run out', () => {
    const range = { ...to, ports: [7000, 7001] as const };
    for (const n of [2, 3]) bind(`10.1.0.${n}:1 > 10.2.0.2:80`, range, Manip.Src, 6);
    const setTcp = (entry: number, state: number, end: number): void => {
      entries.entries.rows[(entry << ENTRY_SHIFT) + Col.Word] = state;
      entries.entries.rows[(entry << ENTRY_SHIFT) + Col.End] = end;
    };
    setTcp(1, TcpCt.Established, 100);
    setTcp(2, TcpCt.TimeWait, 100);
    const entry = open(entries, tupleOf('10.1.0.9:1 > 10.2.0.2:80', 6));
    setTcp(entry, TcpCt.SynSent, 101);
    nat.setup(entry, rangeOf(range), Manip.Src);
    expect([1, 2].map((old) => entries.isAlive(old))).toEqual([true, false]);
    expect(entries.insert(entry)).toBeNull();
  });

  it.each([RangeFlag.ProtoRandom, RangeFlag.ProtoRandomFully])('is never kept with flag %i', (flags) => {
    const ports = [2, 3, 4].map((n) => portOf(bind(`10.1.0.${n}:40000 > 10.2.0.2:53`, { ...to, flags })));
    expect(new Set([...ports, 40000]).size).toBe(4);
  });
});

describe('other ends', () => {
  it('a destination port is changed only to what a range says', () => {
    expect(bind('10.1.0.2:1 > 10.1.0.1:53', { ip: '10.2.0.2' }, Manip.Dst)).toBe('10.1.0.2:1 > 10.2.0.2:53');
    expect(bind('10.1.0.2:1 > 10.1.0.9:53', { ip: '10.2.0.2' }, Manip.Dst)).toBe('dropped');
    expect(bind('10.1.0.2:2 > 10.1.0.1:53', { ports: [5353, 5353] }, Manip.Dst)).toBe('10.1.0.2:2 > 10.1.0.1:5353');
  });

  it('a destination gets the first port of a range that is free; any of them with `random`', () => {
    const range = { ip: '10.2.0.2', ports: [8000, 8009] as const };
    const ports = [1, 2, 3].map((n) => bind(`10.1.0.2:${n} > 10.1.0.1:80`, range, Manip.Dst));
    expect(ports).toEqual([1, 2, 3].map((n) => `10.1.0.2:${n} > 10.2.0.2:8000`));
    expect(bind('10.1.0.2:1 > 10.1.0.9:80', range, Manip.Dst)).toBe('10.1.0.2:1 > 10.2.0.2:8001');
    const random = { ...range, flags: RangeFlag.ProtoRandom };
    const chosen = Array.from({ length: 40 }, (_, n) => bind(`10.1.0.3:${n} > 10.1.0.1:80`, random, Manip.Dst));
    expect(new Set(chosen.map((line) => line.split(':').at(-1))).size).toBeGreaterThan(4);
  });

  it('with an offset keeps the distance of the port from the base', () => {
    const shifted = { ip: '10.2.0.2', ports: [8000, 8009, 100] as const, flags: RangeFlag.ProtoOffset };
    expect(bind('10.1.0.2:1 > 10.1.0.1:103', shifted, Manip.Dst)).toBe('10.1.0.2:1 > 10.2.0.2:8003');
    expect(bind('10.1.0.2:1 > 10.1.0.1:115', shifted, Manip.Dst)).toBe('10.1.0.2:1 > 10.2.0.2:8005');
    expect(bind('10.1.0.3:1 > 10.1.0.1:8003', shifted, Manip.Dst)).toBe('10.1.0.3:1 > 10.2.0.2:8003');
  });

  it('ICMP: another id, the same for both directions; GRE and others cannot be told apart', () => {
    const ping = (client: number, id: number) =>
      bind(`10.1.0.${client}:${id} > 10.2.0.2:${8 << 8}`, { ip: '10.2.0.100' }, Manip.Src, 1);
    expect(ping(2, 77)).toBe(`10.2.0.100:77 > 10.2.0.2:${8 << 8}`);
    expect(portOf(ping(3, 77))).not.toBe(77);
    for (const proto of [47, 99]) {
      expect(bind('10.1.0.2:0 > 10.2.0.2:0', { ip: '10.2.0.100' }, Manip.Src, proto)).toBe('10.2.0.100:0 > 10.2.0.2:0');
      expect(bind('10.1.0.3:0 > 10.2.0.2:0', { ip: '10.2.0.100' }, Manip.Src, proto)).toBe('dropped');
    }
  });

  it('a binding to itself moves the port when the answers are another one’s, and both ends are bound once', () => {
    bind('10.1.0.2:40000 > 10.1.0.1:54', { ip: '10.2.0.2', ports: [53, 53] }, Manip.Dst);
    const entry = open(entries, tupleOf('10.1.0.2:40000 > 10.2.0.2:53'));
    nat.setup(entry, rangeOf({ ip: '10.2.0.2' }), Manip.Dst);
    expect(entries.status(entry)).toBe(Status.DstNatDone);
    nat.setup(entry, rangeOf({ ip: '10.1.0.2' }), Manip.Src);
    expect(entries.status(entry)).toBe(Status.DstNatDone | Status.SrcNatDone | Status.SrcNat);
    expect(entries.insert(entry)).toBeNull();
    expect(nat.setup(entry, rangeOf({ ip: '9.9.9.9' }), Manip.Src)).toBe(1);
    const t = new Tuple();
    entries.tuple(entry, CtDir.Reply, t);
    expect(t.dst).toBe(ip4('10.1.0.2'));
  });
});
