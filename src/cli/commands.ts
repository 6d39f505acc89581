/** Which commands there are, and which one an invocation means. */
import { DEFAULT_SOCKET } from '../control/api.ts';
import { type CliCommand, CliError, Exit } from './command.ts';

interface Entry {
  readonly name: string;
  readonly summary: string;
  /** A classic tool: `install-links` makes a link of this name. */
  readonly isClassic: boolean;
  readonly load: () => Promise<CliCommand>;
}

export const COMMANDS: readonly Entry[] = [
  {
    name: 'ipvsadm',
    summary: 'virtual services, real servers, connections',
    isClassic: true,
    load: () => import('./ipvsadm/run.ts').then((module) => module.ipvsadm),
  },
];

interface Invocation {
  /** undefined: the program's own help or version is asked for. */
  readonly command: string | undefined;
  readonly args: readonly string[];
  readonly socketPath: string;
}

/** Which command is meant: by the name that the program was called by, else by the first word. `--socket PATH` may stand before. Throws CliError. */
export function readInvocation(
  calledAs: string,
  words: readonly string[],
  environment: Readonly<Record<string, string | undefined>>,
): Invocation {
  let socketPath = environment.TAPVS_SOCKET || DEFAULT_SOCKET;
  let at = 0;
  if (words[0] === '--socket') {
    if (words[1] === undefined) throw new CliError('tapvs: --socket needs a path', Exit.Usage);
    socketPath = words[1];
    at = 2;
  } else if (words[0]?.startsWith('--socket=') === true) {
    socketPath = words[0].slice('--socket='.length);
    at = 1;
  }
  const isClassic = COMMANDS.some((entry) => entry.isClassic && entry.name === calledAs);
  if (isClassic) return { command: calledAs, args: words.slice(at), socketPath };
  return { command: words[at], args: words.slice(at + 1), socketPath };
}
