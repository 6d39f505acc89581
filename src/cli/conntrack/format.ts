/** Lines of conntrack, byte for byte: snprintf_default.c of libnetfilter_conntrack, for entries and for expectations. */
import type { CtEventKind, CtTuple, ExpectationRow } from '../../model/conntrack.ts';
import { Status } from '../../model/entry-status.ts';
import type { LabelNames } from '../../model/label-names.ts';
import { labelNames } from './labels.ts';
import { hasPorts, protocolName } from './protocols.ts';
import type { ShownEntry } from './shown.ts';
import { Output } from './values.ts';

const KIND = { new: '    [NEW] ', update: ' [UPDATE] ', destroy: '[DESTROY] ' } as const satisfies Record<
  CtEventKind,
  string
>;
const AF_INET = 2;

/** @param forms bits of Output @param nowMs for the age of an entry that lives */
export function formatEntry(row: ShownEntry, forms: number, labels: LabelNames | undefined, nowMs: number): string {
  const { original, reply, status, zones } = row;
  const isOneZone = zones.original === zones.reply;
  let text = row.kind === undefined ? '' : KIND[row.kind];
  if (forms & Output.Extended) text += `${'ipv4'.padEnd(8)} ${AF_INET} `;
  text += `${protocolName(original.proto).padEnd(8)} ${original.proto} `;
  if (row.timeoutSeconds !== undefined) text += `${row.timeoutSeconds} `;
  if (row.state !== undefined) text += `${row.state} `;
  text += tuple(original);
  if (!isOneZone && zones.original !== 0) text += `zone-orig=${zones.original} `;
  if (row.counters !== undefined)
    text += `packets=${row.counters.original.packets} bytes=${row.counters.original.bytes} `;
  if (!(status & Status.SeenReply)) text += '[UNREPLIED] ';
  text += tuple(reply);
  if (!isOneZone && zones.reply !== 0) text += `zone-reply=${zones.reply} `;
  if (row.counters !== undefined) text += `packets=${row.counters.reply.packets} bytes=${row.counters.reply.bytes} `;
  if (status & Status.HwOffload) text += '[HW_OFFLOAD] ';
  else if (status & Status.Offload) text += '[OFFLOAD] ';
  else if (status & Status.Assured) text += '[ASSURED] ';
  if (row.mark !== undefined) text += `mark=${row.mark} `;
  if (isOneZone && zones.original !== 0) text += `zone=${zones.original} `;
  text += times(row, forms, nowMs);
  if (row.helper !== undefined) text += `helper=${row.helper} `;
  if (row.use !== undefined) text += `use=${row.use} `;
  if (forms & Output.Id) text += `id=${row.id} `;
  if (labels !== undefined && row.labels !== undefined) text += labelsText(labelNames(labels, row.labels));
  return text.trimEnd();
}

/** The tool writes a blank over the last character: without names over the equals sign. */
function labelsText(names: readonly string[]): string {
  return names.length === 0 ? 'labels ' : `labels=${names.join(',')} `;
}

function tuple({ src, dst, proto, ports, icmp, gre }: CtTuple): string {
  let text = `src=${src} dst=${dst} `;
  if (hasPorts(proto)) text += `sport=${ports?.src ?? 0} dport=${ports?.dst ?? 0} `;
  else if (icmp !== undefined) text += `type=${icmp.type} code=${icmp.code} id=${icmp.id} `;
  else if (gre !== undefined) text += `srckey=0x${gre.srcKey.toString(16)} dstkey=0x${gre.dstKey.toString(16)} `;
  return text;
}

function times(row: ShownEntry, forms: number, nowMs: number): string {
  if (row.started === undefined) return '';
  let text = `delta-time=${deltaSeconds(row, nowMs)} `;
  if (!(forms & Output.KernelTime)) return text;
  text += `[start=${ctime(row.started)}] `;
  return row.stopped === undefined ? text : `${text}[stop=${ctime(row.stopped)}] `;
}

/** Whole seconds that an entry lived, or lives. */
export function deltaSeconds({ started, stopped }: ShownEntry, nowMs: number): number {
  const end = stopped === undefined ? Math.floor(nowMs / 1000) : secondsOf(stopped);
  return Math.max(0, end - secondsOf(started ?? '0'));
}

function secondsOf(nanoseconds: string): number {
  return Number(BigInt(nanoseconds) / 1_000_000_000n);
}

const DAYS = ['Sun', 'Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat'];
const MONTHS = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];

/** ctime(3), in local time. */
function ctime(nanoseconds: string): string {
  const d = new Date(secondsOf(nanoseconds) * 1000);
  const two = (n: number) => String(n).padStart(2, '0');
  const clock = `${two(d.getHours())}:${two(d.getMinutes())}:${two(d.getSeconds())}`;
  return `${DAYS[d.getDay()]} ${MONTHS[d.getMonth()]} ${String(d.getDate()).padStart(2)} ${clock} ${d.getFullYear()}`;
}

/** What `-o timestamp` puts before an event. */
export function timestamp(nowMs: number): string {
  const seconds = Math.floor(nowMs / 1000);
  const micros = Math.floor((nowMs - seconds * 1000) * 1000);
  return `[${String(seconds).padStart(8, '0')}.${String(micros).padStart(6, '0')}]\t`;
}

/** Flags of an expectation, include/uapi/linux/netfilter/nf_conntrack_common.h. */
const Flag = { Permanent: 1, Inactive: 2, Userspace: 4 } as const;

/** The kernel does not tell whose zone it is of. */
export function formatExpectation(row: ExpectationRow, kind?: CtEventKind): string {
  const names = [
    row.flags & Flag.Permanent ? 'PERMANENT' : '',
    row.flags & Flag.Inactive ? 'INACTIVE' : '',
    row.flags & Flag.Userspace ? 'USERSPACE' : '',
  ].filter((name) => name !== '');
  return (
    `${kind === undefined ? '' : KIND[kind]}${row.timeoutSeconds} proto=${row.tuple.proto} ${tuple(row.tuple)}` +
    `mask-${tuple(row.mask).replace(' dst=', ' mask-dst=')}master-${tuple(row.master).replace(' dst=', ' master-dst=')}` +
    `${names.length === 0 ? '' : `${names.join(',')} `}` +
    `class=${row.class} helper=${row.helper}`
  );
}

export function expectationFlags(flags: number): readonly string[] {
  return [
    ...(flags & Flag.Permanent ? ['permanent'] : []),
    ...(flags & Flag.Inactive ? ['inactive'] : []),
    ...(flags & Flag.Userspace ? ['userspace'] : []),
  ];
}
