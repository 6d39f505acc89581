/**
 * A connection as a record of a synchronisation message, and the bits of both sides' flags.   @hot
 *
 * What depends on the server (its firewall mark) is asked of the server's service; persistence engines and sequence deltas have their places in
 * SyncRecord, and are filled in where the director keeps them.
 */
import { TICKS_PER_SECOND } from '../../base/clock.ts';
import { SyncFlag, type SyncRecord } from '../../wire/ipvs-sync.ts';
import { CONN_SHIFT, Conn, ConnFlag, Method } from '../connection.ts';
import type { Director } from '../director.ts';

const { Cip, Vip, Rip, Ports, Meta, Flags, Timeout, Dest } = Conn;
const { MethodMask: METHOD_MASK, Inactive: INACTIVE, NoOutput: NO_OUTPUT, Template: TEMPLATE } = ConnFlag;
const { Assured: ASSURED, Synced: SYNCED, OnePacket: ONE_PACKET, HasPe: HAS_PE } = ConnFlag;
const { NoCport: NO_CPORT, App: APP } = ConnFlag;
const { Masq: MASQ, FullNat: FULL_NAT } = Method;
const PER_SECOND = TICKS_PER_SECOND;

/** States of a template (IP_VS_CTPL_S_*). */
export const TemplateState = { None: 0, Assured: 1 } as const;

/**
 * A connection by full NAT lives at an address of ours, where no other director could go on with it: nobody is told of it. Templates say which server a client
 * has: they are told, as of NAT, for other directors have no word for full NAT.
 */
export function isOnlyHere(flags: number): boolean {
  return (flags & (METHOD_MASK | TEMPLATE)) === FULL_NAT;
}

/** Is it a method that others have? */
export function isSharedMethod(flags: number): boolean {
  return (flags & METHOD_MASK) < FULL_NAT;
}

/** ConnFlag → SyncFlag. A template that does not translate has no answers to wait for, either. */
export function toSyncFlags(flags: number): number {
  const its = flags & METHOD_MASK;
  const method = its === FULL_NAT ? MASQ : its;
  return (
    method |
    ((flags & INACTIVE) !== 0 ? SyncFlag.Inactive : 0) |
    ((flags & NO_OUTPUT) !== 0 || ((flags & TEMPLATE) !== 0 && method !== MASQ) ? SyncFlag.NoOutput : 0) |
    ((flags & TEMPLATE) !== 0 ? SyncFlag.Template : 0) |
    ((flags & ONE_PACKET) !== 0 ? SyncFlag.OnePacket : 0) |
    ((flags & NO_CPORT) !== 0 ? SyncFlag.NoCport : 0) |
    ((flags & SYNCED) !== 0 ? SyncFlag.Synced : 0)
  );
}

/** What a backup takes over of a record's flags (IP_VS_CONN_F_BACKUP_MASK). */
export function fromSyncFlags(flags: number): number {
  return (
    (flags & METHOD_MASK) |
    ((flags & SyncFlag.Inactive) !== 0 ? INACTIVE : 0) |
    ((flags & SyncFlag.NoOutput) !== 0 ? NO_OUTPUT : 0) |
    ((flags & SyncFlag.Template) !== 0 ? TEMPLATE : 0) |
    ((flags & SyncFlag.NoCport) !== 0 ? NO_CPORT : 0) |
    SYNCED
  );
}

/** Firewall mark of the service that a connection belongs to, 0 without one. */
export function markOf(director: Director, conn: number): number {
  const dest = director.conns.rows[(conn << CONN_SHIFT) + Dest]!;
  if (dest === director.dests.unbound) return director.conns.marks.get(conn) ?? 0;
  const service = director.dests.service[dest]!;
  return director.services.protocol[service] === 0 ? director.services.vip[service]! : 0;
}

/** Fill `record` with a connection. */
export function toRecord(director: Director, conn: number, record: SyncRecord): void {
  const rows = director.conns.rows;
  const at = conn << CONN_SHIFT;
  const meta = rows[at + Meta]!;
  const flags = rows[at + Flags]!;
  record.protocol = (meta >> 8) & 0xff;
  record.flags = toSyncFlags(flags);
  if ((flags & TEMPLATE) === 0) record.state = meta & 0xff;
  else record.state = (flags & ASSURED) !== 0 ? TemplateState.Assured : TemplateState.None;
  record.cport = rows[at + Ports]! >>> 16;
  record.vport = rows[at + Ports]! & 0xffff;
  record.dport = meta >>> 16;
  record.cip = rows[at + Cip]!;
  record.vip = rows[at + Vip]!;
  record.rip = rows[at + Rip]!;
  record.fwmark = markOf(director, conn);
  record.timeout = Math.trunc(rows[at + Timeout]! / PER_SECOND);
  record.lifeLeft = -1;
  record.hasSequences = 0;
  record.peDataLength = 0;
  record.peNameLength = 0;
  if ((flags & HAS_PE) !== 0) fillEngine(director, conn, record);
  if ((flags & APP) !== 0) fillSequences(director, conn, record);
}

/** Of answers that FTP's helper has made longer or shorter. */
function fillSequences(director: Director, conn: number, record: SyncRecord): void {
  const shift = director.ftp.shiftOf(conn);
  if (shift === undefined || (shift.before === 0 && shift.after === 0)) return;
  record.flags |= SyncFlag.OutSeq;
  record.hasSequences = 1;
  record.sequences.fill(0, 0, 3);
  record.sequences[3] = shift.correction;
  record.sequences[4] = shift.after;
  record.sequences[5] = shift.before;
}

/** What a persistence engine knows of a template. */
function fillEngine(director: Director, conn: number, record: SyncRecord): void {
  const its = director.engines.of(conn);
  if (its === undefined) return;
  record.peDataLength = copy(its.data, record.peData);
  record.peNameLength = copy(its.engine.name, record.peName);
}

/** A character a byte. */
function copy(text: string, to: Uint8Array): number {
  const length = Math.min(text.length, to.length);
  for (let i = 0; i < length; i++) to[i] = text.charCodeAt(i);
  return length;
}
