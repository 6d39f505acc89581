/** `tapvs reload`: the daemon reads its configuration file again; what changed is said line by line. */
import type { ReloadResult } from '../control/api.ts';
import { ApiError } from './client.ts';
import { type CliCommand, CliError } from './command.ts';
import { readOptions, refuseWords } from './options.ts';

const HELP = `Usage: tapvs reload [--json]
Reads the configuration file again and applies the difference; established flows stay. Exit status 0: done, also when nothing
had changed; 78: the file is wrong, nothing was changed.
`;

/** sysexits(3), EX_CONFIG. */
const WRONG_CONFIGURATION = 78;

export const reload: CliCommand = {
  async run(args, { client, out }) {
    const options = readOptions('reload', args, [{ long: '--json' }]);
    if (options.flags.has('help')) {
      out(HELP);
      return 0;
    }
    refuseWords('reload', options);
    const result = await client.post<ReloadResult>('/v1/reload', {}).catch((error: unknown) => {
      if (error instanceof ApiError && error.code === 'bad-config')
        throw new CliError(error.message, WRONG_CONFIGURATION);
      throw error;
    });
    if (options.flags.has('json')) out(`${JSON.stringify(result)}\n`);
    else if (result.changes.length === 0) out(`generation ${result.generation}: nothing had changed\n`);
    else out(`generation ${result.generation}\n${result.changes.map((line) => `${line}\n`).join('')}`);
    return 0;
  },
};
