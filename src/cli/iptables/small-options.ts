/** Options of iptables-save and iptables-restore: short ones also in clusters, long ones also abbreviated, values attached or next. */
import { CliError } from '../command.ts';
import { Status } from './failure.ts';

export interface SmallOption {
  readonly letter: string;
  readonly long: string;
  readonly takesValue?: boolean;
  /** The value may be missing; then it is ''. */
  readonly isValueOptional?: boolean;
}

/** By letter. @throws CliError with the tool's words, and `hint` below them */
export function readSmallOptions(
  program: string,
  args: readonly string[],
  options: readonly SmallOption[],
  hint: string,
): { readonly given: ReadonlyMap<string, string>; readonly words: readonly string[] } {
  const given = new Map<string, string>();
  const words: string[] = [];
  const queue = [...args];
  const refuse = (why: string): CliError => new CliError(`${program}: ${why}\n${hint}`, Status.Other);
  const take = (option: SmallOption, attached: string | undefined, shown: string): void => {
    if (option.isValueOptional === true) {
      const isNext = attached === undefined && /^[0-9]/.test(queue[0] ?? '');
      given.set(option.letter, attached ?? (isNext ? queue.shift()! : ''));
      return;
    }
    if (option.takesValue !== true) {
      if (attached !== undefined) throw refuse(`option '--${option.long}' doesn't allow an argument`);
      given.set(option.letter, '');
      return;
    }
    const value = attached ?? queue.shift();
    if (value === undefined) throw refuse(`option ${shown}`);
    given.set(option.letter, value);
  };
  for (let word = queue.shift(); word !== undefined; word = queue.shift()) {
    if (word === '--') {
      words.push(...queue);
      break;
    }
    if (word[0] !== '-' || word === '-') {
      words.push(word);
      continue;
    }
    if (word[1] === '-') {
      const equals = word.indexOf('=');
      const name = equals < 0 ? word.slice(2) : word.slice(2, equals);
      const exact = options.find(({ long }) => long === name);
      const found = exact === undefined ? options.filter(({ long }) => long.startsWith(name)) : [exact];
      const [option] = found;
      if (option === undefined) throw refuse(`unrecognized option '${word}'`);
      if (found.length > 1) {
        const names = found.map(({ long }) => `'--${long}'`).join(' ');
        throw refuse(`option '${word}' is ambiguous; possibilities: ${names}`);
      }
      take(option, equals < 0 ? undefined : word.slice(equals + 1), `'--${option.long}' requires an argument`);
      continue;
    }
    for (let at = 1; at < word.length; at++) {
      const letter = word[at]!;
      const option = options.find((one) => one.letter === letter);
      if (option === undefined) throw refuse(`invalid option -- '${letter}'`);
      const rest = word.slice(at + 1);
      const takes = option.takesValue === true || option.isValueOptional === true;
      take(option, takes && rest !== '' ? rest : undefined, `requires an argument -- '${letter}'`);
      if (takes) break;
    }
  }
  return { given, words };
}
