/** tapvsd's command line. A module of its own, because the entry reads it before anything big is loaded. */
import { parseArgs } from 'node:util';
import { DEFAULT_SOCKET } from './api.ts';

const DEFAULT_CONFIG = '/etc/tapvs/tapvs.yaml';
export const LEVELS = ['debug', 'info', 'warn', 'error', 'silent'] as const;

export const HELP = `Usage: tapvsd [--config FILE] [options]      serve until SIGTERM
       tapvsd check [--config FILE]          say what is wrong with the file, exit 78 when anything is
       tapvsd --dry-run [--config FILE]      print what a start would set up

  -c, --config FILE    configuration file (${DEFAULT_CONFIG})
  -s, --socket PATH    control socket ($TAPVS_SOCKET, or ${DEFAULT_SOCKET})
  -l, --log-level L    ${LEVELS.join(', ')} (else the file says)
      --fresh          begin with nothing, though an earlier life has left its connections
      --dry-run        print the plan and change nothing
      --test-clock     POST /v1/clock turns the clock forward (for tests)
  -h, --help           this text
  -V, --version        the version

Signals: HUP reads the file again and applies what has changed, established flows live on; a bad file is logged and changes
nothing. USR2 ends this process for another one, which takes over devices and connections: it is what 'systemctl restart' and
'tapvs supervise' send, who start that other one. TERM and INT end the daemon and remove its devices and socket; a second one ends it at once.
Exit codes: 0 ended as told, 64 usage, 70 internal error, 75 ended to be started again, 77 permission missing, 78 bad configuration.
`;

export interface Arguments {
  readonly command: 'serve' | 'check' | 'dry-run' | 'help' | 'version';
  readonly config: string;
  readonly socket: string;
  readonly logLevel: (typeof LEVELS)[number] | undefined;
  readonly testClock: boolean;
  readonly fresh: boolean;
}

export class UsageError extends Error {}

/** @throws UsageError */
export function readArguments(words: readonly string[], env: Readonly<Record<string, string | undefined>>): Arguments {
  const { values, positionals } = parse(words);
  const [command, ...rest] = positionals;
  if ((command !== undefined && command !== 'check') || rest.length > 0) {
    throw new UsageError(`'${[command, ...rest].join(' ')}': the only command is 'check'`);
  }
  const level = values['log-level'];
  const logLevel = LEVELS.find((known) => known === level);
  if (level !== undefined && logLevel === undefined) {
    throw new UsageError(`--log-level: '${level}' is not one of ${LEVELS.join(', ')}`);
  }
  const asked = values.help
    ? 'help'
    : values.version
      ? 'version'
      : (command ?? (values['dry-run'] ? 'dry-run' : 'serve'));
  return {
    command: asked,
    config: values.config ?? DEFAULT_CONFIG,
    socket: values.socket ?? (env.TAPVS_SOCKET || DEFAULT_SOCKET),
    logLevel,
    testClock: values['test-clock'] ?? false,
    fresh: values.fresh ?? false,
  };
}

function parse(words: readonly string[]) {
  try {
    return parseArgs({
      args: [...words],
      allowPositionals: true,
      options: {
        config: { type: 'string', short: 'c' },
        socket: { type: 'string', short: 's' },
        'log-level': { type: 'string', short: 'l' },
        fresh: { type: 'boolean' },
        'dry-run': { type: 'boolean' },
        'test-clock': { type: 'boolean' },
        help: { type: 'boolean', short: 'h' },
        version: { type: 'boolean', short: 'V' },
      },
    });
  } catch (error) {
    throw new UsageError((error instanceof Error ? error.message : String(error)).split('. ')[0]);
  }
}
