/**
 * The first thing that the daemon does. When an earlier life has left connections, the data worker goes on from them at once; only then is the rest
 * loaded, which takes longer than all of that. Imports nothing big.
 */
import { type Arguments, readArguments } from './arguments.ts';
import { hasSameLimits } from './control-state.ts';
import { Succession } from './succession.ts';
import { WorkerThread } from './worker-thread.ts';

export interface EarlyStart {
  readonly args: Arguments;
  readonly succession: Succession;
  readonly thread: WorkerThread | undefined;
}

/** Resolves when the worker forwards, where one could be started. @throws UsageError */
export async function startEarly(
  words: readonly string[],
  env: Record<string, string | undefined>,
): Promise<EarlyStart> {
  const args = readArguments(words, env);
  if (args.command !== 'serve') return { args, succession: new Succession({}, false), thread: undefined };
  const succession = new Succession(env, args.fresh);
  const thread = startWorker(args, succession);
  // Two threads that load programs would be in each other's way, and packets wait.
  await thread?.spoken();
  return { args, succession, thread };
}

function startWorker({ testClock }: Arguments, succession: Succession): WorkerThread | undefined {
  const state = succession.stateBefore();
  if (state === null || !hasSameLimits(state)) return undefined;
  const { limits, spin } = state;
  return new WorkerThread({ limits, spin, testClock, keep: succession.keep });
}
