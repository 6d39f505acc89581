import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { parseRule } from '../../filter/parse.ts';
import { formatRule } from './list.ts';
import { listForm, RuleNames } from './names.ts';

it('names networks of networks(5), whatever their mask, and what the conntrack match holds of them', () => {
  const folder = mkdtempSync(join(tmpdir(), 'tapvs-names-'));
  const file = join(folder, 'networks');
  writeFileSync(file, '# comment\nloopback\t127.0.0.0\nlink-local 169.254 # short\n\nodd\n');
  const names = new RuleNames(() => {}, file);
  const list = (words: string, numeric: boolean): string =>
    formatRule({ packets: 0, bytes: 0 }, parseRule(words.split(' ')), 1, {
      verbose: false,
      exact: false,
      lineNumbers: false,
      form: listForm({ numeric }, names),
    }).trimEnd();
  const rule = '-s 127.0.0.0/8 ! -d 169.254.0.0/16 -m conntrack --ctorigsrc 127.0.0.0/8 --ctorigdst 0.0.0.0';
  expect(list(rule, false)).toBe(
    '           all  --  loopback/8          !link-local/16        ctorigsrc loopback/8 ctorigdst anywhere',
  );
  expect(list(rule, true)).toBe(
    '           0    --  127.0.0.0/8         !169.254.0.0/16       ctorigsrc 127.0.0.0/8 ctorigdst 0.0.0.0',
  );
  expect(list('-s 127.0.0.0/32', false)).toContain(' loopback             anywhere');
  expect(new RuleNames(() => {}, join(folder, 'nosuch')).hostName('127.0.0.0')).toBeUndefined();
  rmSync(folder, { recursive: true });
});
