/** `iptables:` of the configuration: what is read, where a fault is, and what a reload changes. */
import { expect, it } from 'vitest';
import { type Config, ConfigError, type Grammars, parseConfig } from '../../control/config.ts';
import { plan, planText } from '../../control/plan.ts';
import { EngineRehearsal } from '../../control/rehearsal.ts';
import { readRules, rulesFault } from './config-rules.ts';

const grammars: Grammars = { ipvsadm: () => ({ commands: [], errors: [] }), rules: readRules, rulesFault };
const indent = (lines: string): string => lines.replace(/^/gm, '  ');
const yaml = (lines: string): string => `spin: 20\niptables: |\n${indent(lines)}\n`;

function read(lines: string, rehearsal?: EngineRehearsal): Config {
  return parseConfig(yaml(lines), 'f', grammars, rehearsal);
}

function faults(lines: string): string[] {
  try {
    read(lines, new EngineRehearsal());
    return [];
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return error.diagnostics.map((d) => `${d.line}:${d.column}: ${d.path}: ${d.message}`);
  }
}

const FILTER = `*filter
:INPUT DROP [0:0]
:web - [0:0]
# a comment
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A INPUT -p tcp -j web
-A web -p tcp --dport http -j ACCEPT
COMMIT`;
const MANGLE = `*mangle
-A PREROUTING -p tcp --dport 80 -j MARK --set-mark 7
COMMIT`;

it.each([
  ['all is well', `${FILTER}\n${MANGLE}`, []],
  ['a word that is none', FILTER.replace('--dport', '--dpotr'), ['9:3: iptables: unknown option "--dpotr"']],
  [
    'every line is looked at',
    FILTER.replace('http', '99999').replace('-j web', '-j ACCEPT --no'),
    ['8:3: iptables: unknown option "--no"', "9:3: iptables: invalid port/service `99999' specified"],
  ],
  ['a host by name', '*filter\n-A INPUT -s router\nCOMMIT', ["4:3: iptables: host/network `router' not found"]],
  [
    'a target that is none',
    FILTER.replace('-j web', '-j NONE'),
    ["8:3: iptables: Couldn't load target `NONE':No such file or directory"],
  ],
  [
    'a target where it must not stand',
    MANGLE.replace('-j MARK --set-mark 7', '-j MASQUERADE'),
    ['4:3: iptables: Invalid argument.'],
  ],
  ['no end', '*filter\n-A INPUT -j DROP', ['4:3: iptables: COMMIT expected']],
  [
    'a rule of no table',
    '-A INPUT -j DROP',
    ["3:3: iptables: belongs to no table: '*TABLE' begins one, 'COMMIT' ends it"],
  ],
  [
    'a table that is none',
    '*nosuch\nCOMMIT',
    [
      "3:3: iptables: unable to initialize table 'nosuch'",
      "4:3: iptables: belongs to no table: '*TABLE' begins one, 'COMMIT' ends it",
    ],
  ],
  ['a table twice', `${MANGLE}\n${MANGLE}`, ["8:3: iptables: the table 'mangle' is here twice"]],
])('%s', (_what, lines, expected) => {
  expect(faults(lines)).toEqual(expected);
});

it('is made whole, and a reload makes anew what differs', () => {
  const before = read(`${FILTER}\n${MANGLE}`);
  expect(planText(plan(null, before))).toEqual(['+ iptables filter 3 rules', '+ iptables mangle 1 rule']);
  expect(planText(plan(before, read(`${MANGLE}\n${FILTER}`)))).toEqual([]);
  const after = read(FILTER.replace(/^-A INPUT -p tcp.*\n/m, ''));
  expect(planText(plan(before, after))).toEqual(['- iptables mangle', '~ iptables filter 3 rules → filter 2 rules']);
});

it('leaves nothing of what was there: chains, rules, policies', () => {
  const rehearsal = new EngineRehearsal();
  const apply = (from: Config | null, to: Config): void => {
    for (const action of plan(from, to))
      if (action.do === 'rules') expect(rehearsal.changeTable(action.rules)).toBeNull();
  };
  const first = read(FILTER);
  const second = read('*filter\n-A FORWARD -j DROP\nCOMMIT');
  apply(null, first);
  expect(rehearsal.table('filter')).toMatchObject({
    chains: [{ policy: 'DROP', rules: [{}, {}] }, {}, {}, { name: 'web' }],
  });
  apply(first, second);
  expect(rehearsal.table('filter').chains.map(({ policy, rules }) => [policy, rules.length])).toEqual([
    ['ACCEPT', 0],
    ['ACCEPT', 1],
    ['ACCEPT', 0],
  ]);
  apply(second, read(''));
  expect(rehearsal.table('filter').chains.every(({ rules }) => rules.length === 0)).toBe(true);
});
