/**
 * How the kernel reads a number that is written to a sysctl (kernel/sysctl.c: proc_dointvec with proc_get_long): the first word counts and what follows it
 * is not looked at; hexadecimal and octal numbers are told by their beginning, as strtoul with base 0 does. Not per packet.
 */

/** Longest number that the kernel copies (TMPBUFLEN - 1). */
const LONGEST_WORD = 21;

/**
 * @returns the number; 'nothing' when nothing was written, which changes nothing; undefined for what is no number
 */
export function parseNumber(text: string): number | 'nothing' | undefined {
  if (text === '') return 'nothing';
  const word = /^\s*(\S+)/.exec(text)?.[1];
  if (word === undefined || word.length > LONGEST_WORD) return undefined;
  const parts = /^(-?)(0x[0-9a-f]+|0[0-7]*|[1-9][0-9]*)$/i.exec(word);
  if (parts === null) return undefined;
  const [, sign, digits] = parts;
  const isOctal = digits!.length > 1 && digits!.startsWith('0') && !/^0x/i.test(digits!);
  const value = isOctal ? Number.parseInt(digits!, 8) : Number(digits);
  return sign === '-' ? -value : value;
}
