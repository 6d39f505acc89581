/** `-o save` of conntrack: an entry as the arguments that make it again (ct_save_snprintf). */
import { Status } from '../../model/entry-status.ts';
import { PROTOCOLS } from './protocols.ts';
import type { ShownEntry } from './shown.ts';

/** Bits that have a word, the lowest first. */
const STATUS_NAMES = [
  [Status.Expected, 'EXPECTED'],
  [Status.SeenReply, 'SEEN_REPLY'],
  [Status.Assured, 'ASSURED'],
  [Status.FixedTimeout, 'FIXED_TIMEOUT'],
] as const;

const COMMAND = { new: '-A', update: '-U', destroy: '-D' } as const;

export function saveEntry(row: ShownEntry): string {
  const { original, reply, status, zones } = row;
  const isOneZone = zones.original === zones.reply;
  const names = STATUS_NAMES.filter(([bit]) => status & bit).map(([, name]) => name);
  let text = `${COMMAND[row.kind ?? 'new']} `;
  if (row.timeoutSeconds !== undefined) text += `-t ${row.timeoutSeconds} `;
  text += `-u ${names.length === 0 ? 'UNSET' : names.join(',')} `;
  if (isOneZone && zones.original !== 0) text += `-w ${zones.original} `;
  if (!isOneZone && zones.original !== 0) text += `--orig-zone ${zones.original} `;
  if (!isOneZone && zones.reply !== 0) text += `--reply-zone ${zones.reply} `;
  text += `-s ${original.src} -d ${original.dst} `;
  text += `${isTranslated(row, Status.DstNatDone, original.dst, reply.src) ? '-g' : '-r'} ${reply.src} `;
  text += `${isTranslated(row, Status.SrcNatDone, original.src, reply.dst) ? '-n' : '-q'} ${reply.dst} `;
  const protocol = PROTOCOLS.find(({ number }) => number === original.proto);
  text += protocol === undefined ? `-p ${original.proto}` : `-p ${protocol.name} ${protocol.save(row)}`;
  return text.trimEnd();
}

/** nfct_getobjopt(NFCT_GOPT_IS_SNAT): by the status, and by the addresses. */
function isTranslated({ status }: ShownEntry, bit: number, was: string, is: string): boolean {
  return (status & bit) !== 0 && was !== is;
}
