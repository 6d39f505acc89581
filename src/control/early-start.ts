/**
 * The first thing that the daemon does. When an earlier life has left connections, the data worker goes on from them at once; only then is the rest
 * loaded, which takes longer than all of that. Imports nothing big.
 */
import { setTimeout } from 'node:timers/promises';
import { type Arguments, readArguments } from './arguments.ts';
import { hasSameLimits } from './control-state.ts';
import { waitForTurn } from './spare.ts';
import { Succession } from './succession.ts';
import { type WorkerSettings, WorkerThread } from './worker-thread.ts';

/** The worker has the processor for itself so long: then what has waited is through. */
const WARM_UP_MS = 200;

export interface EarlyStart {
  readonly args: Arguments;
  readonly succession: Succession;
  readonly thread: WorkerThread | undefined;
}

/** Resolves when the worker forwards, where one could be started. @param load loads the rest of the program @throws UsageError */
export async function startEarly(
  words: readonly string[],
  env: Record<string, string | undefined>,
  load: () => Promise<unknown>,
): Promise<EarlyStart> {
  const args = readArguments(words, env);
  if (args.command !== 'serve') return { args, succession: new Succession({}, false), thread: undefined };
  const { TAPVS_SPARE: path = '', NOTIFY_SOCKET: manager = '' } = env;
  delete env.TAPVS_SPARE;
  const turn = path === '' || manager === '' ? undefined : await waitForTurn(path, manager, load);
  const succession = new Succession(env, args.fresh, turn?.given);
  const settings = settingsBefore(args, succession);
  if (settings === undefined) {
    await turn?.thread?.kill();
    return { args, succession, thread: undefined };
  }
  const thread = turn?.thread ?? new WorkerThread(settings);
  if (thread === turn?.thread) thread.begin(settings);
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
