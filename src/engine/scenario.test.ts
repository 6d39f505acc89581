/**
 * Recorded scenarios of the kernel's connection tracking, replayed in memory: what each packet is to its connection, the events, and the list, as far as they need
 * no rules. The recordings are no part of this checkout; without them the replay of one scenario that stands here is all.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { ScenarioRig, type Step } from './scenario-rig.ts';

const FOLDER = resolve(import.meta.dirname, '../../../shared/oracle-conntrack');
const KINDS = /^(tcp|udp|udplite|icmp|sctp|generic|gre|ip|ttl|frag)(_|$)/;

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

/** Lists have no order, and fragments that are held back are no packets to the hooks. */
function inOrder(lines: readonly string[]): string[] {
  const list = lines.filter((line) => line.startsWith('| ')).sort();
  return lines.map((line) => (line.startsWith('| ') ? list.shift()! : line));
}

function canReplay({ name, steps, topology }: Scenario): boolean {
  const isKnown = (step: Step) =>
    step.tx !== undefined || step.wait !== undefined || step.sysctl?.includes('=') === true || step.conntrack === '-L';
  return KINDS.test(name) && topology === undefined && steps.every(isKnown);
}

function scenarios(): Scenario[] {
  if (!existsSync(FOLDER)) return [];
  return readdirSync(join(FOLDER, 'scenarios'))
    .map((file) => JSON.parse(readFileSync(join(FOLDER, 'scenarios', file), 'utf8')) as Scenario)
    .filter(canReplay);
}

describe.runIf(existsSync(FOLDER))('as the kernel did', () => {
  it.each(scenarios().map((scenario) => [scenario.name, scenario] as const))('%s', (name, { steps }) => {
    const recorded = recordedSteps(readFileSync(join(FOLDER, 'recorded', `${name}.txt`), 'utf8'));
    const rig = new ScenarioRig();
    const seen = steps.map((step) => rig.run(step));
    const shown = (all: readonly (readonly string[] | null)[]) =>
      all.flatMap((lines, i) => [`[${i + 1}]`, ...inOrder(lines ?? ['cannot be done here'])]);
    expect(shown(seen)).toEqual(shown(recorded));
  });
});
