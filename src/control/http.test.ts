import { EventEmitter, once } from 'node:events';
import { mkdtempSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { type ClientRequest, createServer, type IncomingMessage, request, type Server } from 'node:http';
import { createServer as createNetServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ApiFailure, type Route, readJson, sendPages, serve } from './http.ts';
import { claimSocket, listenAt } from './socket.ts';

const dir = mkdtempSync(join(tmpdir(), 'tapvs-http-'));
afterAll(() => rmSync(dir, { recursive: true }));

/** Pages of 100 rows of 1 KiB that were asked for so far. */
let pagesAsked = 0;
const PAGES = 200;
const page = (cursor: number) => {
  pagesAsked++;
  const rows = Array.from({ length: 100 }, (_, i) => ({ row: cursor * 100 + i, filler: 'x'.repeat(1000) }));
  return Promise.resolve({ rows, next: cursor + 1 < PAGES ? cursor + 1 : -1 });
};

const routes: Route[] = [
  { method: 'GET', path: '/v1/thing/*', run: async ({ rest, query }) => ({ rest, x: query.get('x') }) },
  { method: 'POST', path: '/v1/echo', run: async ({ request: asked }) => readJson(asked) },
  {
    method: 'POST',
    path: '/v1/small',
    run: async ({ request: asked }) => readJson(asked, { one: 1 << 20, together: 3 << 19 }),
  },
  {
    method: 'GET',
    path: '/v1/rows',
    run: async ({ response }) => void (await sendPages(response, await page(0), page)),
  },
  {
    method: 'GET',
    path: '/v1/refuses',
    run: () => Promise.reject(new ApiFailure('no-such-key', 'there is no such key')),
  },
  { method: 'GET', path: '/v1/breaks', run: () => Promise.reject(new TypeError('our bug')) },
];

const path = join(dir, 'api.sock');
const failures: Error[] = [];
const events = new EventEmitter();
let server: Server;

beforeAll(async () => {
  server = createServer((asked, response) => {
    void serve(routes, asked, response).then((error) => {
      if (error !== null) failures.push(error);
      events.emit('served');
    });
  });
  await claimSocket(path);
  await listenAt(server, path);
});
afterAll(() => server.close());

function send(method: string, url: string, body?: string): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const sent = request({ socketPath: path, method, path: url, agent: false }, resolve);
    sent.on('error', reject);
    sent.end(body);
  });
}

async function ask(method: string, url: string, body?: string): Promise<[number | undefined, unknown]> {
  const response = await send(method, url, body);
  let text = '';
  for await (const chunk of response) text += String(chunk);
  return [response.statusCode, JSON.parse(text)];
}

describe('routes', () => {
  it.each([
    ['GET', '/v1/thing/a%2Fb?x=1', undefined, 200, { rest: 'a/b', x: '1' }],
    ['POST', '/v1/echo', '{"a":1}', 200, { a: 1 }],
    ['POST', '/v1/echo', '5', 400, { error: { code: 'bad-request', message: 'the body must be a JSON object' } }],
    ['GET', '/v1/thing/', undefined, 404, { error: { code: 'not-found', message: 'there is nothing at /v1/thing/' } }],
    [
      'GET',
      '/v1/thing/%zz',
      undefined,
      400,
      { error: { code: 'bad-request', message: "'%zz' is not percent-encoded as it should be" } },
    ],
    ['PUT', '/v1/echo', '{}', 405, { error: { code: 'method-not-allowed', message: '/v1/echo takes POST, not PUT' } }],
    ['GET', '/v1/refuses', undefined, 404, { error: { code: 'no-such-key', message: 'there is no such key' } }],
    ['GET', '/v1/breaks', undefined, 500, { error: { code: 'internal', message: 'our bug' } }],
  ] as const)('%s %s', async (method, url, body, status, answer) => {
    expect(await ask(method, url, body)).toEqual([status, answer]);
  });

  it('tells a refusal from a fault of our own', () => {
    expect(failures.map((error) => error.message)).toEqual(['our bug']);
  });
});

describe('a body', () => {
  const refusal = (code: string, message: string) => ({ error: { code, message } });
  /** As JSON. */
  const ofSize = (bytes: number) => JSON.stringify({ a: ' '.repeat(bytes - 8) });

  it('has an end', async () => {
    expect(await ask('POST', '/v1/small', ofSize(1 << 20))).toMatchObject([200, {}]);
    const answer = refusal('bad-request', 'the body is larger than 1 MiB');
    expect(await ask('POST', '/v1/small', ofSize((1 << 20) + 1))).toEqual([400, answer]);
    expect(await ask('POST', '/v1/small', ofSize(20 << 20))).toEqual([400, answer]);
  });

  it('waits for no other, but all together have an end, too', async () => {
    const half = (): ClientRequest => {
      const sent = request({ socketPath: path, method: 'POST', path: '/v1/small', agent: false });
      sent.on('error', () => {}).write(ofSize(1 << 20).slice(1));
      return sent;
    };
    const first = half();
    const busy = refusal('busy', 'other requests with long bodies are under way');
    // Until the first one's bytes are there, the second one has room.
    let answer = await ask('POST', '/v1/small', ofSize(1 << 20));
    while (answer[0] === 200) answer = await ask('POST', '/v1/small', ofSize(1 << 20));
    expect(answer).toEqual([409, busy]);
    expect(await ask('POST', '/v1/small', '{}')).toEqual([200, {}]);
    const ended = once(events, 'served');
    first.destroy();
    await ended;
    expect(await ask('POST', '/v1/small', ofSize(1 << 20))).toMatchObject([200, {}]);
  });

  it('whose client goes in the middle is no fault of ours', async () => {
    const before = failures.length;
    const sent = request({ socketPath: path, method: 'POST', path: '/v1/echo', agent: false });
    const begun = once(server, 'request');
    sent.on('error', () => {}).write('{"a"');
    await begun;
    const ended = once(events, 'served');
    sent.destroy();
    await ended;
    expect(failures).toHaveLength(before);
  });
});

describe('a list', () => {
  it('comes whole', async () => {
    let text = '';
    for await (const chunk of await send('GET', '/v1/rows')) text += String(chunk);
    const rows = text.trim().split('\n');
    expect(rows).toHaveLength(PAGES * 100);
    expect(JSON.parse(rows.at(-1)!)).toMatchObject({ row: PAGES * 100 - 1 });
  });

  it('is not asked for faster than the client reads, and ends when the client goes', async () => {
    pagesAsked = 0;
    const response = await send('GET', '/v1/rows');
    await ask('GET', '/v1/thing/later');
    expect(pagesAsked).toBeLessThan(PAGES / 4);
    response.destroy();
    await ask('GET', '/v1/thing/later');
    expect(pagesAsked).toBeLessThan(PAGES / 4);
  });
});

describe('the socket', () => {
  it('is for owner and group', () => {
    expect(statSync(path).mode & 0o777).toBe(0o660);
  });

  it('of a living daemon is not taken', async () => {
    await expect(claimSocket(path)).rejects.toThrow(`another tapvsd listens on ${path}`);
  });

  it('of a dead one makes way', async () => {
    const dead = join(dir, 'dead.sock');
    // A socket file whose listener is gone: bound under another name, then moved, so that closing leaves it.
    const other = createNetServer();
    await new Promise<void>((resolve) => other.listen(join(dir, 'x.sock'), resolve));
    renameSync(join(dir, 'x.sock'), dead);
    await new Promise((resolve) => other.close(resolve));
    expect(statSync(dead).isSocket()).toBe(true);
    await claimSocket(dead);
    expect(statSync(dead, { throwIfNoEntry: false })).toBeUndefined();
  });

  it('does not replace what is no socket', async () => {
    const file = join(dir, 'file');
    writeFileSync(file, 'precious');
    await expect(claimSocket(file)).rejects.toThrow('is no socket');
  });
});
