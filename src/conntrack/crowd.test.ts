import { beforeEach, describe, expect, it } from 'vitest';
import { hash4 } from '../base/hash.ts';
import { Drop } from '../packet/drop.ts';
import { frame } from '../wire/build.ts';
import { ConntrackControl } from './control.ts';
import { Expectations } from './expectations.ts';
import { CtRig, SERVER } from './test-rig.ts';

const SERVER_BITS = 0x0a020002;
const CLIENTS = 0x0b000000;
const PORTS = (4000 << 16) | 53;
const address = (ip: number) => [24, 16, 8, 0].map((shift) => (ip >>> shift) & 255).join('.');
const datagram = (client: number) =>
  frame().ipv4(address(client), SERVER).udp({ srcPort: 4000, dstPort: 53 }).payload('?');

let rig: CtRig;
/** Clients whose first tuple falls into the bucket of the first one's; and one whose does not. */
let crowd: number[];
let other: number;
beforeEach(() => {
  rig = new CtRig(2048);
  crowd = [CLIENTS];
  rig.send(datagram(CLIENTS));
  // The rig's seed, and as many buckets as it has rows.
  const bucket = (client: number) => hash4(7, client, SERVER_BITS, PORTS, 17) & 4095;
  for (let client = CLIENTS + 1; crowd.length < 120; client++) {
    if (bucket(client) === bucket(CLIENTS)) crowd.push(client);
    else other = client;
  }
});

describe('tuples that were chosen for one bucket', () => {
  it('are refused from the kernel’s length on, by name, and leave nothing', () => {
    const states = crowd.slice(1).map((client) => rig.send(datagram(client)));
    const taken = states.filter((state) => state === 'NEW').length + 1;
    expect(states.slice(0, 51)).toEqual(Array(51).fill('NEW'));
    expect(taken).toBeGreaterThan(51);
    expect(taken).toBeLessThanOrEqual(81);
    expect(rig.flows.chainLength(CLIENTS, SERVER_BITS, PORTS, 17)).toBe(taken);
    expect([rig.ct.entries.count, rig.flows.size]).toEqual([taken, 2 * taken]);
    const refused = crowd.length - taken;
    expect(rig.ct.stats).toMatchObject({ chainTooLong: refused, insertFailed: refused, drop: 0 });
    // Those that are there go on, and so does everybody else.
    expect([rig.send(datagram(CLIENTS)), rig.send(datagram(other))]).toEqual(['NEW', 'NEW']);
  });

  it('end with a name', () => {
    for (const client of crowd) rig.send(datagram(client));
    const p = rig.take(datagram(crowd.at(-1)!));
    for (const hook of [0, 4] as const) rig.hooks.chains[hook]!.run(p, 0);
    expect(p.drop).toBe(Drop.ConntrackChainTooLong);
    rig.pool.free(p);
    expect(rig.pool.available).toBe(4);
  });

  it('are not to be learnt by trying: the bound is another one each time', () => {
    const lengths = new Set<number>();
    for (let round = 0; round < 20; round++) {
      for (const client of crowd) rig.send(datagram(client));
      lengths.add(rig.flows.chainLength(CLIENTS, SERVER_BITS, PORTS, 17));
      rig.wait(40);
      expect([rig.ct.entries.count, rig.flows.size]).toEqual([0, 0]);
    }
    expect(lengths.size).toBeGreaterThan(1);
  });

  it('by command have the kernel’s errno', () => {
    const control = new ConntrackControl(
      rig.ct,
      new Expectations(),
      () => 0,
      () => {},
    );
    const errnos = crowd.slice(1).map((client) => {
      const original = { src: address(client), dst: SERVER, proto: 17, ports: { src: 4000, dst: 53 } };
      const reply = { src: SERVER, dst: address(client), proto: 17, ports: { src: 53, dst: 4000 } };
      const entry = { original, reply, timeoutSeconds: 50 };
      return control.execute({ commands: [{ op: 'create', entry }], by: { portId: 1, program: 'x' } })[0]!.errno;
    });
    expect(errnos.slice(0, 51)).toEqual(Array(51).fill(null));
    expect(errnos.at(-1)).toBe('ENOSPC');
    const refused = errnos.filter((errno) => errno !== null).length;
    expect(rig.ct.stats).toMatchObject({ chainTooLong: refused, insertFailed: 0 });
    expect(rig.ct.entries.count).toBe(crowd.length - refused);
  });
});
