/**
 * Recorded scenarios of the kernel's connection tracking, replayed in memory: what each packet is to its connection, the events, and the list, as far as they need
 * no rules. Those of the checkout, and the shared ones where they are.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { ScenarioRig, type Step } from './scenario-rig.ts';

const ROOT = resolve(import.meta.dirname, '../..');
const FOLDERS = [join(ROOT, 'netns-tests/oracle/conntrack'), resolve(ROOT, '../shared/oracle-conntrack')];
const LIVES = ['in one life', 'in a new life each step'] as const;
const KINDS = /^(tcp|udp|udplite|icmp|sctp|generic|gre|ip|ttl|frag|mixed)(_|$)/;

interface Scenario {
  readonly name: string;
  readonly steps: readonly Step[];
  readonly topology?: unknown;
}

/** Lines of each step that this test looks at, in the recording's words. */
function recordedSteps(text: string): string[][] {
  const steps: string[][] = [];
  for (const line of text.split('\n')) {
    if (line.startsWith('[')) steps.push([]);
    else if (/^ {4}(state|ev|rc|\||!) /.test(line)) steps.at(-1)?.push(line.trim());
  }
  return steps;
}

/** Lists have no order. */
function inOrder(lines: readonly string[]): string[] {
  const list = lines.filter((line) => line.startsWith('| ')).sort();
  return lines.map((line) => (line.startsWith('| ') ? list.shift()! : line));
}

function canReplay({ name, steps, topology }: Scenario): boolean {
  const isKnown = (step: Step) =>
    step.tx !== undefined || step.wait !== undefined || step.sysctl?.includes('=') === true || step.conntrack === '-L';
  return KINDS.test(name) && topology === undefined && steps.every(isKnown);
}

function scenarios(folder: string): Scenario[] {
  return readdirSync(join(folder, 'scenarios'))
    .map((file) => JSON.parse(readFileSync(join(folder, 'scenarios', file), 'utf8')) as Scenario)
    .filter(canReplay);
}

describe.each(FOLDERS.filter(existsSync))('as the kernel did (%s)', (folder) => {
  const all = scenarios(folder).flatMap((scenario) => LIVES.map((lives) => [scenario.name, lives, scenario] as const));
  it.each(all)('%s, %s', (name, lives, { steps }) => {
    const recorded = recordedSteps(readFileSync(join(folder, 'recorded', `${name}.txt`), 'utf8'));
    const rig = new ScenarioRig();
    const seen = steps.map((step, i) => {
      if (lives === 'in a new life each step' && i > 0) rig.restart();
      return rig.run(step);
    });
    const shown = (all: readonly (readonly string[] | null)[]) =>
      all.flatMap((lines, i) => [`[${i + 1}]`, ...inOrder(lines ?? ['cannot be done here'])]);
    expect(shown(seen)).toEqual(shown(recorded));
  });
});
