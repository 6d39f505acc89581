/** Whether an update would change an entry: conntrack(8) leaves alone what is already so (mnl_nfct_update_cb). */
import type { EntryChange, EntryRow } from './conntrack.ts';

export function wouldChange(row: EntryRow, change: EntryChange): boolean {
  const { timeoutSeconds, status, state, mark, labels } = change;
  if (timeoutSeconds !== undefined && timeoutSeconds !== row.timeoutSeconds) return true;
  if (status !== undefined && (row.status & status) !== status) return true;
  if (state !== undefined && state !== row.state) return true;
  if (mark !== undefined && changedMark(row.mark, mark) !== row.mark) return true;
  // Whether labels are there already it does not look at; only that nothing can be taken from an entry without any.
  return labels !== undefined && (row.labels !== undefined || BigInt(`0x${labels.value}`) !== 0n);
}

export function changedMark(mark: number, { value, mask }: { readonly value: number; readonly mask: number }): number {
  return ((mark & ~mask) ^ value) >>> 0;
}
