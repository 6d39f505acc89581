/** The file of connection labels' names, which iptables and conntrack read. */
import { readFileSync } from 'node:fs';
import { LABELS_FILE, LabelNames } from '../model/label-names.ts';

/** Undefined: there is none. */
export function readLabelNames(): LabelNames | undefined {
  try {
    return new LabelNames(readFileSync(LABELS_FILE, 'utf8'));
  } catch {
    return undefined;
  }
}
