import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  addressBody,
  ipBytes,
  linkBody,
  macBytes,
  neighbourBody,
  ROUTE_TYPES,
  readAddress,
  readLink,
  readRoute,
  readRule,
  routeBody,
  ruleBody,
  SCOPES,
  splitCidr,
} from './message.ts';

const asBuffer = (body: Uint8Array): Buffer => Buffer.from(body);
const ip = fc.tuple(fc.nat(255), fc.nat(255), fc.nat(255), fc.nat(255)).map((octets) => octets.join('.'));
const length = fc.integer({ min: 1, max: 32 });
const u32 = fc.nat(0x7fff_ffff);

describe('text', () => {
  it('takes prefixes, lone addresses and `default`', () => {
    expect(splitCidr('10.0.0.1/24')).toEqual({ address: '10.0.0.1', length: 24 });
    expect(splitCidr('10.0.0.1')).toEqual({ address: '10.0.0.1', length: 32 });
    expect(splitCidr('default')).toEqual({ address: '0.0.0.0', length: 0 });
  });

  it('refuses everything else, quoting it', () => {
    for (const text of [
      '',
      '10.0.0/8',
      '10.0.0.1/',
      '10.0.0.1/33',
      '10.0.0.1/-1',
      '10.0.0.1/8/8',
      'fe80::1/64',
      '010.0.0.1',
    ]) {
      expect(() => splitCidr(text)).toThrow(`'${text}' is not an IPv4 prefix`);
    }
    expect(() => ipBytes('10.0.0.300')).toThrow(RangeError);
    expect(() => macBytes('02:00:00:00:01')).toThrow(RangeError);
    expect([...macBytes('02:00:5E:ff:01:0a')]).toEqual([2, 0, 0x5e, 255, 1, 10]);
  });
});

describe('bodies are read back as they were written', () => {
  it('addresses', () => {
    fc.assert(
      fc.property(u32, ip, length, fc.option(ip), (index, local, bits, peer) => {
        fc.pre(peer !== local);
        const body = addressBody({ index, cidr: `${local}/${bits}`, scope: 'link', ...(peer !== null && { peer }) });
        expect(readAddress(asBuffer(body))).toEqual({ index, cidr: `${local}/${bits}`, peer, scope: SCOPES.link });
      }),
    );
  });

  it('routes', () => {
    fc.assert(
      fc.property(ip, length, ip, u32, u32, u32, (to, bits, via, index, table, metric) => {
        const spec = { to: `${to}/${bits}`, via, src: via, index, table, metric, type: 'unicast' as const };
        const { type, ...rest } = spec;
        const expected = { ...rest, type: ROUTE_TYPES[type], scope: SCOPES.global, protocol: 4 };
        expect(readRoute(asBuffer(routeBody(spec, false)))).toEqual(expected);
      }),
    );
  });

  it('rules', () => {
    fc.assert(
      fc.property(u32, u32, ip, length, ip, fc.nat(0xffff_ffff), (priority, table, from, bits, to, fwmark) => {
        const spec = { priority, table, from: `${from}/${bits}`, to: `${to}/32`, fwmark, iif: 'eth0', oif: 'eth1' };
        expect(readRule(asBuffer(ruleBody(spec)))).toEqual(spec);
      }),
    );
  });

  it('links', () => {
    const body = linkBody({
      index: 7,
      name: 'front',
      kind: 'bridge',
      up: true,
      arp: false,
      mac: '02:00:00:00:01:01',
      mtu: 1400,
    });
    expect(readLink(asBuffer(body))).toEqual({
      index: 7,
      name: 'front',
      kind: 'bridge',
      mac: '02:00:00:00:01:01',
      mtu: 1400,
      isUp: true,
      hasCarrier: false,
      usesArp: false,
      master: null,
      peerIndex: null,
      devconf: {},
    });
  });
});

describe('what ip(8) would choose', () => {
  const scopeOf = (body: Uint8Array): number => readRoute(asBuffer(body)).scope;

  it('is the scope of a route', () => {
    expect(scopeOf(routeBody({ to: '10.0.0.0/8', index: 1 }, false))).toBe(SCOPES.link);
    expect(scopeOf(routeBody({ to: '10.0.0.0/8', via: '10.1.1.1' }, false))).toBe(SCOPES.global);
    expect(scopeOf(routeBody({ to: '10.0.0.1', type: 'local', index: 1 }, false))).toBe(SCOPES.host);
    expect(scopeOf(routeBody({ to: '10.0.0.0/8', type: 'unreachable' }, false))).toBe(SCOPES.global);
  });

  it('is to compare nothing that is not named, to delete', () => {
    expect(readRoute(asBuffer(routeBody({ to: '10.0.0.0/8' }, true)))).toMatchObject({
      scope: SCOPES.nowhere,
      type: 0,
      protocol: 0,
      index: null,
    });
  });
});

it('every attribute starts on four bytes, after a header of the kernel’s length', () => {
  const body = neighbourBody({ index: 3, address: '10.0.0.1', mac: '02:00:00:00:00:01' });
  expect(body).toHaveLength(12 + 8 + 10); // struct ndmsg, NDA_DST, NDA_LLADDR (the last one needs no padding)
  const link = linkBody({ name: 'abcd', mtu: 0x1234 });
  expect([...link.subarray(16)]).toEqual([9, 0, 3, 0, 97, 98, 99, 100, 0, 0, 0, 0, 8, 0, 4, 0, 0x34, 0x12, 0, 0]);
});
