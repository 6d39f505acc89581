/** The schedulers by name. To add one: write its file, add its line. */
import { lc } from './lc.ts';
import { rr } from './rr.ts';
import type { SchedulerDefinition } from './scheduler.ts';
import { wlc } from './wlc.ts';
import { wrr } from './wrr.ts';

export const SCHEDULERS: readonly SchedulerDefinition[] = [rr, wrr, lc, wlc];

const byName = new Map(SCHEDULERS.map((s) => [s.name, s]));

export function findScheduler(name: string): SchedulerDefinition | undefined {
  return byName.get(name);
}
