/**
 * A thread that sleeps until something is said on a socket, and says so: Node cannot wait for a datagram of a unix socket by itself. The main thread reads
 * (so it can also do so at once, when the service has ended), then lets this one go on.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { createPollset, poll } from '../device/native.ts';

export interface WatchData {
  readonly socket: number;
  /** Ends the sleep when `state` is Watch.End. */
  readonly eventfd: number;
  /** One Int32 of Watch. */
  readonly state: SharedArrayBuffer;
}

export const Watch = { Sleep: 0, Read: 1, End: 2 } as const;

function watch({ socket, eventfd, state: shared }: WatchData): void {
  const state = new Int32Array(shared);
  const pollset = createPollset([socket, eventfd]);
  while (Atomics.load(state, 0) !== Watch.End) {
    if (poll(pollset, -1) <= 0) continue;
    if (Atomics.compareExchange(state, 0, Watch.Sleep, Watch.Read) !== Watch.Sleep) continue;
    parentPort?.postMessage(null);
    Atomics.wait(state, 0, Watch.Read);
  }
}

if (parentPort !== null) watch(workerData as WatchData);
