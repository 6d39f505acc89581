/** The control API (api.ts) over the unix socket: each route a few lines that ask the engine. */
import { createServer, type Server } from 'node:http';
import type { IpCommand } from '../model/ip.ts';
import type { IpvsCommand } from '../model/ipvs.ts';
import type { CommandResults, ReloadResult, Status } from './api.ts';
import {
  readClock,
  readExplain,
  readIpCommands,
  readIpvsCommands,
  readNumber,
  readServiceKey,
  readSysctlValue,
  readTableChange,
  readTableLines,
  readTableName,
} from './api-schema.ts';
import type { Captures } from './capture.ts';
import type { ConntrackEvents } from './conntrack-events.ts';
import { conntrackRoutes } from './conntrack-routes.ts';
import type { Engine } from './engine-client.ts';
import { ApiFailure, type Call, type Route, readJson, sendPages, serve } from './http.ts';
import type { RuleChanges } from './rule-changes.ts';
import { servicePages } from './service-pages.ts';
import { sysctlHint } from './sysctl-hint.ts';
import { TableChanger } from './table-change.ts';
import type { Traces } from './trace.ts';

/** Rows asked of the worker at a time: what it can list between two breaths. */
const PAGE = 256;
/** Commands given to the worker at a time, for the same reason. */
const BATCH = 64;
const MAX_SNAP = 262_144;
/** Until a request is here whole; its answer may last as long as its client. */
const REQUEST_MS = 60_000;

export interface ApiContext {
  readonly engine: Engine;
  readonly captures: Captures;
  readonly traces: Traces;
  readonly ctEvents: ConntrackEvents;
  readonly testClock: boolean;
  /** Whoever changes tables of iptables stands in one queue. */
  readonly rules: RuleChanges;
  readonly status: () => Promise<Status>;
  readonly reload: () => Promise<ReloadResult>;
  /** After these have changed addresses, routes or links: the kernel follows. */
  readonly ipChanged: (commands: readonly IpCommand[]) => Promise<void>;
  /** After services, servers or drains have changed. */
  readonly ipvsChanged: (commands: readonly IpvsCommand[]) => Promise<void>;
  readonly logError: (message: string, error: Error) => void;
}

export function createApi(context: ApiContext): Server {
  const routes = apiRoutes(context);
  const server = createServer((request, response) => {
    void serve(routes, request, response).then((error) => {
      if (error !== null) context.logError(`${request.method} ${request.url}`, error);
    });
  });
  server.requestTimeout = REQUEST_MS;
  server.keepAliveTimeout = 60_000;
  return server;
}

function apiRoutes(context: ApiContext): Route[] {
  const { engine, rules } = context;
  const tables = new TableChanger(engine);
  const get = (path: string, run: Route['run']): Route => ({ method: 'GET', path: `/v1/${path}`, run });
  const post = (path: string, run: Route['run']): Route => ({ method: 'POST', path: `/v1/${path}`, run });
  return [
    get('status', () => context.status()),
    get('hooks', () => engine.call('list-hooks', {})),
    get('drops', () => engine.call('list-drops', {})),
    get('ip/addresses', () => engine.call('list-addresses', {})),
    get('ip/routes', () => engine.call('list-routes', {})),
    get('ip/neighbours', () => engine.call('list-neighbours', {})),
    get('ip/links', () => engine.call('list-links', {})),
    post('ip', async ({ request }) => {
      const commands = readIpCommands(await readJson(request));
      const answer = await inBatches(commands, (batch) => engine.call('ip', { commands: batch }));
      await context.ipChanged(commands.filter((_, i) => answer.results[i] === null));
      return answer;
    }),
    get('sysctl', () => engine.call('list-sysctls', {})),
    get('sysctl/*', async ({ rest: key }) => ({ key, value: await sysctl(engine, key) })),
    { method: 'PUT', path: '/v1/sysctl/*', run: (call) => setSysctl(engine, call) },
    get('ipvs', () => engine.call('ipvs-info', {})),
    post('ipvs', async ({ request }) => {
      const commands = readIpvsCommands(await readJson(request));
      const results = await inBatches(commands, (batch) => engine.call('ipvs', { commands: batch }));
      await context.ipvsChanged(commands);
      return results;
    }),
    get('ipvs/drains', () => engine.call('list-drains', {})),
    post('ipvs/plan', async ({ request }) => tables.plan(readTableLines(await readJson(request)))),
    {
      method: 'PUT',
      path: '/v1/ipvs/table',
      run: async ({ request }) => {
        const plan = await tables.apply(readTableLines(await readJson(request)));
        await context.ipvsChanged(plan.changes.map(({ command }) => command));
        return plan;
      },
    },
    get('ipvs/services', (call) => listServices(engine, call)),
    get('ipvs/daemons', () => engine.call('list-daemons', {})),
    get('ipvs/connections', async ({ response }) => {
      const page = (cursor: number) => engine.call('list-connections', { cursor, limit: PAGE });
      await sendPages(response, await page(0), page);
    }),
    get('iptables', () => engine.call('list-tables', {})),
    get('iptables/*', async ({ rest }) => rules.list(readTableName(rest))),
    post('iptables', async ({ request }) => rules.change(readTableChange(await readJson(request)))),
    ...conntrackRoutes(context, get, post),
    get('capture', (call) => startCapture(context, call)),
    post('explain', async ({ request }) => {
      const spec = readExplain(await readJson(request));
      await checkDevice(engine, spec.device);
      const answer = await engine.call('explain', spec);
      if (typeof answer === 'string') throw new ApiFailure('bad-value', answer);
      return answer;
    }),
    get('trace', async ({ query, response }) => {
      const device = query.get('device') || undefined;
      await checkDevice(engine, device);
      if (device === 'lo') throw new ApiFailure('no-such-device', 'nothing comes in by lo');
      await context.traces.start(device, query.get('filter') ?? '', response);
      return undefined;
    }),
    post('reload', () => context.reload()),
    post('clock', async ({ request }) => {
      if (!context.testClock)
        throw new ApiFailure('not-in-test-mode', 'the clock turns by itself: start tapvsd with --test-clock');
      return engine.call('turn-clock', readClock(await readJson(request)));
    }),
  ];
}

async function inBatches<C, E extends CommandResults['results'][number]>(
  commands: readonly C[],
  run: (batch: readonly C[]) => Promise<readonly E[]>,
): Promise<CommandResults> {
  const results: E[] = [];
  for (let at = 0; at < commands.length; at += BATCH) results.push(...(await run(commands.slice(at, at + BATCH))));
  return { results };
}

async function sysctl(engine: Engine, key: string): Promise<string> {
  const value = await engine.call('get-sysctl', { key });
  if (value === undefined) throw new ApiFailure('no-such-key', `there is no sysctl ${key}`);
  return value;
}

async function setSysctl(engine: Engine, { request, rest: key }: Call): Promise<{ key: string; value: string }> {
  const value = readSysctlValue(await readJson(request));
  const errno = await engine.call('set-sysctl', { key, value });
  if (errno === 'ENOENT') throw new ApiFailure('no-such-key', `there is no sysctl ${key}`);
  if (errno !== null) {
    const hint = sysctlHint(key, value, await sysctl(engine, 'net.netfilter.nf_conntrack_buckets'));
    throw new ApiFailure('bad-value', `${key} cannot be '${value}'${hint === '' ? '' : `: ${hint}`}`);
  }
  return { key, value: await sysctl(engine, key) };
}

async function listServices(engine: Engine, { query, response }: Call): Promise<undefined> {
  const text = query.get('key');
  const key = text === null ? undefined : readServiceKey(text);
  const page = servicePages(engine, key);
  const first = await page(0);
  if (key !== undefined && first.rows.length === 0) throw new ApiFailure('no-such-service', 'there is no such service');
  await sendPages(response, first, page);
}

async function checkDevice(engine: Engine, device: string | undefined): Promise<void> {
  if (device === undefined) return;
  const names = (await engine.call('list-links', {})).map((link) => link.name);
  if (names.includes(device)) return;
  throw new ApiFailure('no-such-device', `there is no device '${device}'; there are ${names.join(', ')}`);
}

async function startCapture({ engine, captures }: ApiContext, { query, response }: Call): Promise<undefined> {
  const device = query.get('device') || undefined;
  const snapLength = readNumber(query, 'snaplen', 0, MAX_SNAP, MAX_SNAP) || MAX_SNAP; // 0 is tcpdump's word for all of it
  await checkDevice(engine, device);
  const spec = { device, hook: query.get('hook') || undefined, filter: query.get('filter') ?? '', snapLength };
  await captures.start(spec, response);
}
