/** `tapvs supervise`: a service manager for where there is no systemd. Starts the command again when it ends, and keeps its descriptors meanwhile. */
import { constants } from 'node:os';
import { Supervisor } from '../supervise/supervisor.ts';
import { type CliCommand, CliError, Exit } from './command.ts';

const HELP = `Usage: tapvs supervise [--no-spare] [--] COMMAND [arguments]
Runs COMMAND (tapvsd …), starts it again when it ends, and keeps the descriptors that it gives away (devices, tables) for its next life, as systemd does:
so a new tapvsd goes on with the connections of the one before. For containers and labs; needs root or what COMMAND needs.

It is not started again after it has ended with status 0, 64 (usage) or 78 (configuration); supervise then ends with the same status. A command
that dies soon after its start several times in a row is started again after a pause, of ten seconds at most.

  --no-spare   do not start the next tapvsd before it is needed. Else one waits with its program loaded, so that a crash is over sooner, and takes
               as much memory as an idle tapvsd

Signals: USR2 restarts the command without loss (for a new version, or limits of the configuration): a new tapvsd is started, and goes on when it is ready; HUP and USR1 are passed on; TERM and INT end it for good.
`;

export const supervise: CliCommand = {
  async run(args, { out, err }) {
    if (args[0] === '--help' || args[0] === '-h') {
      out(HELP);
      return Exit.Ok;
    }
    const wantsSpare = args[0] !== '--no-spare';
    const rest = wantsSpare ? args : args.slice(1);
    const words = rest[0] === '--' ? rest.slice(1) : rest;
    if (words[0] === undefined)
      throw new CliError('tapvs supervise: a command is needed, see tapvs supervise --help', Exit.Usage);
    if (rest[0]?.startsWith('-') === true && rest[0] !== '--')
      throw new CliError(`tapvs supervise: unknown option ${rest[0]}, see tapvs supervise --help`, Exit.Usage);
    const supervisor = new Supervisor(words, wantsSpare, (line) => err(`tapvs supervise: ${line}\n`));
    for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => supervisor.end());
    for (const signal of ['SIGHUP', 'SIGUSR1'] as const) process.on(signal, () => supervisor.pass(signal));
    process.on('SIGUSR2', () => supervisor.restart());
    const { code, signal } = await supervisor.run();
    return code ?? 128 + constants.signals[signal ?? 'SIGKILL'];
  },
};
