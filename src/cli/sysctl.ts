/** `tapvs sysctl`: tapvsd's own keys (net.ipv4.vs.*, net.ipv4.*, net.netfilter.*, parameters of nf_conntrack), in the words, forms and statuses of procps' sysctl. */
import { ApiError } from './client.ts';
import { type CliCommand, type CliContext, CliError } from './command.ts';
import { readOptions } from './options.ts';

const HELP = `Usage: tapvs sysctl [-n|-N] [-e] KEY ...
       tapvs sysctl [-w] [-n] [-q] KEY=VALUE ...
       tapvs sysctl -a [-n|-N] [-r PATTERN]
  -a, --all            all keys
  -n, --values         values only
  -N, --names          names only
  -r, --pattern RE     those whose name matches
  -w, --write          only KEY=VALUE is expected
  -q, --quiet          do not repeat what was set
  -e, --ignore         unknown keys are no error
`;

/** `sysctl` itself is content with 1 for every failure. */
const FAILED = 1;

interface Setting {
  readonly key: string;
  readonly value: string;
}

export const sysctl: CliCommand = {
  async run(args, context) {
    const options = readOptions('sysctl', args, [
      { long: '--all', short: '-a' },
      { long: '--values', short: '-n' },
      { long: '--names', short: '-N' },
      { long: '--pattern', short: '-r', takesValue: true },
      { long: '--write', short: '-w' },
      { long: '--quiet', short: '-q' },
      { long: '--ignore', short: '-e' },
    ]);
    const { flags, words } = options;
    if (flags.has('help')) {
      context.out(HELP);
      return 0;
    }
    const print = ({ key, value }: Setting) =>
      context.out(flags.has('values') ? `${value}\n` : flags.has('names') ? `${key}\n` : `${key} = ${value}\n`);
    const pattern = readPattern(options.values.get('pattern'));
    if (flags.has('all')) {
      for (const setting of await listAll(context)) if (pattern.test(setting.key)) print(setting);
      return 0;
    }
    if (words.length === 0) {
      context.err("sysctl: no variables specified\nTry `sysctl --help' for more information.\n");
      return FAILED;
    }
    let status = 0;
    const fail = (line: string) => {
      context.err(`sysctl: ${line}\n`);
      status = FAILED;
    };
    for (const word of words) {
      const equals = word.indexOf('=');
      if (equals < 0 && flags.has('write')) {
        fail('command line(0): invalid syntax, continuing...');
        continue;
      }
      const key = dotted((equals < 0 ? word : word.slice(0, equals)).trim());
      if (key === '') {
        fail('Path is not under /proc/sys/: /proc/sys/');
        continue;
      }
      try {
        if (equals >= 0) {
          const value = word.slice(equals + 1).trim();
          if (value === '') throw new ApiError('bad-value', 'empty');
          const setting = await context.client.put<Setting>(path(key), { value });
          // As it is read from now on, which may be something else: drop_packet=1 is 2 while memory is short. procps repeats what was said.
          if (!flags.has('quiet')) print(setting);
        } else {
          for (const setting of await read(context, key)) if (pattern.test(setting.key)) print(setting);
        }
      } catch (error) {
        if (!(error instanceof ApiError)) throw error;
        if (error.code === 'bad-value') {
          fail(`setting key "${key}": Invalid argument`);
          // Where the daemon knows a way.
          const hint = /: (.*)/.exec(error.message)?.[1];
          if (hint !== undefined) fail(hint);
        } else if (error.code !== 'no-such-key') throw error;
        else if (!flags.has('ignore')) fail(`cannot stat /proc/sys/${slashed(key)}: No such file or directory`);
      }
    }
    return status;
  },
};

function readPattern(text: string | undefined): RegExp {
  try {
    return new RegExp(text ?? '');
  } catch {
    throw new CliError(`sysctl: the pattern "${text}" is no regular expression`, FAILED);
  }
}

/** A key, or all below it. */
async function read(context: CliContext, key: string): Promise<readonly Setting[]> {
  const found = await context.client.get<Setting>(path(key)).catch(async (error: unknown) => {
    if (!(error instanceof ApiError) || error.code !== 'no-such-key') throw error;
    const below = (await listAll(context)).filter((setting) => setting.key.startsWith(`${key}.`));
    if (below.length === 0) throw error;
    return below;
  });
  return 'key' in found ? [found] : found;
}

async function listAll(context: CliContext): Promise<readonly Setting[]> {
  const pairs = await context.client.get<readonly (readonly [string, string])[]>('/v1/sysctl');
  return pairs.map(([key, value]) => ({ key, value })).sort((a, b) => (a.key < b.key ? -1 : a.key > b.key ? 1 : 0));
}

function path(key: string): string {
  return `/v1/sysctl/${encodeURIComponent(key)}`;
}

/**
 * `net/ipv4/conf/eth0.1/forwarding` is `net.ipv4.conf.eth0/1.forwarding`: the separator that comes first is the one. A module's parameter may be called by its
 * file.
 */
function dotted(key: string): string {
  const parameter = /^\/?sys\/module\/([^/]+)\/parameters\/([^/]+)$/.exec(key);
  if (parameter !== null) return `${parameter[1]}.${parameter[2]}`;
  return /^[^./]*\//.test(key) ? slashed(key) : key;
}

function slashed(key: string): string {
  return key.replace(/[./]/g, (sign) => (sign === '.' ? '/' : '.'));
}
