/** An entry as a netlink message shows it: some parts only, depending on what the message is about (ctnetlink_fill_info, ctnetlink_conntrack_event). */
import type { CtCounters, CtEventKind, CtTuple, CtZones, EntryEvent, EntryRow } from '../../model/conntrack.ts';

export interface ShownEntry {
  readonly kind?: CtEventKind | undefined;
  readonly id: number;
  readonly original: CtTuple;
  readonly reply: CtTuple;
  readonly status: number;
  readonly zones: CtZones;
  readonly timeoutSeconds?: number | undefined;
  readonly state?: string | undefined;
  readonly tags?: EntryRow['tags'];
  readonly counters?: { readonly original: CtCounters; readonly reply: CtCounters } | undefined;
  readonly mark?: number | undefined;
  readonly labels?: string | undefined;
  readonly helper?: string | undefined;
  readonly started?: string | undefined;
  readonly stopped?: string | undefined;
  readonly use?: number | undefined;
}

/** What an event shows: counters and times at the end only, state and mark when they changed, nobody's use. */
export function shownEvent({ kind, entry, changed }: EntryEvent): ShownEntry {
  const isEnd = kind === 'destroy';
  return {
    kind,
    id: entry.id,
    original: entry.original,
    reply: entry.reply,
    status: entry.status,
    zones: entry.zones,
    timeoutSeconds: isEnd && entry.timeoutSeconds === 0 ? undefined : entry.timeoutSeconds,
    state: isEnd || changed.includes('protoinfo') ? entry.state : undefined,
    tags: isEnd || changed.includes('protoinfo') ? entry.tags : undefined,
    counters: isEnd ? entry.counters : undefined,
    mark: entry.mark !== 0 || (!isEnd && changed.includes('mark')) ? entry.mark : undefined,
    labels: !isEnd && changed.includes('label') ? entry.labels : undefined,
    helper: isEnd ? undefined : entry.helper,
    started: isEnd ? entry.started : undefined,
    stopped: isEnd ? entry.stopped : undefined,
  };
}
