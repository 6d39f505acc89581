/**
 * Client of the control API: JSON over HTTP over the daemon's unix socket, one kept-alive connection.
 * Throws NoDaemonError when nobody listens there, ApiError when the daemon refuses.
 */
import { Agent, type IncomingMessage, request } from 'node:http';
import type { ErrorBody, ErrorCode } from '../control/api.ts';

export class NoDaemonError extends Error {}

/** The daemon's own words, with its error code. */
export class ApiError extends Error {
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string) {
    super(message);
    this.code = code;
  }
}

export class ApiClient {
  readonly socketPath: string;
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 4 });

  constructor(socketPath: string) {
    this.socketPath = socketPath;
  }

  get<T>(path: string): Promise<T> {
    return this.#json<T>('GET', path, undefined);
  }

  post<T>(path: string, body: unknown): Promise<T> {
    return this.#json<T>('POST', path, body);
  }

  put<T>(path: string, body: unknown): Promise<T> {
    return this.#json<T>('PUT', path, body);
  }

  /** Rows of an NDJSON answer, in the batches in which they arrive. With a body it is asked by POST. */
  async *rows<T>(path: string, body?: unknown): AsyncGenerator<T[]> {
    const response = await this.stream(path, body);
    let rest = '';
    for await (const chunk of this.#pieces(response)) {
      const text = rest + chunk;
      const end = text.lastIndexOf('\n');
      if (end < 0) {
        rest = text;
        continue;
      }
      rest = text.slice(end + 1);
      yield parseLines<T>(text.slice(0, end));
    }
    if (rest !== '') yield parseLines<T>(rest);
  }

  /** The raw answer of a GET, or of a POST of `body`, once its status is known to be good. The caller reads or destroys it. */
  async stream(path: string, body?: unknown): Promise<IncomingMessage> {
    const response = await this.#send(body === undefined ? 'GET' : 'POST', path, body);
    if (response.statusCode !== 200) throw refusal(response.statusCode, await this.#textOf(response));
    return response;
  }

  close(): void {
    this.#agent.destroy();
  }

  async #json<T>(method: string, path: string, body: unknown): Promise<T> {
    const response = await this.#send(method, path, body);
    const text = await this.#textOf(response);
    const status = response.statusCode ?? 0;
    if (status < 200 || status > 299) throw refusal(status, text);
    return JSON.parse(text) as T;
  }

  #send(method: string, path: string, body: unknown): Promise<IncomingMessage> {
    const payload = body === undefined ? undefined : Buffer.from(JSON.stringify(body));
    const headers: Record<string, string | number> = { host: 'tapvs' };
    if (payload !== undefined) {
      headers['content-type'] = 'application/json';
      headers['content-length'] = payload.length;
    }
    return new Promise((resolve, reject) => {
      const sent = request(
        { socketPath: this.socketPath, agent: this.#agent, method, path, headers },
        resolve as (response: IncomingMessage) => void,
      );
      sent.on('error', (error: NodeJS.ErrnoException) => reject(this.#explain(error)));
      sent.end(payload);
    });
  }

  /** @throws NoDaemonError when the answer breaks off */
  async *#pieces(response: IncomingMessage): AsyncGenerator<string> {
    response.setEncoding('utf8');
    try {
      yield* response as AsyncIterable<string>;
    } catch {
      throw new NoDaemonError(`tapvsd at ${this.socketPath} closed the connection amid its answer`);
    }
  }

  async #textOf(response: IncomingMessage): Promise<string> {
    let text = '';
    for await (const piece of this.#pieces(response)) text += piece;
    return text;
  }

  #explain(error: NodeJS.ErrnoException): Error {
    const why =
      error.code === 'ENOENT'
        ? 'no such socket'
        : error.code === 'ECONNREFUSED'
          ? 'nobody listens there'
          : error.code === 'EACCES'
            ? 'permission denied'
            : (error.code ?? error.message);
    return new NoDaemonError(
      `no daemon answers at ${this.socketPath} (${why}): start tapvsd, or name its socket with --socket or TAPVS_SOCKET`,
    );
  }
}

function refusal(status: number | undefined, text: string): ApiError {
  try {
    const { error } = JSON.parse(text) as ErrorBody;
    return new ApiError(error.code, error.message);
  } catch {
    return new ApiError('internal', `the daemon answered status ${status ?? '?'} without a reason`);
  }
}

function parseLines<T>(text: string): T[] {
  const rows: T[] = [];
  for (const line of text.split('\n')) if (line !== '') rows.push(JSON.parse(line) as T);
  return rows;
}
