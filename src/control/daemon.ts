/**
 * The daemon's life: start, reload, status, end.
 *
 *   start    socket free? → worker → plan(nothing, or what the life before had; file) → kernel and engine → socket → READY=1
 *   reload   file → plan(file before, file now) → applied between breaths; a bad file changes nothing
 *   end      STOPPING=1 → host port's rules → worker and its devices → socket; with a successor only the worker and the socket
 */
import { unlinkSync } from 'node:fs';
import type { Server } from 'node:http';
import type { KeptReport } from '../engine/messages.ts';
import type { IpCommand } from '../model/ip.ts';
import type { ReloadResult, Status } from './api.ts';
import { Applier } from './apply.ts';
import { Captures } from './capture.ts';
import { type Config, ConfigError } from './config.ts';
import { ConntrackEvents } from './conntrack-events.ts';
import { type ControlState, readControlState, writeControlState } from './control-state.ts';
import { Devices } from './devices.ts';
import { DrainStore } from './drain-store.ts';
import { EngineClient } from './engine-client.ts';
import { ApiFailure } from './http.ts';
import type { Log } from './log.ts';
import { type Action, plan, planText } from './plan.ts';
import { RuleChanges } from './rule-changes.ts';
import { createApi } from './server.ts';
import { claimSocket, listenAt } from './socket.ts';
import type { Succession } from './succession.ts';
import { Traces } from './trace.ts';
import { WorkerThread } from './worker-thread.ts';

export interface DaemonOptions {
  readonly config: Config;
  /** Reads the configuration file again. @throws ConfigError */
  readonly reread: () => Config;
  readonly socketPath: string;
  /** Where state is kept from one life to the next. */
  readonly stateDirectory: string;
  readonly testClock: boolean;
  readonly version: string;
  readonly log: Log;
  /** True when the command line sets the log's level: then the file does not. */
  readonly fixedLevel: boolean;
  readonly succession: Succession;
  /** The data worker, when it has been started already. */
  readonly thread: WorkerThread | undefined;
  /** The configuration of an earlier life from its texts. @throws ConfigError */
  readonly parseBefore: (texts: ControlState['texts']) => Config;
  /** The data worker has ended by itself: nothing is served any more. */
  readonly onDeath: (reason: string) => void;
}

/** What the kernel or the engine refused at the start; each fault is one line. */
export class StartError extends Error {
  override readonly name = 'StartError';
  readonly faults: readonly Error[];

  constructor(faults: readonly Error[]) {
    super(faults.map((fault) => fault.message).join('\n'));
    this.faults = faults;
  }
}

type Adopted = Extract<KeptReport, { adopted: true }>;

export class Daemon {
  readonly #options: DaemonOptions;
  readonly #engine: EngineClient;
  readonly #devices: Devices;
  readonly #applier: Applier;
  readonly #rules: RuleChanges;
  readonly #captures: Captures;
  readonly #drains: DrainStore;
  readonly #traces: Traces;
  readonly #ctEvents: ConntrackEvents;
  readonly #started = performance.now();
  #server: Server | null = null;
  #config: Config;
  #generation: number;
  /** Reloads run one after the other. */
  #turn: Promise<unknown> = Promise.resolve();

  private constructor(
    options: DaemonOptions,
    engine: EngineClient,
    captures: Captures,
    traces: Traces,
    ctEvents: ConntrackEvents,
    before: ControlState | null,
  ) {
    this.#options = options;
    this.#config = options.config;
    this.#engine = engine;
    this.#captures = captures;
    this.#traces = traces;
    this.#ctEvents = ctEvents;
    this.#devices = new Devices(engine, options.log, options.succession);
    this.#rules = new RuleChanges(engine);
    this.#applier = new Applier(engine, this.#devices, this.#rules, before?.sysctlsBefore);
    this.#generation = before?.generation ?? 1;
    this.#drains = new DrainStore(engine, options.stateDirectory, options.log);
  }

  /** Resolves when packets are served and the socket answers. @throws StartError, SocketInUse, EngineError; then nothing is left behind */
  static async start(options: DaemonOptions): Promise<Daemon> {
    const { config, socketPath, testClock, log, succession, onDeath } = options;
    await claimSocket(socketPath);
    let captures: Captures | undefined;
    let traces: Traces | undefined;
    let ctEvents: ConntrackEvents | undefined;
    const { limits, spin } = config;
    const { keep } = succession;
    const thread = options.thread ?? new WorkerThread();
    if (options.thread === undefined) thread.begin({ limits, spin, testClock, keep });
    const { client: engine, kept } = await EngineClient.start(thread, {
      onLog: (level, message, fields) => log[level](fields, message),
      onCaptured: (records) => captures?.take(records),
      onTraced: (records) => traces?.take(records),
      onConntrackEvents: (events) => ctEvents?.take(events),
      onDeath,
    });
    const before = kept?.adopted ? readControlState(kept.controlText) : null;
    captures = new Captures(engine, `tapvs ${options.version}`, (message) => log.warn({}, message));
    traces = new Traces(engine);
    ctEvents = new ConntrackEvents(engine);
    const daemon = new Daemon(options, engine, captures, traces, ctEvents, before);
    try {
      await daemon.#begin(kept, before);
    } catch (error) {
      // What was taken over is left for the next try; what is new goes.
      await daemon.#release(before !== null);
      if (before === null) succession.end(false);
      throw error;
    }
    return daemon;
  }

  async #begin(kept: KeptReport | undefined, before: ControlState | null): Promise<void> {
    const { config, log, socketPath, testClock, succession } = this.#options;
    if (kept?.adopted && before === null)
      throw new StartError([new Error('what an earlier life has left has no configuration')]);
    const from = kept?.adopted && before !== null ? await this.#takeOver(kept, before) : null;
    if (from === null) this.#beginAnew(kept);
    const actions = plan(from, config);
    await this.#drains.restore();
    const faults = await this.#applier.apply(actions);
    if (faults.length > 0) throw new StartError(faults);
    this.#logChanges(actions);
    if (from !== null && planText(actions).length > 0) this.#generation++;
    // A worker that was started early has the tables of the life before.
    if (from !== null && this.#options.thread !== undefined) {
      for (const note of needsRestart(from, config)) log.warn({}, note);
    }
    await this.#keepState();
    if (from === null) succession.begun([]);
    const server = createApi({
      engine: this.#engine,
      rules: this.#rules,
      captures: this.#captures,
      traces: this.#traces,
      ctEvents: this.#ctEvents,
      testClock,
      status: () => this.status(),
      reload: () => this.reload(),
      ipChanged: (commands) => this.#ipChanged(commands),
      ipvsChanged: (commands) => this.#drains.changed(commands),
      logError: (message, error) => log.error({ err: error }, message),
    });
    await listenAt(server, socketPath);
    this.#server = server;
    succession.settle(() => this.#engine.call('ping', {}));
    succession.manager.startWatchdog((timeoutMs) => this.#engine.call('ping', {}, timeoutMs));
    succession.manager.ready(await this.#statusLine());
    log.info({ socket: socketPath, config: config.file, devices: config.devices.length }, 'tapvsd is ready');
  }

  /** The worker goes on from the life before. Answers what that life was configured to, as far as it is still there. */
  async #takeOver(kept: Adopted, before: ControlState): Promise<Config> {
    const { log, succession, parseBefore } = this.#options;
    const { services, connections, entries, dropped, pauseMs } = kept;
    await this.#engine.call('keep-control', { text: kept.controlText });
    succession.begun(kept.devices.map(({ name }) => name));
    const devices = kept.devices.length;
    log.info({ devices, services, connections, entries, dropped, pauseMs }, 'went on from the life before');
    const config = parseBefore(before.texts);
    await this.#devices.takeOver(kept.devices, config.devices);
    return await this.#stillOpen(config);
  }

  #beginAnew(kept: KeptReport | undefined): void {
    const { log, succession } = this.#options;
    const why = kept?.adopted === false ? kept.why : succession.refusal;
    succession.discard();
    if (why !== '') log.warn({}, `begins with nothing, connections of the life before are lost: ${why}`);
  }

  /** A device that could not be had last time, or that somebody deleted, is tried again. */
  async #stillOpen(config: Config): Promise<Config> {
    await this.#devices.forgetGone();
    const open = new Set(this.#devices.list().map((device) => device.name));
    return { ...config, devices: config.devices.filter((device) => open.has(device.name)) };
  }

  /** For the next life. */
  async #keepState(): Promise<void> {
    if (this.#options.succession.keep === undefined) return;
    const { texts, limits, spin } = this.#config;
    const generation = this.#generation;
    const { sysctlsBefore } = this.#applier;
    const text = writeControlState({ texts: [...texts], limits, spin, generation, sysctlsBefore });
    await this.#engine.call('keep-control', { text });
  }

  /** @throws ConfigError when the file is bad: then everything stays as it was. ApiFailure when the engine refused a part of it. */
  reload(): Promise<ReloadResult> {
    const turn = this.#turn.then(() => this.#reload());
    this.#turn = turn.catch(() => {});
    return turn;
  }

  async #reload(): Promise<ReloadResult> {
    const { log, succession, reread, fixedLevel } = this.#options;
    const { manager } = succession;
    manager.reloading();
    try {
      const before = this.#config;
      const config = readOrRefuse(reread);
      const actions = plan(await this.#stillOpen(before), config);
      const faults = await this.#applier.apply(actions);
      await this.#drains.changed(actions.flatMap((action) => (action.do === 'ipvs' ? [action.command] : [])));
      this.#config = config;
      if (!fixedLevel) log.level = config.log.level;
      const changes = planText(actions);
      if (changes.length > 0) this.#generation++;
      await this.#keepState();
      this.#logChanges(actions);
      for (const note of needsRestart(before, config)) log.warn({}, note);
      if (faults.length > 0) {
        for (const fault of faults) log.error({}, fault.message);
        const message = faults.map((fault) => fault.message).join('\n');
        throw new ApiFailure('bad-config', `${message}\nthe rest of the file is in effect`);
      }
      log.info({ generation: this.#generation, changes: changes.length }, 'configuration reloaded');
      return { generation: this.#generation, changes };
    } finally {
      manager.ready(await this.#statusLine());
    }
  }

  async status(): Promise<Status> {
    const counts = await this.#engine.call('ipvs-counts', {});
    const addresses = await this.#engine.call('list-addresses', {});
    return {
      version: this.#options.version,
      pid: process.pid,
      uptimeSeconds: Math.floor((performance.now() - this.#started) / 1000),
      configFile: this.#config.file,
      generation: this.#generation,
      workers: 1,
      ...counts,
      devices: this.#devices.list().map(({ name, kind, mac }) => ({
        name,
        kind,
        mac: kind === 'tun' ? undefined : mac,
        addresses: addresses.filter((row) => row.device === name).map((row) => `${row.address}/${row.prefixLength}`),
      })),
    };
  }

  /** Ends everything; resolves when nothing of ours is left in the kernel, but for what a successor goes on from. */
  async stop(hasSuccessor = false): Promise<void> {
    this.#options.succession.manager.stopping();
    await this.#turn; // a reload under way is not cut in two
    await this.#release(hasSuccessor);
    this.#options.succession.end(hasSuccessor);
  }

  /** The socket goes at once: for an end that waits for nothing. */
  abandon(): void {
    if (this.#server !== null) removeFile(this.#options.socketPath);
  }

  async #release(hasSuccessor: boolean): Promise<void> {
    const { succession } = this.#options;
    succession.manager.stopWatchdog();
    this.#captures.stopAll();
    this.#traces.stopAll();
    this.#ctEvents.stopAll();
    const server = this.#server;
    this.#server = null;
    if (server !== null) {
      server.close(); // removes the socket
      server.closeAllConnections();
      removeFile(this.#options.socketPath);
    }
    if (!hasSuccessor) await this.#devices.cleanUp();
    await this.#engine.shutdown();
  }

  /** The engine has done the commands by now: what the kernel refuses after that is logged, and the next change tries again. */
  async #ipChanged(commands: readonly IpCommand[]): Promise<void> {
    const { log } = this.#options;
    try {
      for (const command of commands) {
        if (command.op !== 'link-set' || command.mtu === undefined) continue;
        await this.#devices.setMtu(command.device, command.mtu);
      }
      if (commands.some(({ op }) => op.startsWith('addr-') || op.startsWith('route-') || op === 'link-set')) {
        await this.#devices.syncHostPort();
      }
    } catch (error) {
      log.error({}, `the kernel does not follow: ${error instanceof Error ? error.message : String(error)}`);
    }
  }

  async #statusLine(): Promise<string> {
    try {
      const { services, servers } = await this.#engine.call('ipvs-counts', {});
      return `serving ${services} services, ${servers} servers, ${this.#devices.list().length} devices`;
    } catch {
      return `${this.#devices.list().length} devices`;
    }
  }

  #logChanges(actions: readonly Action[]): void {
    for (const change of planText(actions)) this.#options.log.debug({}, change);
  }
}

function readOrRefuse(reread: () => Config): Config {
  try {
    return reread();
  } catch (error) {
    if (error instanceof ConfigError) throw new ApiFailure('bad-config', error.message);
    throw error;
  }
}

function needsRestart(before: Config, config: Config): string[] {
  const notes: string[] = [];
  const { limits, spin } = config;
  const { connections, entries, packets } = before.limits;
  if (limits.connections !== connections || limits.entries !== entries || limits.packets !== packets) {
    notes.push('limits: take effect at the next start');
  }
  if (spin !== before.spin) notes.push('spin: takes effect at the next start');
  return notes;
}

function removeFile(path: string): void {
  try {
    unlinkSync(path);
  } catch {
    // gone already
  }
}
