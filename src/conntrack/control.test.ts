import { beforeEach, describe, expect, it } from 'vitest';
import { seconds } from '../base/clock.ts';
import { SeededRng } from '../base/rng.ts';
import { FlowTable } from '../flow/flow-table.ts';
import { Hooks } from '../hooks/hooks.ts';
import type { CtErrno, CtTuple, EntryChange, EntryFilter, EntryRow, EntrySpec } from '../model/conntrack.ts';
import { Status } from '../model/entry-status.ts';
import { PacketPool } from '../packet/pool.ts';
import { ip4 } from '../wire/addr.ts';
import { Conntrack } from './conntrack.ts';
import { ConntrackControl } from './control.ts';
import { Expectations } from './expectations.ts';

const WALL = 1_795_193_512_120.5;
const BY = { portId: 77, program: 'conntrack' };
let ct: Conntrack;
let control: ConntrackControl;
let expectations: Expectations;
/** What NAT was asked for. */
let bound: unknown[] = [];

function start(maxFlows: number, maxEntries = 16): void {
  ct = new Conntrack({
    hooks: new Hooks(),
    pool: new PacketPool(4),
    flows: new FlowTable(maxFlows, 1),
    rng: new SeededRng(7),
    now: 1000,
    maxEntries,
    wallClock: () => WALL,
    defrag: { acquire: () => {}, release: () => {} },
  });
  bound = [];
  expectations = new Expectations();
  control = new ConntrackControl(
    ct,
    expectations,
    () => WALL,
    (_entry, isSource, target) => void bound.push([isSource, target]),
  );
}

beforeEach(() => start(64));

function udp(sport: number, dport = 53): EntrySpec {
  const original: CtTuple = { src: '10.1.0.2', dst: '10.2.0.2', proto: 17, ports: { src: sport, dst: dport } };
  const reply: CtTuple = { src: '10.2.0.2', dst: '10.1.0.2', proto: 17, ports: { src: dport, dst: sport } };
  return { original, reply, timeoutSeconds: 50 };
}

function tcp(state: string): EntrySpec {
  const { original, reply } = udp(40_000, 80);
  return {
    original: { ...original, proto: 6 },
    reply: { ...reply, proto: 6 },
    timeoutSeconds: 100,
    state,
    liberal: true,
  };
}

function create(entry: EntrySpec): CtErrno | null {
  return control.execute({ commands: [{ op: 'create', entry }], by: BY })[0]!.errno;
}

function all<Row>(ask: (cursor: number) => { readonly rows: readonly Row[]; readonly next: number }): Row[] {
  const rows: Row[] = [];
  for (let cursor = 0; cursor >= 0; ) {
    const page = ask(cursor);
    rows.push(...page.rows);
    cursor = page.next;
  }
  return rows;
}

function list(filter: EntryFilter = {}, limit = 3): EntryRow[] {
  return all((cursor) => control.list({ cursor, limit, filter, table: 'conntrack', zero: false }));
}

function update(change: EntryChange, filter: EntryFilter = {}) {
  return all((cursor) => control.update({ cursor, limit: 3, filter, change, by: BY }));
}

function pass(time: number): void {
  for (let left = seconds(time); left > 0; left -= 25) ct.advance(ct.now + 25);
}

describe('a list', () => {
  it('comes in pieces, and holds what a filter means', () => {
    for (let port = 1; port <= 10; port++) expect(create(udp(port))).toBeNull();
    expect(list().map((row) => row.original.ports?.src)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    expect(list({ original: { ports: { src: 7 } } })).toHaveLength(1);
    expect(list({ proto: 6 })).toEqual([]);
    expect(control.list({ cursor: 0, limit: 99, filter: {}, table: 'dying', zero: false }).rows).toEqual([]);
    expect(control.counts()).toMatchObject({ entries: 10, expectations: 0, statistics: { insert: 10 } });
  });

  it('has both ends bound by NAT where one is said: the other to what it is', () => {
    expect(create({ ...udp(1), sourceNat: { address: '9.9.9.9', port: 77 } })).toBeNull();
    expect(create(udp(2))).toBeNull();
    expect(bound).toEqual([
      [false, null],
      [true, { ip: ip4('9.9.9.9'), port: 77 }],
    ]);
  });

  it('shows all of an entry', () => {
    create({
      ...udp(1),
      status: Status.Assured,
      mark: 0xfffffff0,
      zones: { original: 3, reply: 4 },
    });
    expect(list()[0]).toMatchObject({
      reply: { src: '10.2.0.2', dst: '10.1.0.2', ports: { src: 53, dst: 1 } },
      status: Status.Assured | Status.Confirmed,
      timeoutSeconds: 50,
      mark: 0xfffffff0,
      zones: { original: 3, reply: 4 },
      use: 1,
    });
  });

  it('begins counters anew when told so', () => {
    ct.sysctls.acct = 1;
    create(udp(1));
    ct.entries.counters.fill(5, 4, 8);
    const zero = (flag: boolean) =>
      control.list({ cursor: 0, limit: 9, filter: {}, table: 'conntrack', zero: flag }).rows[0];
    expect(zero(true)?.counters?.reply).toEqual({ packets: 5, bytes: 5 });
    expect(zero(false)?.counters?.reply).toEqual({ packets: 0, bytes: 0 });
  });

  it('ends on sight what is over, which the timer has not seen', () => {
    create(udp(1));
    ct.now += seconds(50);
    expect(list()).toEqual([]);
    expect(control.counts().entries).toBe(0);
  });
});

describe('making an entry', () => {
  it('keeps TCP open to any number, and knows its states', () => {
    expect(create(tcp('ESTABLISHED'))).toBeNull();
    expect(list()[0]?.state).toBe('ESTABLISHED');
    expect(create(tcp('NO_STATE'))).toBe('EINVAL');
  });

  it.each<[string, EntrySpec, CtErrno]>([
    ['the original is there', udp(1), 'EEXIST'],
    ['the original is what another answers', { ...udp(9), original: udp(1).reply, reply: udp(1).original }, 'EEXIST'],
    ['the reply is there', { ...udp(2), reply: udp(1).reply }, 'EEXIST'],
    ['nobody may say that it is expected', { ...udp(2), status: Status.Expected }, 'EBUSY'],
    ['the helper is not known', { ...udp(2), helper: 'nosuch' }, 'EOPNOTSUPP'],
    ['the helper reads another protocol', { ...udp(2), helper: 'ftp' }, 'EOPNOTSUPP'],
    [
      'nothing answers such a packet',
      {
        original: { src: '10.1.0.2', dst: '10.2.0.2', proto: 1, icmp: { type: 3, code: 0, id: 7 } },
        reply: { src: '10.2.0.2', dst: '10.1.0.2', proto: 1, icmp: { type: 3, code: 0, id: 7 } },
        timeoutSeconds: 5,
      },
      'EINVAL',
    ],
    ['the directions differ', { ...udp(2), reply: tcp('CLOSE').reply }, 'EINVAL'],
  ])('fails when %s', (_, spec, errno) => {
    create(udp(1));
    expect(create(spec)).toBe(errno);
    expect(list()).toHaveLength(1);
  });

  it('fails when the table is full, and leaves nothing behind', () => {
    for (let port = 1; port <= 16; port++) expect(create({ ...udp(port), status: Status.Assured })).toBeNull();
    expect(create(udp(17))).toBe('ENOMEM');
    expect(list()).toHaveLength(16);
    expect(control.flush({ cursor: 0, limit: 100 })).toEqual({ next: -1 });
    expect(list()).toEqual([]);
    expect(create(udp(17))).toBeNull();
  });

  it('fails when the flow table is full, too, and leaves nothing behind', () => {
    start(3);
    expect([create(udp(1)), create(udp(2)), create(udp(3))]).toEqual([null, 'ENOMEM', 'ENOMEM']);
    expect([ct.entries.count, control.counts().entries]).toEqual([1, 1]);
    control.flush({ cursor: 0, limit: 100 });
    expect(create(udp(2))).toBeNull();
    expect(ct.entries.highWater).toBeLessThan(4);
  });

  it('ends all in slices, and says where to go on', () => {
    for (let port = 1; port <= 16; port++) create(udp(port));
    const left: number[] = [];
    for (let cursor = 0; cursor >= 0; ) {
      ({ next: cursor } = control.flush({ cursor, limit: 6 }));
      left.push(list().length);
    }
    expect(left).toEqual([10, 4, 0]);
  });

  it('lists, changes and ends in pieces that end when their time does', () => {
    start(8192, 4096);
    for (let port = 1; port <= 3000; port++) expect(create(udp(port))).toBeNull();
    let asked = 0;
    let begun = 0;
    control.budget = {
      begin: () => {
        begun++;
      },
      get isSpent() {
        return ++asked % 2 === 0;
      },
    };
    const rows = list({}, 1000);
    expect(new Set(rows.map(({ original }) => original.ports!.src)).size).toBe(3000);
    // Never more than two looks at the time: 32 rows.
    expect(begun).toBeGreaterThan(3000 / 33);
    expect(asked).toBeLessThanOrEqual(begun * 2);
    for (let cursor = 0; cursor >= 0; ) ({ next: cursor } = control.flush({ cursor, limit: 1000 }));
    expect(ct.entries.count).toBe(0);
  });

  it('caps a timeout at what its ticks can hold', () => {
    create({ ...udp(1), timeoutSeconds: 0xfffffffb });
    expect(list()[0]?.timeoutSeconds).toBe(8_589_934);
  });
});

describe('finding one', () => {
  it('takes either tuple, in its zone', () => {
    create({ ...udp(1), zones: { original: 3, reply: 3 } });
    const get = (tuple: CtTuple, zone?: number) => control.execute({ commands: [{ op: 'get', tuple, zone }] })[0];
    expect(get(udp(1).original)).toEqual({ errno: 'ENOENT' });
    expect(get(udp(1).original, 3)).toMatchObject({ errno: null, entry: { use: 2 } });
    expect(get(udp(1).reply, 3)).toMatchObject({ errno: null, entry: { original: udp(1).original } });
  });
});

describe('an update', () => {
  it('changes what differs, and answers what it made of it', () => {
    create(udp(1));
    create(udp(2));
    expect(update({ mark: { value: 0x10, mask: 0xf0 } }, { original: { ports: { src: 1 } } })).toMatchObject([
      { errno: null, entry: { mark: 0x10, use: 2 } },
    ]);
    expect(update({ mark: { value: 0x10, mask: 0xf0 } })).toMatchObject([{ entry: { original: udp(2).original } }]);
    expect(update({ mark: { value: 0x10, mask: 0xf0 } })).toEqual([]);
    expect(
      update({ timeoutSeconds: 200, status: Status.FixedTimeout }, { mark: { value: 0x10, mask: 0xff } }),
    ).toHaveLength(2);
  });

  it('cannot move a fixed timeout, nor set what nobody may', () => {
    create({ ...udp(1), status: Status.FixedTimeout });
    expect(update({ timeoutSeconds: 5 })).toMatchObject([{ errno: 'EPERM', entry: { timeoutSeconds: 50 } }]);
    expect(update({ status: Status.Expected })).toMatchObject([{ errno: 'EBUSY' }]);
    const bits = '1'.padStart(32, '0');
    expect(update({ labels: { value: bits, mask: bits } })).toMatchObject([{ errno: 'ENOSPC' }]);
  });

  it('to no time at all ends it', () => {
    create(udp(1));
    expect(update({ timeoutSeconds: 0 })).toEqual([{ errno: null }]);
    expect(list()).toEqual([]);
  });
});

describe('events', () => {
  it('tell what commands and time did, and who it was, while somebody follows', () => {
    create(udp(9));
    expect(control.hasEvents).toBe(false);
    control.watch({ entries: true, expectations: false });
    create(udp(1));
    update({ mark: { value: 3, mask: 0xffffffff } }, { original: { ports: { src: 1 } } });
    create({ ...udp(2), timeoutSeconds: 1 });
    pass(3);
    all((cursor) => control.remove({ cursor, limit: 9, filter: { original: { ports: { src: 1 } } }, by: BY }));
    const events = control.takeEvents().entries;
    expect(events.map(({ kind, by, entry }) => [kind, entry.original.ports?.src, by?.portId])).toEqual([
      ['new', 1, 77],
      ['update', 1, 77],
      ['new', 2, 77],
      ['destroy', 2, undefined],
      ['destroy', 1, 77],
    ]);
    expect(events[0]).toMatchObject({ at: '1795193512120500000', changed: expect.arrayContaining(['new', 'mark']) });
    expect(control.hasEvents).toBe(false);
    control.watch({ entries: false, expectations: false });
    create(udp(3));
    expect(control.hasEvents).toBe(false);
  });
});

describe('an expectation made by hand', () => {
  const end = (src: string, dst: string, port: number): CtTuple => ({
    src,
    dst,
    proto: 6,
    ports: { src: 0, dst: port },
  });
  const expect1 = (master: EntrySpec, port = 50_000): CtErrno | null =>
    control.execute({
      commands: [
        {
          op: 'create-expectation',
          expectation: {
            tuple: end('10.2.0.2', '10.1.0.2', port),
            mask: end('255.255.255.255', '255.255.255.255', 0xffff),
            master: master.original,
            timeoutSeconds: 5,
          },
        },
      ],
      by: BY,
    })[0]!.errno;

  it('belongs to a connection with a helper, whose limits and time it has, and is counted', () => {
    const master = { ...tcp('ESTABLISHED'), helper: 'ftp' };
    expect(expect1(master)).toBe('ENOENT');
    create(tcp('ESTABLISHED'));
    expect(expect1(master)).toBe('EOPNOTSUPP');
    control.flush({ cursor: 0, limit: 100 });
    create(master);
    control.watch({ entries: false, expectations: true });
    expect(expect1(master)).toBeNull();
    expect(expect1(master, 50_001)).toBeNull();
    // One at a time of each connection: the second has taken the first one's place.
    const { rows } = control.listExpectations({ cursor: 0, limit: 10 });
    expect(rows).toMatchObject([{ timeoutSeconds: 300, helper: 'ftp', tuple: { ports: { dst: 50_001 } } }]);
    expect(control.takeEvents().expectations).toMatchObject([
      { kind: 'new', by: BY },
      { kind: 'destroy', expectation: { tuple: { ports: { dst: 50_000 } } } },
      { kind: 'new' },
    ]);
    expect(control.counts().statistics).toMatchObject({ expectNew: 0, expectCreate: 2, expectDelete: 1 });
  });

  it('in another zone is listed, and not found by those who name none', () => {
    create({ ...tcp('ESTABLISHED'), zones: { original: 5, reply: 5 } });
    const { dst, dstPort } = { dst: ip4('10.1.0.2'), dstPort: 50_000 };
    const any = { proto: 6, src: 0, srcMask: 0, srcPort: 0, srcPortMask: 0, class: 0, flags: 0, nat: null };
    const policy = { maxExpected: 1, timeoutSeconds: 300 };
    const run = (op: 'get-expectation' | 'delete-expectation') =>
      control.execute({ commands: [{ op, tuple: end('10.2.0.2', '10.1.0.2', dstPort) }], by: BY })[0]!.errno;
    expectations.add(ct.now, { ...any, master: 1, dst, dstPort, zone: 5, helper: 'ftp' }, policy);
    expect([run('get-expectation'), run('delete-expectation')]).toEqual(['ENOENT', 'ENOENT']);
    expect(control.listExpectations({ cursor: 0, limit: 10 }).rows).toHaveLength(1);
    expectations.add(ct.now, { ...any, master: 1, dst, dstPort, zone: 0, helper: 'ftp' }, policy);
    expect([run('get-expectation'), run('delete-expectation')]).toEqual([null, null]);
  });
});
