/** `-L --drain` and `--drain --wait`: how far servers are drained. */
import { setTimeout as delay } from 'node:timers/promises';
import type { DrainRow } from '../../model/ipvs.ts';
import type { CliContext } from '../command.ts';
import { formatTable } from '../table.ts';
import { hostPort, type Naming } from './format.ts';
import type { DrainCommand } from './parse.ts';

const ASK_EVERY_MS = 250;

const HEADER = ['Prot', 'Service', 'Server', 'State', 'Elapsed', 'Left', 'ActiveConn', 'InActConn', 'PersistConn'];
const OUTCOMES = ['Idled', 'Reset', 'Unanswered', 'Removed'];

export function formatDrains(rows: readonly DrainRow[], naming: Naming): string {
  if (rows.length === 0) return '';
  const lines = rows.map((row) => {
    const { service } = row;
    const protocol = service.kind === 'fwmark' ? '' : service.protocol;
    return [
      service.kind === 'fwmark' ? 'FWM' : service.protocol.toUpperCase(),
      service.kind === 'fwmark' ? String(service.fwmark) : hostPort(service, protocol, naming),
      hostPort(row.server, protocol, naming),
      row.state,
      row.elapsedSeconds,
      row.leftSeconds ?? '-',
      row.activeConns,
      row.inactiveConns,
      row.persistentConns,
      row.idled,
      row.reset,
      row.unanswered,
      row.removed,
    ];
  });
  return formatTable([[...HEADER, ...OUTCOMES], ...lines]);
}

/** Returns when no connection is left: 0, or 1 when the drain was given up meanwhile. */
export async function waitForDrain({ client, out, err }: CliContext, command: DrainCommand): Promise<number> {
  for (;;) {
    const rows = await client.get<DrainRow[]>('/v1/ipvs/drains');
    const row = rows.find((one) => isSame(one, command));
    if (row === undefined) {
      err('The drain was ended by somebody else\n');
      return 1;
    }
    if (row.state === 'done') {
      const { elapsedSeconds, idled, reset, unanswered, removed } = row;
      out(
        `drained after ${elapsedSeconds} s: ${idled} idled, ${reset} reset, ${unanswered} unanswered, ${removed} removed\n`,
      );
      return 0;
    }
    await delay(ASK_EVERY_MS);
  }
}

function isSame(row: DrainRow, { service, server }: DrainCommand): boolean {
  const [a, b] = [row.service, service];
  const isSameService =
    a.kind === 'fwmark'
      ? b.kind === 'fwmark' && a.fwmark === b.fwmark && a.family === b.family
      : b.kind === 'address' && a.protocol === b.protocol && a.address === b.address && a.port === b.port;
  return isSameService && row.server.address === server.address && row.server.port === server.port;
}
