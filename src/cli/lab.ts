/** `tapvs lab`: hands over to the lab's own program (src/lab/main.ts), which stands above the command line and brings its own help. */
import { spawn } from 'node:child_process';
import { constants } from 'node:os';
import { fileURLToPath } from 'node:url';
import type { CliCommand } from './command.ts';

export const lab: CliCommand = {
  run(args) {
    const program = fileURLToPath(new URL('../lab/main.js', import.meta.url));
    // Ctrl-C reaches both; the lab takes down what it was building and says so by its end.
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => child.kill(signal));
    const child = spawn(process.execPath, [program, ...args], { stdio: 'inherit' });
    return new Promise((resolve, reject) => {
      child.once('error', reject);
      child.once('exit', (code, signal) => resolve(code ?? 128 + constants.signals[signal!]));
    });
  },
};
