/** The schedulers by name. To add one: write its file, add its line. */
import { dh } from './dh.ts';
import { fo } from './fo.ts';
import { lblc } from './lblc.ts';
import { lblcr } from './lblcr.ts';
import { lc } from './lc.ts';
import { mh } from './mh.ts';
import { nq } from './nq.ts';
import { ovf } from './ovf.ts';
import { rr } from './rr.ts';
import type { SchedulerDefinition } from './scheduler.ts';
import { sed } from './sed.ts';
import { sh } from './sh.ts';
import { twos } from './twos.ts';
import { wlc } from './wlc.ts';
import { wrr } from './wrr.ts';

export const SCHEDULERS: readonly SchedulerDefinition[] = [
  rr,
  wrr,
  lc,
  wlc,
  lblc,
  lblcr,
  dh,
  sh,
  sed,
  nq,
  fo,
  ovf,
  mh,
  twos,
];

const byName = new Map(SCHEDULERS.map((s) => [s.name, s]));

export function findScheduler(name: string): SchedulerDefinition | undefined {
  return byName.get(name);
}

/** From 1 on. */
export function schedulerNumber(definition: SchedulerDefinition): number {
  return SCHEDULERS.indexOf(definition) + 1;
}

export function schedulerOf(number: number): SchedulerDefinition | undefined {
  return SCHEDULERS[number - 1];
}
