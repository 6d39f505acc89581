import { beforeEach, describe, expect, it } from 'vitest';
import { seconds } from '../base/clock.ts';
import { ip4 } from '../wire/addr.ts';
import { Expectations, ExpectFlag, MOST_EXPIRE, type NewExpectation } from './expectations.ts';

const ONE = { maxExpected: 1, timeoutSeconds: 300 };
const MANY = { maxExpected: 0, timeoutSeconds: 10 };
let table: Expectations;
let events: string[];

beforeEach(() => {
  table = new Expectations();
  events = [];
  table.onEvent = (kind, e) => events.push(`${kind} ${e.master}:${e.dstPort}`);
});

const wanted = (more: Partial<NewExpectation> = {}): NewExpectation => ({
  master: 1,
  proto: 6,
  src: ip4('10.2.0.2'),
  srcMask: -1,
  srcPort: 0,
  srcPortMask: 0,
  dst: ip4('10.1.0.2'),
  dstPort: 50000,
  zone: 0,
  helper: 'ftp',
  class: 0,
  flags: 0,
  nat: null,
  ...more,
});

const meet = (dstPort = 50000, src = '10.2.0.2', zone = 0, isAlive = true) =>
  table.meet(ip4(src), ip4('10.1.0.2'), 20, dstPort, 6, zone, () => isAlive);

describe('an expectation', () => {
  it('is met once, from any port of the one sender, in its zone, while its master lives', () => {
    expect(table.add(0, wanted(), ONE)).toBeNull();
    for (const miss of [
      meet(50001),
      meet(50000, '10.2.0.3'),
      meet(50000, '10.2.0.2', 7),
      meet(50000, '10.2.0.2', 0, false),
    ]) {
      expect(miss).toBeNull();
    }
    expect(meet()).toMatchObject({ master: 1, dstPort: 50000, id: 1 });
    expect(meet()).toBeNull();
    expect(events).toEqual(['new 1:50000', 'destroy 1:50000']);
  });

  it('stays when it is permanent, and sleeps when it is inactive', () => {
    table.add(0, wanted({ flags: ExpectFlag.Permanent }), ONE);
    expect([meet() !== null, meet() !== null]).toEqual([true, true]);
    table.clear();
    table.add(0, wanted({ flags: ExpectFlag.Inactive }), ONE);
    expect(meet()).toBeNull();
  });

  it('replaces itself, gives way to the next of its master, and is not another one’s', () => {
    table.add(0, wanted(), ONE);
    expect(table.add(0, wanted(), ONE)).toBeNull();
    expect(table.add(0, wanted({ class: 1 }), ONE)).toBe('EALREADY');
    expect(table.add(0, wanted({ master: 2 }), ONE)).toBe('EBUSY');
    expect(table.add(0, wanted({ master: 2, src: ip4('10.2.0.9') }), ONE)).toBeNull();
    expect(table.add(0, wanted({ master: 3, proto: 17 }), ONE)).toBeNull();
    expect(table.meet(ip4('10.2.0.2'), ip4('10.1.0.2'), 20, 50000, 17, 0, () => true)).toMatchObject({ master: 3 });
    expect(table.add(0, wanted({ dstPort: 50001 }), ONE)).toBeNull();
    expect(table.list().map((e) => `${e.master}:${e.dstPort}`)).toEqual(['2:50000', '1:50001']);
  });

  it('are told of page by page, each once, whoever comes and goes meanwhile', () => {
    for (let n = 1; n <= 7; n++) table.add(0, wanted({ master: n, dstPort: n }), MANY);
    const told: number[] = [];
    for (let last = 0; ; ) {
      const some = table.after(last, 3);
      if (some.length === 0) break;
      expect(some.length).toBeLessThanOrEqual(3);
      told.push(...some.map((e) => e.master));
      last = some.at(-1)!.id;
      table.forget(told[0]!);
      if (told.length === 3) table.add(0, wanted({ master: 8, dstPort: 8 }), MANY);
    }
    expect(told).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
  });

  it('are listed from where a list has come to, whoever else lists meanwhile', () => {
    for (let n = 1; n <= 6; n++) table.add(0, wanted({ master: n, dstPort: n }), MANY);
    const some = (last: number) => table.after(last, 2).map((e) => e.id);
    expect([some(0), some(2), some(0), some(4), some(2), some(4), some(6), some(6)]).toEqual([
      [1, 2],
      [3, 4],
      [1, 2],
      [5, 6],
      [3, 4],
      [5, 6],
      [],
      [],
    ]);
  });

  it('are cleared some at a time, and those that come meanwhile stay', () => {
    for (let n = 1; n <= 5; n++) table.add(0, wanted({ master: n, dstPort: n }), MANY);
    expect(table.clearSome(0, 2)).toBe(5);
    expect(table.list().map((e) => e.id)).toEqual([3, 4, 5]);
    table.add(0, wanted({ master: 9, dstPort: 9 }), MANY);
    table.forget(5);
    expect([table.clearSome(5, 2), table.list().map((e) => e.id)]).toEqual([0, [6]]);
    expect([table.clearSome(0, 2), table.clearSome(0, 2), table.count]).toEqual([0, 0, 0]);
    expect(events.filter((event) => event.startsWith('destroy'))).toHaveLength(6);
  });

  it('whose time is over at once end a bounded number a tick', () => {
    table.max = 5000;
    for (let n = 0; n < 2500; n++) table.add(0, wanted({ master: n, dstPort: n }), MANY);
    table.add(seconds(1), wanted({ master: 1, dstPort: 5000 }), MANY);
    const left = [9, 10, 10, 10, 10.5, 11].map((at) => {
      table.advance(seconds(at));
      return table.count;
    });
    expect(left).toEqual([2501, 2501 - MOST_EXPIRE, 2501 - 2 * MOST_EXPIRE, 1, 1, 0]);
    expect(table.meet(ip4('10.2.0.2'), ip4('10.1.0.2'), 20, 5000, 6, 0, () => true)).toBeNull();
  });

  it('finds no room above the limit', () => {
    table.max = 2;
    expect([1, 2, 3].map((n) => table.add(0, wanted({ dstPort: n }), MANY))).toEqual([null, null, 'EMFILE']);
  });

  it('ends with its time, and with its master', () => {
    table.add(0, wanted(), MANY);
    table.add(0, wanted({ master: 2, dstPort: 2 }), ONE);
    table.advance(seconds(9));
    expect(table.count).toBe(2);
    table.advance(seconds(10));
    expect(table.list().map((e) => e.master)).toEqual([2]);
    table.forget(2);
    expect(table.count).toBe(0);
  });
});
