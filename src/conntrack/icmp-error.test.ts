/** Whose connection an ICMP error is about, by what it quotes. */
import { beforeEach, describe, expect, it } from 'vitest';
import { type FrameBuilder, frame } from '../wire/build.ts';
import { CLIENT, CtRig, SERVER } from './test-rig.ts';

const PORTS = { srcPort: 40000, dstPort: 53 };
const question = () => frame().ipv4(CLIENT, SERVER).udp(PORTS).payload('question');
const answer = () => frame().ipv4(SERVER, CLIENT).udp({ srcPort: 53, dstPort: 40000 });
const ROUTER = '10.1.0.1';

/** An error about `quoted`, cut to `length` bytes. */
const about = (quoted: Uint8Array, length = quoted.length, to = CLIENT) =>
  frame().ipv4(ROUTER, to).icmp({ type: 3, code: 1 }).payload(quoted.slice(0, length));

/** The same bytes with some of them changed. */
function changed(bytes: Uint8Array, changes: Readonly<Record<number, number>>): Uint8Array {
  const copy = bytes.slice();
  for (const [at, value] of Object.entries(changes)) copy[Number(at)] = value;
  return copy;
}

let rig: CtRig;
beforeEach(() => {
  rig = new CtRig();
  expect(rig.send(question())).toBe('NEW');
});

describe('an error', () => {
  const good = question().build();
  it.each([
    ['about the question', about(good), 'RELATED/reply'],
    ['about no more of it than eight bytes behind the header', about(good, 28), 'RELATED/reply'],
    ['about less than its ports', about(good, 23), 'INVALID'],
    ['about less than a header', about(good, 19), 'INVALID'],
    ['about nothing', about(good, 0), 'INVALID'],
    ['about a header of 16 bytes', about(changed(good, { 0: 0x44 })), 'INVALID'],
    ['about a header that is longer than all of it', about(changed(good, { 0: 0x4f })), 'INVALID'],
    ['about the first fragment', about(changed(good, { 6: 0x20 })), 'RELATED/reply'],
    ['about a later fragment', about(changed(good, { 7: 1 })), 'INVALID'],
    [
      'about what nobody sent',
      about(
        frame()
          .ipv4(CLIENT, SERVER)
          .udp({ ...PORTS, dstPort: 54 })
          .build(),
      ),
      'INVALID',
    ],
    ['that comes to another one', about(good, good.length, '10.1.0.3'), 'INVALID'],
    ['about an error', about(about(good).build()), 'INVALID'],
  ])('%s', (_, error, expected) => {
    expect(rig.send(error)).toBe(expected);
    expect(rig.ct.stats.error).toBe(expected === 'INVALID' ? 1 : 0);
  });

  it('about an answer goes the way of the questions', () => {
    expect(rig.send(about(answer().build(), 28, SERVER))).toBe('RELATED');
    expect(rig.send(about(answer().build(), 28, CLIENT))).toBe('INVALID');
  });

  it('about a connection whose time is over finds it no more', () => {
    rig.now += 1_000_000;
    rig.ct.now = rig.now;
    expect(rig.send(about(good))).toBe('INVALID');
  });

  it('is looked for in its zone, of one direction where only that has one', () => {
    rig.ct.templates.push({ zone: 7, zoneDirs: 3, helper: 0, hasEvents: false, muted: 0 });
    rig.ct.templates.push({ zone: 7, zoneDirs: 1, helper: 0, hasEvents: false, muted: 0 });
    const other = frame()
      .ipv4(CLIENT, SERVER)
      .udp({ ...PORTS, srcPort: 40001 });
    expect(rig.send(other, { template: 2 })).toBe('NEW');
    const zones = (error: FrameBuilder) => [0, 1, 2].map((template) => rig.send(error, { template }));
    expect(zones(about(good))).toEqual(['RELATED/reply', 'INVALID', 'RELATED/reply']);
    // Questions of the other one are in zone 7, its answers in zone 0.
    expect(zones(about(other.build()))).toEqual(['RELATED/reply', 'INVALID', 'RELATED/reply']);
    const back = frame().ipv4(SERVER, CLIENT).udp({ srcPort: 53, dstPort: 40001 }).build();
    expect(zones(about(back, 28, SERVER))).toEqual(['INVALID', 'RELATED', 'RELATED']);
  });

  it('to another one than the sender is told of, when that is asked for', () => {
    const told: string[] = [];
    rig.ct.onInvalid = (_p, _hook, text) => told.push(text);
    const error = about(good, good.length, '10.1.0.3');
    rig.send(error);
    rig.ct.sysctls.set('net.netfilter.nf_conntrack_log_invalid', '255');
    rig.send(error);
    expect(told).toEqual(['nf_ct_proto_1: outer daddr 10.1.0.3 != inner 10.1.0.2 ']);
  });
});
