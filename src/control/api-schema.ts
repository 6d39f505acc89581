/** What clients may send, checked before a worker sees it: shape and kinds. Whether it makes sense is for the engine to say, by errno. */
import { z } from 'zod';
import type { IpCommand } from '../model/ip.ts';
import {
  isChainTooLong,
  LARGEST_COUNT,
  LONGEST_CHAIN,
  TABLE_NAMES,
  type TableChange,
  type TableCommand,
  type TableName,
} from '../model/iptables.ts';
import type { IpvsCommand, ServiceKey } from '../model/ipvs.ts';
import type { ExplainSpec } from '../model/way.ts';
import { parseIp4, parseMac, parsePrefix } from '../wire/addr.ts';
import type { TableLine } from './api.ts';
import { describeIssue } from './config-issue.ts';
import { ApiFailure } from './http.ts';

const ip = z.string().refine((text) => parseIp4(text) !== undefined, 'is not an IPv4 address');
const mac = z.string().refine((text) => parseMac(text) !== undefined, 'is not a MAC address');
const destination = z
  .string()
  .refine((text) => text === 'default' || parsePrefix(text) !== undefined, "is neither 'default' nor a prefix");
const whole = z.int().min(-0x80000000).max(0xffffffff);
const port = z.int().min(0).max(65535);

const serviceKey = z.discriminatedUnion('kind', [
  z.strictObject({ kind: z.literal('address'), protocol: z.enum(['tcp', 'udp', 'sctp']), address: ip, port }),
  z.strictObject({ kind: z.literal('fwmark'), fwmark: whole, family: z.literal([4, 6]) }),
]);
const serverKey = z.strictObject({ address: ip, port });
const service = z.strictObject({
  key: serviceKey,
  scheduler: z.string(),
  schedulerFlags: whole,
  persistenceTimeout: whole.optional(),
  netmask: ip.optional(),
  pe: z.string().optional(),
  ops: z.boolean(),
});
const server = z.strictObject({
  key: serverKey,
  method: z.enum(['masq', 'route', 'tunnel', 'local', 'bypass', 'fullnat']),
  weight: whole,
  upperThreshold: whole,
  lowerThreshold: whole,
  tunnel: z
    .strictObject({ type: z.enum(['ipip', 'gue', 'gre']), port, checksum: z.enum(['none', 'csum', 'remcsum']) })
    .optional(),
});

const localAddress = z.strictObject({
  address: ip,
  ports: z.strictObject({ from: port, to: port }).optional(),
  device: z.string().optional(),
});

const role = z.enum(['master', 'backup']);
const daemon = z.strictObject({
  role,
  device: z.string(),
  syncId: z.int().min(0).max(255),
  maxLength: z.int().min(0).max(65507).optional(),
  group: z.string().optional(),
  port: port.optional(),
  ttl: z.int().min(0).max(255).optional(),
});

const ipvsCommand = z.discriminatedUnion('op', [
  z.strictObject({ op: z.literal('add-service'), service }),
  z.strictObject({ op: z.literal('edit-service'), service }),
  z.strictObject({ op: z.literal('delete-service'), service: serviceKey }),
  z.strictObject({ op: z.literal('clear') }),
  z.strictObject({ op: z.literal('add-server'), service: serviceKey, server }),
  z.strictObject({ op: z.literal('edit-server'), service: serviceKey, server }),
  z.strictObject({ op: z.literal('delete-server'), service: serviceKey, server: serverKey }),
  z.strictObject({ op: z.enum(['add-local-address', 'edit-local-address']), service: serviceKey, local: localAddress }),
  z.strictObject({
    op: z.literal('delete-local-address'),
    service: serviceKey,
    local: localAddress.omit({ ports: true }),
  }),
  z.strictObject({ op: z.literal('zero'), service: serviceKey.optional() }),
  z.strictObject({
    op: z.literal('drain'),
    service: serviceKey,
    server: serverKey,
    deadline: whole.optional(),
    udpIdle: whole.optional(),
    whenAdded: z.boolean().optional(),
  }),
  z.strictObject({ op: z.literal('undrain'), service: serviceKey, server: serverKey }),
  z.strictObject({ op: z.literal('set-timeouts'), tcp: whole, tcpFin: whole, udp: whole }),
  z.strictObject({ op: z.literal('start-daemon'), daemon }),
  z.strictObject({ op: z.literal('stop-daemon'), role }),
]) satisfies z.ZodType<IpvsCommand>;

const explainSpec = z.strictObject({
  protocol: z.enum(['tcp', 'udp', 'sctp', 'icmp']),
  source: ip,
  destination: ip,
  sourcePort: port.default(0),
  destinationPort: port.default(0),
  flags: z
    .string()
    .regex(/^[FSRP.UEWAC]*$/, "has other letters than tcpdump's FSRP.UEW")
    .default('S'),
  chunk: z.int().min(0).max(255).default(1),
  device: z.string().optional(),
  mark: z.int().min(0).max(0xffffffff).default(0),
  ttl: z.int().min(0).max(255).default(64),
  length: z.int().min(0).max(65535).default(0),
  df: z.boolean().default(false),
}) satisfies z.ZodType<ExplainSpec>;

const device = z.string();
const route = z.strictObject({
  to: destination,
  via: ip.optional(),
  device: device.optional(),
  source: ip.optional(),
  metric: whole.exactOptional(),
  type: z.enum(['unicast', 'local', 'broadcast', 'unreachable', 'prohibit', 'blackhole']).exactOptional(),
  protocol: z.enum(['kernel', 'static', 'boot']).exactOptional(),
  scope: z.enum(['global', 'link', 'host']).exactOptional(),
});

const ipCommand = z.discriminatedUnion('op', [
  z.strictObject({
    op: z.enum(['addr-add', 'addr-replace', 'addr-del']),
    device,
    address: ip,
    prefixLength: z.int().min(0).max(32),
  }),
  z.strictObject({ op: z.enum(['route-add', 'route-replace', 'route-del']), route }),
  z.strictObject({
    op: z.enum(['neigh-add', 'neigh-replace', 'neigh-del']),
    device,
    address: ip,
    mac: mac.optional(),
  }),
  z.strictObject({ op: z.literal('neigh-flush'), device: device.optional() }),
  z.strictObject({
    op: z.literal('link-set'),
    device,
    mtu: whole.optional(),
    up: z.boolean().optional(),
    mac: mac.optional(),
  }),
]) satisfies z.ZodType<IpCommand>;

/** @throws ApiFailure bad-request, which names the first thing that is wrong */
export function check<T>(name: string, value: unknown, schema: z.ZodType<T>): T {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const [first] = result.error.issues.flatMap((issue) => describeIssue(issue, value, schema));
  const path = [name, ...(first?.path ?? []), ...(first?.key === undefined ? [] : [first.key])].join('.');
  throw new ApiFailure('bad-request', `${path}: ${first?.message ?? 'is wrong'}`);
}

export function readIpvsCommands(body: Record<string, unknown>): IpvsCommand[] {
  return check('commands', body.commands, z.array(ipvsCommand));
}

export function readTableLines(body: Record<string, unknown>): TableLine[] {
  return check('lines', body.lines, z.array(z.strictObject({ line: z.int().min(1), command: ipvsCommand })));
}

export function readIpCommands(body: Record<string, unknown>): IpCommand[] {
  return check('commands', body.commands, z.array(ipCommand));
}

const chain = z.string().min(1);
/** What iptables-restore reads again from what iptables-save writes. */
const newChain = z
  .string()
  .refine(
    (name) => /^[^\s\0]+$/.test(name) && !isChainTooLong(name),
    `cannot be a chain's name: at most ${LONGEST_CHAIN} bytes, no blanks`,
  );
const count = z.number().min(0).max(LARGEST_COUNT).refine(Number.isInteger, 'must be a whole number');
const counters = z.strictObject({ packets: count, bytes: count });
const rule = z.strictObject({ words: z.array(z.string()), counters: counters.optional() });
const at = z.int().min(1).max(0x7fffffff);
const tableCommand = z.discriminatedUnion('op', [
  z.strictObject({ op: z.enum(['append', 'delete', 'check']), chain, rule }),
  z.strictObject({ op: z.enum(['insert', 'replace']), chain, at, rule }),
  z.strictObject({ op: z.literal('delete-at'), chain, at }),
  z.strictObject({ op: z.enum(['flush', 'delete-chain']), chain: chain.optional() }),
  z.strictObject({ op: z.literal('zero'), chain: chain.optional(), at: at.optional() }),
  z.strictObject({ op: z.enum(['new-chain', 'make-chain']), chain: newChain }),
  z.strictObject({ op: z.literal('rename-chain'), chain, to: newChain }),
  z.strictObject({ op: z.literal('policy'), chain, policy: z.string(), counters: counters.optional() }),
]) satisfies z.ZodType<TableCommand>;
const tableChange = z.strictObject({
  table: z.enum(TABLE_NAMES),
  commands: z.array(tableCommand),
  isTest: z.boolean().optional(),
}) satisfies z.ZodType<TableChange>;

export function readTableChange(body: Record<string, unknown>): TableChange {
  return check('change', body, tableChange);
}

export function readTableName(text: string): TableName {
  const name = TABLE_NAMES.find((known) => known === text);
  if (name === undefined) throw new ApiFailure('not-found', `there is no table '${text}'`);
  return name;
}

/** The `key` of a query: a ServiceKey as JSON. */
export function readServiceKey(text: string): ServiceKey {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new ApiFailure('bad-request', 'key: is not JSON');
  }
  return check('key', value, serviceKey);
}

export function readExplain(body: Record<string, unknown>): ExplainSpec {
  return check('packet', body, explainSpec);
}

export function readSysctlValue(body: Record<string, unknown>): string {
  return String(check('value', body.value, z.union([z.string(), z.number()], 'must be a text or a number')));
}

export function readClock(body: Record<string, unknown>): { seconds: number; runs: boolean | undefined } {
  return {
    seconds: check('seconds', body.seconds ?? 0, z.number().min(0).max(2_678_400)),
    runs: check('runs', body.runs, z.boolean().optional()),
  };
}

/** A query's number, or what holds without it. */
export function readNumber(query: URLSearchParams, name: string, min: number, max: number, fallback: number): number {
  const text = query.get(name);
  if (text === null || text === '') return fallback;
  const value = Number(text);
  if (/^\d+$/.test(text) && value >= min && value <= max) return value;
  throw new ApiFailure('bad-request', `${name}: '${text}' is not a number from ${min} to ${max}`);
}
