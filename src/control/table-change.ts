/**
 * `ipvsadm --plan` and `--apply`: the whole table as a file of ipvsadm's lines says it, from the table as it is.
 *
 *   lines ─► rehearsal: each line works? ─► the table that they make ─┐
 *                                    the engine's table, generation n ─┴─► plan ─► what would become of the connections
 *                                                                          apply ─► all or nothing, if it is still generation n
 *
 * What stays is not touched, so its connections and counters stay, too.
 */
import type { IpvsOutcome } from '../engine/messages.ts';
import type { IpvsCommand, ServerKey, ServiceKey, ServiceRow, ServiceSpec } from '../model/ipvs.ts';
import type { TableChange, TableFault, TableLine, TablePlan } from './api.ts';
import type { Engine } from './engine-client.ts';
import { ApiFailure } from './http.ts';
import { EMPTY_TABLE, type IpvsTable, serverId, serviceId } from './ipvs-table.ts';
import { type IpvsAction, planIpvs } from './plan.ts';
import { EngineRehearsal } from './rehearsal.ts';
import { servicePages } from './service-pages.ts';

/** Rows asked of the worker at a time. */
const PAGE = 256;
/** Commands in one message: reading it takes the worker well below a millisecond. */
const COMMANDS = 128;
/** Room of a rehearsal, however few the lines are. */
const MOST_OF_A_SMALL = 64;
/** How often the table may change under our hands. */
const ATTEMPTS = 5;
/** Schedulers by which a client's server is a matter of its address alone. */
const HASHES: ReadonlySet<string> = new Set(['sh', 'dh', 'mh']);

interface Now {
  readonly generation: number;
  readonly rows: readonly ServiceRow[];
  readonly table: IpvsTable;
  /** Servers that are drained. */
  readonly drained: ReadonlySet<string>;
}

export class TableChanger {
  readonly #engine: Engine;
  #last: Promise<unknown> = Promise.resolve();

  constructor(engine: Engine) {
    this.#engine = engine;
  }

  /** What the lines would change; nothing is changed. */
  async plan(lines: readonly TableLine[]): Promise<TablePlan> {
    const { wanted, faults } = await this.#rehearse(lines);
    if (faults.length > 0) return refused(faults);
    const now = await this.#now();
    const actions = planIpvs(now.table, wanted);
    return { faults: [], ...(await this.#consequences(now, actions)) };
  }

  /** Change the table, or nothing at all; one after the other. */
  apply(lines: readonly TableLine[]): Promise<TablePlan> {
    const plan = this.#last.then(() => this.#apply(lines));
    this.#last = plan.catch(() => {});
    return plan;
  }

  async #apply(lines: readonly TableLine[]): Promise<TablePlan> {
    const { wanted, faults } = await this.#rehearse(lines);
    if (faults.length > 0) return refused(faults);
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      const now = await this.#now();
      const actions = removalsFirst(planIpvs(now.table, wanted));
      const consequences = await this.#consequences(now, actions);
      const { generation } = now;
      const outcome = await this.#send(
        actions.map(({ command }) => command),
        generation,
      );
      if (outcome === null) return { faults: [], ...consequences };
      if (outcome !== 'changed')
        return refused([{ line: lineOf(lines, actions[outcome.index]!.command), errno: outcome.errno }]);
    }
    throw new ApiFailure('busy', 'the table is changed by others all the time: nothing was applied');
  }

  async #send(commands: readonly IpvsCommand[], generation: number): Promise<IpvsOutcome> {
    let at = 0;
    for (; commands.length - at > COMMANDS; at += COMMANDS) {
      await this.#engine.call('stage-ipvs', { at, commands: commands.slice(at, at + COMMANDS) });
    }
    return this.#engine.call('ipvs-all', { generation, at, commands: commands.slice(at) });
  }

  /** Run the lines on an engine that has nothing but our addresses. */
  async #rehearse(lines: readonly TableLine[]): Promise<{ wanted: IpvsTable; faults: TableFault[] }> {
    const rehearsal = new EngineRehearsal(Math.max(MOST_OF_A_SMALL, lines.length));
    for (const row of await this.#engine.call('list-addresses', {})) rehearsal.addAddress(row);
    const faults: TableFault[] = [];
    const timeouts = { ...EMPTY_TABLE.timeouts };
    for (const { line, command } of lines) {
      const errno = rehearsal.run(command);
      if (errno !== null) faults.push({ line, errno });
      else if (command.op === 'set-timeouts') {
        for (const kind of ['tcp', 'tcpFin', 'udp'] as const) if (command[kind] !== 0) timeouts[kind] = command[kind];
      }
    }
    return { wanted: tableOf(rehearsal.services(), timeouts), faults };
  }

  /** The engine's table at one moment: read again when it changes meanwhile. */
  async #now(): Promise<Now> {
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      const generation = await this.#engine.call('ipvs-generation', {});
      const rows: ServiceRow[] = [];
      const pages = servicePages(this.#engine);
      for (let cursor = 0; cursor >= 0; ) {
        const page = await pages(cursor);
        rows.push(...page.rows);
        cursor = page.next;
      }
      const { timeouts } = await this.#engine.call('ipvs-info', {});
      const drains = await this.#engine.call('list-drains', {});
      if ((await this.#engine.call('ipvs-generation', {})) !== generation) continue;
      const drained = new Set(drains.map(({ service, server }) => nameOf(service, server)));
      return { generation, rows, table: tableOf(rows, timeouts), drained };
    }
    throw new ApiFailure('busy', 'the table is changed by others all the time');
  }

  async #consequences(now: Now, actions: readonly IpvsAction[]): Promise<Omit<TablePlan, 'faults'>> {
    const byId = new Map(now.rows.map((row) => [serviceId(row.key), row]));
    const changes = actions.map(({ command, text }): TableChange => {
      const orphans = heldBy(byId, command);
      const isDrained = command.op === 'edit-server' && now.drained.has(nameOf(command.service, command.server.key));
      const endsDrain = isDrained && command.server.weight > 0;
      const notes = [
        ...(orphans > 0
          ? [`${orphans} ${orphans === 1 ? 'connection loses its' : 'connections lose their'} server`]
          : []),
        ...(endsDrain ? ['ends its drain'] : []),
      ];
      return { command, text: notes.length === 0 ? text : `${text} (${notes.join(', ')})`, orphans };
    });
    const moves = await this.#moves(byId, actions);
    return { changes, orphans: changes.reduce((sum, change) => sum + change.orphans, 0), moves };
  }

  /** For services that choose by hash before and after: how many of the present connections' clients would be sent elsewhere. */
  async #moves(byId: ReadonlyMap<string, ServiceRow>, actions: readonly IpvsAction[]): Promise<TablePlan['moves']> {
    const touched = new Map<string, ServiceSpec>();
    for (const { command } of actions) {
      const id = 'service' in command && command.service !== undefined ? serviceId(keyOf(command.service)) : undefined;
      const row = id === undefined ? undefined : byId.get(id);
      if (id === undefined || row === undefined || command.op === 'delete-service') continue;
      touched.set(id, command.op === 'edit-service' ? command.service : (touched.get(id) ?? row));
    }
    const hashed = [...touched].flatMap(([id, spec]) => {
      const row = byId.get(id)!;
      return HASHES.has(row.scheduler) && HASHES.has(spec.scheduler) ? [row] : [];
    });
    if (hashed.length === 0) return [];
    const size = hashed.reduce((sum, row) => sum + row.servers.length, actions.length + hashed.length);
    const [before, after] = [new EngineRehearsal(size), new EngineRehearsal(size)];
    for (const row of hashed) for (const engine of [before, after]) engine.copy(row);
    const ids = new Set(hashed.map((row) => serviceId(row.key)));
    for (const { command } of actions) {
      const isOurs =
        'service' in command && command.service !== undefined && ids.has(serviceId(keyOf(command.service)));
      if (isOurs) after.run(command);
    }
    const counts = new Map(hashed.map((row) => [serviceId(row.key), { service: row.key, of: 0, elsewhere: 0 }]));
    const byServer = marksByServer(hashed);
    for (let cursor = 0; cursor >= 0; ) {
      const page = await this.#engine.call('list-connections', { cursor, limit: PAGE });
      cursor = page.next;
      for (const { protocol, client, virtual, destination } of page.rows) {
        if (client.port === 0) continue; // a template
        const count =
          counts.get(`${protocol} ${serverId(virtual)}`) ??
          (byId.has(`${protocol} ${serverId(virtual)}`) ? undefined : counts.get(`${protocol} ${virtual.address}:0`)) ??
          counts.get(byServer.get(serverId(destination)) ?? '');
        if (count === undefined) continue;
        count.of++;
        const [old, next] = [before, after].map((engine) => engine.choose(count.service, client, virtual));
        if (old?.address !== next?.address || old?.port !== next?.port) count.elsewhere++;
      }
    }
    return [...counts.values()];
  }
}

function refused(faults: readonly TableFault[]): TablePlan {
  return { faults, changes: [], orphans: 0, moves: [] };
}

/** Servers oldest first, as they were added. */
function tableOf(rows: readonly ServiceRow[], timeouts: IpvsTable['timeouts']): IpvsTable {
  const services = rows.map(({ stats: _, servers, localAddresses = [], ...spec }) => {
    const locals = localAddresses.map(({ address, ports, device }) => [address, { address, ports, device }] as const);
    const oldestFirst = servers.toReversed().map((row) => {
      const { key, method, weight, upperThreshold, lowerThreshold, tunnel } = row;
      return [serverId(key), { key, method, weight, upperThreshold, lowerThreshold, tunnel }] as const;
    });
    return [serviceId(spec.key), { spec, servers: new Map(oldestFirst), locals: new Map(locals) }] as const;
  });
  // Daemons are no part of a table: -S does not save them.
  return { services: new Map(services), timeouts, daemons: EMPTY_TABLE.daemons };
}

function removalsFirst(actions: readonly IpvsAction[]): readonly IpvsAction[] {
  const isRemoval = ({ command }: IpvsAction) =>
    command.op === 'delete-service' || command.op === 'delete-server' || command.op === 'delete-local-address';
  return [...actions.filter(isRemoval), ...actions.filter((action) => !isRemoval(action))];
}

/** Connections of what the command removes. */
function heldBy(byId: ReadonlyMap<string, ServiceRow>, command: IpvsCommand): number {
  if (command.op !== 'delete-server' && command.op !== 'delete-service') return 0;
  const servers = byId.get(serviceId(command.service))?.servers ?? [];
  const gone =
    command.op === 'delete-service' ? servers : servers.filter((row) => serverId(row.key) === serverId(command.server));
  return gone.reduce((sum, row) => sum + row.activeConns + row.inactiveConns, 0);
}

/** Connections do not say by which mark they came: their server does. */
function marksByServer(rows: readonly ServiceRow[]): ReadonlyMap<string, string> {
  const marked = rows.filter((row) => row.key.kind === 'fwmark');
  return new Map(
    marked.flatMap((row) => row.servers.map((server) => [serverId(server.key), serviceId(row.key)] as const)),
  );
}

function keyOf(service: ServiceKey | ServiceSpec): ServiceKey {
  return 'key' in service ? service.key : service;
}

function nameOf(service: ServiceKey, server: ServerKey): string {
  return `${serviceId(service)} ${serverId(server)}`;
}

/** The last line that says what the command is about. */
function lineOf(lines: readonly TableLine[], command: IpvsCommand): number {
  const id = (one: IpvsCommand): string => {
    if (!('service' in one) || one.service === undefined) return one.op;
    const service = serviceId(keyOf(one.service));
    if ('local' in one) return `${service} local ${one.local.address}`;
    return 'server' in one ? `${service} ${serverId('key' in one.server ? one.server.key : one.server)}` : service;
  };
  const wanted = id(command);
  return lines.findLast((line) => id(line.command) === wanted)?.line ?? 0;
}
