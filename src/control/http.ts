/** The little of HTTP that the control API needs on top of node:http: a route table, JSON bodies, errors with codes, rows that stream. */
import { once } from 'node:events';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { ErrorBody, ErrorCode } from './api.ts';

/** Bytes. */
interface BodyLimits {
  readonly one: number;
  /** All that are under way. */
  readonly together: number;
}

const LIMITS: BodyLimits = { one: 64 << 20, together: 256 << 20 };

/** Bytes of bodies that are under way. */
let waiting = 0;

/** A refusal that the client is told about. */
export class ApiFailure extends Error {
  override readonly name = 'ApiFailure';
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string) {
    super(message);
    this.code = code;
  }
}

const STATUS: Readonly<Record<ErrorCode, number>> = {
  'bad-request': 400,
  'not-found': 404,
  'method-not-allowed': 405,
  'no-such-service': 404,
  'no-such-key': 404,
  'bad-value': 422,
  'bad-filter': 422,
  'no-such-device': 404,
  'bad-config': 422,
  busy: 409,
  'not-in-test-mode': 409,
  internal: 500,
};

export interface Call {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly query: URLSearchParams;
  /** What the `*` of the route's path stands for. */
  readonly rest: string;
}

export interface Route {
  readonly method: 'GET' | 'POST' | 'PUT';
  /** Ends in `/*` when the rest of the path is an argument. */
  readonly path: string;
  /** Answers a value that is sent as JSON, or undefined when it has answered by itself. */
  readonly run: (call: Call) => Promise<unknown>;
}

/** Finds the route, runs it, sends its value or its failure. Never rejects; answers the error that is our own, if any. */
export async function serve(
  routes: readonly Route[],
  request: IncomingMessage,
  response: ServerResponse,
): Promise<Error | null> {
  try {
    const { route, rest, query } = findRoute(routes, request);
    const value = await route.run({ request, response, query, rest });
    if (value !== undefined) sendJson(response, 200, value);
    return null;
  } catch (error) {
    const failure = error instanceof ApiFailure ? error : null;
    const code = failure?.code ?? 'internal';
    const message = error instanceof Error ? error.message : String(error);
    const body: ErrorBody = { error: { code, message } };
    if (response.headersSent) response.destroy();
    else sendJson(response, STATUS[code], body);
    return failure === null ? toError(error) : null;
  }
}

function findRoute(
  routes: readonly Route[],
  request: IncomingMessage,
): { route: Route; rest: string; query: URLSearchParams } {
  const { pathname, searchParams } = parseUrl(request.url ?? '/');
  const here = routes.flatMap((route) => {
    if (!route.path.endsWith('/*')) return route.path === pathname ? [{ route, rest: '' }] : [];
    const prefix = route.path.slice(0, -1);
    return pathname.startsWith(prefix) && pathname.length > prefix.length
      ? [{ route, rest: decode(pathname.slice(prefix.length)) }]
      : [];
  });
  if (here.length === 0) throw new ApiFailure('not-found', `there is nothing at ${pathname}`);
  const found = here.find(({ route }) => route.method === request.method);
  if (found !== undefined) return { ...found, query: searchParams };
  const methods = here.map(({ route }) => route.method).join(', ');
  throw new ApiFailure('method-not-allowed', `${pathname} takes ${methods}, not ${request.method}`);
}

function parseUrl(url: string): URL {
  try {
    return new URL(url, 'http://tapvs');
  } catch {
    throw new ApiFailure('bad-request', 'the address of the request is malformed');
  }
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw new ApiFailure('bad-request', `'${text}' is not percent-encoded as it should be`);
  }
}

export function sendJson(response: ServerResponse, status: number, value: unknown): void {
  const text = `${JSON.stringify(value)}\n`;
  response.writeHead(status, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) });
  response.end(text);
}

/** The body as an object. @throws ApiFailure bad-request when it is none or too large, busy when all bodies together are */
export async function readJson(request: IncomingMessage, limits = LIMITS): Promise<Record<string, unknown>> {
  const text = await readText(request, limits);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new ApiFailure('bad-request', `the body is not JSON: ${toError(error).message}`);
  }
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  throw new ApiFailure('bad-request', 'the body must be a JSON object');
}

async function readText(request: IncomingMessage, { one, together }: BodyLimits): Promise<string> {
  const chunks: Buffer[] = [];
  let length = 0;
  let refusal: ApiFailure | null = null;
  try {
    for await (const chunk of request as AsyncIterable<Buffer>) {
      // The rest is read, and forgotten: a client that cannot send it would not hear the answer.
      if (refusal !== null) continue;
      length += chunk.length;
      waiting += chunk.length;
      chunks.push(chunk);
      if (length > one) refusal = new ApiFailure('bad-request', `the body is larger than ${one >> 20} MiB`);
      else if (waiting > together) refusal = new ApiFailure('busy', 'other requests with long bodies are under way');
      if (refusal === null) continue;
      chunks.length = 0;
      waiting -= length;
      length = 0;
    }
    if (refusal !== null) throw refusal;
    return Buffer.concat(chunks).toString('utf8');
  } catch (error) {
    if (error instanceof ApiFailure) throw error;
    throw new ApiFailure('bad-request', `the request ended amid its body: ${toError(error).message}`);
  } finally {
    waiting -= length;
  }
}

export interface Page<Row> {
  readonly rows: readonly Row[];
  /** Cursor of the next page, -1 at the end. */
  readonly next: number;
}

/** Streams pages as NDJSON; asks for the next one only when the client has taken the last. Ends early when the client goes. */
export async function sendPages<Row>(
  response: ServerResponse,
  first: Page<Row>,
  more: (cursor: number) => Promise<Page<Row>>,
): Promise<void> {
  response.writeHead(200, { 'content-type': 'application/x-ndjson' });
  for (let page = first; ; page = await more(page.next)) {
    if (page.rows.length > 0) {
      const text = `${page.rows.map((row) => JSON.stringify(row)).join('\n')}\n`;
      if (!response.write(text) && !(await drained(response))) return;
    }
    if (response.destroyed) return;
    if (page.next < 0) break;
  }
  response.end();
}

/** False when the client went instead. */
async function drained(response: ServerResponse): Promise<boolean> {
  if (response.destroyed) return false;
  const stop = new AbortController();
  const { signal } = stop;
  return Promise.race([
    once(response, 'drain', { signal }).then(() => true),
    once(response, 'close', { signal }).then(() => false),
  ]).finally(() => stop.abort());
}

function toError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}
