import { afterEach, expect, it } from 'vitest';
import { KEEP_SIZE, Kept } from '../base/keep.ts';
import { wholeOf } from '../base/memory.ts';
import { finish } from '../base/slices.ts';
import * as native from '../device/native.ts';
import { makeAhead, start } from './start.ts';

const fds: number[] = [];
const memory = (): number => {
  const fd = native.memfd('tapvs-start-test', KEEP_SIZE);
  fds.push(fd);
  return fd;
};
afterEach(() => {
  for (const fd of fds.splice(0)) native.close(fd);
});

it.skipIf(native.nativeProblem() !== null)(
  'tables made ahead that are not what is wanted leave nothing in the new ones',
  () => {
    const fd = memory();
    const sizes = { maxEntries: 100, maxPackets: 16, spin: 0 };
    const ahead = makeAhead({ ...sizes, maxConnections: 100, keepFd: fd });
    const key = { kind: 'address', protocol: 'tcp', address: '10.0.1.100', port: 80 } as const;
    const service = { key, scheduler: 'rr', schedulerFlags: 0, ops: false };
    expect(ahead.engine.executeIpvs([{ op: 'add-service', service }])).toEqual([null]);
    const keep = { fd, before: { fd: memory(), devices: {} } };
    const [eventfd, signal] = [-1, new SharedArrayBuffer(4)];
    const data = { ...sizes, maxConnections: 200, testClock: false, eventfd, signal, keep };
    const { steps } = start(data, () => {}, ahead);
    expect(finish(steps)).toEqual({ adopted: false, why: 'it is no memory of tapvs' });
    const kept = Kept.open((offset, bytes) => wholeOf(native.mapShared(fd, bytes, offset)));
    if (typeof kept === 'string') throw new Error(kept);
    expect(kept.uint8('services.flags').some((flags) => flags !== 0)).toBe(false);
  },
);
