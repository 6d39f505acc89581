import { Readable } from 'node:stream';
import { describe, expect, it } from 'vitest';
import { errnoMessage } from './errors.ts';
import { Names } from './names.ts';
import { parse } from './parse.ts';
import { Refused } from './refused.ts';
import { restore } from './restore.ts';

const names = new Names();

/** Runs -R against a daemon that knows services by their key only; answers what came of it. */
async function run(input: string | readonly string[]) {
  const services = new Set<string>();
  const chunks: number[] = [];
  const log: string[] = [];
  const status = await restore(Readable.from(typeof input === 'string' ? [input] : input), 'ipvsadm', {
    parse: (words) => parse(words, 'ipvsadm', names),
    apply: async (commands, commandNames) => {
      chunks.push(commands.length);
      return commands.map((command, i) => {
        if (command.op !== 'add-service') return null;
        const key = JSON.stringify(command.service.key);
        if (services.has(key)) return errnoMessage(commandNames[i]!, 'EEXIST');
        services.add(key);
        return null;
      });
    },
    run: async (parsed) => {
      log.push(`${parsed.kind} after ${services.size}`);
      return 0;
    },
    err: (text) => log.push(text),
  }).catch((error: unknown) => {
    if (!(error instanceof Refused)) throw error;
    log.push(error.message);
    return error.exit;
  });
  return { status, log, services: services.size, chunks };
}

describe('ipvsadm -R', () => {
  it('goes on after what the daemon refuses; the last line decides the status', async () => {
    const twice = '-A -t 10.0.1.100:81 -s rr\n-A -t 10.0.1.100:81 -s rr\n';
    expect(await run(`${twice}-A -t 10.0.1.100:82 -s rr\n`)).toMatchObject({
      status: 0,
      log: ['Service already exists\n'],
      services: 2,
    });
    expect(await run(twice)).toMatchObject({ status: 255, services: 1 });
  });

  it('stops at what ipvsadm itself refuses, after all before it was done', async () => {
    expect(await run('-A -t 1.1.1.1:1\n-A -t 1.1.1.1:1\nfoo bar\n-A -t 1.1.1.1:2\n')).toEqual({
      status: 255,
      log: ['Service already exists\n', "Try `ipvsadm -h' or 'ipvsadm --help' for more information."],
      services: 1,
      chunks: [2],
    });
    expect(await run('-A -t 1.1.1.1:1\n# comment\n')).toMatchObject({ status: 255, services: 1 });
    expect(await run('-A -t "1.1.1.1:80" -s \'rr\'\n')).toMatchObject({
      status: 2,
      log: ['illegal virtual server address[:port] specified'],
    });
    expect(await run('-R\n-C\n')).toMatchObject({ status: 255, chunks: [] });
  });

  it('passes over a line that its option reader refuses', async () => {
    expect(await run('-A -t\n-A -t 1.1.1.1:1\n')).toEqual({
      status: 0,
      log: ['-t: missing argument\n'],
      services: 1,
      chunks: [1],
    });
    expect(await run('-A -t 1.1.1.1:1\n-A -t\n')).toMatchObject({ status: 255, services: 1 });
  });

  it('leaves out blank lines, blanks and the word ipvsadm', async () => {
    expect(await run('\n  \nipvsadm -A\t-t  1.1.1.1:1  \r\n\n-A -t 1.1.1.1:2')).toEqual({
      status: 0,
      log: [],
      services: 2,
      chunks: [2],
    });
    expect(await run('')).toMatchObject({ status: 0, chunks: [] });
  });

  it('ends with -h and -v, in peace', async () => {
    expect(await run('-A -t 1.1.1.1:1\n-h\n-A -t 1.1.1.1:2\n')).toMatchObject({
      status: 0,
      log: ['help after 1'],
      services: 1,
    });
    expect(await run('-v\nnonsense\n')).toMatchObject({ status: 0, log: ['version after 0'] });
  });

  it('does a list where it stands', async () => {
    expect(await run('-A -t 1.1.1.1:1\n-L\n-A -t 1.1.1.1:2\n-Sn\n')).toMatchObject({
      status: 0,
      log: ['list-services after 1', 'save after 2'],
    });
  });

  it('sends long input in chunks, in order, whatever pieces it comes in', async () => {
    const text = Array.from({ length: 5000 }, (_, i) => `-A -t 10.0.${i >> 8}.${i & 255}:80 -s rr\n`).join('');
    const pieces = text.match(/[\s\S]{1,777}/g)!;
    expect(await run(pieces)).toEqual({ status: 0, log: [], services: 5000, chunks: [2000, 2000, 1000] });
  });
});
