import { existsSync, fstatSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import * as native from '../device/native.ts';
import { takeGiven } from './given.ts';
import { isSomethingLeft, newTables, Succession } from './succession.ts';

const path = `@tapvs-succession-${process.pid}`;
const isOpen = (fd: number): boolean => existsSync(`/proc/self/fd/${fd}`);

describe('what a service manager hands down', () => {
  it.each([
    ['nothing', {}],
    ['to another process', { LISTEN_PID: '1', LISTEN_FDS: '2', LISTEN_FDNAMES: 'a:b' }],
    ['to nobody', { LISTEN_FDS: '2' }],
    ['no number of descriptors', { LISTEN_PID: String(process.pid), LISTEN_FDS: '2x' }],
    ['fewer than none', { LISTEN_PID: String(process.pid), LISTEN_FDS: '-1' }],
    ['none', { LISTEN_PID: String(process.pid), LISTEN_FDS: '0', LISTEN_FDNAMES: '' }],
  ])('%s: nothing is taken, and no child will think that it is its own', (_, given) => {
    const env: Record<string, string | undefined> = { ...given, PATH: '/bin' };
    expect(takeGiven(env)).toEqual(new Map());
    expect(env).toEqual({ PATH: '/bin' });
  });

  it.each([
    ['guard:tables-3:device-front', true],
    ['tables-', false],
    ['tables-1234567890', false],
    ['xtables-1', false],
    ['guard:device-tables-1', false],
  ])('%s: is a life to go on from among it? %s', (names, expected) => {
    expect(isSomethingLeft({ LISTEN_FDNAMES: names })).toBe(expected);
  });
});

describe.skipIf(native.nativeProblem() !== null)('from one life to the next', () => {
  let socket: number;
  /** The manager's copies, by name. */
  const kept = new Map<string, number>();

  beforeEach(() => {
    socket = native.noticeSocket(path);
    kept.clear();
  });
  afterEach(() => {
    for (const fd of kept.values()) native.close(fd);
    native.close(socket);
  });

  /** What the manager has heard since the last question: `+ name` it keeps one, `- name` it lets go of all that are called so. */
  function heard(): string[] {
    const lines: string[] = [];
    for (let notice = native.receiveNotice(socket); notice !== null; notice = native.receiveNotice(socket)) {
      const name = /^FDNAME=(.*)$/m.exec(notice.text)?.[1] ?? '';
      const isKept = notice.text.startsWith('FDSTORE=1\n');
      lines.push(`${isKept ? '+' : '-'} ${name}`);
      const before = kept.get(name);
      if (before !== undefined) native.close(before);
      kept.delete(name);
      if (isKept) kept.set(name, notice.fds[0]!);
    }
    return lines;
  }

  /** The next life gets descriptors of its own. */
  function handDown(): Map<string, number> {
    heard();
    const given = new Map<string, number>();
    for (const [name, fd] of kept) {
      native.notify(path, name, [fd]);
      given.set(name, native.receiveNotice(socket)!.fds[0]!);
    }
    return given;
  }

  const live = (given: ReadonlyMap<string, number>, wantsFresh = false): Succession =>
    new Succession({ NOTIFY_SOCKET: path }, wantsFresh, given);

  /** A life with two devices, that ends without a word. */
  function firstLife(): void {
    const life = live(new Map());
    expect([life.refusal, life.keep?.before]).toEqual(['', undefined]);
    life.begun([]);
    for (const name of ['front', 'a:b']) {
      const fd = native.eventfd();
      life.deviceOpened(name, fd);
      native.close(fd);
    }
    native.close(life.keep!.fd);
  }

  it('each thing is kept by its name, and let go of when the life ends for good', () => {
    firstLife();
    expect(heard()).toEqual(['+ guard', '+ tables-1', '+ device-front', '+ device-a%3Ab']);
    const life = live(handDown());
    life.begun(['front', 'a:b']);
    expect(heard()).toEqual(['+ tables-2', '- tables-1']);
    life.deviceClosed('a:b');
    life.end(false);
    expect(heard()).toEqual(['- device-a%3Ab', '- device-front', '- tables-2', '- guard']);
    expect(kept.size).toBe(0);
    native.close(life.keep!.fd);
  });

  it('tables of the life before take no memory any more when those of the next one are whole', () => {
    firstLife();
    const given = handDown();
    const tables = native.mapShared(given.get('tables-1')!, 8192);
    new Uint8Array(tables).fill(7);
    const { blocks } = fstatSync(given.get('tables-1')!);
    expect(blocks).toBeGreaterThan(0);
    const life = live(given);
    life.begun([]);
    heard();
    expect(new Uint8Array(tables).some((byte) => byte !== 0)).toBe(false);
    native.close(life.keep!.fd);
  });

  it('with a successor nothing is let go of', () => {
    firstLife();
    heard();
    const life = live(handDown());
    life.begun(['front', 'a:b']);
    heard();
    life.end(true);
    expect(heard()).toEqual([]);
    native.close(life.keep!.fd);
  });

  it('devices that are not taken over go away', () => {
    firstLife();
    const given = handDown();
    const life = live(given);
    expect(life.keep?.before).toEqual({
      fd: given.get('tables-1'),
      devices: { front: given.get('device-front'), 'a:b': given.get('device-a%3Ab') },
    });
    life.begun(['front']);
    // Before new descriptors take the numbers of old ones.
    expect(['device-front', 'device-a%3Ab', 'tables-1'].map((name) => isOpen(given.get(name)!))).toEqual([
      true,
      false,
      false,
    ]);
    expect(heard()).toEqual(['+ tables-2', '- tables-1', '- device-a%3Ab']);
    native.close(life.keep!.fd);
  });

  it('--fresh wants nothing of it', () => {
    firstLife();
    const given = handDown();
    const life = live(given, true);
    expect([life.refusal, life.keep?.before]).toEqual(['--fresh says so', undefined]);
    given.delete('guard');
    expect([...given.values()].filter(isOpen)).toEqual([]);
    expect(heard()).toEqual(['- tables-1', '- device-front', '- device-a%3Ab']);
    native.close(life.keep!.fd);
  });

  it('what nobody would keep is not gone on from', () => {
    firstLife();
    const life = new Succession({}, false, handDown());
    expect([life.refusal, life.keep]).toEqual(['there is no service manager', undefined]);
    life.begun([]);
    life.end(true);
    expect(heard()).toEqual([]);
  });

  it.each<[string, (life: Succession) => void, string]>([
    [
      'died young: the third begins with nothing, and the count anew',
      () => {},
      'the last 2 lives that went on from it ended within 5 s',
    ],
    ['ended as they were told to: that was no mistake', (life) => life.end(true), ''],
  ])('two lives that went on and %s', (_, finish, third) => {
    firstLife();
    const refusals: string[] = [];
    for (let i = 0; i < 4; i++) {
      const life = live(handDown());
      refusals.push(life.refusal);
      life.begun([]);
      finish(life);
      native.close(life.keep!.fd);
    }
    expect(refusals).toEqual(['', '', third, '']);
  });

  it('of several tables the last life’s count; memory that nobody wants is made anew', () => {
    firstLife();
    heard();
    kept.set('tables-12', newTables());
    const given = handDown();
    const life = live(given);
    expect(life.keep?.before?.fd).toBe(given.get('tables-12'));
    expect(life.stateBefore()).toBeNull();
    const { fd } = life.keep!;
    life.renewTables();
    expect(life.keep?.before?.fd).toBe(given.get('tables-12'));
    life.begun([]);
    expect(heard()).toEqual(['+ tables-13', '- tables-1', '- device-front', '- device-a%3Ab', '- tables-12']);
    if (life.keep!.fd !== fd) expect(isOpen(fd)).toBe(false);
    native.close(life.keep!.fd);
  });
});
