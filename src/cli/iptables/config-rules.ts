/** Rules in the daemon's configuration: the text of iptables-restore. All faults of it are told, not only the first. */
import type { ReadRules } from '../../control/config.ts';
import type { TableOutcome } from '../../model/iptables.ts';
import { CliError } from '../command.ts';
import { Names } from '../ipvsadm/names.ts';
import { readLabelNames } from '../label-file.ts';
import { faultMessage, parserMessage } from './failure.ts';
import { PROGRAM, RestoreReader } from './restore-reader.ts';

const known = new Names();
/** Host names are no part of a configuration: a director must start when DNS is down. */
const names = {
  hostAddress: () => undefined,
  servicePort: (service: string, protocol: string) => known.servicePort(service, protocol),
  labelBit: (name: string) => readLabelNames()?.bit(name),
};

export const readRules: ReadRules = (lines, firstLine) => {
  const tables: ReturnType<ReadRules>['tables'][number][] = [];
  const errors: { line: number; message: string }[] = [];
  const reader = new RestoreReader({ given: new Map(), names, out: () => {}, warn: () => {} });
  const trying = (run: () => void): void => {
    try {
      run();
    } catch (error) {
      if (!(error instanceof CliError)) throw error;
      errors.push({ line: firstLine + Math.min(reader.line, lines.length) - 1, message: plain(error.message) });
    }
  };
  for (const line of lines) {
    reader.line++;
    trying(() => {
      const step = reader.take(line.trim());
      if (step?.do !== 'commit') return;
      const { table, commands, lines: places } = step.draft;
      if (tables.some((one) => one.table === table)) throw new CliError(`the table '${table}' is here twice`, 1);
      tables.push({ table, commands, lines: places.map((place) => firstLine + place - 1) });
    });
  }
  trying(() => reader.end());
  return { tables, errors };
};

/** What the tables say to rules that are well-formed. */
export function rulesFault({ fault, what = '' }: NonNullable<TableOutcome>, op: string): string {
  return (parserMessage(fault, what) ?? faultMessage(fault, op)).split('\n')[0]!.replace(/ Run `dmesg.*/, '');
}

/** Without the program's name, and where help is to be had. */
function plain(message: string): string {
  const text = message.split('\n')[0]!.replace(new RegExp(`^(${PROGRAM}( v[0-9.]+ \\(legacy\\))?: )+`), '');
  return text
    .replace(/^line \d+ failed$/, "belongs to no table: '*TABLE' begins one, 'COMMIT' ends it")
    .replace(/ at line \d+$/, '');
}
