/** The routes of connection tracking (api.ts): lists, changes, commands, streams of events. */
import type { CtCommand, CtRequester, CtResult, EntryFilter, SmallCtCommand } from '../model/conntrack.ts';
import { readNumber } from './api-schema.ts';
import { type ConntrackEvents, DEFAULT_BUFFER } from './conntrack-events.ts';
import {
  queryFilter,
  queryKinds,
  queryTable,
  readCtCommands,
  readEntryChange,
  readEntryFilter,
  readRequester,
} from './conntrack-schema.ts';
import type { Engine } from './engine-client.ts';
import { type Call, type Route, readJson, sendPages } from './http.ts';

/** Rows of the table that the worker looks at between two breaths at most: about half a millisecond. */
export const LOOK_AT = 128;
/** The same when all that is there ends and nothing is told of it. */
export const FLUSHED = 512;
/** Commands given to the worker at a time, for the same reason. */
const BATCH = 64;
const MAX_BUFFER = 1 << 30;

interface Context {
  readonly engine: Engine;
  readonly ctEvents: ConntrackEvents;
}

type MakeRoute = (path: string, run: Route['run']) => Route;

export function conntrackRoutes({ engine, ctEvents }: Context, get: MakeRoute, post: MakeRoute): Route[] {
  return [
    get('conntrack', async () => ({ ...(await engine.call('conntrack-counts', {})), streams: ctEvents.list() })),
    post('conntrack', async ({ request }) => {
      const body = await readJson(request);
      const commands = readCtCommands(body);
      const by = readRequester(body);
      return { results: await runCommands(engine, commands, by) };
    }),
    get('conntrack/entries', ({ query, response }) => {
      const table = queryTable(query);
      const filter = queryFilter(query);
      return pages(response, filter, (place) => engine.call('list-entries', { ...place, table, zero: false }));
    }),
    post('conntrack/zero', async ({ request, response }) => {
      const filter = readEntryFilter(await readJson(request));
      return pages(response, filter, (place) =>
        engine.call('list-entries', { ...place, table: 'conntrack', zero: true }),
      );
    }),
    post('conntrack/delete', async ({ request, response }) => {
      const body = await readJson(request);
      const by = readRequester(body);
      return pages(response, readEntryFilter(body), (place) => engine.call('delete-entries', { ...place, by }));
    }),
    post('conntrack/update', async ({ request, response }) => {
      const body = await readJson(request);
      const by = readRequester(body);
      const change = readEntryChange(body);
      return pages(response, readEntryFilter(body), (place) => engine.call('update-entries', { ...place, change, by }));
    }),
    get('conntrack/expectations', async ({ response }) => {
      const page = (cursor: number) => engine.call('list-expectations', { cursor, limit: LOOK_AT });
      await sendPages(response, await page(0), page);
    }),
    get('conntrack/events', async ({ query, response }) => {
      const filter = queryFilter(query);
      await ctEvents.follow({ of: 'entries', kinds: queryKinds(query), filter, buffer: bufferOf(query) }, response);
    }),
    get('conntrack/expectation-events', async ({ query, response }) => {
      const kinds = queryKinds(query);
      await ctEvents.follow({ of: 'expectations', kinds, filter: {}, buffer: bufferOf(query) }, response);
    }),
  ];
}

/** In their order; one after the other, many at a time. */
async function runCommands(
  engine: Engine,
  commands: readonly CtCommand[],
  by: CtRequester | undefined,
): Promise<CtResult[]> {
  const results: CtResult[] = [];
  let some: SmallCtCommand[] = [];
  const runSome = async (): Promise<void> => {
    if (some.length > 0) results.push(...(await engine.call('conntrack', { commands: some, by })));
    some = [];
  };
  for (const command of commands) {
    if (command.op !== 'flush' && command.op !== 'flush-expectations') {
      some.push(command);
      if (some.length === BATCH) await runSome();
      continue;
    }
    await runSome();
    if (command.op === 'flush-expectations') await flushExpectations(engine, by);
    else if (command.family !== 6) await flushEntries(engine, by);
    results.push({ errno: null });
  }
  await runSome();
  return results;
}

/** In slices, with breaths between. */
async function flushEntries(engine: Engine, by: CtRequester | undefined): Promise<void> {
  for (let cursor = 0; cursor >= 0; ) {
    ({ next: cursor } = await engine.call('flush-entries', { cursor, limit: FLUSHED, by }));
  }
}

async function flushExpectations(engine: Engine, by: CtRequester | undefined): Promise<void> {
  let last = 0;
  do ({ last } = await engine.call('flush-expectations', { last, limit: FLUSHED, by }));
  while (last !== 0);
}

interface Place {
  readonly cursor: number;
  readonly limit: number;
  readonly filter: EntryFilter;
}

async function pages<Row>(
  response: Call['response'],
  filter: EntryFilter,
  ask: (place: Place) => Promise<{ readonly rows: readonly Row[]; readonly next: number }>,
): Promise<undefined> {
  const page = (cursor: number) => ask({ cursor, limit: LOOK_AT, filter });
  await sendPages(response, await page(0), page);
}

function bufferOf(query: URLSearchParams): number {
  return readNumber(query, 'buffer', 0, MAX_BUFFER, DEFAULT_BUFFER);
}
