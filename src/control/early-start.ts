/**
 * The first thing that the daemon does. When an earlier life has left connections, the data worker goes on from them at once; only then is the rest
 * loaded, which takes longer than all of that. Imports nothing big.
 */
import { setTimeout } from 'node:timers/promises';
import { type Arguments, readArguments } from './arguments.ts';
import { hasSameLimits } from './control-state.ts';
import { type Sizes, waitForTurn } from './spare.ts';
import { isSomethingLeft, Succession } from './succession.ts';
import { type WorkerSettings, WorkerThread } from './worker-thread.ts';

/** The worker has the processor for itself so long: then what has waited is through. */
const WARM_UP_MS = 200;

export interface EarlyStart {
  readonly args: Arguments;
  readonly succession: Succession;
  readonly thread: WorkerThread | undefined;
}

/** The rest of the program, which is loaded later. */
export interface Rest {
  /** Null when the configuration is faulty. */
  readonly readSizes: (configFile: string) => Sizes | null;
}

/** Resolves when the worker forwards, where one could be started. @throws UsageError */
export async function startEarly(
  words: readonly string[],
  env: Record<string, string | undefined>,
  load: () => Promise<Rest>,
): Promise<EarlyStart> {
  const args = readArguments(words, env);
  if (args.command !== 'serve') return { args, succession: new Succession({}, false), thread: undefined };
  const { TAPVS_SPARE: path = '', NOTIFY_SOCKET: manager = '' } = env;
  delete env.TAPVS_SPARE;
  // It loads its code while this thread looks at what was left.
  const early = isSomethingLeft(env) ? new WorkerThread() : undefined;
  const turn =
    path === '' || manager === ''
      ? undefined
      : await waitForTurn(path, manager, async () => (await load()).readSizes(args.config));
  const succession = new Succession(env, args.fresh, turn?.given, turn?.fd);
  const settings = settingsBefore(args, succession);
  const thread = turn?.thread ?? early;
  if (settings === undefined || thread === undefined) {
    await thread?.kill();
    if (turn !== undefined) succession.renewTables();
    return { args, succession, thread: undefined };
  }
  thread.begin(settings);
  // Two threads that load programs would be in each other's way, and packets wait: also for the code that meets them first to be compiled.
  await thread.spoken();
  await setTimeout(WARM_UP_MS);
  return { args, succession, thread };
}

/** What the worker needs to go on from the life before; undefined when there is nothing, or the configuration has to be read before. */
function settingsBefore({ testClock }: Arguments, succession: Succession): WorkerSettings | undefined {
  const state = succession.stateBefore();
  if (state === null || !hasSameLimits(state)) return undefined;
  const { limits, spin } = state;
  return { limits, spin, testClock, keep: succession.keep };
}
