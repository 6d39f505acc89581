/** `tapvs trace`: the ways of live packets, as they pass. */
import type { TraceRecord } from '../control/api.ts';
import { NoDaemonError } from './client.ts';
import { type CliCommand, CliError, Exit } from './command.ts';
import { type OptionSpec, readOptions } from './options.ts';
import { formatWays } from './way-text.ts';

const HELP = `Usage: tapvs trace [-i DEVICE] [-c COUNT] [--json] [FILTER ...]
What becomes of live packets and why, until Ctrl-C or COUNT; what tapvs explain says, of packets that pass.
  -i, --interface DEVICE   only those that come in by this device
  -c, --count COUNT        end after so many
      --json               a line of JSON for each
FILTER is an expression in tcpdump's words, of packets as they come in: tcp port 80 and host 10.0.1.2
At most 250 packets a second are traced, 500 at once; how many were left out is said.
`;

const OPTIONS: readonly OptionSpec[] = [
  { long: '--interface', short: '-i', takesValue: true },
  { long: '--count', short: '-c', takesValue: true },
  { long: '--json' },
];

export const trace: CliCommand = {
  async run(args, { client, out, err }) {
    const { flags, values, words } = readOptions('trace', args, OPTIONS);
    if (flags.has('help')) {
      out(HELP);
      return 0;
    }
    const limit = readCount(values.get('count'));
    const query = new URLSearchParams({ filter: words.join(' ') });
    const device = values.get('interface');
    if (device !== undefined) query.set('device', device);

    const response = await client.stream(`/v1/trace?${query}`);
    let isStopped = false;
    const stop = () => {
      isStopped = true;
      response.destroy();
    };
    process.on('SIGINT', stop);
    process.on('SIGTERM', stop);
    err(`tapvs trace: tracing on ${device ?? 'all devices'}\n`);

    let count = 0;
    let rest = '';
    response.setEncoding('utf8');
    try {
      reading: for await (const chunk of response as AsyncIterable<string>) {
        const lines = (rest + chunk).split('\n');
        rest = lines.pop()!;
        for (const line of lines) {
          const record = JSON.parse(line) as TraceRecord;
          if (flags.has('json')) out(`${line}\n`);
          else out(formatRecord(record));
          if (record.ways.length > 0 && ++count === limit) {
            stop();
            break reading;
          }
        }
      }
    } catch (error) {
      if (!isStopped) throw new NoDaemonError(`the daemon broke the trace off: ${(error as Error).message}`);
    } finally {
      process.off('SIGINT', stop);
      process.off('SIGTERM', stop);
    }
    err(`${packets(count)} traced\n`);
    if (!isStopped) throw new NoDaemonError('the daemon ended the trace');
    return 0;
  },
};

function readCount(text: string | undefined): number {
  if (text === undefined) return Number.POSITIVE_INFINITY;
  if (/^[1-9]\d{0,8}$/.test(text)) return Number(text);
  throw new CliError(`tapvs trace: -c ${text}: a number above 0 is expected`, Exit.Usage);
}

function packets(count: number): string {
  return count === 1 ? '1 packet' : `${count} packets`;
}

export function formatRecord({ timeUs, missed, ways }: TraceRecord): string {
  const time = new Date(timeUs / 1000).toISOString().slice(11, 23);
  if (ways.length === 0) return `(${packets(missed)} up to ${time} not traced)\n\n`;
  const gap = missed === 0 ? '' : `(${packets(missed)} before this one not traced)\n`;
  return `${gap}${time} ${formatWays(ways)}\n`;
}
