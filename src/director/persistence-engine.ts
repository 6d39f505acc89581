/**
 * Persistence engines: what, instead of a client's address alone, decides which packets belong together (net/netfilter/ipvs/ip_vs_pe.c).
 *
 * There is one, `sip`: messages with the same Call-ID go to the same server. What an engine found is kept with the template in a table beside the
 * connections, behind ConnFlag.HasPe, and is part of the template's key. Looked at once per new connection, never per packet.
 */
import type { Packet } from '../packet/packet.ts';
import { IpProto } from '../wire/ipv4.ts';
import { callId } from '../wire/sip.ts';
import { UDP_HEADER } from '../wire/udp.ts';
import { NO_CONN } from './connection.ts';

export interface PersistenceEngine {
  readonly name: string;
  /** What the packet is about, a character a byte, at most 255; undefined: it can't be told, and the packet ends. */
  readonly read: (p: Packet) => string | undefined;
  /** Do UDP packets that a server of such a service sends first make connections, too? */
  readonly followsServers: boolean;
}

/** ip_vs_sip_fill_param: UDP only. */
const sip: PersistenceEngine = {
  name: 'sip',
  read: (p) => (p.proto === IpProto.Udp ? callId(p.bytes, p.l4 + UDP_HEADER, p.end) : undefined),
  followsServers: true,
};

export function findEngine(name: string): PersistenceEngine | undefined {
  return ENGINES.find((engine) => engine.name === name);
}

const ENGINES: readonly PersistenceEngine[] = [sip];

/** 0: none. */
export function engineNumber(engine: PersistenceEngine | null): number {
  return engine === null ? 0 : ENGINES.indexOf(engine) + 1;
}

export function engineOf(number: number): PersistenceEngine | null {
  return ENGINES[number - 1] ?? null;
}

export interface EngineData {
  readonly engine: PersistenceEngine;
  readonly data: string;
}

/** Number of an engine, and what it found. */
export type EngineDatum = readonly [engine: number, data: string];

/** The templates that engines made: by what they are about, and what that was. */
export class EngineTable {
  readonly #byKey = new Map<string, number>();
  readonly #byTemplate = new Map<number, EngineData & { readonly key: string }>();
  /** Grows with each that comes or goes. */
  changes = 0;

  /** Told of each template that is found; null but for a copy, which takes it over then. */
  onFound: ((template: number) => void) | null = null;

  /** Become a copy. */
  copyFrom(live: EngineTable): void {
    this.changes = live.changes;
    for (const [key, template] of live.#byKey) this.#byKey.set(key, template);
    for (const [template, entry] of live.#byTemplate) this.#byTemplate.set(template, entry);
  }

  /** The template of this client network, service and data, or NO_CONN. */
  find(engine: PersistenceEngine, proto: number, client: number, vip: number, vport: number, data: string): number {
    const template = this.#byKey.get(keyOf(engine, proto, client, vip, vport, data)) ?? NO_CONN;
    if (template !== NO_CONN && this.onFound !== null) this.onFound(template);
    return template;
  }

  add(
    template: number,
    engine: PersistenceEngine,
    proto: number,
    client: number,
    vip: number,
    vport: number,
    data: string,
  ): void {
    const key = keyOf(engine, proto, client, vip, vport, data);
    this.#byKey.set(key, template);
    this.#byTemplate.set(template, { engine, data, key });
    this.changes++;
  }

  /** What the engine knows of a template with ConnFlag.HasPe. */
  of(template: number): EngineData | undefined {
    return this.#byTemplate.get(template);
  }

  /** Not to be found again, though it lives on. */
  hide(template: number): void {
    const entry = this.#byTemplate.get(template);
    if (entry !== undefined && this.#byKey.get(entry.key) === template) this.#byKey.delete(entry.key);
  }

  remove(template: number): void {
    this.hide(template);
    this.#byTemplate.delete(template);
    this.changes++;
  }

  /** All of them, for another life of the daemon. */
  list(): readonly (readonly [template: number, what: EngineDatum])[] {
    return [...this.#byTemplate].map(
      ([template, { engine, data }]) => [template, [engineNumber(engine), data]] as const,
    );
  }

  get size(): number {
    return this.#byTemplate.size;
  }
}

function keyOf(
  engine: PersistenceEngine,
  proto: number,
  client: number,
  vip: number,
  vport: number,
  data: string,
): string {
  return `${engine.name} ${proto} ${client} ${vip} ${vport} ${data}`;
}
