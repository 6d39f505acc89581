/**
 * A process that is started before it is needed: it loads all its code, makes its tables, says so, and sleeps until the one before it has ended and the service manager sends what that
 * one has left. `tapvs supervise` starts such a one: $TAPVS_SPARE is where it listens.
 */
import { close, createPollset, destroyPollset, noticeSocket, notify, poll, receiveNotice } from '../device/native.ts';
import type { Config } from './config.ts';
import { newTables } from './succession.ts';
import { WorkerThread } from './worker-thread.ts';

/** How often it is looked whether the parent is there. */
const PARENT_MS = 2_000;

export interface Turn {
  readonly given: ReadonlyMap<string, number>;
  /** Waits for its settings, with tables in the memory of `fd`. */
  readonly thread: WorkerThread;
  readonly fd: number;
}

export type Sizes = Pick<Config, 'limits' | 'spin'>;

/** Resolves when it is our turn. @param readSizes loads the rest of the program, and reads the configuration; null when that is faulty */
export async function waitForTurn(
  path: string,
  manager: string,
  readSizes: () => Promise<Sizes | null>,
): Promise<Turn> {
  const socket = noticeSocket(path);
  const fd = newTables();
  const sizes = await readSizes();
  const thread = new WorkerThread({ sizes, fd });
  await thread.loaded;
  notify(manager, 'X_TAPVS_SPARE=1');
  const pollset = createPollset([socket]);
  let notice = receiveNotice(socket);
  // Nothing else is to be done meanwhile; a signal ends the process, and so does the end of who would say that it is our turn.
  const parent = process.ppid;
  while (notice === null) {
    poll(pollset, PARENT_MS);
    if (process.ppid !== parent) process.exit(0);
    notice = receiveNotice(socket);
  }
  destroyPollset(pollset);
  close(socket);
  const names = notice.text.split(':');
  return { given: new Map(notice.fds.map((fd, i) => [names[i] ?? '', fd])), thread, fd };
}
