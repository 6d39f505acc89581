/**
 * The configuration file (architecture.md §6) as an immutable value, or all that is wrong with it.
 *
 *   text ── yaml-source ──► plain value ── config-schema, key by key ──► config-check, across keys ──► Config
 */
import { readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import type { z } from 'zod';
import type { AddressRow } from '../model/ip.ts';
import {
  acceptingPolicies,
  type TableChange,
  type TableCommand,
  type TableName,
  type TableOutcome,
} from '../model/iptables.ts';
import type { IpvsCommand, IpvsErrno } from '../model/ipvs.ts';
import { formatIp4, parsePrefix } from '../wire/addr.ts';
import {
  type CheckedDevice,
  type CheckedRoute,
  checkAddresses,
  checkDevice,
  checkDevices,
  checkRoute,
} from './config-check.ts';
import { describeIssue, kindOf } from './config-issue.ts';
import { deviceSchema, type FileKey, fileSchema, routeSchema } from './config-schema.ts';
import { type Diagnostic, didYouMean, formatDiagnostic, sortDiagnostics } from './diagnostics.ts';
import { type IpvsTable, IpvsTableBuilder } from './ipvs-table.ts';
import { ROW_LIMITS, sysctlHint } from './sysctl-hint.ts';
import { type Path, YamlSource } from './yaml-source.ts';

export interface DeviceConfig {
  readonly name: string;
  readonly kind: 'tap' | 'tun' | 'packet';
  /** A name under /run/netns or a path; null = the daemon's own. */
  readonly netns: string | null;
  readonly mac?: string | undefined;
  /** Only of a tap. */
  readonly bridge?: string | undefined;
  /** Only of, and always of, a packet device. */
  readonly interface?: string | undefined;
  readonly mtu: number;
  /** `10.0.1.1/24` */
  readonly addresses: readonly string[];
  readonly host: boolean;
  /** The kernel's side of the host port, with prefix length. */
  readonly peer?: string | undefined;
  readonly offload: boolean;
  /** The TUN or TAP stays when the daemon ends. */
  readonly persist: boolean;
}

export interface RouteConfig {
  readonly to: string;
  readonly via?: string | undefined;
  readonly dev?: string | undefined;
  readonly src?: string | undefined;
  readonly metric: number;
  readonly type: 'unicast' | 'unreachable' | 'prohibit' | 'blackhole';
}

export interface Config {
  /** Absolute. */
  readonly file: string;
  /** What was read, by path: the file, and what it names. */
  readonly texts: ReadonlyMap<string, string>;
  readonly devices: readonly DeviceConfig[];
  /** Local addresses of no device: VIPs. */
  readonly addresses: readonly string[];
  readonly routes: readonly RouteConfig[];
  /** Dotted names; values as sysctl(8) prints them. */
  readonly sysctl: ReadonlyMap<string, string>;
  readonly ipvs: IpvsTable;
  /** Of iptables; tables that the file does not name are not here. */
  readonly rules: readonly TableRules[];
  readonly log: { readonly level: LogLevel; readonly format?: 'json' | 'pretty' | undefined };
  /** Director connections, tracked connections, and packets alive at once, at most. */
  readonly limits: { readonly connections: number; readonly entries: number; readonly packets: number };
  /** Empty polls before the data worker sleeps. */
  readonly spin: number;
}

export type LogLevel = 'debug' | 'info' | 'warn' | 'error' | 'silent';

/** Prototypes gained most of the latency with 20 empty polls before sleeping (architecture.md §3). */
const DEFAULT_SPIN = 20;

/** Reads lines as `ipvsadm --restore` does; `line` counts from `firstLine`. */
export type ParseIpvsadm = (
  lines: readonly string[],
  file: string,
  firstLine: number,
) => {
  readonly commands: readonly { readonly line: number; readonly command: IpvsCommand }[];
  readonly errors: readonly { readonly line: number; readonly message: string }[];
};

/** Lines of iptables-save as tables; `line` of each command counts from `firstLine`. */
export type ReadRules = (
  lines: readonly string[],
  firstLine: number,
) => {
  readonly tables: readonly (TableRules & { readonly lines: readonly number[] })[];
  readonly errors: readonly { readonly line: number; readonly message: string }[];
};

/** The languages of the classic tools that a configuration holds. */
export interface Grammars {
  readonly ipvsadm: ParseIpvsadm;
  readonly rules: ReadRules;
  /** Why a table cannot be had, in words. @param op of the command that failed */
  readonly rulesFault: (outcome: NonNullable<TableOutcome>, op: string) => string;
}

/** One table as the file wants it: commands that make it from whatever it is. */
export interface TableRules {
  readonly table: TableName;
  readonly commands: readonly TableCommand[];
}

/** The file cannot be used: everything that is wrong with it, in the order of its lines. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
  readonly diagnostics: readonly Diagnostic[];

  constructor(diagnostics: readonly Diagnostic[]) {
    const sorted = sortDiagnostics(diagnostics);
    super(sorted.map((diagnostic) => formatDiagnostic(diagnostic)).join('\n'));
    this.diagnostics = sorted;
  }
}

/** An engine without devices of the kernel, on which a file is tried as it is read, so that what the engine would refuse has a line and a column. */
export interface Rehearsal {
  addDevice(name: string): void;
  addAddress(row: Pick<AddressRow, 'device' | 'address' | 'prefixLength'>): void;
  setSysctl(key: string, value: string): 'EINVAL' | 'ENOENT' | 'EPERM' | null;
  run(command: IpvsCommand): IpvsErrno | null;
  changeTable(change: TableChange): TableOutcome;
}

/** Reads and checks the file. @throws ConfigError */
export function loadConfig(file: string, grammars: Grammars, rehearsal?: Rehearsal): Config {
  const path = resolve(file);
  return parseConfig(readText(path, path), path, grammars, rehearsal);
}

/**
 * The same from a text; `file` names it in errors and is where relative paths start.
 * @param others texts of files that it names, by path; others are read
 * @throws ConfigError
 */
export function parseConfig(
  text: string,
  file: string,
  grammars: Grammars,
  rehearsal?: Rehearsal,
  others: ReadonlyMap<string, string> = new Map(),
): Config {
  const source = new YamlSource(file, text);
  const syntax = source.syntaxErrors();
  if (syntax.length > 0) throw new ConfigError(syntax);
  const reader = new ConfigReader(source, text, grammars, rehearsal, others);
  const config = reader.read(file);
  if (reader.faults.length > 0) throw new ConfigError(reader.faults);
  return deepFreeze(config);
}

function readText(path: string, asWritten: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : 'EIO';
    const why = code === 'ENOENT' ? 'there is no such file' : `cannot be read: ${code}`;
    throw new ConfigError([{ file: asWritten, line: 0, column: 0, path: '', message: why, sourceLine: '' }]);
  }
}

class ConfigReader {
  readonly faults: Diagnostic[] = [];
  readonly #source: YamlSource;
  readonly #grammars: Grammars;
  readonly #rehearsal: Rehearsal | undefined;
  readonly #others: ReadonlyMap<string, string>;
  readonly #texts: Map<string, string>;
  #root: Readonly<Record<string, unknown>> = {};

  constructor(
    source: YamlSource,
    text: string,
    grammars: Grammars,
    rehearsal: Rehearsal | undefined,
    others: ReadonlyMap<string, string>,
  ) {
    this.#source = source;
    this.#texts = new Map([[source.file, text]]);
    this.#others = others;
    this.#grammars = grammars;
    this.#rehearsal = rehearsal;
  }

  read(file: string): Config {
    const value = this.#source.value() ?? {};
    if (!isRecord(value)) this.#fault([], `must be a map of keys such as 'devices:', not ${kindOf(value)}`);
    else this.#root = value;
    this.#refuseUnknownKeys();

    const devices: CheckedDevice[] = [];
    for (const [i, raw] of (this.#key('devices') ?? []).entries()) {
      const path = ['devices', i];
      const config = this.#parse(path, deviceSchema, raw);
      if (config === undefined) continue;
      for (const fault of checkDevice(config)) this.#fault([...path, ...fault.path], fault.message);
      devices.push({ index: i, config });
      this.#rehearsal?.addDevice(config.name);
    }
    const addresses = this.#key('addresses') ?? [];
    const routes: CheckedRoute[] = [];
    for (const [i, raw] of (this.#key('routes') ?? []).entries()) {
      const config = this.#parse(['routes', i], routeSchema, raw);
      if (config !== undefined) routes.push({ index: i, config });
    }
    for (const fault of [...checkDevices(devices), ...checkAddresses(devices, addresses)]) {
      this.#fault(fault.path, fault.message);
    }
    this.#rehearseAddresses(devices, addresses);
    // A device that could not be read may be the one that a route leads over: then its routes are not judged.
    if (devices.length === (this.#key('devices', false) ?? []).length) {
      for (const { index, config } of routes) {
        for (const fault of checkRoute(config, devices)) this.#fault(['routes', index, ...fault.path], fault.message);
      }
    }
    return {
      file,
      texts: this.#texts,
      devices: devices.map((device) => device.config),
      addresses,
      routes: routes.map((route) => route.config),
      sysctl: this.#sysctl(),
      ipvs: this.#ipvs(),
      rules: this.#rules(),
      log: this.#key('log') ?? { level: 'info' },
      limits: this.#limits(),
      spin: this.#key('spin') ?? DEFAULT_SPIN,
    };
  }

  #limits(report = true): Config['limits'] {
    const { connections, packets, entries } = this.#key('limits', report) ?? { connections: 1_000_000, packets: 2048 };
    return { connections, packets, entries: entries ?? connections };
  }

  /** What is ours decides what can be a server, or a local address. */
  #rehearseAddresses(devices: readonly CheckedDevice[], addresses: readonly string[]): void {
    const all = devices.flatMap(({ config }) => config.addresses.map((cidr) => [config.name, cidr] as const));
    for (const [device, cidr] of [...all, ...addresses.map((cidr) => ['lo', cidr] as const)]) {
      const { ip, length } = parsePrefix(cidr)!;
      this.#rehearsal?.addAddress({ device, address: formatIp4(ip), prefixLength: length });
    }
  }

  #refuseUnknownKeys(): void {
    const known = Object.keys(fileSchema);
    for (const key of Object.keys(this.#root)) {
      if (known.includes(key)) continue;
      this.faults.push(this.#source.keyDiagnostic([], key, `unknown key${didYouMean(key, known)}`));
    }
  }

  /** The checked value of a key of the file; undefined when it is absent, null or wrong. */
  #key<K extends FileKey>(key: K, report = true): z.output<(typeof fileSchema)[K]> | undefined {
    const raw = this.#root[key];
    if (raw === undefined || raw === null) return undefined;
    if (!report) return fileSchema[key].safeParse(raw).data as z.output<(typeof fileSchema)[K]> | undefined;
    return this.#parse<z.output<(typeof fileSchema)[K]>>([key], fileSchema[key] as never, raw);
  }

  #parse<T>(path: Path, schema: z.ZodType<T>, raw: unknown): T | undefined {
    const result = schema.safeParse(raw);
    if (result.success) return result.data;
    for (const issue of result.error.issues) {
      for (const { path: inner, key, message } of describeIssue(issue, raw, schema)) {
        const at = [...path, ...inner];
        this.faults.push(
          key === undefined ? this.#source.diagnostic(at, message) : this.#source.keyDiagnostic(at, key, message),
        );
      }
    }
    return undefined;
  }

  #sysctl(): Map<string, string> {
    const values = new Map<string, string>();
    const { entries } = this.#limits(false);
    for (const [name, v] of Object.entries(this.#key('sysctl') ?? {})) {
      const key = dotted(name);
      const value = sysctlText(v);
      values.set(key, value);
      const errno = this.#rehearsal?.setSysctl(key, value);
      if (errno === 'ENOENT') {
        this.faults.push(
          this.#source.keyDiagnostic(['sysctl'], name, 'tapvs has no such key (tapvs sysctl -a lists them)'),
        );
      } else if (errno === 'EINVAL' || (ROW_LIMITS.includes(key) && Number(value) > entries)) {
        const hint = sysctlHint(key, value, entries);
        this.#fault(['sysctl', name], `cannot be '${value}'${hint === '' ? '' : `: ${hint}`}`);
      }
    }
    return values;
  }

  #ipvs(): IpvsTable {
    const builder = new IpvsTableBuilder();
    this.#text('ipvsadm', 'services', (lines, firstLine, source, path) =>
      this.#ipvsadm(builder, lines, firstLine, source, path),
    );
    return builder.table();
  }

  #rules(): TableRules[] {
    const rules: TableRules[] = [];
    this.#text('iptables', 'rules', (lines, firstLine, source, path) => {
      rules.push(...this.#tables(lines, firstLine, source, path));
    });
    return rules;
  }

  /** Lines of a classic tool: a literal block of this file, or another file. */
  #text(
    key: 'ipvsadm' | 'iptables',
    what: string,
    take: (lines: readonly string[], firstLine: number, source: LineSource, path: string) => void,
  ): void {
    const fileKey = `${key}_file` as const;
    const block = this.#key(key);
    const file = this.#key(fileKey);
    if (block !== undefined && file !== undefined) {
      this.#fault([fileKey], `stands beside '${key}': the ${what} are either in this file or in another`);
    } else if (block !== undefined) {
      const where = this.#source.linesOf([key]);
      if (where === null)
        this.#fault([key], `must be a literal block: write '${key}: |' and each command on a line below`);
      else take(where.lines, where.firstLine, this.#source, key);
    } else if (file !== undefined) {
      const read = this.#otherFile(fileKey, file);
      // Only its lines are wanted: any text has them, YAML or not.
      if (read !== null) take(read.lines, 1, new PlainSource(read.path, read.lines), '');
    }
  }

  /** A file that this one names; null when it cannot be read. */
  #otherFile(key: FileKey, name: string): { readonly path: string; readonly lines: readonly string[] } | null {
    const path = resolve(dirname(this.#source.file), name);
    try {
      const text = this.#others.get(path) ?? readText(path, path);
      this.#texts.set(path, text);
      return { path, lines: text.replace(/\n+$/, '').split(/\r?\n/) };
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error;
      this.#fault([key], `${path}: ${error.diagnostics[0]?.message ?? 'cannot be read'}`);
      return null;
    }
  }

  /** Each table from scratch: policies that are not said are ACCEPT. */
  #tables(lines: readonly string[], firstLine: number, source: LineSource, path: string): TableRules[] {
    const { tables, errors } = this.#grammars.rules(lines, firstLine);
    const fault = (line: number, message: string): unknown =>
      this.faults.push(source.at(source.lineStart(line), path, message));
    for (const { line, message } of errors) fault(line, message);
    if (errors.length > 0) return [];
    return tables.map(({ table, commands, lines: places }) => {
      const policies = acceptingPolicies(table);
      const rules: TableRules = { table, commands: [...policies, ...commands] };
      const outcome = this.#rehearsal?.changeTable(rules) ?? null;
      if (outcome !== null) {
        const index = outcome.index - policies.length;
        const message = this.#grammars.rulesFault(outcome, commands[index]?.op ?? '');
        fault(places[index] ?? places.at(-1) ?? firstLine, message);
      }
      return rules;
    });
  }

  #ipvsadm(
    builder: IpvsTableBuilder,
    lines: readonly string[],
    firstLine: number,
    source: LineSource,
    path: string,
  ): void {
    const { commands, errors } = this.#grammars.ipvsadm(lines, source.file, firstLine);
    for (const { line, message } of errors) this.faults.push(source.at(source.lineStart(line), path, message));
    if (errors.length > 0) return; // what follows from a line that could not be read would only confuse
    for (const { line, command } of commands) {
      const errno = builder.apply(command);
      if (errno !== null) this.faults.push(source.at(source.lineStart(line), path, COMMAND_FAULTS[errno] ?? errno));
      const refusal = errno === null ? (this.#rehearsal?.run(command) ?? null) : null;
      if (refusal !== null) this.faults.push(source.at(source.lineStart(line), path, refusalText(command, refusal)));
    }
  }

  #fault(path: Path, message: string): void {
    this.faults.push(this.#source.diagnostic(path, message));
  }
}

/** What the director says to a command that is well-formed. */
function refusalText(command: IpvsCommand, errno: IpvsErrno): string {
  if (errno === 'ENOENT' && (command.op === 'add-service' || command.op === 'edit-service')) {
    return `there is no scheduler '${command.service.scheduler}', or no such persistence engine`;
  }
  if (errno === 'ENODEV' && command.op === 'start-daemon') return `there is no device '${command.daemon.device}'`;
  if (command.op === 'add-local-address') {
    const { address, device } = command.local;
    if (errno === 'ENODEV') return `there is no device '${device}'`;
    const on = device === undefined ? 'no address of tapvs' : `no address of device '${device}'`;
    if (errno === 'EADDRNOTAVAIL') return `${address} is ${on}: give it to a device, or to 'addresses'`;
  }
  if (errno === 'EOPNOTSUPP') return 'full NAT does not go together with one-packet scheduling, nor with FTP (port 21)';
  return `the director refuses it: ${errno}`;
}

type LineSource = Pick<YamlSource, 'file' | 'at' | 'lineStart'>;

class PlainSource implements LineSource {
  readonly file: string;
  readonly #lines: readonly string[];

  constructor(file: string, lines: readonly string[]) {
    this.file = file;
    this.#lines = lines;
  }

  at(place: { line: number; column: number }, path: string, message: string): Diagnostic {
    return { file: this.file, ...place, path, message, sourceLine: this.#lines[place.line - 1] ?? '' };
  }

  lineStart(line: number): { line: number; column: number } {
    return { line, column: (/^\s*/.exec(this.#lines[line - 1] ?? '')?.[0].length ?? 0) + 1 };
  }
}

const COMMAND_FAULTS: Partial<Record<IpvsErrno, string>> = {
  EEXIST: 'is there already: the same service or server stands further above',
  ESRCH: 'there is no such service: it must be added (-A) further above',
  ENOENT: 'there is no such server: it must be added (-a) further above',
};

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** The name with dots. As sysctl(8) reads it: when its first separator is a slash, slashes separate and dots belong to a device's name. */
function dotted(name: string): string {
  if (!/^[^.]*\//.test(name)) return name;
  return name.replace(/[./]/g, (separator) => (separator === '/' ? '.' : '/'));
}

function sysctlText(value: number | string | boolean): string {
  return typeof value === 'boolean' ? String(Number(value)) : String(value);
}

function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null && !Object.isFrozen(value)) {
    Object.freeze(value);
    for (const part of value instanceof Map ? value.values() : Object.values(value)) deepFreeze(part);
  }
  return value;
}
