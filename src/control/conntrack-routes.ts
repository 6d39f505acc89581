/** The routes of connection tracking (api.ts): lists, changes, commands, streams of events. */
import type { EntryFilter } from '../model/conntrack.ts';
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

/** Rows of the table that the worker looks at between two breaths: well below a millisecond. */
const LOOK_AT = 256;
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
      const results = [];
      for (let at = 0; at < commands.length; at += BATCH) {
        results.push(...(await engine.call('conntrack', { commands: commands.slice(at, at + BATCH), by })));
      }
      return { results };
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
