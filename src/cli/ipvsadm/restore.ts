/**
 * ipvsadm -R: one command per line of standard input, words parted by blanks (no quoting, no comments), words `ipvsadm` left out, blank lines passed over.
 * A command that the daemon refuses prints its message and the next one runs; a line that ipvsadm itself refuses ends the whole, and so do -h and -v. The status is that of
 * the last line. Changes go to the daemon in chunks; while one is under way the next lines are parsed.
 */
import type { Readable } from 'node:stream';
import type { IpvsCommand } from '../../model/ipvs.ts';
import type { CommandName } from './options.ts';
import type { Parsed } from './parse.ts';
import { Refused, tryHelp } from './refused.ts';

export interface RestoreSteps {
  parse(words: readonly string[]): Parsed | Promise<Parsed>;
  /** Applies changes in order; answers one message or null each. */
  apply(commands: readonly IpvsCommand[], names: readonly CommandName[]): Promise<readonly (string | null)[]>;
  /** Anything that is not a change. */
  run(parsed: Parsed): Promise<number>;
  err(text: string): void;
}

const CHUNK = 2000;

export async function restore(
  stdin: Readable & { readonly isTTY?: boolean },
  program: string,
  steps: RestoreSteps,
): Promise<number> {
  let status = 0;
  /** After -h and -v, which end the program. */
  let isOver = false;
  let commands: IpvsCommand[] = [];
  let names: CommandName[] = [];
  let underway: Promise<void> = Promise.resolve();

  const send = async () => {
    await underway;
    if (commands.length === 0) return;
    const [chunk, chunkNames] = [commands, names];
    commands = [];
    names = [];
    underway = steps.apply(chunk, chunkNames).then((messages) => {
      for (const message of messages) if (message !== null) steps.err(`${message}\n`);
      status = messages.at(-1) === null ? 0 : 255;
    });
    underway.catch(() => {});
  };
  const settle = async () => {
    await send();
    await underway;
  };

  const line = async (text: string) => {
    const words = text.split(/[ \t\r]+/).filter((word) => word !== '' && word !== 'ipvsadm');
    if (words.length === 0 || isOver) return;
    try {
      const parsing = steps.parse(words);
      const parsed = parsing instanceof Promise ? await parsing : parsing;
      if (parsed.kind === 'change') {
        commands.push(parsed.command);
        names.push(parsed.name);
        if (commands.length >= CHUNK) await send();
        return;
      }
      if (parsed.kind === 'restore') throw tryHelp(program);
      await settle();
      status = await steps.run(parsed);
      isOver = parsed.kind === 'help' || parsed.kind === 'version';
    } catch (error) {
      if (error instanceof Refused) await settle();
      if (!(error instanceof Refused) || error.isFatal) throw error;
      steps.err(`${error.message}\n`);
      status = error.exit;
    }
  };

  stdin.setEncoding('utf8');
  let rest = '';
  for await (const chunk of stdin as AsyncIterable<string>) {
    const lines = (rest + chunk).split('\n');
    rest = lines.pop() ?? '';
    for (const text of lines) await line(text);
    if (stdin.isTTY === true) await settle();
  }
  await line(rest);
  await settle();
  return status;
}
