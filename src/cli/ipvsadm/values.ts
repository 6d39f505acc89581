/** Values of ipvsadm's options that are more than a number or an address; each refused in the classic words. */
import { SchedulerFlag } from '../../model/ipvs.ts';
import { parseIp4, parseNumber } from './address.ts';
import { Refused } from './refused.ts';

/** 31 days. */
const MAX_TIMEOUT = 86_400 * 31;

export function refuse(message: string): never {
  throw new Refused(message);
}

export function checkRole(name: 'start-daemon' | 'stop-daemon', role: string): 'master' | 'backup' {
  if (role === 'master' || role === 'backup') return role;
  throw new Refused(
    name === 'start-daemon' ? 'illegal start-daemon parameter specified' : 'illegal start_daemon specified',
  );
}

export function parseTimeout(text: string, min: number): number {
  return parseNumber(text, min, MAX_TIMEOUT) ?? refuse(`invalid timeout value \`${text}' specified`);
}

/** atoi(3) of a prefix length. */
export function prefixLength(text: string): string {
  const length = Number.parseInt(text, 10);
  return length >= 1 && length <= 128 ? String(length) : refuse('illegal ipv6 netmask specified');
}

export function checkGroup(text: string): void {
  const isIp6 = text.includes(':');
  const isMulticast = isIp6 ? /^ff[0-9a-f]{2}:[0-9a-f:.]*$/i.test(text) : isDottedMulticast(text);
  if (!isMulticast) throw new Refused(`invalid IPv${isIp6 ? 6 : 4} mcast-group \`${text}'`);
}

function isDottedMulticast(text: string): boolean {
  const first = Number(text.split('.')[0]);
  return parseIp4(text) === text && first >= 224 && first <= 239;
}

const FLAGS: Readonly<Record<string, { readonly bit: number; readonly scheduler?: string }>> = {
  'flag-1': { bit: SchedulerFlag.Flag1 },
  'flag-2': { bit: SchedulerFlag.Flag2 },
  'flag-3': { bit: SchedulerFlag.Flag3 },
  'sh-fallback': { bit: SchedulerFlag.Flag1, scheduler: 'sh' },
  'sh-port': { bit: SchedulerFlag.Flag2, scheduler: 'sh' },
  'mh-fallback': { bit: SchedulerFlag.Flag1, scheduler: 'mh' },
  'mh-port': { bit: SchedulerFlag.Flag2, scheduler: 'mh' },
};

export function parseFlags(text: string, scheduler: string): number {
  let bits = 0;
  for (const name of text.split(',')) {
    if (name === '') continue;
    const flag = Object.hasOwn(FLAGS, name) ? FLAGS[name] : undefined;
    if (flag === undefined) throw new Refused(`invalid scheduler flag \`${name}'`);
    if (flag.scheduler !== undefined && flag.scheduler !== scheduler) {
      throw new Refused(`incompatible scheduler flag \`${name}'`);
    }
    bits |= flag.bit;
  }
  return bits;
}
