import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { formatIp4, formatMac, ip4, netmask, parseIp4, parseMac, parsePrefix, prefixLength } from './addr.ts';

describe('addresses', () => {
  it('are int32 in wire order, and print back', () => {
    expect(ip4('10.0.1.100')).toBe(0x0a000164);
    expect(ip4('255.255.255.255')).toBe(-1);
    fc.assert(
      fc.property(fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }), (ip) => {
        expect(parseIp4(formatIp4(ip))).toBe(ip);
      }),
    );
  });

  it.each([
    '',
    '1',
    '1.2.3',
    '1.2.3.4.5',
    '256.0.0.1',
    '01.2.3.4',
    ' 1.2.3.4',
    '1.2.3.4 ',
    '1.2.3.x',
    '1..2.3',
    '-1.0.0.0',
    '0x10.0.0.1',
  ])('refuse %j', (text) => {
    expect(parseIp4(text)).toBeUndefined();
  });

  it.each(['10.0.0.0/33', '10.0.0.0/', '10.0.0.0/-1', '10.0.0/8', '10.0.0.0/8/8', '10.0.0.0/a'])(
    'refuse the prefix %j',
    (text) => {
      expect(parsePrefix(text)).toBeUndefined();
    },
  );

  it('know every netmask, and no other mask', () => {
    for (let length = 0; length <= 32; length++) expect(prefixLength(netmask(length))).toBe(length);
    for (const odd of ['255.0.255.0', '0.0.0.255', '255.255.255.253']) expect(prefixLength(ip4(odd))).toBeUndefined();
  });

  it('round trip MAC addresses', () => {
    const m = parseMac('02:aB:00:ff:80:01')!;
    expect(formatMac(m.hi, m.lo)).toBe('02:ab:00:ff:80:01');
    expect(parseMac('02:00:00:00:00')).toBeUndefined();
    expect(parseMac('02-00-00-00-00-01')).toBeUndefined();
  });
});
