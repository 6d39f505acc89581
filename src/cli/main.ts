/**
 * The multi-call program: `tapvs COMMAND …`, or a link to it that is named as a command (`ipvsadm`). Only the module of the command that runs is
 * loaded, and nothing else of the program: it should start as fast as Node does.
 */
import { basename } from 'node:path';
import { DEFAULT_SOCKET } from '../control/api.ts';
import { ApiClient, ApiError, NoDaemonError } from './client.ts';
import { CliError, Exit } from './command.ts';
import { COMMANDS, readInvocation } from './commands.ts';

function helpText(): string {
  const width = Math.max(...COMMANDS.map((entry) => entry.name.length), 'install-links DIR'.length);
  const lines = COMMANDS.map((entry) => `  ${entry.name.padEnd(width)}  ${entry.summary}\n`).join('');
  return (
    'Usage: tapvs [--socket PATH] COMMAND [arguments]\n\nCommands (each explains itself with --help):\n' +
    lines +
    `  ${'install-links DIR'.padEnd(width)}  make links in DIR by which the classic tools' names call this program\n\n` +
    `The daemon's socket is ${DEFAULT_SOCKET}, unless --socket or TAPVS_SOCKET names another.\n`
  );
}

async function runOwn(command: string | undefined, args: readonly string[]): Promise<number> {
  switch (command) {
    case '--help':
    case '-h':
    case 'help':
      process.stdout.write(helpText());
      return Exit.Ok;
    case '--version':
    case '-V':
    case 'version': {
      const { readFile } = await import('node:fs/promises');
      const text = await readFile(new URL('../../../package.json', import.meta.url), 'utf8');
      process.stdout.write(`tapvs ${(JSON.parse(text) as { version: string }).version}\n`);
      return Exit.Ok;
    }
    case 'install-links': {
      const { installLinks } = await import('./install-links.ts');
      const names = COMMANDS.filter((entry) => entry.isClassic).map((entry) => entry.name);
      process.stdout.write(installLinks(args, names));
      return Exit.Ok;
    }
    case undefined:
      process.stderr.write(helpText());
      return Exit.Usage;
    default:
      process.stderr.write(`tapvs: unknown command "${command}", try "tapvs help".\n`);
      return Exit.Usage;
  }
}

async function main(): Promise<number> {
  const invocation = readInvocation(
    basename(process.env.TAPVS_CALLED_AS ?? 'tapvs'),
    process.argv.slice(2),
    process.env,
  );
  const entry = COMMANDS.find((candidate) => candidate.name === invocation.command);
  if (entry === undefined) return runOwn(invocation.command, invocation.args);
  const client = new ApiClient(invocation.socketPath);
  try {
    const command = await entry.load();
    return await command.run(invocation.args, {
      program: entry.name,
      client,
      stdin: process.stdin,
      out: (text) => process.stdout.write(text),
      err: (text) => process.stderr.write(text),
    });
  } finally {
    client.close();
  }
}

function fail(error: unknown): number {
  if (error instanceof NoDaemonError) {
    process.stderr.write(`tapvs: ${error.message}\n`);
    return Exit.Unavailable;
  }
  if (error instanceof CliError) {
    process.stderr.write(`${error.message}\n`);
    return error.exit;
  }
  if (error instanceof ApiError) {
    process.stderr.write(`tapvs: ${error.message}\n`);
    return 1;
  }
  process.stderr.write(`tapvs: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`);
  return Exit.Software;
}

// A reader that went away (`… | head`) is no error.
process.stdout.on('error', (error: NodeJS.ErrnoException) => process.exit(error.code === 'EPIPE' ? 0 : Exit.Software));

process.exitCode = await main().catch(fail);
