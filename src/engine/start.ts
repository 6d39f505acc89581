/** How a worker's engine comes to be: with what the life of the daemon before this one has left (base/keep.ts), or new. */
import { randomInt } from 'node:crypto';
import { type Clock, systemClock, TICKS_PER_SECOND, TurnableClock } from '../base/clock.ts';
import { Keep, Kept, keptOr, type MapMemory } from '../base/keep.ts';
import { type Allocate, plainMemory, wholeOf } from '../base/memory.ts';
import { SeededRng } from '../base/rng.ts';
import { type Steps, TimeBudget } from '../base/slices.ts';
import * as native from '../device/native.ts';
import { Captures } from './capture.ts';
import { CopyMemory } from './copy-memory.ts';
import { Engine } from './engine.ts';
import { inherit, Keeper, LAYOUT, type TakenOver } from './keeper.ts';
import type { AheadData, KeptReport, WorkerData, WorkerMessage } from './messages.ts';
import { addDevice, type RequestContext } from './requests.ts';
import { Traces } from './trace.ts';

/** By the levels of syslog(3). */
const LOG_LEVELS = ['error', 'error', 'error', 'error', 'warn', 'info', 'info', 'debug'] as const;

/** From so many bytes on a column has pages of its own: what malloc(3) gives out a second time it clears, and then all of it is resident. */
const OWN_PAGES = 2 ** 16;
export const ownMemory: Allocate = (bytes) =>
  bytes < OWN_PAGES ? plainMemory(bytes) : wholeOf(native.zeroPages(bytes));

/** A piece of a long list is made for so long between two breaths, or a little longer. */
const PIECE_MS = 1;

export interface Start {
  /** Its engine forwards. */
  readonly context: RequestContext;
  /** What is left to do meanwhile: until then the tables for the next life are not whole. Undefined when there was nothing to take over. */
  readonly steps: Steps<KeptReport | undefined>;
}

/** Tables that were made before it was known what they are for. */
export interface Ahead {
  readonly data: AheadData;
  readonly keep: Keep;
  readonly engine: Engine;
}

/** Their time must go on: `engine.breathe()` now and then. */
export function makeAhead(data: AheadData): Ahead {
  const { keepFd, ...sizes } = data;
  const keep = new Keep(mapOf(keepFd), { ...sizes, testClock: false }, LAYOUT, 1);
  return { data, keep, engine: createEngine(sizes, systemClock, keep) };
}

/** @param ahead used when it is what is wanted */
export function start(data: WorkerData, post: (message: WorkerMessage) => void, ahead: Ahead | null = null): Start {
  const before = data.keep?.before;
  if (before === undefined) return withNothing(create(data, post, 1, 0), undefined);
  const kept = Kept.open(mapOf(before.fd), LAYOUT);
  // Where tables were made that nobody wants memory is no longer zero.
  const end = ahead?.keep.end;
  if (typeof kept === 'string') return withNothing(create(data, post, 1, 0, end), { adopted: false, why: kept });
  const context =
    ahead !== null && isFor(ahead.data, data)
      ? contextOf(ahead.engine, ahead.keep, null, post)
      : create(data, post, kept.life + 1, kept.tick, end);
  if (ahead !== null) ahead.keep.life = kept.life + 1;
  try {
    const { notes, steps } = inherit(context.engine, kept, (spec) => {
      const fd = before.devices[spec.name];
      if (fd === undefined) return false;
      native.adopt(fd);
      addDevice(context, { ...spec, fd });
      return true;
    });
    for (const message of notes) post({ type: 'log', level: 'warn', message });
    const ticks = ((context.testClock ?? systemClock).now() - kept.tick) | 0;
    const pauseMs = Math.round((ticks * 1000) / TICKS_PER_SECOND);
    return { context, steps: takeRest(context, steps, pauseMs) };
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    return withNothing(create(data, post, kept.life + 1, 0, context.keeper?.end), { adopted: false, why });
  }
}

function* takeRest({ keeper }: RequestContext, steps: Steps<TakenOver>, pauseMs: number): Start['steps'] {
  const report = yield* steps;
  keeper?.begin();
  return { ...report, pauseMs };
}

function withNothing(context: RequestContext, report: KeptReport | undefined): Start {
  context.keeper?.begin();
  // biome-ignore lint/correctness/useYield: there is nothing to do
  const steps = (function* (): Start['steps'] {
    return report;
  })();
  return { context, steps };
}

function isFor({ keepFd, ...sizes }: AheadData, data: WorkerData): boolean {
  const isSame = (Object.keys(sizes) as (keyof typeof sizes)[]).every((name) => sizes[name] === data[name]);
  return isSame && keepFd === data.keep?.fd && !data.testClock;
}

function mapOf(fd: number): MapMemory {
  return (offset, bytes) => wholeOf(native.mapShared(fd, bytes, offset));
}

/** @param from tick from which test mode's clock goes on  @param end see Keep */
function create(
  data: WorkerData,
  post: (message: WorkerMessage) => void,
  life: number,
  from: number,
  end?: number,
): RequestContext {
  const { maxConnections, maxEntries, maxPackets, spin } = data;
  const testClock = data.testClock ? new TurnableClock(systemClock, from) : null;
  const settings = { maxConnections, maxEntries, maxPackets, spin, testClock: data.testClock };
  const keep = data.keep === undefined ? null : new Keep(mapOf(data.keep.fd), settings, LAYOUT, life, { end });
  return contextOf(createEngine(data, testClock ?? systemClock, keep), keep, testClock, post);
}

type Sizes = Pick<WorkerData, 'maxConnections' | 'maxEntries' | 'maxPackets'>;

function createEngine({ maxConnections, maxEntries, maxPackets }: Sizes, clock: Clock, keep: Keep | null): Engine {
  const rng = new SeededRng(randomInt(1, 2 ** 31));
  return new Engine({ clock, rng, maxConnections, maxEntries, maxPackets, allocate: keptOr(keep, ownMemory) });
}

function contextOf(
  engine: Engine,
  keep: Keep | null,
  testClock: TurnableClock | null,
  post: (message: WorkerMessage) => void,
): RequestContext {
  engine.tracking.budget = new TimeBudget(PIECE_MS, () => performance.now());
  engine.logLines.sink = (level, message) => post({ type: 'log', level: LOG_LEVELS[level] ?? 'debug', message });
  const tooLong = (slot: string): void =>
    post({
      type: 'log',
      level: 'error',
      message: `a restart will lose later changes: the ${slot} are too long to be kept`,
    });
  return {
    engine,
    captures: new Captures(engine, (records) => post({ type: 'captured', records })),
    traces: new Traces(engine, (records) => post({ type: 'traced', records })),
    testClock,
    keeper: keep === null ? null : new Keeper(engine, keep, tooLong),
    arena: native.registerArena(engine.pool.bytes),
    post,
    copies: new CopyMemory(),
    staged: [],
    stagedIpvs: [],
    isStopping: false,
  };
}
