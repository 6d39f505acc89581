import { existsSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import * as native from '../device/native.ts';
import { DescriptorStore } from './store.ts';

const path = `@tapvs-store-${process.pid}`;

describe.skipIf(native.nativeProblem() !== null)('the descriptor store', () => {
  let socket: number;
  let store: DescriptorStore;

  beforeEach(() => {
    socket = native.noticeSocket(path);
    store = new DescriptorStore();
    store.pid = process.pid;
  });

  afterEach(() => {
    store.clear();
    native.close(socket);
  });

  /** What a service says, and the lines that are not about descriptors. */
  function say(text: string, fds: readonly number[] = []): string[] {
    native.notify(path, text, fds);
    return store.take(native.receiveNotice(socket)!);
  }

  const names = (): string[] => store.kept.map(({ name }) => name);
  const isOpen = (fd: number): boolean => existsSync(`/proc/self/fd/${fd}`);

  it('keeps what it is given under its name, and lets it go again', () => {
    const fd = native.eventfd();
    expect(say('FDSTORE=1\nFDNAME=device-front\nFDPOLL=0', [fd])).toEqual([]);
    expect(say('FDSTORE=1', [fd, fd])).toEqual([]);
    native.close(fd);
    expect(names()).toEqual(['device-front', 'stored', 'stored']);
    const kept = store.kept.map((row) => row.fd);
    expect(kept.map(isOpen)).toEqual([true, true, true]);
    say('FDSTOREREMOVE=1\nFDNAME=stored');
    expect(names()).toEqual(['device-front']);
    expect(kept.map(isOpen)).toEqual([true, false, false]);
    store.clear();
    expect(isOpen(kept[0]!)).toBe(false);
  });

  it('passes other words on', () => {
    expect(say('READY=1\nSTATUS=serving')).toEqual(['READY=1', 'STATUS=serving']);
    expect(say('FDSTOREREMOVE=1\nFDNAME=x\nSTATUS=gone')).toEqual(['STATUS=gone']);
  });

  it.each([
    ['a name with a colon', 'FDSTORE=1\nFDNAME=a:b'],
    ['a name with a control character', 'FDSTORE=1\nFDNAME=a\tb'],
    ['a descriptor without a word about it', 'READY=1'],
    ['a barrier', 'BARRIER=1'],
  ])('closes %s', (_, text) => {
    const fd = native.eventfd();
    native.notify(path, text, [fd]);
    native.close(fd);
    const notice = native.receiveNotice(socket)!;
    expect(notice.fds.map(isOpen)).toEqual([true]);
    store.take(notice);
    expect(notice.fds.map(isOpen)).toEqual([false]);
    expect(store.kept).toEqual([]);
  });

  it('keeps 64 at most, and nothing of a stranger', () => {
    const fd = native.eventfd();
    say('FDSTORE=1\nFDNAME=many', new Array(70).fill(fd));
    expect(store.kept.length).toBe(64);
    store.pid = process.pid + 1;
    expect(say('FDSTOREREMOVE=1\nFDNAME=many\nREADY=1')).toEqual([]);
    expect(store.kept.length).toBe(64);
    native.close(fd);
  });
});
