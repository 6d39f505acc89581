// Waiting for what the daemon writes into its log, without asking again and again.
import { readFileSync, statSync, watch } from 'node:fs';

const LIMIT_MS = 10_000;

/** Length of the log now: where to begin with what comes next. */
export function endOf(file: string): number {
  return statSync(file).size;
}

/** Resolves with the first line behind byte `from` that matches; rejects, with all that came instead, after 10 s. */
export function logged(file: string, pattern: RegExp, from: number): Promise<string> {
  return new Promise((resolve, reject) => {
    const finish = (settle: () => void): void => {
      clearTimeout(late);
      watcher.close();
      settle();
    };
    const look = (): void => {
      const line = since(file, from)
        .split('\n')
        .find((candidate) => pattern.test(candidate));
      if (line !== undefined) finish(() => resolve(line));
    };
    const watcher = watch(file, look);
    const late = setTimeout(
      () => finish(() => reject(new Error(`${file} does not say ${pattern}, but: ${since(file, from) || 'nothing'}`))),
      LIMIT_MS,
    );
    look();
  });
}

function since(file: string, from: number): string {
  return readFileSync(file).subarray(from).toString();
}
