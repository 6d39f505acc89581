// The data worker's sleep: a wake-up without a message must not keep it awake.
import { Worker } from 'node:worker_threads';
import { afterAll, expect, it } from 'vitest';
import * as native from '../src/device/native.ts';

const file = new URL('../dist/src/engine/worker.js', import.meta.url);
const eventfd = native.eventfd();
const signal = new SharedArrayBuffer(4);
const limits = { maxConnections: 16, maxPackets: 64, spin: 20, testClock: false };
const worker = new Worker(file, { workerData: {} });
worker.postMessage({ eventfd, signal, ...limits });

afterAll(async () => {
  await worker.terminate();
  native.close(eventfd);
});

function breaths(id: number): Promise<number> {
  return new Promise((resolve) => {
    const take = (message: { type: string; id?: number; result?: { breaths: number } }): void => {
      if (message.type !== 'reply' || message.id !== id) return;
      worker.off('message', take);
      resolve(message.result?.breaths ?? 0);
    };
    worker.on('message', take);
    worker.postMessage({ id, name: 'ping', args: {} });
    Atomics.store(new Int32Array(signal), 0, 1);
    native.eventfdSignal(eventfd);
  });
}

it('sleeps again after an eventfd signal that came when its message had been taken already', async () => {
  await new Promise<void>((resolve) => {
    worker.on('message', ({ type }: { type: string }) => type === 'ready' && resolve());
  });
  // The main thread raises the flag first; a worker that is just breathing takes the message before the eventfd is signalled.
  native.eventfdSignal(eventfd);
  const before = await breaths(1);
  native.eventfdSignal(eventfd);
  await new Promise((resolve) => setTimeout(resolve, 500));
  // Idle, it turns about ten times a second; awake for nothing, tens of thousands of times.
  expect((await breaths(2)) - before).toBeLessThan(1000);
});
