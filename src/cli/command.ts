/**
 * What a command of the multi-call program is: a function from arguments to an exit status, with its streams handed in.
 * A command may throw CliError (one line for the operator, and the exit status) and the errors of client.ts; main.ts prints them.
 */
import type { Readable } from 'node:stream';
import type { ApiClient } from './client.ts';

export interface CliContext {
  /** Name that the messages carry: the tool's own (`ipvsadm`), whatever the program's file is called. */
  readonly program: string;
  readonly client: ApiClient;
  readonly stdin: Readable & { readonly isTTY?: boolean };
  out(text: string | Uint8Array): void;
  err(text: string): void;
}

export interface CliCommand {
  /** Exit status of the process; the classic tools' -1 is 255. */
  run(args: readonly string[], context: CliContext): Promise<number>;
}

/** sysexits(3), for what the classic tools do not define. */
export const Exit = { Ok: 0, Usage: 64, Unavailable: 69, Software: 70, CannotCreate: 73 } as const;

/** Ends the command with one line on stderr. */
export class CliError extends Error {
  readonly exit: number;

  constructor(message: string, exit: number) {
    super(message);
    this.exit = exit;
  }
}
