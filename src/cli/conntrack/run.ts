/** `tapvs conntrack`, or the program called `conntrack`: the classic tool's words, lists, messages and statuses, asked of tapvsd. */
import type { ConntrackInfo } from '../../control/api.ts';
import type {
  CtCommand,
  CtErrno,
  CtRequester,
  CtResult,
  CtStatistics,
  EntryRow,
  ExpectationRow,
  UpdateResult,
} from '../../model/conntrack.ts';
import { wouldChange } from '../../model/entry-change.ts';
import { isMeant } from '../../model/entry-filter.ts';
import type { CliCommand, CliContext } from '../command.ts';
import type { CommandName } from './commands.ts';
import { errnoText } from './errors.ts';
import { followEntries, followExpectations } from './events.ts';
import { protocolHelp, USAGE } from './options.ts';
import { type Parsed, parse } from './parse.ts';
import { Printer } from './printer.ts';
import { officialName, protocolNumber } from './protocol-file.ts';
import { PROGRAM, Refused } from './refused.ts';
import {
  entryChange,
  entryFilter,
  entrySpec,
  expectationSpec,
  isComparing,
  isRefused,
  originalTuple,
} from './request.ts';
import { readCommands } from './restore.ts';
import { Output } from './values.ts';

export const conntrack: CliCommand = {
  async run(args, context) {
    const tool = new Tool(context);
    try {
      return await tool.run(args);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      context.err(error.text);
      return error.exit;
    }
  },
};

/** What is said when it is done, by command: `%d` things of them. */
const DONE: Partial<Record<CommandName, string>> = {
  list: 'flow entries have been shown.',
  create: 'flow entries have been created.',
  add: 'flow entries have been added.',
  update: 'flow entries have been updated.',
  delete: 'flow entries have been deleted.',
  get: 'flow entries have been shown.',
  'list-expect': 'expectations have been shown.',
  'delete-expect': 'expectations have been shown.',
};
/** Nothing found is no failure of these. */
const MAY_FIND_NOTHING: ReadonlySet<CommandName> = new Set<CommandName>(['list', 'list-expect', 'add']);
const BY: CtRequester = { portId: process.pid, program: 'conntrack' };

class Tool {
  readonly #context: CliContext;

  constructor(context: CliContext) {
    this.#context = context;
  }

  async run(words: readonly string[]): Promise<number> {
    const { err } = this.#context;
    const parseLine = (line: readonly string[]) => parse(line, protocolNumber, err);
    if (words.length > 1 && (words[0] === '-R' || words[0] === '--load-file')) {
      // All lines are read before the first is done.
      for (const command of await readCommands(words[1]!, this.#context.stdin, parseLine)) await this.#execute(command);
      return 0;
    }
    const parsed = parseLine(words);
    const count = await this.#execute(parsed);
    const done = parsed.command === undefined ? undefined : DONE[parsed.command];
    if (done === undefined) return 0;
    err(`${PROGRAM}: ${count} ${done}\n`);
    return count === 0 && !MAY_FIND_NOTHING.has(parsed.command!) ? 1 : 0;
  }

  /** Answers how many entries it was. */
  async #execute(p: Parsed): Promise<number> {
    const { out, err } = this.#context;
    switch (p.command) {
      case 'list':
        return this.#list(p);
      case 'get':
        return this.#get(p);
      case 'delete':
        return this.#delete(p);
      case 'update':
        return this.#update(p);
      case 'create':
      case 'add':
        return this.#create(p, p.command);
      case 'flush':
        await this.#command(p.command, { op: 'flush', family: p.family === 0 ? undefined : p.family });
        err(`${PROGRAM}: connection tracking table has been emptied.\n`);
        return 0;
      case 'count':
        out(`${(await this.#info()).entries}\n`);
        return 0;
      case 'count-expect':
        out(`${(await this.#info()).expectations}\n`);
        return 0;
      case 'stats':
      case 'stats-expect':
        return this.#stats(p);
      case 'event':
        return followEntries(this.#context, p);
      case 'event-expect':
        return followExpectations(this.#context, p);
      case 'list-expect':
        return this.#listExpectations(p);
      case 'get-expect': {
        // The tool asks by the master, which is where it put the tuple.
        const { expectation } = await this.#command(p.command, { op: 'get-expectation', tuple: originalTuple(p) });
        if (expectation !== undefined) this.#printExpectations(p, [expectation]);
        return 1;
      }
      case 'delete-expect':
        await this.#command(p.command, { op: 'delete-expectation', tuple: originalTuple(p) });
        return 0;
      case 'create-expect':
        await this.#command(p.command, { op: 'create-expectation', expectation: expectationSpec(p) });
        return 0;
      case 'flush-expect':
        await this.#command(p.command, { op: 'flush-expectations' });
        err(`${PROGRAM}: expectation table has been emptied.\n`);
        return 0;
      case 'version':
        out(`${PROGRAM}\n`);
        return 0;
      case 'help':
      case undefined:
        out(USAGE + (p.protocol === undefined ? '' : this.#protocolHelp(p)));
        return 0;
    }
  }

  #protocolHelp({ handler, protocol }: Parsed): string {
    if (handler !== undefined) return protocolHelp(handler.name, handler.help);
    return protocolHelp(officialName(protocol ?? 0) ?? 'unknown');
  }

  async #list(p: Parsed): Promise<number> {
    const filter = entryFilter(p, 'list');
    if (p.table === 'conntrack' && p.given.has('zero') && isComparing(p)) {
      throw new Refused("Can't use -z with filtering parameters");
    }
    if (p.table === 'conntrack') checkMasks(p);
    // The kernel refuses a mask without bits.
    if (p.table === 'conntrack' && filter.status?.mask === 0) throw failed('EINVAL', 'list');
    const rows = p.given.has('zero')
      ? this.#context.client.rows<EntryRow>('/v1/conntrack/zero', { filter })
      : this.#context.client.rows<EntryRow>(
          `/v1/conntrack/entries?table=${p.table}&filter=${encodeURIComponent(JSON.stringify(filter))}`,
        );
    return this.#print(p, rows, 'conntrack', p.output & ~Output.Time);
  }

  /** Rows as they come; answers how many. */
  async #print(
    p: Parsed,
    batches: AsyncIterable<readonly EntryRow[]>,
    root: 'conntrack' | undefined,
    forms: number,
  ): Promise<number> {
    const { out } = this.#context;
    if (p.json) return printJson(out, batches);
    const printer = new Printer(out, forms, p.labelNames, root);
    for await (const rows of batches) {
      for (const row of rows) printer.entry(row);
      printer.flush();
    }
    printer.end();
    return printer.shown;
  }

  async #get(p: Parsed): Promise<number> {
    // Without an address of the original direction the tool's question holds half a tuple.
    if (p.original.src === undefined && p.original.dst === undefined) throw failed('EINVAL', 'get');
    // There are no entries of IPv6.
    if (p.family === 6) throw failed('ENOENT', 'get');
    if (p.handler?.name === 'icmpv6') throw failed('EINVAL', 'get');
    const { entry } = await this.#command('get', { op: 'get', tuple: originalTuple(p), zone: p.zone });
    const found = entry !== undefined && isMeant(entry, entryFilter(p, 'list')) ? [entry] : [];
    const { out } = this.#context;
    if (p.json) return printJson(out, once([found]));
    const printer = new Printer(out, p.output & ~Output.Time, p.labelNames, 'conntrack');
    for (const row of found) printer.entry(row);
    // The tool leaves the element of -o xml open.
    printer.flush();
    return printer.shown;
  }

  #delete(p: Parsed): Promise<number> {
    checkMasks(p);
    const rows = this.#context.client.rows<EntryRow>('/v1/conntrack/delete', {
      filter: entryFilter(p, 'delete'),
      by: BY,
    });
    const forms = p.output & (Output.Xml | Output.Extended | Output.Id | Output.Save);
    // Of what is gone the labels are not told.
    return this.#print({ ...p, labelNames: undefined }, deleted(rows, forms), undefined, forms);
  }

  async #update(p: Parsed): Promise<number> {
    const { client, err, out } = this.#context;
    checkMasks(p);
    const filter = entryFilter(p, 'update');
    const change = entryChange(p);
    if (p.family === 0) await this.#refuseWithoutFamily(p);
    const printer = new Printer(
      out,
      p.output & (Output.Xml | Output.Extended | Output.Id | Output.Save),
      p.labelNames,
      undefined,
    );
    const rows: EntryRow[] = [];
    for await (const results of client.rows<UpdateResult>('/v1/conntrack/update', { filter, change, by: BY })) {
      for (const { errno, entry } of results) {
        if (errno !== null) err(`Operation failed: ${errnoText(errno, 'update')}\n`);
        if (entry === undefined) continue;
        if (p.json) rows.push(entry);
        else printer.entry(entry);
      }
      printer.flush();
    }
    if (p.json) return printJson(out, once([rows]));
    return printer.shown;
  }

  /** A change without an address family is one that the kernel does not take; the tool says so twice and gives up. */
  async #refuseWithoutFamily(p: Parsed): Promise<void> {
    const filter = encodeURIComponent(JSON.stringify(entryFilter(p, 'update')));
    const change = entryChange(p);
    for await (const rows of this.#context.client.rows<EntryRow>(`/v1/conntrack/entries?filter=${filter}`)) {
      if (!rows.some((row) => wouldChange(row, change))) continue;
      this.#context.err(`Operation failed: ${errnoText('EOPNOTSUPP', 'update')}\n`);
      throw failed('EOPNOTSUPP', 'update');
    }
  }

  async #create(p: Parsed, name: 'create' | 'add'): Promise<number> {
    if (p.family === 6 || isRefused(p)) throw failed('EINVAL', name);
    const errno = await this.#try({ op: 'create', entry: entrySpec(p) });
    // -A is content with what is there.
    if (errno === 'EEXIST' && name === 'add') return 0;
    if (errno !== null) throw failed(errno, name);
    return 1;
  }

  async #try(command: CtCommand): Promise<CtErrno | null> {
    return (await this.#ask(command)).errno;
  }

  async #command(name: CommandName, command: CtCommand): Promise<CtResult> {
    const result = await this.#ask(command);
    if (result.errno !== null) throw failed(result.errno, name);
    return result;
  }

  async #ask(command: CtCommand): Promise<CtResult> {
    const { client } = this.#context;
    const { results } = await client.post<{ results: readonly CtResult[] }>('/v1/conntrack', {
      commands: [command],
      by: BY,
    });
    return results[0]!;
  }

  #info(): Promise<ConntrackInfo> {
    return this.#context.client.get<ConntrackInfo>('/v1/conntrack');
  }

  async #stats(p: Parsed): Promise<number> {
    const { statistics } = await this.#info();
    if (p.json) this.#context.out(`${JSON.stringify(statistics)}\n`);
    else this.#context.out(`cpu=0   \t${p.command === 'stats' ? entryStats(statistics) : expectStats(statistics)}\n`);
    return 0;
  }

  async #listExpectations(p: Parsed): Promise<number> {
    const all: ExpectationRow[] = [];
    if (p.family !== 6) {
      for await (const rows of this.#context.client.rows<ExpectationRow>('/v1/conntrack/expectations'))
        all.push(...rows);
    }
    return this.#printExpectations(p, all);
  }

  #printExpectations(p: Parsed, rows: readonly ExpectationRow[]): number {
    const { out } = this.#context;
    if (p.json) {
      out(`${JSON.stringify(rows)}\n`);
      return rows.length;
    }
    const printer = new Printer(out, p.output, undefined, 'expect');
    for (const row of rows) printer.expectation(row, undefined, Date.now());
    printer.end();
    return printer.shown;
  }
}

function failed(errno: CtErrno, command: CommandName): Refused {
  return new Refused(`Operation failed: ${errnoText(errno, command)}`, 1);
}

function checkMasks({ given }: Parsed): void {
  if (given.has('mask-src') && !given.has('src')) throw new Refused("Can't use --mask-src without --src");
  if (given.has('mask-dst') && !given.has('dst')) throw new Refused("Can't use --mask-dst without --dst");
}

async function* once<T>(items: readonly T[]): AsyncGenerator<T> {
  yield* items;
}

/** With -o save a deletion prints what would make the entries' end: -D. */
async function* deleted(
  batches: AsyncIterable<readonly EntryRow[]>,
  forms: number,
): AsyncGenerator<readonly EntryRow[]> {
  for await (const rows of batches)
    yield forms & Output.Save ? rows.map((row) => ({ ...row, kind: 'destroy' as const })) : rows;
}

async function printJson(out: (text: string) => void, batches: AsyncIterable<readonly EntryRow[]>): Promise<number> {
  let count = 0;
  for await (const rows of batches) {
    if (rows.length === 0) continue;
    out((count === 0 ? '[' : ',') + rows.map((row) => JSON.stringify(row)).join(','));
    count += rows.length;
  }
  out(count === 0 ? '[]\n' : ']\n');
  return count;
}

function entryStats(s: CtStatistics): string {
  return (
    `found=${s.found} invalid=${s.invalid} insert=${s.insert} insert_failed=${s.insertFailed} drop=${s.drop} ` +
    `early_drop=${s.earlyDrop} error=${s.error} search_restart=${s.searchRestart} clash_resolve=${s.clashResolve} ` +
    `chaintoolong=${s.chainTooLong} `
  );
}

function expectStats(s: CtStatistics): string {
  return `expect_new=${s.expectNew} expect_create=${s.expectCreate} expect_delete=${s.expectDelete} `;
}
