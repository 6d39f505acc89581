import { describe, expect, it } from 'vitest';
import { Hook, Verdict } from '../hooks/hooks.ts';
import { frame } from '../wire/build.ts';
import * as ipv4 from '../wire/ipv4.ts';
import { MAC, Rig } from './rig.ts';

const OPTIONS = 34;
const TIME = [0, 18, 214, 135];
const [CLIENT_SIDE, SERVER_SIDE] = [
  [10, 0, 1, 1],
  [10, 0, 2, 1],
];
const ZEROS = [0, 0, 0, 0];

const head = (dst: string, options: readonly number[], more = {}) =>
  frame()
    .eth(MAC.front, MAC.client)
    .ipv4('10.0.1.2', dst, { options: [...options], ...more });
const through = (options: readonly number[]) => head('10.0.2.2', options).udp({ srcPort: 1, dstPort: 2 }).build();
const ping = (options: readonly number[]) => head('10.0.1.1', options).icmp({ type: 8, id: 5 }).payload(8).build();

function newRig(): Rig {
  const rig = new Rig();
  rig.stack.timeOfDayMs = () => 0x12d687;
  return rig;
}

/** Its options, and whether its header is right. */
function optionsOf(bytes: Uint8Array | undefined): number[] | string {
  if (bytes === undefined) return 'nothing';
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  if (ipv4.check(view, 14, bytes.length) !== ipv4.Ipv4Fault.None) return 'broken';
  return [...bytes.slice(OPTIONS, 14 + ipv4.headerLength(view, 14))];
}

describe('options, as Linux 6.18 has them', () => {
  it.each([
    ['a route', [7, 7, 4, ...ZEROS, 0], [7, 7, 8, ...SERVER_SIDE, 0]],
    ['a route that is full', [1, 7, 7, 8, 9, 9, 9, 9], [1, 7, 7, 8, 9, 9, 9, 9]],
    ['times', [68, 12, 5, 0, ...ZEROS, ...ZEROS], [68, 12, 9, 0, ...TIME, ...ZEROS]],
    ['times and addresses', [68, 12, 5, 1, ...ZEROS, ...ZEROS], [68, 12, 13, 1, ...CLIENT_SIDE, ...TIME]],
    [
      'the time of an address of ours',
      [68, 12, 5, 3, ...SERVER_SIDE, ...ZEROS],
      [68, 12, 13, 3, ...SERVER_SIDE, ...TIME],
    ],
    ["the time of another's", [68, 12, 5, 3, 10, 0, 2, 2, ...ZEROS], [68, 12, 5, 3, 10, 0, 2, 2, ...ZEROS]],
    ['no room for a time', [68, 8, 9, 0x20, ...ZEROS], [68, 8, 9, 0x30, ...ZEROS]],
    ['no room for the time of an address', [68, 8, 9, 0xf3, 10, 0, 2, 2], [68, 8, 9, 0xf3, 10, 0, 2, 2]],
    ['times of a kind that nobody knows', [68, 8, 5, 2, ...ZEROS], [68, 8, 5, 2, ...ZEROS]],
    ['what stands behind the end', [1, 0, 5, 6], [1, 0, 0, 0]],
  ])('%s, on the way through', (_, options, expected) => {
    const rig = newRig();
    rig.send(rig.front, through(options));
    expect(optionsOf(rig.outBytes(rig.back)[0])).toEqual(expected);
  });

  it.each([
    ['a route', [1, 7, 11, 4, ...ZEROS, ...ZEROS], [7, 11, 12, ...CLIENT_SIDE, ...CLIENT_SIDE, 0]],
    ['times', [68, 12, 5, 0, ...ZEROS, ...ZEROS], [68, 12, 13, 0, ...TIME, ...TIME]],
    [
      'the times of ours',
      [68, 20, 5, 3, ...CLIENT_SIDE, ...ZEROS, ...SERVER_SIDE, ...ZEROS],
      [68, 20, 21, 3, ...CLIENT_SIDE, ...TIME, ...SERVER_SIDE, ...TIME],
    ],
    ['times of a kind that nobody knows', [68, 8, 5, 2, ...ZEROS], [68, 8, 5, 2, ...ZEROS]],
    ['room for half of an answer', [68, 15, 5, 1, ...ZEROS, ...ZEROS, 0, 0, 0, 0], 'nothing'],
    ['anything else', [148, 4, 0, 0, 136, 4, 0, 1], []],
  ])('%s, in an answer', (_, options, expected) => {
    const rig = newRig();
    rig.send(rig.front, ping(options));
    expect(optionsOf(rig.outBytes(rig.front)[0])).toEqual(expected);
    expect(rig.unaccounted()).toBe(0);
  });

  it('a route goes on in errors, whose quotes have it too, and in resets', () => {
    const rig = newRig();
    const route = [7, 11, 4, ...ZEROS, ...ZEROS, 0];
    const answer = [7, 11, 12, ...CLIENT_SIDE, ...CLIENT_SIDE, 0];
    rig.send(rig.front, head('10.0.2.2', route, { ttl: 1 }).udp({ srcPort: 1, dstPort: 2 }).build());
    rig.send(rig.front, head('10.0.1.1', route).tcp({ srcPort: 1, dstPort: 2, flags: 'S' }).build());
    const [error, reset] = rig.outBytes(rig.front);
    expect([optionsOf(error), optionsOf(reset)]).toEqual([answer, answer]);
    const quoted = 14 + 32 + 8 + 20;
    expect([...error!.slice(quoted, quoted + 12)]).toEqual([7, 11, 8, ...CLIENT_SIDE, ...ZEROS, 0]);
  });

  it.each([
    ['two routes', [7, 7, 4, ...ZEROS, 7, 7, 4, ...ZEROS], 27],
    ['a source route that is too short', [131, 2, 4, 0], 21],
    ['a second source route', [131, 7, 4, ...ZEROS, 137, 7, 4, ...ZEROS], 27],
    ['times that are full fifteen times over', [68, 8, 9, 0xf0, ...ZEROS], 23],
    ['half a time and address', [68, 8, 5, 1, ...ZEROS], 22],
    ['an alert that is too short', [148, 3, 0], 21],
    ['CIPSO of a domain that is unknown', [134, 10, 0, 0, 0, 1, 1, 4, 0, 1], 22],
  ])('%s: a parameter problem that points at it', (_, options, at) => {
    const rig = newRig();
    rig.send(rig.front, through(options));
    const [error] = rig.outBytes(rig.front);
    const header = (error![14]! & 15) * 4;
    expect([error![14 + header], error![14 + header + 4]]).toEqual([12, at]);
    expect(rig.drops()).toEqual({ Ipv4BadOptions: 1 });
  });

  it('a packet that a hook function sends on from FORWARD has its route, too', () => {
    const rig = newRig();
    rig.hooks.register([
      { hook: Hook.Forward, priority: 0, name: 'test/again', why: 'test', run: () => Verdict.Reroute },
    ]);
    rig.send(rig.front, through([7, 7, 4, ...ZEROS, 0]));
    expect(optionsOf(rig.outBytes(rig.back)[0])).toEqual([7, 7, 8, ...SERVER_SIDE, 0]);
  });

  it('what goes to the host port is as it came', () => {
    const rig = new Rig({ hostPort: true });
    const route = [7, 7, 4, ...ZEROS, 0];
    rig.send(rig.front, head('10.0.3.2', route).udp({ srcPort: 1, dstPort: 2 }).build());
    const [bytes] = rig.outBytes(rig.host);
    expect([...bytes!.slice(20, 28)]).toEqual(route);
  });
});
