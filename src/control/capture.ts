/** Captures under way: each a pcapng stream to one client, fed by what the worker posts. */
import type { ServerResponse } from 'node:http';
import type { CaptureRecord, CaptureSpec } from '../engine/messages.ts';
import type { Engine } from './engine-client.ts';
import { ApiFailure } from './http.ts';
import { PcapngStream } from './pcapng.ts';

/** A client that reads more slowly than packets come loses packets, not us our memory. Bytes. */
const BACKLOG_LIMIT = 16 << 20;

interface Capture {
  readonly response: ServerResponse;
  readonly stream: PcapngStream;
  /** What came before the client had its header; null since then. */
  early: CaptureRecord[] | null;
  /** Packets that found the backlog full. */
  lost: number;
}

export class Captures {
  readonly #engine: Engine;
  readonly #application: string;
  readonly #log: (message: string) => void;
  readonly #running = new Map<number, Capture>();
  #nextId = 1;

  constructor(engine: Engine, application: string, log: (message: string) => void) {
    this.#engine = engine;
    this.#application = application;
    this.#log = log;
  }

  /** Begins a capture that lasts until the client goes. The section header tells the client that it runs. @throws ApiFailure bad-filter */
  async start(spec: CaptureSpec, response: ServerResponse): Promise<void> {
    const captureId = this.#nextId++;
    const capture: Capture = {
      response,
      stream: new PcapngStream({ snapLength: spec.snapLength, isMixed: spec.device === undefined }),
      early: [],
      lost: 0,
    };
    this.#running.set(captureId, capture);
    try {
      const refused = await this.#engine.call('start-capture', { ...spec, captureId });
      if (refused !== null) throw new ApiFailure('bad-filter', refused);
    } catch (error) {
      this.#running.delete(captureId);
      throw error;
    }
    response.once('close', () => void this.#stop(captureId, capture));
    response.writeHead(200, { 'content-type': 'application/x-pcapng' });
    response.write(capture.stream.start(this.#application));
    const early = capture.early ?? [];
    capture.early = null;
    this.take(early);
    if (response.destroyed) await this.#stop(captureId, capture);
  }

  take(records: readonly CaptureRecord[]): void {
    for (const record of records) {
      const capture = this.#running.get(record.captureId);
      if (capture === undefined) continue;
      if (capture.early !== null) capture.early.push(record);
      else if (capture.response.writableLength > BACKLOG_LIMIT) capture.lost++;
      else capture.response.write(capture.stream.packet(record));
    }
  }

  /** Ends the streams; the engine is about to end, too. */
  stopAll(): void {
    for (const { response } of this.#running.values()) response.end();
  }

  async #stop(captureId: number, capture: Capture): Promise<void> {
    if (!this.#running.delete(captureId)) return;
    if (capture.lost > 0) this.#log(`a capture's client read too slowly: ${capture.lost} packets were left out`);
    // When the worker is gone, so is the capture.
    await this.#engine.call('stop-capture', { captureId }).catch(() => {});
  }
}
