/**
 * The director: services, their servers, the connections between clients and them.   @hot
 *
 *             request ─► flow table ─► connection ─┐
 *                            │ none                ├─► state, counters, timer ─► forward ─► Reroute
 *                            └─► service ─► scheduler ─► new connection
 *
 * One director belongs to one data worker; time and chance come from outside. Commands and listings (commands.ts, listing.ts) run between breaths.
 */
import { seconds } from '../base/clock.ts';
import { copyState } from '../base/copy-state.ts';
import { type Allocate, Columns } from '../base/memory.ts';
import type { Rng } from '../base/rng.ts';
import { finish, type Steps } from '../base/slices.ts';
import type { FlowTable } from '../flow/flow-table.ts';
import type { Datagrams } from '../hooks/datagrams.ts';
import type { FlowTracking } from '../hooks/flow-tracking.ts';
import type { HookOp } from '../hooks/hooks.ts';
import type { Reassembly } from '../hooks/reassembly.ts';
import type { Routing } from '../hooks/routing.ts';
import type {
  ConnectionRow,
  DaemonRow,
  DrainRow,
  IpvsCommand,
  IpvsErrno,
  IpvsInfo,
  IpvsStats,
  ServerKey,
  ServiceKey,
  ServicePage,
} from '../model/ipvs.ts';
import { Counters } from './accounting.ts';
import { FtpApp } from './app/ftp.ts';
import { executeInSteps } from './commands.ts';
import { CONN_SHIFT, Conn, ConnFlag, LOCAL_SHIFT, Method } from './connection.ts';
import { ConnTable } from './connections.ts';
import { Defence } from './defence.ts';
import { DestFlag, DestTable } from './destinations.ts';
import { Drains } from './drain.ts';
import { Estimator } from './estimator.ts';
import { directorHooks } from './hooks.ts';
import { connectionRows, info, serviceRows } from './listing.ts';
import { LocalAddresses } from './local-addresses.ts';
import type { Notes } from './notes.ts';
import { EngineTable } from './persistence-engine.ts';
import { Resets } from './resets.ts';
import { ForkedScheduler } from './sched/forked.ts';
import type { Scheduler } from './sched/scheduler.ts';
import { sctpTimeouts } from './sctp-states.ts';
import { ServiceTable } from './services.ts';
import { SyncDaemons } from './sync/daemons.ts';
import type { SyncMaster } from './sync/master.ts';
import { Sysctls } from './sysctl.ts';
import { Takeover } from './takeover.ts';
import { normalTable, type TcpStateTable, tcpTimeouts } from './tcp-states.ts';
import { endTracked } from './tracked.ts';
import { chosenServer, executeAll, type Refusal } from './transaction.ts';
import { udpTimeouts } from './udp-states.ts';

const { Dest, Flags } = Conn;
const { Inactive: INACTIVE, Template: TEMPLATE, Assured: ASSURED, Resetting: RESETTING } = ConnFlag;
const { HasPe: HAS_PE, App: APP, Tracked: TRACKED } = ConnFlag;
const METHOD_AND_TEMPLATE = ConnFlag.MethodMask | TEMPLATE;
const FULL_NAT = Method.FullNat;
const AVAILABLE = DestFlag.Available;
const WAIT_FOR_CONTROLLED = seconds(60);
const COLLECT_EVERY = seconds(1);
/** Rows that a breath looks at while connections of removed servers are flushed. */
const FLUSH_STEP = 16384;

export interface DirectorOptions {
  readonly flows: FlowTable;
  readonly routing: Routing;
  /** Whole datagrams of what is forwarded; absent: fragments of answers pass as they are. */
  readonly reassembly?: Reassembly;
  readonly tracking?: FlowTracking;
  readonly rng: Rng;
  /** For the synchronisation daemons; without it none starts. */
  readonly datagrams?: Datagrams;
  /** Tick. */
  readonly now: number;
  readonly maxConnections: number;
  readonly maxServices?: number | undefined;
  readonly maxDestinations?: number | undefined;
  /** Memory of the tables. */
  readonly allocate?: Allocate;
}

export class Director {
  readonly flows: FlowTable;
  readonly routing: Routing;
  readonly reassembly: Reassembly | null;
  readonly tracking: FlowTracking | null;
  readonly datagrams: Datagrams | null;
  readonly services: ServiceTable;
  readonly dests: DestTable;
  readonly conns: ConnTable;
  /** What persistence engines know of their templates. */
  readonly engines = new EngineTable();
  readonly ftp = new FtpApp();
  /** Where connections by full NAT come from. */
  readonly locals = new LocalAddresses();
  /** Row 0: everything that crossed the director. */
  readonly total: Counters;
  readonly sysctls: Sysctls;
  readonly defence: Defence;
  readonly rng: Rng;
  readonly drains: Drains;
  /** Packets that are due because of drains; the engine sends them. */
  readonly resets: Resets;
  readonly sync: SyncDaemons;
  /** The synchronisation master while it runs. */
  master: SyncMaster | null = null;
  /** A synchronisation backup runs. */
  isBackup = false;
  /** Key of the source port that a flow's tunnel gets. */
  flowSeed: number;
  /** Schedulers with something to collect. */
  readonly collectors = new Set<Scheduler>();
  /** Ticks per state; `--set` changes them. */
  readonly tcpTimeouts: Int32Array;
  readonly udpTimeouts: Int32Array;
  readonly sctpTimeouts: Int32Array;
  tcpTable: TcpStateTable;
  /** Grows with each batch of commands. */
  generation = 0;
  /** Who is told what happens; null: nobody. */
  notes: Notes | null = null;
  /** Tick of this breath. */
  now: number;
  /** Identification of the last outer header. */
  #ident: number;
  readonly #estimators: readonly [Estimator, Estimator, Estimator];
  readonly #fire: (conn: number) => void;
  /** Where the flush of connections to removed servers stands; -1 when there is none to do. */
  #flushAt = -1;
  #collectAt: number;

  constructor(options: DirectorOptions) {
    const { rng, now } = options;
    this.flows = options.flows;
    this.routing = options.routing;
    this.reassembly = options.reassembly ?? null;
    this.tracking = options.tracking ?? null;
    this.datagrams = options.datagrams ?? null;
    const { allocate } = options;
    this.services = new ServiceTable(options.maxServices ?? 65536, rng.next(), allocate);
    this.dests = new DestTable(options.maxDestinations ?? 524288, this.services, rng.next(), allocate);
    this.conns = new ConnTable(options.maxConnections, options.flows, now, allocate, this.ftp.port);
    this.total = new Counters(1, new Columns('total', allocate));
    this.sysctls = new Sysctls();
    this.sysctls.onConntrack = () => {
      this.conns.newFlags = this.sysctls.conntrack !== 0 ? TRACKED : 0;
    };
    this.rng = rng;
    this.flowSeed = rng.next();
    this.#ident = rng.next() & 0xffff;
    this.tcpTimeouts = tcpTimeouts();
    this.udpTimeouts = udpTimeouts();
    this.sctpTimeouts = sctpTimeouts();
    this.tcpTable = normalTable;
    this.now = now;
    this.sync = new SyncDaemons(this, this.datagrams);
    this.#collectAt = now;
    this.defence = new Defence(this, now);
    this.sysctls.onMode = () => this.defence.update();
    this.resets = new Resets(this);
    this.drains = new Drains(this);
    this.#estimators = [
      new Estimator(this.dests.counters, now),
      new Estimator(this.services.counters, now),
      new Estimator(this.total, now),
    ];
    this.#fire = (conn) => {
      if (this.conns.isPostponed(conn, this.now)) return;
      if (this.conns.controlled[conn] === 0) {
        this.expire(conn);
      } else {
        // For good: a template that had to wait for its connections once lives by minutes from then on (ip_vs_conn_expire).
        this.conns.prolong(conn, this.now, WAIT_FOR_CONTROLLED);
        if (this.master !== null) this.master.tellNow(conn);
      }
    };
  }

  /** Count packets of clients; servers that were removed are not counted (ip_vs_in_stats). */
  countIn(dest: number, packets: number, bytes: number): void {
    const dests = this.dests;
    if ((dests.flags[dest]! & AVAILABLE) === 0) return;
    dests.counters.addIn(dest, packets, bytes);
    this.services.counters.addIn(dests.service[dest]!, packets, bytes);
    this.total.addIn(0, packets, bytes);
  }

  /** For an outer header that may be cut into fragments. */
  nextIdent(): number {
    this.#ident = (this.#ident + 1) & 0xffff;
    return this.#ident;
  }

  /** Count packets of servers. */
  countOut(dest: number, packets: number, bytes: number): void {
    const dests = this.dests;
    if ((dests.flags[dest]! & AVAILABLE) === 0) return;
    dests.counters.addOut(dest, packets, bytes);
    this.services.counters.addOut(dests.service[dest]!, packets, bytes);
    this.total.addOut(0, packets, bytes);
  }

  /** End a connection now: its server counts one less, its rows are free. */
  expire(conn: number): void {
    const at = conn << CONN_SHIFT;
    const flags = this.conns.rows[at + Flags]!;
    const dest = this.conns.rows[at + Dest]!;
    if ((flags & RESETTING) !== 0) this.resets.forget(conn);
    if ((flags & HAS_PE) !== 0) this.engines.remove(conn);
    if ((flags & APP) !== 0) this.ftp.forget(conn);
    if ((flags & TRACKED) !== 0) endTracked(this, conn);
    if ((flags & METHOD_AND_TEMPLATE) === FULL_NAT)
      this.locals.release(this.conns.local[(conn << LOCAL_SHIFT) + 1]! >>> 16);
    this.conns.remove(conn);
    this.dests.unbind(dest, (flags & TEMPLATE) !== 0, (flags & INACTIVE) !== 0);
  }

  /** End a connection before its time; a template that nobody else needs, and that was never sure of its client, goes with it (ip_vs_conn_del). */
  abandon(conn: number): void {
    const control = this.conns.control[conn]! - 1;
    this.expire(conn);
    if (control < 0 || this.conns.controlled[control] !== 0) return;
    const flags = this.conns.rows[(control << CONN_SHIFT) + Flags]!;
    if ((flags & TEMPLATE) === 0 || (flags & ASSURED) === 0) this.abandon(control);
  }

  /** Once per breath: the tick for all that follows, then timers, estimators, trash. */
  advance(now: number): void {
    this.now = now;
    this.conns.advance(now, this.#fire);
    if (this.#flushAt >= 0) this.#flush();
    this.drains.advance(now);
    this.resets.advance();
    this.sync.advance(now);
    this.dests.advance(now);
    this.defence.advance(now);
    if (this.collectors.size !== 0 && ((now - this.#collectAt) | 0) >= 0) this.#collect();
    const [dests, services, total] = this.#estimators;
    if (this.sysctls.runEstimation !== 0) {
      dests.advance(now, this.dests.highWater);
      services.advance(now, this.services.highWater);
      total.advance(now, 1);
    } else {
      dests.skip(now);
      services.skip(now);
      total.skip(now);
    }
  }

  // cold: once a second
  #collect(): void {
    this.#collectAt = (this.now + COLLECT_EVERY) | 0;
    for (const scheduler of this.collectors) scheduler.collect!(this.now);
  }
  // hot again

  /** End, over the next breaths, all connections to servers that were removed (ip_vs_expire_nodest_conn_flush). */
  flushGone(): void {
    this.#flushAt = 0;
  }

  #flush(): void {
    const rows = this.conns.rows;
    const end = Math.min(this.#flushAt + FLUSH_STEP, this.conns.highWater);
    for (let conn = this.#flushAt; conn < end; conn++) {
      const dest = rows[(conn << CONN_SHIFT) + Dest]!;
      if (!this.conns.isUsed(conn) || dest === this.dests.unbound || this.dests.isAvailable(dest)) continue;
      if (this.conns.controlled[conn] !== 0) continue;
      const control = this.conns.control[conn]! - 1;
      this.expire(conn);
      if (control >= 0 && this.conns.controlled[control] === 0) this.expire(control);
    }
    this.#flushAt = end >= this.conns.highWater ? -1 : end;
  }

  // cold: registration, commands, listings, copies
  /**
   * Become a copy of a director that has as many services and servers: what the next packet will meet there, it meets here, and nothing that happens here is seen there. `live`
   * must stay as it is meanwhile: connections and schedulers are taken over when they are asked for.
   * @returns who takes them over
   */
  copyFrom(live: Director): Takeover {
    // Counters are not copied, for no packet's way depends on them; routing is who made this director's.
    copyState<Director>(this, live, 1, 1, ['routing', 'reassembly', 'tracking', 'datagrams', 'tcpTable']);
    this.tcpTable = live.tcpTable;
    this.#ident = live.#ident;
    for (let s = 0; s < live.services.highWater; s++) {
      const scheduler = live.services.schedulers[s] ?? null;
      this.services.schedulers[s] = scheduler === null ? null : new ForkedScheduler(scheduler, this);
    }
    const takeover = new Takeover(this, live);
    this.flows.source = takeover;
    this.engines.onFound = (template) => takeover.takeConnection(template);
    return takeover;
  }

  /** What to register with Hooks.register. */
  hooks(): readonly HookOp[] {
    return directorHooks(this);
  }

  /** Run commands in order, each on its own; null for one that worked. */
  execute(commands: readonly IpvsCommand[]): (IpvsErrno | null)[] {
    return finish(this.executeInSteps(commands));
  }

  /** The same with pauses; nobody else may run any meanwhile. */
  *executeInSteps(commands: readonly IpvsCommand[]): Steps<(IpvsErrno | null)[]> {
    this.generation++;
    const results: (IpvsErrno | null)[] = [];
    for (const command of commands) {
      results.push(yield* executeInSteps(this, command));
      yield;
    }
    return results;
  }

  /** Run commands all or none, and only while `generation` is this one; null when they have run. With pauses in which nobody else may run any. */
  *executeAll(commands: readonly IpvsCommand[], generation: number): Steps<Refusal | 'changed' | null> {
    if (generation !== this.generation) return 'changed';
    this.generation++;
    return yield* executeAll(this, commands);
  }

  /** Whom a hash scheduler would choose for this client. */
  choose(service: ServiceKey, client: ServerKey, virtual: ServerKey): ServerKey | null {
    return chosenServer(this, service, client, virtual);
  }

  info(): IpvsInfo {
    return info(this);
  }

  /** Services from `cursor` (0 = start) on; with `key` that one or none. `limit` bounds lines: services and servers. */
  listServices(cursor: number, limit: number, key?: ServiceKey): ServicePage {
    return serviceRows(this, cursor, limit, key);
  }

  listDrains(): DrainRow[] {
    return this.drains.rows();
  }

  listConnections(cursor: number, limit: number): { rows: ConnectionRow[]; next: number } {
    return connectionRows(this, cursor, limit);
  }

  listDaemons(): DaemonRow[] {
    return this.sync.list();
  }

  /** Counters over all services, gone ones too. */
  totals(): IpvsStats {
    return this.total.read(0, this.sysctls.runEstimation === 0);
  }
  // hot again
}
