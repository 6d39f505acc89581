/** Clients that follow what connection tracking does: each an NDJSON stream, fed by what the worker posts. While nobody follows, the worker makes no events. */
import { once } from 'node:events';
import type { ServerResponse } from 'node:http';
import type { CtEvents } from '../engine/messages.ts';
import type { CtEventKind, EntryEvent, EntryFilter, EventsLost, ExpectationEvent } from '../model/conntrack.ts';
import { isEventMeant } from '../model/entry-filter.ts';
import type { ConntrackInfo } from './api.ts';
import type { Engine } from './engine-client.ts';

/** Bytes that wait for a client that reads more slowly than events come; beyond them events are lost, and it is told how many. */
export const DEFAULT_BUFFER = 4 << 20;

export interface Follower {
  readonly of: 'entries' | 'expectations';
  readonly kinds: ReadonlySet<CtEventKind>;
  readonly filter: EntryFilter;
  /** Bytes. */
  readonly buffer: number;
}

interface Stream extends Follower {
  readonly response: ServerResponse;
  /** The worker makes events for it. */
  isWatched: boolean;
  told: number;
  /** Events that found the buffer full, in all, and since the client was last told. */
  lost: number;
  untold: number;
}

export class ConntrackEvents {
  readonly #engine: Engine;
  readonly #streams = new Map<number, Stream>();
  #nextId = 1;

  constructor(engine: Engine) {
    this.#engine = engine;
  }

  /** Follows until the client goes. The header tells the client that no event is missed from now on. */
  async follow(follower: Follower, response: ServerResponse): Promise<void> {
    const id = this.#nextId++;
    response.on('error', () => {});
    const closed = once(response, 'close');
    const stream: Stream = { ...follower, response, isWatched: false, told: 0, lost: 0, untold: 0 };
    this.#streams.set(id, stream);
    response.writeHead(200, { 'content-type': 'application/x-ndjson' });
    try {
      await this.#watch();
      stream.isWatched = true;
      response.flushHeaders();
      if (!response.destroyed) await closed;
    } finally {
      this.#streams.delete(id);
      // When the worker is gone, so are the events.
      await this.#watch().catch(() => {});
    }
  }

  take({ entries, expectations, lost }: CtEvents): void {
    for (const stream of this.#streams.values()) {
      stream.lost += lost;
      stream.untold += lost;
      if (stream.of === 'entries') {
        for (const event of entries) if (isEventMeant(event, stream.filter)) tell(stream, event);
      } else {
        for (const event of expectations) tell(stream, event);
      }
    }
  }

  list(): ConntrackInfo['streams'] {
    const watched = [...this.#streams].filter(([, { isWatched }]) => isWatched);
    return watched.map(([id, { told, lost }]) => ({ id, told, lost }));
  }

  /** Ends the streams; the engine is about to end, too. */
  stopAll(): void {
    for (const { response } of this.#streams.values()) response.end();
  }

  async #watch(): Promise<void> {
    const of = [...this.#streams.values()].map((stream) => stream.of);
    await this.#engine.call('watch-conntrack', {
      entries: of.includes('entries'),
      expectations: of.includes('expectations'),
    });
  }
}

function tell(stream: Stream, event: EntryEvent | ExpectationEvent): void {
  const { response, kinds, buffer } = stream;
  if (!kinds.has(event.kind)) return;
  if (response.writableLength > buffer) {
    stream.lost++;
    stream.untold++;
    return;
  }
  if (stream.untold > 0) {
    const gap: EventsLost = { lost: stream.untold };
    response.write(`${JSON.stringify(gap)}\n`);
    stream.untold = 0;
  }
  response.write(`${JSON.stringify(event)}\n`);
  stream.told++;
}
