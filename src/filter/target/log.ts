/** `-j LOG`: a line about the packet in the daemon's log (net/netfilter/xt_LOG.c, net/netfilter/nf_log_syslog.c). */
import { BadRule, CONTINUE, defineTarget } from '../extension.ts';
import { parseNumber } from '../values.ts';
import { LogFlag, logLine } from './log-line.ts';

interface LogOptions {
  level: number;
  prefix: string;
  flags: number;
}

const LEVELS = ['emerg', 'alert', 'crit', 'err', 'warn', 'notice', 'info', 'debug'];
/** What the tool understands; it prints other names. */
const LEVEL_NAMES: ReadonlyMap<string, number> = new Map([
  ['alert', 1],
  ['crit', 2],
  ['debug', 7],
  ['emerg', 0],
  ['error', 3],
  ['info', 6],
  ['notice', 5],
  ['panic', 0],
  ['warning', 4],
]);
const DEFAULT_LEVEL = 4;
const LONGEST_PREFIX = 29;
const FLAGS: readonly (readonly [string, number])[] = [
  ['tcp-sequence', LogFlag.TcpSequence],
  ['tcp-options', LogFlag.TcpOptions],
  ['ip-options', LogFlag.IpOptions],
  ['uid', LogFlag.Uid],
  ['macdecode', LogFlag.MacDecode],
];

export const log = defineTarget<LogOptions>({
  name: 'LOG',
  man: `LOG target options:
 --log-level level		Level of logging (numeric or see syslog.conf)
 --log-prefix prefix		Prefix log messages with this prefix.
 --log-tcp-sequence		Log TCP sequence numbers.
 --log-tcp-options		Log TCP options.
 --log-ip-options		Log IP options.
 --log-uid			Log UID owning the local socket.
 --log-macdecode		Decode MAC addresses and protocol.
`,
  init: () => ({ level: DEFAULT_LEVEL, prefix: '', flags: 0 }),
  options: [
    {
      name: 'log-level',
      read: (o, text) => {
        const level = parseNumber(text, 7) ?? LEVEL_NAMES.get(text);
        if (level === undefined) throw new BadRule(`log level "${text}" unknown\n`);
        o.level = level;
      },
    },
    {
      name: 'log-prefix',
      isText: true,
      read: (o, text) => {
        if (text === '') throw new BadRule('Argument must have a minimum length of 1 characters\n');
        if (text.includes('\n')) throw new BadRule('Newlines not allowed in --log-prefix');
        o.prefix = text.slice(0, LONGEST_PREFIX);
      },
    },
    ...FLAGS.map(([name, bit]) => ({
      name: `log-${name}`,
      value: 'none' as const,
      read: (o: LogOptions): void => {
        o.flags |= bit;
      },
    })),
  ],
  save: ({ level, prefix, flags }) => [
    ...(prefix === '' ? [] : ['--log-prefix', prefix]),
    ...(level === DEFAULT_LEVEL ? [] : ['--log-level', String(level)]),
    ...FLAGS.flatMap(([name, bit]) => ((flags & bit) === 0 ? [] : [`--log-${name}`])),
  ],
  list: ({ level, prefix, flags }, { isNumeric }) => {
    const words = isNumeric ? [`LOG flags ${flags} level ${level}`] : [`LOG level ${LEVELS[level]}`];
    if (!isNumeric) words.push(...FLAGS.flatMap(([name, bit]) => ((flags & bit) === 0 ? [] : [name])));
    if (prefix !== '') words.push(`prefix "${prefix}"`);
    return words.join(' ');
  },
  compile: ({ level, prefix, flags }) => {
    return (p, t) => {
      t.conditions.log(level, logLine(p, t, prefix, flags));
      return CONTINUE;
    };
  },
});
