/**
 * The data worker: a thread that breathes until it is told to stop.   @hot
 *
 *   messages? ─► breath ─► packets moved?  yes ─► again
 *       ▲                       │ no, `spin` times in a row
 *       └────── poll(devices, eventfd, 100 ms) ◄┘  no, not yet: yield the CPU, and again
 *
 * It never returns to its event loop while it runs: messages are taken synchronously between two breaths (receiveMessageOnPort), when the main thread has
 * raised `signal`, and the eventfd ends a sleep. A breath that throws is our bug: it is reported with its stack and ends the daemon, which systemd restarts.
 */
import { randomInt } from 'node:crypto';
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { systemClock, TurnableClock } from '../base/clock.ts';
import { SeededRng } from '../base/rng.ts';
import * as native from '../device/native.ts';
import { Captures } from './capture.ts';
import { Engine } from './engine.ts';
import type { RequestMessage, WorkerData, WorkerMessage } from './messages.ts';
import { answer, type RequestContext } from './requests.ts';
import { Traces } from './trace.ts';

/** Longest sleep, ms: timers, the watchdog's ping and the estimators are served at least this often. */
const MAX_SLEEP_MS = 100;
/** The same in test mode, where a timer is compared with another host's. */
const TEST_SLEEP_MS = 5;

/** By the levels of syslog(3). */
const LOG_LEVELS = ['error', 'error', 'error', 'error', 'warn', 'info', 'info', 'debug'] as const;

const data = workerData as WorkerData;
const port = parentPort!;
const signal = new Int32Array(data.signal);

function post(message: WorkerMessage): void {
  port.postMessage(message);
}

function run(): void {
  const testClock = data.testClock ? new TurnableClock(systemClock) : null;
  const engine = new Engine({
    clock: testClock ?? systemClock,
    rng: new SeededRng(randomInt(1, 2 ** 31)),
    maxConnections: data.maxConnections,
    maxEntries: data.maxEntries,
    maxPackets: data.maxPackets,
    allocate: native.hugeMemory,
  });
  engine.logLines.sink = (level, message) => post({ type: 'log', level: LOG_LEVELS[level] ?? 'debug', message });
  const context: RequestContext = {
    engine,
    captures: new Captures(engine, (records) => post({ type: 'captured', records })),
    traces: new Traces(engine, (records) => post({ type: 'traced', records })),
    testClock,
    arena: native.registerArena(engine.pool.arena),
    post,
    isStopping: false,
  };
  const sleepMs = testClock === null ? MAX_SLEEP_MS : TEST_SLEEP_MS;
  let pollset = native.createPollset([data.eventfd]);
  const renew = (old: native.Pollset): native.Pollset => {
    native.destroyPollset(old);
    return native.createPollset([data.eventfd].concat(engine.pollFds()));
  };
  let generation = engine.generation;
  let idle = 0;
  /** What the last poll found: bit 0 is the eventfd. */
  let ready = 0;
  post({ type: 'ready' });
  while (!context.isStopping) {
    // The eventfd may be signalled after its message was taken (the flag is raised first): drain it then too, or poll would never sleep again.
    if (signal[0] !== 0 || (ready & 1) !== 0) {
      ready = 0;
      takeMessages(context);
      if (generation !== engine.generation) {
        generation = engine.generation;
        pollset = renew(pollset);
      }
    }
    const received = engine.breathe();
    context.captures.flush();
    context.traces.flush();
    if (engine.tracking.hasEvents) postEvents(engine);
    if (received > 0) {
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
  engine.close();
}

// cold: messages
function postEvents({ tracking }: Engine): void {
  post({ type: 'conntrack-events', ...tracking.takeEvents() });
}

function takeMessages(context: RequestContext): void {
  Atomics.store(signal, 0, 0);
  native.eventfdDrain(data.eventfd);
  for (let got = receiveMessageOnPort(port); got !== undefined; got = receiveMessageOnPort(port)) {
    const request = got.message as RequestMessage;
    try {
      post({ type: 'reply', id: request.id, result: answer(context, request) });
    } catch (error) {
      post({ type: 'failed', id: request.id, message: error instanceof Error ? error.message : String(error) });
    }
  }
}

// cold: the end
try {
  run();
} catch (error) {
  post({
    type: 'log',
    level: 'error',
    message: `data worker: ${error instanceof Error ? error.stack : String(error)}`,
  });
  throw error;
}
