/** `conntrack -R FILE`: commands from a file, one a line; all are read before the first is done (ct_parse_file). */
import { readFile } from 'node:fs/promises';
import type { CliContext } from '../command.ts';
import type { CommandName } from './commands.ts';
import type { Parsed } from './parse.ts';
import { Refused } from './refused.ts';

const ALLOWED: ReadonlySet<CommandName | undefined> = new Set<CommandName>([
  'create',
  'add',
  'update',
  'delete',
  'flush',
]);
/** What the tool calls the others; its table names one of them wrongly. */
const NAMES: Partial<Record<CommandName, string>> = {
  list: '-L',
  get: '-G',
  event: '-E',
  version: '-V',
  help: '-h',
  'list-expect': '-L expect',
  'create-expect': '-C expect',
  'delete-expect': '-D expect',
  'get-expect': '-G expect',
  'flush-expect': '-F expect',
  'event-expect': '-E expect',
  count: '-C',
  'count-expect': '-C expect',
  stats: '-S',
  'stats-expect': '-S expect',
};

export async function readCommands(
  file: string,
  stdin: CliContext['stdin'],
  parse: (words: readonly string[]) => Parsed,
): Promise<readonly Parsed[]> {
  const commands: Parsed[] = [];
  for (const line of (await readText(file, stdin)).split('\n')) {
    const start = line.replace(/^[ \t]*/, '');
    if (start === '' || start.startsWith('#')) continue;
    commands.push(parse(splitWords(start)));
  }
  const wrong = commands.find(({ command }) => !ALLOWED.has(command));
  if (wrong === undefined) return commands;
  const name = wrong.command === undefined ? 'unknown' : (NAMES[wrong.command] ?? 'unknown');
  throw new Refused(`Cannot use command \`${name}' with --load-file`);
}

async function readText(file: string, stdin: CliContext['stdin']): Promise<string> {
  if (file !== '-') {
    return readFile(file, 'utf8').catch(() => {
      throw new Refused(`Failed to open file ${file} for reading`);
    });
  }
  let text = '';
  for await (const chunk of stdin) text += String(chunk);
  return text;
}

/** Words parted by blanks; `"…"` holds them together, `\` takes the next sign as it is in there. */
export function splitWords(line: string): string[] {
  const words: string[] = [];
  let word = '';
  let isOpen = false;
  for (let i = 0; i < line.length; i++) {
    const sign = line[i]!;
    if (isOpen && sign === '\\' && i + 1 < line.length) {
      word += line[++i];
    } else if (sign === '"') {
      isOpen = !isOpen;
      if (isOpen) continue;
      // A closing quote ends a word, as a blank does.
      if (word !== '') words.push(word);
      word = '';
    } else if (!isOpen && (sign === ' ' || sign === '\t')) {
      if (word !== '') words.push(word);
      word = '';
    } else {
      word += sign;
    }
  }
  if (word !== '') words.push(word);
  return words;
}
