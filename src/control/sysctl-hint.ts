/** What helps where a sysctl is refused and `Invalid argument` alone would leave the operator without a way: sizes are settled at the start. */

/** Settings that cannot be above the number of rows. */
export const ROW_LIMITS: readonly string[] = ['net.netfilter.nf_conntrack_max', 'net.nf_conntrack_max'];
const SIZES: readonly string[] = [
  'net.netfilter.nf_conntrack_buckets',
  'nf_conntrack.hashsize',
  'nf_conntrack.expect_hashsize',
];

/** '' where there is nothing to add. @param rows tracked connections at most */
export function sysctlHint(key: string, value: string, rows: string | number): string {
  const where = 'limits.entries of the configuration says how many, at the next start';
  if (ROW_LIMITS.includes(key) && Number(value) > Number(rows)) {
    return `there is room for ${rows} tracked connections: ${where}`;
  }
  return SIZES.includes(key) ? `the tables' size is settled at the start: ${where}` : '';
}
