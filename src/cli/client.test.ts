import { rmSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { ApiClient, ApiError, NoDaemonError } from './client.ts';

const path = join(tmpdir(), `tapvs-client-test-${process.pid}.sock`);
let cleanUp: (() => Promise<void>) | undefined;

/** A daemon that answers every request by this function. */
async function daemon(answer: (request: IncomingMessage, response: ServerResponse) => void): Promise<ApiClient> {
  const server = createServer(answer);
  await new Promise<void>((resolve) => server.listen(path, resolve));
  const client = new ApiClient(path);
  cleanUp = async () => {
    client.close();
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
    rmSync(path, { force: true });
  };
  return client;
}

afterEach(async () => {
  await cleanUp?.();
  cleanUp = undefined;
});

describe('the client of the control API', () => {
  it('sends JSON, answers JSON', async () => {
    const client = await daemon((request, response) => {
      let body = '';
      request.on('data', (chunk) => {
        body += chunk;
      });
      request.on('end', () => response.end(JSON.stringify({ was: `${request.method} ${request.url} ${body}` })));
    });
    expect(await client.get('/v1/status')).toEqual({ was: 'GET /v1/status ' });
    expect(await client.post('/v1/ipvs', { é: 1 })).toEqual({ was: 'POST /v1/ipvs {"é":1}' });
    expect(await client.put('/v1/sysctl/a', { value: '1' })).toEqual({ was: 'PUT /v1/sysctl/a {"value":"1"}' });
  });

  it('puts rows together that arrive in pieces', async () => {
    const client = await daemon((_request, response) => {
      response.write('{"a":1}\n{"a"');
      setImmediate(() => {
        response.write(':2}\n');
        setImmediate(() => response.end('{"a":3}'));
      });
    });
    const rows: unknown[] = [];
    for await (const batch of client.rows('/v1/ipvs/services')) rows.push(...batch);
    expect(rows).toEqual([{ a: 1 }, { a: 2 }, { a: 3 }]);
  });

  it('throws what the daemon refuses with', async () => {
    const client = await daemon((_request, response) => {
      response.statusCode = 404;
      response.end('{"error":{"code":"no-such-key","message":"there is no sysctl x"}}');
    });
    await expect(client.get('/v1/sysctl/x')).rejects.toThrow(new ApiError('no-such-key', 'there is no sysctl x'));
    await expect(client.rows('/v1/sysctl/x').next()).rejects.toMatchObject({ code: 'no-such-key' });
  });

  it('says that an answer broke off', async () => {
    const client = await daemon((_request, response) => {
      response.write('{"a":1}\n', () => response.destroy());
    });
    const read = async () => {
      for await (const batch of client.rows('/v1/ipvs/services')) expect(batch).toEqual([{ a: 1 }]);
    };
    const told = new NoDaemonError(`tapvsd at ${path} closed the connection amid its answer`);
    await expect(read()).rejects.toThrow(told);
    await expect(client.get('/v1/hooks')).rejects.toThrow(told);
  });

  it('says that no daemon answers', async () => {
    const client = new ApiClient('/nonexistent/tapvs.sock');
    await expect(client.get('/v1/status')).rejects.toThrow(NoDaemonError);
    await expect(client.get('/v1/status')).rejects.toThrow(
      'no daemon answers at /nonexistent/tapvs.sock (no such socket): start tapvsd, or name its socket',
    );
  });
});
