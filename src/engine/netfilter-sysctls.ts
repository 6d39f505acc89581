/** net.netfilter.*: connection tracking's keys, the old name of one of them, and those of things that are not here, which hold their default and no other value. */
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
  ['nf_log.2', 'nf_log_ipv4'],
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

export function isNetfilterKey(key: string): boolean {
  return key.startsWith(NETFILTER_PREFIX) || key === OLD_MAX;
}

export function getNetfilter(sysctls: ConntrackSysctls, key: string): string | undefined {
  const name = key === OLD_MAX ? MAX : key;
  return FIXED.get(name.slice(NETFILTER_PREFIX.length)) ?? sysctls.get(name);
}

export function setNetfilter(sysctls: ConntrackSysctls, key: string, value: string): 'EINVAL' | 'ENOENT' | null {
  const name = key === OLD_MAX ? MAX : key;
  const fixed = FIXED.get(name.slice(NETFILTER_PREFIX.length));
  if (fixed !== undefined) return value.trim() === fixed ? null : 'EINVAL';
  const errno = sysctls.set(name, value);
  return errno === 'EPERM' ? 'EINVAL' : errno;
}

/** Sorted by key. */
export function listNetfilter(sysctls: ConntrackSysctls): (readonly [string, string])[] {
  const fixed = [...FIXED].map(([name, value]) => [NETFILTER_PREFIX + name, value] as const);
  const old = [[OLD_MAX, sysctls.get(MAX) ?? '']] as const;
  return [...sysctls.list(), ...fixed, ...old].sort((a, b) => (a[0] < b[0] ? -1 : 1));
}
