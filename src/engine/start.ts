/** How a worker's engine comes to be: with what the life of the daemon before this one has left (base/keep.ts), or new. */
import { randomInt } from 'node:crypto';
import { systemClock, TurnableClock } from '../base/clock.ts';
import { Keep, Kept, keptOr, type MapMemory } from '../base/keep.ts';
import { type Allocate, plainMemory } from '../base/memory.ts';
import { SeededRng } from '../base/rng.ts';
import * as native from '../device/native.ts';
import { Captures } from './capture.ts';
import { Engine } from './engine.ts';
import { inherit, Keeper, LAYOUT } from './keeper.ts';
import type { KeptReport, WorkerData, WorkerMessage } from './messages.ts';
import { addDevice, type RequestContext } from './requests.ts';
import { Traces } from './trace.ts';

/** By the levels of syslog(3). */
const LOG_LEVELS = ['error', 'error', 'error', 'error', 'warn', 'info', 'info', 'debug'] as const;

/** Whether a table is worth 2 MiB pages, bytes. */
const HUGE = 2 ** 24;
export const ownMemory: Allocate = (bytes) => (bytes < HUGE ? plainMemory(bytes) : native.hugeMemory(bytes));

export interface Start {
  readonly context: RequestContext;
  /** Undefined when there was nothing to take over. */
  readonly report: KeptReport | undefined;
}

export function start(data: WorkerData, post: (message: WorkerMessage) => void): Start {
  const before = data.keep?.before;
  if (before === undefined) return { context: create(data, post, 1, 0), report: undefined };
  const kept = Kept.open(mapOf(before.fd), LAYOUT);
  if (typeof kept === 'string') return { context: create(data, post, 1, 0), report: { adopted: false, why: kept } };
  const context = create(data, post, kept.life + 1, kept.tick);
  try {
    const { notes, ...report } = inherit(context.engine, kept, (spec) => {
      const fd = before.devices[spec.name];
      if (fd === undefined) return false;
      native.adopt(fd);
      addDevice(context, { ...spec, fd });
      return true;
    });
    for (const message of notes) post({ type: 'log', level: 'warn', message });
    return { context, report };
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    return {
      context: create(data, post, kept.life + 1, 0, context.keeper?.end),
      report: { adopted: false, why },
    };
  }
}

function mapOf(fd: number): MapMemory {
  return (offset, bytes) => native.mapShared(fd, bytes, offset);
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
  const keep = data.keep === undefined ? null : new Keep(mapOf(data.keep.fd), settings, LAYOUT, life, end);
  const engine = new Engine({
    clock: testClock ?? systemClock,
    rng: new SeededRng(randomInt(1, 2 ** 31)),
    maxConnections,
    maxEntries,
    maxPackets,
    allocate: keptOr(keep, ownMemory),
  });
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
    arena: native.registerArena(engine.pool.arena),
    post,
    staged: [],
    isStopping: false,
  };
}
