/** What clients may ask of connection tracking: shape and kinds, checked before a worker sees it. */
import { z } from 'zod';
import type {
  CtCommand,
  CtEventKind,
  CtRequester,
  CtTuple,
  EntryChange,
  EntryFilter,
  EntrySpec,
  EntryTable,
  PartialTuple,
} from '../model/conntrack.ts';
import { parseIp4 } from '../wire/addr.ts';
import { check } from './api-schema.ts';
import { ApiFailure } from './http.ts';

const ip = z.string().refine((text) => parseIp4(text) !== undefined, 'is not an IPv4 address');
const octet = z.int().min(0).max(255);
const u16 = z.int().min(0).max(65535);
const u32 = z.int().min(0).max(0xffffffff);
const labels = z.string().regex(/^[0-9a-f]{32}$/, 'is not 128 bits in hexadecimal');

const tuple = z.strictObject({
  src: ip,
  dst: ip,
  proto: octet,
  ports: z.strictObject({ src: u16, dst: u16 }).optional(),
  icmp: z.strictObject({ type: octet, code: octet, id: u16 }).optional(),
  gre: z.strictObject({ srcKey: u16, dstKey: u16 }).optional(),
}) satisfies z.ZodType<CtTuple>;

/** Addresses of a filter need not be IPv4: then nothing is meant. */
const partial = z.strictObject({
  src: z.string().optional(),
  dst: z.string().optional(),
  ports: z.strictObject({ src: u16.optional(), dst: u16.optional() }).optional(),
  icmp: z.strictObject({ type: octet.optional(), code: octet.optional(), id: u16.optional() }).optional(),
}) satisfies z.ZodType<PartialTuple>;

const bits = z.strictObject({ value: u32, mask: u32 });
const net = z.strictObject({ address: z.string(), mask: z.string() });
const family = z.literal([4, 6]);
const natFilter = z.strictObject({ address: z.string().optional(), port: u16.optional() });

const entryFilter = z.strictObject({
  family: family.optional(),
  proto: octet.optional(),
  original: partial.optional(),
  reply: partial.optional(),
  sourceNet: net.optional(),
  destinationNet: net.optional(),
  status: bits.optional(),
  mark: bits.optional(),
  state: z.string().optional(),
  timeoutSeconds: u32.optional(),
  id: u32.optional(),
  zone: u16.optional(),
  originalZone: u16.optional(),
  replyZone: u16.optional(),
  labels: labels.optional(),
  sourceNat: natFilter.optional(),
  destinationNat: natFilter.optional(),
  eitherNat: z.boolean().optional(),
}) satisfies z.ZodType<EntryFilter>;

const nat = z.strictObject({ address: ip, port: u16 });
const entrySpec = z.strictObject({
  original: tuple,
  reply: tuple,
  timeoutSeconds: u32,
  status: u32.optional(),
  state: z.string().optional(),
  liberal: z.boolean().optional(),
  tags: z.strictObject({ original: u32, reply: u32 }).optional(),
  mark: u32.optional(),
  zones: z.strictObject({ original: u16, reply: u16 }).optional(),
  labels: labels.optional(),
  helper: z.string().optional(),
  sourceNat: nat.optional(),
  destinationNat: nat.optional(),
}) satisfies z.ZodType<EntrySpec>;

const entryChange = z.strictObject({
  timeoutSeconds: u32.optional(),
  status: u32.optional(),
  state: z.string().optional(),
  liberal: z.boolean().optional(),
  mark: bits.optional(),
  labels: z.strictObject({ value: labels, mask: labels }).optional(),
}) satisfies z.ZodType<EntryChange>;

const command = z.discriminatedUnion('op', [
  z.strictObject({ op: z.literal('create'), entry: entrySpec }),
  z.strictObject({ op: z.literal('get'), tuple, zone: u16.optional() }),
  z.strictObject({ op: z.literal('flush'), family: family.optional() }),
  z.strictObject({
    op: z.literal('create-expectation'),
    expectation: z.strictObject({ tuple, mask: tuple, master: tuple, timeoutSeconds: u32 }),
  }),
  z.strictObject({ op: z.enum(['get-expectation', 'delete-expectation']), tuple }),
  z.strictObject({ op: z.literal('flush-expectations') }),
]) satisfies z.ZodType<CtCommand>;

const requester = z.strictObject({ portId: u32, program: z.string().max(64) }) satisfies z.ZodType<CtRequester>;

export function readCtCommands(body: Record<string, unknown>): CtCommand[] {
  return check('commands', body.commands, z.array(command));
}

export function readRequester(body: Record<string, unknown>): CtRequester | undefined {
  return check('by', body.by, requester.optional());
}

export function readEntryFilter(body: Record<string, unknown>): EntryFilter {
  return check('filter', body.filter ?? {}, entryFilter);
}

export function readEntryChange(body: Record<string, unknown>): EntryChange {
  return check('change', body.change, entryChange);
}

/** The `filter` of a query: an EntryFilter as JSON. */
export function queryFilter(query: URLSearchParams): EntryFilter {
  const text = query.get('filter');
  if (text === null) return {};
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new ApiFailure('bad-request', 'filter: is not JSON');
  }
  return check('filter', value, entryFilter);
}

export function queryTable(query: URLSearchParams): EntryTable {
  return check('table', query.get('table') ?? 'conntrack', z.enum(['conntrack', 'dying', 'unconfirmed']));
}

/** The `kinds` of a query, parted by commas; all when there are none. */
export function queryKinds(query: URLSearchParams): ReadonlySet<CtEventKind> {
  const kinds = query.get('kinds')?.split(',') ?? ['new', 'update', 'destroy'];
  return new Set(check('kinds', kinds, z.array(z.enum(['new', 'update', 'destroy']))));
}
