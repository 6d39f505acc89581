/**
 * Drains: a server is taken out of service without hurting its clients, as far as they let it.
 *
 *   drain ─► weight 0, templates refused ─► idle UDP ends early ─► nothing left: done
 *                                        └► deadline: what is left is reset on both sides ─► done
 *
 * The drained server has DestFlag.Draining. While there are drains the connection table is looked through again and again, some rows a tick. A drain ends
 * with `undrain`, which gives the weight back, with an edit that gives a weight above 0, and with the server. What it waits for when its server is not there
 * (after a restart) begins when the server is added.
 */
import { seconds, TICKS_PER_SECOND } from '../base/clock.ts';
import type { DrainRow, ServerKey, ServiceKey } from '../model/ipvs.ts';
import { IpProto } from '../wire/ipv4.ts';
import { CONN_SHIFT, Conn, ConnFlag } from './connection.ts';
import { DestFlag } from './destinations.ts';
import type { Director } from './director.ts';
import { serverKey, serviceKey } from './listing.ts';
import type { ResetTally } from './resets.ts';
import { TcpState } from './tcp-states.ts';

const { Flags, Dest, Meta, Expires, Timeout } = Conn;
const { Template: TEMPLATE, Resetting: RESETTING } = ConnFlag;
const DRAINING = DestFlag.Draining;
const { Tcp: TCP, Udp: UDP } = IpProto;

/** Rows that a tick looks at. */
const STEP = 4096;
const ROUND = seconds(0.25);

/** Seconds; absent: no deadline, no rule for UDP. */
export interface DrainSettings {
  readonly deadline?: number | undefined;
  readonly udpIdle?: number | undefined;
}

interface Drain extends ResetTally {
  readonly dest: number;
  settings: DrainSettings;
  /** What `undrain` gives back. */
  weight: number;
  /** Ticks since it began, a double: ticks wrap. */
  elapsed: number;
  /** UDP connections that were idle for too long. */
  idled: number;
  /** Connections that ended at the deadline without a word: UDP, and TCP before and after its life. */
  removed: number;
}

interface Awaiting {
  readonly service: ServiceKey;
  readonly server: ServerKey;
  readonly settings: DrainSettings;
  elapsed: number;
}

export class Drains {
  readonly #director: Director;
  readonly #byDest = new Map<number, Drain>();
  /** For servers that are not there. */
  readonly #awaiting = new Map<string, Awaiting>();
  #then: number;
  /** Next row of the round under way; -1 between two. */
  #at = -1;
  #roundAt: number;

  constructor(director: Director) {
    this.#director = director;
    this.#then = director.now;
    this.#roundAt = director.now;
  }

  get count(): number {
    return this.#byDest.size;
  }

  get #isBusy(): boolean {
    return this.#byDest.size > 0 || this.#awaiting.size > 0;
  }

  #wake(): void {
    if (!this.#isBusy) this.#then = this.#director.now;
  }

  /** Drain a listed server; of one that drains already, the settings change. */
  begin(d: number, settings: DrainSettings, elapsed = 0): void {
    const { dests } = this.#director;
    const known = this.#byDest.get(d);
    if (known !== undefined) {
      known.settings = settings;
      known.elapsed = elapsed;
      this.#director.resets.release(known);
      return;
    }
    this.#wake();
    const counts = { reset: 0, unanswered: 0, idled: 0, removed: 0 };
    this.#byDest.set(d, { dest: d, settings, weight: dests.weight[d]!, elapsed, ...counts });
    dests.flags[d]! |= DRAINING;
    this.#weigh(d, 0);
  }

  /** Give the server its weight back. False when it does not drain. */
  undo(d: number): boolean {
    const drain = this.#byDest.get(d);
    if (drain === undefined) return false;
    this.end(d);
    this.#weigh(d, drain.weight);
    return true;
  }

  /** The server has a weight again, or is removed: the drain is over, its weight is somebody else's business. */
  end(d: number): void {
    const drain = this.#byDest.get(d);
    if (drain === undefined) return;
    this.#byDest.delete(d);
    this.#director.dests.flags[d]! &= ~DRAINING;
    this.#director.resets.release(drain);
  }

  /** Begin when the server comes. */
  await(service: ServiceKey, server: ServerKey, settings: DrainSettings): void {
    this.#wake();
    this.#awaiting.set(nameOf(service, server), { service, server, settings, elapsed: 0 });
  }

  /** Wait for it no more. False when nobody does. */
  forget(service: ServiceKey, server: ServerKey): boolean {
    return this.#awaiting.delete(nameOf(service, server));
  }

  /** A server was added: a drain may have waited for it. */
  added(d: number): void {
    if (this.#awaiting.size === 0) return;
    const { dests } = this.#director;
    const name = nameOf(serviceKey(this.#director, dests.service[d]!), serverKey(this.#director, d));
    const awaiting = this.#awaiting.get(name);
    if (awaiting === undefined) return;
    this.#awaiting.delete(name);
    this.begin(d, awaiting.settings, awaiting.elapsed);
  }

  /** Once per tick. */
  advance(now: number): void {
    if (!this.#isBusy) return;
    const passed = (now - this.#then) | 0;
    this.#then = now;
    for (const drain of this.#byDest.values()) drain.elapsed += passed;
    for (const awaiting of this.#awaiting.values()) awaiting.elapsed += passed;
    if (this.#at < 0) {
      if (((now - this.#roundAt) | 0) < 0) return;
      this.#at = 0;
    }
    const { conns } = this.#director;
    const end = Math.min(this.#at + STEP, conns.highWater);
    for (let conn = this.#at; conn < end; conn++) this.#look(conn);
    this.#at = end;
    if (end < conns.highWater) return;
    this.#at = -1;
    this.#roundAt = (now + ROUND) | 0;
  }

  #look(conn: number): void {
    const { conns, dests, resets, now } = this.#director;
    const { rows } = conns;
    const at = conn << CONN_SHIFT;
    if (!conns.isUsed(conn) || (dests.flags[rows[at + Dest]!]! & DRAINING) === 0) return;
    // What controls others ends after them.
    if (conns.controlled[conn] !== 0) return;
    const drain = this.#byDest.get(rows[at + Dest]!)!;
    const flags = rows[at + Flags]!;
    if ((flags & TEMPLATE) !== 0) return this.#director.expire(conn);
    const meta = rows[at + Meta]!;
    const proto = (meta >> 8) & 0xff;
    if (!isOver(drain)) {
      const { udpIdle } = drain.settings;
      if (proto !== UDP || udpIdle === undefined) return;
      const idle = (now - rows[at + Expires]! + rows[at + Timeout]!) | 0;
      if (idle < seconds(udpIdle)) return;
      drain.idled++;
      this.#director.expire(conn);
    } else if ((flags & RESETTING) !== 0) {
      if (resets.review(conn)) this.#director.expire(conn);
    } else if (proto === TCP && isOpen(meta & 0xff)) {
      resets.begin(conn, drain);
    } else {
      drain.removed++;
      this.#director.expire(conn);
    }
  }

  #weigh(d: number, weight: number): void {
    const { dests, services } = this.#director;
    dests.update(d, dests.method[d]!, weight, dests.upper[d]!, dests.lower[d]!);
    services.schedulers[dests.service[d]!]!.changed?.(d);
  }

  rows(): DrainRow[] {
    const { dests } = this.#director;
    const rows = [...this.#byDest.values()].map((drain): DrainRow => {
      const d = drain.dest;
      const { deadline, udpIdle } = drain.settings;
      const isDone = dests.references(d) === 0;
      return {
        service: serviceKey(this.#director, dests.service[d]!),
        server: serverKey(this.#director, d),
        state: isDone ? 'done' : isOver(drain) ? 'resetting' : 'draining',
        elapsedSeconds: Math.floor(drain.elapsed / TICKS_PER_SECOND),
        leftSeconds: secondsLeft(deadline, drain.elapsed),
        udpIdleSeconds: udpIdle ?? null,
        weight: drain.weight,
        activeConns: dests.active[d]!,
        inactiveConns: dests.inactive[d]!,
        persistentConns: dests.persistent[d]!,
        idled: drain.idled,
        reset: drain.reset,
        unanswered: drain.unanswered,
        removed: drain.removed,
      };
    });
    const none = {
      activeConns: 0,
      inactiveConns: 0,
      persistentConns: 0,
      idled: 0,
      reset: 0,
      unanswered: 0,
      removed: 0,
    };
    for (const { service, server, settings, elapsed } of this.#awaiting.values()) {
      rows.push({
        service,
        server,
        state: 'awaiting',
        elapsedSeconds: Math.floor(elapsed / TICKS_PER_SECOND),
        leftSeconds: secondsLeft(settings.deadline, elapsed),
        udpIdleSeconds: settings.udpIdle ?? null,
        weight: 0,
        ...none,
      });
    }
    return rows;
  }
}

function secondsLeft(deadline: number | undefined, elapsed: number): number | null {
  return deadline === undefined ? null : Math.max(0, Math.ceil(deadline - elapsed / TICKS_PER_SECOND));
}

function isOver({ settings, elapsed }: Drain): boolean {
  return settings.deadline !== undefined && elapsed >= seconds(settings.deadline);
}

/** Do both sides hold a socket that a reset would end? Before the handshake the client asks again, and after the last FIN nobody is there. */
function isOpen(state: number): boolean {
  return state === TcpState.Established || state === TcpState.FinWait || state === TcpState.CloseWait;
}

function nameOf(service: ServiceKey, { address, port }: ServerKey): string {
  const name =
    service.kind === 'fwmark'
      ? `${service.fwmark} ${service.family}`
      : `${service.protocol} ${service.address}:${service.port}`;
  return `${name} ${address}:${port}`;
}
