/** Which commands there are, and the rule of which option goes with which (generic_opt_check() of conntrack.c). */
import { Refused } from './refused.ts';

export type CommandName =
  | 'list'
  | 'create'
  | 'update'
  | 'delete'
  | 'get'
  | 'flush'
  | 'event'
  | 'version'
  | 'help'
  | 'list-expect'
  | 'create-expect'
  | 'delete-expect'
  | 'get-expect'
  | 'flush-expect'
  | 'event-expect'
  | 'count'
  | 'count-expect'
  | 'stats'
  | 'stats-expect'
  | 'add';

/** For each option in its order: '0' illegal, '1' compulsory, '2' optional, '3' one of two pairs. */
export type Rules = string;

/** Two pairs of options of which one must be there whole, and what is said when it is not. */
export interface Pairs<Option extends string> {
  readonly pairs: readonly [readonly [Option, Option], readonly [Option, Option]];
  readonly missing: readonly [string, string];
}

export function checkOptions<Option extends string>(
  options: readonly Option[],
  rules: Rules,
  given: ReadonlySet<Option>,
  pairs?: Pairs<Option>,
): void {
  let hasPairs = false;
  options.forEach((option, i) => {
    const rule = rules[i] ?? '0';
    if (given.has(option)) {
      if (rule === '0') throw new Refused(`Illegal option \`--${option}' with this command`);
    } else if (rule === '1') {
      throw new Refused(`You need to supply the \`--${option}' option for this command`);
    }
    if (rule === '3') hasPairs = true;
  });
  if (!hasPairs || pairs === undefined) return;
  if (pairs.pairs.some(([a, b]) => given.has(a) && given.has(b))) return;
  const partial = pairs.pairs.findIndex(([a, b]) => given.has(a) || given.has(b));
  throw new Refused(pairs.missing[partial === 1 ? 1 : 0]);
}
