/** What the schedulers' `explain` functions have in common: a row with a reason for each server of the service. Not per packet. */
import { formatIp4 } from '../../wire/addr.ts';
import { type DestTable, NO_DEST } from '../destinations.ts';
import type { Candidate, Choice, SchedulerContext } from './scheduler.ts';

/** `10.0.2.11:80` */
export function serverName(dests: DestTable, d: number): string {
  return `${formatIp4(dests.ip[d]!)}:${dests.port[d]!}`;
}

/**
 * @param dest what was picked  @param how the rule, one phrase
 * @param judge a server's figure, and why it is chosen or lost; that it is quiesced or overloaded is said here
 */
export function explainChoice(
  { services, dests }: SchedulerContext,
  service: number,
  dest: number,
  how: string,
  judge: (d: number) => readonly [figure: string, why: string],
): Choice {
  const candidates: Candidate[] = [];
  for (let d = services.first[service]!; d !== NO_DEST; d = dests.next[d]!) {
    const [figure, why] = judge(d);
    if (d === dest) {
      candidates.push({ dest: d, figure, verdict: 'chosen', why });
    } else if (dests.weight[d] === 0) {
      candidates.push({ dest: d, figure, verdict: 'quiesced', why: 'weight 0: gets no new connections' });
    } else if (!dests.isCandidate(d)) {
      const total = dests.active[d]! + dests.inactive[d]!;
      const why = `overloaded: ${total} connection${total === 1 ? '' : 's'}, upper threshold ${dests.upper[d]}`;
      candidates.push({ dest: d, figure, verdict: 'overloaded', why });
    } else {
      candidates.push({ dest: d, figure, verdict: 'lost', why });
    }
  }
  return { dest, how, candidates };
}

/** `256.5`, `0.333`, `7` */
export function decimal(n: number): string {
  return String(Number(n.toPrecision(6)));
}

/** For schedulers of a least figure: what the others have too much of. `chosen` is NO_DEST when nobody may be picked. */
export function leastWhy(d: number, chosen: number, compare: (d: number) => number): string {
  if (d === chosen) return 'the least';
  if (chosen === NO_DEST) return '';
  return compare(d) > compare(chosen) ? 'more' : 'as much, but added earlier';
}

/** How often each server stands in the table of a scheduler that hashes. */
export function tally(table: Int32Array): (d: number) => number {
  const counts = new Map<number, number>();
  for (const d of table) counts.set(d, (counts.get(d) ?? 0) + 1);
  return (d) => counts.get(d) ?? 0;
}
