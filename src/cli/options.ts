/** Options of tapvs's own commands: long ones and single letters, values attached or next, words in any place. */
import { CliError, Exit } from './command.ts';

export interface OptionSpec {
  /** `--json` */
  readonly long: string;
  /** `-j` */
  readonly short?: string;
  readonly takesValue?: boolean;
}

export interface Options {
  readonly flags: ReadonlySet<string>;
  readonly values: ReadonlyMap<string, string>;
  readonly words: readonly string[];
}

/** By long name without dashes. `--help` and `-h` are always known. @throws CliError with status 64 */
export function readOptions(command: string, args: readonly string[], specs: readonly OptionSpec[]): Options {
  const flags = new Set<string>();
  const values = new Map<string, string>();
  const words: string[] = [];
  const known = [...specs, { long: '--help', short: '-h' }];
  const queue = [...args];
  for (let word = queue.shift(); word !== undefined; word = queue.shift()) {
    if (word === '--') {
      words.push(...queue);
      break;
    }
    if (!word.startsWith('-') || word === '-') {
      words.push(word);
      continue;
    }
    const isLong = word.startsWith('--');
    const equals = isLong ? word.indexOf('=') : -1;
    const name = isLong ? (equals < 0 ? word : word.slice(0, equals)) : word.slice(0, 2);
    const attached = isLong ? (equals < 0 ? undefined : word.slice(equals + 1)) : word.slice(2) || undefined;
    const spec: OptionSpec | undefined = known.find((one) => one.long === name || one.short === name);
    if (spec === undefined)
      throw new CliError(`tapvs ${command}: unknown option ${name}, see tapvs ${command} --help`, Exit.Usage);
    const key = spec.long.slice(2);
    if (spec.takesValue === true) {
      const value = attached ?? queue.shift();
      if (value === undefined) throw new CliError(`tapvs ${command}: ${name} needs a value`, Exit.Usage);
      values.set(key, value);
    } else {
      flags.add(key);
      if (attached === undefined) continue;
      if (isLong) throw new CliError(`tapvs ${command}: ${name} takes no value`, Exit.Usage);
      queue.unshift(`-${attached}`);
    }
  }
  return { flags, values, words };
}

export function refuseWords(command: string, { words }: Options): void {
  if (words.length > 0) {
    throw new CliError(`tapvs ${command}: unexpected "${words[0]}", see tapvs ${command} --help`, Exit.Usage);
  }
}
