/** `tapvs hooks`: what sees a packet at which hook, in the order in which it sees it. */
import type { HookRow } from '../control/api.ts';
import type { CliCommand } from './command.ts';
import { readOptions, refuseWords } from './options.ts';
import { formatTable } from './table.ts';

const HELP = `Usage: tapvs hooks [--json]
Who is registered at which hook, with the priority and the reason for it.
`;

export const hooks: CliCommand = {
  async run(args, { client, out }) {
    const options = readOptions('hooks', args, [{ long: '--json' }]);
    if (options.flags.has('help')) {
      out(HELP);
      return 0;
    }
    refuseWords('hooks', options);
    const rows = await client.get<readonly HookRow[]>('/v1/hooks');
    if (options.flags.has('json')) out(`${JSON.stringify(rows)}\n`);
    else out(formatTable(rows.map((row) => [row.hook, row.priority, row.name, row.why])));
    return 0;
  },
};
