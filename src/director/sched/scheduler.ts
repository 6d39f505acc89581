/**
 * What a scheduler is: it picks a destination for a new connection, and hears of changes of its service's list.
 *
 * One file per algorithm, named as ipvsadm names it, registered in index.ts. Picking happens once per connection, so this code may be plain; it must
 * not allocate. All algorithms walk the list of the service, which is *newest first*: where several servers are equally good, the last one added wins.
 */
import type { Rng } from '../../base/rng.ts';
import type { DestTable } from '../destinations.ts';
import type { ServiceTable } from '../services.ts';
import type { Sysctls } from '../sysctl.ts';

/** A server of the service, as the scheduler looks at it for one new connection. */
export interface Candidate {
  readonly dest: number;
  /** What is compared, as text: `513 / 2 = 256.5`. */
  readonly figure: string;
  readonly verdict: 'chosen' | 'lost' | 'quiesced' | 'overloaded';
  /** One phrase: why it is chosen, or not. */
  readonly why: string;
}

export interface Choice {
  /** NO_DEST: nobody. */
  readonly dest: number;
  /** The rule, with what the scheduler remembers; one phrase. */
  readonly how: string;
  /** Every server of the service, in the order of the list. */
  readonly candidates: readonly Candidate[];
}

export interface Scheduler {
  /**
   * A destination whose weight is above 0 and which is not overloaded, or NO_DEST. (lblc alone keeps sending to an overloaded one, as the kernel's does.)
   * @param source,destination addresses of the packet, int32  @param ports source << 16 | destination
   */
  pick(source: number, destination: number, ports: number): number;
  /** What `pick` would answer now, and why. Changes nothing; allocates freely. */
  explain(source: number, destination: number, ports: number): Choice;
  /** One that will pick what this one would have picked, on tables that are copies of this one's. */
  fork(context: SchedulerContext): Scheduler;
  /** `d` was put at the head of the list. */
  added?(d: number): void;
  /** `d` has left the list; `dests.previous[d]` still says who stood before it. */
  removed?(d: number): void;
  /** Weight or thresholds of `d` changed. */
  changed?(d: number): void;
  /** Called every second: forget what is stale. */
  collect?(now: number): void;
  /** The service goes, or takes another scheduler: let go of the destinations held (DestTable.held). */
  close?(): void;
}

/** What a scheduler may know and use; the director is one. */
export interface SchedulerContext {
  readonly services: ServiceTable;
  readonly dests: DestTable;
  readonly sysctls: Sysctls;
  readonly rng: Rng;
  /** Tick of this breath. */
  readonly now: number;
}

export interface SchedulerDefinition {
  readonly name: string;
  /** The most destinations that a service may have when it takes this scheduler; no limit when absent. */
  readonly maxDestinations?: number;
  /** State for one service, as of now: the list may already hold servers. */
  create(context: SchedulerContext, service: number): Scheduler;
}
