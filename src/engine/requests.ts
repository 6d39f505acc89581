/**
 * What the worker does when the main thread asks: one function per request of messages.ts. Runs between two breaths, never per packet.
 */

import { seconds, type TurnableClock } from '../base/clock.ts';
import { Slices, type Steps } from '../base/slices.ts';
import { KernelDevice } from '../device/kernel-device.ts';
import type { Arena } from '../device/native.ts';
import { HOOK_NAMES } from '../hooks/hooks.ts';
import type { TableCommand, TableOutcome } from '../model/iptables.ts';
import type { IpvsCommand } from '../model/ipvs.ts';
import type { ExplainSpec, Explanation } from '../model/way.ts';
import { Drop, dropText } from '../packet/drop.ts';
import { mac, parsePrefix } from '../wire/addr.ts';
import type { Captures } from './capture.ts';
import type { CopyMemory } from './copy-memory.ts';
import type { Engine } from './engine.ts';
import { explain } from './explain.ts';
import type { Keeper } from './keeper.ts';
import type {
  DeviceSpec,
  EngineRequestName,
  EngineRequests,
  HookRow,
  RequestMessage,
  WorkerMessage,
} from './messages.ts';
import type { Traces } from './trace.ts';

export interface RequestContext {
  readonly engine: Engine;
  readonly captures: Captures;
  readonly traces: Traces;
  /** The clock of test mode, else null. */
  readonly testClock: TurnableClock | null;
  readonly arena: Arena;
  /** Who keeps what the next life of the daemon shall find; null: there is nobody to hand it on. */
  readonly keeper: Keeper | null;
  readonly post: (message: WorkerMessage) => void;
  /** Of what a question is tried on. */
  readonly copies: CopyMemory;
  /** Commands for the next change of a table. */
  readonly staged: TableCommand[];
  readonly stagedIpvs: IpvsCommand[];
  isStopping: boolean;
}

type Handlers = {
  [N in EngineRequestName]: (
    c: RequestContext,
    args: EngineRequests[N]['args'],
  ) => EngineRequests[N]['result'] | Slices<EngineRequests[N]['result']>;
};

const handlers: Handlers = {
  ping: ({ engine }) => ({ breaths: engine.breaths }),
  'add-device': addDevice,
  'del-device': (context, { name }) => new Slices(removeDevice(context, name)),
  ip: ({ engine }, { commands }) => new Slices(engine.ip.runInSteps(commands)),
  'list-addresses': ({ engine }) => new Slices(engine.ip.addressesInSteps()),
  'list-routes': ({ engine }) => new Slices(engine.ip.routesInSteps()),
  'list-neighbours': ({ engine }) => new Slices(engine.ip.neighboursInSteps()),
  'list-links': ({ engine }) => engine.ip.listLinks(),
  'list-hooks': hookRows,
  'list-drops': ({ engine }) =>
    (Object.keys(Drop) as (keyof typeof Drop)[])
      .filter((name) => name !== 'None')
      .map((name) => ({ name, count: engine.drops[Drop[name]]!, text: dropText[name] })),
  'get-sysctl': ({ engine }, { key }) => engine.getSysctl(key),
  'set-sysctl': ({ engine }, { key, value }) => engine.setSysctl(key, value),
  'list-sysctls': ({ engine }) => engine.listSysctls(),
  ipvs: ({ engine }, { commands }) => new Slices(engine.director.executeInSteps(commands)),
  'stage-ipvs': ({ stagedIpvs }, { at, commands }) => stage(stagedIpvs, at, commands),
  'ipvs-all': ({ engine, stagedIpvs }, { at, commands, generation }) =>
    new Slices(engine.director.executeAll(allOf(stagedIpvs, at, commands), generation)),
  'stage-rules': ({ staged }, { at, commands }) => stage(staged, at, commands),
  'change-table': changeTable,
  'list-table': ({ engine }, { table, cursor, limit }) => engine.filter.page(table, cursor, limit),
  'list-tables': ({ engine }) => engine.filter.knownTables,
  'ipvs-generation': ({ engine }) => engine.director.generation,
  'ipvs-counts': ({ engine }) => ({
    services: engine.director.services.count,
    servers: engine.director.dests.count,
    connections: engine.director.conns.count,
  }),
  'ipvs-info': ({ engine }) => engine.director.info(),
  'list-services': ({ engine }, { key, cursor, limit }) => engine.director.listServices(cursor, limit, key),
  'list-drains': ({ engine }) => engine.director.listDrains(),
  'list-daemons': ({ engine }) => engine.director.listDaemons(),
  'list-connections': ({ engine }, { cursor, limit }) => engine.director.listConnections(cursor, limit),
  'conntrack-counts': ({ engine }) => engine.tracking.counts(),
  conntrack: ({ engine }, args) => engine.tracking.execute(args),
  'list-entries': ({ engine }, args) => engine.tracking.list(args),
  'delete-entries': ({ engine }, args) => engine.tracking.remove(args),
  'update-entries': ({ engine }, args) => engine.tracking.update(args),
  'flush-entries': ({ engine }, args) => engine.tracking.flush(args),
  'flush-expectations': ({ engine }, args) => engine.tracking.flushExpectations(args),
  'list-expectations': ({ engine }, args) => engine.tracking.listExpectations(args),
  'watch-conntrack': ({ engine }, args) => engine.tracking.watch(args),
  explain: explainPacket,
  'start-trace': ({ traces }, { traceId, device, filter }) => traces.start(traceId, device, filter),
  'stop-trace': ({ traces }, { traceId }) => {
    traces.stop(traceId);
    return null;
  },
  'start-capture': ({ captures }, spec) => captures.start(spec.captureId, spec),
  'stop-capture': ({ captures }, { captureId }) => {
    captures.stop(captureId);
    return null;
  },
  'turn-clock': turnClock,
  'keep-control': ({ keeper }, { text }) => {
    keeper?.writeControl(text);
    return null;
  },
  shutdown: (context) => {
    context.isStopping = true;
    return null;
  },
};

/** Answer one request; Slices where that takes longer than packets may wait. @throws what the handler throws: the caller reports it as a failed request */
export function answer(context: RequestContext, request: RequestMessage): unknown {
  const handler = handlers[request.name] as (c: RequestContext, args: unknown) => unknown;
  return handler(context, request.args);
}

export function addDevice({ engine, arena, post, keeper }: RequestContext, spec: DeviceSpec): null {
  const { hi, lo } = mac(spec.mac);
  const device = new KernelDevice({
    name: spec.name,
    kind: spec.kind,
    fd: spec.fd,
    pool: engine.pool,
    arena,
    mtu: spec.mtu,
    macHi: hi,
    macLo: lo,
    offload: spec.offload,
    drops: engine.drops,
    onFault: (failed, errno) => {
      engine.generation++;
      const message = failed.isGone ? 'the device is gone' : 'the device fails';
      post({ type: 'log', level: 'warn', message, fields: { device: failed.name, errno } });
    },
  });
  engine.addDevice(device, {
    isHost: spec.isHost,
    peer: spec.peer === undefined ? 0 : (parsePrefix(spec.peer)?.ip ?? 0),
  });
  keeper?.devices.push(spec);
  return null;
}

function* removeDevice({ engine, keeper }: RequestContext, name: string): Steps<null> {
  yield* engine.removeInSteps(name);
  keeper?.forget(name);
  return null;
}

function explainPacket({ engine, copies }: RequestContext, spec: ExplainSpec): Explanation | string {
  try {
    return explain(engine, spec, copies.allocate);
  } finally {
    copies.clear();
  }
}

function changeTable(
  { engine, staged }: RequestContext,
  { at, ...change }: EngineRequests['change-table']['args'],
): Slices<TableOutcome> {
  return new Slices(engine.filter.changeInSteps({ ...change, commands: allOf(staged, at, change.commands) }));
}

function stage<C>(staged: C[], at: number, commands: readonly C[]): null {
  staged.length = Math.min(staged.length, at);
  staged.push(...commands);
  return null;
}

/** Those that were staged, and these. */
function allOf<C>(staged: C[], at: number, commands: readonly C[]): C[] {
  const all = staged.splice(0);
  if (all.length !== at) throw new Error(`${at} commands should have come before, ${all.length} have`);
  for (const command of commands) all.push(command);
  return all;
}

function hookRows({ engine }: RequestContext): HookRow[] {
  return engine.hooks.chains.flatMap((chain) =>
    chain.ops.map(({ priority, name, why }) => ({ hook: HOOK_NAMES[chain.hook], priority, name, why })),
  );
}

/** Test mode: time passes in small steps with a breath after each, so that timers fire in their order. */
function turnClock(
  { engine, testClock }: RequestContext,
  args: EngineRequests['turn-clock']['args'],
): { ticks: number } {
  if (testClock === null) throw new Error('the clock is turned by hand only in test mode');
  if (args.runs === false) testClock.hold();
  if (args.runs === true) testClock.release();
  const end = seconds(args.seconds);
  for (let done = 0; done < end; ) {
    const step = Math.min(25, end - done);
    testClock.advance(step);
    engine.breathe();
    done += step;
  }
  return { ticks: testClock.now() };
}
