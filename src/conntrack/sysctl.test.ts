/** net.netfilter.nf_conntrack_*: names and defaults as a namespace of Linux 6.18 has them, and what can be written. */
import { expect, it } from 'vitest';
import { ConntrackSysctls } from './sysctl.ts';

const DEFAULTS = `
acct 0, buckets 1000, checksum 1, count 7, events 2, expect_max 4096, generic_timeout 600, gre_timeout 30, gre_timeout_stream 180, icmp_timeout 30,
log_invalid 0, max 1000, sctp_timeout_closed 10, sctp_timeout_cookie_echoed 3, sctp_timeout_cookie_wait 3, sctp_timeout_established 210,
sctp_timeout_heartbeat_sent 30, sctp_timeout_shutdown_ack_sent 3, sctp_timeout_shutdown_recd 3, sctp_timeout_shutdown_sent 3, tcp_be_liberal 0,
tcp_ignore_invalid_rst 0, tcp_loose 1, tcp_max_retrans 3, tcp_timeout_close 10, tcp_timeout_close_wait 60, tcp_timeout_established 432000,
tcp_timeout_fin_wait 120, tcp_timeout_last_ack 30, tcp_timeout_max_retrans 300, tcp_timeout_syn_recv 60, tcp_timeout_syn_sent 120,
tcp_timeout_time_wait 120, tcp_timeout_unacknowledged 300, timestamp 0, udp_timeout 30, udp_timeout_stream 120`;
const PREFIX = 'net.netfilter.nf_conntrack_';

it('has the names and defaults of the kernel', () => {
  const expected = DEFAULTS.trim().split(/,\s+/);
  const listed = new ConntrackSysctls(() => 7, 1000).list();
  expect(listed.map(([name, value]) => `${name.slice(PREFIX.length)} ${value}`)).toEqual(expected);
});

it.each([
  ['acct', '1', null, '1'],
  ['acct', '2', 'EINVAL', '0'],
  ['events', '3', 'EINVAL', '2'],
  ['expect_max', '0', 'EINVAL', '4096'],
  ['expect_max', '5', null, '5'],
  ['tcp_max_retrans', '256', 'EINVAL', '3'],
  ['tcp_timeout_syn_sent', '7', null, '7'],
  ['udp_timeout', '0', null, '0'],
  ['udp_timeout', '8589935', 'EINVAL', '30'],
  ['max', '10', null, '10'],
  ['max', '1001', 'EINVAL', '1000'],
  ['log_invalid', '255', null, '255'],
  ['log_invalid', '256', 'EINVAL', '0'],
  ['log_invalid', '-1', 'EINVAL', '0'],
  ['udp_timeout', '-1', null, '-1'],
  ['tcp_timeout_close', '-8589934', null, '-8589934'],
  ['tcp_timeout_close', '-8589935', 'EINVAL', '10'],
  ['count', '3', 'EINVAL', '7'],
  ['buckets', '3', 'EPERM', '1000'],
  ['nothing', '3', 'ENOENT', undefined],
] as const)('%s = %s: %s', (name, text, errno, value) => {
  const sysctls = new ConntrackSysctls(() => 7, 1000);
  let changes = 0;
  sysctls.onChange = () => changes++;
  expect(sysctls.set(PREFIX + name, text)).toBe(errno);
  expect(sysctls.get(PREFIX + name)).toBe(value);
  expect(changes).toBe(errno === null ? 1 : 0);
});
