/** Which options go together: the tables of options.ts, enforced in the classic order and words. */
import type { Combination, OptionName } from './options.ts';
import { Refused } from './refused.ts';

/** @param what the end of the message: `'list' command` */
export function checkCombination(
  rule: Combination,
  options: readonly OptionName[],
  given: ReadonlySet<OptionName>,
  what: string,
): void {
  let chosen: OptionName | undefined;
  for (const option of options) {
    if (!given.has(option)) {
      if (rule.needs.includes(option)) {
        throw new Refused(`You need to supply the '${option}' option for the ${what}`);
      }
    } else if (rule.oneOf.includes(option)) {
      if (chosen !== undefined) {
        throw new Refused(`The option '${option}' conflicts with the '${chosen}' option in the ${what}`);
      }
      chosen = option;
    } else if (!rule.needs.includes(option) && !rule.may.includes(option)) {
      throw new Refused(`Illegal '${option}' option with the ${what}`);
    }
  }
}
