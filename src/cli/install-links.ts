/** `tapvs install-links DIR`: symbolic links by which the classic tools' names call this program. */
import { lstatSync, realpathSync, symlinkSync, unlinkSync } from 'node:fs';
import { join } from 'node:path';
import { CliError, Exit } from './command.ts';

/** Makes the links, says so. An existing link is replaced, anything else that stands in the way is an error. */
export function installLinks(args: readonly string[], names: readonly string[]): string {
  const [directory, extra] = args;
  if (directory === '--help' || directory === '-h') {
    return `Usage: tapvs install-links DIR\n\nMakes links in DIR, named ${names.join(', ')}, that call this program.\n`;
  }
  if (directory === undefined || extra !== undefined) throw new CliError('Usage: tapvs install-links DIR', Exit.Usage);
  const launcher = realpathSync(new URL('../../../bin/tapvs', import.meta.url));
  let said = '';
  for (const name of names) {
    const path = join(directory, name);
    try {
      if (isLink(path)) unlinkSync(path);
      symlinkSync(launcher, path);
    } catch (error) {
      const { code = 'unknown error' } = error as NodeJS.ErrnoException;
      throw new CliError(`tapvs: cannot make the link ${path}: ${code}`, Exit.CannotCreate);
    }
    said += `${path} -> ${launcher}\n`;
  }
  return said;
}

function isLink(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false })?.isSymbolicLink() === true;
}
