/** `tapvs ipvsadm`, or the program called `ipvsadm`: the classic tool's words, lists, messages and statuses, asked of tapvsd. */
import type { CommandResults } from '../../control/api.ts';
import type {
  ConnectionRow,
  DaemonRow,
  DrainRow,
  IpvsCommand,
  IpvsErrno,
  IpvsInfo,
  ServiceKey,
  ServiceRow,
} from '../../model/ipvs.ts';
import { ApiError } from '../client.ts';
import type { CliCommand, CliContext } from '../command.ts';
import { holdsIp6 } from './address.ts';
import { formatDrains, waitForDrain } from './drain.ts';
import { errnoMessage, NO_SERVICE } from './errors.ts';
import {
  formatConnection,
  formatConnectionTitle,
  formatDaemon,
  formatHeadline,
  formatLocalAddresses,
  formatService,
  formatTimeouts,
  formatTitle,
  type Naming,
  sortServices,
} from './format.ts';
import { LookupNeeded, Names } from './names.ts';
import { type CommandName, helpText } from './options.ts';
import { type ListForm, type Parsed, parse } from './parse.ts';
import { Refused } from './refused.ts';
import { restore } from './restore.ts';
import { saveService } from './save.ts';
import { changeTable } from './table.ts';

/** Of the tool whose every word this one keeps: scripts look at it. `tapvs version` says ours. */
const VERSION = 'ipvsadm v1.31 2019/12/24 (compiled with popt and IPVS v1.2.1)\n';

export const ipvsadm: CliCommand = {
  async run(args, context) {
    const tool = new Tool(context);
    try {
      return await tool.execute(args.length === 0 ? ['-L'] : args);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      context.err(`${error.message}\n`);
      return error.exit;
    }
  },
};

class Tool {
  readonly #context: CliContext;
  readonly #names = new Names();

  constructor(context: CliContext) {
    this.#context = context;
  }

  async execute(words: readonly string[]): Promise<number> {
    const parsed = await this.#parse(words);
    if (parsed.kind !== 'restore') return this.#run(parsed);
    return restore(this.#context.stdin, this.#context.program, {
      parse: (line) => this.#parse(line),
      apply: (commands, names) => this.#apply(commands, names),
      run: (other) => this.#run(other),
      err: (text) => this.#context.err(text),
    });
  }

  /** Synchronous for as long as no host has to be looked up. */
  #parse(words: readonly string[]): Parsed | Promise<Parsed> {
    try {
      return parse(words, this.#context.program, this.#names);
    } catch (error) {
      if (!(error instanceof LookupNeeded)) throw error;
      return this.#names.lookUpAddress(error.host).then(() => this.#parse(words));
    }
  }

  async #run(parsed: Parsed): Promise<number> {
    const { out, err, client, program } = this.#context;
    switch (parsed.kind) {
      case 'change': {
        const [message = null] = await this.#apply([parsed.command], [parsed.name]);
        if (message === null) return 0;
        err(`${message}\n`);
        return 255;
      }
      case 'list-services':
        return this.#listServices(parsed.service, parsed.form);
      case 'list-local-addresses':
        return this.#listLocalAddresses(parsed.service, parsed.json);
      case 'list-connections':
        return this.#listConnections(parsed.form);
      case 'list-timeouts': {
        const info = await client.get<IpvsInfo>('/v1/ipvs');
        out(parsed.form.json ? `${JSON.stringify(info.timeouts)}\n` : formatTimeouts(info));
        return 0;
      }
      case 'list-drains': {
        const rows = await client.get<DrainRow[]>('/v1/ipvs/drains');
        out(
          parsed.form.json
            ? `${JSON.stringify(rows)}\n`
            : formatDrains(rows, await this.#drainNaming(parsed.form.numeric, rows)),
        );
        return 0;
      }
      case 'drain': {
        const [message = null] = await this.#apply([parsed.command], [parsed.name]);
        if (message !== null) {
          err(`${message}\n`);
          return 255;
        }
        return parsed.wait ? waitForDrain(this.#context, parsed.command) : 0;
      }
      case 'plan':
      case 'apply':
        return changeTable(this.#context, parsed, (words) => this.#parse(words));
      case 'list-daemons': {
        const rows = await client.get<readonly DaemonRow[]>('/v1/ipvs/daemons');
        out(parsed.form.json ? `${JSON.stringify(rows)}\n` : rows.map(formatDaemon).join(''));
        return 0;
      }
      case 'save': {
        const rows = sortServices(await this.#services(undefined));
        const naming = await this.#naming(parsed.numeric, rows);
        this.#print(rows, (row) => saveService(row, naming));
        return 0;
      }
      case 'version':
        out(VERSION);
        return 0;
      case 'help':
      case 'restore':
        out(VERSION + helpText(program));
        return 0;
    }
  }

  async #apply(commands: readonly IpvsCommand[], names: readonly CommandName[]): Promise<readonly (string | null)[]> {
    const { client } = this.#context;
    try {
      const { results } = await client.post<CommandResults>('/v1/ipvs', { commands });
      return results.map((errno, i) => (errno === null ? null : errnoMessage(names[i]!, errno as IpvsErrno)));
    } catch (error) {
      if (!(error instanceof ApiError) || error.code !== 'bad-request') throw error;
      if (commands.length === 1) return [errnoMessage(names[0]!, holdsIp6(commands[0]!) ? 'EAFNOSUPPORT' : 'EINVAL')];
    }
    // One of the chunk is beyond what the daemon understands, so it took none: halved until that one stands alone, the others work.
    const half = commands.length >> 1;
    const first = await this.#apply(commands.slice(0, half), names.slice(0, half));
    return [...first, ...(await this.#apply(commands.slice(half), names.slice(half)))];
  }

  async #listServices(key: ServiceKey | undefined, form: ListForm): Promise<number> {
    const { client, out, err } = this.#context;
    const info = key === undefined ? await client.get<IpvsInfo>('/v1/ipvs') : undefined;
    const found = await this.#services(key);
    if (key !== undefined && found.length === 0) {
      err(`${NO_SERVICE}\n`);
      return 1;
    }
    const rows = form.sort ? sortServices(found) : found;
    if (form.json) {
      out(`${JSON.stringify(info === undefined ? rows : { ...info, services: rows })}\n`);
      return 0;
    }
    const naming = await this.#naming(form.numeric, rows);
    out((info === undefined ? '' : formatHeadline(info)) + formatTitle(form));
    this.#print(rows, (row) => formatService(row, form, naming));
    return 0;
  }

  async #listLocalAddresses(key: ServiceKey | undefined, json: boolean): Promise<number> {
    const { out, err } = this.#context;
    const rows = sortServices(await this.#services(key));
    if (key !== undefined && rows.length === 0) {
      err(`${NO_SERVICE}\n`);
      return 255;
    }
    const all = rows.map(({ key: service, localAddresses = [] }) => ({ service, localAddresses }));
    out(json ? `${JSON.stringify(all)}\n` : formatLocalAddresses(rows));
    return 0;
  }

  async #listConnections(form: ListForm): Promise<number> {
    const { client, out } = this.#context;
    const batches = client.rows<ConnectionRow>('/v1/ipvs/connections');
    if (!form.json) out(formatConnectionTitle(form));
    let separator = '[';
    for await (const rows of batches) {
      if (rows.length === 0) continue;
      if (form.json) {
        out(separator + rows.map((row) => JSON.stringify(row)).join(','));
        separator = ',';
        continue;
      }
      if (!form.numeric) {
        await this.#names.lookUpHosts(rows.flatMap((row) => [row.client, row.virtual, row.destination].map(addressOf)));
      }
      const naming = form.numeric ? 'numeric' : this.#names;
      out(rows.map((row) => formatConnection(row, form, naming)).join(''));
    }
    if (form.json) out(separator === '[' ? '[]\n' : ']\n');
    return 0;
  }

  async #services(key: ServiceKey | undefined): Promise<readonly ServiceRow[]> {
    const query = key === undefined ? '' : `?key=${encodeURIComponent(JSON.stringify(key))}`;
    const rows: ServiceRow[] = [];
    try {
      for await (const batch of this.#context.client.rows<ServiceRow>(`/v1/ipvs/services${query}`)) {
        for (const row of batch) rows.push(row);
      }
    } catch (error) {
      const isMissing = error instanceof ApiError && (error.code === 'no-such-service' || error.code === 'bad-request');
      if (key === undefined || !isMissing) throw error;
    }
    return rows;
  }

  async #drainNaming(numeric: boolean, rows: readonly DrainRow[]): Promise<Naming> {
    if (numeric) return 'numeric';
    await this.#names.lookUpHosts(
      rows.flatMap(({ service, server }) => [server.address, ...(service.kind === 'address' ? [service.address] : [])]),
    );
    return this.#names;
  }

  async #naming(numeric: boolean, rows: readonly ServiceRow[]): Promise<Naming> {
    if (numeric) return 'numeric';
    const addresses = rows.flatMap((row) => row.servers.map((server) => server.key.address));
    for (const { key } of rows) if (key.kind === 'address') addresses.push(key.address);
    await this.#names.lookUpHosts(addresses);
    return this.#names;
  }

  /** Long tables go out in pieces of some ten thousand characters. */
  #print(rows: readonly ServiceRow[], format: (row: ServiceRow) => string): void {
    let text = '';
    for (const row of rows) {
      text += format(row);
      if (text.length < 65_536) continue;
      this.#context.out(text);
      text = '';
    }
    this.#context.out(text);
  }
}

function addressOf(at: { readonly address: string }): string {
  return at.address;
}
