/** Whether an update would change an entry: conntrack(8) leaves alone what is already so (mnl_nfct_update_cb). */
import type { EntryChange, EntryRow } from './conntrack.ts';

export function wouldChange(row: EntryRow, change: EntryChange): boolean {
  const { timeoutSeconds, status, state, mark, labels } = change;
  if (timeoutSeconds !== undefined && timeoutSeconds !== row.timeoutSeconds) return true;
  if (status !== undefined && (row.status & status) !== status) return true;
  if (state !== undefined && state !== row.state) return true;
  if (mark !== undefined && changedMark(row.mark, mark) !== row.mark) return true;
  return labels !== undefined && changedLabels(row.labels, labels) !== (row.labels ?? NO_LABELS);
}

export function changedMark(mark: number, { value, mask }: { readonly value: number; readonly mask: number }): number {
  return ((mark & ~mask) ^ value) >>> 0;
}

const NO_LABELS = '0'.repeat(32);

export function changedLabels(labels: string | undefined, change: NonNullable<EntryChange['labels']>): string {
  const bits = (BigInt(`0x${labels ?? '0'}`) & ~BigInt(`0x${change.mask}`)) ^ BigInt(`0x${change.value}`);
  return bits.toString(16).padStart(32, '0');
}
