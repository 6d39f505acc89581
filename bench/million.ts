/**
 * A million tracked connections, each with its entry and its connection of the director: what memory they take, and for how long commands about them stop the
 * data path at most.
 *
 *   node --expose-gc dist/bench/million.js [--entries N]
 *
 * The engine runs in this process without any kernel. Each command is asked in slices as the control thread asks it; a slice is what the worker does between two
 * breaths: the answer, and its copy into a message. The longest is told in milliseconds without those in which others had
 * the core, and as it passed on the clock.
 */
import { setImmediate } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { getHeapStatistics } from 'node:v8';
import { FLUSHED, LOOK_AT } from '../src/control/conntrack-routes.ts';
import { CopyMemory } from '../src/engine/copy-memory.ts';
import type { Engine } from '../src/engine/engine.ts';
import { explain } from '../src/engine/explain.ts';
import { FEW, PORT, Rig, VIP } from './rig.ts';
import { TRACKING_RULES } from './rules.ts';
import { type Slice, Stops } from './stops.ts';

const MEGABYTE = 1e6;
const MAX_BYTES = 350 * 1e6;
const EXPECTATIONS = 4096;
/** Rows of the director's connections that the control thread asks for at a time. */
const CONNECTIONS = 256;

function expectMany({ translation, stack, conntrack }: Engine): void {
  const { expectations } = translation;
  expectations.max = EXPECTATIONS;
  const policy = { maxExpected: 0, timeoutSeconds: 300 };
  const common = {
    srcMask: -1,
    srcPort: 0,
    srcPortMask: 0,
    dst: 1,
    zone: 0,
    helper: 'ftp',
    class: 0,
    flags: 0,
    nat: null,
  };
  for (let i = 0; i < EXPECTATIONS; i++) {
    expectations.add(
      stack.now,
      { ...common, master: 1 + (i % conntrack.entries.count), proto: 6, src: i, dstPort: i },
      policy,
    );
  }
}

/** A new connection of a client that has none. */
function ask(engine: Engine, copies: CopyMemory): unknown {
  const [source, destination] = ['10.9.0.1', VIP];
  const header = { protocol: 'tcp', flags: 'S', ttl: 64, df: true, length: 0, chunk: 1, mark: 0 } as const;
  const spec = { ...header, source, destination, sourcePort: 1234, destinationPort: PORT, device: 'front' };
  const answer = explain(engine, spec, copies.allocate);
  copies.clear();
  if (typeof answer === 'string' || answer.ways[0]?.end.kind !== 'sent') throw new Error('explain: it is not sent');
  return answer;
}

const prepared = (flows: number): Rig => {
  const rig = new Rig({ ...FEW, what: '', flows, rules: TRACKING_RULES, isTracked: true });
  rig.prepare();
  return rig;
};

/** Resident bytes when nothing waits to be collected, but for V8's heap: its young generation grows and shrinks by 15 MB as it likes, and no table is in it. */
async function resident(): Promise<number> {
  globalThis.gc?.();
  // Memory that belongs to nobody any more is given back in a later turn.
  await setImmediate();
  await setImmediate();
  return process.memoryUsage().rss - getHeapStatistics().total_physical_size;
}

async function main(): Promise<number> {
  const { values } = parseArgs({ options: { entries: { type: 'string', default: '1000000' } } });
  // Compiled code and what the allocator keeps are not the million's.
  prepared(FEW.flows);
  const before = await resident();
  const { engine } = prepared(Number(values.entries));
  const tables = (await resident()) - before;
  const { entries } = engine.conntrack;
  process.stdout.write(
    `${entries.confirmed} entries, ${engine.director.conns.count} connections: ${(tables / MEGABYTE).toFixed(0)} MB (${(process.memoryUsage().rss / MEGABYTE).toFixed(0)} MB with the whole process)\n`,
  );
  const stops = new Stops(engine);
  const { tracking, director } = engine;
  const place = (cursor: number) => ({ cursor, limit: LOOK_AT, filter: {} });
  const page = (result: { readonly next: number }): Slice => ({ result, next: result.next });
  const few = { original: { src: '11.0.0.1', ports: { src: 2000 } } };
  stops.measure('conntrack -C', () => ({ result: tracking.counts(), next: -1 }));
  for (const what of ['conntrack -L', 'conntrack -L, again'])
    stops.measure(what, (cursor) => page(tracking.list({ ...place(cursor), table: 'conntrack', zero: false })));
  stops.measure('conntrack -L -s … (few are meant)', (cursor) =>
    page(tracking.list({ ...place(cursor), table: 'conntrack', zero: false, filter: few })),
  );
  expectMany(engine);
  stops.measure('conntrack -L expect', (cursor) => page(tracking.listExpectations({ cursor, limit: LOOK_AT })));
  stops.measure('conntrack -F expect', (last) => {
    const result = tracking.flushExpectations({ last, limit: FLUSHED });
    return { result, next: result.last === 0 ? -1 : result.last };
  });
  stops.measure('conntrack -U --mark 1', (cursor) =>
    page(tracking.update({ ...place(cursor), change: { mark: { value: 1, mask: 0xffffffff } } })),
  );
  stops.measure('conntrack -D -s … (few are meant)', (cursor) =>
    page(tracking.remove({ ...place(cursor), filter: few })),
  );
  const copies = new CopyMemory();
  for (const what of ['explain', 'explain, again'])
    stops.measure(what, () => ({ result: ask(engine, copies), next: -1 }));
  stops.measure('ipvsadm -L -c', (cursor) => page(director.listConnections(cursor, CONNECTIONS)));
  stops.measure('conntrack -F', (cursor) => page(tracking.flush({ cursor, limit: FLUSHED })));
  process.stdout.write(`${entries.confirmed} entries are left\n`);
  stops.close();
  return stops.report() || tables > MAX_BYTES ? 1 : 0;
}

process.exitCode = await main();
