/**
 * The data worker: a thread that breathes until it is told to stop.   @hot
 *
 *   messages? ─► breath ─► packets moved?  yes ─► again
 *       ▲                       │ no, `spin` times in a row
 *       └────── poll(devices, eventfd, 100 ms) ◄┘  no, not yet: yield the CPU, and again
 *
 * It never returns to its event loop while it runs: messages are taken synchronously between two breaths (receiveMessageOnPort), when the main thread has
 * raised `signal`, and the eventfd ends a sleep. A request that takes long (Slices) is answered a millisecond's worth per breath, and others wait for it. A breath that throws is our bug: it is reported with its stack and ends the daemon, which systemd restarts.
 */
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { Slices } from '../base/slices.ts';
import * as native from '../device/native.ts';
import type { Engine } from './engine.ts';
import { inlineMore } from './inlining.ts';
import type { Keeper } from './keeper.ts';
import type {
  EngineRequestName,
  KeptReport,
  RequestMessage,
  WaitingData,
  WorkerData,
  WorkerMessage,
} from './messages.ts';
import { answer, type RequestContext } from './requests.ts';
import { type Ahead, makeAhead, start } from './start.ts';
import { warmUp } from './warm-up.ts';

/** Longest sleep, ms: timers, the watchdog's ping and the estimators are served at least this often. */
const MAX_SLEEP_MS = 100;
/** The same in test mode, where a timer is compared with another host's. */
const TEST_SLEEP_MS = 5;

/** What there is to do beside packets is done for so long between two breaths, or a little longer. */
const WORK_MS = 1;

/** What a request, or the life before, has left to do. */
interface Work {
  readonly slices: Slices<unknown>;
  readonly onPart: (rows: readonly unknown[]) => void;
  readonly onDone: (value: unknown) => void;
  readonly onError: (error: unknown) => void;
}

/** While there is some, no request is taken. */
let work: Work | null = null;

/** Null where this is no thread: then it is only loaded. */
const port = parentPort!;
let signal: Int32Array;

function post(message: WorkerMessage): void {
  port.postMessage(message);
}

function run(data: WorkerData, ahead: Ahead | null): void {
  signal = new Int32Array(data.signal);
  const { context, steps } = start(data, post, ahead);
  const { engine, testClock, keeper } = context;
  const sleepMs = testClock === null ? MAX_SLEEP_MS : TEST_SLEEP_MS;
  let pollset = native.createPollset([data.eventfd].concat(engine.pollFds()));
  const renew = (old: native.Pollset): native.Pollset => {
    native.destroyPollset(old);
    return native.createPollset([data.eventfd].concat(engine.pollFds()));
  };
  let generation = engine.generation;
  let idle = 0;
  /** What the last poll found: bit 0 is the eventfd. */
  let ready = 0;
  work = {
    slices: new Slices(steps),
    onPart: () => {},
    onDone: (kept) => post({ type: 'ready', kept: kept as KeptReport | undefined }),
    onError: (error) => {
      throw error;
    },
  };
  while (!context.isStopping) {
    const isWorking = work !== null;
    if (work !== null) {
      goOn(work);
      // Others have waited for it.
      ready |= 1;
    }
    // The eventfd may be signalled after its message was taken (the flag is raised first): drain it then too, or poll would never sleep again.
    if (work === null && (signal[0] !== 0 || (ready & 1) !== 0)) {
      ready = 0;
      takeMessages(context, data.eventfd);
      if (generation !== engine.generation) {
        generation = engine.generation;
        pollset = renew(pollset);
      }
    }
    const received = engine.breathe();
    context.captures.flush();
    context.traces.flush();
    if (keeper !== null) keeper.advance();
    if (engine.tracking.hasEvents) postEvents(engine);
    if (received > 0 || isWorking || work !== null) {
      idle = 0;
      continue;
    }
    if (++idle < data.spin) {
      // Whoever would send us something may be waiting for this CPU: on few cores asking again at once only keeps them from it.
      native.yieldCpu();
      continue;
    }
    if (generation !== engine.generation) {
      // A device died under us: its descriptor must leave the set, or poll would never sleep again.
      generation = engine.generation;
      pollset = renew(pollset);
    }
    ready = native.poll(pollset, sleepMs);
    engine.wake();
    // Woken by a device: look a few times before sleeping again. Not woken: nobody is there, so don't.
    idle = ready > 0 ? 0 : data.spin;
  }
  if (keeper !== null) keeper.finish();
  engine.close();
}

// cold: messages
function postEvents({ tracking }: Engine): void {
  post({ type: 'conntrack-events', ...tracking.takeEvents() });
}

function takeMessages(context: RequestContext, eventfd: number): void {
  Atomics.store(signal, 0, 0);
  native.eventfdDrain(eventfd);
  while (work === null) {
    const got = receiveMessageOnPort(port);
    if (got === undefined) return;
    const request = got.message as RequestMessage;
    try {
      const result = answer(context, request);
      if (result instanceof Slices) work = workOf(context, request, result);
      else reply(context, request, result);
    } catch (error) {
      fail(request, error);
    }
  }
}

function reply({ keeper }: RequestContext, { id, name }: RequestMessage, result: unknown): void {
  if (keeper !== null) noteChange(keeper, name);
  post({ type: 'reply', id, result });
}

function fail({ id }: RequestMessage, error: unknown): void {
  post({ type: 'failed', id, message: error instanceof Error ? error.message : String(error) });
}

function workOf(context: RequestContext, request: RequestMessage, slices: Slices<unknown>): Work {
  return {
    slices,
    onPart: (rows) => post({ type: 'part', id: request.id, rows }),
    onDone: (result) => reply(context, request, result),
    onError: (error) => fail(request, error),
  };
}

/** A little of it. */
function goOn({ slices, onPart, onDone, onError }: Work): void {
  const end = performance.now() + WORK_MS;
  try {
    do {
      const done = slices.next();
      if (done === undefined) {
        if (slices.part !== null) onPart(slices.part);
        continue;
      }
      work = null;
      onDone(done.value);
      return;
    } while (performance.now() < end);
  } catch (error) {
    work = null;
    onError(error);
  }
}

/** Before it is answered: what was answered survives. */
function noteChange(keeper: Keeper, name: EngineRequestName): void {
  if (name === 'change-table') keeper.rulesChanged();
  else if (CHANGES_SETTINGS.has(name)) keeper.settingsChanged();
}

const CHANGES_SETTINGS: ReadonlySet<EngineRequestName> = new Set([
  'add-device',
  'del-device',
  'ip',
  'set-sysctl',
  'ipvs',
  'ipvs-all',
]);

// cold: beginning and end
function runOrTell(data: WorkerData, ahead: Ahead | null): void {
  try {
    run(data, ahead);
  } catch (error) {
    post({
      type: 'log',
      level: 'error',
      message: `data worker: ${error instanceof Error ? error.stack : String(error)}`,
    });
    throw error;
  }
}

/** Connections that a thread warms up with. */
const WARM_UP = 500;
/** How often tables that wait are told the time, ms: timers never have much to catch up with. */
const AHEAD_MS = 1000;

function wait({ ahead }: WaitingData): void {
  inlineMore();
  let tables: Ahead | null = null;
  if (ahead !== undefined) {
    warmUp(WARM_UP);
    if (ahead !== null) tables = makeAhead(ahead);
  }
  const timer = setInterval(() => tables?.engine.breathe(), AHEAD_MS).unref();
  port.once('message', (data: WorkerData) => {
    clearInterval(timer);
    tables?.engine.breathe();
    runOrTell(data, tables);
  });
  post({ type: 'loaded' });
}

if (port !== null) wait(workerData as WaitingData);

export { warmUp };
