/** `tapvs capture`: the daemon's pcapng stream into a file, a pipe, or tcpdump's words. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createWriteStream } from 'node:fs';
import type { Writable } from 'node:stream';
import { NoDaemonError } from './client.ts';
import { type CliCommand, CliError, Exit } from './command.ts';
import { type OptionSpec, readOptions } from './options.ts';
import { PcapngSplitter } from './pcapng-splitter.ts';

const HELP = `Usage: tapvs capture [-i DEVICE] [--hook NAME] [-w FILE|-] [-c COUNT] [-s BYTES] [FILTER ...]
Packets as tapvsd sees them, until Ctrl-C or COUNT.
  -i, --interface DEVICE   only those of this device
      --hook NAME          as they pass this hook, instead of at the devices
  -w, --write FILE         as pcapng into FILE; - is standard output. Without it, tcpdump prints a line for each
  -c, --count COUNT        end after so many
  -s, --snaplen BYTES      at most so much of each
FILTER is an expression in tcpdump's words: tcp port 80 and host 10.0.1.2
`;

const OPTIONS: readonly OptionSpec[] = [
  { long: '--interface', short: '-i', takesValue: true },
  { long: '--hook', takesValue: true },
  { long: '--write', short: '-w', takesValue: true },
  { long: '--count', short: '-c', takesValue: true },
  { long: '--snaplen', short: '-s', takesValue: true },
];

export const capture: CliCommand = {
  async run(args, { client, out, err }) {
    const { flags, values, words } = readOptions('capture', args, OPTIONS);
    if (flags.has('help')) {
      out(HELP);
      return 0;
    }
    const limit = positive('-c', values.get('count')) ?? Number.POSITIVE_INFINITY;
    const query = new URLSearchParams({ filter: words.join(' ') });
    const device = values.get('interface');
    const hook = values.get('hook');
    const snapLength = positive('-s', values.get('snaplen'));
    if (device !== undefined) query.set('device', device);
    if (hook !== undefined) query.set('hook', hook);
    if (snapLength !== undefined) query.set('snaplen', String(snapLength));

    const response = await client.stream(`/v1/capture?${query}`);
    const sink = await openSink(values.get('write'));
    let isStopped = false;
    const stop = () => {
      isStopped = true;
      response.destroy();
    };
    process.on('SIGINT', stop);
    process.on('SIGTERM', stop);
    void sink.ended.then(stop);
    err(`tapvs capture: listening on ${device ?? 'all devices'}${hook === undefined ? '' : ` at ${hook}`}\n`);

    const blocks = new PcapngSplitter(limit);
    try {
      for await (const chunk of response as AsyncIterable<Buffer>) {
        const whole = blocks.push(chunk);
        if (whole.length > 0 && !sink.stream.write(whole)) await Promise.race([once(sink.stream, 'drain'), sink.ended]);
        if (blocks.packets >= limit) stop();
        if (isStopped) break;
      }
    } catch (error) {
      if (!isStopped) throw new NoDaemonError(`the daemon broke the capture off: ${(error as Error).message}`);
    }
    const status = await sink.finish();
    err(`${blocks.packets} packet${blocks.packets === 1 ? '' : 's'} captured\n`);
    if (!isStopped) throw new NoDaemonError('the daemon ended the capture');
    return status;
  },
};

function positive(option: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  if (!/^[1-9]\d{0,8}$/.test(text))
    throw new CliError(`tapvs capture: ${option} ${text}: a number above 0 is expected`, Exit.Usage);
  return Number(text);
}

interface Sink {
  readonly stream: Writable;
  /** Resolves when it takes no more, whoever ended it. */
  readonly ended: Promise<unknown>;
  /** Everything is written; answers the exit status of what took it. */
  finish(): Promise<number>;
}

async function openSink(file: string | undefined): Promise<Sink> {
  if (file === '-') return { stream: process.stdout, ended: new Promise(() => {}), finish: async () => 0 };
  if (file !== undefined) {
    const stream = createWriteStream(file);
    await once(stream, 'open').catch((error: NodeJS.ErrnoException) => {
      throw new CliError(`tapvs capture: cannot write ${file}: ${error.code}`, Exit.CannotCreate);
    });
    let fault: NodeJS.ErrnoException | undefined;
    stream.on('error', (error) => {
      fault = error;
    });
    const ended = new Promise<void>((resolve) => stream.once('close', () => resolve()));
    return {
      stream,
      ended,
      finish: async () => {
        stream.end();
        await ended;
        if (fault === undefined) return 0;
        throw new CliError(`tapvs capture: cannot write ${file}: ${fault.code}`, Exit.CannotCreate);
      },
    };
  }
  // A group of its own: Ctrl-C is for us, tcpdump ends when its input does.
  const tcpdump = spawn('tcpdump', ['-n', '-l', '-r', '-'], { stdio: ['pipe', 'inherit', 'ignore'], detached: true });
  await once(tcpdump, 'spawn').catch(() => {
    throw new CliError(
      'tapvs capture: tcpdump, which prints the packets, is not installed: write them to a file with -w',
      Exit.Unavailable,
    );
  });
  tcpdump.stdin.on('error', () => {});
  const ended = once(tcpdump, 'close').then(([code]) => (typeof code === 'number' ? code : Exit.Software));
  return {
    stream: tcpdump.stdin,
    ended,
    finish: () => {
      tcpdump.stdin.end();
      return ended;
    },
  };
}
