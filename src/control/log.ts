/** The daemon's log: pino, one JSON object a line on stdout, or lines for people on a terminal. Never used per packet. */
import { type DestinationStream, type Logger, pino } from 'pino';
import type { LogLevel } from './config.ts';

export type Log = Pick<Logger, 'debug' | 'info' | 'warn' | 'error' | 'level' | 'flush'>;

export type LogFormat = 'json' | 'pretty';

/** Writes synchronously: few lines, and the last ones before an end must not be lost. */
export async function openLog(level: LogLevel, format: LogFormat): Promise<Log> {
  const options = { level, base: { pid: process.pid }, timestamp: pino.stdTimeFunctions.isoTime };
  if (format === 'pretty') {
    const stream = await prettyStream();
    if (stream !== null) return pino(options, stream);
  }
  return pino(options, pino.destination({ dest: 1, sync: true }));
}

/** Null where pino-pretty is not installed: JSON will do. */
async function prettyStream(): Promise<DestinationStream | null> {
  try {
    const { default: pretty } = await import('pino-pretty');
    return pretty({ sync: true, ignore: 'pid,hostname', translateTime: 'SYS:HH:MM:ss.l', singleLine: true });
  } catch {
    return null;
  }
}
