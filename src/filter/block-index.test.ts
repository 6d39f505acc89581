import { describe, expect, it } from 'vitest';
import { SeededRng } from '../base/rng.ts';
import { netmask } from '../wire/addr.ts';
import { BLOCK_RULES, BlockIndex, type DeviceHint, type Hints, type Range } from './block-index.ts';
import { DeviceBits } from './device-bits.ts';

const TCP = 6;
const UDP = 17;

/** Rules and packets that meet often: few addresses and ports. */
function world(seed: number) {
  const rng = new SeededRng(seed);
  const below = (n: number): number => (rng.next() >>> 0) % n;
  const ip = (): number => (below(2) === 0 ? 0x0a000000 : 0xc0a80000) | below(64);
  const network = (): Range => {
    if (below(3) === 0) return null;
    const mask = netmask([32, 32, 30, 28, 8, 1][below(6)]!);
    const base = ip();
    return [base & mask, base | ~mask];
  };
  const ports = (): Range => {
    if (below(2) === 0) return null;
    const low = below(20);
    return [low, below(4) === 0 ? 0xffff : low + below(5)];
  };
  const device = (): DeviceHint | null => {
    if (below(2) === 0) return null;
    return { pattern: ['eth0', 'eth1', 'eth+', 'e+', '+', 'tap9'][below(6)]!, isInverted: below(3) === 0 };
  };
  return {
    hints: (): Hints => {
      const proto = [0, TCP, UDP][below(3)]!;
      const hasPorts = proto !== 0;
      return {
        src: network(),
        dst: network(),
        proto,
        srcPort: hasPorts ? ports() : null,
        dstPort: hasPorts ? ports() : null,
        inDevice: device(),
        outDevice: device(),
      };
    },
    packet: () => ({
      src: ip() | 0,
      dst: ip() | 0,
      proto: [1, TCP, UDP][below(3)]!,
      srcPort: below(25),
      dstPort: below(25),
      inDevice: below(NAMES.length) - 1,
      outDevice: below(NAMES.length) - 1,
    }),
  };
}

/** By device + 1. */
const NAMES = ['', 'eth0', 'eth1', 'tun'];

const fitsName = (pattern: string, device: number): boolean => {
  const name = NAMES[device + 1]!;
  return pattern.endsWith('+') ? name !== '' && name.startsWith(pattern.slice(0, -1)) : name === pattern;
};

const isFor = (device: number, hint: DeviceHint | null): boolean =>
  hint === null || fitsName(hint.pattern, device) !== hint.isInverted;

const isWithin = (value: number, range: Range): boolean =>
  range === null || (value >>> 0 >= range[0] >>> 0 && value >>> 0 <= range[1] >>> 0);

describe('BlockIndex', () => {
  it.each([1, 2, 31, 32, 33, 100, BLOCK_RULES])('finds exactly what %d rules, asked one by one, would', (count) => {
    const { hints, packet } = world(400 + count);
    const rules = Array.from({ length: count }, hints);
    const index = new BlockIndex(rules);
    const bitsOf = (hints: BlockIndex['inDevices']) => hints && new DeviceBits(hints, index.words, fitsName);
    const inDevices = bitsOf(index.inDevices);
    const outDevices = bitsOf(index.outDevices);
    let met = 0;
    for (let i = 0; i < 300; i++) {
      const p = packet();
      const hasPorts = p.proto !== 1;
      const expected = rules.flatMap((rule, at) =>
        isWithin(p.src, rule.src) &&
        isWithin(p.dst, rule.dst) &&
        (rule.proto === 0 || rule.proto === p.proto) &&
        isWithin(p.srcPort, rule.srcPort) &&
        isWithin(p.dstPort, rule.dstPort) &&
        isFor(p.inDevice, rule.inDevice) &&
        isFor(p.outDevice, rule.outDevice)
          ? [at]
          : [],
      );
      index.ask(p.src, p.dst, p.proto, (p.srcPort << 16) | p.dstPort, hasPorts);
      if (inDevices !== null) {
        const at = inDevices.of(p.inDevice);
        index.cameIn(inDevices.bits, at);
      }
      if (outDevices !== null) {
        const at = outDevices.of(p.outDevice);
        index.leaves(outDevices.bits, at);
      }
      const found: number[] = [];
      for (let at = index.next(0); at < index.count; at = index.next(at + 1)) found.push(at);
      expect(found).toEqual(expected);
      met += found.length;
    }
    expect(met).toBeGreaterThan(0);
  });

  it('knows the ends of the numbers', () => {
    const all: Hints = {
      src: null,
      dst: null,
      proto: 0,
      srcPort: null,
      dstPort: null,
      inDevice: null,
      outDevice: null,
    };
    const index = new BlockIndex([
      { ...all, src: [0, 0] },
      { ...all, src: [-1, -1] },
      { ...all, src: [-0x80000000, -1] },
      { ...all, proto: TCP, dstPort: [0xffff, 0xffff] },
    ]);
    const found = (src: number, port: number): number[] => {
      index.ask(src, 0, TCP, port, true);
      return [0, 1, 2, 3].filter((rule) => index.next(rule) === rule);
    };
    expect(found(0, 0)).toEqual([0]);
    expect(found(-1, 0xffff)).toEqual([1, 2, 3]);
    expect(found(-0x80000000, 0)).toEqual([2]);
    expect(found(0x7fffffff, 0xffff)).toEqual([3]);
  });
});
