/** `tapvs drops`: why packets were dropped, and how many. */
import type { DropRow } from '../control/api.ts';
import type { CliCommand } from './command.ts';
import { readOptions, refuseWords } from './options.ts';
import { formatTable } from './table.ts';

const HELP = `Usage: tapvs drops [-a] [--json]
Every reason for which packets were dropped, with its counter; with -a (--all) also those that have not happened.
`;

export const drops: CliCommand = {
  async run(args, { client, out }) {
    const options = readOptions('drops', args, [{ long: '--all', short: '-a' }, { long: '--json' }]);
    if (options.flags.has('help')) {
      out(HELP);
      return 0;
    }
    refuseWords('drops', options);
    const all = await client.get<readonly DropRow[]>('/v1/drops');
    const rows = options.flags.has('all') ? all : all.filter((row) => row.count !== 0);
    if (options.flags.has('json')) out(`${JSON.stringify(rows)}\n`);
    else out(formatTable(rows.map((row) => [row.count, row.name, row.text])));
    return 0;
  },
};
