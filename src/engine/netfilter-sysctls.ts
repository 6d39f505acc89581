/**
 * net.netfilter.*: connection tracking's keys, the old name of one of them, and those of things that are not here, which hold their default and no other value.
 * Beside them the parameters of the kernel's modules (/sys/module/MODULE/parameters/NAME) as MODULE.NAME, the way a kernel's command line writes them.
 */
import { CONNTRACK_PREFIX, type ConntrackSysctls } from '../conntrack/sysctl.ts';

export const NETFILTER_PREFIX = 'net.netfilter.';
const OLD_MAX = 'net.nf_conntrack_max';
const MAX = `${CONNTRACK_PREFIX}max`;

/** IPv6, lightweight tunnels, and who logs for which protocol family. */
const FIXED: ReadonlyMap<string, string> = new Map([
  ['nf_conntrack_frag6_high_thresh', '4194304'],
  ['nf_conntrack_frag6_low_thresh', '3145728'],
  ['nf_conntrack_frag6_timeout', '60'],
  ['nf_conntrack_icmpv6_timeout', '30'],
  ['nf_hooks_lwtunnel', '0'],
  ['nf_log.0', 'NONE'],
  ['nf_log.1', 'NONE'],
  ['nf_log.3', 'NONE'],
  ['nf_log.4', 'NONE'],
  ['nf_log.5', 'NONE'],
  ['nf_log.6', 'NONE'],
  ['nf_log.7', 'NONE'],
  ['nf_log.8', 'NONE'],
  ['nf_log.9', 'NONE'],
  ['nf_log.10', 'NONE'],
  ['nf_log_all_netns', '0'],
]);

/** Who writes what nobody's rule asked for about IPv4 packets. */
const LOGGER = `${NETFILTER_PREFIX}nf_log.2`;
const SYSLOG = 'nf_log_ipv4';
const NOBODY = 'NONE';

/** A parameter stands for a sysctl or for a field; one that stands for none can only be read. */
interface Parameter {
  readonly get: (sysctls: ConntrackSysctls) => string;
  readonly set?: (sysctls: ConntrackSysctls, isOn: boolean) => void;
}

/** In the kernel acct and tstamp are what a new namespace begins with; there is one here, and it is what these sysctls say. */
const PARAMETERS: ReadonlyMap<string, Parameter> = new Map([
  ['nf_conntrack.acct', sysctlParameter('acct')],
  ['nf_conntrack.tstamp', sysctlParameter('timestamp')],
  ['nf_conntrack.hashsize', { get: (sysctls) => sysctls.get(`${CONNTRACK_PREFIX}buckets`)! }],
  ['nf_conntrack.expect_hashsize', { get: (sysctls) => String(Math.max(1, Math.floor(sysctls.expectMax / 4))) }],
  [
    'nf_conntrack_ftp.loose',
    {
      get: (sysctls) => yesOrNo(sysctls.isFtpLoose),
      set: (sysctls, isOn) =>
        sysctls.change(() => {
          sysctls.isFtpLoose = isOn;
        }),
    },
  ],
  ['nf_conntrack_ftp.ports', { get: () => '21' }],
  ['nf_conntrack_tftp.ports', { get: () => '69' }],
]);

function sysctlParameter(name: string): Parameter {
  const key = CONNTRACK_PREFIX + name;
  return {
    get: (sysctls) => yesOrNo(sysctls.get(key) === '1'),
    set: (sysctls, isOn) => sysctls.set(key, isOn ? '1' : '0'),
  };
}

function yesOrNo(isOn: boolean): string {
  return isOn ? 'Y' : 'N';
}

/** kstrtobool: the first letter counts, the second one of `on` and `off`. */
function readBoolean(text: string): boolean | undefined {
  if (/^([yt1]|on)/i.test(text)) return true;
  return /^([nf0]|of)/i.test(text) ? false : undefined;
}

function setParameter(sysctls: ConntrackSysctls, { get, set }: Parameter, text: string): 'EINVAL' | null {
  if (set === undefined) return text.trim() === get(sysctls) ? null : 'EINVAL';
  const isOn = readBoolean(text.trim());
  if (isOn === undefined) return 'EINVAL';
  set(sysctls, isOn);
  return null;
}

export function isNetfilterKey(key: string): boolean {
  return key.startsWith(NETFILTER_PREFIX) || key === OLD_MAX || PARAMETERS.has(key);
}

export function getNetfilter(sysctls: ConntrackSysctls, key: string): string | undefined {
  if (key === LOGGER) return sysctls.hasLogger ? SYSLOG : NOBODY;
  const parameter = PARAMETERS.get(key);
  if (parameter !== undefined) return parameter.get(sysctls);
  const name = key === OLD_MAX ? MAX : key;
  return FIXED.get(name.slice(NETFILTER_PREFIX.length)) ?? sysctls.get(name);
}

export function setNetfilter(sysctls: ConntrackSysctls, key: string, value: string): 'EINVAL' | 'ENOENT' | null {
  if (key === LOGGER) {
    if (value.trim() !== SYSLOG && value.trim() !== NOBODY) return 'ENOENT';
    sysctls.hasLogger = value.trim() === SYSLOG;
    return null;
  }
  const parameter = PARAMETERS.get(key);
  if (parameter !== undefined) return setParameter(sysctls, parameter, value);
  const name = key === OLD_MAX ? MAX : key;
  const fixed = FIXED.get(name.slice(NETFILTER_PREFIX.length));
  if (fixed !== undefined) return value.trim() === fixed ? null : 'EINVAL';
  const errno = sysctls.set(name, value);
  return errno === 'EPERM' ? 'EINVAL' : errno;
}

/** Sorted by key. */
export function listNetfilter(sysctls: ConntrackSysctls): (readonly [string, string])[] {
  const fixed = [...FIXED].map(([name, value]) => [NETFILTER_PREFIX + name, value] as const);
  const parameters = [...PARAMETERS].map(([name, { get }]) => [name, get(sysctls)] as const);
  const logger = [[LOGGER, getNetfilter(sysctls, LOGGER) ?? '']] as const;
  const old = [[OLD_MAX, sysctls.get(MAX) ?? '']] as const;
  return [...sysctls.list(), ...fixed, ...logger, ...old, ...parameters].sort((a, b) => (a[0] < b[0] ? -1 : 1));
}
