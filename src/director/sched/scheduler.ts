/**
 * What a scheduler is: it picks a destination for a new connection, and hears of changes of its service's list.
 *
 * One file per algorithm, named as ipvsadm names it, registered in index.ts. Picking happens once per connection, so this code may be plain. All
 * algorithms walk the list of the service, which is *newest first*: where several servers are equally good, the last one added wins.
 */
import type { DestTable } from '../destinations.ts';
import type { ServiceTable } from '../services.ts';

export interface Scheduler {
  /**
   * A destination whose weight is above 0 and which is not overloaded, or NO_DEST.
   * @param source,destination addresses of the packet, int32  @param ports source << 16 | destination
   */
  pick(source: number, destination: number, ports: number): number;
  /** `d` was put at the head of the list. */
  added?(d: number): void;
  /** `d` has left the list; `dests.previous[d]` still says who stood before it. */
  removed?(d: number): void;
  /** Weight or thresholds of `d` changed. */
  changed?(d: number): void;
}

export interface SchedulerDefinition {
  readonly name: string;
  /** State for one service, as of now: the list may already hold servers. */
  create(services: ServiceTable, dests: DestTable, service: number): Scheduler;
}
