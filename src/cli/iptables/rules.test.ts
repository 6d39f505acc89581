import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { BadRule, type ListForm } from '../../filter/extension.ts';
import { parseLine, parseRule } from '../../filter/parse.ts';
import type { Rule } from '../../filter/rule.ts';
import { saveRule, writeWords } from '../../filter/save.ts';
import { Names } from '../ipvsadm/names.ts';
import { formatRule } from './list.ts';
import { splitWords } from './restore-reader.ts';

const table = readFileSync(new URL('../../../golden/cli/iptables.t', import.meta.url), 'utf8');
const lines = table.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
const names = new Names();

function parse(words: readonly string[]): Rule {
  const parsed = parseLine(['-A', 'U', ...words], { names, warn: () => {}, program: 'iptables' });
  if (parsed.kind !== 'command') throw new Error(`${words.join(' ')} is no command`);
  return parsed.line.rules[0]!;
}

/** What stands behind the addresses. */
function listed(rule: Rule, isNumeric: boolean): string {
  const form: ListForm = {
    isNumeric,
    serviceName: (port, protocol) => names.serviceName(port, protocol),
    hostName: () => undefined,
  };
  const options = { verbose: false, exact: false, lineNumbers: false, form };
  const line = formatRule({ packets: 0, bytes: 0 }, rule, 1, options);
  const text = line.replace(/^.*?(?:0\.0\.0\.0\/0|anywhere)\s+(?:0\.0\.0\.0\/0|anywhere) */, '').trimEnd();
  return text === '' ? '-' : text;
}

describe('golden/cli/iptables.t', () => {
  it.each(lines)('%s', (line) => {
    const [input = '', ...rest] = line.split(' ; ');
    const words = splitWords(input);
    if (rest.at(-1) === 'FAIL') {
      let message = 'accepted';
      try {
        parse(words);
      } catch (error) {
        if (!(error instanceof BadRule)) throw error;
        message = error.message.replaceAll('\n', '\\n');
      }
      expect(message).toBe(rest[0]);
      return;
    }
    const [saved, numeric = '', named] = rest;
    const rule = parse(words);
    const own = saveRule(rule);
    expect(writeWords(own)).toBe(saved === '=' ? input : saved);
    expect(listed(rule, true)).toBe(numeric.trimEnd());
    expect(listed(rule, false)).toBe(named === '=' ? numeric.trimEnd() : named!.trimEnd());
    // The words of -S are the rule's only form: read again they are the same.
    expect(saveRule(parseRule(own))).toEqual(own);
  });
});
