/** What rules ask of connection tracking (filter/tracking.ts), answered by its tables. */
import { TICKS_PER_SECOND } from '../base/clock.ts';
import type { Conntrack } from '../conntrack/conntrack.ts';
import { MUTED_EXPECTATION } from '../conntrack/entries.ts';
import { HELPER_NAMES, HELPER_PROTOCOLS } from '../conntrack/helper-names.ts';
import type { Template, Tracking } from '../filter/tracking.ts';
import { Status } from '../model/entry-status.ts';

const BOTH = 3;
const ORIGINAL = 1;
const REPLY = 2;
const ZONE = 0xffff;
/** A rule that wants nothing in particular is still one that has said so. */
const NO_TEMPLATE = 0;

export function ruleTracking(conntrack: Conntrack): Tracking {
  /** Number of conntrack's template, by that of the rule and, where the packet's mark is the zone, by zone. */
  const known = new WeakMap<Template, Map<number, number>>();

  const numberOf = (template: Template, mark: number): number => {
    const zone = template.zoneOfMark === null ? 0 : mark & ZONE;
    let byZone = known.get(template);
    if (byZone === undefined) {
      byZone = new Map();
      known.set(template, byZone);
    }
    let number = byZone.get(zone);
    if (number === undefined) {
      number = enter(template, zone);
      byZone.set(zone, number);
    }
    return number;
  };

  /** Rules come and go; templates that say the same are one. */
  const enter = (template: Template, zone: number): number => {
    const helper = numberOfHelper(template.helper);
    const wanted = { ...zonesOf(template, zone), helper, ...eventsOf(template) };
    const { templates } = conntrack;
    const same = templates.findIndex(
      (one, number) =>
        number !== NO_TEMPLATE &&
        one.zone === wanted.zone &&
        one.zoneDirs === wanted.zoneDirs &&
        one.helper === helper &&
        one.hasEvents === wanted.hasEvents &&
        one.muted === wanted.muted,
    );
    return same >= 0 ? same : templates.push(wanted) - 1;
  };

  return {
    acquire: () => conntrack.acquire(),
    release: () => conntrack.release(),
    status: (entry) => conntrack.status(entry),
    tuple: (entry, dir, t) => conntrack.tuple(entry, dir, t),
    mark: (entry) => conntrack.mark(entry),
    setMark: (entry, mark) => conntrack.setMark(entry, mark),
    keepLabels: (keeps) => {
      conntrack.keepsLabels = keeps;
    },
    canHaveLabels: (entry) => conntrack.entries.canHaveLabels(entry),
    hasLabel: (entry, bit) => conntrack.entries.hasLabel(entry, bit),
    setLabel: (entry, bit) => conntrack.setLabel(entry, bit),
    secondsLeft: (entry) =>
      (conntrack.status(entry) & Status.Confirmed) === 0
        ? 0
        : Math.trunc(conntrack.entries.left(entry, conntrack.now) / TICKS_PER_SECOND),
    helperName: (entry) => HELPER_NAMES[conntrack.helper(entry)] ?? '',
    master: (entry) => conntrack.master(entry),
    hasHelper: (name, proto) => HELPER_PROTOCOLS[numberOfHelper(name)] === proto && proto !== 0,
    attach: (p, template) => {
      p.ctTemplate = numberOf(template, p.mark);
    },
  };
}

/** 0 for none, and for one that there is not. */
function numberOfHelper(name: string): number {
  const names: readonly string[] = HELPER_NAMES;
  return Math.max(0, names.indexOf(name));
}

/** One zone, of one direction or of both. */
function zonesOf(
  { originalZone, replyZone, zoneOfMark }: Template,
  markZone: number,
): { zone: number; zoneDirs: number } {
  if (zoneOfMark !== null) {
    return { zone: markZone, zoneDirs: zoneOfMark === '' ? BOTH : zoneOfMark === '-orig' ? ORIGINAL : REPLY };
  }
  if (originalZone === replyZone) return { zone: originalZone, zoneDirs: BOTH };
  return originalZone !== 0 ? { zone: originalZone, zoneDirs: ORIGINAL } : { zone: replyZone, zoneDirs: REPLY };
}

/** A mask that is given says what is wanted, and leaves out all that it does not name (nf_ct_ecache_ext_add). */
function eventsOf({ events, expectationEvents }: Template): { hasEvents: boolean; muted: number } {
  if (events === null && expectationEvents === null) return { hasEvents: false, muted: 0 };
  const expectations = ~((expectationEvents ?? 0) * MUTED_EXPECTATION) & (3 * MUTED_EXPECTATION);
  return { hasEvents: true, muted: (~(events ?? 0) & (MUTED_EXPECTATION - 1)) | expectations };
}
