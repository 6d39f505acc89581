/** `tapvs status`: what runs, since when, with how much; the exit status says whether it does. */
import type { Status } from '../control/api.ts';
import type { CliCommand } from './command.ts';
import { readOptions, refuseWords } from './options.ts';
import { formatTable } from './table.ts';

const HELP = `Usage: tapvs status [--json]
What the daemon says of itself. Exit status 0: it runs; 69: no daemon answers.
`;

export const status: CliCommand = {
  async run(args, { client, out }) {
    const options = readOptions('status', args, [{ long: '--json' }]);
    if (options.flags.has('help')) {
      out(HELP);
      return 0;
    }
    refuseWords('status', options);
    const found = await client.get<Status>('/v1/status');
    out(options.flags.has('json') ? `${JSON.stringify(found)}\n` : formatStatus(found));
    return 0;
  },
};

export function formatStatus(s: Status): string {
  const table = formatTable([
    ['tapvsd', `${s.version}, process ${s.pid}, up ${duration(s.uptimeSeconds)}`],
    ['configuration', `${s.configFile}, generation ${s.generation}`],
    ['workers', String(s.workers)],
    ['services', String(s.services)],
    ['servers', String(s.servers)],
    ['connections', String(s.connections)],
  ]);
  const devices = s.devices.map((d) => [`  ${d.name}`, d.kind, d.mac ?? '-', d.addresses.join(' ') || '-']);
  return devices.length === 0 ? table : `${table}devices\n${formatTable(devices)}`;
}

function duration(seconds: number): string {
  const whole = Math.trunc(seconds);
  const [days, hours, minutes] = [
    Math.trunc(whole / 86_400),
    Math.trunc(whole / 3600) % 24,
    Math.trunc(whole / 60) % 60,
  ];
  if (days > 0) return `${days}d ${hours}h ${minutes}min`;
  if (hours > 0) return `${hours}h ${minutes}min`;
  return minutes > 0 ? `${minutes}min ${whole % 60}s` : `${whole}s`;
}
