/** Groups while an older querier is about (RFC 3376 §7.2). What Linux says in version 3, and of its comings and goings, is compared in engine/sync.test.ts. */
import { beforeEach, describe, expect, it } from 'vitest';
import { ip4 } from '../wire/addr.ts';
import { frame } from '../wire/build.ts';
import { ETH_HEADER } from '../wire/ethernet.ts';
import { MAC, Rig } from './rig.ts';

const GROUP = ip4('239.1.1.1');
const FRONT = 1;
/** Query, report or leave: type, time, checksum, group. */
const QUERY_V1 = '1100eeff00000000';
const QUERY_V2 = '110aeef500000000';
const REPORT_V1 = '1200fdfcef010101';
const REPORT_V2 = '1600f9fcef010101';

let rig: Rig;
beforeEach(() => {
  rig = new Rig();
  rig.stack.groups.join(rig.stack, FRONT, GROUP);
  rig.pass(3);
  said();
});

function hear(payload: string, to = '224.0.0.1'): void {
  const bytes = new Uint8Array(Buffer.from(payload, 'hex'));
  const ip = frame().eth('01:00:5e:00:00:01', MAC.client).ipv4('10.0.1.2', to, { ttl: 1, proto: 2 });
  rig.send(rig.front, ip.payload(bytes).build());
}

/** Types of the IGMP messages that were sent since the last question. */
function said(): string[] {
  const messages = rig.outBytes(rig.front).map((bytes) => bytes.slice(ETH_HEADER + 24));
  return messages.map((message) => message[0]!.toString(16));
}

function leave(): string[] {
  rig.stack.groups.leave(rig.stack, FRONT, GROUP);
  rig.pass(3);
  return said();
}

describe('after a query of version', () => {
  it.each([
    ['1, the answer is one of version 1, and nobody is told of the end', QUERY_V1, 10, ['12'], []],
    ['2, the answer is one of version 2, and routers are told of the end once', QUERY_V2, 1, ['16'], ['17']],
  ])('%s', (_, query, seconds, answer, end) => {
    hear(query);
    rig.pass(seconds + 0.1);
    expect(said()).toEqual(answer);
    expect(leave()).toEqual(end);
    expect(rig.unaccounted()).toBe(0);
  });

  it.each([
    [QUERY_V1, REPORT_V1, 10],
    [QUERY_V2, REPORT_V2, 1],
  ])('%s another one’s report is enough', (query, report, seconds) => {
    hear(query);
    hear(report, '239.1.1.1');
    rig.pass(seconds + 0.1);
    expect(said()).toEqual([]);
    expect(leave()).toEqual([]);
  });

  it('1, one of version 2 is answered in version 1 still', () => {
    hear(QUERY_V1);
    hear(QUERY_V2);
    rig.pass(10.1);
    expect(said()).toEqual(['12']);
  });

  it('2, version 3 is spoken again as soon as its querier was silent for 260 s, and for ever', () => {
    hear(QUERY_V2);
    rig.pass(259);
    said();
    expect(leave()).toEqual(['17']);
    rig.stack.groups.join(rig.stack, FRONT, GROUP);
    rig.pass(3);
    expect(said()).toEqual(['22', '22']);
    // Half round the clock.
    for (let i = 0; i < 2; i++) {
      rig.clock.advance(2 ** 30);
      rig.pass(0.1);
    }
    expect(leave()).toEqual(['22', '22']);
  });
});
