/** How the tools of iptables end: messages and exit statuses of iptables-legacy 1.8.9. */

import type { TableFault } from '../../model/iptables.ts';
import { CliError } from '../command.ts';

export const VERSION = 'v1.8.9 (legacy)';

/** Exit statuses, include/xtables.h, enum xtables_exittype. */
export const Status = { Ok: 0, Other: 1, BadParameter: 2, VersionProblem: 3 } as const;

/** What a parser refuses. @param line of iptables-restore's input */
export function parameterProblem(program: string, message: string, line?: number): CliError {
  return new CliError(`${program} ${VERSION}: ${message}\n${hint(program, line)}`, Status.BadParameter);
}

export function hint(program: string, line?: number): string {
  const where = line === undefined ? '' : `Error occurred at line: ${line}\n`;
  return `${where}Try \`${program} -h' or '${program} --help' for more information.`;
}

/** What the kernel, or libiptc, would say; by command where it has words of its own (iptc_strerror). */
const MESSAGES: Readonly<Partial<Record<TableFault, string>>> = {
  ENOENT: 'No chain/target/match by that name',
  EEXIST: 'File exists',
  EINVAL: 'Invalid argument',
  EMLINK: 'Too many links',
  ENOTEMPTY: 'Directory not empty',
  ELOOP: 'Too many levels of symbolic links',
  ERANGE: 'Numerical result out of range',
  'NO-RULE': 'Bad rule (does a matching rule exist in that chain?)',
  'NO-BUILT-IN': 'Bad built-in chain name',
  'BAD-POLICY': 'Bad policy name',
};
const TOO_BIG: Readonly<Record<string, string>> = {
  insert: 'Index of insertion too big',
  replace: 'Index of replacement too big',
  'delete-at': 'Index of deletion too big',
  zero: 'Index of counter too big',
};

/** Without the program's name. @param op of the command that failed */
export function faultMessage(fault: TableFault, op: string): string {
  const text =
    fault === 'E2BIG'
      ? TOO_BIG[op]
      : fault === 'EEXIST' && op === 'new-chain'
        ? 'Chain already exists'
        : MESSAGES[fault];
  const isInvalid = fault === 'EINVAL' || fault === 'BAD-POLICY';
  return `${text ?? fault}.${isInvalid ? " Run `dmesg' for more information." : ''}`;
}

/** Why a file cannot be opened, as strerror(3) says it. */
export function fileFault({ code, message }: NodeJS.ErrnoException): string {
  if (code === 'ENOENT') return 'No such file or directory';
  return code === 'EACCES' ? 'Permission denied' : (code ?? message);
}

/** Faults that the classic tool finds itself, in its parser; undefined for all others. */
export function parserMessage(fault: TableFault, what: string): string | undefined {
  if (fault === 'NO-TARGET') return `Couldn't load target \`${what}':No such file or directory\n`;
  if (fault === 'NO-MATCH') return `Couldn't load match \`${what}':No such file or directory\n`;
  if (fault === 'NO-GOTO') return `goto '${what}' is not a chain`;
  return fault === 'BAD-WORDS' ? what : undefined;
}
