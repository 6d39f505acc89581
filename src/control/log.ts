/** The daemon's log: pino, one JSON object a line on stdout, or lines for people on a terminal. Never used per packet. */
import { createRequire } from 'node:module';
import { type DestinationStream, pino } from 'pino';
import type { LogLevel } from './config.ts';

type Line = (fields: Readonly<Record<string, unknown>>, message: string) => void;

export interface Log {
  readonly debug: Line;
  readonly info: Line;
  readonly warn: Line;
  readonly error: Line;
  level: string;
}

export type LogFormat = 'json' | 'pretty';

/** Writes synchronously: few lines, and the last ones before an end must not be lost. */
export function openLog(level: LogLevel, format: LogFormat): Log {
  const options = { level, base: { pid: process.pid }, timestamp: pino.stdTimeFunctions.isoTime };
  if (format === 'pretty') {
    const stream = prettyStream();
    if (stream !== null) return pino(options, stream);
  }
  const stdout = pino.destination({ dest: 1, sync: true });
  stdout.on('error', () => {}); // a reader of the log that went away (EPIPE) is no reason to stop serving
  return pino(options, stdout);
}

/** Null where pino-pretty is not installed: JSON will do. Loaded only when wanted. */
function prettyStream(): DestinationStream | null {
  try {
    const pretty = createRequire(import.meta.url)('pino-pretty') as (options: object) => DestinationStream;
    return pretty({ sync: true, ignore: 'pid,hostname', translateTime: 'SYS:HH:MM:ss.l', singleLine: true });
  } catch {
    return null;
  }
}
