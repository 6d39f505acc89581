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
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import * as native from '../device/native.ts';
import type { Engine } from './engine.ts';
import type { Keeper } from './keeper.ts';
import type { EngineRequestName, RequestMessage, WorkerData, WorkerMessage } from './messages.ts';
import { answer, type RequestContext } from './requests.ts';
import { start } from './start.ts';

/** Longest sleep, ms: timers, the watchdog's ping and the estimators are served at least this often. */
const MAX_SLEEP_MS = 100;
/** The same in test mode, where a timer is compared with another host's. */
const TEST_SLEEP_MS = 5;

const data = workerData as WorkerData;
const port = parentPort!;
const signal = new Int32Array(data.signal);

function post(message: WorkerMessage): void {
  port.postMessage(message);
}

function run(): void {
  const { context, report } = start(data, post);
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
  if (keeper !== null) keeper.begin();
  post({ type: 'ready', kept: report });
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
    if (keeper !== null) keeper.advance();
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
  if (keeper !== null) keeper.finish();
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
      const result = answer(context, request);
      if (context.keeper !== null) noteChange(context.keeper, request.name);
      post({ type: 'reply', id: request.id, result });
    } catch (error) {
      post({ type: 'failed', id: request.id, message: error instanceof Error ? error.message : String(error) });
    }
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
