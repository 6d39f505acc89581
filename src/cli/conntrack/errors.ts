/** The tool's words for an errno: err2str() of conntrack.c, by command, else strerror(3). */
import type { CtErrno } from '../../model/conntrack.ts';
import type { CommandName } from './commands.ts';

const STRERROR: Readonly<Record<CtErrno, string>> = {
  EALREADY: 'Operation already in progress',
  EBUSY: 'Device or resource busy',
  EEXIST: 'File exists',
  EINVAL: 'Invalid argument',
  EMFILE: 'Too many open files',
  ENOENT: 'No such file or directory',
  ENOMEM: 'Cannot allocate memory',
  ENOSPC: 'No space left on device',
  EOPNOTSUPP: 'Operation not supported',
  EPERM: 'Operation not permitted',
  ERANGE: 'Numerical result out of range',
};

interface Words {
  readonly errno: CtErrno;
  readonly text: string;
  /** Undefined: all but `-A`, which is younger than the table. */
  readonly commands?: readonly CommandName[] | undefined;
}

const WORDS: readonly Words[] = [
  { errno: 'EINVAL', text: 'invalid parameters' },
  { errno: 'EEXIST', text: 'Such conntrack exists, try -U to update', commands: ['create'] },
  { errno: 'ENOENT', text: "such conntrack doesn't exist", commands: ['create', 'get', 'delete', 'add'] },
  { errno: 'ENOMEM', text: 'not enough memory', commands: ['create', 'get', 'add'] },
  { errno: 'ENOENT', text: 'master conntrack not found', commands: ['create-expect'] },
];
const NOT_ROOT = 'sorry, you must be root or get CAP_NET_ADMIN capability to do this';

export function errnoText(errno: CtErrno, command: CommandName): string {
  if (errno === 'EPERM') return NOT_ROOT;
  const words = WORDS.find(
    ({ errno: known, commands }) =>
      known === errno && (commands === undefined ? command !== 'add' : commands.includes(command)),
  );
  return words?.text ?? STRERROR[errno];
}
