/** Traces under way: each an NDJSON stream of TraceRecord to one client, fed by what the worker posts. */
import { once } from 'node:events';
import type { ServerResponse } from 'node:http';
import type { TraceRecord } from '../model/way.ts';
import type { Engine } from './engine-client.ts';
import { ApiFailure } from './http.ts';

/** A client that reads more slowly than packets come loses records, not us our memory. Bytes. */
const BACKLOG_LIMIT = 4 << 20;

interface Trace {
  readonly response: ServerResponse;
  /** What came before the client had its header; null since then. */
  early: TraceRecord[] | null;
  /** Records that found the backlog full, since the last one that did not. */
  lost: number;
}

export class Traces {
  readonly #engine: Engine;
  readonly #running = new Map<number, Trace>();
  #nextId = 1;

  constructor(engine: Engine) {
    this.#engine = engine;
  }

  /** Begins a trace that lasts until the client goes. The header tells the client that it runs. @throws ApiFailure bad-filter */
  async start(device: string | undefined, filter: string, response: ServerResponse): Promise<void> {
    const traceId = this.#nextId++;
    const trace: Trace = { response, early: [], lost: 0 };
    this.#running.set(traceId, trace);
    try {
      const refused = await this.#engine.call('start-trace', { traceId, device, filter });
      if (refused !== null) throw new ApiFailure('bad-filter', refused);
    } catch (error) {
      this.#running.delete(traceId);
      throw error;
    }
    const closed = once(response, 'close');
    response.writeHead(200, { 'content-type': 'application/x-ndjson' });
    response.flushHeaders();
    const early = trace.early ?? [];
    trace.early = null;
    this.take(early);
    if (!response.destroyed) await closed;
    this.#running.delete(traceId);
    // When the worker is gone, so is the trace.
    await this.#engine.call('stop-trace', { traceId }).catch(() => {});
  }

  take(records: readonly TraceRecord[]): void {
    for (const record of records) {
      const trace = this.#running.get(record.traceId);
      if (trace === undefined) continue;
      if (trace.early !== null) {
        trace.early.push(record);
      } else if (trace.response.writableLength > BACKLOG_LIMIT) {
        trace.lost += 1 + record.missed;
      } else {
        trace.response.write(`${JSON.stringify({ ...record, missed: record.missed + trace.lost })}\n`);
        trace.lost = 0;
      }
    }
  }

  /** Ends the streams; the engine is about to end, too. */
  stopAll(): void {
    for (const { response } of this.#running.values()) response.end();
  }
}
